"""The uplink.

The engine holds a part of the outbox's history, or edges can't read it, after any failure of either.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outfeed.config import Settings
from outfeed.edge import origin, owner, scripts, uplink
from outfeed.edge.engine import EVENTS, HEAD, Engine
from outfeed.edge.owner import OwnerFile
from outfeed.edge.stream import EngineStream, read
from outfeed.errors import EngineDown
from outfeed.history import Page
from outfeed.store.high_water_mark import HighWaterMark
from tests.database_file import epoch_of, head_of, write_events
from tests.edge.origin_in_process import OriginInProcess
from tests.engines import RedisServer
from tests.waits import wait_until

KEYS = (HEAD, EVENTS)


def rows_of(path: Path) -> dict[int, str]:
    with contextlib.closing(sqlite3.connect(path)) as raw:
        return dict(raw.execute("SELECT seq, event_id FROM outbox ORDER BY seq").fetchall())


def held(redis_server: RedisServer) -> dict[int, str]:
    """Return the id of each event in the engine by its seq."""
    entries = redis_server.client.xrange(EVENTS)
    return {int(id_.partition("-")[0]): json.loads(fields["e"])["id"] for id_, fields in entries}


def copy_of(path: Path, target: Path) -> Path:
    with contextlib.closing(sqlite3.connect(path)) as raw:
        raw.execute("VACUUM INTO ?", (str(target),))
    return target


def stream_of(engine: Engine) -> EngineStream:
    return EngineStream(engine, "http://origin", "", lambda _: None)


@pytest.fixture
def filled(origin_in_process: OriginInProcess) -> OriginInProcess:
    """An origin with ten events, all of them in the engine."""
    write_events(origin_in_process.path, 10)
    origin_in_process.bring_up()
    return origin_in_process


def test_what_is_committed_is_appended_under_its_seq_and_epoch(
    filled: OriginInProcess, redis_server: RedisServer
) -> None:
    write_events(filled.path, 5)
    filled.bring_up()
    assert held(redis_server) == rows_of(filled.path)
    assert redis_server.client.hget(HEAD, "epoch") == epoch_of(filled.path)


def test_a_flushed_engine_is_filled_again_under_the_same_epoch(
    filled: OriginInProcess, redis_server: RedisServer
) -> None:
    epoch = epoch_of(filled.path)
    redis_server.client.flushall()
    filled.bring_up()
    assert (held(redis_server), epoch_of(filled.path)) == (rows_of(filled.path), epoch)


def test_the_mark_has_each_seq_before_edges_can_read_it(
    filled: OriginInProcess, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, known = filled.engine.run, []

    def noting(script: scripts.Script, keys: Any, arguments: list[Any]) -> object:
        if script in (scripts.BEGIN, scripts.APPEND):
            position = HighWaterMark(filled.path).read()[epoch_of(filled.path)].seq
            known.append(position >= arguments[3])  # the head that edges are told, or the last seq that is appended
        return run(script, keys, arguments)

    monkeypatch.setattr(filled.engine, "run", noting)
    write_events(filled.path, 5)
    filled.bring_up()
    redis_server.client.flushall()
    write_events(filled.path, 5)
    filled.bring_up()
    assert len(known) >= 4
    assert all(known)


def test_an_append_whose_reply_was_lost_is_not_repeated(
    filled: OriginInProcess, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_events(filled.path, 5)
    run = filled.engine.run

    def lose(script: scripts.Script, *rest: object) -> object:
        answer = run(script, *rest)  # type: ignore[arg-type]
        if script == scripts.APPEND:
            raise EngineDown("the reply was lost")
        return answer

    with monkeypatch.context() as patched:
        patched.setattr(filled.engine, "run", lose)
        with pytest.raises(EngineDown):
            filled.uplink.step()
    filled.uplink.restart()
    write_events(filled.path, 5)
    filled.bring_up()
    assert held(redis_server) == rows_of(filled.path)
    assert len(redis_server.client.xrange(EVENTS)) == 20


def test_an_older_engine_gets_what_it_lacks(filled: OriginInProcess, redis_server: RedisServer) -> None:
    dump = {key: redis_server.client.execute_command("DUMP", key, NEVER_DECODE=True) for key in KEYS}
    write_events(filled.path, 20)
    filled.bring_up()
    for key, value in dump.items():
        redis_server.client.restore(key, 0, value, replace=True)
    epoch = epoch_of(filled.path)
    filled.bring_up()
    assert (held(redis_server), epoch_of(filled.path)) == (rows_of(filled.path), epoch)


def test_a_database_that_was_put_back_gets_a_new_epoch(filled: OriginInProcess, redis_server: RedisServer) -> None:
    earlier = copy_of(filled.path, filled.path.with_name("earlier.db"))
    write_events(filled.path, 5)
    filled.bring_up()
    epoch = epoch_of(filled.path)
    restored = OriginInProcess(filled.engine, earlier)
    redis_server.client.hset(HEAD, "until", 0)
    restored.bring_up()
    assert epoch_of(earlier) != epoch
    assert held(redis_server) == rows_of(earlier)
    restored.close()


@pytest.mark.parametrize("has_other_rules", [False, True])
def test_another_event_under_the_last_seq_renews_the_epoch(
    filled: OriginInProcess, redis_server: RedisServer, has_other_rules: bool
) -> None:
    """Two copies of one database have equal seqs for different events."""
    other = copy_of(filled.path, filled.path.with_name("other.db"))
    write_events(filled.path, 3)
    filled.bring_up()
    write_events(other, 3)
    redis_server.client.hset(HEAD, "until", 0)
    if has_other_rules:
        redis_server.client.hset(HEAD, "rules", "older")
    second = OriginInProcess(filled.engine, other)
    second.bring_up()
    assert epoch_of(other) != epoch_of(filled.path)
    assert held(redis_server) == rows_of(other)
    second.close()


def test_other_rules_refill_the_engine_and_keep_the_epoch(filled: OriginInProcess, redis_server: RedisServer) -> None:
    epoch = epoch_of(filled.path)
    redis_server.client.hset(HEAD, "rules", "older")
    filled.new_uplink()
    redis_server.client.hset(HEAD, "until", 0)
    redis_server.client.xdel(EVENTS, "3-0")
    filled.bring_up()
    assert (held(redis_server), epoch_of(filled.path)) == (rows_of(filled.path), epoch)
    assert redis_server.client.hget(HEAD, "rules") == filled.rules


def test_a_second_origin_appends_nothing_while_the_first_is_alive(
    filled: OriginInProcess, redis_server: RedisServer
) -> None:
    other = copy_of(filled.path, filled.path.with_name("other.db"))
    second = OriginInProcess(filled.engine, other)
    write_events(other, 3)
    for _ in range(5):
        second.uplink.step()
    assert held(redis_server) == rows_of(filled.path)
    write_events(filled.path, 1)
    filled.bring_up()
    assert held(redis_server) == rows_of(filled.path)
    second.close()


class TestTheEpochAtAnEmptiedEngine:
    """An engine that holds nothing does not tell what edges have read."""

    def test_the_first_origin_keeps_its_epoch(self, origin_in_process: OriginInProcess) -> None:
        write_events(origin_in_process.path, 3)
        epoch = epoch_of(origin_in_process.path)
        origin_in_process.bring_up()
        assert epoch_of(origin_in_process.path) == epoch

    def test_a_copy_of_a_published_database_renews_its_epoch_once(
        self, filled: OriginInProcess, redis_server: RedisServer
    ) -> None:
        copy = OriginInProcess(filled.engine, copy_of(filled.path, filled.path.with_name("copy.db")))
        redis_server.client.flushall()
        copy.bring_up()
        epoch = epoch_of(copy.path)
        assert epoch != epoch_of(filled.path)
        redis_server.client.flushall()
        copy.new_uplink()
        copy.bring_up()
        assert epoch_of(copy.path) == epoch
        copy.close()

    def test_an_earlier_copy_that_was_refused_renews_its_epoch(
        self, engine: Engine, redis_server: RedisServer, origin_in_process: OriginInProcess
    ) -> None:
        """The copy is older than the first publication and has no mark."""
        copy = OriginInProcess(engine, copy_of(origin_in_process.path, origin_in_process.path.with_name("copy.db")))
        write_events(origin_in_process.path, 3)
        origin_in_process.bring_up()
        copy.uplink.step()
        redis_server.client.flushall()
        copy.bring_up()
        assert epoch_of(copy.path) != epoch_of(origin_in_process.path)
        copy.close()

    def test_an_origin_keeps_its_epoch_over_a_reboot(
        self, filled: OriginInProcess, redis_server: RedisServer, another_boot: None
    ) -> None:
        epoch = epoch_of(filled.path)
        filled.new_uplink()
        redis_server.client.flushall()
        filled.bring_up()
        assert epoch_of(filled.path) == epoch

    def test_a_restored_database_keeps_the_epoch_of_the_restore(
        self, filled: OriginInProcess, redis_server: RedisServer
    ) -> None:
        filled.services.outbox.renew_epoch(epoch_of(filled.path))
        epoch = epoch_of(filled.path)
        redis_server.client.flushall()
        filled.bring_up()
        assert epoch_of(filled.path) == epoch


def test_a_copy_that_takes_over_from_a_dead_origin_renews_its_epoch(
    filled: OriginInProcess, redis_server: RedisServer
) -> None:
    """The engine may have lost events that edges have read."""
    copy = OriginInProcess(filled.engine, copy_of(filled.path, filled.path.with_name("copy.db")))
    redis_server.client.hset(HEAD, "until", 0)
    copy.bring_up()
    assert epoch_of(copy.path) != epoch_of(filled.path)
    copy.close()


def test_the_lease_of_a_boot_before_is_waited_for(
    filled: OriginInProcess, redis_server: RedisServer, another_boot: None
) -> None:
    filled.new_uplink()
    before = origin_of(filled)
    for _ in range(3):
        filled.uplink.step()
    assert origin_of(filled) == before
    redis_server.client.hset(HEAD, "until", 0)
    filled.bring_up()
    assert origin_of(filled) == before


def test_a_clone_of_the_disk_becomes_another_origin_when_the_lease_is_renewed(
    filled: OriginInProcess, another_boot: None
) -> None:
    """The clone has the same inode and the same owner file."""
    first = filled.uplink
    before = origin_of(filled)
    clone = filled.new_uplink()

    def is_another() -> bool:
        first.step()
        clone.step()
        return origin_of(filled) != before

    wait_until(is_another, "another origin")
    assert OwnerFile(filled.path).load().epoch == ""


def test_a_saved_owner_file_and_its_name_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database, synced, fsync = tmp_path / "outfeed.db", list[int](), os.fsync
    database.touch()
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(os.fstat(file).st_ino), fsync(file)))
    OwnerFile(database).save(owner.Ownership("one"))
    assert synced == [os.stat(f"{database}.uplink").st_ino, os.stat(tmp_path).st_ino]


def origin_of(found: OriginInProcess) -> str:
    return OwnerFile(found.path).load().origin


@pytest.fixture
def another_boot(filled: OriginInProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine boots after *filled* has filled the engine."""
    boot = tmp_path / "boot_id"
    boot.write_text("another")
    monkeypatch.setattr(owner, "_BOOT", boot)


