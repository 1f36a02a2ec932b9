"""The `outfeed` command: click groups, one file a group, each a thin shell over the public API.

Results go to stdout; remarks, and the closing sentence where stdout is data, to stderr.
Exit 0: done, 1: failed, 2: misused.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import sys
from typing import Any

import click

from outfeed.config import unknown_settings
from outfeed.errors import ConfigError, OutfeedError
from outfeed.feature import registered
from outfeed.text import escaped

# The actor in audit events: every user with a shell on this machine.
BY = "command line"

# Those that belong to no feature: by name the place, `module:attribute`, below `outfeed`.
OWN_COMMANDS = {
    "serve": "http.server.command:serve",
    "config": "cli.config:config",
    "tail": "cli.tail:tail",
    "help": "cli.help:help_",
}


def commands() -> dict[str, str]:
    """Return every command's place by its name, in the order that help shows."""
    return OWN_COMMANDS | {name: place for feature in registered() for name, place in feature.commands.items()}


class LazyGroup(click.Group):
    """Loads a command's module when the command is asked for: `outfeed log` needs no web framework."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(commands())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if (place := commands().get(cmd_name)) is None:
            return None
        module, _, attribute = place.partition(":")
        command: click.Command = getattr(importlib.import_module(f"outfeed.{module}"), attribute)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OutfeedError as error:
            raise click.ClickException(_printable(error)) from error
        except BrokenPipeError:
            # Whoever read our output has seen enough. What is still buffered must not fail again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)


def _printable(error: OutfeedError) -> str:
    """Return the message on one line; that of a ConfigError has one for each setting."""
    lines = str(error).split("\n") if isinstance(error, ConfigError) else [str(error)]
    return "\n".join(map(escaped, lines))


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Outfeed: a restart-safe live event feed.

    Settings are environment variables OUTFEED_*; a .env file is read as well.

    \b
    Example:
      outfeed serve
      outfeed log task.created --source coordinator --data '{"description": "Write the docs"}'
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")  # an event may hold characters that the terminal's encoding lacks
    # What fails a command is said once, by the command. `serve` has its own log.
    logging.getLogger("outfeed").addHandler(logging.NullHandler())
    if click.get_current_context().invoked_subcommand != "serve":
        for name, meant in unknown_settings().items():
            hint = f" Did you mean {meant}?" if meant else ""
            click.echo(f"Warning: Unknown setting {escaped(name)}.{hint}", err=True)
