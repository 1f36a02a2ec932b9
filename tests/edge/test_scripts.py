"""The scripts in the engine: what each refuses, and what a reader sees."""

from __future__ import annotations

import re

import pytest

from outfeed.access.store import account
from outfeed.edge import scripts
from outfeed.edge.engine import EDGE, EVENTS, GRANTS, HEAD, TICKET, Engine
from outfeed.edge.grants import EngineGrants
from outfeed.edge.stream import Reply, read
from outfeed.errors import EngineDown, EngineFull
from tests.engines import RedisServer
from tests.server import ROOT
from tests.waits import wait_until

KEYS = (HEAD, EVENTS)


def claim(engine: Engine, new: str, old: str = "", ms: int = 5000) -> bytes:
    kind: bytes = engine.run(scripts.CLAIM, KEYS, [old, new, ms])[0]
    return kind


def begin(engine: Engine, owner: str = "me", seq: int = 0, target: int = 0, epoch: str = "E") -> int:
    return int(engine.run(scripts.BEGIN, KEYS, [owner, epoch, seq, target, "rules", 0]))


def append(
    engine: Engine, *seqs: int, prev: int, through: int = 0, owner: str = "me", epoch: str = "E", size: int = 9
) -> list[object]:
    events = [part for seq in seqs for part in (seq, b"x" * size, f"2024-01-{seq % 28 + 1:02}", f"c{seq}")]
    bounds = [through or (seqs[-1] if seqs else prev), 100_000, 0, 5000, 0]
    found: list[object] = engine.run(scripts.APPEND, KEYS, [owner, epoch, prev, *bounds, *events])
    return found


def read_all(engine: Engine, after: int = 0, limit: int = 100, max_bytes: int = 2**20) -> Reply:
    reply = read(engine, "after", after, limit, max_bytes)
    assert reply is not None
    return reply


@pytest.fixture
def filled(engine: Engine) -> Engine:
    """An engine with 1, 2, 5 and the position 6."""
    assert claim(engine, "me") == b"empty"
    assert begin(engine) == 1
    assert append(engine, 1, 2, 5, prev=0, through=6) == [b"ok"]
    return engine


def test_the_lease_is_one_owners_until_it_ends(engine: Engine) -> None:
    assert claim(engine, "me", ms=5000) == b"empty"
    assert claim(engine, "other") == b"owned"
    assert claim(engine, "successor", old="me", ms=50) == b"empty"
    wait_until(lambda: claim(engine, "other") == b"empty", "lease over by the engine's clock")


def test_a_lease_that_is_given_up_is_free(engine: Engine) -> None:
    claim(engine, "me")
    claim(engine, "me", old="me", ms=0)
    assert claim(engine, "other") == b"empty"


@pytest.mark.parametrize(
    ("wrong", "answer"),
    [
        ({"owner": "other"}, [b"fenced", b"me"]),
        ({"epoch": "F"}, [b"lost"]),
        ({"prev": 5}, [b"at", 6]),
        ({"prev": 7}, [b"at", 6]),
    ],
)
def test_an_append_that_does_not_fit_changes_nothing(
    filled: Engine, wrong: dict[str, object], answer: list[object]
) -> None:
    assert append(filled, 8, **{"prev": 6, **wrong}) == answer  # type: ignore[arg-type]
    assert read_all(filled).seqs == [1, 2, 5]


def test_an_append_to_a_lost_stream_is_told(filled: Engine, redis_server: RedisServer) -> None:
    redis_server.client.delete(EVENTS)
    assert append(filled, 7, prev=6) == [b"lost"]
    assert read(filled, "after", 0, 1) is None


def test_only_the_owner_begins_and_erases(filled: Engine) -> None:
    assert begin(filled, owner="other") == 0
    assert filled.run(scripts.ERASE, KEYS, ["other", "E", 1, 2])[0] == b"fenced"
    assert filled.run(scripts.ERASE, KEYS, ["me", "F", 1, 2])[0] == b"lost"
    assert read_all(filled).seqs == [1, 2, 5]


def test_an_erased_event_is_gone_with_the_new_counter(filled: Engine) -> None:
    assert filled.run(scripts.ERASE, KEYS, ["me", "E", 3, 2]) == [b"ok"]
    reply = read_all(filled)
    assert (reply.seqs, reply.head.erasures, reply.head.position) == ([1, 5], 3, 6)


