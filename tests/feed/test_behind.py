"""A copy that is behind: same epoch, a head below what was served.

Its clients wait, and none is told a reset.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest

from outfeed.errors import EngineDown
from outfeed.feed import frames, reader, relay, subscriber
from outfeed.feed.subscription import decide
from outfeed.history import Window
from tests.feed.fake_source import MemorySource
from tests.feed.simulated import SimulatedClient, Simulation

ORIGIN = "https://feed.example"


@pytest.mark.parametrize("after", [9, 10, 500])
def test_a_cursor_beyond_the_head_of_a_copy_is_good(after: int) -> None:
    verdict = decide(after, "e", Window("e", 1, 9, ORIGIN))
    assert (verdict.kind, verdict.after) == ("resumed", after)
    assert decide(after, "other", Window("e", 1, 9, ORIGIN)).kind == "reset"


def test_a_gap_of_a_copy_names_the_origin() -> None:
    fields = decide(2, "e", Window("e", 5, 9, ORIGIN)).as_dict()
    assert (fields["missing"], fields["origin"]) == ({"from": 3, "to": 4}, ORIGIN)
    assert "origin" not in decide(2, "e", Window("e", 5, 9)).as_dict()
    assert "origin" not in decide(4, "e", Window("e", 5, 9, ORIGIN)).as_dict()


def lose(source: MemorySource, up_to: int) -> None:
    """Put the copy back to *up_to*, as a failover to an older replica does."""
    source.items = [each for each in source.items if each.seq <= up_to]
    source.last_seq = up_to


@pytest.fixture
def copy(monkeypatch: pytest.MonkeyPatch) -> Simulation:
    """A process that serves a copy."""
    return Simulation(monkeypatch, ORIGIN)


def ended(viewer: SimulatedClient) -> tuple[int, str] | None:
    return viewer.subscriber.ending


def test_a_copy_that_lost_events_keeps_its_epoch_and_its_clients(copy: Simulation) -> None:
    viewer = copy.join(rate=0)
    copy.write(10)
    lose(copy.source, up_to=4)
    copy.relay.poll()
    copy.relay.poll()
    copy.write(8)  # 5 to 12: as many as were lost, and two more
    assert (copy.source.epoch, ended(viewer)) == ("epoch-1", None)
    assert viewer.seqs() == list(range(1, 13))


def test_a_client_ahead_of_the_copy_waits_for_the_hub_without_reads(
    copy: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy.write(4)
    viewer = copy.connect()
    viewer.subscribe(after=9, epoch="epoch-1", rate=0)
    reads = copy.source.reads
    thread = threading.Thread(target=viewer.subscriber.advance)
    thread.start()
    copy.source.add(7)
    copy.relay.poll()
    thread.join()
    viewer.step()
    assert viewer.seqs() == [10, 11]
    assert copy.source.reads - reads <= 2, "those of the relay"


def test_a_client_that_a_copy_does_not_reach_in_time_is_told_to_come_back(
    copy: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriber, "COPY_WAIT_SECS", 0.001)
    copy.write(4)
    viewer = copy.connect()
    viewer.subscribe(after=9, epoch="epoch-1", rate=0)
    viewer.subscriber.advance()
    copy.time.now += 9
    viewer.subscriber.advance()
    assert ended(viewer) is None
    copy.time.now += 1
    viewer.subscriber.advance()
    assert ended(viewer) is not None
    assert ended(viewer)[0] == frames.RESTARTING  # type: ignore[index]


def test_a_client_above_the_copys_head_and_below_the_hub_rests_between_reads(
    copy: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[float] = []
    monkeypatch.setattr(reader.time, "sleep", rests.append)
    copy.write(9)
    viewer = copy.connect()
    viewer.subscribe(after=6, epoch="epoch-1", rate=0)
    copy.core.forget()  # so that the tail does not reach back
    lose(copy.source, up_to=4)
    viewer.subscriber.advance()
    assert rests == [reader.BEHIND_SECS]
    copy.source.add(6)
    viewer.step()
    copy.relay.poll()
    assert viewer.seqs() == [7, 8, 9, 10]


def told(viewer: SimulatedClient) -> list[tuple[str, Any]]:
    """Return the heartbeats' ages and the stale frames' reasons."""
    found = [(each["type"], each["payload"]) for each in viewer.messages() if each["type"] in ("heartbeat", "stale")]
    return [(kind, payload["origin_age" if kind == "heartbeat" else "reason"]) for kind, payload in found]


class Outage:
    """Makes reads of a source fail while it is on."""

    def __init__(self, source: MemorySource, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_on = False
        read = source.read_after
        monkeypatch.setattr(source, "read_after", lambda *values: self._fail() if self.is_on else read(*values))

    def _fail(self) -> None:
        raise EngineDown("planted")


def test_heartbeats_of_a_copy_go_on_during_an_outage_and_turn_stale_after_ten_seconds(
    copy: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    outage = Outage(copy.source, monkeypatch)
    viewer = copy.join(rate=0)
    copy.hub.heartbeat(0.0)
    before = len(told(viewer))
    outage.is_on = True
    for age in (5.0, 11.0, 26.0):
        copy.source.origin_age = age
        copy.time.now += 2e9  # a heartbeat is due
        copy.relay.poll()
    outage.is_on, copy.source.origin_age = False, 0.5
    copy.relay.poll()
    reason = EngineDown.in_short
    assert told(viewer)[before:] == [
        ("heartbeat", 5.0), ("heartbeat", 11.0), ("stale", reason), ("heartbeat", 26.0), ("stale", reason),
        ("stale", None), ("heartbeat", 0.5),
    ]  # fmt: skip


def test_a_silent_origin_is_told_though_the_copy_can_be_read(copy: Simulation) -> None:
    viewer = copy.join(rate=0)
    before = len(told(viewer))
    copy.source.origin_age = 10.5
    copy.relay.poll()
    assert ("stale", relay.ORIGIN_SILENT) in told(viewer)[before:]
    assert copy.relay.failure is None, "the process is ready all the same"
