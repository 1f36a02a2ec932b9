"""A make-believe swarm: agents that take their work from the feed and do it by the HTTP API, as real ones would."""

from __future__ import annotations

import itertools
import queue
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

import httpx

from outfeed import clock
from outfeed.client import Client, Feed
from outfeed.client.proxies import open_http
from outfeed.errors import OutfeedError, Refused
from outfeed.events import EventType

NAMES = ("Forge", "Echo", "Seer", "Quill", "Helm", "Mace", "Lark", "Cinder")
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
TOOLS: tuple[tuple[str, dict[str, Any]], ...] = (
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
# What a task leaves in the log from its posting to its end, on average, with the notices beside it.
EVENTS_A_TASK = 14
STEPS_A_TASK = 8
TASKS_AT_ONCE = 2
MAX_STEP_SECS = 3.0
RETRY_SECS = 0.5
TIMEOUT_SECS = 30.0
FAREWELL_SECS = 1.0


class Stopped(Exception):
    """The swarm was told to stop."""


@dataclass(frozen=True, slots=True)
class Work:
    """A task that an agent has won."""

    task_id: str
    is_started: bool = False


@dataclass(frozen=True, slots=True)
class Auction:
    """A task that is open for bids."""

    task_id: str
    closes_at: datetime


class Office:
    """The server's HTTP API. Asks again while the server is away, until *stop* is set: then raises Stopped."""

    def __init__(self, url: str, token: str | None, stop: threading.Event) -> None:
        self.url = url
        self.stop = stop
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self._http = open_http(url, headers=headers, timeout=TIMEOUT_SECS, limits=limits)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Return the answer; None where it is not our turn (409), or there is no such thing (404). Raises Refused."""
        while not self.stop.is_set():
            try:
                response = self._http.request(method, path, json=body)
            except httpx.TransportError:
                self.stop.wait(RETRY_SECS)
                continue
            if response.is_success:
                return response.json()
            if response.status_code in (404, 409):
                return None
            if response.status_code < 500 and response.status_code != 429:
                raise Refused(f"{self.url} refuses {method} {path} ({response.status_code}): {_detail(response)}")
            self.stop.wait(RETRY_SECS)
        raise Stopped

    def say_goodbye(self, agent_ids: list[str]) -> None:
        """Let the agents go, if the server is still there."""
        for agent_id in agent_ids:
            try:
                self._http.delete(_agent_path(agent_id), timeout=FAREWELL_SECS)
            except httpx.TransportError:
                return


def _detail(response: httpx.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return response.reason_phrase


def _agent_path(agent_id: str, *rest: str) -> str:
    return "/".join(["/api/swarm/agents", quote(agent_id, safe=""), *rest])


def _task_path(task_id: str, *rest: str) -> str:
    return "/".join(["/api/swarm/tasks", quote(task_id, safe=""), *rest])


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things take, so that about *rate* events a second come of it."""

    rate: float
    agents: int

    @property
    def task_secs(self) -> float:
        """Between the posting of one task and the next."""
        return EVENTS_A_TASK / self.rate

    @property
    def step_secs(self) -> float:
        """For one step of work: at most half of the agents are at work on average."""
        return min(MAX_STEP_SECS, self.task_secs * self.agents / (2 * STEPS_A_TASK))


class Fate:
    """Decides what happens. Outcomes come in turn, not by chance, so that every type of event is seen soon."""

    def __init__(self) -> None:
        self.chance = random.Random()  # noqa: S311 - make-believe, not secrets
        self._tasks = itertools.count(1)
        self._calls = itertools.count(1)
        self._notices = itertools.count()

    def pause(self, mean_secs: float) -> float:
        """Return how long something takes that takes *mean_secs* on average."""
        return min(self.chance.expovariate(1 / mean_secs), 4 * mean_secs)

    def task_number(self) -> int:
        """Count the tasks that come to an end."""
        return next(self._tasks)

    def is_tool_failing(self) -> bool:
        """Return whether this call of a tool fails."""
        return next(self._calls) % 6 == 4

    def notice(self) -> tuple[EventType, str]:
        """Return what the monitor has to say."""
        return NOTICES[next(self._notices) % len(NOTICES)]


class Agent(threading.Thread):
    """One agent: bids for what the feed offers, does what it won, beats while it waits.

    Its own thread does all that; others only put something into `inbox` (None ends it).
    """

    def __init__(self, name: str, office: Office, pace: Pace, fate: Fate, swarm: Swarm) -> None:
        super().__init__(name=f"agent-{name}", daemon=True)
        self.inbox: queue.SimpleQueue[Work | Auction | None] = queue.SimpleQueue()
        self.agent_id: str | None = None
        self._office = office
        self._pace = pace
        self._fate = fate
        self._swarm = swarm
        self._beat_secs = 20.0

    def run(self) -> None:
        try:
            while True:
                if self.agent_id is None:
                    self.register(self._office.call("POST", "/api/swarm/agents", {"name": self._called}))
                self._serve()
        except Stopped:
            return
        except OutfeedError as error:
            self._swarm.give_up(error)

    @property
    def _called(self) -> str:
        return self.name.removeprefix("agent-")

    def register(self, answer: dict[str, Any]) -> None:
        """Take up the identity that the server answered with."""
        seen, expires = (datetime.fromisoformat(answer[name]) for name in ("seen_at", "expires_at"))
        self._beat_secs = (expires - seen).total_seconds() / 3
        self.agent_id = answer["id"]

    def _serve(self) -> None:
        """Do the next thing, or beat when there is none."""
        try:
            thing = self.inbox.get(timeout=self._beat_secs)
        except queue.Empty:
            self._beat()
            return
        if thing is None:
            raise Stopped
        if isinstance(thing, Work):
            self._work(thing)
        elif thing.closes_at > clock.now():
            self._bid(thing)

    def _beat(self) -> None:
        if self._office.call("POST", _agent_path(str(self.agent_id), "heartbeat")) is None:
            self.agent_id = None  # it was away for too long: it joins again

    def _bid(self, auction: Auction) -> None:
        if self._fate.chance.random() * self._pace.agents > 4:
            return  # about four bid
        left = (auction.closes_at - clock.now()).total_seconds()
        self._wait(self._fate.chance.uniform(0, min(2.0, left / 4)))
        sats = self._fate.chance.randrange(20, 400, 5)
        self._office.call("POST", _task_path(auction.task_id, "bids"), {"agent_id": self.agent_id, "bid_sats": sats})

    def _work(self, work: Work) -> None:
        """Do the task: start, use tools, end. Where it was taken away meanwhile, turn to the next thing."""
        body = {"agent_id": self.agent_id}
        self._step()
        if not work.is_started and self._office.call("POST", _task_path(work.task_id, "start"), body) is None:
            return
        for _ in range(self._fate.chance.randint(1, 3)):
            self._use_tool(work.task_id)
        number = self._fate.task_number()
        if number % 5 == 3:
            ending, body["reason"] = "fail", self._fate.chance.choice(TASK_FAILURES)
        else:
            ending, body["result"] = "complete", self._fate.chance.choice(RESULTS)
        self._office.call("POST", _task_path(work.task_id, ending), body)
        if number % 4 == 2 and self._pace.agents > 2:
            self._take_a_break()

    def _use_tool(self, task_id: str) -> None:
        tool_name, arguments = self._fate.chance.choice(TOOLS)
        self._tell_tool(task_id, tool_name, "called", arguments=arguments)
        self._step()
        ending = {"duration_ms": int(self._fate.chance.lognormvariate(6, 1))}
        if self._fate.is_tool_failing():
            self._tell_tool(task_id, tool_name, "failed", reason=self._fate.chance.choice(TOOL_FAILURES), **ending)
        else:
            self._tell_tool(task_id, tool_name, "completed", **ending)
        self._step()

    def _tell_tool(self, task_id: str, tool_name: str, status: str, **details: Any) -> None:
        body = {"tool_name": tool_name, "status": status, "task_id": task_id, "details": details}
        self._office.call("POST", _agent_path(str(self.agent_id), "tools"), body)

    def _take_a_break(self) -> None:
        """Leave, and come back later as another agent of the same name."""
        self._office.call("DELETE", _agent_path(str(self.agent_id)))
        self.agent_id = None  # not before it has left: who is told to stop meanwhile must still be seen off
        self._wait(self._fate.pause(2 * self._pace.task_secs))

    def _step(self) -> None:
        self._wait(self._fate.pause(self._pace.step_secs))

    def _wait(self, secs: float) -> None:
        """Let time go by, beating as often as is due. Raises Stopped."""
        until = clock.monotonic() + secs
        while (left := until - clock.monotonic()) > 0:
            if self._office.stop.wait(min(left, self._beat_secs)):
                raise Stopped
            if left > self._beat_secs and self.agent_id is not None:
                self._office.call("POST", _agent_path(self.agent_id, "heartbeat"))


class Swarm:
    """Agents, the feed that gives them their work, and whoever posts it."""

    def __init__(self, url: str, token: str | None, *, agents: int, rate: float, stop: threading.Event) -> None:
        self.posted = 0
        self._client = Client(url, token)
        self._feed: Feed | None = None
        self._stop = stop
        self._office = Office(url, token, stop)
        self._pace = Pace(rate, agents)
        self._fate = Fate()
        self._agents = [Agent(name, self._office, self._pace, self._fate, self) for name in names(agents)]
        self._failure: OutfeedError | None = None

    def run(self) -> None:
        """Simulate until told to stop, then let the agents go. Raises Refused."""
        try:
            self._feed = self._look_around()
            self._begin("feed", self._follow, self._feed)
            for agent in self._agents:
                agent.start()
            self._post_tasks()
        except Stopped:
            self._end()
        if self._failure is not None:
            raise self._failure

    def give_up(self, error: OutfeedError) -> None:
        """Stop, for that reason."""
        self._failure = self._failure or error
        self._stop.set()

    def _begin(self, name: str, call: Callable[[Feed], None], feed: Feed) -> None:
        def guarded() -> None:
            try:
                call(feed)
            except Stopped:
                return
            except OutfeedError as error:
                self.give_up(error)

        threading.Thread(target=guarded, name=name, daemon=True).start()

    def _end(self) -> None:
        if self._feed is not None:
            self._feed.close()
        for agent in self._agents:
            agent.inbox.put(None)
        until = clock.monotonic() + FAREWELL_SECS
        for agent in self._agents:
            if agent.is_alive():
                agent.join(max(0.0, until - clock.monotonic()))
        self._office.say_goodbye([agent.agent_id for agent in self._agents if agent.agent_id is not None])

    # --- where work comes from ---

    def _follow(self, feed: Feed) -> None:
        """Hand what the feed offers to the agents, over any number of connections."""
        for event in feed:
            if event.event_type == EventType.TASK_ASSIGNED:
                self._assign(str(event.agent_id), Work(str(event.task_id)))
            else:
                self._offer(str(event.task_id), event.data["closes_at"])

    def _assign(self, agent_id: str, work: Work) -> None:
        for agent in self._agents:
            if agent.agent_id == agent_id:
                agent.inbox.put(work)

    def _offer(self, task_id: str, closes_at: str) -> None:
        for agent in self._agents:
            agent.inbox.put(Auction(task_id, datetime.fromisoformat(closes_at)))

    def _look_around(self) -> Feed:
        """Go on where an earlier run was killed: as its agents, with what they hold. Return the feed from there on."""
        found = self._office.call("GET", "/api/swarm")
        present = {each["name"]: each for each in found["agents"]}
        for agent in self._agents:
            if agent.name.removeprefix("agent-") in present:
                agent.register(present[agent.name.removeprefix("agent-")])
        self._take_over(found)
        return self._client.follow(
            types=[EventType.TASK_BIDDING, EventType.TASK_ASSIGNED],
            after=found["seq"],
            epoch=found["epoch"],
            on_missing=lambda _: self._catch_up(),
            on_connection=lambda _: None,
        )

    def _catch_up(self) -> None:
        """Events are missing: the swarm itself says what is open."""
        self._take_over(self._office.call("GET", "/api/swarm"))

    def _take_over(self, found: dict[str, Any]) -> None:
        for state in ("assigned", "started"):
            for task in found["tasks"][state]:
                self._assign(task["agent_id"], Work(task["id"], is_started=state == "started"))
        for task in found["tasks"]["bidding"]:
            self._offer(task["id"], task["closes_at"])

    # --- who posts it ---

    def _post_tasks(self) -> None:
        """Post tasks, and now and then a notice of the monitor, until told to stop."""
        descriptions = itertools.cycle(self._fate.chance.sample(TASKS, len(TASKS)))
        for description in descriptions:
            self._office.call("POST", "/api/swarm/tasks", {"description": description})
            self.posted += 1
            if self.posted % 2:
                self._notify()
            if self.posted >= TASKS_AT_ONCE and self._stop.wait(self._fate.pause(self._pace.task_secs)):
                raise Stopped

    def _notify(self) -> None:
        event_type, message = self._fate.notice()
        body = {"event_type": event_type, "source": "monitor", "data": {"message": message}}
        self._office.call("POST", "/api/events", body)


def names(count: int) -> list[str]:
    """Return *count* different names."""
    rounds = ((name if not number else f"{name}-{number + 1}") for number in itertools.count() for name in NAMES)
    return list(itertools.islice(rounds, count))
