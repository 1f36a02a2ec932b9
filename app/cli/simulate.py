"""`outfeed simulate`: a make-believe swarm for demonstrations. Every event is plausible, none of it happened."""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import click

from app.errors import DatabaseBusy
from app.events import EventType
from app.process import die_with

Fields = dict[str, Any]
Story = Iterator[Fields]

AGENTS = ("Forge", "Echo", "Seer", "Quill", "Helm", "Mace", "Lark", "Cinder")
MIN_AGENTS = 5
TASKS = (
    "Write a Python function that merges overlapping intervals",
    "Summarise the minutes of Tuesday's design review",
    "Find out why the nightly backup took three hours",
    "Translate the onboarding guide into Portuguese",
    "Add pagination to the invoices endpoint",
    "Draft release notes for version 2.4",
    "Label 200 support tickets by urgency",
    "Compare three vector databases on recall and cost",
    "Fix the flaky test in the payments suite",
    "Turn the Q3 survey answers into a chart",
    "Check all links in the documentation",
    "Write SQL for weekly active users by region",
    "Review the pull request that renames the ledger columns",
    "Extract names and dates from 40 scanned contracts",
    "Propose alt texts for the product gallery",
    "Measure the cold start of the image worker",
    "Clean up the list of newsletter subscribers",
    "Explain the retry policy in two paragraphs",
)
TOOLS = (
    ("web_search", {"query": "sqlite wal checkpoint starvation"}),
    ("read_file", {"path": "docs/handbook.md"}),
    ("run_tests", {"suite": "payments"}),
    ("sql_query", {"statement": "SELECT region, count(*) FROM visits GROUP BY region"}),
    ("fetch_url", {"url": "https://example.org/report.html"}),
    ("write_file", {"path": "out/summary.md"}),
    ("python", {"lines": 14}),
)
TOOL_FAILURES = ("timed out after 30 s", "exit code 1", "404 Not Found", "rate limit reached", "file not found")
TASK_FAILURES = (
    "the tests still fail after three attempts",
    "the source document is encrypted",
    "the deadline has passed",
    "the answer contradicts its sources",
)
RESULTS = ("merged", "12 pages written", "all tests pass", "3 findings", "report filed", "194 of 200 labelled")
NOTICES: tuple[tuple[EventType, str], ...] = (
    (EventType.SYSTEM_INFO, "Nightly backup finished in 4 min 12 s"),
    (EventType.SYSTEM_WARNING, "Queue of open tasks is longer than usual"),
    (EventType.SYSTEM_ERROR, "Model endpoint answered 503 three times in a row"),
    (EventType.SYSTEM_INFO, "Certificate renewed for 90 days"),
    (EventType.SYSTEM_WARNING, "Disk is 81 % full"),
    (EventType.SYSTEM_ERROR, "Could not reach the payment node"),
)
log = logging.getLogger(__name__)


