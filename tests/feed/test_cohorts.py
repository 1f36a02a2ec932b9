"""Cohorts of paced subscribers.

Cohorts of one rate send together and merge. Each client gets every event once and none before its time.
"""

from __future__ import annotations

import gc
import itertools
import math
import random
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from outfeed import clock
from outfeed.errors import InvalidRequest, Overtaken
from outfeed.feed import encoding, frames, subscription, tail
from outfeed.feed.client import ClientState
from outfeed.feed.cohort import Membership, Place
from outfeed.feed.sse import SSE
from outfeed.feed.subscription import SubscribeRequest
from tests.feed.fake_source import VIEWER
from tests.feed.samples import counted
from tests.feed.simulated import STEP_SECS, SimulatedClient, Simulation, busiest_second
from tests.protocol import check
from tests.waits import wait_until

INTERVAL = 0.11


@pytest.fixture
def simulation(monkeypatch: pytest.MonkeyPatch) -> Simulation:
    return Simulation(monkeypatch)


class Counting(frames.WebSocketEncoding):
    """An encoding that counts how often each event is encoded."""

    def __init__(self) -> None:
        self.encoded: dict[int, int] = {}
        self.batches = 0

    def groups(self, items: Any, prev: int, epoch: str) -> encoding.Batch:
        self.batches += bool(items)
        for item in items:
            self.encoded[item.seq] = self.encoded.get(item.seq, 0) + 1
        return super().groups(items, prev, epoch)


def all_after(viewer: SimulatedClient, last: int) -> None:
    """Fail unless the viewer has every event after its verdict, once.

    The last event is *last*.
    """
    after = viewer.messages()[0]["payload"]["after"]
    assert viewer.seqs() == list(range(after + 1, last + 1))


class TestPace:
    @pytest.mark.parametrize("rate", [1, 50, 2000])
    @pytest.mark.parametrize("batch", [False, True])
    def test_no_second_has_more_frames_than_the_rate_and_nothing_is_lost(
        self, simulation: Simulation, rate: int, batch: bool
    ) -> None:
        viewer = simulation.join(batch=batch)
        simulation.run(3, rate)
        head = simulation.source.last_seq
        assert busiest_second(viewer.times()) <= 10
        assert len(viewer.times()) >= min(3 * rate - 1, 26)
        if batch:
            simulation.run(INTERVAL)
        else:
            lag = head - len(viewer.seqs())
            assert lag > (50 if rate > 1 else -1)
            simulation.run(INTERVAL * min(lag + 1, 300))
        expected = head if batch or rate < 2000 else len(viewer.seqs())
        all_after(viewer, expected)
        assert busiest_second(viewer.times()) <= 10

    def test_the_first_event_after_a_quiet_time_is_sent_at_once(self, simulation: Simulation) -> None:
        viewer = simulation.join()
        for quiet in (0.3, 1.0, 7.77):
            simulation.run(quiet)
            simulation.write()
            assert viewer.times()[-1] == simulation.time.now

    def test_a_batched_viewer_lags_by_two_intervals_at_most(self, simulation: Simulation) -> None:
        viewer = simulation.join(batch=True)
        at: dict[int, float] = {}
        for _ in range(400):
            before = simulation.source.last_seq
            simulation.run(0.005, 500)
            at |= dict.fromkeys(range(before + 1, simulation.source.last_seq + 1), simulation.time.now)
        simulation.run(0.3)
        arrivals = viewer.arrivals()
        assert set(arrivals) == set(at)
        assert max(arrivals[seq] - at[seq] for seq in at) <= 2 * INTERVAL + 0.01

    def test_a_rate_of_zero_sends_each_event_at_once(self, simulation: Simulation) -> None:
        viewer = simulation.join(rate=0)
        for _ in range(100):
            simulation.write()
        assert len(viewer.times()) == 100

    def test_a_limited_client_gets_no_more_than_its_limit(self, simulation: Simulation) -> None:
        for wanted, granted in ((None, 10), (0, 10), (500, 10), (2, 2)):
            viewer = simulation.connect(rates=(10, 10))
            viewer.subscribe(rate=wanted)
            assert viewer.messages()[0]["payload"]["rate"] == granted

    @pytest.mark.parametrize("rate", [5e-324, 1e-300, 1e-9, float("nan")])
    def test_a_rate_below_the_minimum_is_refused(self, rate: float) -> None:
        with pytest.raises(InvalidRequest, match="rate"):
            subscription.validated(SubscribeRequest, {"rate": rate})

    def test_repeated_subscribing_does_not_advance_the_next_frame(self, simulation: Simulation) -> None:
        viewer = simulation.join()
        for _ in range(300):
            simulation.run(0.01, 200)
            viewer.subscribe(after=viewer.cursor(), epoch=simulation.source.epoch)
            viewer.step()
        assert busiest_second(viewer.times()) <= 10

    def test_a_new_rate_applies_at_once(self, simulation: Simulation) -> None:
        simulation.write(50)
        viewer = simulation.join(after=0, rate=0.01)
        simulation.run(1)
        assert len(viewer.times()) == 1
        viewer.subscribe(after=0, rate=100)
        simulation.run(1)
        assert len(viewer.times()) == 51


