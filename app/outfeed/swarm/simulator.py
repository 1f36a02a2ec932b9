"""A simulated swarm: its agents read the feed and use the HTTP API."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from queue import Empty, SimpleQueue
from typing import Any

import httpx

from outfeed import clock
from outfeed.client import Client, Feed, FeedEvent
from outfeed.client.link import authorization
from outfeed.client.proxies import open_http
from outfeed.client.retries import Backoff, is_worth_retrying
from outfeed.errors import OutfeedError, Refused
from outfeed.events import EventType

NAMES = ("Forge", "Echo", "Seer", "Quill", "Helm", "Mace", "Lark", "Cinder")
TASKS = """Merge overlapping intervals in Python; Summarise the minutes of Tuesday's design review;
Find out why the nightly backup took three hours; Translate the onboarding guide into Portuguese;
Add pagination to the invoices endpoint; Draft release notes for version 2.4; Label 200 support tickets by urgency;
Fix the flaky test in the payments suite; Turn the Q3 survey answers into a chart; Check all links in the docs"""
TOOLS = """web_search: sqlite wal checkpoint starvation; read_file: docs/handbook.md; run_tests: payments;
sql_query: SELECT region, count(*) FROM visits GROUP BY region; write_file: out/summary.md"""
TOOL_FAILURES = "timed out after 30 s; exit code 1; 404 Not Found; rate limit reached; file not found"
TASK_FAILURES = "the tests still fail after three attempts; the source document is encrypted; the deadline has passed"
RESULTS = "merged; 12 pages written; all tests pass; 3 findings; report filed; 194 of 200 labelled"
NOTICES = "info: Nightly backup finished in 4 min; warning: Disk is 81 % full; error: Model endpoint answered 503"
# One task makes about 14 events, notices included, in about 8 steps of work; at most half of the agents work at once.
EVENTS_A_TASK, STEPS_A_TASK, MAX_STEP_SECS = 14, 8, 3.0
TIMEOUT_SECS, SHUTDOWN_SECS = 30.0, 1.0


class Scenario(random.Random):
    """Random choices, the same for the same seed."""

    def one_of(self, texts: str) -> str:
        """Return one of *texts*, a list with semicolons as separators."""
        return self.choice(re.split(r";\s", texts))

    def secs(self, mean: float) -> float:
        """Return a random duration with an average of *mean* seconds."""
        return min(self.expovariate(1 / mean), 4 * mean)


class ApiClient:
    """Thread-safe client of the HTTP API; it reports failed connections."""

    def __init__(self, url: str, token: str | None, stop: threading.Event, report: Callable[[str], None]) -> None:
        self.url, self.stop, self._report, self._quiet_until = url, stop, report, 0.0
        self.failure: OutfeedError | None = None
        self._http = open_http(f"{url}/api/", timeout=TIMEOUT_SECS, limits=httpx.Limits(), headers=authorization(token))

    def call(self, method: str, path: str, **body: Any) -> Any:
        """Return the answer; None for 404 and 409, or once *stop* is set."""
        backoff = Backoff()
        while True:
            try:
                response = self._http.request(method, path, json=body or None)
                status = response.status_code
                if response.is_success or status in (404, 409):
                    return response.json() if response.is_success else None
                if not is_worth_retrying(status):
                    return self.fail(Refused(f"{self.url} refuses {path} ({status}): {response.text!r:.200}"))
                problem = f"The server answers {status}"
            except ValueError:
                return self.fail(Refused(f"{self.url} does not answer with JSON; is it an Outfeed server?"))
            except httpx.TransportError as error:
                problem = f"Can't reach {self.url}: {error or type(error).__name__}"
            pause = backoff.next()
            if clock.monotonic() >= self._quiet_until and not self.stop.is_set():  # all threads get the same error
                self._quiet_until = clock.monotonic() + pause
                self._report(f"{problem}; trying again in {pause:.1f} s")
            if self.stop.wait(pause):
                return None

    def fail(self, error: OutfeedError) -> None:
        """Stop the simulation because of *error*."""
        self.failure = error
        self.stop.set()


class SimulatedAgent(threading.Thread):
    """One agent and its thread. `inbox` brings events, and None to wake it."""

    def __init__(self, name: str, api: ApiClient, scenario: Scenario, agents: int, rate: float) -> None:
        super().__init__(name=name, daemon=True)
        self.agent_id: str | None = None
        self.inbox: SimpleQueue[FeedEvent | None] = SimpleQueue()
        self._api, self._scenario, self._agents = api, scenario, agents
        self._heartbeat_secs, self._due, self._task_secs = 20.0, 0.0, EVENTS_A_TASK / rate
        self._step_secs = min(MAX_STEP_SECS, self._task_secs * agents / (2 * STEPS_A_TASK))

    def run(self) -> None:
        """Join, handle the feed's events until the simulation stops, and leave."""
        while not self._api.stop.is_set():
            if clock.monotonic() >= self._due or self.agent_id is None:
                self._keep_membership()
            with suppress(Empty):
                if event := self.inbox.get(timeout=self._heartbeat_secs):
                    self._handle(event)
        if self.agent_id is not None:
            self._api.call("DELETE", f"swarm/agents/{self.agent_id}")

    def _keep_membership(self) -> None:
        is_known = self.agent_id is not None and self._post(f"agents/{self.agent_id}/heartbeat")
        if not is_known and (answer := self._post("agents", name=self.name)):
            seen, expires = (datetime.fromisoformat(answer[name]) for name in ("seen_at", "expires_at"))
            self._heartbeat_secs = (expires - seen).total_seconds() / 3
            self.agent_id = answer["id"]
        self._due = clock.monotonic() + self._heartbeat_secs

    def _handle(self, event: FeedEvent) -> None:
        if event.event_type == EventType.TASK_ASSIGNED and event.agent_id == self.agent_id:
            self._work(str(event.task_id))
        elif event.event_type == EventType.TASK_BIDDING and self._scenario.random() < 4 / self._agents:
            left = (datetime.fromisoformat(event.data["closes_at"]) - clock.now()).total_seconds()
            self._api.stop.wait(self._scenario.uniform(0, min(2.0, left / 4)))
            bid = {"agent_id": self.agent_id, "bid_sats": self._scenario.randrange(20, 400, 5)}
            self._post(f"tasks/{event.task_id}/bids", **bid)

    def _work(self, task_id: str) -> None:
        """Do the task. The server rejects these calls if another agent has it."""
        self._wait(self._step_secs)
        self._post(f"tasks/{task_id}/start", agent_id=self.agent_id)
        for _ in range(self._scenario.randint(1, 3)):
            self._use_tool(task_id)
        completed = {"result": self._scenario.one_of(RESULTS)}
        failed = {"reason": self._scenario.one_of(TASK_FAILURES)} if self._scenario.random() < 0.2 else {}
        ending = "fail" if failed else "complete"
        self._post(f"tasks/{task_id}/{ending}", agent_id=self.agent_id, **(failed or completed))
        if self._scenario.random() < 0.25 and self._api.call("DELETE", f"swarm/agents/{self.agent_id}"):
            self.agent_id = None  # the agent joins later under the same name, with a new id
            self._wait(2 * self._task_secs)

    def _use_tool(self, task_id: str) -> None:
        tool, given = self._scenario.one_of(TOOLS).split(": ")
        failed = {"status": "failed", "details": {"reason": self._scenario.one_of(TOOL_FAILURES)}}
        ended = failed if self._scenario.random() < 1 / 6 else {"status": "completed"}
        for use in ({"status": "called", "details": {"arguments": {"input": given}}}, ended):
            self._post(f"agents/{self.agent_id}/tools", tool_name=tool, task_id=task_id, **use)
            self._wait(self._step_secs)

    def _post(self, path: str, **body: Any) -> Any:
        return None if self._api.stop.is_set() else self._api.call("POST", f"swarm/{path}", **body)

    def _wait(self, mean_secs: float) -> None:
        self._api.stop.wait(self._scenario.secs(mean_secs))


