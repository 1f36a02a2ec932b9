"""Mappings: tables of fields that make events of payloads. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from outfeed.display import Level
from outfeed.errors import InvalidMapping, InvalidRequest
from outfeed.gateways.incoming.template import Payload, Template, value_at
from outfeed.gateways.incoming.topic import type_of, word_of_type

MAX_ITEMS = 1000  # of a request, which has at most as many events


class Scheme(StrEnum):
    """How a sender signs its requests."""

    NONE = "none"
    GITHUB = "github"
    GRAFANA = "grafana"
    STANDARD = "standard"


def _template(value: object) -> Template:
    if not isinstance(value, str):
        raise ValueError("must be text")  # noqa: TRY004 - pydantic expects ValueError
    try:
        return Template.parsed(value)
    except InvalidMapping as error:
        raise ValueError(str(error)) from None


_Template = Annotated[Template, BeforeValidator(_template)]
_Path = Annotated[str, Field(max_length=200)]


class LevelRule(BaseModel):
    """The level of events in which the value of *of* is *is*.

    Without both, the level of all events that no earlier rule covers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    of: _Template | None = None
    is_: Annotated[str | None, Field(alias="is")] = None
    level: Level

    def covers(self, payload: Payload) -> bool:
        """Return whether the rule sets the level of the event."""
        return self.of is None or (self.of.text(payload) or "").lower() == (self.is_ or "")


class FieldTable(BaseModel):
    """The table of one kind of sender: which value becomes which field."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: Annotated[str, Field(max_length=200)] = ""
    signature: Scheme = Scheme.NONE
    # The path of a list in the payload. Each of its items becomes one event.
    items: _Path = ""
    type: _Template
    source: _Template = Template.parsed("{source}")
    id: _Template | None = None
    # If a request repeats a known id with other content, the event in the log stays, and the request succeeds.
    keeps_known: bool = False
    data: Mapping[Annotated[str, Field(min_length=1, max_length=64)], _Template] = Field(default_factory=dict)
    level: tuple[LevelRule, ...] = ()

    def events(self, payload: Payload) -> list[dict[str, Any]]:
        """Return the events that *payload* says.

        Each has the names of `log_event`. Raises InvalidRequest, which names the field whose value is missing.
        """
        return [self._event(one, position) for position, one in enumerate(self._parts(payload))]

    def _parts(self, payload: Payload) -> Iterator[Payload]:
        if not self.items:
            yield payload
            return
        found = value_at(payload.body, self.items)
        if not isinstance(found, list):
            raise InvalidRequest("invalid_event", f"{self.items}: must be a list, as each item becomes an event")
        if len(found) > MAX_ITEMS:
            problem = f"a request has at most {MAX_ITEMS:,} events, got {len(found):,}"
            raise InvalidRequest("invalid_event", f"{self.items}: {problem}")
        yield from (payload._replace(item=item) for item in found)

    def _event(self, payload: Payload, position: int) -> dict[str, Any]:
        event_type = self.type.text(payload, word_of_type)
        event = {
            "event_type": type_of(_required(event_type, "type", self.type, position).strip(".")),
            "source": _required(self.source.text(payload), "source", self.source, position),
            "data": self._data(payload),
        }
        if self.id is not None:
            event["id"] = _required(self.id.text(payload), "id", self.id, position)
        return event

    def _data(self, payload: Payload) -> dict[str, Any]:
        found = {name: template.value(payload) for name, template in self.data.items()}
        rule = next((rule for rule in self.level if rule.covers(payload)), None)
        level = {"level": rule.level.value} if rule else {}
        return {name: value for name, value in found.items() if value is not None} | level


def _required(value: str | None, field: str, template: Template, position: int) -> str:
    if not value:
        raise InvalidRequest(
            "invalid_event", f"event {position}: {field}: the request has no value for {template.source!r:.200}"
        )
    return value
