"""The gateways feature."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar

from outfeed.config import Settings
from outfeed.feature import AdminFact, AdminGroup, AdminPage, Feature, Process

if TYPE_CHECKING:
    from flask import Blueprint

    from outfeed.display import Display


class GatewaysFeature(Feature):
    """Other protocols in and out."""

    commands: ClassVar[Mapping[str, str]] = {
        "address": "gateways.incoming.commands:address",
        "mapping": "gateways.incoming.commands:mapping",
        "connect": "gateways.otlp.connect_command:connect",
        "mcp": "gateways.mcp.command:mcp",
    }
    kept_tables = ("outfeed_address",)

    admin_pages = (
        AdminPage(AdminGroup.ACCESS, "Addresses", "address_pages.show", "URLs that accept events without a token."),
    )

    def displays(self) -> Mapping[str, Display]:
        from outfeed.gateways.otlp.agents import DISPLAYS

        return DISPLAYS

    def blueprints(self) -> Iterable[Blueprint]:
        from outfeed.gateways.api import incoming, mcp, otlp
        from outfeed.gateways.incoming.pages import address_pages

        return incoming, otlp, mcp, address_pages

    def admin_facts(self, process: Process) -> Mapping[str, AdminFact]:
        from outfeed.gateways.incoming import store

        return {"address_pages.show": AdminFact(f"{len(store.list_addresses(process.database)):,}")}

    def check(self, settings: Settings) -> None:
        if settings.incoming_mappings is not None:
            from outfeed.gateways.incoming import mapping_file

            mapping_file.load(settings.incoming_mappings)
