"""Request queue: the order in which requests get a thread."""

from __future__ import annotations

from outfeed.http.server.request_queue import RequestQueue


def test_new_and_resumed_requests_take_turns_each_in_their_order() -> None:
    queue: RequestQueue[str] = RequestQueue()
    for name in ("r1", "r2", "r3", "r4"):
        queue.put_resumed(name)
    assert [queue.take(), queue.take()] == ["r1", "r2"]
    for name in ("n1", "n2", "n3"):
        queue.put(name)
    assert len(queue) == 5
    assert [queue.take() for _ in range(5)] == ["n1", "r3", "n2", "r4", "n3"]
    assert not queue
