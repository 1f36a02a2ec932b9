"""Cohorts of paced subscribers: they beat together, become one, and nobody gets more, less, or anything sooner."""

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
    """Counts how often each event is encoded."""

    def __init__(self) -> None:
        self.encoded: dict[int, int] = {}
        self.batches = 0

    def groups(self, items: Any, prev: int, epoch: str) -> encoding.Batch:
        self.batches += bool(items)
        for item in items:
            self.encoded[item.seq] = self.encoded.get(item.seq, 0) + 1
        return super().groups(items, prev, epoch)


def all_after(viewer: SimulatedClient, last: int) -> None:
    """Fail unless the viewer has had every event after its verdict, once, up to *last*."""
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

    def test_the_first_event_after_a_quiet_moment_goes_at_once(self, simulation: Simulation) -> None:
        viewer = simulation.join()
        for quiet in (0.3, 1.0, 7.77):
            simulation.run(quiet)
            simulation.write()
            assert viewer.times()[-1] == simulation.time.now

    def test_a_batched_viewer_lags_by_two_beats_at_most(self, simulation: Simulation) -> None:
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

    def test_a_rate_of_zero_is_as_they_come(self, simulation: Simulation) -> None:
        viewer = simulation.join(rate=0)
        for _ in range(100):
            simulation.write()
        assert len(viewer.times()) == 100

    def test_a_limited_client_gets_no_more_than_its_limit(self, simulation: Simulation) -> None:
        for wanted, granted in ((None, 10), (0, 10), (500, 10), (2, 2)):
            viewer = simulation.admit(rates=(10, 10))
            viewer.subscribe(rate=wanted)
            assert viewer.messages()[0]["payload"]["rate"] == granted

    @pytest.mark.parametrize("rate", [5e-324, 1e-300, 1e-9, float("nan")])
    def test_a_rate_that_no_clock_can_keep_is_refused(self, rate: float) -> None:
        with pytest.raises(InvalidRequest, match="rate"):
            subscription.validated(SubscribeRequest, {"rate": rate})

    def test_subscribing_again_and_again_gets_nothing_sooner(self, simulation: Simulation) -> None:
        viewer = simulation.join()
        for _ in range(300):
            simulation.run(0.01, 200)
            viewer.subscribe(after=viewer.cursor(), epoch=simulation.source.epoch)
            viewer.step()
        assert busiest_second(viewer.times()) <= 10

    def test_a_new_rate_holds_at_once(self, simulation: Simulation) -> None:
        simulation.write(50)
        viewer = simulation.join(after=0, rate=0.01)
        simulation.run(1)
        assert len(viewer.times()) == 1
        viewer.subscribe(after=0, rate=100)
        simulation.run(1)
        assert len(viewer.times()) == 51


class TestMerging:
    def test_fifty_that_joined_at_different_moments_under_load_end_in_one(self, simulation: Simulation) -> None:
        rng, counting = random.Random(7), Counting()
        simulation.run(0.5, 100)
        viewers = []
        for _ in range(50):
            simulation.run(rng.uniform(0, 0.05), 300)
            viewer = simulation.admit(counting)
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

    def test_a_cohort_that_one_joins_sends_nothing_before_the_newcomer_may(self, simulation: Simulation) -> None:
        """The newcomer has just been sent a frame by its own thread; those it meets have been quiet for long."""
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

    def test_the_event_before_is_right_for_all_of_a_merged_cohort(self, simulation: Simulation) -> None:
        """One was told of event 1 last, another joined at the head that nothing had matched since."""
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
    def test_the_event_before_is_right_for_one_that_was_told_less(self, simulation: Simulation, is_due: bool) -> None:
        """It is at the others' position, by reading what doesn't match, and an event comes before its greeting."""
        simulation.source.add(6)
        simulation.hub.begin(simulation.source.window(), [])
        simulation.join(types=("wanted.*",))
        late = simulation.admit()
        late.subscriber.place = Place(due=0.0 if is_due else simulation.time.now + 0.05)
        late.subscribe(types=("wanted.*",), after=3, epoch="epoch-1")
        late.step()
        assert len(simulation.cohorts) == (1 if is_due else 2)
        simulation.time.now += 0.06
        simulation.write(1, event_type="wanted.one")
        assert len(simulation.cohorts) == 1
        assert late.seqs() == [7]

    def test_who_is_leaving_is_not_taken_along(self, simulation: Simulation) -> None:
        """It leaves its cohort before that merges with another."""
        simulation.join(batch=True)
        simulation.write(3)
        leaving = simulation.join(batch=True, after=0)
        assert len(simulation.cohorts) == 2
        leaving.subscriber.unsubscribe()
        simulation.run(0.5, 50)
        assert len(simulation.cohorts) == 1
        assert leaving.seqs() == []
        assert leaving.subscriber.state is ClientState.IDLE

    def test_a_newcomer_is_sent_nothing_that_lies_before_it(self, simulation: Simulation) -> None:
        """It joins the cohort between the moment a batch is made and the moment it is sent."""
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


