"""Deep JSON in frames: the client reads it at any depth of the stack."""

import inspect
import json
import sys

import pytest

from outfeed.client import Client
from outfeed.client.frames import parse_frame
from tests.client.scripted_feed import Feed, Raw, event, verdict


def nested(depth):
    return "[" * depth + "]" * depth


def frame_of(kind, seq, data):
    fields = f'"id":"{seq}","event_type":"a.b","source":"[{{\\"","data":{data}'
    if kind == "event":
        return f'{{"type":"event","seq":{seq},"prev":{seq - 1},"payload":{{{fields}}}}}'
    return f'{{"type":"events","prev":{seq - 1},"payload":[{{"seq":{seq},{fields}}}]}}'


def called_from(frames_left, call):
    """Return the result of *call* on a stack with few frames left.

    About so many frames are left.
    """
    used = len(inspect.stack(0))

    def descend(count):
        return call() if count <= 0 else descend(count - 1)

    return descend(sys.getrecursionlimit() - used - frames_left)


class TestNesting:
    @pytest.mark.parametrize("kind", ["event", "events"])
    @pytest.mark.parametrize("depth", [65, 400, 990, 3000])
    @pytest.mark.parametrize("frames_left", [900, 110])
    def test_data_that_is_nested_too_deeply_is_its_text_on_any_stack(self, kind, depth, frames_left):
        deep = '{"a [": "\\"]", "b": ' + nested(depth - 1) + "}"
        with (
            Feed([verdict(), Raw(frame_of(kind, 1, deep)), event(2, data={"ok": [1]})]) as feed,
            Client(feed.url).follow() as follow,
        ):
            first = called_from(frames_left, lambda: next(follow))
            second = next(follow)

        assert (first.data, first.source, first.is_flattened) == (deep, '[{"', True)
        assert first.as_dict()["flattened"] is True
        assert (second.data, second.is_flattened) == ({"ok": [1]}, False)
        assert "flattened" not in second.as_dict()

    @pytest.mark.parametrize("kind", ["event", "events"])
    @pytest.mark.parametrize("frames_left", [900, 70])
    def test_accepted_data_is_parsed_on_any_stack(self, kind, frames_left):
        data = f'{{"n": {2**70}, "deep": {nested(63)}}}'
        parsed = called_from(frames_left, lambda: parse_frame(frame_of(kind, 1, data)))

        payload = parsed["payload"] if kind == "event" else parsed["payload"][0]
        assert payload["data"] == json.loads(data)
        assert "flattened" not in payload
