"""The reader of a connection: which message answers a request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

import pytest

from outfeed.errors import Unreachable
from outfeed.verify import server
from outfeed.verify.model import Breach, Model, StartAt, ToldVerdict
from outfeed.verify.server import Reader, VerifiedServer
from outfeed.verify.transports import TRANSPORTS, Told, TransportClient

VERDICT = Told("verdict", 0, [], cursor=5, verdict=ToldVerdict("live", "a", 5, 5))


class FinishedConnection:
    """A connection whose messages have all arrived."""

    resumes = False

    def __init__(self, *messages: Told) -> None:
        self._messages = list(messages)

    def receive(self, timeout: float) -> Told | None:
        return self._messages.pop(0) if self._messages else None


class GarbledConnection(TransportClient):
    """A connection whose second message has no known form."""

    transport = "garbled"

    def _open(self) -> None:
        pass

    def _read(self) -> Iterator[Told]:
        yield VERDICT
        yield Told(**json.loads('{"kind": "events"}'))

    def _disconnect(self) -> None:
        pass

    def _free(self) -> None:
        pass


def reader_of(*messages: Told) -> Reader:
    connection = cast(TransportClient, FinishedConnection(VERDICT, *messages))
    return Reader(connection, Model(StartAt(), lambda *_: []))


def error(**fields: Any) -> Told:
    return Told("error", 0, [], fields=fields)


def test_each_request_takes_a_new_message_as_its_answer() -> None:
    reader = reader_of(error(code="first"), error(code="second"))
    assert [reader.answer("error", "M1").fields["code"] for _ in range(2)] == ["first", "second"]


@pytest.mark.parametrize("kind", ["verdict", "error"])
def test_an_earlier_message_answers_no_request(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PATIENCE_SECS", 0)
    reader = reader_of(error(code="first"))
    reader.answer("error", "M1")
    with pytest.raises(Breach, match=f"no {kind} came"):
        reader.answer(kind, "M1")


def test_a_message_that_can_not_be_read_ends_the_connection_and_is_shown() -> None:
    with GarbledConnection("http://127.0.0.1:9", None) as connection, pytest.raises(Breach, match="can't be read"):
        Reader(connection, Model(StartAt(), lambda *_: [])).until(6)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_server_that_does_not_answer_is_named(transport: type[TransportClient]) -> None:
    server_at = VerifiedServer("http://127.0.0.1:9", None)
    with pytest.raises(Unreachable, match=r"^http://127\.0\.0\.1:9 does not answer"), server_at.reader(transport):
        pass
    server_at.close()
