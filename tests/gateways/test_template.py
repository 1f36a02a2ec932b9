"""Templates: places for values of a request."""

from __future__ import annotations

import pytest

from outfeed.errors import InvalidMapping
from outfeed.gateways.incoming.template import Payload, Template

BODY = {"a": {"b": [{"c": "x"}, 2]}, "n": 1.5, "yes": True, "empty": "", "none": None, "list": [1], "header": "own"}
PAYLOAD = Payload("backups", "nas", {"x-event": "push"}, BODY, {"labels": {"job": "node"}, "a": "of item"})


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("plain", "plain"),
        ("{a.b.0.c} and {a.b.1}", "x and 2"),
        ("{n} {yes}", "1.5 true"),
        ("{topic}.{header.X-Event}", "backups.push"),
        ("{item.labels.job} {item.a}", "node of item"),
        ("{source} {body.header}", "nas own"),
        ("{missing|empty|a.b.0.c}", "x"),
        ("in[ at {missing}][ on {n}!]", "in on 1.5!"),
        ("{missing}", None),
        ("{empty}", None),
        ("{list}", None),  # not a scalar
        ("{a.b.7}", None),
        ("{a.b.-1}", None),
        ("{a.b.99999}", None),
        ("{n.deeper}", None),
        ("{header.missing}", None),
        ("", ""),
    ],
)
def test_a_template_is_filled_from_the_request(source: str, text: str | None) -> None:
    assert Template.parsed(source).text(PAYLOAD) == text


def test_a_template_that_is_one_place_keeps_the_type_of_its_value() -> None:
    assert [Template.parsed(source).value(PAYLOAD) for source in ("{a.b}", "{n}", "{yes}", "n={n}", "{empty}")] == [
        [{"c": "x"}, 2], 1.5, True, "n=1.5", None,
    ]  # fmt: skip


@pytest.mark.parametrize("source", ["{", "}", "{}", "{a", "a}", "[{a}", "[a]", "{a{b}}", "[[{a}]]", "x" * 1001])
def test_a_malformed_template_is_rejected(source: str) -> None:
    with pytest.raises(InvalidMapping):
        Template.parsed(source)
