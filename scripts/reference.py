"""The reference tables of the documentation, written from the code.

Each stands between `<!-- outfeed: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from outfeed import config, display, manual, metrics
from outfeed.cli import main
from outfeed.config.description import described
from outfeed.config.environment import PREFIX
from outfeed.feed import frames
from outfeed.http import error_codes, permission
from outfeed.http.app import create_app
from outfeed.http.metrics import declared_metrics

_PART = re.compile(r"(<!-- outfeed: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(columns: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in lines)


def _escaped(cell: str) -> str:
    return cell.replace("|", r"\|")


def settings() -> str:
    """Return every setting with its default and meaning."""
    rows = [[f"`{each.name}`", f"`{each.default}`" if each.default else "none", each.help] for each in described()]
    return table(["setting", "default", "meaning"], rows)


def metric_table() -> str:
    """Return the table of all metrics, those of each worker first."""
    rows = []
    for name, metric in (metrics.WORKER | declared_metrics()).items():
        labels = [*(["worker"] if name in metrics.WORKER else []), *metric.labels]
        total = "_total" if metric.kind == "counter" else ""
        shown = ", ".join(f"`{label}`" for label in labels) or "none"
        rows.append([f"`{metrics.PREFIX}{name}{total}`", metric.kind, shown, metric.help])
    return table(["metric", "kind", "labels", "meaning"], rows)


def close_codes() -> str:
    """Return the table of all close codes, with the client's next step."""
    rows = [[str(code), each.meaning, each.next_step] for code, each in sorted(frames.CLOSE_CODES.items())]
    return table(["code", "meaning", "what the client does"], rows)


def errors() -> str:
    """Return a section for each error code."""
    return "\n\n".join(_error(code, each) for code, each in sorted(error_codes.CODES.items()))


def _error(code: str, error: error_codes.ErrorCode) -> str:
    where = [f"HTTP {status}" for status in error.statuses]
    where += ["WebSocket frame `error`"] if error.is_frame else []
    return f"## `{code}`\n\n{', '.join(where)}. {error.meaning}\n\n{error.remedy}"


def event_types() -> str:
    """Return the table of all event types with a label."""
    rows = [[f"`{name}`", each.icon, each.title] for name, each in display.OWN.items()]
    return table(["type", "icon", "label"], rows)


# --- commands ---------------------------------------------------------------------------------------------------------


def commands() -> str:
    """Return a section for every command."""
    context = click.Context(main, info_name="outfeed")
    found = ((name, main.get_command(context, name)) for name in main.list_commands(context))
    return "\n\n".join(_command(context, name, each) for name, each in found if each and not each.hidden)


def _command(parent: click.Context, name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=name, parent=parent)
    if isinstance(command, click.Group):
        own = [_usage(context, command)] if command.invoke_without_command else []
        parts = [_command(context, each, one) for each, one in sorted(command.commands.items()) if not one.hidden]
        return "\n\n".join([*own, *parts])
    return _usage(context, command)


def _usage(context: click.Context, command: click.Command) -> str:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    options = [_option(context, each) for each in command.params if isinstance(each, click.Option) and not each.hidden]
    shown = [table(["option", "meaning"], options)] if options else []
    return "\n\n".join([f"## `{context.command_path}`", _help_of(command), f"    {usage}", *shown])


def _help_of(command: click.Command) -> str:
    text = inspect.cleandoc(command.help or "").partition("\b")[0]
    return text.strip()


def _option(context: click.Context, option: click.Option) -> list[str]:
    name, meaning = option.get_help_record(context) or (option.opts[0], "")
    return [f"`{name}`", meaning]


# --- routes -----------------------------------------------------------------------------------------------------------


def routes() -> str:
    """Return every route with the scope that it needs."""
    return table(["route", "needs", "effect"], [row for row in _routes() if row])


def _routes() -> Iterator[list[str]]:
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(config.Settings(database=Path(folder) / "outfeed.db"))
    for rule in app.url_map.iter_rules():
        if rule.rule != "/" and rule.rule.endswith("/"):
            continue  # the same path with a slash at the end
        view = app.view_functions[rule.endpoint]
        needed: permission.Permission = view.permission  # type: ignore[attr-defined]
        effect = (inspect.getdoc(view) or "").partition("\n\n")[0]
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"<\1>", rule.rule)
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield [f"`{method} {path}`", needed.scope or "nothing", " ".join(effect.split())]


# --- the files --------------------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[], str]] = {
    "settings": settings,
    "metrics": metric_table,
    "close-codes": close_codes,
    "errors": errors,
    "event-types": event_types,
    "commands": commands,
    "routes": routes,
}


def filled(text: str) -> str:
    """Return *text* with every generated part up to date."""
    return _PART.sub(lambda found: f"{found[1]}{PARTS[found[2]]()}\n{found[3]}", text)


def parts_in(text: str) -> list[str]:
    """Return the names of the generated parts in *text*."""
    return [name for _, name, _ in _PART.findall(text)]


def write(is_check: bool) -> int:
    """Write every page that differs from the code. Return how many differ.

    With *is_check* it only names them.
    """
    count = 0
    for file in sorted(manual.FOLDER.glob("*.md")):
        text = file.read_text("utf-8")
        if (now := filled(text)) != text:
            count += 1
            click.echo(f"{'Differs' if is_check else 'Written'}: {file}", err=True)
            if not is_check:
                file.write_text(now, "utf-8")
    return count


if __name__ == "__main__":
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]  # a table shows the defaults
    is_check = "--check" in sys.argv
    sys.exit(bool(write(is_check)) and is_check)
