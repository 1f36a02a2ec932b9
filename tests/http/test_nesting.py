"""Data nested more deeply than Outfeed writes: readers show it as text."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest
from click.testing import CliRunner

from outfeed import list_events
from outfeed.cli import main
from outfeed.config import Settings
from outfeed.http.app import create_app
from outfeed.log.store.indexer import Indexer
from tests.http.visitors import bearer, tokens

DEPTHS = [65, 254, 255, 970, 990, 2000]


def deep(depth):
    return '{"a":' * (depth - 1) + '{"needle":1}' + "}" * (depth - 1)


@pytest.fixture
def data(request, database):
    text = deep(request.param)
    with closing(sqlite3.connect(database.path)) as raw, raw:
        raw.execute(
            "INSERT INTO event_log (id, event_type, source, task_id, agent_id, data, timestamp)"
            " VALUES ('deep', 'task.created', 's', 'task-1', 'agent-1', ?, '2026-01-15T10:00:00.000Z')",
            (text,),
        )
    return text


@pytest.fixture
def visit(database):
    app = create_app(Settings(database=database.path))
    client = bearer(app, tokens(database)["admin"])

    def called_from_a_deep_stack(path, levels=300):
        if levels:
            return called_from_a_deep_stack(path, levels - 1)
        answer = client("GET", path)
        assert answer.status_code == 200, path
        return answer

    yield called_from_a_deep_stack
    app.extensions["outfeed"].database.close()


@pytest.mark.parametrize("data", DEPTHS, indirect=True)
class TestEachReader:
    @pytest.mark.parametrize(
        "path",
        [
            "/swarm/live",
            "/swarm/events",
            "/swarm/events?text=needle",
            "/swarm/events/deep",
            "/swarm/tasks/task-1",
            "/swarm/agents/agent-1",
            "/api/events/export?format=csv",
        ],
    )
    def test_a_page_shows_nested_data_as_text(self, visit, data, path):
        assert "New task" in visit(path).text or "deep,task.created" in visit(path).text

    @pytest.mark.parametrize(
        "path", ["/api/events", "/api/events?id=deep", "/api/events?text=needle", "/api/feed?after=0"]
    )
    def test_the_api_and_the_feed_return_nested_data_as_text(self, visit, data, path):
        (event,) = visit(path).json["events"][-1:]

        assert (event["id"], event["data"]) == ("deep", data)

    def test_an_export_contains_nested_data_as_text(self, visit, data):
        assert json.loads(visit("/api/events/export").text)["data"] == data

    def test_the_search_index_contains_the_words_of_nested_data(self, database, visit, data):
        Indexer(database).run()

        assert [event.id for event in list_events(text="needle")] == ["deep"]

    @pytest.mark.parametrize("arguments", [["events"], ["events", "--json"], ["events", "--text", "needle"]])
    def test_a_command_prints_nested_data(self, database, data, arguments):
        done = CliRunner().invoke(main, arguments)

        assert done.exit_code == 0
        assert "needle" in done.output or "task" in done.output
