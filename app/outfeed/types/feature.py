"""The feature: displays of event types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar

from outfeed.feature import AdminFact, AdminGroup, AdminPage, Feature, Process

if TYPE_CHECKING:
    from flask import Blueprint

    from outfeed.types.part import TypesPart


class TypesFeature(Feature):
    """Icon, label and level of event types."""

    commands: ClassVar[Mapping[str, str]] = {"type": "types.commands:type_"}
    kept_tables = ("outfeed_type",)
    admin_pages = (
        AdminPage(
            AdminGroup.DATA, "Displays", "display_pages.show", "Icon, sentence and level of the events of each type."
        ),
    )

    def blueprints(self) -> Iterable[Blueprint]:
        from outfeed.types.pages import display_pages

        return *self.edge_blueprints(), display_pages

    def edge_blueprints(self) -> Iterable[Blueprint]:
        from outfeed.types.api import types

        return (types,)

    def admin_facts(self, process: Process) -> Mapping[str, AdminFact]:
        return {"display_pages.show": AdminFact(f"{len(process.displays.current().by_type):,} types")}

    def part(self, process: Process) -> TypesPart:
        from outfeed.types.part import TypesPart

        return TypesPart(process)
