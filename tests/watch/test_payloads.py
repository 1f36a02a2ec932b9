"""Values in events: each event is JSON with its key, no write fails."""

from __future__ import annotations

import json
import math
import sqlite3
from contextlib import closing

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outfeed.config import settings
from outfeed.watch.store import watches
from tests.watch.watched import events, new_database, run, types, watch

TABLE = "CREATE TABLE t (id INTEGER PRIMARY KEY, a, b TEXT, j JSON)"


def payload(program: sqlite3.Connection, statement: str, *values: object):
    """Return the parsed data of the event, in the log and the outbox."""
    program.execute(statement, values)
    program.text_factory = lambda raw: raw.decode("utf-8", "replace")
    (data,) = program.execute("SELECT data FROM event_log ORDER BY rowid DESC LIMIT 1").fetchone()
    (outbox,) = program.execute("SELECT payload FROM outbox ORDER BY seq DESC LIMIT 1").fetchone()
    found = json.loads(data, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert json.loads(outbox)["data"] == found
    return found


def inserted(value: object, column: str = "a", **options: object):
    with closing(new_database(TABLE)) as program:
        watch(program, "t", **options)
        found = payload(program, f"INSERT INTO t ({column}) VALUES (?)", value)
        assert found["key"] == {"id": 1}
        return found


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None),
        (2**63 - 1, 2**63 - 1),
        (-(2**63), -(2**63)),
        (0.1 + 0.2, 0.1 + 0.2),
        (-0.0, 0.0),
        (5e-324, 5e-324),
        (1.7976931348623157e308, 1.7976931348623157e308),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (math.nan, None),
        (b"\x00\xff", "00FF"),
        (b"x" * 64, b"x".hex() * 64),
        ("a\x00b", "a\x00b"),
        ('"\\\n\t\x01é😀', '"\\\n\t\x01é😀'),
        ("", ""),
    ],
)
def test_a_value_is_shown_exactly(value, shown):
    assert inserted(value)["row"]["a"] == shown


@hypothesis.settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=20))
def test_any_double_is_shown_exactly(values):
    _show_exactly(values)


@hypothesis.settings(max_examples=10, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=50), min_size=20))
def test_any_text_is_shown_exactly(values):
    _show_exactly(values)


def _show_exactly(values: list[object]) -> None:
    with closing(new_database(TABLE)) as program:
        watch(program, "t")
        program.executemany("INSERT INTO t (a) VALUES (?)", [(value,) for value in values])
        assert [event.data["row"]["a"] for event in events(program)] == values


def test_a_blob_in_a_text_column_is_hex():
    assert inserted(b"\x01\x02", "b")["row"]["b"] == "0102"


def test_a_long_text_is_cut_and_its_size_told():
    found = inserted("é" * 2049)
    assert found["row"]["a"] == "é" * 200 + "…"
    assert found["cut"] == {"a": 4098}
    assert "cut" not in inserted("é" * 2048)


def test_a_long_blob_is_null_and_its_size_told():
    found = inserted(bytes(65))
    assert (found["row"]["a"], found["cut"]) == (None, {"a": 65})


@pytest.mark.parametrize(
    "value",
    ["x" * 5_000_000, bytes(5_000_000), '"' * 200_000, "\x01" * 200_000, "é" * 2_500_000],
    ids=["text", "blob", "quotes", "control characters", "two bytes a character"],
)
def test_a_write_of_a_huge_value_succeeds(value):
    assert inserted(value)["cut"]["a"] == len(value.encode() if isinstance(value, str) else value)


def test_a_write_succeeds_under_a_low_limit_of_length():
    with closing(new_database(TABLE)) as program:
        watch(program, "t")
        program.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 250_000)
        assert payload(program, "INSERT INTO t (a) VALUES (?)", "\x01" * 200_000)["cut"] == {"a": 200_000}


@pytest.mark.parametrize(
    "raw", [b"\xff\xfe", b"\xed\xa0\x80", b"\xc3" + b"\x80" * 6000], ids=["no UTF-8", "surrogate", "run"]
)
def test_text_that_is_no_utf8_is_written(raw):
    with closing(new_database(TABLE)) as program:
        watch(program, "t")
        found = payload(program, "INSERT INTO t (a) VALUES (CAST(? AS TEXT))", raw)
        assert found["key"] == {"id": 1}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"a": [1, {"b": null}]}', {"a": [1, {"b": None}]}),
        ("[]", []),
        ('"text"', "text"),
        ('{"a": NaN}', '{"a": NaN}'),
        ("{a: 1}", "{a: 1}"),
        ('{"a": 1} trailing', '{"a": 1} trailing'),
        ('{"a": 1}\x00junk', '{"a": 1}\x00junk'),
        ("[" * 600 + "]" * 600, "[" * 600 + "]" * 600),
    ],
)
def test_a_column_declared_json_is_nested_if_it_is_valid(text, shown):
    assert inserted(text, "j")["row"]["j"] == shown


def test_json_of_depth_3000_is_written_as_text():
    deep = "[" * 3000 + "]" * 3000
    found = inserted(deep, "j")
    assert (found["row"]["j"], found["cut"]) == (deep[:200] + "…", {"j": 6000})