class TestMerging:
    def test_fifty_clients_that_joined_at_different_times_under_load_end_in_one_cohort(
        self, simulation: Simulation
    ) -> None:
        rng, counting = random.Random(7), Counting()
        simulation.run(0.5, 100)
        viewers = []
        for _ in range(50):
            simulation.run(rng.uniform(0, 0.05), 300)
            viewer = simulation.connect(counting)
            head = simulation.source.last_seq
            back = rng.choice([None, 0, 3, 200])
            viewer.subscribe(batch=True, **({} if back is None else {"after": max(0, head - back), "epoch": "epoch-1"}))
            viewer.step()
            viewers.append(viewer)
        simulation.run(0.5, 300)
        assert len(simulation.cohorts) == 1
        counting.encoded.clear()
        before, counting.batches = len(viewers[0].times()), 0
        simulation.run(1, 300)
        assert set(counting.encoded.values()) == {1}
        assert counting.batches == len(viewers[0].times()) - before
        assert len(counting.encoded) > 250
        simulation.run(0.5)
        for viewer in viewers:
            all_after(viewer, simulation.source.last_seq)
            assert busiest_second(viewer.times()) <= 10

    def test_viewers_that_show_one_event_at_a_time_merge_once_they_have_caught_up(self, simulation: Simulation) -> None:
        simulation.write(30)
        viewers = [simulation.join(after=after, epoch="epoch-1") for after in (1, 10, 10, 25)]
        assert len(simulation.cohorts) == 3
        simulation.run(2, 5)
        assert len(simulation.cohorts) > 1
        simulation.run(10)
        simulation.write()
        assert len(simulation.cohorts) == 1
        for viewer in viewers:
            all_after(viewer, simulation.source.last_seq)
            assert busiest_second(viewer.times()) <= 10

    def test_a_joined_cohort_sends_nothing_before_the_new_member_is_due(self, simulation: Simulation) -> None:
        """The new member's own thread has just sent it a frame.

        The other members have had a quiet time.
        """
        quiet = simulation.join()
        viewer = simulation.join()
        simulation.write(1)
        simulation.run(5)
        viewer.subscriber.unsubscribe()
        viewer.subscriber.place = viewer.subscriber.place._replace(due=simulation.time.now + 0.1)
        viewer.subscribe(after=1, epoch="epoch-1")
        viewer.step()
        simulation.write(1)
        assert quiet.times()[-1] == simulation.time.now
        assert len(viewer.times()) == 1
        assert len(simulation.cohorts) == 2
        simulation.run(0.5)
        assert len(viewer.times()) == 2
        simulation.write(1)
        assert len(simulation.cohorts) == 1

    def test_prev_is_right_for_all_members_of_a_merged_cohort(self, simulation: Simulation) -> None:
        """One member was last told of event 1.

        Another member joined at the head, which no event had matched since.
        """
        early = simulation.join(types=("wanted.*",), batch=True)
        simulation.write(1, event_type="wanted.one")
        simulation.run(1)
        simulation.write(5)
        simulation.run(1)
        late = simulation.join(types=("wanted.*",), batch=True, after=3, epoch="epoch-1")
        simulation.run(1)
        simulation.write(1, event_type="wanted.two")
        simulation.run(1)
        assert len(simulation.cohorts) == 1
        assert (early.seqs(), late.seqs()) == ([1, 7], [7])
        assert [message["prev"] for message in late.messages() if "prev" in message] == [1]

    @pytest.mark.parametrize("is_due", [True, False])
    def test_prev_is_right_for_a_member_that_was_told_less(self, simulation: Simulation, is_due: bool) -> None:
        """The client reached the others' position without a match.

        An event comes before its first heartbeat.
        """
        simulation.source.add(6)
        simulation.hub.begin(simulation.source.window(), [])
        simulation.join(types=("wanted.*",))
        late = simulation.connect()
        late.subscriber.place = Place(due=0.0 if is_due else simulation.time.now + 0.05)
        late.subscribe(types=("wanted.*",), after=3, epoch="epoch-1")
        late.step()
        assert len(simulation.cohorts) == (1 if is_due else 2)
        simulation.time.now += 0.06
        simulation.write(1, event_type="wanted.one")
        assert len(simulation.cohorts) == 1
        assert late.seqs() == [7]

    def test_a_leaving_client_is_not_merged(self, simulation: Simulation) -> None:
        """The client leaves its cohort before that merges with another."""
        simulation.join(batch=True)
        simulation.write(3)
        leaving = simulation.join(batch=True, after=0)
        assert len(simulation.cohorts) == 2
        leaving.subscriber.unsubscribe()
        simulation.run(0.5, 50)
        assert len(simulation.cohorts) == 1
        assert leaving.seqs() == []
        assert leaving.subscriber.state is ClientState.IDLE

    def test_a_new_member_is_sent_no_event_before_its_position(self, simulation: Simulation) -> None:
        """The client joins the cohort after a batch is made and before it is sent."""
        first, viewer = simulation.join(batch=True), simulation.join(batch=True)

        def join_again() -> None:
            viewer.subscribe(after=simulation.source.last_seq, epoch="epoch-1", batch=True)
            viewer.subscriber.place = viewer.subscriber.place._replace(due=0.0)
            viewer.step()

        first.socket.after_send = join_again
        for _ in range(5):
            simulation.write(3)
            simulation.run(1)
        check(viewer.messages())
        assert first.seqs() == list(range(1, 16))


