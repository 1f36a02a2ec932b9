"""Programs of others: MCP's conformance suite and inspector.

scripts/test installs them with npm into .venv/mcp-peers.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.proxy import Proxy
from tests.server import Server

PEERS = Path(__file__).parents[2] / ".venv" / "mcp-peers" / "node_modules"
CONFORMANCE = PEERS / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
INSPECTOR = PEERS / "@modelcontextprotocol" / "inspector" / "clients" / "launcher" / "build" / "index.js"
# The other scenarios call tools and prompts of the suite's own example server, or test optional parts.
SCENARIOS = (
    "server-initialize", "server-session-lifecycle", "server-stateless", "ping", "tools-list", "resources-list",
    "sep-2164-resource-not-found", "dns-rebinding-protection", "caching", "http-header-validation",
    "input-required-result-unsupported-methods", "input-required-result-ignore-extra-params",
)  # fmt: skip
NO_PROMPTS = "sep-2549-prompts-list-caching-hints"  # this server has no prompts


@pytest.fixture(scope="module")
def node() -> str:
    """A Node.js that is new enough: the machine's, or the one of npm.

    Without the programs the tests are skipped, but fail in CI.
    """
    if not CONFORMANCE.exists() or not INSPECTOR.exists():
        if os.environ.get("CI"):
            pytest.fail("scripts/test has not installed .venv/mcp-peers")
        pytest.skip("scripts/test installs the programs into .venv/mcp-peers")
    packed = next(PEERS.glob("node-linux-*/bin/node"), None)
    found = str(packed) if packed else shutil.which("node")
    assert found
    return found


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("peers")) as server:
        server.log_event("task.created", "s", {"n": 1})
        yield server


def test_the_conformance_suite_finds_no_breach_in_what_this_server_has(
    running: Server, node: str, tmp_path: Path
) -> None:
    with Proxy(running) as proxy:  # the suite sends no token
        command = [node, str(CONFORMANCE), "server", "--url", f"{proxy.url}/mcp", "--suite", "all", "-o", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)

    checks = {scenario: found for scenario in SCENARIOS for found in [_checks(tmp_path, scenario)]}
    failed = [
        (scenario, check["id"], check.get("errorMessage"))
        for scenario, found in checks.items()
        for check in found
        if check["status"] == "FAILURE" and not str(check.get("errorMessage")).startswith("Not testable")
    ]
    assert [each for each in failed if each[1] != NO_PROMPTS] == [], done.stdout[-3000:]
    assert sum(check["status"] == "SUCCESS" for found in checks.values() for check in found) >= 55
    invalid = [path for path in tmp_path.glob("*/checks.json") if _has_invalid_message(path)]
    assert invalid == [], "each message has the shape of its revision"


def _checks(folder: Path, scenario: str) -> list[dict[str, Any]]:
    (path,) = (each for each in folder.glob(f"server-{scenario}-*") if re.search(r"-\d{4}-\d\d-\d\dT", each.name))
    found: list[dict[str, Any]] = json.loads((path / "checks.json").read_text())
    return found


def _has_invalid_message(path: Path) -> bool:
    found = json.loads(path.read_text())
    return any(each["id"] == "wire-schema-valid" and each["status"] == "FAILURE" for each in found)


class TestTheInspector:
    @pytest.fixture
    def inspect(self, running: Server, node: str, tmp_path: Path) -> Any:
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}

        def run(*arguments: str) -> Any:
            command = [node, str(INSPECTOR), "--cli", *arguments]
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=100, check=False, cwd=tmp_path
            )
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        return run

    def test_it_calls_a_tool_over_http(self, running: Server, inspect: Any) -> None:
        header = f"Authorization: Bearer {running.token}"
        found = inspect(
            f"{running.url}/mcp", "--transport", "http", "--header", header,
            "--method", "tools/call", "--tool-name", "log_event", "--tool-arg", "event_type=a.b", "id=inspected",
        )  # fmt: skip
        assert (found["isError"], found["structuredContent"]["id"]) == (False, "inspected")

    def test_it_lists_the_tools_over_stdio(self, running: Server, inspect: Any) -> None:
        found = inspect(
            "-e", f"OUTFEED_URL={running.url}", "-e", f"OUTFEED_TOKEN={running.token}",
            "--method", "tools/list", "--", sys.executable, "-m", "outfeed", "mcp",
        )  # fmt: skip
        assert found["tools"][0]["name"] == "search_events"
