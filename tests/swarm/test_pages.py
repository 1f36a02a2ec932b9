"""The pages of all tasks and agents, and the heads of their stories."""

from __future__ import annotations

import html
import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from freezegun import freeze_time

from outfeed.access.store import account
from outfeed.swarm import pages
from outfeed.swarm.part import SwarmPart
from outfeed.swarm.store import swarm as store
from outfeed.swarm.store.swarm import read_transaction
from tests.http.visitors import bearer

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def coordinator(api):
    return api.services.part(SwarmPart).coordinator


def names(page):
    """Return the texts of the rows' first links."""
    return [html.unescape(found) for found in re.findall(r'class="what"><a href="[^"]+">([^<]+)', page.text)]


def link(page, text):
    found = re.search(rf'href="([^"]+)"[^>]*>(?:<span[^>]*></span>)?{text}', page.text)
    return html.unescape(found[1]) if found else None


def worked(coordinator, description, sats, *, agent, succeeds=True):
    """Let *agent* win and end a task."""
    task = coordinator.post(description)
    coordinator.bid(task.id, agent.id, sats)
    with freeze_time(datetime.now(UTC) + timedelta(minutes=5)):
        coordinator.close_auction(task.id)
        coordinator.start(task.id, agent.id)
        if succeeds:
            return coordinator.complete(task.id, agent.id, {"files": 3})
        return coordinator.fail(task.id, agent.id, "The glossary is missing.")


class TestTasks:
    def test_all_tasks_are_listed_in_pages_in_both_directions(self, api, coordinator):
        for number in range(120):
            coordinator.post(f"Task {number}")

        first = api.get("/swarm/tasks")
        second = api.get(link(first, "Older"))
        third = api.get(link(second, "Older"))

        assert names(first) + names(second) + names(third) == [f"Task {number}" for number in range(119, -1, -1)]
        assert names(api.get(link(third, "← Newer"))) == names(second)
        assert link(first, "← Newer") is link(third, "Older") is None
        assert 'aria-current="true">All' in first.text

    def test_tasks_are_found_by_text_state_and_agent(self, api, coordinator):
        forge, quill = coordinator.join("Forge"), coordinator.join("Quill")
        coordinator.post("100% of_it")
        worked(coordinator, "Fix the test", 50, agent=forge)
        worked(coordinator, "Translate", 60, agent=quill, succeeds=False)

        assert names(api.get("/swarm/tasks?q=fix THE")) == ["Fix the test"]
        assert names(api.get("/swarm/tasks?q=0%25 of_")) == ["100% of_it"]
        assert names(api.get("/swarm/tasks?q=1_0")) == []
        assert names(api.get("/swarm/tasks?state=failed")) == ["Translate"]
        assert names(api.get(f"/swarm/tasks?agent={forge.id}")) == ["Fix the test"]
        assert "Tasks of Forge" in api.get(f"/swarm/tasks?agent={forge.id}").text
        assert names(api.get("/swarm/tasks?state=nonsense&before=x")) == ["Translate", "Fix the test", "100% of_it"]
        assert "The glossary is missing." in api.get("/swarm/tasks").text

    def test_a_search_reads_the_newest_tasks_only_and_says_so(self, api, coordinator, monkeypatch):
        for number in range(5):
            coordinator.post(f"Task {number}")
        monkeypatch.setattr(store, "MAX_SEARCHED", 3)
        monkeypatch.setattr(pages, "MAX_SEARCHED", 3)

        found = api.get("/swarm/tasks?q=task")

        assert names(found) == ["Task 4", "Task 3", "Task 2"]
        assert "The newest 3 tasks were searched." in found.text
        assert "were searched" not in api.get("/swarm/tasks").text

    def test_an_empty_list_says_why(self, api):
        assert "No tasks yet" in api.get("/swarm/tasks").text
        assert "No tasks match" in api.get("/swarm/tasks?q=x").text
        assert "No agents yet" in api.get("/swarm/agents").text
        assert "No agents match" in api.get("/swarm/agents?state=left").text


class TestAgents:
    def test_all_agents_are_listed_with_their_work_and_figures(self, api, coordinator):
        forge = coordinator.join("Forge")
        coordinator.join("Quill")
        worked(coordinator, "Fix the test", 1250, agent=forge)

        page = api.get("/swarm/agents")

        assert names(page) == ["Quill", "Forge"]
        assert "1 completed, 0 failed" in page.text
        assert "1,250 sats" in page.text
        assert names(api.get("/swarm/agents?q=for")) == ["Forge"]
        assert names(api.get("/swarm/agents?state=busy")) == []

    @pytest.mark.parametrize("path", ["/swarm/tasks", "/swarm/agents"])
    def test_a_principal_without_all_types_of_the_swarm_is_refused(self, api, database, path):
        few = bearer(api.app, account.create_token(database, "few", ["read"], types=["task.*"]))

        assert few("GET", path).status_code == 403


