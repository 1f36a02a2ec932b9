"""The core: a failing cohort ends alone, and the parts have no circles."""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import outfeed
from outfeed.feed import frames
from outfeed.feed.client import ClientState
from outfeed.feed.encoding import Batch
from outfeed.history import Item
from tests.feed.samples import counted
from tests.feed.simulated import SimulatedClient, Simulation
from tests.feed.socket_harness import Client, Feed

PACKAGE = Path(outfeed.__file__).parent


@pytest.fixture
def simulation(monkeypatch: pytest.MonkeyPatch) -> Simulation:
    return Simulation(monkeypatch)


class Raising(frames.WebSocketEncoding):
    """An encoding that fails for given methods."""

    def __init__(self, *raises_at: str) -> None:
        self.raises_at = raises_at

    def _raise_at(self, what: str) -> None:
        if what in self.raises_at:
            raise RuntimeError(f"planted in {what}")

    def singles(self, items: Sequence[Item], prev: int, epoch: str) -> Batch:
        if items:
            self._raise_at("events")
        return super().singles(items, prev, epoch)

    def heartbeat(self, cursor: int, epoch: str, *more: Any) -> bytes:
        self._raise_at("heartbeat")
        return super().heartbeat(cursor, epoch, *more)

    def stale(self, reason: str | None, since: str | None) -> bytes:
        self._raise_at("stale")
        return super().stale(reason, since)


def join(simulation: Simulation, encoding: frames.WebSocketEncoding, **fields: Any) -> SimulatedClient:
    viewer = simulation.connect(encoding)
    viewer.subscribe(**fields)
    viewer.step()
    return viewer


class TestAFailingCohort:
    @pytest.mark.parametrize("rate", [0, 10])
    def test_a_failing_cohort_ends_its_own_members_and_all_others_get_every_event(
        self, simulation: Simulation, caplog: pytest.LogCaptureFixture, rate: float
    ) -> None:
        # given healthy clients before and after two that share a cohort whose encoding fails
        encoding = Raising("events")
        before = join(simulation, frames.WEBSOCKET, rate=rate, batch=True)
        failing = [join(simulation, encoding, rate=rate) for _ in range(2)]
        after = join(simulation, frames.WEBSOCKET, rate=rate, types=("a.*",), batch=True)
        assert len(simulation.cohorts) == 3
        # when events come
        with caplog.at_level(logging.ERROR):
            for _ in range(3):
                simulation.write()
                simulation.run(1)
        # then the healthy clients have all of them, each with the one before it
        for viewer in (before, after):
            messages = viewer.messages()
            assert [message["prev"] for message in messages if "prev" in message] == [0, 1, 2]
            assert viewer.seqs() == [1, 2, 3]
            assert viewer.subscriber.state is ClientState.LIVE
        # and the others are closed, and the error is logged with its traceback and counted, once
        for viewer in failing:
            assert viewer.subscriber.ending == (frames.INTERNAL_ERROR, "internal server error")
            assert viewer.seqs() == []
        [record] = caplog.records
        assert record.exc_info is not None
        assert "planted in events" in str(record.exc_info[1])
        assert counted(simulation.core.stats.metrics, "errors_total", where="cohort") == 1
        assert simulation.relay.failure is None
        assert len(simulation.cohorts) == 2

    @pytest.mark.parametrize("message", ["heartbeat", "stale"])
    def test_a_failing_heartbeat_or_stale_message_ends_only_its_cohort(
        self, simulation: Simulation, message: str
    ) -> None:
        failing, healthy = join(simulation, Raising(message), rate=0), simulation.join(rate=0)
        if message == "stale":
            simulation.hub.tell_stale("the database is not there", None)
        else:
            simulation.hub.heartbeat()
        assert failing.subscriber.ending == (frames.INTERNAL_ERROR, "internal server error")
        simulation.write(2)
        assert healthy.seqs() == [1, 2]
        assert healthy.messages()[1]["type"] == message
        assert counted(simulation.core.stats.metrics, "errors_total", where="cohort") == 1

    def test_an_unexpected_socket_error_ends_only_its_client(self, simulation: Simulation) -> None:
        def fail() -> None:
            if failing.subscriber.state is ClientState.LIVE:
                raise ValueError("non-zero flags not allowed in calls to send() on a TLS socket")

        viewers = [simulation.join(rate=0) for _ in range(3)]
        failing = viewers[1]
        failing.socket.after_send = fail
        simulation.write(2)
        assert failing.subscriber.ending == (frames.INTERNAL_ERROR, "internal server error")
        assert [viewer.seqs() for viewer in viewers if viewer is not failing] == [[1, 2], [1, 2]]
        assert counted(simulation.core.stats.metrics, "errors_total", where="cohort") == 1

    def test_an_encoding_error_during_a_join_ends_only_that_client(self, simulation: Simulation) -> None:
        healthy = simulation.join(rate=0)
        simulation.write(3)
        joining = simulation.connect(Raising("events"))
        joining.subscribe(rate=0, after=0)
        with pytest.raises(RuntimeError, match="planted in events"):
            joining.step()
        simulation.write(1)
        assert healthy.seqs() == [1, 2, 3, 4]
        assert len(simulation.cohorts) == 1


