"""`outfeed edge`."""

from __future__ import annotations

import click

from outfeed.config import settings


@click.command()
def edge() -> None:
    """Serve viewers on an additional host, without a database.

    Needs OUTFEED_ENGINE, OUTFEED_ORIGIN_URL and the OUTFEED_SECRET_KEY of the origin.

    \b
    Example:
      OUTFEED_ENGINE=redis://192.0.2.1:6379/0 OUTFEED_ORIGIN_URL=https://feed.example outfeed edge
    """
    from outfeed.edge import server

    server.serve(settings())
