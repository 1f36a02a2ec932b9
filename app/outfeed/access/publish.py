"""Publishing.

After a command has changed the account tables, the other hosts that serve the feed learn of it.
"""

from __future__ import annotations

from outfeed.config import settings
from outfeed.errors import OutfeedError, SourceError
from outfeed.feature import shared_grants
from outfeed.store import database


def publish() -> None:
    """Make every grant known where edges look it up, if there are edges.

    Raises OutfeedError.
    """
    shared = shared_grants(settings())
    if shared is None:
        return
    try:
        shared.publish(database.default())
    except SourceError as error:
        raise OutfeedError(
            f"The change is stored, but {error}. Edges keep the former permissions until `outfeed serve` can tell them"
        ) from error
