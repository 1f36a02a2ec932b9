"""A callback for each event, as ADR 022's Option A: FastAPI stores the row, then sends it to each client in turn.

Only the row is durable: what a client missed, it missed.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

_COLUMNS = ("id", "event_type", "source", "task_id", "agent_id", "data", "timestamp")
_TABLE = """
CREATE TABLE event_log (
    id TEXT PRIMARY KEY, event_type TEXT NOT NULL, source TEXT NOT NULL, task_id TEXT, agent_id TEXT, data TEXT,
    timestamp TEXT NOT NULL
)
"""


class Broadcaster:
    """The ancestor's event broadcaster: every event is sent by a task of its own."""

    def __init__(self) -> None:
        self.subscribers: list[WebSocket] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def on_event_logged(self, event: dict[str, Any]) -> None:
        """Start to send *event*, without waiting."""
        task = asyncio.create_task(self._send({"type": "event", "payload": event}))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, message: dict[str, Any]) -> None:
        for websocket in list(self.subscribers):
            await websocket.send_json(message)


def connect(path: Path) -> sqlite3.Connection:
    """Open a new database as durable as Outfeed's."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(_TABLE)
    return connection


def create_app(connection: sqlite3.Connection) -> FastAPI:
    """Return the application: one way in, one way out."""
    app, broadcaster = FastAPI(), Broadcaster()
    insert = f"INSERT INTO event_log ({', '.join(_COLUMNS)}) VALUES ({', '.join(':' + name for name in _COLUMNS)})"

    @app.post("/events", status_code=201)
    async def log_event(event: dict[str, Any]) -> dict[str, Any]:
        connection.execute(insert, event | {"data": json.dumps(event["data"])})
        broadcaster.on_event_logged(event)
        return {"id": event["id"]}

    @app.websocket("/ws")
    async def subscribe(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive_json()
        await websocket.send_json({"type": "subscribed", "payload": {"channel": "events"}})
        broadcaster.subscribers.append(websocket)
        with suppress(WebSocketDisconnect):
            await websocket.receive_text()
        broadcaster.subscribers.remove(websocket)

    return app


def main(port: int, folder: Path) -> None:
    """Serve until killed."""
    app = create_app(connect(folder / "callback.db"))
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False, ws_ping_interval=None)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
