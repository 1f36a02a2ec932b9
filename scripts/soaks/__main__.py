"""The command: `scripts/soak [options]`."""

from __future__ import annotations

import random
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
import hypothesis
from hypothesis import given
from hypothesis import strategies as st

from scripts.benchmarks.errors import BenchError
from scripts.benchmarks.process import raise_descriptor_limit
from scripts.soaks import browser_tabs, crowd, engine, library, mix, simulation, slow, tab
from scripts.soaks.kills import REPLAYED, Round, programme
from scripts.soaks.stage import Followers, Mismatch, Stage, fill
from tests.journeys import test_far_behind
from tests.journeys.test_keeping import MAX_WAIT_SECS, prune_half
from tests.server import Server
from tests.watch import migrated, twins

FOLLOWERS = 20
BEHIND = 1_000_000
SCHEMA_CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance"
)


@click.command(epilog="Example: scripts/soak --rounds 60 --seed 7")
@click.option("--rounds", type=click.IntRange(1), default=20, show_default=True, help="Kill rounds.")
@click.option("--minutes", type=click.FloatRange(0.5), help="Run the mix for this long instead of everything else.")
@click.option(
    "--events", type=click.IntRange(0), default=2_000_000, show_default=True, help="Prune half of these. 0: skip."
)
@click.option(
    "--log-events",
    type=click.IntRange(0),
    default=3_000_000,
    show_default=True,
    help="Read and search a log of these. 0: skip.",
)
@click.option(
    "--programs",
    type=click.IntRange(0),
    default=10_000,
    show_default=True,
    help="Write to watched tables by these random programs. 0: skip.",
)
@click.option(
    "--tab-events",
    type=click.IntRange(0),
    default=tab.EVENTS,
    show_default=True,
    help="Show these in a tab that stays open: by default those of eight hours. 0: skip.",
)
@click.option(
    "--schemathesis-minutes", type=click.FloatRange(0), default=0, help="Then fuzz the HTTP API for this long."
)
@click.option("--engine", "is_engine", is_flag=True, help="With --minutes: mix failures of an engine with two edges.")
@click.option("--tabs", "has_tabs", is_flag=True, help="With --minutes: random steps of tabs that share a connection.")
@click.option("--simulation", "is_simulation", is_flag=True, help="Only run simulated schedules, on all processors.")
@click.option(
    "--schedules",
    type=click.IntRange(1),
    default=100_000,
    show_default=True,
    help="With --simulation: this many, from the seed on.",
)
@click.option("--seed", type=int, help="Repeat the moments and the order of an earlier run.")
def main(
    rounds: int,
    minutes: float | None,
    events: int,
    log_events: int,
    programs: int,
    tab_events: int,
    schemathesis_minutes: float,
    is_engine: bool,
    has_tabs: bool,
    is_simulation: bool,
    schedules: int,
    seed: int | None,
) -> None:
    """Kill the server, connect 1,000 clients, prune, search and watch.

    The load is 500 events a second and 20 clients. Between the kills, 1,100 sockets of one address send or read too
    slowly beside a viewer. With --minutes: writers, viewers, stalls, kills, prunes, restores and clock steps at random,
    from the seed. After each round every client's list is compared with the log, read with plain sqlite3. Exits 1 on
    any mismatch.
    """
    raise_descriptor_limit()
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    click.echo(f"seed {seed}")
    try:
        if is_simulation:
            click.echo(simulation.run(schedules, seed))
        elif is_engine:
            click.echo(engine.run(minutes or 2, random.Random(seed)))
        elif has_tabs:
            click.echo(browser_tabs.run(minutes or 2, random.Random(seed)))
        elif minutes is None:
            run_rounds(seed, rounds, events)
            if log_events:
                run_log(log_events)
            if programs:
                run_programs(programs, seed)
            if tab_events:
                found = tab.run_tab(tab_events)
                click.echo(
                    f"After {tab_events:,} events a tab's heap had grown by {found.growth_bytes / 1e6:.1f} MB at most,"
                    f" and a click took {found.answer_ms:.0f} ms at most."
                )
        else:
            run_mix(seed, minutes)
        if schemathesis_minutes:
            run_schemathesis(schemathesis_minutes)
    except (Mismatch, BenchError, AssertionError) as error:
        click.echo(f"MISMATCH with seed {seed}: {error}")
        sys.exit(1)


def run_mix(seed: int, minutes: float) -> None:
    """Run the mix on one server. After a mismatch, keep its files."""
    folder = Path(tempfile.mkdtemp(prefix="outfeed-soak-"))
    try:
        said = mix.run(minutes, random.Random(seed), folder)
    except Mismatch as mismatch:
        raise Mismatch(f"{mismatch}; all files are in {folder}") from mismatch
    shutil.rmtree(folder)
    click.echo(f"Seed {seed}: {said}.")