class TestJoiningAndLeaving:
    def test_subscribing_again_during_the_write_of_a_batch_gives_each_event_once(self, simulation: Simulation) -> None:
        viewers = [simulation.join(batch=True) for _ in range(3)]

        def join_again() -> None:
            for viewer in viewers[1:]:
                viewer.subscriber.unsubscribe()
                viewer.subscribe(after=viewer.cursor(), epoch="epoch-1", batch=True)
                viewer.step()

        viewers[0].socket.after_send = join_again
        simulation.run(2, 200)
        viewers[0].socket.after_send = lambda: None
        simulation.run(1)
        for viewer in viewers:
            assert viewer.seqs() == list(range(1, simulation.source.last_seq + 1))
            assert busiest_second(viewer.times()) <= 10

    def test_a_client_that_rejoins_before_the_relay_continues_stays(self, simulation: Simulation) -> None:
        """The client's socket was full.

        It accepts the rest as soon as the relay's thread has removed the client from its cohort.
        """
        viewer, other = simulation.join(rate=0), simulation.join(rate=0)

        def step() -> None:
            viewer.socket.room = None
            viewer.step()

        viewer.socket.room = 10
        viewer.on_wake = step
        simulation.write(1)
        assert viewer.subscriber.state is ClientState.LIVE
        simulation.write(1)
        assert (viewer.seqs(), other.seqs()) == ([1, 2], [1, 2])
        assert len(simulation.cohorts) == 1

    def test_unsubscribing_ends_the_events_and_the_cohort(self, simulation: Simulation) -> None:
        viewer = simulation.join(batch=True)
        simulation.write(3)
        viewer.subscriber.unsubscribe()
        simulation.write(3)
        simulation.run(1)
        assert viewer.seqs() == [1, 2, 3]
        assert not simulation.cohorts

    def test_random_joins_and_leaves_lose_no_event_and_leave_no_cohort(self, simulation: Simulation) -> None:
        rng = random.Random(11)
        viewers = [simulation.join(batch=rng.random() < 0.7, rate=rng.choice([0, 10, 50])) for _ in range(30)]
        for _ in range(400):
            simulation.run(rng.uniform(0, 0.02), rng.choice([0, 100, 1500]))
            viewer = rng.choice(viewers)
            match rng.randint(0, 3):
                case 0:
                    viewer.socket.room = rng.choice([0, 50, 1000, None])
                case 1:
                    viewer.socket.room = None
                case 2 if viewer.socket.room is None:
                    viewer.step()
                    viewer.subscribe(
                        after=viewer.cursor(), epoch="epoch-1", batch=rng.random() < 0.5, rate=rng.choice([0, 10, 50])
                    )
            viewer.step()
        for viewer in viewers:
            viewer.socket.room = None
            viewer.step()
            viewer.subscribe(after=viewer.cursor(), epoch="epoch-1", rate=0)
            viewer.step()
        simulation.write(1)
        for viewer in viewers:
            all_after(viewer, simulation.source.last_seq)
            simulation.hub.remove(viewer.subscriber)
        assert not simulation.cohorts
        assert not simulation.hub.counts()

    def test_endless_subscribing_leaves_no_cohorts_behind(self, simulation: Simulation) -> None:
        simulation.write(1000)
        viewer = simulation.join(after=0)
        for _ in range(200):
            viewer.subscribe(after=0, types=("none.*",))
            viewer.step()
        assert len(simulation.cohorts) == 1
        stays = [each for each in gc.get_objects() if isinstance(each, Membership) and each.client is viewer.subscriber]
        assert len(stays) == 1


