"""`outfeed mcp`: the Model Context Protocol on stdin and stdout."""

from __future__ import annotations

import sys

import click

from outfeed.cli import show
from outfeed.config.remote import remote


@click.command()
def mcp() -> None:
    """Serve the Model Context Protocol on stdin and stdout.

    Forwards each message to the server of OUTFEED_URL with OUTFEED_TOKEN. Stdout has only the protocol, and errors go
    to stderr. A coding agent starts the command by itself.

    \b
    Example:
      OUTFEED_TOKEN=outfeed_… outfeed mcp
    """
    from outfeed.gateways.mcp.stdio import Bridge

    url, token = remote()
    Bridge(url, token, log=show.warn).run(sys.stdin.buffer)