def test_was_tells_what_was_cut():
    with closing(new_database(TABLE)) as program:
        watch(program, "t")
        program.execute("INSERT INTO t (a, b) VALUES (?, ?)", ("x" * 5000, "y" * 6000))
        found = payload(program, "UPDATE t SET a = 'short'")
        assert found["was"] == {"a": "x" * 200 + "…"}
        assert found["cut"] == {"b": 6000, "was.a": 5000}
        found = payload(program, "REPLACE INTO t (id, a) VALUES (1, 'short')")
        assert found["cut"] == {"was.b": 6000}


def test_an_event_above_the_limit_keeps_its_key(monkeypatch):
    monkeypatch.setenv("OUTFEED_MAX_EVENT_BYTES", "1000")
    settings.cache_clear()
    assert "row" in inserted("x" * 800)
    found = inserted("x" * 1000)
    assert found == {"op": "insert", "table": "t", "key": {"id": 1}}
    with closing(new_database(TABLE)) as program:
        watch(program, "t")
        for length in range(850, 1000):
            program.execute("INSERT INTO t (a) VALUES (?)", ("x" * length,))
        sizes = program.execute("SELECT length(data) FROM event_log").fetchall()
        assert max(sizes) == (1000,)


# --- columns ---


def test_a_table_of_1200_columns_is_watched():
    columns = ", ".join(f"c{number}" for number in range(1199))
    with closing(new_database(f"CREATE TABLE wide (id INTEGER PRIMARY KEY, {columns})")) as program:
        watch(program, "wide")
        (found,) = run(program, "INSERT INTO wide (c0, c1198) VALUES (1, 'last')")
        assert len(found.data["row"]) == 1200
        assert types(run(program, "UPDATE wide SET c7 = 1")) == ["wide.updated"]
        assert types(run(program, "REPLACE INTO wide (id) VALUES (1)")) == ["wide.updated"]
        assert types(run(program, "DELETE FROM wide")) == ["wide.deleted"]


def test_a_table_of_1200_hidden_columns_is_watched():
    columns = ", ".join(f"token_{number}" for number in range(1199))
    with closing(new_database(f"CREATE TABLE wide (id INTEGER PRIMARY KEY, {columns})")) as program:
        watch(program, "wide")
        run(program, "INSERT INTO wide (token_0) VALUES ('secret')")
        (found,) = run(program, "UPDATE wide SET token_1 = 'secret'")
        assert found.data["was"] == {"token_1": "[redacted]"}


@pytest.mark.parametrize(
    "name",
    ['a"b', "a'b", "a b", "select", "é", "a\nb", "NEW", "old", "a.b", "k", "v", "identity", "watch", "h", "[x]", "`"],
)
def test_odd_names_of_columns_and_tables_work(name):
    quoted = '"' + name.replace('"', '""') + '"'
    with closing(
        new_database(f"CREATE TABLE {quoted} (id INTEGER PRIMARY KEY, {quoted} UNIQUE, other UNIQUE)")
    ) as program:
        watch(program, name, as_="odd")
        (found,) = run(program, f"INSERT INTO {quoted} VALUES (1, 'a', 'b')")
        assert found.data["table"] == name
        assert found.data["row"] == {"id": 1, name: "a", "other": "b"}
        found = run(program, f"REPLACE INTO {quoted} VALUES (2, 'a', 'c')")
        assert types(found) == ["odd.deleted", "odd.created"]
        (found,) = run(program, f"UPDATE {quoted} SET {quoted} = 'z'")
        assert found.data["was"] == {name: "a"}
        assert types(run(program, f"DELETE FROM {quoted}")) == ["odd.deleted"]


def test_generated_columns_add_no_failure():
    with closing(
        new_database(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, a, v AS (abs(a)) VIRTUAL, s AS (a || 'x') STORED, w AS (a + 1))"
        )
    ) as program:
        watch(program, "t")
        (found,) = run(program, "INSERT INTO t (a) VALUES (1)")
        assert found.data["row"] == {"id": 1, "a": 1, "s": "1x"}
        (found,) = run(program, "UPDATE t SET a = 2")
        assert found.data["was"] == {"a": 1, "s": "1x"}
        (found,) = run(program, "REPLACE INTO t (id, a) VALUES (1, 3)")
        assert found.data["was"] == {"a": 2}


def test_a_failing_virtual_column_is_not_computed():
    failing = -(2**63)
    for made in ("v AS (abs(a)) VIRTUAL", "v"):
        with closing(new_database(f"CREATE TABLE t (id INTEGER PRIMARY KEY, a, {made})")) as program:
            plain = _outcome(program, failing)
            program.execute("DELETE FROM t")
            watch(program, "t")
            assert _outcome(program, failing) == plain


def _outcome(program: sqlite3.Connection, value: int) -> list[str]:
    outcomes = []
    for statement in (
        "INSERT INTO t (id, a) VALUES (1, ?)",
        "UPDATE t SET a = ?",
        "REPLACE INTO t (id, a) VALUES (1, ?)",
    ):
        try:
            program.execute(statement, (value,))
            outcomes.append("done")
        except sqlite3.Error as error:
            outcomes.append(str(error))
    return outcomes


@pytest.mark.parametrize("key", ["id INTEGER PRIMARY KEY", "id TEXT PRIMARY KEY"])
def test_the_size_of_the_triggers_is_bounded(key):
    columns = f"{key}, status TEXT, amount INTEGER, email TEXT UNIQUE, note TEXT"
    with closing(new_database(f"CREATE TABLE orders ({columns})")) as program:
        made = watch(program, "orders")
        assert sum(map(len, watches.present_triggers(program, made.number).values())) <= 15_000
