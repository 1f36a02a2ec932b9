"""The gateways feature."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar

from outfeed.config import Settings
from outfeed.feature import Feature

if TYPE_CHECKING:
    from flask import Blueprint


class GatewaysFeature(Feature):
    """Other protocols in and out."""

    commands: ClassVar[Mapping[str, str]] = {
        "address": "gateways.commands:address",
        "mapping": "gateways.commands:mapping",
    }
    kept_tables = ("outfeed_address",)

    def blueprints(self) -> Iterable[Blueprint]:
        from outfeed.gateways.api import incoming

        return (incoming,)

    def check(self, settings: Settings) -> None:
        if settings.incoming_mappings is not None:
            from outfeed.gateways import mapping_file

            mapping_file.load(settings.incoming_mappings)
