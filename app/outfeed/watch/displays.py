"""How the types of a watch are shown. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

from outfeed.display import EVENT_FIELDS, Display, Level, names_in
from outfeed.errors import InvalidWatch
from outfeed.watch.definition import GAP, Definition

_OF_EACH_CHANGE = ("op", "table")  # values of the data beside the columns


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


def check_labels(definition: Definition, columns: Sequence[str]) -> None:
    """Raise InvalidWatch if a label shows a value that no event has.

    *columns* are those that the events of the watch have.
    """
    known = {*columns, *(f"was.{column}" for column in columns), *EVENT_FIELDS, *_OF_EACH_CHANGE}
    labels = [rule.label for rule in definition.rules if rule.label]
    unknown = dict.fromkeys(name for label in labels for name in names_in(label) if name not in known)
    if unknown:
        places = ", ".join(f"{{{name}}}" for name in unknown)
        raise InvalidWatch(
            f"{definition.table}: label: no event has a value for {places}; its columns are {', '.join(columns)}"
        )