class TestComingAndGoing:
    def test_subscribing_anew_while_a_batch_is_on_its_way_gives_each_event_once(self, simulation: Simulation) -> None:
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

    def test_who_is_back_before_the_relay_goes_on_stays(self, simulation: Simulation) -> None:
        """Its socket was full, and took all that was left as soon as the relay's thread had it leave its cohort."""
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

    def test_who_unsubscribes_gets_nothing_more_and_its_cohort_is_gone(self, simulation: Simulation) -> None:
        viewer = simulation.join(batch=True)
        simulation.write(3)
        viewer.subscriber.unsubscribe()
        simulation.write(3)
        simulation.run(1)
        assert viewer.seqs() == [1, 2, 3]
        assert not simulation.cohorts

    def test_random_comings_and_goings_lose_nothing_and_leave_nothing(self, simulation: Simulation) -> None:
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

    def test_a_client_that_subscribes_without_end_leaves_nothing_behind(self, simulation: Simulation) -> None:
        simulation.write(1000)
        viewer = simulation.join(after=0)
        for _ in range(200):
            viewer.subscribe(after=0, types=("none.*",))
            viewer.step()
        assert len(simulation.cohorts) == 1
        stays = [each for each in gc.get_objects() if isinstance(each, Membership) and each.client is viewer.subscriber]
        assert len(stays) == 1


