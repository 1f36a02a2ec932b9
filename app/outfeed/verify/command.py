"""`outfeed verify`."""

from __future__ import annotations

import functools
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from outfeed.cli import show
from outfeed.cli.addresses import http_address
from outfeed.config.remote import remote
from outfeed.verify.checks import CHECKS
from outfeed.verify.destructive import Command, check_kill, check_prune, check_restore
from outfeed.verify.results import Result, result_of
from outfeed.verify.server import EVENT_TYPE, VerifiedServer
from outfeed.verify.trace import check_traces

DESTRUCTIVE: dict[str, Callable[[VerifiedServer, Command], list[Result]]] = {
    "prune": check_prune,
    "restore": check_restore,
    "kill": check_kill,
}


def _shell(_: click.Context, __: click.Parameter, value: str | None) -> Command | None:
    if value is None:
        return None
    arguments = shlex.split(value)

    def run() -> None:
        subprocess.run(arguments, check=True)  # noqa: S603 - the operator gives the command

    return run


@click.command()
@click.argument("targets", metavar="[URL | FILE...]", nargs=-1)
@click.option("--trace", "is_trace", is_flag=True, help="Check the files that a server wrote to OUTFEED_TRACE_FILE.")
@click.option("--destructive", "is_destructive", is_flag=True, help="Allow --prune, --restore and --kill.")
@click.option(
    "--prune", callback=_shell, metavar="COMMAND", help="Takes every event out of the window, and is run once."
)
@click.option("--restore", callback=_shell, metavar="COMMAND", help="Restores an older backup, and is run once.")
@click.option("--kill", callback=_shell, metavar="COMMAND", help="Kills and restarts the server, and is run once.")
@click.option("--json", "is_json", is_flag=True, help="Print a JSON array, one result per line.")
@click.pass_context
def verify(
    context: click.Context,
    /,
    targets: tuple[str, ...],
    is_trace: bool,
    is_destructive: bool,
    is_json: bool,
    **given: Command | None,
) -> None:
    """Check a running server against the protocol.

    Connects to the server at URL (by default OUTFEED_URL, else OUTFEED_BIND) over WebSocket, server-sent events, long
    poll and poll, and checks the numbered sentences of `outfeed help protocol`. Writes at most 200 events of the type
    verify.probe, creates consumers and removes them. Sends OUTFEED_TOKEN, which needs the scopes read and write. Exits
    1 if the server breaks a sentence.

    With --trace it connects to no server. It checks what the workers of one server wrote to OUTFEED_TRACE_FILE, a FILE
    for each worker, and names the first line that breaks a sentence.

    \b
    Example:
      OUTFEED_TOKEN=outfeed_… outfeed verify http://127.0.0.1:8000
      outfeed verify --trace feed.trace.*
    """
    commands = {name: command for name, command in given.items() if command is not None}
    if is_trace:
        _verify_traces(targets, commands)
        return
    if len(targets) > 1:
        raise click.UsageError("Give one URL, or --trace and files.")
    url = http_address(context, None, targets[0]) if targets else None
    if bool(commands) != is_destructive:
        raise click.UsageError("Give --destructive together with at least one of --prune, --restore and --kill.")
    target = VerifiedServer(*remote(url))
    try:
        results = [*_run(target, commands)]
    finally:
        target.close()
    _print(results, is_json)
    if not is_json:
        show.say(_summary(target, results))
    if any(each.breach for each in results):
        raise SystemExit(1)


def _verify_traces(files: tuple[str, ...], commands: dict[str, Command]) -> None:
    if not files or commands:
        raise click.UsageError("Give --trace with files, and without --prune, --restore and --kill.")
    try:
        result = check_traces(map(Path, files))
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from error
    if result.breach is not None:
        show.say(f"{result.breach.file}:{result.breach.line}: {result.breach.breach}")
        raise SystemExit(1)
    said = f"{result.lines:,} lines keep the protocol: {result.pushes:,} writes to {result.clients:,} subscriptions."
    show.say(said + (f" The trace ends early: {result.note}." if result.note else ""))


def _run(target: VerifiedServer, commands: dict[str, Command]) -> Iterator[Result]:
    for each in CHECKS:
        for transport in each.transports:
            if not (target.is_copy and each.needs_origin):
                run = functools.partial(each.run, target, transport)
                yield result_of(each.title, each.sentences, transport, run)
    for name, check in DESTRUCTIVE.items():
        if name in commands:
            yield from check(target, commands[name])


def _print(results: list[Result], is_json: bool) -> None:
    if is_json:
        show.put(show.as_json_lines(each._asdict() for each in results))
        return
    by_check: dict[tuple[str, str], list[Result]] = {}
    for each in results:
        by_check.setdefault((each.title, ", ".join(each.sentences)), []).append(each)
    rows = [(*check, _shown(found)) for check, found in by_check.items()]
    show.table(("Check", "Sentences", "Result"), rows)


def _shown(results: list[Result]) -> str:
    """Return one line for each transport with a breach, or the kept ones."""
    broken = [f"{each.transport}: {each.breach}" for each in results if each.breach]
    return "\n".join(broken) or f"kept over {' · '.join(each.transport for each in results)}"


def _summary(target: VerifiedServer, results: list[Result]) -> str:
    broken = sum(bool(each.breach) for each in results)
    wrote = f"wrote {len(target.probes)} events of the type {EVENT_TYPE}"
    if broken:
        return f"{target.url} breaks the protocol in {broken} of {len(results)} checks; {wrote}."
    return f"{target.url} keeps the protocol in {len(results)} checks; {wrote}."