def test_a_successor_on_the_same_machine_takes_over_at_once(filled: OriginInProcess) -> None:
    filled.new_uplink()
    filled.uplink.step()
    write_events(filled.path, 1)
    filled.bring_up()


def test_a_clone_of_the_disk_does_not_own_the_lease(filled: OriginInProcess, redis_server: RedisServer) -> None:
    clone = copy_of(filled.path, filled.path.with_name("clone.db"))
    shutil.copy(f"{filled.path}.uplink", f"{clone}.uplink")
    second = OriginInProcess(filled.engine, clone)
    write_events(clone, 1)
    second.uplink.step()
    second.uplink.step()
    assert held(redis_server) == rows_of(filled.path)
    second.close()


def test_a_lease_that_was_given_up_is_free_at_once(filled: OriginInProcess) -> None:
    other = copy_of(filled.path, filled.path.with_name("other.db"))
    filled.uplink.finish()
    second = OriginInProcess(filled.engine, other)
    write_events(other, 1)
    second.bring_up()
    second.close()


def test_pruned_events_leave_the_engine(filled: OriginInProcess, redis_server: RedisServer) -> None:
    with contextlib.closing(sqlite3.connect(filled.path)) as raw, raw:
        raw.execute("DELETE FROM outbox WHERE seq <= 4")
    filled.uplink.step()
    assert held(redis_server) == rows_of(filled.path)


