"""Checks of `outfeed doctor` on the engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from outfeed.config import Settings
from outfeed.edge.engine import EVENTS, Engine
from outfeed.edge.origin import STALE_SECS, engine_of
from outfeed.edge.report import list_edges
from outfeed.edge.stream import Reply, read
from outfeed.errors import EngineDown
from outfeed.feature import NOTE, PROBLEM, Finding
from outfeed.store.database import Database
from outfeed.store.outbox import Outbox
from outfeed.store.serving import version

# Edges use `EVALSHA_RO`, flags of scripts and selectors of ACLs, which came with Redis 7.0.
MIN_REDIS, MIN_VALKEY = (7, 0), (7, 2)


def examine(database: Database, settings: Settings) -> Iterator[Finding]:
    """Yield the problems of the engine and of its copy of the outbox."""
    engine = engine_of(settings)
    try:
        facts: dict[str, Any] = engine.call(lambda client: client.info("server", "memory"))
        yield from _version(facts)
        yield from _policy(facts)
        yield from _room(engine, facts, settings)
        yield from _state(engine, Outbox(database, settings.max_event_bytes).window().last_seq)
        yield from _edges(engine)
    except EngineDown as error:
        yield Finding(
            PROBLEM, f"{engine.address}: {error}", "edges admit no new viewers and get no new events",
            "check OUTFEED_ENGINE, and that the engine runs",
        )  # fmt: skip
    finally:
        engine.close()


def _version(facts: dict[str, Any]) -> Iterator[Finding]:
    is_valkey = "valkey_version" in facts
    shown = str(facts["valkey_version" if is_valkey else "redis_version"])
    found = tuple(int(part) for part in shown.split(".")[:2])
    wanted = MIN_VALKEY if is_valkey else MIN_REDIS
    if found < wanted:
        name = "Valkey" if is_valkey else "Redis"
        yield Finding(
            PROBLEM, f"the engine is {name} {shown}", "edges need commands that this version does not have",
            f"install {name} {wanted[0]}.{wanted[1]} or newer",
        )  # fmt: skip


def _policy(facts: dict[str, Any]) -> Iterator[Finding]:
    if (policy := facts.get("maxmemory_policy")) != "noeviction":
        yield Finding(
            PROBLEM, f"the engine's maxmemory-policy is {policy}",
            "it removes the whole stream or all permissions when its memory is short",
            "set maxmemory-policy noeviction in the engine's configuration",
        )  # fmt: skip


def _room(engine: Engine, facts: dict[str, Any], settings: Settings) -> Iterator[Finding]:
    limit, used = int(facts.get("maxmemory", 0)), int(facts.get("used_memory", 0))
    stream = int(engine.call(lambda client: client.memory_usage(EVENTS)) or 0)
    if limit and limit - used + stream < settings.engine_bytes:
        yield Finding(
            PROBLEM,
            f"the engine has room for {(limit - used + stream) / 2**20:,.0f} MiB of events"
            f" and OUTFEED_ENGINE_BYTES is {settings.engine_bytes / 2**20:,.0f} MiB",
            "when its memory is full, the stream is trimmed to half and edges pause for a second",
            "raise maxmemory of the engine, or lower OUTFEED_ENGINE_BYTES",
        )  # fmt: skip


def _state(engine: Engine, head: int) -> Iterator[Finding]:
    reply: Reply | None = read(engine, "after", 0, 0)
    if reply is None:
        yield Finding(NOTE, "the engine holds no events", "`outfeed serve` fills it", "systemctl restart outfeed")
        return
    age = reply.head.age_ms / 1000
    if not 0 <= age <= STALE_SECS:
        yield Finding(
            PROBLEM, f"the uplink last wrote to the engine {age:,.0f} s ago", "edges show their viewers old events",
            "systemctl restart outfeed",
        )  # fmt: skip
    elif reply.head.position < head:
        yield Finding(
            NOTE, f"the engine is {head - reply.head.position:,} seqs behind", "the uplink appends them now",
            "outfeed doctor, in a minute",
        )  # fmt: skip


def _edges(engine: Engine) -> Iterator[Finding]:
    for each in list_edges(engine):
        if each.is_silent:
            yield Finding(
                NOTE, f"the edge {each.name} {each.address} last reported {each.age:,.0f} s ago",
                "it was killed, has hung or can't reach the engine", "systemctl restart outfeed-edge there",
            )  # fmt: skip
        elif each.version != version():
            yield Finding(
                NOTE, f"the edge {each.name} {each.address} runs outfeed {each.version}, and this is {version()}",
                "with other rules, the edge checks each event again, at half the speed",
                "pip install --upgrade outfeed there",
            )  # fmt: skip
