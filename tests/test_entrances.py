"""Hostile input at every entrance.

Each kind goes over all routes, parameters, fields, headers, commands and settings. tests/entrances.py lists them from
the program, so a new one is tried here without another line. tests/journeys/test_entrances.py has the entrances that
need a socket.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import logging
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from werkzeug.test import TestResponse

from outfeed import clock, config
from outfeed.access.store import account
from outfeed.cli import main
from outfeed.config import Settings
from outfeed.errors import ConfigError
from outfeed.http import deadlines, logs
from outfeed.http.app import MAX_BODY_BYTES, create_app
from outfeed.log.store.indexer import Indexer
from outfeed.store import database as db
from outfeed.store import deadline, event_log
from outfeed.upkeep import backup
from outfeed.webhooks.message import Message
from tests import entrances
from tests.http.visitors import bearer, show_tokens_and_names, signed_in
from tests.server import make_database

# C0, DEL, C1, a mark of direction and a line separator; no terminal and no log may get one of them as it is.
CONTROL = "a\x1b[2J\x07\x08\x7f\x9b31m\u202e\u2028\rb\nc"
DEEP = ["[" * 70 + "]" * 70, '{"a":' * 970 + "1" + "}" * 970, "[" * 100_000]
NUMBERS = ["-1", "9223372036854775808", "1" * 5000, "1e999"]
LONG = "x" * 60_000
MAX_PROBLEM_CHARS = 20_000
NO_ROOM = {"tail", "simulate", "serve"}  # these commands run on; they have tests of their own


class House:
    """An app, an event in its log, and what the app has logged."""

    def __init__(self, database: Any) -> None:
        self.database = database
        event_log.record(database, [{"id": "known", "event_type": "a.b", "source": "s"}], 65_536)
        self.app = create_app(Settings(database=database.path, requests_per_minute=0, sign_ins_per_minute=0))
        self.app.extensions["outfeed"].hub.close()  # or long polls would wait, and exports go on
        show_tokens_and_names(self.app)
        self.program = bearer(self.app, account.create_token(database, "tests", ["admin"]))
        self.person = signed_in(self.app, database)
        listed = [each for each in entrances.places(self.app) if each.rule not in ("/ws", "/csrf", "/who")]
        self.places = list(entrances.places_read(self.app, listed, self.visit))
        self.lines = io.StringIO()

    def visit(self, method: str, path: str, **more: Any) -> TestResponse:
        """Ask as a person if a form is posted, otherwise as a program.

        An export of a server that ends is cut off.
        """
        visitor = self.person if "form" in more.pop("kind", "") else self.program
        try:
            return visitor(method, path, **more)
        except ConnectionResetError:
            return TestResponse([b""], "200 OK", {}, None)  # type: ignore[arg-type]
        finally:
            if path == "/logout":
                self.person = signed_in(self.app, self.database)

    def at(self, place: entrances.Place, value: str) -> TestResponse:
        method, path, options = place.request(value)
        return self.visit(method, path, kind=place.kind, **options)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, upgraded: Path) -> Iterator[House]:
    path = tmp_path_factory.mktemp("entrances") / "outfeed.db"
    path.write_bytes(upgraded.read_bytes())
    found = House(db.at(path))
    handler = logs.Handler(found.lines)
    handler.setFormatter(logs.formatter(Settings(log_format="text")))
    logging.getLogger().addHandler(handler)
    yield found
    logging.getLogger().removeHandler(handler)
    db.at(path).close()


def is_clean(text: str) -> bool:
    return all(char.isprintable() or char in "\n\t" for char in text)


def wrong(house: House, tried: Iterable[entrances.Place], values: Iterable[str]) -> list[str]:
    """Return the places that answer a value badly.

    With an internal error, with control characters, or at length.
    """
    found = []
    for place in tried:
        for value in values:
            answer = house.at(place, value)
            is_problem = (answer.mimetype or "").endswith("problem+json")
            if answer.status_code in (500, 502, 504) or (is_problem and not is_clean(answer.text)):
                found.append(f"{answer.status_code} {place} {value[:20]!r}")
            elif is_problem and len(answer.text) > MAX_PROBLEM_CHARS:
                found.append(f"{len(answer.text)} characters {place} {value[:20]!r}")
    return found


class TestHttp:
    def test_the_list_has_every_route_and_every_header_that_the_code_reads(self, house: House) -> None:
        routes = {(method, rule.rule) for rule in house.app.url_map.iter_rules() for method in rule.methods or ()}
        assert {rule for _, rule in routes} - {each.rule for each in house.places} == WITHOUT_INPUT
        assert entrances.headers_in_code() - {name.lower() for name in entrances.HEADERS} == set()

    def test_a_name_is_tried_at_the_routes_that_read_it_and_another_at_each(self, house: House) -> None:
        names = defaultdict(list)
        for each in house.places:
            names[each.method, each.rule, each.kind].append(each.name)
        assert set(names["GET", "/swarm/events", "query"]) == set(entrances.page_parameters())
        assert names["GET", "/docs/search", "query"][:-1] == ["q"]
        assert set(names["POST", "/admin/tokens", "form"][:-1]) >= {"expires", "name", "scopes", "types"}
        assert len(names["GET", "/status", "query"]) == 1

    def test_nesting(self, house: House) -> None:
        fields = [each for each in house.places if each.kind == "field"]
        texts = [each for each in house.places if each.kind in ("query", "form")]
        assert wrong(house, fields, DEEP) + wrong(house, texts, ["[" * 2000]) == []
        whole = [
            f"{answer.status_code} {method} {path}"
            for method, path in {(each.method, each.request("1")[1]) for each in fields}
            for body in DEEP
            for media_type in ("application/json", "application/x-ndjson")
            if (answer := house.visit(method, path, data=body, content_type=media_type)).status_code >= 500
        ]
        assert whole == []

    def test_a_body_beyond_the_bound_of_nesting_is_refused_as_such(self, house: House) -> None:
        house.program("POST", "/api/views", json={"name": "Jobs", "query": "job"})  # the view 1 of the paths
        answers = {
            place: house.at(place, DEEP[0])
            for place in house.places
            if place.kind == "field"
            and place.name != "x"
            and place.rule != "/v1/logs"  # whose levels are not the data's
        }
        assert len(answers) > 15
        assert {str(place): answer.text for place, answer in answers.items() if "nested" not in answer.text} == {}
        assert {answer.status_code for answer in answers.values()} == {422}

    def test_huge_numbers(self, house: House) -> None:
        numbers = [each for each in house.places if each.kind in ("query", "field")]
        texts = [each for each in house.places if each.kind in ("path", "form")]
        assert wrong(house, numbers, NUMBERS) + wrong(house, texts, ["9" * 400]) == []

    def test_control_characters(self, house: House) -> None:
        fields = [each for each in house.places if each.kind == "field"]
        others = [each for each in house.places if each.kind != "field"]
        assert wrong(house, fields, [json.dumps(CONTROL), json.dumps("\0"), '"\\ud800"']) == []
        assert wrong(house, others, [CONTROL, "\0"]) == []
        names = {(each.method, each.rule): each._replace(kind="query", name=CONTROL) for each in others}
        assert wrong(house, [each for each in names.values() if "form" not in each.kind], ["x"]) == []
        assert is_clean(house.lines.getvalue())

    def test_oversized_texts(self, house: House) -> None:
        fields = [each for each in house.places if each.kind == "field"]
        others = [each for each in house.places if each.kind != "field"]
        assert wrong(house, fields, [json.dumps(LONG)]) + wrong(house, others, [LONG]) == []

    def test_a_body_beyond_the_limit_is_refused_by_every_route_that_reads_one(self, house: House) -> None:
        body = b"[" + b" " * MAX_BODY_BYTES + b"]"
        reading = {(each.method, each.request("1")[1]) for each in house.places if each.kind == "field"}
        answers = {
            f"{method} {path}": house.visit(method, path, data=body, content_type="application/json").status_code
            for method, path in reading
        }
        assert {status for status in answers.values() if status >= 500 or status < 400} <= {200, 201, 303}
        assert all(answers[f"POST {path}"] == 413 for path in ("/api/events", "/api/consumers", "/api/swarm/tasks"))

    @pytest.mark.parametrize("name", sorted(entrances.HEADERS))
    def test_headers(self, house: House, name: str) -> None:
        hostile = [CONTROL.replace("\r", "").replace("\n", ""), "9" * 5000, "e:" + "9" * 400, "\xb2", "[" * 2000, LONG]
        for value in hostile:
            carried = value.encode("latin-1", "ignore").decode("latin-1")
            for path in (
                "/api/events",
                "/api/feed?after=0",
                "/swarm/events",
                "/static/outfeed.css",
                "/login",
                "/nowhere",
            ):
                assert house.program("GET", path, {name: carried}).status_code < 500, (path, value[:20])
        assert is_clean(house.lines.getvalue())

    def test_a_query_that_takes_too_long_ends_on_every_route_that_reads(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(deadlines, "QUERY_SECS", 0.0)
        monkeypatch.setattr(deadline, "STEPS", 1)
        answers = {}
        for rule in house.app.url_map.iter_rules():
            for method in (rule.methods or set()) & {"GET"}:
                path = entrances.Place(method, rule.rule, "", "").request("")[1]
                answers[rule.rule] = house.visit(method, path).status_code
        reads_nothing = {rule for rule, status in answers.items() if status != 503}
        assert reads_nothing == READS_NOTHING


# Routes that take nothing from outside; /ws and the two of the tests have none here.
WITHOUT_INPUT = {
    "/healthz", "/healthz/", "/readyz", "/readyz/", "/metrics", "/api/openapi.json", "/api/docs", "/api/swarm",
    "/api/types", "/manifest.webmanifest",
    "/ws", "/csrf", "/who",
}  # fmt: skip
# Routes whose answer takes no query of SQLite's. A stream has no deadline, and an export one for each of its pieces.
READS_NOTHING = {
    "/", "/admin/backups/<name>", "/admin/doctor", "/admin/targets/add",
    "/api/docs", "/api/openapi.json", "/docs", "/docs/<topic>", "/docs/search", "/healthz", "/healthz/",
    "/manifest.webmanifest", "/mcp",
    "/password", "/static/<path:name>", "/static/v-<version>/<path:name>", "/ws", "/csrf", "/who", "/api/feed/stream",
    "/api/events/export",
}  # fmt: skip


# --- rows of raw writers ----------------------------------------------------------------------------------------------

COLUMNS = ("event_type", "source", "task_id", "agent_id", "data", "timestamp")
ROWS: dict[str, list[object]] = {
    "nesting": [*DEEP[1:], '{"message": ' + "[" * 990 + "]" * 990 + "}"],
    "huge numbers": [2**63 - 1, 9e999, "1" * 5000, '{"bid_sats": ' + "9" * 5000 + ', "n": [-1e999]}', "[NaN]"],
    "control characters": [CONTROL, json.dumps({"message": CONTROL, "description": CONTROL}), b"\xff\x1b", "a\0b"],
    "oversized texts": ["x" * 70_000, json.dumps({"message": "x" * 70_000}), json.dumps({"x" * 9000: 1})],
}
TYPES = ("task.created", "system.info", "x.y")
READERS = (["events"], ["events", "--json"], ["status"], ["doctor"], ["prune", "--older-than-days", "0"])


@pytest.fixture(scope="module", params=ROWS)
def littered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house whose log has a row of the kind in each column."""
    path = tmp_path_factory.mktemp("littered") / "outfeed.db"
    make_database(path)
    fine = {"source": "s", "task_id": "task-1", "agent_id": "agent-1", "data": None, "timestamp": clock.timestamp()}
    with contextlib.closing(sqlite3.connect(path)) as raw, raw:
        for number, value in enumerate(ROWS[request.param]):
            for column, event_type in itertools.product(COLUMNS, TYPES):
                row = {"id": f"{number}-{column}-{event_type}", "event_type": event_type, **fine, column: value}
                marks = ", ".join("?" * len(row))
                raw.execute(f"INSERT INTO event_log ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))
    Indexer(db.at(path)).run()
    yield House(db.at(path))
    db.at(path).close()


def test_rows_of_a_raw_writer_fail_no_route(littered: House) -> None:
    found = {place._replace(kind="").request("")[1] for place in littered.places if place.method == "GET"}
    named = {path.replace("known", name) for path in found for name in ("task-1", "agent-1", "0-data-x.y")}
    queries = {"/api/events?limit=1000", "/api/feed?after=0&limit=1000", "/swarm/events?text=a*"}
    left_out = {"/ws", "/csrf", "/who", "/readyz", "/readyz/", "/api/feed/stream"}
    for path in (named | queries | WITHOUT_INPUT) - left_out:
        answer = littered.visit("GET", path)
        assert answer.status_code < 500, path
        if (answer.mimetype or "").endswith("json"):
            json.loads(answer.data, parse_constant=pytest.fail)
    for name in ("0-data-x.y", "1-event_type-x.y"):  # it is compared with what is there
        again = littered.visit("POST", "/api/events", json={"id": name, "event_type": "x.y", "source": "s", "data": 1})
        assert again.status_code == 409


def test_rows_of_a_raw_writer_fail_no_reader_of_the_feed(littered: House) -> None:
    items = littered.app.extensions["outfeed"].outbox.read_after(0, 1000).items
    assert items  # a page is bounded in bytes
    for item in items:
        assert len(item.json) < 70_000
        json.loads(item.json)
        assert json.loads(Message.of_event("e", item, {}).body)["data"]["seq"] == item.seq


def test_rows_of_a_raw_writer_steer_no_terminal(
    littered: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    backup.backup(littered.app.extensions["outfeed"].database, tmp_path / "copy.db")
    monkeypatch.setenv("OUTFEED_DATABASE", str(tmp_path / "copy.db"))
    for given in READERS:
        done = CliRunner().invoke(main, given, prog_name="outfeed")
        assert done.exception is None or isinstance(done.exception, SystemExit), given
        assert is_clean(click.unstyle(done.stdout + done.stderr)), given


# --- the command line -------------------------------------------------------------------------------------------------


def texts_of(command: click.Command) -> list[click.Parameter]:
    return [each for each in command.params if not getattr(each, "is_flag", False)]


COMMANDS = [
    (words, command, parameter)
    for words, command in entrances.commands()
    if words[0] not in NO_ROOM
    for parameter in texts_of(command)
]
# Values of the other parameters, so that the command goes on beyond its first check.
FINE = {
    "event_type": "a.b", "source": "s", "scopes": "read", "role": "viewer", "principal": "token:known", "seq": "1",
    "url": "http://127.0.0.1:9/", "topic": "tutorial", "files": "archive.ndjson.gz", "into": "new.db",
}  # fmt: skip


def arguments(words: tuple[str, ...], command: click.Command, tried: click.Parameter, value: str) -> list[str]:
    given: list[str] = []
    positional: list[str] = []
    for parameter in command.params:
        text = value if parameter is tried else FINE.get(parameter.name or "", "known")
        if parameter is not tried and not parameter.required:
            continue
        if isinstance(parameter, click.Option):
            given += [parameter.opts[-1], text]
        else:
            positional.append(text)
    return [*words, *given, "--", *positional]


@pytest.fixture
def run(database: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run a command in a folder that has a file of each hostile name."""
    monkeypatch.chdir(tmp_path)
    return lambda given: CliRunner().invoke(main, given, prog_name="outfeed", input="y\n", color=True)


@pytest.mark.parametrize(("words", "command", "parameter"), COMMANDS, ids=lambda each: str(getattr(each, "name", each)))
def test_a_command_takes_no_hostile_text(
    run: Callable[..., Any], words: tuple[str, ...], command: click.Command, parameter: click.Parameter
) -> None:
    hostile_file = Path(CONTROL.replace("/", ""))
    hostile_file.write_text(CONTROL)
    for value in (CONTROL, "9" * 400, "x" * 10_000, "\udcff", "[" * 2000, "-9223372036854775809"):
        done = run(arguments(words, command, parameter, value))
        printed = done.stdout + done.stderr
        assert done.exception is None or isinstance(done.exception, SystemExit), value[:20]
        assert is_clean(click.unstyle(printed)), printed
        assert "\x1b" not in printed.replace("\x1b[0m", "").replace("\x1b[2m", ""), printed
        assert len(done.stderr) < 5000, value[:20]


def test_every_command_has_a_row_or_runs_on() -> None:
    named = {words for words, _, _ in COMMANDS}
    without_text = {words for words, command in entrances.commands() if not texts_of(command)}
    assert {words for words, _ in entrances.commands()} == named | without_text | {("tail",), ("simulate",)}


# --- settings ---------------------------------------------------------------------------------------------------------


def problems_of_settings() -> str:
    try:
        config.load()
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("way", ["variable", "file", "dotenv"])
@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_setting_takes_no_hostile_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, way: str) -> None:
    monkeypatch.chdir(tmp_path)
    variable = f"OUTFEED_{name.upper()}"
    for value in (CONTROL, "9" * 5000, "1e999", "[" * 2000, "x" * 5000, '{"a":' * 500, "\udcff"):
        raw = value.encode("utf-8", "surrogateescape")
        if way == "variable":
            monkeypatch.setenv(variable, value)
        elif way == "file":
            Path("secret").write_bytes(raw)
            monkeypatch.setenv(f"{variable}_FILE", "secret")
        else:
            monkeypatch.delenv(variable, raising=False)
            Path(".env").write_bytes(b"%s='%s'\n" % (variable.encode(), raw.replace(b"'", b"")))
        assert len(problems_of_settings()) < 20_000, value[:20]
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(f"{variable}_FILE", raising=False)
        Path(".env").unlink(missing_ok=True)
