"""The gateways feature."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar

from outfeed.config import Settings
from outfeed.feature import Feature

if TYPE_CHECKING:
    from flask import Blueprint

    from outfeed.display import Display


class GatewaysFeature(Feature):
    """Other protocols in and out."""

    commands: ClassVar[Mapping[str, str]] = {
        "address": "gateways.commands:address",
        "mapping": "gateways.commands:mapping",
        "connect": "gateways.connect_command:connect",
    }
    kept_tables = ("outfeed_address",)

    def displays(self) -> Mapping[str, Display]:
        from outfeed.gateways.agents import DISPLAYS

        return DISPLAYS

    def blueprints(self) -> Iterable[Blueprint]:
        from outfeed.gateways.api import incoming, otlp

        return incoming, otlp

    def check(self, settings: Settings) -> None:
        if settings.incoming_mappings is not None:
            from outfeed.gateways import mapping_file

            mapping_file.load(settings.incoming_mappings)