def test_events_that_are_pruned_before_they_are_appended_are_a_gap_at_edges(
    filled: OriginInProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = filled.services.outbox
    read_page = outbox.read_after

    def read_and_prune(seq: int, limit: int) -> Page:
        page = read_page(seq, limit)
        with contextlib.closing(sqlite3.connect(filled.path)) as raw, raw:
            raw.execute("DELETE FROM outbox WHERE seq <= 13")
        return page

    write_events(filled.path, 5)
    monkeypatch.setattr(outbox, "read_after", read_and_prune)
    while not filled.is_up():
        filled.uplink.step()
        reply = read(filled.engine, "after", 0, 10)
        assert reply is None or reply.head.position == 10 or reply.head.first_seq == 14


def test_an_erased_event_leaves_the_engine_with_a_new_counter(
    filled: OriginInProcess, redis_server: RedisServer
) -> None:
    with contextlib.closing(sqlite3.connect(filled.path)) as raw, raw:
        raw.execute("DELETE FROM outbox WHERE seq IN (4, 10)")
    filled.note_erasure()
    filled.bring_up()
    assert held(redis_server) == rows_of(filled.path)
    assert redis_server.client.hget(HEAD, "erasures") == "1"
    assert stream_of(filled.engine).window()[1:3] == (1, 10)


def test_many_erased_events_refill_the_engine(
    filled: OriginInProcess, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uplink, "MAX_ERASED", 3)
    with contextlib.closing(sqlite3.connect(filled.path)) as raw, raw:
        raw.execute("DELETE FROM outbox WHERE seq BETWEEN 3 AND 8")
    filled.note_erasure()
    filled.bring_up()
    assert held(redis_server) == rows_of(filled.path)
    assert redis_server.client.hget(HEAD, "erasures") == "1"


def test_a_head_without_a_row_is_reached_all_the_same(filled: OriginInProcess) -> None:
    write_events(filled.path, 3)
    with contextlib.closing(sqlite3.connect(filled.path)) as raw, raw:
        raw.execute("DELETE FROM outbox WHERE seq > 11")
    filled.bring_up()
    assert stream_of(filled.engine).window().last_seq == 13


def test_while_the_engine_is_filled_it_can_not_be_read(
    filled: OriginInProcess, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A partial head would be a wrong one for a reset.

    Old events would be pushed as new ones.
    """
    monkeypatch.setattr(uplink, "APPEND_EVENTS", 4)
    redis_server.client.flushall()
    filled.uplink.restart()
    for _ in range(3):
        filled.uplink.step()
        with pytest.raises(EngineDown, match="being filled"):
            stream_of(filled.engine).window()
    filled.bring_up()
    assert stream_of(filled.engine).window().last_seq == 10


def test_only_the_newest_that_fit_are_filled_in(engine: Engine, redis_server: RedisServer, tmp_path: Path) -> None:
    found = OriginInProcess(engine, tmp_path / "many.db", engine_events=1000, engine_bytes=2**20)
    write_events(found.path, 3000)
    found.bring_up()
    assert list(held(redis_server)) == list(range(2001, 3001))
    write_events(found.path, 500, data=json.dumps("x" * 10_000))
    redis_server.client.flushall()
    found.bring_up()
    seqs = list(held(redis_server))
    assert (seqs[-1], 80 < len(seqs) < 110) == (3500, True)
    found.close()


def test_the_stream_is_trimmed_to_its_memory(
    engine: Engine, redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uplink, "MEASURE_BYTES", 2**18)
    found = OriginInProcess(engine, tmp_path / "large.db", engine_bytes=2**20)
    found.bring_up()
    for _ in range(6):
        write_events(found.path, 100, data=json.dumps("x" * 5000))
        found.bring_up()
    assert int(redis_server.client.memory_usage(EVENTS, samples=0) or 0) < 1.6 * 2**20
    assert list(held(redis_server))[-1] == 600
    found.close()


def test_the_engine_holds_no_secret(filled: OriginInProcess, redis_server: RedisServer) -> None:
    planted = "outfeed_" + "k" * 43
    write_events(filled.path, data=json.dumps({"password": "planted-one", "text": f"a {planted} b"}))
    filled.bring_up()
    for key in redis_server.client.scan_iter():
        whole = redis_server.client.execute_command("DUMP", key, NEVER_DECODE=True)
        assert b"planted-one" not in whole
        assert planted.encode() not in whole
    assert "[redacted]" in redis_server.client.xrevrange(EVENTS, count=1)[0][1]["e"]


class TestTheCheckBeforeTheServer:
    def settings_of(self, found: OriginInProcess) -> Settings:
        return found.settings

    def test_an_engine_that_is_ahead_renews_the_epoch(self, filled: OriginInProcess) -> None:
        earlier = copy_of(filled.path, filled.path.with_name("earlier.db"))
        write_events(filled.path, 2)
        filled.bring_up()
        origin.renew_epoch_if_published(filled.settings.model_copy(update={"database": earlier}))
        assert epoch_of(earlier) != epoch_of(filled.path)

    def test_an_engine_with_another_last_event_renews_it(self, filled: OriginInProcess) -> None:
        other = copy_of(filled.path, filled.path.with_name("other.db"))
        write_events(filled.path, 1)
        filled.bring_up()
        write_events(other, 4)
        origin.renew_epoch_if_published(filled.settings.model_copy(update={"database": other}))
        assert epoch_of(other) != epoch_of(filled.path)

    def test_an_engine_that_agrees_or_is_behind_or_is_empty_does_not(
        self, filled: OriginInProcess, redis_server: RedisServer
    ) -> None:
        epoch = epoch_of(filled.path)
        origin.renew_epoch_if_published(filled.settings)
        write_events(filled.path, 1)
        origin.renew_epoch_if_published(filled.settings)
        redis_server.client.flushall()
        origin.renew_epoch_if_published(filled.settings)
        assert epoch_of(filled.path) == epoch


# --- any order of what can happen -------------------------------------------------------------------------------------


class World:
    """Two origins on copies of one database, and one engine.

    The copy is made after the first publication. The test checks after every move that an edge reads no contradiction.

    `_seen` has what edges have read of each epoch.
    """

    def __init__(self, engine: Engine, redis_server: RedisServer, folder: Path) -> None:
        self._engine = engine
        self._redis = redis_server
        self._folder = folder
        redis_server.client.flushall()
        first = OriginInProcess(engine, folder / "0.db")
        write_events(first.path, 2)
        first.uplink.step()
        self.origins = [first, OriginInProcess(engine, copy_of(first.path, folder / "1.db"))]
        self._dumps: dict[str, bytes] = {}
        self._seen: dict[str, dict[int, str]] = {}
        self._copies = 0

    def write(self, which: int) -> None:
        write_events(self.origins[which].path, 2)

    def step(self, which: int) -> None:
        """Run one step of the thread, which settles again after an error."""
        with contextlib.suppress(EngineDown):
            self.origins[which].uplink.step()

    def flush(self, _: int) -> None:
        self._redis.client.flushall()

    def save(self, _: int) -> None:
        self._dumps = {
            key: self._redis.client.execute_command("DUMP", key, NEVER_DECODE=True)
            for key in KEYS
            if self._redis.client.exists(key)
        }

    def fail_over(self, _: int) -> None:
        """Continue with a replica that has what was saved."""
        self._redis.client.flushall()
        for key, value in self._dumps.items():
            self._redis.client.restore(key, 0, value, replace=True)

    def end_lease(self, _: int) -> None:
        self._redis.client.hset(HEAD, "until", 0)

    def restart(self, which: int) -> None:
        self.origins[which].new_uplink()

    def restore(self, which: int) -> None:
        """Renew the epoch, as `outfeed restore` does."""
        found = self.origins[which]
        found.services.outbox.renew_epoch(epoch_of(found.path))

    def replace(self, which: int) -> None:
        """Start the origin on a copy of its database, after the check."""
        self._copies += 1
        former = self.origins[which]
        path = copy_of(former.path, self._folder / f"copy-{self._copies}.db")
        former.close()
        self.origins[which] = OriginInProcess(self._engine, path)
        origin.renew_epoch_if_published(self.origins[which].settings)

    def check(self) -> None:
        """An edge never reads another event under a seq that it has read."""
        reply = read(self._engine, "after", 0, 10_000)
        if reply is None or reply.head.position < reply.head.target:
            return
        known, found = self._seen.setdefault(reply.head.epoch, {}), held(self._redis)
        assert all(known.get(seq, event_id) == event_id for seq, event_id in found.items())
        known.update(found)

    def close(self) -> None:
        for each in self.origins:
            each.close()


MOVES = ("write", "step", "step", "flush", "save", "fail_over", "end_lease", "restart", "restore", "replace")


@pytest.fixture
def folders() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        yield Path(folder)


PROPERTY = settings(
    max_examples=40, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


@PROPERTY
@given(moves=st.lists(st.tuples(st.sampled_from(MOVES), st.integers(0, 1)), max_size=40))
def test_an_edge_never_reads_two_events_under_one_seq_of_one_epoch(
    engine: Engine, redis_server: RedisServer, folders: Path, moves: list[tuple[str, int]]
) -> None:
    with tempfile.TemporaryDirectory(dir=folders) as folder:
        world = World(engine, redis_server, Path(folder))
        try:
            for name, which in moves:
                getattr(world, name)(which)
                world.check()
            for _ in range(12):
                world.end_lease(0)
                world.step(0)
            world.check()
            assert held(redis_server) == rows_of(world.origins[0].path)
            assert head_of(world.origins[0].path) == read(engine, "after", 0, 0).head.position  # type: ignore[union-attr]
        finally:
            world.close()


@PROPERTY
@given(moves=st.lists(st.sampled_from([each for each in MOVES if each not in ("restore", "replace")]), max_size=30))
def test_a_single_origin_never_renews_its_epoch(
    engine: Engine, redis_server: RedisServer, folders: Path, moves: list[str]
) -> None:
    with tempfile.TemporaryDirectory(dir=folders) as folder:
        world = World(engine, redis_server, Path(folder))
        epoch = epoch_of(world.origins[0].path)
        try:
            for name in moves:
                getattr(world, name)(0)
            world.step(0)
            assert epoch_of(world.origins[0].path) == epoch
        finally:
            world.close()
