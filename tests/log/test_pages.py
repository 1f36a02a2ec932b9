"""The log's pages and its export, for browsers without scripts."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import sqlite3
import sys
from contextlib import closing
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from freezegun import freeze_time

from outfeed.access.store import account
from outfeed.log.store import log_page, survey
from outfeed.log.store.log_filter import LogFilter
from outfeed.log.store.search import path_of
from outfeed.principal import EVERYTHING
from outfeed.store import audit
from outfeed.store import database as db
from outfeed.store.database import Database
from outfeed.store.event_log import log_event
from outfeed.swarm.part import SwarmPart
from tests.app_fixtures import Api
from tests.http.visitors import bearer

BOM = "\ufeff"
ODD_IDS = ["summary", "export", "/lead", "a\nb", "a/b", "a//b", "..", "a?b", "%2F", "ü x", "-", "."]


@pytest.fixture(autouse=True)
def closed(database: Database) -> Any:
    yield
    db.at(path_of(database.path)).close()


def write(count: int, **fields: Any) -> None:
    for number in range(1, count + 1):
        log_event(**{"event_type": "task.created", "source": "s", "id": f"e{number}", "data": {"n": number}} | fields)


def ids(answer: Any) -> list[str]:
    assert answer.status_code == 200
    return [html.unescape(found) for found in re.findall(r'data-id="([^"]*)"', answer.text)]


def links(answer: Any) -> dict[str, str]:
    """Return the addresses in the page by their texts."""
    found = re.findall(r'<a [^>]*?href="([^"]+)"[^>]*>(.*?)</a>', answer.text, re.DOTALL)
    return {" ".join(re.sub(r"<[^>]+>", " ", words).split()): html.unescape(href) for href, words in found}


def pills(answer: Any) -> list[str]:
    """Return the terms of the query in the bar."""
    return [html.unescape(found) for found in re.findall(r'data-term="([^"]*)"', answer.text)]


class TestTheLog:
    def test_filters_are_in_the_address_and_the_form(self, api: Api) -> None:
        log_event(
            "task.failed", "worker", "t1", "a1", {"reason": "timeout"}, id="hit", timestamp="2026-01-31T12:00:00Z"
        )
        log_event(
            "task.failed", "worker", "t1", "a1", {"reason": "timeout"}, id="late", timestamp="2026-01-31T13:00:00Z"
        )
        write(3)
        address = (
            "/swarm/events?type=task.*,x.y&source=worker&task=t1&agent=a1&text=%22timeout%22"
            "&from=2026-01-31T12:00&to=2026-01-31T12:30:00Z"
        )
        answer = api.get(address)
        assert ids(answer) == ["hit"]
        assert "<strong>1 event</strong>" in answer.text
        assert pills(answer) == ["type:task.*,x.y", "source:worker", "task:t1", "agent:a1", '"timeout"']
        for value in ("2026-01-31T12:00:00", "2026-01-31T12:30:00"):
            assert f'value="{value}"' in answer.text
        only = re.search('class="value" href="([^"]+)" title="Only type task.failed"', answer.text)
        assert only is not None
        assert ids(api.get(html.unescape(only[1]))) == ["hit"]
        assert ids(api.get(links(answer)["\N{MINUS SIGN} Exclude task.failed"])) == []
        assert json.loads(api.get(links(answer)["NDJSON"]).text)["id"] == "hit"

    def test_each_page_links_to_older_and_newer_ones(self, api: Api) -> None:
        write(120)
        first = api.get("/swarm/events?type=task.*")
        second = api.get(links(first)["Older →"])
        third = api.get(links(second)["Older →"])
        assert [len(ids(page)) for page in (first, second, third)] == [50, 50, 20]
        assert ids(first)[0], ids(third)[-1] == ("e120", "e1")
        assert "Older →" not in links(third)
        assert ids(api.get(links(third)["← Newer"])) == ids(second)
        write(1, id="fresh")
        back = api.get(links(second)["← Newer"])
        assert ids(back) == ids(first)
        assert api.get(links(back)["← Newer"]).headers["Location"] == "/swarm/events?q=type:task.*"

    def test_counts_show_that_they_stopped_at_the_limit(self, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(survey, "MAX_COUNTED", 3)
        write(3)
        assert "<strong>3 events</strong>" in api.get("/swarm/events").text
        write(1, id="fourth")
        assert "<strong>3+ events</strong>" in api.get("/swarm/events").text

    def test_a_page_without_a_match_links_to_older_events(self, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        write(1, id="deep", source="rare")
        write(100, agent_id="a")
        defaults = log_page.LogScan.__init__.__kwdefaults__
        monkeypatch.setattr(log_page.LogScan.__init__, "__kwdefaults__", {**defaults, "max_scanned": 60})
        monkeypatch.setattr(log_page, "UNINDEXED_CHUNK", 5)
        page = api.get("/swarm/events?from=2020-01-01&text=rare")
        assert ids(page) == []
        assert "No matches so far" in page.text
        while "Search further back →" in (onward := links(page)):
            page = api.get(onward["Search further back →"])
        assert ids(page) == ["deep"]

    @pytest.mark.parametrize(
        ("query", "said"),
        [
            ("from=yesterday", "&#34;yesterday&#34; isn&#39;t a date; that filter was ignored. Use 2026-01-31T12:00"),
            ("text=%00&type=%00", "No events match these filters"),
            ("type=*", "No events match these filters"),
            ("text=" + quote('"AND (NEAR'), "No events match these filters"),
            ("cursor=x", "The log is empty"),
            ("taskid=nope&x=y", "Unknown filters were ignored: taskid, x"),
            ("source=a&source=b", "No events match these filters"),
            ("from=yesterday&_external=1&endpoint=x", "Unknown filters were ignored: _external, endpoint"),
            ("q=tpye:a", "Unknown filter tpye. Did you mean type?"),
            ("q=" + "x " * 3000, "A query has at most 4,000 characters."),
            ("text=" + "x%20" * 40, "The search has 40 words and phrases; at most 32 are allowed."),
            ("q=a*", "The search a* is too short; give 2 characters."),
            ("at=tomorrow", "&#34;tomorrow&#34; isn&#39;t a date."),
            ("around=unknown", "Event unknown not found."),
            ("newer=99999999999999999999", "The log is empty"),
        ],
    )
    def test_every_query_returns_200(self, api: Api, query: str, said: str) -> None:
        answer = api.get(f"/swarm/events?{query}")
        assert answer.status_code == 200
        assert said in answer.text

    @pytest.mark.parametrize(
        ("asked", "location"),
        [
            ("task_id=t%201&live=1", "task=t+1&live=1"),
            ("event_type=a.b&event_type=c.*", "type=a.b&type=c.%2A"),
            ("agent_id=a&source=s&_external=1", "agent=a&source=s&_external=1"),
        ],
    )
    def test_the_names_of_the_api_redirect_to_the_same_filter(self, api: Api, asked: str, location: str) -> None:
        answer = api.get(f"/swarm/events?{asked}")
        assert (answer.status_code, answer.location) == (302, f"/swarm/events?{location}")

    def test_types_may_be_given_several_times(self, api: Api) -> None:
        for id_ in ("a.one", "b.two", "c.three"):
            write(1, id=id_, event_type=id_)
        assert ids(api.get("/swarm/events?type=a.one&type=c.*")) == ["c.three", "a.one"]

    def test_negative_rowids_are_paged_like_all_others(self, api: Api, database: Database) -> None:
        with closing(sqlite3.connect(database.path)) as raw, raw:
            for rowid in (2, 1, 0, -2):
                raw.execute(
                    "INSERT INTO event_log (rowid, id, event_type, source, timestamp) VALUES (?, ?, 'a.b', 's', ?)",
                    (rowid, f"r{rowid}", "2026-01-15T10:30:00.000Z"),
                )
        found, query = [], ""
        while query is not None:
            answer = api.get(f"/api/events?limit=1{query}")
            assert answer.status_code == 200, answer.json
            found += [event["id"] for event in answer.json["events"]]
            query = None if answer.json["next"] is None else f"&cursor={answer.json['next']}"
            assert len(found) < 6
        assert found == ["r2", "r1", "r0", "r-2"]
        assert ids(api.get("/swarm/events?cursor=0")) == ["r-2"]
        assert ids(api.get("/swarm/events?cursor=-1")) == ["r-2"]

    def test_the_rows_of_each_day_stand_below_it(self, api: Api) -> None:
        for timestamp in ("2025-12-31T23:59:59Z", "2026-01-01T01:30:00+01:00", "2026-03-04T05:06:07Z"):
            write(1, id=timestamp, timestamp=timestamp)
        with freeze_time("2026-03-04T23:00:00Z"):
            page = api.get("/swarm/events").text
        rows = page[page.index('id="rows"') :]
        assert re.findall(r"<time [^>]+>([^<]+)", rows) == ["05:06:07", "00:30:00", "23:59:59"]
        assert re.findall(r'class="day">([^<]+)', rows) == [
            "Today", "Thursday 1 January 2026", "Wednesday 31 December 2025"
        ]  # fmt: skip

    def test_invisible_events_are_neither_counted_nor_found(self, api: Api, database: Database) -> None:
        write(2)
        log_event("agent.joined", "s", data={"name": "hidden"})
        tasks = bearer(api.app, account.create_token(database, "few", ["read"], types=["task.*"]))
        page = tasks("GET", "/swarm/events")
        assert ids(page) == ["e2", "e1"]
        assert "<strong>2 events</strong>" in page.text
        assert ids(tasks("GET", "/swarm/events?text=hidden")) == []
        assert tasks("GET", "/api/events/export?text=hidden").text == ""


class TestPlaces:
    """Places in the log: a count, a moment, an event, a period."""

    def test_a_page_tells_which_of_the_matches_it_shows(self, api: Api) -> None:
        write(120)
        first = api.get("/swarm/events?q=type:task.*")
        assert "1\N{EN DASH}50 of 120" in first.text
        second = api.get(links(first)["Older \N{RIGHTWARDS ARROW}"])
        assert "51\N{EN DASH}100 of 120" in second.text

    def test_the_values_and_the_chart_name_the_matches_that_they_cover(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(survey, "MAX_LOOKED_AT", 40)
        write(60)
        page = api.get("/swarm/events").text
        assert "Of the newest 40 matches" in page
        assert "newest 40</span>" in page
        assert "<strong>60 events</strong>" in page
        assert sum(map(int, re.findall(r'data-count="(\d+)"', page))) == 40

    def test_a_moment_begins_the_page_with_its_newest_event(self, api: Api) -> None:
        for minute in range(10):
            write(1, id=f"m{minute}", timestamp=f"2026-01-31T12:0{minute}:00Z", source="ab"[minute % 2])
        assert ids(api.get("/swarm/events?at=2026-01-31T12:05:30"))[0] == "m5"
        assert ids(api.get("/swarm/events?at=2026-01-31T12:05:30&q=source:a"))[0] == "m4"
        early = api.get("/swarm/events?at=2026-01-01T00:00")
        assert ids(early) == []
        assert "All events that match are newer." in early.text

    def test_an_event_is_shown_among_its_neighbours(self, api: Api) -> None:
        write(150)
        page = api.get("/swarm/events?around=e60")
        assert ids(page) == [f"e{number}" for number in range(85, 34, -1)]
        assert 'data-here="e60"' in page.text
        assert ids(api.get(links(page)["Older \N{RIGHTWARDS ARROW}"]))[0] == "e34"
        assert ids(api.get(links(page)["\N{LEFTWARDS ARROW} Newer"]))[-1] == "e86"
        row = links(api.get("/swarm/events?q=e7"))
        assert row["Around this event"] == "/swarm/events?around=e7"

    def test_a_period_of_the_chart_is_a_link(self, api: Api) -> None:
        for minute in range(10):
            write(1, id=f"m{minute}", timestamp=f"2026-01-31T12:0{minute}:00Z", event_type="job.failed")
        page = api.get("/swarm/events").text
        assert 'aria-label="10 matches, at most 1 per 10 s"' in page
        assert page.count('class="count failed"') == 10
        [link] = re.findall(r'<li><a href="([^"]+)"><time datetime="2026-01-31T12:03:00', page)
        assert ids(api.get(html.unescape(link))) == ["m3"]

    def test_the_data_stands_beside_the_sentence_on_demand(self, api: Api) -> None:
        write(1)
        page = api.get("/swarm/events")
        assert 'class="match"' not in page.text
        assert "{&#34;n&#34;: 1}</span>" in api.get(links(page)["Data column"]).text


class TestOneEvent:
    @pytest.mark.parametrize("event_id", ODD_IDS)
    def test_each_row_links_to_the_events_page_and_json(self, api: Api, event_id: str) -> None:
        log_event("a.b", "s", data={"text": "<b>bold</b>"}, id=event_id)
        row = api.get("/swarm/events")
        page = api.get(links(row)[" ".join(event_id.split())])
        assert page.status_code == 200
        assert "&lt;b&gt;bold&lt;/b&gt;" in page.text
        found = api.get(links(page)["This event as JSON"]).json
        assert found.get("id") == event_id or [event["id"] for event in found["events"]] == [event_id]
        assert api.get("/api/events", query_string={"id": event_id}).json["events"][0]["id"] == event_id

    def test_an_unknown_id_is_an_empty_list_and_a_404_page(self, api: Api) -> None:
        assert api.get("/api/events?id=nobody").json == {"events": [], "next": None}
        assert api.get("/swarm/events/nobody").status_code == api.get("/swarm/events?id=nobody").status_code == 404

    def test_an_event_has_neighbours_in_the_log_its_task_and_its_agent(self, api: Api) -> None:
        for number, (task, agent) in enumerate(
            [("t1", "a1"), ("t2", "a1"), ("t1", "a2"), ("t2", "a2"), ("t1", "a1")], 1
        ):
            log_event("a.b", "s", task, agent, id=f"e{number}")
        page = api.get("/swarm/events/e3").text
        assert re.findall(r'rel="(next|prev)" href="/swarm/events/(e\d)"', page) == [
            ("prev", "e2"), ("next", "e4"), ("prev", "e1"), ("next", "e5"), ("next", "e4"),
        ]  # fmt: skip

    def test_an_event_without_a_task_has_no_neighbours_of_a_task(self, api: Api) -> None:
        log_event("a.b", "s", task_id="t1", id="one")
        write(2)
        page = api.get("/swarm/events/one").text
        assert re.findall("<h2>(All events|This .*)</h2>", page) == ["All events", "This task"]

    def test_the_page_has_the_place_the_links_and_the_call_of_the_event(self, api: Api, database: Database) -> None:
        log_event("a.b", "s", data={"n": 1}, id="one")
        page = api.get("/swarm/events/one").text
        assert "<dt>Seq</dt><dd>1</dd>" in page
        assert 'data-copy="http://localhost/swarm/events/one"' in page
        assert "$OUTFEED_TOKEN&#34; http://localhost/api/events/one" in page
        with closing(sqlite3.connect(database.path)) as raw, raw:
            raw.execute("DELETE FROM outbox")
        assert "no longer in the feed" in api.get("/swarm/events/one").text

    def test_each_value_of_the_data_links_to_the_log_filtered_by_it(self, api: Api) -> None:
        log_event("a.b", "s", data={"customer": {"name": "ACME & Co"}, "tags": []}, id="one")
        page = api.get("/swarm/events/one").text
        (href,) = re.findall(r'class="only" href="([^"]+)"', page)
        assert parse_qs(urlsplit(html.unescape(href)).query) == {"q": ['data.customer.name:"ACME & Co"']}
        assert "{1}" in page

    def test_the_event_of_a_watched_row_shows_what_changed(self, api: Api) -> None:
        data = {"op": "update", "table": "t", "key": {"id": 7}, "was": {"s": "open"}, "row": {"id": 7, "s": "<paid>"}}
        log_event("t.updated", "t", data=data, id="one")
        page = api.get("/swarm/events/one").text
        assert "<del>open</del>" in page
        assert "<ins>&lt;paid&gt;</ins>" in page
        assert "Updated row of <code>t</code>" in page

    def test_large_data_is_cut(self, api: Api) -> None:
        log_event("a.b", "s", data=["x" * 60_000] * 1, id="large")
        assert len(api.get("/swarm/events/large").text) < 100_000


class TestStories:
    def test_a_tasks_story_is_in_order_with_the_coordinators_state(self, api: Api) -> None:
        coordinator = api.services.part(SwarmPart).coordinator
        agent = coordinator.join("Forge")
        task = coordinator.post("Write the docs")
        coordinator.bid(task.id, agent.id, 50)
        page = api.get(f"/swarm/tasks/{task.id}").text
        assert "Write the docs" in page
        assert 'data-state="bidding"' in page
        assert re.findall(r"<dt>event_type</dt><dd><a [^>]+>([^<]+)", page) == [
            "task.created", "task.bidding", "bid.submitted"
        ]  # fmt: skip
        assert page.count('class="after"') == 2
        assert "<h1>Write the docs</h1>" in page
        assert "Forge" in api.get(f"/swarm/agents/{agent.id}").text

    def test_a_task_of_any_writer_has_a_story(self, api: Api) -> None:
        write(3, task_id="mine", timestamp="2026-01-31T12:00:00Z")
        write(1, task_id="mine", id="x", timestamp="2026-01-31T13:30:00Z")
        page = api.get("/swarm/tasks/mine")
        assert ids(page) == ["e1", "e2", "e3", "x"]
        assert "+90 min" in page.text

    def test_a_task_known_only_from_its_events_is_named_by_them(self, api: Api) -> None:
        log_event("task.created", "s", task_id="mine", data={"description": "Buy milk"})
        log_event("agent.joined", "s", agent_id="a1", data={"name": 5})
        assert "<h1>Buy milk</h1>" in api.get("/swarm/tasks/mine").text
        assert "<h1>Agent <code>a1</code></h1>" in api.get("/swarm/agents/a1").text

    def test_a_long_story_links_to_the_log(self, api: Api) -> None:
        write(205, agent_id="a1")
        page = api.get("/swarm/agents/a1")
        assert (ids(page)[0], ids(page)[-1]) == ("e6", "e205")
        assert links(page)["Show earlier events"] == "/swarm/events?agent=a1"

    def test_a_principal_without_swarm_types_sees_no_state_of_a_task(self, api: Api, database: Database) -> None:
        task = api.services.part(SwarmPart).coordinator.post("Write the docs")
        few = bearer(api.app, account.create_token(database, "few", ["read"], types=["task.bidding"]))
        page = few("GET", f"/swarm/tasks/{task.id}").text
        assert "task.bidding" in page
        assert "data-state" not in page
        assert few("GET", "/swarm/tasks/nobody").status_code == 404


class TestExport:
    def test_csv_and_ndjson_contain_the_matches_newest_first(self, api: Api) -> None:
        write(450)
        write(3, source="other", id=None)
        lines = api.get("/api/events/export?source=s")
        assert lines.content_type == "application/x-ndjson; charset=utf-8"
        assert [json.loads(line)["data"]["n"] for line in lines.text.splitlines()] == list(range(450, 0, -1))
        table = api.get("/api/events/export?source=s&format=csv")
        assert table.data.startswith(b"\xef\xbb\xbfid,")  # otherwise Excel guesses the encoding
        assert table.headers["Content-Disposition"] == 'attachment; filename="events.csv"'
        rows = list(csv.DictReader(io.StringIO(table.text.removeprefix(BOM))))
        assert [json.loads(row["data"])["n"] for row in rows] == list(range(450, 0, -1))
        assert {row["event_type"] for row in rows} == {"task.created"}

    @pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "  =1", "\uff1d1"])
    def test_no_cell_is_a_formula(self, api: Api, text: str) -> None:
        log_event("a.b", text, id="x", data=-1)
        (row,) = csv.DictReader(
            io.StringIO(api.get("/api/events/export?format=csv").text.removeprefix(BOM), newline="")
        )
        assert (row["source"], row["data"]) == ("'" + text, "'-1")
        assert json.loads(api.get("/api/events/export").text)["source"] == text

    @pytest.mark.parametrize("separator", [";", "\t", "|"])
    @pytest.mark.parametrize("text", ["x{};=1+1;y", "x{} =1+1", "x{}-1", "x\n=1+1{}", "x{}\uff1d1", "x{}@SUM(A1)"])
    def test_no_cell_is_a_formula_with_another_separator(self, api: Api, separator: str, text: str) -> None:
        text = text.format(separator)
        log_event("a.b", text, id="x", task_id="t", data=[text])
        table = api.get("/api/events/export?format=csv").text.removeprefix(BOM)

        cells = [cell for line in table.splitlines() for cell in line.split(separator)]

        assert not [cell for cell in cells if cell.lstrip(' "').startswith(("=", "+", "-", "@", "\uff1d"))]
        assert json.loads(api.get("/api/events/export").text)["source"] == text

    def test_an_export_is_redacted(self, api: Api, database: Database) -> None:
        with closing(sqlite3.connect(database.path)) as raw, raw:
            raw.execute(
                "INSERT INTO event_log VALUES ('x', 'a.b', 's', NULL, NULL, '{\"password\": \"hunter2\"}', 't')"
            )
        for form in ("csv", "ndjson"):
            text = api.get(f"/api/events/export?format={form}").text
            assert "[redacted]" in text
            assert "hunter2" not in text

    def test_an_export_keeps_no_read_open_and_ends_when_its_token_is_revoked(
        self, api: Api, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys.modules["outfeed.log.export"], "EVENTS_A_PIECE", 10)
        write(50)
        pieces = api.get("/api/events/export").iter_encoded()
        assert next(pieces) == b""
        assert next(pieces).count(b"\n") == 10
        with closing(sqlite3.connect(database.path, timeout=0)) as raw:
            write(1, id="meanwhile")
            busy, frames, done = raw.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
            assert (busy, frames) == (0, done)
        account.revoke_token(database, "tests")
        with pytest.raises(ConnectionResetError):
            b"".join(pieces)

    def test_an_invalid_query_gets_an_error_with_the_field(self, api: Api) -> None:
        for query in ("format=xml", "from=yesterday", "limit=5"):
            answer = api.get(f"/api/events/export?{query}")
            assert answer.status_code == 422
            assert query.partition("=")[0] in answer.json["detail"]


def test_the_api_filters_by_text_and_time(api: Api) -> None:
    log_event("a.b", "s", data="timeout", id="old", timestamp="2026-01-31T12:00:00Z")
    log_event("a.b", "s", data="timeout", id="new", timestamp="2026-01-31T12:00:01Z")
    write(3)

    def found(**query: str) -> list[str]:
        return [event["id"] for event in api.get("/api/events", query_string=query).json["events"]]

    assert found(text="timeout") == ["new", "old"]
    assert found(text="timeout", to="2026-01-31T12:00:01Z") == ["old"]
    assert found(to="2026-01-31T13:00:01+01:00", **{"from": "2026-01-31T12:00:00"}) == ["old"]


def test_the_api_returns_the_part_that_matches_a_text(api: Api) -> None:
    data = {"password": "hunter2", "message": "重跑gen-itgc后50条"}
    api.post("/api/events", json={"event_type": "job.done", "source": "s", "id": "a", "data": data})
    answer = api.get("/api/events", query_string={"text": "itgc -other"})
    [event] = answer.json["events"]
    assert event["match"] == {"text": "message: 重跑gen-itgc后50条", "marks": [[15, 19]]}
    assert api.get("/api/events", query_string={"text": "hunter2"}).json["events"] == []
    assert "match" not in api.get("/api/events").json["events"][0]
    assert "match" not in api.get("/api/events", query_string={"text": "-other"}).json["events"][0]


def test_the_page_marks_only_the_matches(api: Api) -> None:
    data = {"message": "<mark>not ours</mark> NullPointerException"}
    api.post("/api/events", json={"event_type": "job.done", "source": "s", "data": data})
    page = api.get("/swarm/events", query_string={"text": "exception"}).text
    assert "message: &lt;mark&gt;not ours&lt;/mark&gt; NullPointer<mark>Exception</mark></span>" in page
    assert "<mark>" not in api.get("/swarm/events").text


def test_an_operator_sees_the_number_of_audit_events(api: Api, database: Database) -> None:
    operator = bearer(api.app, account.create_token(database, "ops", ["admin"]))
    write(2)
    with database.transaction() as connection:
        audit.record(connection, "access.signed_in", "tests", name="ann")
    audit_count = survey.take(database, LogFilter(EVERYTHING))[0].total - 2
    shown = "1 audit event" if audit_count == 1 else f"{audit_count} audit events"
    assert f"{shown}</span>" in operator("GET", "/swarm/events").text
    assert " audit event" not in api.get("/swarm/events").text
    assert "(with audit events)" in operator("GET", "/swarm/live").text
    assert "(with audit events)" not in api.get("/swarm/live").text


@pytest.mark.parametrize("timestamp", ["2026-01-31 12:30:00", "2026-01-31T14:30:00+02:00", "20260131T123000Z"])
def test_a_raw_timestamp_counts_as_its_instant_over_http_and_on_the_page(
    api: Api, database: Database, timestamp: str
) -> None:
    with database.transaction() as connection:
        connection.execute(
            "INSERT INTO event_log (id, event_type, source, timestamp) VALUES ('r', 'job.done', 'cron', ?)",
            (timestamp,),
        )
    for path in ("/api/events", "/api/events/export", "/swarm/events"):
        for query, is_there in (
            ({"from": "2026-01-31T12:30:00Z"}, True),
            ({"from": "2026-01-31T12:30:00.001Z"}, False),
            ({"to": "2026-01-31T12:30:00Z"}, False),
            ({"to": "2026-01-31T12:30:00.001Z"}, True),
        ):
            assert ("cron" in api.get(path, query_string=query).text) == is_there, (path, query)
    with freeze_time("2026-01-31T13:00:00Z"):
        assert api.get("/api/events/summary").json["summary"] == {"job.done": 1}


def test_a_time_keeps_its_fraction_from_page_to_page(api: Api) -> None:
    for second in (0, 1):
        write(60, id=None, timestamp=f"2026-01-31T12:00:0{second}.400Z")
    page = api.get("/swarm/events?from=2026-01-31T12:00:00.500Z")
    assert "60 events" in page.text
    assert "since:2026-01-31T12:00:00.500Z" in links(page)["Older \u2192"].replace("%3A", ":")
