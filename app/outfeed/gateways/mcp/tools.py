"""The tools: what a model can ask the log, and write to it.

Each tool but `log_event` asks one operation of the HTTP API. Its arguments have the names of that operation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from pydantic import BaseModel

from outfeed.errors import EventConflict, InvalidEvent, InvalidRequest
from outfeed.feed.subscription import validated
from outfeed.gateways import intake
from outfeed.gateways.mcp import operations
from outfeed.gateways.mcp.operations import ApiAnswer
from outfeed.gateways.mcp.shapes import (
    NOTICE,
    EventAnswer,
    FeedPosition,
    IdArgument,
    LogArguments,
    LoggedReceipt,
    answer_of,
    arguments_of,
)
from outfeed.http import identity
from outfeed.http.api.operation import JSON
from outfeed.principal import READ, WRITE, Principal

LIST, ONE, SUMMARY, FEED = "events.list_events", "events.get_event", "events.summarise", "feed.poll"
FILTERS = ("event_type", "source", "task_id", "agent_id", "text", "q", "from", "to")
PAGE = ("limit", "cursor")
DEFAULT_LIMIT = 20
DEFAULT_WAIT_SECS = 25
Arguments = dict[str, Any]
Schema = dict[str, Any]


class Tool(NamedTuple):
    """A tool. *run* gets the arguments of a call, which have no other names.

    *arguments* and *answer* return shapes, from the operation that the tool asks.
    """

    name: str
    title: str
    description: str
    scope: str
    names: tuple[str, ...]
    arguments: Callable[[], type[BaseModel]]
    answer: Callable[[], Schema]
    run: Callable[[Arguments], ApiAnswer]
    required: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """Return the tool as `tools/list` has it."""
        is_reader = self.scope == READ
        hints = {"readOnlyHint": is_reader, "openWorldHint": False}
        if not is_reader:
            hints |= {"destructiveHint": False, "idempotentHint": False}
        return {
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "inputSchema": arguments_of(self.arguments(), self.names, self.required),
            "outputSchema": self.answer(),
            "annotations": {"title": self.title, **hints},
        }

    def call(self, arguments: Arguments) -> ApiAnswer:
        """Call the tool. Raises Unauthorized."""
        return operations.caught(lambda: self.run(self._checked(arguments)))

    def _checked(self, arguments: Arguments) -> Arguments:
        for name in arguments:
            if name not in self.names:
                raise InvalidRequest("invalid_field", f"{name:.80}: {self.name} takes {', '.join(self.names)}")
        for name in self.required:
            if arguments.get(name) is None:
                raise InvalidRequest("invalid_field", f"{name}: is missing")
        return {name: value for name, value in arguments.items() if value is not None}


@functools.cache
def described(tool: Tool) -> dict[str, Any]:
    """Return the tool as `tools/list` has it, made once."""
    return tool.describe()


def permitted(principal: Principal) -> list[Tool]:
    """Return the tools that the principal may call, in a fixed order."""
    return [tool for tool in TOOLS.values() if principal.may(tool.scope)]


# --- reading ----------------------------------------------------------------------------------------------------------


def _read(endpoint: str, arguments: Arguments) -> ApiAnswer:
    return _with_position(lambda: operations.ask(endpoint, arguments))


def _with_position(read: Callable[[], ApiAnswer]) -> ApiAnswer:
    """Return the answer of *read*, with the feed's position before it."""
    head = operations.ask(FEED, {})
    answer = head if head.is_error else read()
    if answer.is_error:
        return answer
    position = {"after": head.body["cursor"], "epoch": head.body["epoch"]}
    return ApiAnswer(200, {"notice": NOTICE, "feed": position, **answer.body})


def _search(arguments: Arguments) -> ApiAnswer:
    return _read(LIST, {"limit": DEFAULT_LIMIT, **arguments})


def _tell_story(arguments: Arguments) -> ApiAnswer:
    """Return the newest events, in the order in which they were logged."""
    answer = _search(arguments)
    if not answer.is_error:
        answer.body["events"].reverse()
    return answer


def _get(arguments: Arguments) -> ApiAnswer:
    wanted = validated(IdArgument, arguments).id

    def read() -> ApiAnswer:
        return ApiAnswer(200, {"event": operations.call(ONE, event_id=wanted).body})

    return _with_position(read)


