"""Subscriptions: valid requests, matching events, and verdicts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from outfeed.errors import InvalidRequest, Overtaken
from outfeed.feed import subscription
from outfeed.feed.subscription import FeedRequest, Filter, decide, parse_subscribe, start_of_last
from outfeed.history import Item, Window
from outfeed.principal import EVERYTHING
from tests.feed.fake_source import MemorySource

MINE = "epoch-1"


def parsed(**fields: Any) -> subscription.SubscribeRequest:
    return parse_subscribe(json.dumps({"action": "subscribe", "channel": "events", **fields}))


# --- matching ---------------------------------------------------------------------------------------------------------


def event(event_type: str = "task.created", source: Any = "s", task_id: Any = "t", agent_id: Any = "a") -> Item:
    return Item(1, b"{}", "id-1", event_type, source, task_id, agent_id, "t")


@pytest.mark.parametrize(
    ("fields", "matches"),
    [
        ({}, True),
        ({"types": ("task.created",)}, True),
        ({"types": ("task.*",)}, True),
        ({"types": ("system.error", "task.*")}, True),
        ({"types": ("task",)}, False),
        ({"types": ("tas.*",)}, False),
        ({"types": ("task.creat",)}, False),
        ({"types": ("task.created.*",)}, False),
        ({"types": ("system.error",)}, False),
        ({"source": "s"}, True),
        ({"source": "S"}, False),
        ({"task_id": "t", "agent_id": "a"}, True),
        ({"task_id": "t", "agent_id": "b"}, False),
        ({"types": ("task.*",), "source": "other"}, False),
    ],
)
def test_an_event_matches_when_all_conditions_hold(fields: dict[str, Any], matches: bool) -> None:
    assert Filter(EVERYTHING, **fields).matching([event()]) == ([event()] if matches else [])


def test_a_prefix_matches_every_type_below_it_and_no_similar_name() -> None:
    wanted = Filter(EVERYTHING, types=("task.*",))
    types = ["task.a", "task.a.b", "task.", "task", "tasks.a", "x.task.a"]
    assert [each.event_type for each in wanted.matching([event(name) for name in types])] == [
        "task.a",
        "task.a.b",
        "task.",
    ]


@pytest.mark.parametrize("odd", [None, 7, ["s"], {"s": 1}])
def test_an_odd_value_in_a_row_matches_no_condition_and_raises_nothing(odd: Any) -> None:
    row = event(source=odd, task_id=odd, agent_id=odd)
    assert not Filter(EVERYTHING, source="s").matches(row)
    assert not Filter(EVERYTHING, task_id="t").matches(row)
    assert not Filter(EVERYTHING, agent_id="a").matches(row)
    assert Filter(EVERYTHING).matching([row]) == [row]


def test_equal_requests_share_a_filter() -> None:
    first = parsed(types=["b.c", "a.*", "b.c"], source="s").filter(EVERYTHING)
    assert first == parsed(types=["a.*", "b.c"], source="s", after=0).filter(EVERYTHING)
    assert hash(first) == hash(parsed(types=["a.*", "b.c"], source="s").filter(EVERYTHING))


# --- requests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"after": 0},
        {"after": 41, "epoch": "e"},
        {"after": 2**63 - 1, "epoch": "e"},
        {"types": ["task.*", "system.error"], "source": "s", "task_id": "t", "agent_id": "a"},
        {"last": 1},
        {"last": 1000, "after": 41, "epoch": "e"},
        {"batch": True, "rate": 0},
        {"rate": 0.5},
        {"consumer": "ops-bot"},
        {"types": []},
        {"after": None, "epoch": None, "types": ["NOT_ours/at-all"]},
    ],
)
def test_a_valid_subscription_is_accepted(fields: dict[str, Any]) -> None:
    request = parsed(**fields)
    assert {name: getattr(request, name) for name in fields} == {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }


@pytest.mark.parametrize(
    ("fields", "code", "named"),
    [
        ({"channel": "news"}, "unknown_channel", "news"),
        ({"channel": None}, "invalid_field", "channel"),
        ({"after": -1}, "invalid_field", "after"),
        ({"after": 2**63, "epoch": "e"}, "invalid_field", "after"),
        ({"after": "41", "epoch": "e"}, "invalid_field", "after"),
        ({"after": 4.5, "epoch": "e"}, "invalid_field", "after"),
        ({"after": True, "epoch": "e"}, "invalid_field", "after"),
        ({"after": 41}, "epoch_required", "41"),
        ({"epoch": ""}, "invalid_field", "epoch"),
        ({"epoch": "e" * 201}, "invalid_field", "epoch"),
        ({"types": "task.*"}, "invalid_field", "types"),
        ({"types": ["*"]}, "invalid_field", "types"),
        ({"types": ["task.*.x"]}, "invalid_field", "types"),
        ({"types": ["ta*"]}, "invalid_field", "types"),
        ({"types": ["a,b"]}, "invalid_field", "types"),
        ({"types": ["a b"]}, "invalid_field", "types"),
        ({"types": [""]}, "invalid_field", "types"),
        ({"types": [7]}, "invalid_field", "types"),
        ({"types": ["a.b"] * 101}, "invalid_field", "types"),
        ({"source": ""}, "invalid_field", "source"),
        ({"source": "s" * 201}, "invalid_field", "source"),
        ({"task_id": 7}, "invalid_field", "task_id"),
        ({"agent_id": []}, "invalid_field", "agent_id"),
        ({"last": 0}, "invalid_field", "last"),
        ({"last": 1001}, "invalid_field", "last"),
        ({"batch": 1}, "invalid_field", "batch"),
        ({"rate": -1}, "invalid_field", "rate"),
        ({"rate": 1001}, "invalid_field", "rate"),
        ({"rate": "10"}, "invalid_field", "rate"),
        ({"consumer": "-bad"}, "invalid_field", "consumer"),
        ({"consumer": "ops-bot", "after": 0}, "invalid_field", "consumer"),
        ({"consumer": "ops-bot", "last": 5}, "invalid_field", "consumer"),
        ({"form": "unknown"}, "invalid_field", "form"),
        ({"source": 1, "last": 0}, "invalid_field", "last"),
    ],
)
def test_an_invalid_subscription_is_refused_and_the_field_is_named(
    fields: dict[str, Any], code: str, named: str
) -> None:
    with pytest.raises(InvalidRequest, match=named) as refused:
        parsed(**fields)
    assert refused.value.code == code


def test_a_query_string_is_checked_by_the_same_rules() -> None:
    request = subscription.validated(FeedRequest, {"after": "41", "epoch": "e", "types": ("a.b",)})
    assert (request.after, request.filter(EVERYTHING)) == (41, Filter(EVERYTHING, types=("a.b",)))
    with pytest.raises(InvalidRequest, match="after"):
        subscription.validated(FeedRequest, {"after": "41x"})


# --- verdicts ---------------------------------------------------------------------------------------------------------

# (after, epoch, first_seq, last_seq) -> (verdict, after, missing)
VERDICTS = [
    ((None, None, 1, 9), ("live", 9, None)),
    ((None, "other", 1, 9), ("live", 9, None)),
    ((None, None, 1, 0), ("live", 0, None)),
    ((0, None, 1, 9), ("resumed", 0, None)),
    ((0, "other", 1, 9), ("resumed", 0, None)),
    ((0, None, 4, 9), ("gap", 3, (1, 3))),
    ((0, None, 10, 9), ("gap", 9, (1, 9))),
    ((0, None, 1, 0), ("resumed", 0, None)),
    ((5, MINE, 1, 9), ("resumed", 5, None)),
    ((9, MINE, 1, 9), ("resumed", 9, None)),
    ((5, MINE, 6, 9), ("resumed", 5, None)),
    ((5, MINE, 7, 9), ("gap", 6, (6, 6))),
    ((5, MINE, 10, 9), ("gap", 9, (6, 9))),
    ((9, MINE, 10, 9), ("resumed", 9, None)),
    ((10, MINE, 1, 9), ("reset", 9, None)),
    ((10, MINE, 10, 9), ("reset", 9, None)),
    ((5, "other", 1, 9), ("reset", 9, None)),
    ((5, "other", 7, 9), ("reset", 9, None)),
    ((5, None, 1, 9), ("reset", 9, None)),
    ((1, MINE, 1, 0), ("reset", 0, None)),
]


@pytest.mark.parametrize(("given", "expected"), VERDICTS)
def test_the_verdict_matches_the_position_of_the_cursor(given: Any, expected: Any) -> None:
    after, epoch, first_seq, last_seq = given
    verdict = decide(after, epoch, Window(MINE, first_seq, last_seq))
    assert (verdict.kind, verdict.after, verdict.missing) == expected
    assert (verdict.epoch, verdict.head) == (MINE, last_seq)
    if verdict.kind != "reset":
        Window(MINE, first_seq, last_seq).prove(verdict.epoch, verdict.after)


def test_only_a_gap_names_missing_events() -> None:
    assert decide(2, MINE, Window(MINE, 5, 9)).as_dict() == {
        "epoch": MINE, "verdict": "gap", "after": 4, "head": 9, "missing": {"from": 3, "to": 4},
    }  # fmt: skip
    assert "missing" not in decide(4, MINE, Window(MINE, 5, 9)).as_dict()


@pytest.mark.parametrize(("epoch", "cursor"), [("other", 5), (MINE, 3), (MINE, 0)])
def test_a_window_that_lacks_rows_after_a_cursor_raises(epoch: str, cursor: int) -> None:
    with pytest.raises(Overtaken):
        Window(MINE, 5, 9).prove(epoch, cursor)


# --- the newest N -----------------------------------------------------------------------------------------------------


def source_of(*runs: tuple[int, str]) -> MemorySource:
    source = MemorySource()
    for count, event_type in runs:
        source.add(count, event_type=event_type)
    return source


@pytest.mark.parametrize(
    ("runs", "count", "start"),
    [
        ([(10, "a.b")], 3, 7),
        ([(10, "a.b")], 10, 0),
        ([(10, "a.b")], 11, 0),
        ([(3, "a.b"), (5, "x.y")], 2, 1),
        ([(3, "a.b"), (5, "x.y"), (1, "a.b")], 2, 2),
        ([(2, "x.y"), (2, "a.b")], 100, 2),
        ([(5, "x.y")], 2, 5),
        ([], 2, 0),
        ([(1500, "a.b"), (1500, "x.y")], 1000, 500),
    ],
)
def test_the_newest_matching_events_begin_after_the_right_seq(runs: Any, count: int, start: int) -> None:
    source = source_of(*runs)
    assert start_of_last(source, Filter(EVERYTHING, types=("a.b",)), count, source.last_seq) == start


def test_events_after_the_verdict_are_not_counted() -> None:
    source = source_of((10, "a.b"))
    assert start_of_last(source, Filter(EVERYTHING), 3, head=6) == 3


def test_a_filter_that_matches_nothing_does_not_read_the_whole_outbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscription, "MAX_LOOKBACK", 3000)
    source = source_of((1, "a.b"), (9000, "x.y"))

    assert start_of_last(source, Filter(EVERYTHING, types=("a.b",)), 5, source.last_seq) == source.last_seq
    assert start_of_last(source, Filter(EVERYTHING, types=("a.b",)), 5, 2000) == 0


def test_pruned_rows_limit_the_newest_events() -> None:
    source = source_of((10, "a.b"))
    source.prune(8)
    assert start_of_last(source, Filter(EVERYTHING), 5, 10) == 8