class TestFallingBehind:
    def test_a_client_beyond_the_tail_replays_and_goes_live_again(
        self, simulation: Simulation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tail, "TAIL_EVENTS", 50)
        viewer = simulation.join()
        simulation.run(1, 200)
        assert viewer.subscriber.state is ClientState.REPLAYING
        assert viewer.wakes == 1
        assert not simulation.cohorts
        simulation.run(200 * INTERVAL)
        assert viewer.subscriber.state is ClientState.LIVE
        all_after(viewer, simulation.source.last_seq)
        assert busiest_second(viewer.times()) <= 10

    def test_a_full_socket_loses_no_event_and_keeps_the_pace(self, simulation: Simulation) -> None:
        viewer, other = simulation.join(batch=True), simulation.join(batch=True)
        simulation.run(0.5, 200)
        viewer.socket.room = 100
        simulation.run(1, 200)
        assert viewer.subscriber.state is ClientState.REPLAYING
        viewer.socket.room = None
        simulation.run(1, 200)
        simulation.run(0.5)
        for each in (viewer, other):
            all_after(each, simulation.source.last_seq)
            assert busiest_second(each.times()) <= 10
        assert len(simulation.cohorts) == 1

    def test_a_client_that_falls_behind_waits_for_the_next_interval(self, simulation: Simulation) -> None:
        viewer = simulation.join(batch=True)
        simulation.run(0.5, 200)
        viewer.socket.room = 100
        while viewer.subscriber.state is ClientState.LIVE:
            simulation.run(0.005, 200)
        assert viewer.wakes == 1
        viewer.socket.room = None
        simulation.run(1, 200)
        times = viewer.times()
        assert min(later - sooner for sooner, later in itertools.pairwise(times[1:])) > INTERVAL / 2 - 0.001
        all_after(viewer, viewer.cursor())

    def test_a_slow_client_that_pruning_overtakes_is_told(
        self, simulation: Simulation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tail, "TAIL_EVENTS", 10)
        simulation.join()
        simulation.write(300)
        simulation.source.prune(250)
        with pytest.raises(Overtaken):
            simulation.run(60)