def _wait(arguments: Arguments) -> ApiAnswer:
    """Return the events after a cursor, and wait for the first one.

    Without a cursor, it waits from now on.
    """
    wanted = {"limit": DEFAULT_LIMIT, "wait": DEFAULT_WAIT_SECS, **arguments}
    if "after" in wanted:
        return _noticed(operations.ask(FEED, wanted))
    head = operations.ask(FEED, {**wanted, "wait": 0})
    if head.is_error:
        return head
    answer = operations.ask(FEED, {**wanted, "after": head.body["cursor"], "epoch": head.body["epoch"]})
    if answer.body.get("verdict") == "resumed":
        answer.body["verdict"] = head.body["verdict"]
    return _noticed(answer)


def _noticed(answer: ApiAnswer) -> ApiAnswer:
    return answer if answer.is_error else ApiAnswer(answer.status, {"notice": NOTICE, **answer.body})


# --- writing ----------------------------------------------------------------------------------------------------------


def _log(arguments: Arguments) -> ApiAnswer:
    principal = identity.principal()
    event = {"source": principal.name, **validated(LogArguments, arguments).model_dump(exclude_unset=True)}
    try:
        (recorded,) = intake.append(principal, [event])
    except (InvalidEvent, EventConflict) as error:
        error.index = None
        raise
    return ApiAnswer(200, {**intake.receipt(recorded), "is_new": recorded.is_new})


# --- the table --------------------------------------------------------------------------------------------------------


def _shape_of(endpoint: str) -> type[BaseModel]:
    found: type[BaseModel] = operations.of(endpoint).answers[200][JSON]
    return found


def _page() -> Schema:
    return answer_of(_shape_of(LIST), feed=(FeedPosition, ...))


def _event() -> Schema:
    return answer_of(EventAnswer, feed=(FeedPosition, ...), event=(_shape_of(ONE), ...))


_STORY = " Returns the newest events, oldest first; `next` is the `cursor` of the earlier ones."
_LISTED = (
    Tool(
        name="search_events",
        title="Search the log",
        description=(
            "Search the log of events, newest first. All filters must match. `next` in the answer is the `cursor` of"
            " the next page; null means that there is none. `feed` has the arguments for wait_for_events to continue."
        ),
        scope=READ,
        names=(*FILTERS, *PAGE),
        arguments=lambda: operations.query_of(LIST),
        answer=_page,
        run=_search,
    ),
    Tool(
        name="get_event",
        title="Get one event",
        description="Get one event by its id, with all of its data.",
        scope=READ,
        names=("id",),
        arguments=lambda: IdArgument,
        answer=_event,
        run=_get,
        required=("id",),
    ),
    Tool(
        name="task_story",
        title="Tell a task's story",
        description="Get the events of one task (`task_id`), such as a session of a coding agent." + _STORY,
        scope=READ,
        names=("task_id", *PAGE),
        arguments=lambda: operations.query_of(LIST),
        answer=_page,
        run=_tell_story,
        required=("task_id",),
    ),
    Tool(
        name="agent_story",
        title="Tell an agent's story",
        description="Get the events of one agent (`agent_id`)." + _STORY,
        scope=READ,
        names=("agent_id", *PAGE),
        arguments=lambda: operations.query_of(LIST),
        answer=_page,
        run=_tell_story,
        required=("agent_id",),
    ),
    Tool(
        name="summary",
        title="Count events by type",
        description="Count the events of each type in the last `minutes` (default 60).",
        scope=READ,
        names=("minutes",),
        arguments=lambda: operations.query_of(SUMMARY),
        answer=lambda: answer_of(_shape_of(SUMMARY), feed=(FeedPosition, ...)),
        run=lambda arguments: _read(SUMMARY, arguments),
    ),
    Tool(
        name="wait_for_events",
        title="Wait for new events",
        description=(
            f"Wait up to `wait` seconds (default {DEFAULT_WAIT_SECS}, at most 60) for events that match, and return"
            " them. Without `after` it waits from now on. Call it again with `after` = `cursor` and `epoch` of the"
            " answer: then no event is missed, over any restart of the server. `verdict` is `gap` if the events in"
            " `missing` are gone, and `reset` if the log was replaced."
        ),
        scope=READ,
        names=("types", "source", "task_id", "agent_id", "after", "epoch", "wait", "limit"),
        arguments=lambda: operations.query_of(FEED),
        answer=lambda: answer_of(_shape_of(FEED)),
        run=_wait,
    ),
    Tool(
        name="log_event",
        title="Log an event",
        description=(
            "Append one event to the log, where people see it live. Pass an `id` of your own: then the call is safe to"
            " repeat after an error."
        ),
        scope=WRITE,
        names=tuple(LogArguments.model_fields),
        arguments=lambda: LogArguments,
        answer=lambda: LoggedReceipt.model_json_schema(mode="serialization"),
        run=_log,
        required=("event_type",),
    ),
)
TOOLS = {tool.name: tool for tool in _LISTED}
