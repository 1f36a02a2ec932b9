"""`outfeed serve`."""

from __future__ import annotations

import click

from outfeed.config import settings


@click.command()
@click.option("--demo", is_flag=True, help="Also run a simulated swarm.")
@click.option("--open", "opens_browser", is_flag=True, help="Open the sign-in link in a browser.")
def serve(demo: bool, opens_browser: bool) -> None:
    """Serve the feed and its pages until Ctrl-C or SIGTERM.

    Creates or upgrades the database first, and prints a sign-in link that works once.

    \b
    Example:
      OUTFEED_BIND=0.0.0.0:8000 outfeed serve
    """
    from outfeed.http.server import serve as server

    server.serve(settings(), demo=demo, opens_browser=opens_browser)