class TestStories:
    def test_a_task_has_its_winner_price_result_bids_and_steps(self, api, coordinator):
        forge, quill = coordinator.join("Forge"), coordinator.join("Quill")
        task = coordinator.post("Fix the test")
        coordinator.bid(task.id, quill.id, 1400)
        coordinator.bid(task.id, forge.id, 1250)
        with freeze_time(datetime.now(UTC) + timedelta(minutes=5)):
            coordinator.close_auction(task.id)
            coordinator.start(task.id, forge.id)
            coordinator.complete(task.id, forge.id, {"files": 3})

        page = api.get(f"/swarm/tasks/{task.id}").text

        assert f'<dt>Winner</dt><dd><a href="/swarm/agents/{forge.id}">Forge</a>' in page
        assert "<dt>Price</dt><dd>1,250 sats</dd>" in page
        assert re.findall(r"<td>(won|lost)</td>", page) == ["won", "lost"]
        assert "&#34;files&#34;: 3" in page
        assert re.search(r"<dt>Duration</dt><dd>5 min \d s</dd>", page)
        assert re.findall(r"<li data-state=\"(\w+)\"><span>", page) == ["bidding", "assigned", "started"]

    def test_the_steps_of_a_task_fill_the_time_until_its_end(self, api, coordinator):
        with freeze_time(NOW) as frozen:
            agent, task = coordinator.join("Forge"), coordinator.post("Fix the test")
            coordinator.bid(task.id, agent.id, 50)
            frozen.tick(120)
            coordinator.close_auction(task.id)
            frozen.tick(60)
            coordinator.start(task.id, agent.id)
        with read_transaction(api.services.database) as view:
            found = pages.steps_of(view.task(task.id), NOW + timedelta(seconds=240))

        assert [(step.name, step.x, step.width, step.secs, step.is_open) for step in found] == [
            ("Open for bids", 0.0, 500.0, 120.0, False),
            ("Assigned", 500.0, 250.0, 60.0, False),
            ("In progress", 750.0, 250.0, 60.0, True),
        ]

    def test_a_step_is_not_negative_if_the_clock_was_set_back(self, api, coordinator):
        with freeze_time(NOW):
            task = coordinator.post("Fix the test")
        with read_transaction(api.services.database) as view:
            (step,) = pages.steps_of(view.task(task.id), NOW - timedelta(days=1))

        assert (step.secs, step.x, step.is_open) == (0.0, 0.0, True)

    def test_an_agent_has_its_figures_and_tasks_and_the_events_of_each(self, api, coordinator):
        forge = coordinator.join("Forge")
        done = worked(coordinator, "Fix the test", 1250, agent=forge)
        worked(coordinator, "Translate", 60, agent=forge, succeeds=False)

        page = api.get(f"/swarm/agents/{forge.id}").text

        assert re.findall(r"<dt>([\w ]+)</dt><dd>([\d,%]+)", page)[:5] == [
            ("Tasks won", "2"), ("Completed", "1"), ("Failed", "1"), ("Success rate", "50%"), ("Earned", "1,250"),
        ]  # fmt: skip
        assert f'href="/swarm/events?agent={forge.id}&amp;task={done.id}"' in page
        assert f'href="/swarm/tasks?agent={forge.id}">All tasks of Forge' in page
        assert "Last heard of" in page

    @pytest.mark.parametrize(
        ("secs", "text"), [(0.04, "0.0 s"), (59.96, "60.0 s"), (61, "1 min 1 s"), (7260, "2 h 1 min")]
    )
    def test_a_duration_is_short(self, secs, text):
        assert pages.elapsed(secs) == text


class TestNamesOfAgentsInTheLog:
    @pytest.fixture
    def forges(self, api, coordinator):
        """Two agents of one name, and one of another."""
        found = [coordinator.join(name) for name in ("Forge", "Forge", "Quill")]
        coordinator.leave(found[0].id)
        return found

    def ids(self, api, query):
        answer = api.get("/api/events", query_string={"q": query})
        return [event["agent_id"] for event in answer.json["events"] if event["event_type"] == "agent.joined"]

    def test_a_name_finds_all_its_agents_and_an_id_one(self, api, forges):
        first, second, quill = (agent.id for agent in forges)

        assert self.ids(api, "agent:Forge") == [second, first]
        assert self.ids(api, f"agent:{second}") == [second]
        assert self.ids(api, "-agent:Forge") == [quill]
        assert self.ids(api, f"agent:Quill agent:{first}") == [quill, first]
        assert self.ids(api, "agent:forge") == []

    def test_the_export_the_command_and_the_page_know_the_names(self, api, forges, outfeed):
        exported = api.get("/api/events/export?format=ndjson&q=agent:Quill+type:agent.joined").text
        assert [json.loads(line)["agent_id"] for line in exported.splitlines()] == [forges[2].id]
        listed = json.loads(outfeed("events", "--query", "agent:Quill", "--json").stdout)
        assert {event["agent_id"] for event in listed} == {forges[2].id}

        page = api.get("/swarm/events?q=agent:Forge").text
        assert "Agent <b>Forge</b> joined" in " ".join(page.split())
        assert "Quill" not in page

    def test_the_list_of_agents_beside_the_log_and_the_completion_have_names(self, api, forges):
        page = api.get("/swarm/events").text
        rows = re.findall(r'title="Only agent (\S+)".*?class="count">(\d+)<', page, re.DOTALL)
        assert rows == [("Forge", "3"), ("Quill", "1")]
        assert "/swarm/events?q=agent:Forge" in page

        values = api.get("/api/events/values?field=agent&prefix=Fo").json["values"]
        assert values == ["Forge"]

    def test_a_reader_of_some_types_gets_no_names(self, api, database, flask_app, forges):
        secret = account.create_token(database, "some", ["read"], types=["agent.*"])
        visit = bearer(flask_app, secret)

        assert visit("GET", "/api/events?q=agent:Forge").json["events"] == []
        assert visit("GET", "/api/events/values?field=agent&prefix=Fo").json["values"] == []
        assert f"Only agent {forges[2].id}" in visit("GET", "/swarm/events").text
