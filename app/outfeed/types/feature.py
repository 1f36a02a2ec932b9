"""The feature: displays of event types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar

from outfeed.feature import Feature, Process

if TYPE_CHECKING:
    from flask import Blueprint

    from outfeed.types.part import TypesPart


class TypesFeature(Feature):
    """Icon, label and level of event types."""

    commands: ClassVar[Mapping[str, str]] = {"type": "types.commands:type_"}
    kept_tables = ("outfeed_type",)
    is_at_edges = True

    def blueprints(self) -> Iterable[Blueprint]:
        from outfeed.types.api import types

        return (types,)

    def part(self, process: Process) -> TypesPart:
        from outfeed.types.part import TypesPart

        return TypesPart(process)