class Swarm:
    """Agents that come and go, and the tasks they work on. `events` interleaves their stories, each told in order.

    Outcomes come in turn, not by chance, so that every type is seen within the first few minutes.
    """

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._present: list[str] = []
        self._engaged: set[str] = set()
        self._told = 0
        self._tasks = 0
        self._calls = 0
        self._notices = 0

    def events(self) -> Story:
        """Yield the fields of one event after another, for ever."""
        for name in AGENTS[:MIN_AGENTS]:
            yield self._join(name)
        tasks: list[Story] = []
        while True:
            if not tasks or (len(self._free()) > 1 and self._chance.random() < 0.3):
                tasks.append(self._task(self._bidders()))
            story = self._chance.choice(tasks)
            fields = next(story, None)
            if fields is None:
                tasks.remove(story)
                continue
            yield fields
            yield from self._aside()

    def _aside(self) -> Story:
        """Yield what happens beside the tasks: a notice now and then, an agent that comes or goes."""
        self._told += 1
        if self._told % 23 == 0:
            event_type, message = NOTICES[self._notices % len(NOTICES)]
            self._notices += 1
            yield {"event_type": event_type, "source": "monitor", "data": {"message": message}}
        if self._told % 31 == 0:
            yield from self._arrival_or_departure()

    def _arrival_or_departure(self) -> Story:
        absent = [name for name in AGENTS if name not in self._present]
        free = self._free()
        if free and len(self._present) > MIN_AGENTS and (not absent or self._chance.random() < 0.5):
            name = self._chance.choice(free)
            self._present.remove(name)
            yield _by(name, EventType.AGENT_LEFT, source="registry", reason="signed off")
        elif absent:
            yield self._join(self._chance.choice(absent))

    def _free(self) -> list[str]:
        return [name for name in self._present if name not in self._engaged]

    def _bidders(self) -> list[str]:
        free = self._free()
        bidders = self._chance.sample(free, min(len(free), self._chance.randint(2, 3)))
        self._engaged.update(bidders)
        return bidders

    def _join(self, name: str) -> Fields:
        self._present.append(name)
        return _by(
            name,
            EventType.AGENT_JOINED,
            source="registry",
            skills=self._chance.sample(("code", "text", "data", "images"), 2),
        )

    # --- one task, from its posting to its end ---

    def _task(self, bidders: list[str]) -> Story:
        self._tasks += 1
        task_id = f"task-{self._chance.getrandbits(32):08x}"
        return (fields | {"task_id": task_id} for fields in self._auctioned(self._tasks, bidders))

    def _auctioned(self, number: int, bidders: list[str]) -> Story:
        description = self._chance.choice(TASKS)
        yield _of("coordinator", EventType.TASK_CREATED, description=description)
        yield _of("auction", EventType.TASK_BIDDING, description=description, auction_secs=15)
        bids: dict[str, int] = {}
        for name in bidders:
            bids[name] = self._chance.randrange(20, 400, 5)
            yield _by(name, EventType.BID_SUBMITTED, bid_sats=bids[name])
        winner = min(bids, key=lambda name: bids[name])
        self._engaged.difference_update(name for name in bidders if name != winner)
        yield _of("auction", EventType.AUCTION_CLOSED, bid_sats=bids[winner], bids=len(bids), winner=winner)
        yield _by(winner, EventType.TASK_ASSIGNED, source="coordinator", bid_sats=bids[winner])
        yield from self._worked_on(number, winner)

    def _worked_on(self, number: int, name: str) -> Story:
        yield _by(name, EventType.AGENT_STATUS_CHANGED, source="registry", status="busy")
        yield _by(name, EventType.TASK_STARTED)
        for _ in range(self._chance.randint(1, 4)):
            yield from self._tool_call(name)
        if number % 5 == 3:
            yield _by(name, EventType.TASK_FAILED, source="coordinator", reason=self._chance.choice(TASK_FAILURES))
        else:
            yield _by(name, EventType.TASK_COMPLETED, source="coordinator", result=self._chance.choice(RESULTS))
        yield _by(name, EventType.AGENT_STATUS_CHANGED, source="registry", status="idle")
        self._engaged.discard(name)

    def _tool_call(self, name: str) -> Story:
        self._calls += 1
        has_failed = self._calls % 6 == 4
        tool_name, arguments = self._chance.choice(TOOLS)
        yield _by(name, EventType.TOOL_CALLED, tool_name=tool_name, arguments=arguments)
        duration_ms = int(self._chance.lognormvariate(6, 1))
        if has_failed:
            reason = self._chance.choice(TOOL_FAILURES)
            yield _by(name, EventType.TOOL_FAILED, tool_name=tool_name, duration_ms=duration_ms, reason=reason)
        else:
            yield _by(name, EventType.TOOL_COMPLETED, tool_name=tool_name, duration_ms=duration_ms)


def _of(source: str, event_type: EventType, **data: Any) -> Fields:
    return {"event_type": event_type, "source": source, "data": data}


def _by(name: str, event_type: EventType, *, source: str | None = None, **data: Any) -> Fields:
    """Return an event about an agent, told by *source* or by the agent itself."""
    agent_id = f"agent-{name.lower()}"
    return _of(source or agent_id, event_type, name=name, **data) | {"agent_id": agent_id}


# --- the process ------------------------------------------------------------------------------------------------------


@click.command(hidden=True)
@click.option("--rate", type=click.FloatRange(0.01, 1000), default=2.0, show_default=True, help="Events a second.")
@click.option("--parent", type=int, help="Process that it ends with.  [default: the one that started it]")
def simulate(rate: float, parent: int | None) -> None:
    """Write the events of a make-believe swarm until stopped. `outfeed serve --demo` runs it.

    \b
    Example:
      outfeed simulate --rate 20
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    die_with(parent or os.getppid())
    written = _write(rate, lambda pause: not stop.wait(pause))
    click.echo(f"The simulated swarm stopped after {written:,} events.", err=True)


def _write(rate: float, goes_on: Callable[[float], bool]) -> int:
    """Log events at about *rate* a second while *goes_on*, which waits that many seconds, says so; return how many."""
    from app.store.event_log import log_event

    chance = random.Random()  # noqa: S311 - make-believe, not secrets
    for written, fields in enumerate(Swarm(chance).events()):
        if not goes_on(min(chance.expovariate(rate), 4 / rate)):
            return written
        try:
            log_event(**fields)
        except DatabaseBusy as error:
            log.warning("event not written error=%s", error)
    raise AssertionError("the swarm's stories never end")
