"""`outfeed connect`: settings with which a coding agent sends events."""

from __future__ import annotations

import re

import click

from outfeed.cli import BY, show
from outfeed.cli.links import server_url
from outfeed.cli.values import checked
from outfeed.config.addresses import is_local_url
from outfeed.errors import OutfeedError
from outfeed.feature import registered
from outfeed.gateways.otlp.agents import AGENTS
from outfeed.principal import WRITE
from outfeed.store import database as db

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,200}")
_URL = re.compile(r"https?://[A-Za-z0-9:/._~\[\]-]+")  # is printed into a shell and a file of settings


def _token(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        raise ValueError("must be a token, as `outfeed token create` prints it")
    return value


@click.command()
@click.argument("agent", type=click.Choice(list(AGENTS)))
@click.option("--token", "secret", callback=checked(_token), help="Use this token with the scope write.")
@click.option("--name", help="Name of the new token.  [default: AGENT]")
def connect(agent: str, secret: str | None, name: str | None) -> None:
    """Print the settings with which a coding agent sends its events.

    Without --token, it creates a token with the scope write. The settings show the version of AGENT that they were
    tried with, and the date.

    \b
    Example:
      outfeed connect codex >>~/.codex/config.toml
      eval "$(outfeed connect claude-code)"
    """
    if secret and name:
        raise click.UsageError("--name is the name of a new token, and excludes --token.")
    url = server_url()
    if not _URL.fullmatch(url):
        raise click.UsageError(f"The address of the server, {url}, can't be used in the settings.")
    found = AGENTS[agent]
    settings = found.settings.format(url=url, token=secret or _created(name or agent))
    if is_local_url(url):
        show.warn("The settings work only on this machine. For other machines, set OUTFEED_PUBLIC_URL.")
    show.put(f"# For {found.title} {found.version} ({found.date}), see {found.documentation}\n{settings}".rstrip())
    show.say(found.step, err=True)


def _created(name: str) -> str:
    for feature in registered():
        try:
            token = feature.create_token(db.default(), name, (WRITE,), BY)
        except ValueError as error:
            raise click.UsageError(f"--name: {error}") from None
        if token is not None:
            show.say(f"Created token {name} with the scope {WRITE}. It is not shown again.", err=True)
            return token
    raise OutfeedError("no feature creates tokens; pass --token")
