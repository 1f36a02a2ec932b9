"""Concurrent producers for `/api/events`, each on its own connection."""

from __future__ import annotations

import http.client
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from scripts.benchmarks import event
from scripts.benchmarks.errors import LoadError


def produce(address: str, token: str, producers: int, batch: int, posts: int) -> float:
    """Have each producer post *posts* times *batch* events.

    Returns the seconds. Raises LoadError.
    """
    body, ready = make_body(batch), threading.Barrier(producers + 1)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    with ThreadPoolExecutor(producers) as pool:
        running = [pool.submit(post_all, address, headers, body, posts, ready) for _ in range(producers)]
        ready.wait(60)
        began = time.monotonic()
        for each in running:
            each.result()
        return time.monotonic() - began


def make_body(batch: int) -> bytes:
    """Return *batch* events without id and timestamp: the server adds them."""
    row = {name: value for name, value in event.make(1, 0).items() if name not in ("id", "timestamp")}
    return json.dumps([row] * batch if batch > 1 else row).encode()


def post_all(address: str, headers: dict[str, str], body: bytes, posts: int, ready: threading.Barrier) -> None:
    """Post *posts* times. Repeat a post that a busy server rejects (503)."""
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.connect()
    ready.wait(60)
    while posts:
        connection.request("POST", "/api/events", body, headers)
        response = connection.getresponse()
        answer = response.read()
        if response.status == 503:
            time.sleep(float(response.headers.get("Retry-After", 1)))
        elif response.status != 201:
            raise LoadError(f"POST /api/events answered {response.status}: {answer[:200]!r}")
        else:
            posts -= 1
    connection.close()
