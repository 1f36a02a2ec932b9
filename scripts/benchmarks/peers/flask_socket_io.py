"""A broadcast with Flask-SocketIO under gevent: an event comes by POST and is emitted to all. Nothing is stored."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402

from flask import Flask, request  # noqa: E402
from flask_socketio import SocketIO  # noqa: E402

app = Flask(__name__)
# Its pings are text, which a client that only reads events does not answer.
socketio = SocketIO(app, async_mode="gevent", ping_interval=3600)


@socketio.on("connect")
def subscribe() -> None:
    """Say that events follow."""
    socketio.emit("subscribed", {"channel": "events"}, to=request.sid)


@app.post("/events")
def publish() -> tuple[str, int]:
    """Emit one event to all."""
    socketio.emit("event", request.get_json())
    return "", 201


if __name__ == "__main__":
    socketio.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_output=False)
