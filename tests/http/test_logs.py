"""Log lines: JSON or text, without secrets and without repetitions."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from outfeed import clock
from outfeed.config import Settings
from outfeed.http import logs
from outfeed.http.app import create_app
from outfeed.log_message import LogMessage
from outfeed.store.database import Database

log = logging.getLogger("app.tests")


@pytest.fixture
def lines(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """Return the output of a handler like that of `serve`."""
    stream = io.StringIO()
    handler = logs.Handler(stream)
    handler.setFormatter(logs.formatter(Settings(log_format=getattr(request, "param", "json"))))
    log.addHandler(handler)
    yield stream
    log.removeHandler(handler)


@pytest.fixture
def client(database: Database) -> FlaskClient:
    app: Flask = create_app(Settings(database=database.path))
    app.before_request(lambda: log.warning(LogMessage("asked", path="/x")))
    return app.test_client()


def objects(lines: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.getvalue().splitlines()]


def test_named_values_become_fields(lines: io.StringIO) -> None:
    log.warning(LogMessage("client closed", code=4001, reason="signed out"))
    (found,) = objects(lines)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found.pop("time"))
    assert found == {
        "level": "WARNING", "logger": "app.tests", "message": "client closed", "code": "4001", "reason": "signed out",
    }  # fmt: skip


@pytest.mark.parametrize("lines", ["text"], indirect=True)
def test_named_values_appear_in_a_line_of_text(lines: io.StringIO) -> None:
    log.warning(LogMessage("client closed", code=4001, reason="signed out"))
    assert lines.getvalue().endswith(" WARNING app.tests client closed code=4001 reason=signed out\n")


def test_a_field_does_not_overwrite_a_standard_field(lines: io.StringIO) -> None:
    log.warning(LogMessage("asked", message="no", level="no", time="no"))
    (found,) = objects(lines)
    assert (found["message"], found["level"]) == ("asked", "WARNING")
    assert found["time"] != "no"


def test_a_message_of_another_class_is_written_unchanged(lines: io.StringIO) -> None:
    log.warning("100 %% of %d events", 7)
    log.warning("at %s path=%s", "once", "/x")
    assert [each["message"] for each in objects(lines)] == ["100 % of 7 events", "at once path=/x"]


def test_a_traceback_and_line_ends_stay_in_one_json_line(lines: io.StringIO) -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        log.exception("failed")
    (found,) = objects(lines)
    assert "Traceback" in found["exc_info"]


@pytest.mark.parametrize("lines", ["json", "text"], indirect=True)
def test_secrets_are_hidden(lines: io.StringIO) -> None:
    log.warning(LogMessage("asked", path="/login?code=guess-this", header="Authorization: Bearer abcdef0123456789"))
    log.warning("again path=%s header=%s", "/login?code=guess-this", "Authorization: Bearer abcdef0123456789")
    assert "guess-this" not in lines.getvalue()
    assert "abcdef0123456789" not in lines.getvalue()


@pytest.mark.parametrize(
    ("lines", "shape"), [("json", '"request": "{}"'), ("text", " request={}\n")], indirect=["lines"]
)
def test_a_line_contains_the_id_of_its_request(lines: io.StringIO, shape: str, client: FlaskClient) -> None:
    made = client.get("/healthz").headers[logs.HEADER]
    assert shape.format(made) in lines.getvalue()
    given = client.get("/healthz", headers={logs.HEADER: "from-the-proxy.1"}).headers[logs.HEADER]
    assert given == "from-the-proxy.1"
    assert client.get("/healthz", headers={logs.HEADER: "no good\tid"}).headers[logs.HEADER] != "no good\tid"


def test_a_repeated_line_is_counted_and_not_written(lines: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    now = clock.monotonic()
    monkeypatch.setattr(clock, "monotonic", lambda: now)
    for _ in range(4):
        log.warning(LogMessage("not yet", error="50 % full"))
        log.info("a happening")
    log.warning(LogMessage("not yet", error="another"))
    now += logs.REPEAT_SECS
    log.warning(LogMessage("not yet", error="50 % full"))
    said = [line for line in objects(lines) if line["level"] == "WARNING"]
    assert len(said) == 3
    assert (said[2]["error"], said[2]["repeated"]) == ("50 % full", "3")


@pytest.mark.parametrize("lines", ["text"], indirect=True)
def test_other_handlers_receive_the_original_record(
    lines: io.StringIO, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, client: FlaskClient
) -> None:
    now = clock.monotonic()
    monkeypatch.setattr(clock, "monotonic", lambda: now)
    for _ in range(2):
        log.warning("not yet error=%s", "locked")
    now += logs.REPEAT_SECS
    log.warning("not yet error=%s", "locked")
    client.get("/healthz")
    assert "not yet error=locked repeated=1\n" in lines.getvalue()
    assert "asked path=/x request=" in lines.getvalue()
    assert [(each.getMessage(), each.args) for each in caplog.records] == [
        *[("not yet error=locked", ("locked",))] * 3,
        ("asked path=/x", ()),
    ]


def test_a_line_that_cannot_be_written_raises_no_error(
    lines: io.StringIO, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "propagate", False)
    log.warning("%d events", "no number")
    assert lines.getvalue() == ""
    assert "--- Logging error ---" in capsys.readouterr().err


def test_a_terminal_gets_text_and_a_pipe_gets_json(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(logs.formatter(Settings()), logs.JsonFormatter)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert isinstance(logs.formatter(Settings()), logs.TextFormatter)
    assert isinstance(logs.formatter(Settings(log_format="json")), logs.JsonFormatter)


@pytest.mark.parametrize("lines", ["text"], indirect=True)
def test_control_characters_in_a_message_are_escaped(lines: io.StringIO) -> None:
    hostile = "/x\x1b[2J\n2026-01-01 INFO outfeed all is well\r\u202e"
    log.warning("asked path=%s", hostile)
    try:
        raise ValueError(hostile)
    except ValueError:
        log.exception("failed path=%s", hostile)
    first, *traceback = lines.getvalue().splitlines()
    assert first.endswith(r"asked path=/x\x1b[2J\n2026-01-01 INFO outfeed all is well\r\u202e")
    assert not set(lines.getvalue()) & {"\x1b", "\r", "\u202e"}
    assert [line for line in traceback if not line.startswith("    ")] == traceback[:1]
