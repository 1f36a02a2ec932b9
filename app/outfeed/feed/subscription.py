"""Subscriptions: a client's request, and the verdict on its cursor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from outfeed.errors import InvalidRequest
from outfeed.feed.encoding import Batch, Encoding, grouped
from outfeed.feed.pace import MIN_RATE
from outfeed.feed.source import Source
from outfeed.history import CONSUMER_NAME, Claim, Item, Window
from outfeed.principal import EventScope, is_of_type
from outfeed.text import near

MAX_SEQ = 2**63 - 1
MAX_LAST = 1000
# `last` looks back no further than this, so that a filter that matches nothing cannot read the whole outbox.
MAX_LOOKBACK = 100_000

_Model = TypeVar("_Model", bound=BaseModel)
_Name = Annotated[str, Field(min_length=1, max_length=200)]
ConsumerName = Annotated[str, Field(max_length=64, pattern=f"^{CONSUMER_NAME.pattern}$")]
# Exact, or a prefix: `task.*`.
_TypePattern = Annotated[str, Field(max_length=200, pattern=r"^[^*\s,]{1,198}(\.\*)?$")]


@dataclass(frozen=True, slots=True)
class Filter:
    """The conditions that an event must match, all of them.

    Empty *types* and None set no condition. *visible* is the scope of events that the principal may see. It has no
    default.
    """

    visible: EventScope
    types: tuple[str, ...] = ()
    source: str | None = None
    task_id: str | None = None
    agent_id: str | None = None

    def matching(self, items: list[Item]) -> list[Item]:
        """Return the items that match, in order."""
        # A page has few types, and each is checked once.
        types = {item.event_type for item in items}
        wanted = {each for each in types if self._wants(each)}
        if len(wanted) < len(types):
            items = [item for item in items if item.event_type in wanted]
        if self.source is None and self.task_id is None and self.agent_id is None:
            return items
        return [item for item in items if self._agrees(item)]

    def matches(self, item: Item) -> bool:
        """Return whether *item* matches."""
        return self._wants(item.event_type) and self._agrees(item)

    def _wants(self, event_type: str) -> bool:
        return self.visible.covers(event_type) and (
            not self.types or any(is_of_type(event_type, pattern) for pattern in self.types)
        )

    def _agrees(self, item: Item) -> bool:
        return (
            (self.source is None or item.source == self.source)
            and (self.task_id is None or item.task_id == self.task_id)
            and (self.agent_id is None or item.agent_id == self.agent_id)
        )


@dataclass(frozen=True, slots=True)
class Subscription:
    """The request that all subscribers of a cohort share.

    *rate*: at most this many frames a second; 0 sends each frame at once. *batch*: several events may share a frame.
    """

    filter: Filter
    batch: bool
    rate: float
    encoding: Encoding

    def next_chunk(self, items: list[Item]) -> tuple[list[Item], bool]:
        """Return the matching items to send next.

        Also returns whether no matching item of *items* is left for later.
        """
        if not self.rate:
            return self.filter.matching(items), True
        if not self.batch:
            first = next(filter(self.filter.matches, items), None)
            return ([], True) if first is None else ([first], first is items[-1])
        matching = self.filter.matching(items)
        group = list(next(grouped(matching), ()))
        return group, len(group) == len(matching)

    def encode(self, items: Sequence[Item], prev: int, epoch: str) -> Batch:
        """Return the encoded *items*, which match; the first names *prev*."""
        return (self.encoding.groups if self.batch else self.encoding.singles)(items, prev, epoch)


class FeedRequest(BaseModel):
    """The fields that every transport of the feed accepts.

    `after` 0 requests everything retained and needs no epoch. Without a usable cursor, `last` starts the feed before
    the newest that many matching events.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    after: Annotated[int, Field(ge=0, le=MAX_SEQ)] | None = None
    epoch: _Name | None = None
    types: Annotated[tuple[_TypePattern, ...], Field(max_length=100)] = ()
    source: _Name | None = None
    task_id: _Name | None = None
    agent_id: _Name | None = None
    last: Annotated[int, Field(ge=1, le=MAX_LAST)] | None = None

    def filter(self, visible: EventScope) -> Filter:
        """Return the filter of the request for a principal's *visible* events.

        Equal requests give equal filters.
        """
        return Filter(visible, tuple(sorted(set(self.types))), self.source, self.task_id, self.agent_id)


def _supported_rate(rate: float) -> float:
    if 0 < rate < MIN_RATE:
        raise ValueError(f"must be at least {MIN_RATE}, or 0 for no limit")
    return rate


