"""How the types of a watch are shown. No I/O."""

from __future__ import annotations

from outfeed.display import Display, Level
from outfeed.watch.definition import GAP, Definition


def of(definition: Definition) -> dict[str, Display]:
    """Return the displays that a watch sets, by type.

    `T.gap` is a warning. Raises InvalidDisplay for a type of Outfeed's own.
    """
    found = {f"{definition.type}.{GAP}": Display(level=Level.WARNING)}
    for rule in definition.rules:
        if any(rule.display):
            level = rule.level or Level.INFO
            found[rule.type] = Display.checked(rule.type, icon=rule.icon, label=rule.label, level=level)
    return found
