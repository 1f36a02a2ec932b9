"""What one worker counts, by metric."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from outfeed.feed.tally import Timings
from outfeed.metrics import errors, refusals
from outfeed.web.slots import Counts, Sample

if TYPE_CHECKING:
    from outfeed.web.services import Services


def of_worker(services: Services) -> Counts:
    """Return what this process counts."""
    relay, hub = services.relay, services.hub
    return {
        "events": _labelled(relay.tally.events),
        "position": [([], hub.position)],
        "poll_seconds": [([], _histogram(relay.tally.polls))],
        "poll_age_seconds": [([], relay.age if math.isfinite(relay.age) else None)],
        "delivery_seconds": [([], _histogram(relay.tally.deliveries))],
        "clients": [(list(key), count) for key, count in sorted(hub.counts().items())],
        "frames": _labelled(hub.sent.frames),
        "bytes": _labelled(hub.sent.bytes),
        "fallbacks": [([], hub.sent.fallbacks)],
        "refusals": _labelled(refusals()),
        "errors": _labelled(errors()),
        "ready": [([], int(not services.unready_because()))],
    }


def _labelled(counts: dict[str, int]) -> list[Sample]:
    return [([label], count) for label, count in sorted(dict(counts).items())]


def _histogram(timings: Timings) -> tuple[list[int], float]:
    return list(timings.counts), timings.total_secs
