"""The thread that waits for entries of the stream."""

from __future__ import annotations

from threading import Event
from types import SimpleNamespace
from typing import cast

import pytest

from outfeed.edge import stream
from outfeed.edge.engine import Engine
from outfeed.feed.hub import Hub
from outfeed.metrics import Metrics
from tests.waits import wait_until


def test_an_unexpected_error_is_counted_and_logged_and_the_waker_continues(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "RETRY_SECS", 0.01)
    failures: list[str] = []
    metrics = Metrics()
    metrics.report_errors_to(lambda where, _: failures.append(where))

    def fail(_: int) -> bool:
        raise LookupError("planted")

    hub = SimpleNamespace(position=0, epoch="e")
    waker = stream.StreamWaker(
        cast("Engine", SimpleNamespace(wait_for_entry=fail)), cast("Hub", hub), lambda: 0.0, Event(), metrics
    )
    waker.start()
    try:
        wait_until(lambda: len(failures) >= 2, "a second try")
    finally:
        waker.stop()
    assert failures[0] == "stream waker"
    assert "planted" in caplog.text