class SubscribeRequest(FeedRequest):
    """The request of a subscriber.

    *rate* None is the server's default.
    """

    batch: bool = False
    rate: Annotated[float, Field(ge=0, le=1000), AfterValidator(_supported_rate)] | None = None
    consumer: ConsumerName | None = None


class SubscribeMessage(SubscribeRequest):
    """A `subscribe` message of the WebSocket."""

    action: Literal["subscribe"] = "subscribe"
    channel: str


def parse_subscribe(text: str | bytes) -> SubscribeMessage:
    """Return the checked `subscribe` message.

    Raises InvalidRequest.
    """
    with _translate_errors():
        message = SubscribeMessage.model_validate_json(text, strict=True)
    if message.channel != "events":
        raise InvalidRequest("unknown_channel", f"unknown channel {message.channel!r:.80}: must be 'events'")
    check(message)
    return message


def check(request: SubscribeRequest) -> None:
    """Raise InvalidRequest for fields that exclude each other."""
    if request.consumer is not None and (request.after is not None or request.last is not None):
        raise InvalidRequest("invalid_field", "consumer: resumes from its checkpoint and takes no 'after' or 'last'")
    require_epoch(request)


def require_epoch(request: FeedRequest) -> None:
    """Raise InvalidRequest for a cursor without an epoch."""
    if request.after and request.epoch is None:
        raise InvalidRequest("epoch_required", f"after: {request.after} requires the 'epoch' of that seq")


@contextmanager
def _translate_errors(fields: Iterable[str] = ()) -> Iterator[None]:
    """Translate validation errors to InvalidRequest.

    *fields* are the known names, for suggestions.
    """
    try:
        yield
    except ValidationError as error:
        problems = []
        for each in error.errors(include_url=False):
            name = ".".join(map(str, each["loc"]))
            meant = near(name, fields) if each["type"] == "extra_forbidden" else None
            problems.append(f"{name:.80}: {each['msg']}" + (f" (did you mean {meant}?)" if meant else ""))
        raise InvalidRequest("invalid_field", "; ".join(problems)) from None


def validated(model: type[_Model], fields: Mapping[str, Any]) -> _Model:
    """Return *fields*, the texts of a query string, as *model*.

    Raises InvalidRequest that names each bad field.
    """
    with _translate_errors([field.alias or name for name, field in model.model_fields.items()]):
        return model.model_validate(fields)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The first answer to a subscription.

    The first event always has a seq above *after*.
    """

    kind: Literal["live", "resumed", "gap", "reset"]
    epoch: str
    after: int
    head: int
    missing: tuple[int, int] | None = None
    origin: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as they are sent; `missing` only with a gap.

        `origin` is there only with a gap of a copy.
        """
        fields: dict[str, Any] = {"epoch": self.epoch, "verdict": self.kind, "after": self.after, "head": self.head}
        if self.missing:
            fields["missing"] = {"from": self.missing[0], "to": self.missing[1]}
        return fields | ({"origin": self.origin} if self.missing and self.origin else {})


def decide(after: int | None, epoch: str | None, window: Window) -> Verdict:
    """Return the verdict on a client's cursor in *window*.

    *window* must be read fresh from the source, because another worker may already have sent events beyond this
    process's position. Call it through `FeedReader.verdict`, which also records the head in the high-water mark.
    A cursor beyond the head of a copy is valid, because the copy is behind.
    """
    head = window.last_seq
    if after is None:
        return Verdict("live", window.epoch, head, head)
    if after > 0 and (epoch != window.epoch or (after > head and not window.is_copy)):
        return Verdict("reset", window.epoch, head, head)
    if after < window.first_seq - 1:
        missing = (after + 1, window.first_seq - 1)
        return Verdict("gap", window.epoch, window.first_seq - 1, head, missing, window.origin)
    return Verdict("resumed", window.epoch, after, head)


def decide_for(claim: Claim, window: Window) -> Verdict:
    """Return the verdict on a consumer's claim.

    A checkpoint always names an epoch, even at seq 0.
    """
    if claim.epoch != window.epoch:
        told_at = window.last_seq if claim.reset_seq is None else claim.reset_seq
        after = min(max(told_at, window.first_seq - 1), window.last_seq)
        return Verdict("reset", window.epoch, after, window.last_seq)
    return decide(claim.seq, claim.epoch, window)


def start_of_last(source: Source, filter_: Filter, count: int, head: int) -> int:
    """Return the seq before the newest *count* matching events to *head*.

    The call may check MAX_LOOKBACK events, so `FeedReader` runs one at a time.
    """
    seqs = source.newest(filter_, count, after=max(head - MAX_LOOKBACK, 0), up_to=head)
    return min(seqs, default=head + 1) - 1
