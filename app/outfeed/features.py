"""The composition root: every feature, one line each, in the order in which help and pages show them."""

from __future__ import annotations

from outfeed.access.feature import Access
from outfeed.consumers.feature import Consumers
from outfeed.feature import Feature
from outfeed.log.feature import Log
from outfeed.swarm.feature import Swarm
from outfeed.upkeep.feature import Upkeep
from outfeed.webhooks.feature import Webhooks

FEATURES: tuple[Feature, ...] = (
    Log(),
    Upkeep(),
    Access(),
    Consumers(),
    Webhooks(),
    Swarm(),
)
