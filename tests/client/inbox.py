"""An HTTP server that gives one answer a request, and events for it."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.client.scripted_feed import EPOCH


class Inbox:
    """An HTTP server that gives one answer a request.

    None: it accepts the request and closes the connection.
    """

    def __init__(self, *answers):
        self.answers, self.bodies = list(answers), []

    def __enter__(self):
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                inbox.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                answer = inbox.answers.pop(0)
                if answer is None:
                    self.close_connection = True
                    return
                status, headers, body = answer
                body = (
                    b"[" * 100_000
                    if body == "deep"
                    else json.dumps(receipts(inbox.bodies[-1]) if body is None else body).encode()
                )
                self.send_response(status)
                for name, value in {**headers, "Content-Length": len(body)}.items():
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def receipts(events):
    return [{"id": one["id"], "seq": 1, "epoch": EPOCH} for one in events]


TAKEN = (201, {}, None)
EVENT = {"event_type": "a.b", "source": "s"}
