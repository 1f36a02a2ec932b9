"""The API reference's examples: they fit their schemas and really work."""

from __future__ import annotations

import html
import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from outfeed import manual
from outfeed.access.store import account
from outfeed.history import read_item
from outfeed.http.api import examples
from outfeed.store import database as db
from outfeed.webhooks.message import Message
from tests.app_fixtures import Api
from tests.server import Server
from tests.waits import wait_until

# No database contains the ids of the examples.
NOT_THERE = {404, 409}


def contents(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name, schema and example of each JSON request and response."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for name, holder in [("body", operation.get("requestBody", {})), *operation["responses"].items()]:
                if "application/json" in holder.get("content", {}):
                    yield f"{method} {path} {name}", holder["content"]["application/json"]


def test_every_request_and_answer_has_an_example_that_fits_its_schema(api: Api) -> None:
    document = api.get("/api/openapi.json").json
    found = dict(contents(document))
    assert len(found) > 30
    for name, content in found.items():
        schema = {**content["schema"], "components": document["components"]}
        assert jsonschema_rs.is_valid(schema, content["example"]), name


def test_the_page_shows_answers_groups_and_messages(api: Api) -> None:
    page = api.get("/api/docs").text
    for text in ("Events", "Consumers", "Gateways", "Swarm", "Server-sent events", "webhook-signature", "JavaScript"):
        assert text in page
    assert "&#34;verdict&#34;: &#34;resumed&#34;" in page


def calls_of(page: str, language: str) -> list[str]:
    found = re.findall(rf"<summary>{language}</summary><pre[^>]*>(.*?)</pre>", page, re.DOTALL)
    return [html.unescape(each) for each in found]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server")) as running:
        yield running


def run(server: Server, command: list[str]) -> str:
    token = account.create_token(db.at(server.database), f"examples-{secrets.token_hex(4)}", ["admin"])
    environment = {**os.environ, "OUTFEED_TOKEN": token, "NO_PROXY": "*"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def in_one_program(language: str, calls: list[str], folder: Path) -> list[str]:
    """Return the command that makes all *calls* of *language*.

    Each call prints the status of its response.
    """
    if language == "curl":
        lines = [f"{call} -sS -o /dev/null -w '%{{http_code}}\\n'" for call in calls]
        return ["bash", "-c", "\n".join(lines)]
    if language == "Python":
        return [sys.executable, "-c", "\n".join(calls)]
    program = folder / "calls.mjs"
    program.write_text("\n".join(f"{{\n{call}\n}}" for call in calls))
    return ["node", str(program)]


@pytest.mark.parametrize("language", examples.LANGUAGES)
def test_every_call_is_accepted_in_each_language(server: Server, language: str, tmp_path: Path) -> None:
    with server.http() as http:
        page = http.get("/api/docs").text
    # The stream never ends, and the epoch of the examples has no sent seq.
    left_out = re.compile("/api/feed/stream|/ack")
    calls = [call for call in calls_of(page, language) if not left_out.search(call)]
    printed = run(server, in_one_program(language, calls, tmp_path)).splitlines()
    statuses = [int(found[1]) for line in printed if (found := re.match(r"(\d{3})\b", line))]
    assert len(statuses) == len(calls) > 20
    refused = {call: status for call, status in zip(calls, statuses, strict=True) if status >= 400}
    assert set(refused.values()) <= NOT_THERE, json.dumps(refused, indent=1)


@pytest.mark.parametrize("language", examples.LANGUAGES)
def test_the_call_of_the_stream_prints_frames_as_they_arrive(server: Server, language: str, tmp_path: Path) -> None:
    with server.http() as http:
        page = http.get("/api/docs").text
    (call,) = [call for call in calls_of(page, language) if "/api/feed/stream" in call]
    command = ["bash", "-c", f"exec {call}"] if language == "curl" else in_one_program(language, [call], tmp_path)
    environment = {**os.environ, "OUTFEED_TOKEN": server.token, "NO_PROXY": "*"}
    printed = tmp_path / "printed"
    with printed.open("wb") as file, subprocess.Popen(command, env=environment, stdout=file) as program:
        try:
            wait_until(lambda: printed.read_text().startswith("event: subscribed\n"), "the first frame is printed")
        finally:
            program.kill()


def frames_of(topic: str, anchor: str) -> list[dict[str, Any]]:
    """Return the JSON lines of the examples under one heading of the docs."""
    (section,) = [each for each in manual.sections() if (each.topic, each.anchor) == (topic, anchor)]
    found = re.findall(r"^(?:data: )?({.*})$", section.text, re.MULTILINE)
    return [json.loads(line) for line in found]


def keys_of(value: Any) -> Any:
    """Return the keys of an object and of all objects in it."""
    return {key: keys_of(part) for key, part in value.items()} if isinstance(value, dict) else None


@pytest.fixture(scope="module")
def write_result(server: Server) -> Server:
    with server.http() as http:
        body = {"event_type": "task.created", "source": "docs", "data": {"description": "Write the docs"}}
        assert http.post("/api/events", json=body).status_code == 201
    return server


def test_the_documented_websocket_frames_have_the_fields_of_real_ones(write_result: Server) -> None:
    _, *documented = frames_of("websocket", "messages")
    with write_result.connect() as client:
        client.send(action="subscribe", channel="events", after=0, source="docs")
        real = [client.receive() for _ in documented]
    assert [keys_of(frame) for frame in documented] == [keys_of(frame) for frame in real]


def test_the_documented_stream_has_the_fields_of_a_real_one(write_result: Server) -> None:
    documented = frames_of("http", "server-sent-events")
    with write_result.http() as http, http.stream("GET", "/api/feed/stream?after=0&source=docs") as answer:
        lines = (line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: "))
        real = [json.loads(next(lines)) for _ in documented]
    assert [keys_of(frame) for frame in documented] == [keys_of(frame) for frame in real]


def test_the_documented_webhook_is_the_message_of_its_event() -> None:
    (documented,) = frames_of("webhooks", "messages")
    event = {name: value for name, value in documented["data"].items() if name != "seq"}
    item = read_item(documented["data"]["seq"], json.dumps(event).encode(), 0, 65536)
    assert json.loads(Message.of_event("epoch", item, {}).body) == documented
