"""The `outfeed` command: click groups that call the public API.

Each group is one file. Results go to stdout. Remarks go to stderr, and so does the closing sentence if stdout is data.
The exit code is 0 for success, 1 for a failure and 2 for a usage error.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from outfeed.config import unknown_settings
from outfeed.errors import ConfigError, OutfeedError
from outfeed.feature import registered
from outfeed.text import escaped

MAX_MESSAGE_CHARS = 2000  # of an error
# The actor in audit events: every user with a shell on this machine.
BY = "command line"

# Commands of no feature: each name with its location `module:attribute`, below `outfeed`.
OWN_COMMANDS = {
    "serve": "http.server.command:serve",
    "config": "cli.config:config",
    "tail": "cli.tail:tail",
    "help": "cli.help:help_",
}


def commands() -> dict[str, str]:
    """Return each command's name and location, in the order of the help."""
    return OWN_COMMANDS | {name: place for feature in registered() for name, place in feature.commands.items()}


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is used.

    So `outfeed log` imports no web framework.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(commands())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if (place := commands().get(cmd_name)) is None:
            return None
        module, _, attribute = place.partition(":")
        command: click.Command = getattr(importlib.import_module(f"outfeed.{module}"), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:  # click knows no command before its first use
            raise click.exceptions.NoSuchCommand(error.command_name, possibilities=commands(), ctx=ctx) from None

    def make_context(self, *arguments: Any, **more: Any) -> click.Context:
        with _printable_errors():
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _printable_errors():
                return super().invoke(ctx)
        except BrokenPipeError:
            # The reader of the output has closed it. The buffered rest must not fail again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)


@contextmanager
def _printable_errors() -> Iterator[None]:
    """Make the errors of a command safe and short for a terminal.

    Raises ClickException.
    """
    try:
        yield
    except click.ClickException as error:  # a file's name or an option's value may stand in it
        error.message = _printable(error.message)  # type: ignore[misc]
        if isinstance(error, click.FileError):
            error.ui_filename = _printable(error.ui_filename)  # type: ignore[misc]
        raise
    except ConfigError as error:  # a line for each setting
        raise click.ClickException("\n".join(map(_printable, str(error).split("\n")))) from error
    except OutfeedError as error:
        raise click.ClickException(_printable(str(error))) from error
    except UnicodeEncodeError as error:  # the bytes of an argument are not text
        raise click.UsageError(_printable(f"{error.object!a} is not UTF-8")) from error
    except OSError as error:
        if error.filename is None:
            raise
        raise click.ClickException(_printable(f"{error.strerror}: {error.filename}")) from error


def _printable(message: str) -> str:
    """Return *message* on one line, in MAX_MESSAGE_CHARS at most."""
    is_long = len(message) > MAX_MESSAGE_CHARS
    return escaped(f"{message[:MAX_MESSAGE_CHARS]}…" if is_long else message)


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="outfeed", message="outfeed %(version)s")
@click.option("--quiet", "-q", "is_quiet", is_flag=True, help="Print only data, warnings and errors.")
def main(is_quiet: bool) -> None:  # noqa: ARG001 - cli/show.py reads it from the context
    """Outfeed: a restart-safe live event feed.

    Settings are environment variables OUTFEED_*. A .env file is read as well. Completion of commands and options by
    your shell: `outfeed help commands`.

    \b
    Example:
      outfeed serve
      outfeed log task.created --source coordinator --data '{"description": "Write the docs"}'
    """
    from outfeed.cli import show

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")  # an event may contain characters that the terminal's encoding lacks
    # A command prints its failure once, so the log is silent. `serve` has its own log.
    logging.getLogger("outfeed").addHandler(logging.NullHandler())
    if click.get_current_context().invoked_subcommand != "serve":
        for name, meant in unknown_settings().items():
            hint = f" Did you mean {meant}?" if meant else ""
            show.warn(f"Warning: Unknown setting {name}.{hint}")
