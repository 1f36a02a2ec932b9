"""The feature: `outfeed verify`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from outfeed.feature import Feature


class VerifyFeature(Feature):
    """The check of a running server against the protocol."""

    commands: ClassVar[Mapping[str, str]] = {"verify": "verify.command:verify"}
