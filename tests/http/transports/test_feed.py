"""The feed over HTTP, between two steps and when a step fails.

A real server can't be brought into these states.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask

from outfeed import log_event
from outfeed.access.rights import Rights
from outfeed.access.store import account
from outfeed.config import Settings
from outfeed.feed.subscriber import Subscriber
from outfeed.history import Page
from outfeed.http.app import create_app
from outfeed.http.server.incoming import SOCKET_KEY
from outfeed.http.transports import connection
from outfeed.principal import Principal
from outfeed.store import checkpoint
from outfeed.store.database import Database
from tests.app_fixtures import Api
from tests.feed.socket_harness import Peer

EVENTS = 5


@pytest.fixture
def flask_app(database: Database) -> Iterator[Flask]:
    for n in range(EVENTS):
        log_event("task.created", "tests", data={"n": n})
    app = create_app(Settings())
    services = app.extensions["outfeed"]
    services.relay.start()
    yield app
    services.mark.close()


@pytest.fixture
def bearer(database: Database) -> dict[str, str]:
    return {"Authorization": f"Bearer {account.create_token(database, 'reader', ['read'])}"}


@pytest.mark.parametrize("query", ["", "?after=99&epoch={epoch}", "?after=2&epoch=other"])
def test_events_committed_after_a_live_or_reset_verdict_are_in_the_next_response(
    flask_app: Flask, bearer: dict[str, str], monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    """The cursor is the verdict's head: clients ignore events of such a page."""
    outbox = flask_app.extensions["outfeed"].outbox
    now = outbox.window()
    monkeypatch.setattr(outbox, "window", lambda: now._replace(last_seq=3))
    page = flask_app.test_client().get(f"/api/feed{query.format(epoch=now.epoch)}", headers=bearer).get_json()
    assert (page["events"], page["cursor"]) == ([], 3)


