"""The request line: as long as the API's schemas allow, and no longer."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from flask import Flask

from outfeed.http.api import openapi
from outfeed.http.headers import HEADERS
from outfeed.http.server.assembly import MAX_REQUEST_LINE_BYTES
from tests.server import Server

MAX_ENCODED_BYTES = 12  # one character in UTF-8: four bytes, each as %XX
OTHER_BYTES = 64  # a number, a date or a word of a list
HAN = "界"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("line")) as running:
        yield running


def ask(server: Server, target: str) -> tuple[int, Any, dict[str, str]]:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        connection.request("GET", target, headers={"Authorization": f"Bearer {server.token}"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read()), dict(answer.headers)


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/api/events", {"text": HAN * 1000}),
        ("/api/events", {"source": "😀" * 1000, "task_id": "😀" * 1000, "agent_id": "😀" * 1000}),
        ("/api/events", {"event_type": ",".join(HAN * 200 for _ in range(100))}),
        ("/api/events", {"id": HAN * 1000}),
        ("/api/feed", {"types": ",".join(f"{'x' * 38}.{n:02}" for n in range(100))}),
        ("/api/feed", {"types": ",".join(f"{'😀' * 196}{n:02}" for n in range(100))}),
        ("/api/events/export", {"format": "csv", "text": HAN * 1000}),
    ],
)
def test_the_longest_request_of_the_schemas_is_accepted(server: Server, path: str, query: dict[str, str]) -> None:
    with server.http() as client, closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as raw:
        assert client.base_url
        raw.request("GET", f"{path}?{urlencode(query)}", headers={"Authorization": f"Bearer {server.token}"})
        assert raw.getresponse().status == 200


def test_a_sign_in_with_the_longest_target_is_accepted(server: Server) -> None:
    query = urlencode({"text": HAN * 1000, "type": "x" * 200})
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as raw:
        raw.request("GET", f"/swarm/events?{query}", headers={"Accept": "text/html"})
        answer = raw.getresponse()
        answer.read()
        raw.request("GET", answer.headers["Location"])
        page = raw.getresponse()
        assert page.status == 200
        assert quote(HAN) in page.read().decode()


def test_no_schema_allows_a_longer_request_line(flask_app: Flask) -> None:
    paths = openapi.document(flask_app)["paths"]
    sizes = {
        f"{method} {path}": len(path)
        + sum(len(one["name"]) + 2 + size_of(one["schema"]) for one in operation["parameters"])
        for path, operations in paths.items()
        for method, operation in operations.items()
    }
    assert {name: size for name, size in sizes.items() if size > MAX_REQUEST_LINE_BYTES - 100} == {}
    assert max(sizes.values()) > 200_000


def size_of(schema: dict[str, Any]) -> int:
    """Return how many bytes the longest value takes in a URL."""
    if schema.get("type") == "array":
        return int(schema["maxItems"]) * (size_of(schema["items"]) + len("%2C"))
    if schema.get("type") != "string" or "enum" in schema or "format" in schema or "const" in schema:
        return OTHER_BYTES
    return MAX_ENCODED_BYTES * int(schema["maxLength"])


@pytest.mark.parametrize("length", [MAX_REQUEST_LINE_BYTES, 4 * MAX_REQUEST_LINE_BYTES])
def test_a_longer_request_line_is_a_problem_with_the_security_headers(server: Server, length: int) -> None:
    status, body, headers = ask(server, "/api/events?text=" + "x" * length)
    assert (status, headers["Content-Type"]) == (414, "application/problem+json")
    assert (body["status"], body["title"]) == (414, "Request-URI Too Long")
    assert f"{MAX_REQUEST_LINE_BYTES:,} bytes" in body["detail"]
    assert HEADERS.items() <= headers.items()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\x00: x\r\n\r\n", 400),
        (b"<script> / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 9000 + b"\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: nonsense\r\n\r\n", 501),
    ],
)
def test_another_malformed_request_is_a_problem_too(server: Server, request_: bytes, status: int) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 30) as raw:
        raw.sendall(request_)
        head, _, body = b"".join(iter(lambda: raw.recv(65_536), b"")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert json.loads(body)["status"] == status
    assert b"script" not in body
    for name in HEADERS:
        assert re.search(rf"^{name}:".encode(), head, re.MULTILINE)