class TestFallingBehind:
    def test_beyond_the_tail_one_goes_on_by_oneself_and_comes_back(
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

    def test_a_full_socket_costs_no_event_and_no_pace(self, simulation: Simulation) -> None:
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

    def test_who_falls_behind_at_a_beat_waits_for_the_next(self, simulation: Simulation) -> None:
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

    def test_pruning_overtakes_a_laggard_and_says_so(
        self, simulation: Simulation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tail, "TAIL_EVENTS", 10)
        simulation.join()
        simulation.write(300)
        simulation.source.prune(250)
        with pytest.raises(Overtaken):
            simulation.run(60)


class TestGreetings:
    def test_who_has_nothing_to_read_is_told_at_once_how_far_that_is(self, simulation: Simulation) -> None:
        simulation.write(500)
        viewer = simulation.join(after=100, epoch="epoch-1", types=("none.*",))
        simulation.run(0.2)
        assert viewer.messages()[-1] == {"type": "heartbeat", "payload": {"cursor": 500}}

    def test_a_client_whose_pace_makes_it_wait_is_told_when_its_cohort_is_there(self, simulation: Simulation) -> None:
        # given a client whose next frame is due in a second
        viewer = simulation.join(rate=1)
        simulation.write(10)
        # when it subscribes anew, to nothing of what lies behind
        viewer.subscribe(after=1, epoch="epoch-1", types=("none.*",), rate=1)
        viewer.step()
        simulation.relay.poll()  # as the scheduler does
        simulation.run(0.5)
        assert viewer.cursor() == 1
        # then it is told the position once its cohort has come there
        simulation.run(1)
        assert viewer.cursor() == 10

    def test_who_lags_is_told_only_what_it_has(self, simulation: Simulation) -> None:
        viewer = simulation.join()
        simulation.write(30)
        simulation.run(0.5)
        simulation.hub.heartbeat()
        assert viewer.messages()[-1]["payload"]["cursor"] == viewer.seqs()[-1]


class TestMemory:
    def test_subscriptions_that_no_client_has_are_forgotten(self, simulation: Simulation) -> None:
        viewer = simulation.join(types=("first.*",))
        for n in range(100):
            viewer.subscribe(types=(f"type-{n}.*",))
            viewer.step()
        gc.collect()
        kept = [each for each in gc.get_objects() if isinstance(each, subscription.Subscription)]
        assert sum(each.filter.types != () for each in kept) < 10


class TestAnotherHistory:
    @pytest.mark.parametrize("fields", [{}, {"batch": True}, {"rate": 0}])
    def test_nothing_of_it_reaches_those_who_follow_the_old(
        self, simulation: Simulation, fields: dict[str, Any]
    ) -> None:
        """Their own threads may take a while to hang up; meanwhile the new history passes their position."""
        simulation.write(20)
        viewer = simulation.admit(SSE)
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
    """Nothing is read before somebody may be sent it, and then at once."""

    def test_what_is_committed_between_two_beats_is_read_once(self, simulation: Simulation) -> None:
        viewers = [simulation.join(batch=True) for _ in range(3)]
        reads = simulation.source.reads
        simulation.run(11, rate=100)
        beats = 11 / INTERVAL
        assert beats - 3 <= simulation.source.reads - reads <= 2 * beats
        for viewer in viewers:
            assert len(viewer.times()) >= beats - 3

    def test_where_nobody_is_live_nothing_is_read_and_who_comes_is_sent_the_next_event_at_once(
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
    def test_one_that_may_be_sent_more_ends_the_rest_of_those_that_may_not(
        self, simulation: Simulation, rate: float
    ) -> None:
        slow = simulation.join(rate=0.1, batch=True)
        simulation.write()
        simulation.write()  # which rests for eleven seconds, at the most
        simulation.run(1)
        fast = simulation.join(rate=rate, batch=True, after=0)
        simulation.tick()
        assert fast.seqs() == [1, 2]
        simulation.run(0.5, rate=100)
        assert max(fast.arrivals().values()) > simulation.time.now - INTERVAL - 0.01
        assert fast.seqs() == list(range(1, len(fast.seqs()) + 1))
        assert slow.seqs() == [1]

    def test_one_that_waits_for_an_event_ends_it_too(self, simulation: Simulation) -> None:
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

    def test_where_a_consumer_is_connected_there_is_none(self, simulation: Simulation) -> None:
        """A commit may be the claim of another connection, and the older one is to be sent away at once."""
        simulation.join(rate=0.1, batch=True, consumer="ops")
        simulation.write(2)
        reads = simulation.source.reads
        simulation.run(1, rate=100)
        assert simulation.source.reads - reads >= 100

    def test_one_that_waits_wants_what_is_new_from_when_it_began(self, simulation: Simulation) -> None:
        """So that what was committed while nobody was there does not count as delivered late."""
        ended = threading.Event()
        wanted = (subscription.Filter(VIEWER.visible), simulation.hub.epoch, simulation.source.last_seq, 60, ended)
        thread = threading.Thread(target=simulation.core.reader.wait, args=wanted)
        thread.start()
        wait_until(lambda: simulation.core.waiters.since is not None, "it waits")
        assert simulation.relay.wanted_from() == simulation.time.now
        ended.set()
        thread.join()
        assert simulation.relay.wanted_from() == math.inf

    def test_what_nobody_may_be_sent_yet_is_not_late(
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
