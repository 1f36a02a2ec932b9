"""How the types of a watch are shown. No I/O."""

from __future__ import annotations

from typing import NamedTuple

from outfeed.watch.definition import GAP, Definition


class WatchDisplay(NamedTuple):
    """Icon, label and level of a type; None for what the rules leave open."""

    icon: str | None
    label: str | None
    level: str | None


def of(definition: Definition) -> dict[str, WatchDisplay]:
    """Return the displays that a watch sets, by type. `T.gap` is a warning."""
    found = {f"{definition.type}.{GAP}": WatchDisplay(None, None, "warning")}
    for rule in definition.rules:
        if any(rule.display):
            found[rule.type] = WatchDisplay(*rule.display)
    return found
