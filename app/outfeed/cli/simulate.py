"""`outfeed simulate`: a make-believe swarm for demonstrations and load. Everything about it is real but the work."""

from __future__ import annotations

import os
import signal
import threading
from queue import SimpleQueue

import click

from outfeed.cli import show
from outfeed.config import remote
from outfeed.process import die_with


@click.command()
@click.option("--agents", type=click.IntRange(1, 200), default=6, show_default=True, help="How many there are.")
@click.option(
    "--rate", type=click.FloatRange(0.01, 1000), default=2.0, show_default=True, help="Events a second, about."
)
@click.option("--url", help="The server.  [default: OUTFEED_URL, else OUTFEED_BIND]")
@click.option("--parent", type=int, help="Process that it ends with.  [default: the one that started it]")
def simulate(agents: int, rate: float, url: str | None, parent: int | None) -> None:
    """Run a simulated swarm on a server until stopped.

    Its agents join, take their work from the feed, bid, use tools and finish or fail, all by the HTTP API. Sends
    OUTFEED_TOKEN, which needs the scopes read and write. `outfeed serve --demo` runs it.

    \b
    Example:
      OUTFEED_TOKEN=outfeed_… outfeed simulate --agents 20 --rate 50
    """
    stop = until_told()
    die_with(parent or os.getppid())
    from outfeed.cli.make_believe import Swarm

    server, token = remote(url)
    swarm = Swarm(
        server,
        token,
        agents=agents,
        rate=rate,
        stop=stop,
    )
    swarm.run()
    click.echo(f"The simulated swarm stopped after {show.count(swarm.posted, 'task')}.", err=True)


def until_told() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set: by a thread, for a handler may interrupt who holds its lock."""
    told: SimpleQueue[int] = SimpleQueue()
    stop = threading.Event()

    def obey() -> None:
        told.get()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: told.put(number))
    threading.Thread(target=obey, name="signals", daemon=True).start()
    return stop
