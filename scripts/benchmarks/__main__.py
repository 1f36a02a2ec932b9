"""The command: `scripts/bench [CASE]… [options]`."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import click

from scripts.benchmarks import process, report
from scripts.benchmarks.cases import CASES, SHORT, Sizes
from scripts.benchmarks.errors import BenchError
from scripts.benchmarks.runs import Plan, run
from scripts.benchmarks.servers import THIS, Checkout


def whole_numbers(text: str) -> tuple[int, ...]:
    """Return the positive whole numbers in *text*, separated by commas."""
    numbers = tuple(int(part) for part in text.split(","))
    if min(numbers) < 1:
        raise ValueError
    return numbers


@click.command(epilog="Example: scripts/bench latency burst resume idle --base ../main --pairs 10")
@click.argument("cases", nargs=-1, type=click.Choice(list(CASES)), metavar="[CASE]...")
@click.option("--base", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Another checkout.")
@click.option("--pairs", "--rounds", "rounds", type=click.IntRange(1, 100), help="Default: 3, or 10 with --base.")
@click.option(
    "--clients", type=whole_numbers, metavar="N,N…", help="Numbers of clients for every case, in place of its own."
)
@click.option("--seconds", type=click.FloatRange(0.1, 600), help="Duration of latency, paced and idle.")
@click.option("--behind", type=click.IntRange(1, 999_999), help="Backlog of the clients of resume, in events.")
@click.option("--quick", is_flag=True, help="One round of short measurements.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write every sample to this JSON file.")
def main(
    cases: tuple[str, ...],
    base: Path | None,
    rounds: int | None,
    clients: tuple[int, ...] | None,
    seconds: float | None,
    behind: int | None,
    quick: bool,
    out: Path | None,
) -> None:
    """Measure Outfeed, alone or in pairs with another checkout.

    \b
      idle      connected clients and no events: CPU, and memory per client
      latency   100 events/s, from the INSERT to each client
      burst     single commits at full speed
      commits   the same in commits of 100
      paced     viewers with the page's settings, at 100 events/s: CPU
      resume    one client, and twenty at once, with a large backlog
      write     log_event beside a bare INSERT; POST /api/events by 4, 1 and 100 producers
      incoming  one event by /in/TOPIC, by an address and by MCP, beside POST /api/events
      watch     writes to a table: unwatched, logged by hand, and watched

    Without a CASE, all cases. With --base, short measurements alternate between this checkout and the other one,
    which needs a .venv with Outfeed. Progress goes to standard error, a Markdown table to standard output. A case in
    which a client missed an event, or got it twice or out of order, gives no figure. Without --base the command then
    exits 1.
    """
    process.raise_descriptor_limit()
    sizes = SHORT if base or quick else Sizes()
    if seconds:
        sizes = replace(sizes, paced_secs=seconds, idle_secs=seconds, viewers_secs=seconds)
    if behind:
        sizes = replace(sizes, behind_events=behind)
    chosen = [CASES[name] for name in CASES if name in cases or not cases]
    counts = [
        (case, count)
        for case in chosen
        for count in (clients if clients and case.clients != (0,) else case.pair_clients if base else case.clients)
    ]
    try:
        checkouts = (Checkout.at(base), THIS) if base else (THIS,)
        plan = Plan(checkouts, counts, rounds or (1 if quick else 10 if base else 3), sizes)
        results = run(plan, partial(click.echo, err=True))
    except BenchError as error:
        raise click.ClickException(str(error)) from error
    click.echo(report.markdown(plan, results))
    if out:
        report.write_json(out, plan, results)
    sys.exit(1 if results.refused and not base else 0)


if __name__ == "__main__":
    main(prog_name="scripts/bench")
