"""Comparison of the engine with the outbox."""

from __future__ import annotations

from typing import NamedTuple

from outfeed.edge import store
from outfeed.history import Window
from outfeed.store.database import Database


class Held(NamedTuple):
    """The state of the engine's copy.

    *seq* and *checksum* are those of its last entry.
    """

    epoch: str
    position: int
    target: int
    seq: int
    checksum: str


def needs_new_epoch(database: Database, window: Window, own_epoch: str, held: Held | None) -> bool:
    """Return whether edges may know other events under the same epoch.

    That is so if another origin has published the epoch, or the engine holds events that *database* lacks.

    *own_epoch* is the epoch that no other origin has published. An engine that lost its events proves nothing, so the
    database has a mark of its own: a copy brings the mark along, and the owner file stays behind.
    """
    is_held = held is not None and held.epoch == window.epoch
    is_published = is_held or store.published_epoch(database) == window.epoch
    if is_published and own_epoch != window.epoch:
        return True
    return held is not None and is_held and _has_other_events(database, window, held)


def _has_other_events(database: Database, window: Window, held: Held) -> bool:
    """Return whether the engine holds events that this database does not.

    A backup was restored, or a copy of the database wrote. A last event that was pruned or erased counts as the same.
    """
    if max(held.position, held.target) > window.last_seq:
        return True
    ours = store.checksum_of(database, held.seq) if held.seq else None
    return ours is not None and ours != held.checksum
