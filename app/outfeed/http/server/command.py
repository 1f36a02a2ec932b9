"""`outfeed serve`."""

from __future__ import annotations

import click

from outfeed.config import settings


@click.command()
@click.option("--demo", is_flag=True, help="Also run a simulated swarm.")
def serve(demo: bool) -> None:
    """Serve the feed and its pages until stopped.

    Creates or upgrades the database first, and prints a sign-in link that works once.

    \b
    Example:
      OUTFEED_BIND=0.0.0.0:8000 outfeed serve
    """
    from outfeed.http.server import serve as server

    server.serve(settings(), demo=demo)
