"""A scripted server on the `websockets` library, and a reader.

It is for cases that a real server cannot produce.
"""

import http
import json
import threading

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

from outfeed.client import Client

EPOCH = "e1"


class Close(tuple):
    """A step of a script: close with this code and reason."""

    __slots__ = ()


class Answer(tuple):
    """A step of a script: refuse the handshake with status and headers."""

    __slots__ = ()


class Raw(str):
    """A step of a script: send this text."""

    __slots__ = ()


RESUBSCRIBED = object()  # in a script: wait for another subscribe frame


def verdict(kind="live", after=0, epoch=EPOCH, **more):
    payload = {"channel": "events", "epoch": epoch, "verdict": kind, "after": after, "head": 99, **more}
    return {"type": "subscribed", "payload": payload}


def event(seq, prev=None, **more):
    return {"type": "event", "seq": seq, "prev": seq - 1 if prev is None else prev, "payload": {"id": str(seq), **more}}


class Feed:
    """A server that plays one script per connection.

    It stays silent after the end of the script.
    """

    def __init__(self, *scripts):
        self._scripts = list(scripts)
        self._is_over = threading.Event()
        self.subscriptions = []
        self.tokens = []

    def __enter__(self):
        self._server = serve(self._play, "127.0.0.1", 0, process_request=self._admit)
        self.url = f"http://127.0.0.1:{self._server.socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._is_over.set()
        self._server.shutdown()
        self._thread.join()

    def _admit(self, connection, request):
        self.tokens.append(request.headers.get("Authorization"))
        assert request.path == "/ws"
        if not isinstance(self._scripts[0], Answer):
            return None
        status, *headers = self._scripts.pop(0)
        response = connection.respond(http.HTTPStatus(status), "no")
        response.headers.update(headers[0] if headers else {})
        return response

    def _play(self, connection):
        try:
            self.subscriptions.append(json.loads(connection.recv()))
            for item in self._scripts.pop(0):
                if item is RESUBSCRIBED:
                    self.subscriptions.append(json.loads(connection.recv()))
                elif isinstance(item, Close):
                    connection.close(*item)
                else:
                    connection.send(item if isinstance(item, Raw) else json.dumps(item))
            self._is_over.wait()
        except ConnectionClosed:
            pass  # the client has disconnected; the test checks what it received


class Reader:
    """A feed with all events and texts that it gave."""

    def __init__(self, feed, until, on_told=lambda _: None, **options):
        self.seqs, self.told, self.missing = [], [], []
        self._until = until
        self.feed = Client(feed.url, "secret").follow(
            on_missing=self.missing.append,
            on_connection=lambda text: (self.told.append(text), on_told(text)),
            **options,
        )

    def run(self):
        with self.feed:
            for event in self.feed:
                self.seqs.append(event.seq)
                if event.seq == self._until:
                    break
        return self