class TestRecording:
    """A verdict is made from a fresh window and recorded before it is sent."""

    @pytest.mark.parametrize("way", ["verdict", "claim", "page"])
    def test_no_verdict_is_sent_before_it_is_recorded(self, way: str) -> None:
        feed = Feed()
        feed.source.add(3)
        with Client(feed) as client:
            reader = feed.core.reader
            if way == "claim":
                claim = feed.checkpoints.claim("ops", client.subscriber.principal)
                assert reader.verdict(claim).head == 3
            elif way == "verdict":
                client.say(action="subscribe", channel="events", after=1, epoch="epoch-1")
                assert client.take_verdict()["head"] == 3
            else:
                items, end = reader.read_after(client.subscriber.subscription.filter, "epoch-1", 0, 10)
                assert ([item.seq for item in items], end) == ([1, 2, 3], 3)
            assert feed.recorded == [("epoch-1", 3)]

    def test_a_new_history_is_published_before_its_verdict(self) -> None:
        feed = Feed()
        feed.write(5)
        feed.source.renew_epoch("epoch-1")
        feed.source.items, feed.source.last_seq = feed.source.items[:2], 2
        with Client(feed) as client:
            client.say(action="subscribe", channel="events", after=5, epoch="epoch-1")
            verdict = client.take_verdict()
        assert (verdict["verdict"], verdict["epoch"], verdict["after"]) == ("reset", "epoch-1+", 2)
        assert feed.hub.epoch == "epoch-1+"
        assert feed.recorded[-1] == ("epoch-1+", 2)


class TestStructure:
    def test_no_module_of_the_core_imports_itself_indirectly_even_for_types(self) -> None:
        imports = {path.stem: set(imported_by(path)) for path in (PACKAGE / "feed").glob("*.py")}
        assert imports["hub"] >= {"cohorts", "waiters"}, "no import was found"
        for module in imports:
            assert module not in reachable(imports, module)

    def test_no_collaborator_is_assigned_to_an_attribute_of_another_object(self) -> None:
        """Each part gets its collaborators in its constructor.

        A forgotten collaborator is an error there.
        """
        for path, node in [*nodes(PACKAGE / "feed"), *nodes(PACKAGE / "http" / "services.py")]:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Attribute | ast.Lambda):
                targets = [each.value for each in node.targets if isinstance(each, ast.Attribute)]
                own = [isinstance(each, ast.Name) and each.id == "self" for each in targets]
                assert all(own), f"{path}:{node.lineno}: {ast.unparse(node)}"

    def test_a_class_of_the_core_shares_its_name_with_no_other(self) -> None:
        places: dict[str, list[str]] = {}
        for path, node in nodes(PACKAGE):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(path.parent.name)
        assert "Cohorts" in places
        shared = {name: where for name, where in places.items() if len(where) > 1 and "feed" in where}
        assert shared == {}


def nodes(place: Path) -> Iterator[tuple[Path, ast.AST]]:
    for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
        for node in ast.walk(ast.parse(path.read_text())):
            yield path, node


def imported_by(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "outfeed.feed":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("outfeed.feed."):
            yield str(node.module).rpartition(".")[2]


def reachable(imports: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    rest = set(imports[start])
    while rest:
        module = rest.pop()
        found.add(module)
        rest |= imports.get(module, set()) - found
    return found