class Simulator:
    """The agents, the feed with their tasks, and the thread that posts tasks."""

    def __init__(self, api: ApiClient, client: Client, *, agents: int, rate: float, seed: int) -> None:
        self.posted = 0
        self._api, self._client, self._scenario, self._task_secs = api, client, Scenario(seed), EVENTS_A_TASK / rate
        names = [NAMES[n % len(NAMES)] + f"-{n // len(NAMES) + 1}" * (n >= len(NAMES)) for n in range(agents)]
        self.agents = [SimulatedAgent(name, api, Scenario(f"{seed} {name}"), agents, rate) for name in names]

    def run(self) -> None:
        """Simulate until stopped; return after the agents. Raises OutfeedError."""
        if found := self._api.call("GET", "swarm"):
            cursor = {"after": found["seq"], "epoch": found["epoch"]}
            with self._client.follow(types=["task.bidding", "task.assigned"], **cursor) as feed:
                threading.Thread(target=self._follow, args=(feed,), name="feed", daemon=True).start()
                for agent in self.agents:
                    agent.start()
                self._post_tasks()
            for agent in self.agents:
                agent.inbox.put(None)
            for agent in self.agents:
                agent.join(SHUTDOWN_SECS / len(self.agents))
        elif not self._api.stop.is_set():
            raise Refused(f"{self._api.url} has no swarm; is it an Outfeed server?")
        if self._api.failure:
            raise self._api.failure

    def _follow(self, feed: Feed) -> None:
        try:
            for event in feed:
                for agent in self.agents:
                    agent.inbox.put(event)
        except OutfeedError as error:
            self._api.fail(error)

    def _post_tasks(self) -> None:
        while not self._api.stop.is_set():
            self.posted += bool(self._api.call("POST", "swarm/tasks", description=self._scenario.one_of(TASKS)))
            if self.posted % 2:
                level, message = self._scenario.one_of(NOTICES).split(": ")
                notice = {"event_type": f"system.{level}", "source": "monitor", "data": {"message": message}}
                self._api.call("POST", "events", **notice)
            if self.posted > 1:
                self._api.stop.wait(self._scenario.secs(self._task_secs))
