"""Composition root: every feature, one line each.

Help and pages show the features in this order. `feature.py` describes what a feature may register.
"""

from __future__ import annotations

from outfeed.access.feature import AccessFeature
from outfeed.alerts.feature import AlertsFeature
from outfeed.consumers.feature import ConsumersFeature
from outfeed.edge.feature import EdgeFeature
from outfeed.feature import Feature
from outfeed.gateways.feature import GatewaysFeature
from outfeed.log.feature import LogFeature
from outfeed.swarm.feature import SwarmFeature
from outfeed.types.feature import TypesFeature
from outfeed.upkeep.feature import UpkeepFeature
from outfeed.verify.feature import VerifyFeature
from outfeed.watch.feature import WatchFeature
from outfeed.webhooks.feature import WebhooksFeature

FEATURES: tuple[Feature, ...] = (
    LogFeature(),
    TypesFeature(),
    UpkeepFeature(),
    AccessFeature(),
    ConsumersFeature(),
    WatchFeature(),
    WebhooksFeature(),
    AlertsFeature(),
    GatewaysFeature(),
    SwarmFeature(),
    EdgeFeature(),
    VerifyFeature(),
)
