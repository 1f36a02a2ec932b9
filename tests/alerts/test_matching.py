"""Matching: rules decide on the outbox as the log's filter on its rows."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from outfeed.alerts.matching import RuleIndex
from outfeed.alerts.rule import AlertRule
from outfeed.log.store import log_page
from outfeed.store.database import Database
from outfeed.store.outbox import Outbox
from tests.database_file import write_events

TYPES, NAMES = ("a.b", "a.bc", "b.c", "access.x", "alert.raised"), ("s", "t", None)
VALUES: list[Any] = [500, 1.0, True, None, "x", "500", [1, {"k": 2}], {"k": "v"}]
DATA = [None, *({"v": value} for value in VALUES), {"v": {"k": 500}}, [500], "text"]
TERMS = (
    *(f"type:{name}" for name in ("a.b", "a.*", "b.c,a.bc", "access.*")), *(f"source:{name}" for name in "st"),
    "task:s", "agent:t", "data.v:500", "data.v:1.0", "data.v:true", "data.v:null", "data.v.k:v", "data.v.0:1",
    "data.v.1.k:2", "data.0:500",
)  # fmt: skip
QUERIES = st.lists(st.tuples(st.sampled_from(["", "-"]), st.sampled_from(TERMS)).map("".join), max_size=4)
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(TYPES), st.sampled_from("st"), st.sampled_from(NAMES), st.sampled_from(NAMES),
        st.sampled_from(DATA),
    ),
    min_size=1, max_size=20,
)  # fmt: skip
COLUMNS = ("event_type", "source", "task_id", "agent_id", "data")


def test_a_rule_matches_the_events_that_the_log_shows_for_its_query(database: Database) -> None:
    @settings(max_examples=60, deadline=None)
    @given(EVENTS, st.lists(QUERIES.map(" ".join), min_size=1, max_size=4))
    def check(events: list[tuple[Any, ...]], queries: list[str]) -> None:
        outbox = Outbox(database, 65_536)
        before = outbox.window().last_seq
        columns = dict(zip(COLUMNS, zip(*events, strict=True), strict=True))
        columns["data"] = tuple(None if each is None else json.dumps(each) for each in columns["data"])
        write_events(database.path, len(events), **{name: list(values) for name, values in columns.items()})
        items = outbox.read_after(before, 1000).items
        filters = [AlertRule("one", query).checked().filter for query in queries]
        found = RuleIndex(filters).matches(items)
        new = {item.id for item in items if not item.event_type.startswith("alert.")}
        for number, filter_ in enumerate(filters):
            shown = {event.id for event in log_page.iterate_events(database, filter_)}
            assert {item.id for item in found.get(number, [])} == shown & new

    check()


def test_an_event_that_only_a_raw_writer_can_write_matches_nothing_and_stops_nothing(database: Database) -> None:
    with database.transaction() as connection:
        for payload in ('{"event_type": ["x"], "source": {}}', "null", "[1", '{"event_type": "a.b", "data": 1e999}'):
            connection.execute("INSERT INTO outbox (payload, created_at) VALUES (?, 'then')", (payload,))
    items = Outbox(database, 65_536).read_after(0, 10).items
    filters = [AlertRule("one", query).checked().filter for query in ("type:a.b data.x:1", "source:s")]
    assert RuleIndex(filters).matches(items) == {}
