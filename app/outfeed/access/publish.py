"""Publishing.

After the account tables have changed, the other hosts that serve the feed learn of it.
"""

from __future__ import annotations

from outfeed.config import Settings
from outfeed.errors import OutfeedError, SourceError
from outfeed.feature import Process, shared_grants
from outfeed.store.database import Database
from outfeed.text import sentence


def publish(database: Database, settings: Settings) -> None:
    """Make every grant known where edges look it up, if there are edges.

    Raises OutfeedError.
    """
    shared = shared_grants(settings)
    if shared is None:
        return
    try:
        shared.publish(database)
    except SourceError as error:
        raise OutfeedError(
            f"The change is stored, but {error}. Edges keep the former permissions until `outfeed serve` can tell them"
        ) from error


def published(process: Process) -> str:
    """Publish after a change by a page.

    Returns why other hosts do not know of the change yet, or "".
    """
    try:
        publish(process.database, process.settings)
    except OutfeedError as error:
        return sentence(str(error))
    return ""
