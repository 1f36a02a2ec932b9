"""`outfeed simulate`: a simulated swarm for demonstrations and load tests.

The agents are clients of the real API. Only their work is simulated.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from queue import SimpleQueue

import click

from outfeed.cli import show
from outfeed.cli.addresses import http_address
from outfeed.config.remote import remote
from outfeed.process import exit_with


@click.command()
@click.option("--agents", type=click.IntRange(1, 200), default=6, show_default=True, help="Number of agents.")
@click.option(
    "--rate", type=click.FloatRange(0.01, 1000), default=2.0, show_default=True, help="Approximate events per second."
)
@click.option("--url", callback=http_address, help="The server.  [default: OUTFEED_URL, else OUTFEED_BIND]")
@click.option("--parent", type=int, help="Exit when this process exits.  [default: the one that started it]")
def simulate(agents: int, rate: float, url: str | None, parent: int | None) -> None:
    """Run a simulated swarm on a server until stopped.

    Its agents join, read tasks from the feed, bid, use tools, and complete or fail tasks, all by the HTTP API. The
    command sends OUTFEED_TOKEN, which needs the scopes read and write. It reports failed connections on stderr.
    `outfeed serve --demo` runs it.

    \b
    Example:
      OUTFEED_TOKEN=outfeed_… outfeed simulate --agents 20 --rate 50
    """
    stop = stop_on_signals()
    exit_with(parent or os.getppid())
    from outfeed.client import Client
    from outfeed.swarm.simulator import ApiClient, Simulator

    base, token = remote(url)
    api = ApiClient(base, token, stop, report=lambda text: show.say(text, dim=True, err=True))
    simulator = Simulator(
        api, Client(base, token), agents=agents, rate=rate, seed=random.SystemRandom().getrandbits(64)
    )
    simulator.run()
    show.say(f"The simulated swarm stopped after {show.count(simulator.posted, 'task')}.", err=True)


def stop_on_signals() -> threading.Event:
    """Return an event that a thread sets on SIGTERM or SIGINT.

    A signal handler can't set it: the handler may interrupt a thread that holds the event's lock.
    """
    signals: SimpleQueue[int] = SimpleQueue()
    stop = threading.Event()

    def set_stop() -> None:
        signals.get()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: signals.put(number))
    threading.Thread(target=set_stop, name="signals", daemon=True).start()
    return stop
