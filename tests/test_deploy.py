"""The deployment files, checked as far as possible without a machine."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from outfeed import config
from outfeed.http.server.worker import KEEPALIVE_SECS
from outfeed.store.database import Database
from tests.server import Server

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "scripts" / "deploy"
FILES = {file.name: file.read_text() for file in DEPLOY.iterdir()}


@pytest.mark.parametrize("name", FILES)
def test_every_setting_that_the_files_name_exists(name: str) -> None:
    named = set(re.findall(r"OUTFEED_[A-Z_]+", FILES[name]))
    assert named <= set(config.known_names())


@pytest.mark.parametrize("name", FILES)
def test_the_readme_names_the_files(name: str) -> None:
    assert f"`scripts/deploy/{name}`" in (ROOT / "README.md").read_text()


def test_the_proxy_closes_idle_connections_first() -> None:
    (kept,) = re.findall(r"keepalive (\d+)s", FILES["Caddyfile"])
    assert int(kept) < KEEPALIVE_SECS


def test_the_unit_is_notified_when_the_server_is_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(15)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with Server(tmp_path) as server:
            assert b"READY=1" in manager.recv(1000)
            assert httpx.get(f"{server.url}/healthz", verify=False).status_code == 200


def test_the_image_runs_as_an_unprivileged_user_and_has_a_health_check() -> None:
    lines = re.sub(r"\\\n", " ", FILES["Dockerfile"]).splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    last = dict(steps)
    assert last["USER"] == "10001"
    assert "/readyz" in last["HEALTHCHECK"]
    assert last["CMD"] == '["outfeed", "serve"]'
    for name, value in steps:
        if name == "COPY" and not value.startswith("--from"):
            assert all((ROOT / source).exists() for source in value.split()[:-1]), value


def test_the_health_check_bypasses_a_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (check,) = re.findall(r"HEALTHCHECK .*?CMD (\[.*?\])\n", FILES["Dockerfile"], re.DOTALL)
    program, option, code = json.loads(check)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with Server(tmp_path) as server:
        code = code.replace("http://127.0.0.1:8000", server.url)
        subprocess.run([sys.executable, option, code], check=True, timeout=30)
    assert program == "python"
    assert subprocess.run([sys.executable, option, code], check=False, capture_output=True).returncode != 0


@pytest.mark.parametrize("line", [line for line in FILES["outfeed.cron"].splitlines() if line[:1].isdigit()])
def test_a_line_of_cron_runs_and_prints_nothing(line: str, database: Database) -> None:
    *when, user, command = line.split(maxsplit=6)
    assert (len(when), user) == (5, "outfeed")
    assert command.startswith("cd /var/lib/outfeed && "), "the .env that the unit reads is in this folder"
    program = shlex.join([sys.executable, "-m", "outfeed"])
    command = command.replace("/opt/outfeed/.venv/bin/outfeed", program)
    command = re.sub(r"/opt/outfeed/(\S+)", lambda found: shlex.join([sys.executable, str(ROOT / found[1])]), command)
    command = command.replace("/var/lib/outfeed", shlex.quote(str(database.path.parent)))
    done = subprocess.run(
        command, shell=True, check=False, capture_output=True, text=True, env=os.environ | {"OUTFEED_LOG_LEVEL": "info"}
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
