"""`outfeed config`."""

from __future__ import annotations

import click

from outfeed.cli import show
from outfeed.config.description import described


@click.command()
@click.option("--json", "is_json", is_flag=True, help="Print a JSON array, one setting per line.")
def config(is_json: bool) -> None:
    """Show each setting and the source of its value.

    Secrets are masked.

    \b
    Example:
      outfeed config --json
    """
    found = described()
    if is_json:
        show.put(show.as_json_lines(each._asdict() for each in found))
        return
    for each in found:
        show.line(f"{each.name}={each.value}", bold=each.source != "default")
        origin = "" if each.source == "default" else f" From {each.source}; default: {each.default or 'none'}."
        show.line(f"    {each.help}{origin}")
    changed = sum(each.source != "default" for each in found)
    all_ = show.count(len(found), "setting")
    show.say(f"{changed} of {all_} changed from the default." if changed else f"All {all_} have their default.")
