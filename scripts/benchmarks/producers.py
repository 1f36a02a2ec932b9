"""Producers that post to `/api/events` at once, each on a connection of its own; prints the seconds as JSON.

The order: {"address", "token", "producers", "batch" (events a post; 1: an object), "posts" (of each producer)}.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from scripts.benchmarks import event

MAX_TRIES = 100


def produce(order: dict[str, Any]) -> float:
    """Return the seconds from the moment all are connected until the last post is answered."""
    body, ready = make_body(order["batch"]), threading.Barrier(order["producers"] + 1)
    with ThreadPoolExecutor(order["producers"]) as pool:
        running = [pool.submit(post_all, order, body, ready) for _ in range(order["producers"])]
        ready.wait(60)
        began = time.monotonic()
        for each in running:
            each.result()
        return time.monotonic() - began


def make_body(batch: int) -> bytes:
    """Return *batch* events without id and timestamp, which the server then gives them."""
    named = event.make(1, time.time_ns())
    row = {name: value for name, value in named.items() if name not in ("id", "timestamp")}
    return json.dumps([row] * batch if batch > 1 else row).encode()


def post_all(order: dict[str, Any], body: bytes, ready: threading.Barrier) -> None:
    """Post as often as the order says."""
    connection = http.client.HTTPConnection(order["address"], timeout=60)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {order['token']}"}
    connection.connect()
    ready.wait(60)
    for _ in range(order["posts"]):
        post(connection, body, headers)
    connection.close()


def post(connection: http.client.HTTPConnection, body: bytes, headers: dict[str, str]) -> None:
    """Post once; where the server is busy (503), as often as it takes. Raises OSError."""
    for _ in range(MAX_TRIES):
        connection.request("POST", "/api/events", body, headers)
        response = connection.getresponse()
        answer = response.read()
        if response.status == 201:
            return
        if response.status != 503:
            break
        time.sleep(float(response.headers.get("Retry-After", 1)))
    raise OSError(f"POST /api/events answered {response.status}: {answer[:200]!r}")


def main() -> None:
    """Produce, and report an error as the answer."""
    try:
        print(json.dumps({"seconds": produce(json.loads(sys.argv[1]))}))
    except OSError as error:
        print(json.dumps({"error": type(error).__name__, "message": str(error)}))


if __name__ == "__main__":
    main()