@pytest.mark.parametrize("seq", [0, 7])
def test_a_beginning_empties_the_stream_and_keeps_its_place(filled: Engine, seq: int) -> None:
    assert begin(filled, seq=seq, target=9, epoch="F") == 1
    head = read_all(filled).head
    assert (head.epoch, head.first_seq, head.position, head.target) == ("F", seq + 1, seq, 9)
    assert append(filled, 8, prev=seq, epoch="F") == [b"ok"]


def test_a_read_is_bounded_by_events_and_by_bytes(filled: Engine) -> None:
    assert (read_all(filled, limit=2).seqs, read_all(filled, limit=2).has_more) == ([1, 2], True)
    assert (read_all(filled, max_bytes=10).seqs, read_all(filled, max_bytes=10).has_more) == ([1, 2], True)
    assert (read_all(filled, after=2).seqs, read_all(filled, after=2).has_more) == ([5], False)
    backwards = read(filled, "before", 5, 10)
    assert backwards is not None
    assert (backwards.seqs, backwards.written_at) == ([2, 1], "2024-01-02")


def test_a_read_of_more_than_a_chunk_skips_nothing(engine: Engine) -> None:
    claim(engine, "me")
    begin(engine)
    append(engine, *range(1, 1301), prev=0)
    assert read_all(engine, limit=1200).seqs == list(range(1, 1201))
    assert read_all(engine, after=1200, limit=500).seqs == list(range(1201, 1301))


def test_without_memory_the_owner_still_claims_erases_and_trims(engine: Engine, redis_server: RedisServer) -> None:
    claim(engine, "me")
    begin(engine)
    append(engine, *range(1, 3001), prev=0, size=300)
    used = redis_server.client.info("memory")["used_memory"]
    redis_server.client.config_set("maxmemory", str(used - 100_000))
    try:
        with pytest.raises(EngineFull):
            append(engine, 3001, prev=3000)
        assert claim(engine, "me") == b"mine"
        assert engine.run(scripts.ERASE, KEYS, ["me", "E", 1]) == [b"ok"], "an erasure of events that it does not hold"
        assert engine.run(scripts.APPEND, KEYS, ["me", "E", 3000, 3000, 1000, 0, 5000, 1]) == [b"ok"]
        assert redis_server.client.xlen(EVENTS) < 1200
        assert redis_server.client.hget(HEAD, "shortages") == "1"
        assert append(engine, 3001, prev=3000) == [b"ok"]
    finally:
        redis_server.client.config_set("maxmemory", "0")


def test_what_is_pruned_is_gone_to_the_event(filled: Engine) -> None:
    assert filled.run(scripts.APPEND, KEYS, ["me", "E", 6, 6, 100_000, 2, 5000, 0]) == [b"ok"]
    assert (read_all(filled).seqs, read_all(filled).head.first_seq) == ([2, 5], 2)


def test_the_user_of_an_edge_may_do_what_an_edge_does_and_no_more(filled: Engine, redis_server: RedisServer) -> None:
    lines = (ROOT / "scripts" / "deploy" / "redis.conf").read_text().splitlines()
    (acl,) = [line.removeprefix("user ") for line in lines if line.startswith("user edge ")]
    redis_server.client.execute_command("ACL", "SETUSER", *re.findall(r"\([^)]*\)|\S+", acl))
    redis_server.client.hset(GRANTS, mapping={"_": "1", "token:x": "[]"})
    redis_server.client.set(f"{TICKET}{account.hash_of('secret')}", "token:y")
    redis_server.client.script_flush()
    edge = Engine(redis_server.url.replace("redis://", "redis://edge:EDGE_PASSWORD@"))
    try:
        assert read(edge, "after", 0, 10) is not None
        assert edge.wait_for_entry(2)
        assert EngineGrants(edge).principal_of("token:y") is None
        assert EngineGrants(edge).redeem_ticket("secret") is None
        assert not redis_server.client.exists(f"{TICKET}{account.hash_of('secret')}")
        edge.call(lambda client: client.set(f"{EDGE}1", "report", ex=10))
        with pytest.raises(EngineDown, match="permission"):
            edge.run(scripts.APPEND, KEYS, ["me", "E", 6, 7, 100, 0, 5000, 0])
        with pytest.raises(EngineDown):
            edge.call(lambda client: client.flushall())
        with pytest.raises(EngineDown):
            edge.call(lambda client: client.hset(GRANTS, "token:z", "[]"))
        with pytest.raises(EngineDown):
            edge.call(lambda client: client.xread({"other": "0"}))
    finally:
        edge.close()
        redis_server.client.acl_deluser("edge")