class TestFirstHeartbeats:
    def test_a_client_with_nothing_to_read_gets_the_position_at_once(self, simulation: Simulation) -> None:
        simulation.write(500)
        viewer = simulation.join(after=100, epoch="epoch-1", types=("none.*",))
        simulation.run(0.2)
        assert viewer.messages()[-1] == {"type": "heartbeat", "payload": {"cursor": 500}}

    def test_a_paced_client_gets_the_position_when_its_cohort_reaches_it(self, simulation: Simulation) -> None:
        # given a client whose next frame is due in a second
        viewer = simulation.join(rate=1)
        simulation.write(10)
        # when it subscribes again, to a filter that matches none of the events behind it
        viewer.subscribe(after=1, epoch="epoch-1", types=("none.*",), rate=1)
        viewer.step()
        simulation.relay.poll()  # as the scheduler does
        simulation.run(0.5)
        assert viewer.cursor() == 1
        # then it gets the position once its cohort is there
        simulation.run(1)
        assert viewer.cursor() == 10

    def test_a_lagging_client_gets_its_own_position(self, simulation: Simulation) -> None:
        viewer = simulation.join()
        simulation.write(30)
        simulation.run(0.5)
        simulation.hub.heartbeat()
        assert viewer.messages()[-1]["payload"]["cursor"] == viewer.seqs()[-1]


class TestMemory:
    def test_unused_subscriptions_are_removed(self, simulation: Simulation) -> None:
        viewer = simulation.join(types=("first.*",))
        for n in range(100):
            viewer.subscribe(types=(f"type-{n}.*",))
            viewer.step()
        gc.collect()
        kept = [each for each in gc.get_objects() if isinstance(each, subscription.Subscription)]
        assert sum(each.filter.types != () for each in kept) < 10


class TestAnotherHistory:
    @pytest.mark.parametrize("fields", [{}, {"batch": True}, {"rate": 0}])
    def test_no_event_of_a_new_history_reaches_clients_of_the_old_one(
        self, simulation: Simulation, fields: dict[str, Any]
    ) -> None:
        """The clients' own threads may take a while to disconnect.

        In that time the new history passes their position.
        """
        simulation.write(20)
        viewer = simulation.connect(SSE)
        viewer.subscribe(after=15, epoch="epoch-1", **fields)
        viewer.step()
        simulation.run(2)
        assert b"id: epoch-1:20\n" in viewer.socket.received
        simulation.source.epoch, simulation.source.items, simulation.source.last_seq = "epoch-2", [], 5
        simulation.relay.poll()
        assert viewer.subscriber.ending == (frames.OVERTAKEN, "the epoch changed")
        simulation.hub.heartbeat()
        simulation.write(30)
        simulation.hub.heartbeat()
        assert b"epoch-2" not in viewer.socket.received
        assert not simulation.cohorts
        simulation.hub.remove(viewer.subscriber)


