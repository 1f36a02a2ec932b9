"""The counters that heartbeats carry."""

from __future__ import annotations

import pytest

from outfeed.feed.encoding import Counters
from outfeed.feed.sse import SSE


@pytest.mark.parametrize(
    ("counters", "told"),
    [(Counters(), b""), (Counters(types=2), b" types=2"), (Counters(1, 2), b" erasures=1 types=2")],
)
def test_a_heartbeat_of_a_stream_is_a_comment_that_names_those_that_moved(counters: Counters, told: bytes) -> None:
    assert SSE.heartbeat(9, "e", counters) == b": heartbeat%b\nid: e:9\n\n" % told