def run_schemathesis(minutes: float) -> None:
    """Have schemathesis send allowed and invalid requests.

    The OpenAPI document must contain every response.
    """
    with tempfile.TemporaryDirectory(prefix="outfeed-soak-") as folder, Server(Path(folder)) as server:
        command = [
            str(Path(sys.executable).with_name("schemathesis")), "run", f"{server.url}/api/openapi.json",
            "--header", f"Authorization: Bearer {server.token}", "--checks", SCHEMA_CHECKS,
            "--exclude-path", "/api/feed/stream", "--max-time", f"{minutes * 60:.0f}", "--request-timeout", "70",
        ]  # fmt: skip
        if subprocess.run(command, check=False, cwd=folder).returncode:
            raise Mismatch("schemathesis reported a failure")


def run_programs(count: int, seed: int) -> None:
    """Write to watched tables, and change their schemas, at random.

    The events must replay to the tables.
    """
    for test in (given(twins.programs())(twins.check), given(st.data())(migrated.check)):
        hypothesis.seed(seed)(hypothesis.settings(max_examples=count, deadline=None, database=None)(test))()
    click.echo(f"Seed {seed}: the events of 2 × {count:,} random programs replay to the tables that they wrote to.")


def run_rounds(seed: int, rounds: int, events: int) -> None:
    """Run kills, the crowd, slow clients, long replays and the prune."""
    logged, killed = run_kills(random.Random(seed), iter(range(1, rounds + 1)))
    arrival = run_crowd()
    slowed = slow.run_slow_clients()
    run_far_behind()
    if events:
        run_prune(events)
    click.echo(
        f"Seed {seed}: after {killed} kill rounds all {FOLLOWERS} clients have exactly the {logged:,} events of the"
        f" log, in order; {crowd.CLIENTS:,} clients {crowd.BEHIND} behind were live in {arrival.live_secs:.1f} s, with"
        f" /healthz at {arrival.slowest_health_ms:.0f} ms at most; beside {slow.OFFENDERS:,} slow sockets of one"
        f" address a viewer was live in {slowed.live_secs:.2f} s, with /healthz at {slowed.slowest_health_ms:.0f} ms at"
        f" most, and they were gone after {slowed.gone_secs:.0f} s."
    )


def run_kills(rng: random.Random, numbers: Iterator[int]) -> tuple[int, int]:
    """Run the kill rounds. Return the log's length and the rounds."""
    events = done = 0
    with tempfile.TemporaryDirectory(prefix="outfeed-soak-") as name:
        folder = Path(name)
        with Server(folder, trace_file=str(folder / simulation.TRACE)) as server:
            fill(server.database, REPLAYED)
            with Followers(server, FOLLOWERS) as followers:
                stage = Stage(server, followers, rng)
                for done, bring_down in zip(numbers, programme(rng), strict=False):
                    events = run_round(stage, done, bring_down)
        click.echo(simulation.check_trace(folder))
    return events, done


def run_round(stage: Stage, number: int, bring_down: Round) -> int:
    """Run one round and compare. Return the number of events in the log."""
    began = time.monotonic()
    bring_down(stage)
    events = stage.compare()
    name = bring_down.__name__.replace("_", " ")
    click.echo(f"round {number}: {name}, {events:,} events, all exact, {time.monotonic() - began:.1f} s")
    return events


def run_crowd() -> crowd.Arrival:
    """Run the crowd on a server of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="outfeed-soak-") as folder,
        Server(Path(folder), max_connections=crowd.CLIENTS + 50) as server,
    ):
        return crowd.arrive(server)


def run_far_behind() -> None:
    """Resume a million events behind, by each transport."""
    with tempfile.TemporaryDirectory(prefix="outfeed-soak-") as folder:
        server = Server(Path(folder))
        test_far_behind.fill(server, BEHIND)
        with server:
            for way in test_far_behind.WAYS:
                began = time.monotonic()
                test_far_behind.follow_to(server, BEHIND, way)
                click.echo(f"{BEHIND:,} events behind, {way}: caught up after {time.monotonic() - began:.0f} s")


def run_prune(events: int) -> None:
    """Prune half of *events* during writes and a subscription."""
    with tempfile.TemporaryDirectory(prefix="outfeed-soak-") as folder, Server(Path(folder)) as server:
        longest, quiet = prune_half(server, events, patience_secs=60 + events / 500)
    if longest - quiet > MAX_WAIT_SECS:
        raise Mismatch(f"a commit took {longest * 1000:.0f} ms during the prune, {quiet * 1000:.0f} ms before")
    click.echo(f"{events // 2:,} of {events:,} events pruned; the longest commit took {longest * 1000:.0f} ms")


def run_log(events: int) -> None:
    """Read and search a log of *events* during writes and a subscription."""
    with tempfile.TemporaryDirectory(prefix="outfeed-soak-") as folder, Server(Path(folder)) as server:
        for line in library.browse(server, events):
            click.echo(line)


if __name__ == "__main__":
    main(prog_name="scripts/soak")
