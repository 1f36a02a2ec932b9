"""Client: the calls that programs make to one server."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, overload
from urllib.parse import urlsplit

from outfeed.client.cursor_file import read_cursor
from outfeed.client.feed import Feed
from outfeed.client.publisher import Publisher
from outfeed.client.shapes import Cursor, Gap, Receipt, Reset
from outfeed.display import Display
from outfeed.events import Event

SCHEMES = ("http", "https", "ws", "wss")
log = logging.getLogger(__name__)


def _warn(missing: Gap | Reset) -> None:
    log.warning("events are missing: %s", missing)


class Client:
    """A client of the server at *url*, with a token.

    Any thread may publish. Each feed belongs to one thread.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        """Prepare a client; nothing is sent.

        Raises ValueError for a *url* without a scheme or a host.
        """
        parts = urlsplit(url)
        if parts.scheme not in SCHEMES or not parts.netloc:
            raise ValueError(f"url: must be an address like https://feed.example, got {url!r}")
        self.url = url.rstrip("/")
        self._token = token
        self._publisher = Publisher(self.url, token)

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that publishing keeps open.

        Using the client again opens new ones.
        """
        self._publisher.close()

    def displays(self) -> dict[str, Display]:
        """Return the displays that were set on the server, by type.

        Raises Unreachable, Refused.
        """
        return self._publisher.displays()

    def follow(
        self,
        *,
        types: Iterable[str] = (),
        source: str | None = None,
        task_id: str | None = None,
        agent_id: str | None = None,
        after: int | None = None,
        epoch: str | None = None,
        last: int = 0,
        cursor_file: str | os.PathLike[str] | None = None,
        consumer: str | None = None,
        on_missing: Callable[[Gap | Reset], None] = _warn,
        on_connection: Callable[[str], None] = log.info,
    ) -> Feed:
        """Return the feed's events as an endless iterator.

        Nothing is sent before the first `next`. The feed begins at the head, *last* matching events before it, or after
        the seq *after* (0 is everything retained; without *epoch* the server's epoch is used). With *cursor_file* it
        continues from the position in that file and keeps the file up to date: an event counts as handled when the next
        one is requested. A *consumer* begins at its checkpoint.

        *on_missing* is called, in order with the events, when events are no longer available. An exception that it
        raises comes out of the iterator, and it is called again. *on_connection* is called with a text for every
        connection. Raises ValueError for arguments that exclude each other, and TypeError for *types* that is a text.
        """
        if isinstance(types, str):
            raise TypeError(f"types: must be a list of types, like ['task.*'], got the text {types!r}")
        if consumer and (after is not None or last or cursor_file is not None):
            raise ValueError("a consumer continues from its checkpoint; don't pass after, last or cursor_file")
        options = {"types": list(types), "source": source, "task_id": task_id, "agent_id": agent_id, "last": last}
        wanted = {name: value for name, value in options.items() if value} | (
            {"consumer": consumer} if consumer else {}
        )
        cursor = Cursor(after, epoch)
        store = None
        if cursor_file is not None:
            store = Path(cursor_file)
            cursor = read_cursor(store) or cursor
        return Feed(self.url, self._token, wanted, cursor, store, on_missing, on_connection)

    @overload
    def publish(self, events: Mapping[str, Any] | Event, *, give_up_secs: float = ...) -> Receipt: ...
    @overload
    def publish(self, events: Sequence[Mapping[str, Any] | Event], *, give_up_secs: float = ...) -> list[Receipt]: ...
    def publish(
        self, events: Mapping[str, Any] | Event | Sequence[Mapping[str, Any] | Event], *, give_up_secs: float = 60.0
    ) -> Receipt | list[Receipt]:
        """Append one event or several, and return their receipts.

        The events have the names of `log_event` and are durable when this returns. An event without an id gets an id
        and a time before the first attempt, so that it is written once, however often it is sent. Several events are
        sent in batches of up to 1,000, each of which is written as a whole or not at all.

        Raises InvalidEvent and EventConflict (with the `index` of the bad event; the batches before it are written),
        Refused (the token), Unreachable after *give_up_secs*: the events may have been written then, and publishing
        them again under their own ids is safe.
        """
        if isinstance(events, Mapping | Event):
            return self.publish([events], give_up_secs=give_up_secs)[0]
        return self._publisher.publish(events, give_up_secs)