class TestRest:
    """Events are read only when a client may be sent them, and then at once."""

    def test_commits_between_two_intervals_are_read_once(self, simulation: Simulation) -> None:
        viewers = [simulation.join(batch=True) for _ in range(3)]
        reads = simulation.source.reads
        simulation.run(11, rate=100)
        intervals = 11 / INTERVAL
        assert intervals - 3 <= simulation.source.reads - reads <= 2 * intervals
        for viewer in viewers:
            assert len(viewer.times()) >= intervals - 3

    def test_without_live_clients_nothing_is_read_and_a_new_client_gets_the_next_event_at_once(
        self, simulation: Simulation
    ) -> None:
        reads = simulation.source.reads
        simulation.run(5, rate=100)
        assert simulation.source.reads == reads
        viewer = simulation.join(rate=0)
        assert viewer.messages()[0]["payload"]["after"] == 500
        simulation.tick()
        simulation.write()
        assert viewer.arrivals() == {501: simulation.time.now}

    @pytest.mark.parametrize("rate", [0, 10])
    def test_a_client_that_is_due_ends_the_rest(self, simulation: Simulation, rate: float) -> None:
        slow = simulation.join(rate=0.1, batch=True)
        simulation.write()
        simulation.write()  # a rest of at most eleven seconds follows
        simulation.run(1)
        fast = simulation.join(rate=rate, batch=True, after=0)
        simulation.tick()
        assert fast.seqs() == [1, 2]
        simulation.run(0.5, rate=100)
        assert max(fast.arrivals().values()) > simulation.time.now - INTERVAL - 0.01
        assert fast.seqs() == list(range(1, len(fast.seqs()) + 1))
        assert slow.seqs() == [1]

    def test_a_waiting_poll_ends_the_rest_too(self, simulation: Simulation) -> None:
        simulation.join(rate=0.1, batch=True)
        simulation.write()
        simulation.write()
        simulation.tick()
        assert not simulation.core.wanted.is_set()
        woken = threading.Event()
        woken.set()
        simulation.core.reader.wait(
            subscription.Filter(VIEWER.visible), simulation.hub.epoch, simulation.source.last_seq, 60, woken
        )
        assert simulation.core.wanted.is_set()

    def test_a_connected_consumer_prevents_the_rest(self, simulation: Simulation) -> None:
        """A commit may be the claim of another connection.

        The older connection must then be closed at once.
        """
        simulation.join(rate=0.1, batch=True, consumer="ops")
        simulation.write(2)
        reads = simulation.source.reads
        simulation.run(1, rate=100)
        assert simulation.source.reads - reads >= 100

    def test_a_waiting_poll_wants_events_from_its_start_on(self, simulation: Simulation) -> None:
        """Events from before the wait do not count as delivered late."""
        ended = threading.Event()
        wanted = (subscription.Filter(VIEWER.visible), simulation.hub.epoch, simulation.source.last_seq, 60, ended)
        thread = threading.Thread(target=simulation.core.reader.wait, args=wanted)
        thread.start()
        wait_until(lambda: simulation.core.waiters.since is not None, "it waits")
        assert simulation.relay.wanted_from() == simulation.time.now
        ended.set()
        thread.join()
        assert simulation.relay.wanted_from() == math.inf

    def test_an_event_before_its_interval_is_not_late(
        self, simulation: Simulation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(clock, "now", lambda: datetime.fromtimestamp(simulation.time.now, UTC))
        read_after = simulation.source.read_after
        simulation.source.read_after = lambda seq, limit: read_after(seq, limit)._replace(  # type: ignore[method-assign]
            written_at=clock.isoformat(clock.now() - timedelta(seconds=INTERVAL))
        )
        simulation.join(batch=True)
        simulation.run(5, rate=100)
        found = simulation.hub.stats.metrics
        count = counted(found, "delivery_seconds_count")
        assert count > 40
        assert counted(found, "delivery_seconds_sum") < count * 2 * STEP_SECS