def test_an_internal_error_ends_the_stream_with_an_error_event(
    flask_app: Flask, bearer: dict[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The stream contains no second response with another status."""

    def fail(*_: Any) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(Subscriber, "advance", fail)
    monkeypatch.setattr(connection, "CLOSE_SECS", 0.0)
    with Peer() as peer:
        with contextlib.suppress(StopIteration):
            flask_app.test_client().get(
                "/api/feed/stream?after=0", headers=bearer, environ_base={SOCKET_KEY: peer.server_end}
            )
        received = b""
        while chunk := peer.socket.recv(1 << 16):
            received += chunk
    assert received.count(b"HTTP/1.1 ") == 1
    assert received.endswith(b'event: closed\ndata: {"code":1011,"reason":"internal server error"}\n\n')
    assert "unforeseen" in caplog.text
    assert not flask_app.extensions["outfeed"].hub.counts()


def _stream(app: Flask, path: str, headers: dict[str, str], peer: Peer) -> None:
    with contextlib.suppress(StopIteration):
        app.test_client().get(path, headers=headers, environ_base={SOCKET_KEY: peer.server_end})


def test_a_permission_revoked_between_the_request_and_the_stream_ends_it(
    flask_app: Flask, bearer: dict[str, str], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = flask_app.extensions["outfeed"]
    services.part(Rights).prepare()
    add = services.hub.add

    def add_late(subscriber: Subscriber) -> None:
        account.revoke_token(database, subscriber.principal.name)
        services.part(Rights).check()
        add(subscriber)

    monkeypatch.setattr(services.hub, "add", add_late)
    monkeypatch.setattr(connection, "CLOSE_SECS", 0.0)
    received = b""
    with Peer() as peer:
        serving = threading.Thread(target=_stream, args=[flask_app, "/api/feed/stream", bearer, peer])
        serving.start()
        try:
            while chunk := peer.socket.recv(1 << 16):
                received += chunk
        finally:
            peer.socket.shutdown(socket.SHUT_RDWR)
            serving.join()
    assert b'data: {"code":4001,' in received


@pytest.mark.parametrize("change", ["removed", "given away"])
def test_a_consumer_removed_between_the_request_and_the_stream_is_not_created_again(
    flask_app: Flask, bearer: dict[str, str], database: Database, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    services = flask_app.extensions["outfeed"]
    services.part(Rights).prepare()
    account.create_token(database, "other", ["read"])
    flask_app.test_client().post("/api/consumers", headers=bearer, json={"name": "cron"})
    add = services.hub.add

    def add_late(subscriber: Subscriber) -> None:
        if change == "removed":
            checkpoint.remove(database, "cron")
        else:
            checkpoint.change_owner(database, "cron", "token:other")
        add(subscriber)

    monkeypatch.setattr(services.hub, "add", add_late)
    monkeypatch.setattr(connection, "CLOSE_SECS", 0.0)
    received = b""
    with Peer() as peer:
        serving = threading.Thread(target=_stream, args=[flask_app, "/api/feed/stream?consumer=cron", bearer, peer])
        serving.start()
        try:
            while b"event: " not in received and (chunk := peer.socket.recv(1 << 16)):
                received += chunk
        finally:
            peer.socket.shutdown(socket.SHUT_RDWR)
            serving.join()
    assert b'event: closed\ndata: {"code":4009,' in received
    owners = [each.owner for each in checkpoint.list_checkpoints(database)]
    assert owners == ([] if change == "removed" else ["token:other"])


def test_closing_ends_a_long_polls_pause_for_its_rate(database: Database) -> None:
    log_event("task.created", "tests")
    app = create_app(Settings(event_rate=0.02))
    services = app.extensions["outfeed"]
    services.relay.start()
    services.hub.close()
    token = account.create_token(database, "reader", ["read"])
    began = time.monotonic()
    page = app.test_client().get("/api/feed?after=0&wait=30", headers={"Authorization": f"Bearer {token}"}).get_json()
    services.mark.close()
    assert len(page["events"]) == 1
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("path", ["/api/feed?after=0", "/api/events?limit=9", "/api/events/export?format=ndjson"])
def test_a_list_contains_the_values_of_all_its_parameters(api: Api, path: str) -> None:
    for event_type in ("a.one", "b.two", "c.three", "d.four"):
        api.post("/api/events", json={"event_type": event_type, "source": "s"})
    name = "types" if "feed" in path else "event_type"
    answer = api.get(f"{path}&{name}=a.one,b.*&{name}=&{name}=c.three")
    assert sorted(re.findall(r"[abcd]\.(?:one|two|three|four)", answer.text)) == ["a.one", "b.two", "c.three"]


@pytest.mark.parametrize(
    "path",
    [
        "/api/feed?after=0&after=0", "/api/feed?source=a&source=b", "/api/feed/stream?task_id=a&task_id=b",
        "/api/events?source=a&source=b", "/api/events/summary?minutes=1&minutes=2", "/api/swarm/tasks?limit=1&limit=2",
    ],
)  # fmt: skip
def test_another_repeated_parameter_is_rejected(api: Api, path: str) -> None:
    answer = api.get(path)
    assert (answer.status_code, answer.json["code"]) == (422, "invalid_field")
    assert "is given 2 times" in answer.json["detail"]


def test_the_principal_is_equal_for_one_credential_with_the_same_permissions(
    flask_app: Flask, database: Database, bearer: dict[str, str]
) -> None:
    other = {"Authorization": f"Bearer {account.create_token(database, 'other', ['read'])}"}
    client = flask_app.test_client()
    mine, again, theirs = (client.get("/api/feed", headers=given).get_json() for given in (bearer, bearer, other))
    assert mine["principal"] == again["principal"] != theirs["principal"]
    reader = Principal("reader", ("read",), "token:1")
    assert reader.fingerprint != replace(reader, types=("task.*",)).fingerprint
    assert reader.fingerprint != replace(reader, scopes=("read", "admin")).fingerprint


def test_a_long_poll_reads_a_copy_that_is_behind_at_intervals(
    flask_app: Flask, bearer: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tail has the next event, and the copy does not have it again yet."""
    outbox = flask_app.extensions["outfeed"].outbox
    behind = outbox.window()._replace(last_seq=3, origin="https://feed.example")
    reads: list[int] = []

    def read_after(seq: int, _: int) -> Page:
        reads.append(seq)
        return Page(behind, [], seq)

    monkeypatch.setattr(outbox, "window", lambda: behind)
    monkeypatch.setattr(outbox, "read_after", read_after)
    answer = flask_app.test_client().get(f"/api/feed?after=4&epoch={behind.epoch}&wait=1", headers=bearer).json
    assert (answer["verdict"], answer["events"], answer["cursor"]) == ("resumed", [], 4)
    assert 2 <= len(reads) < 10
