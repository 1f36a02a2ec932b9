"""The documentation's examples run against a real server.

They run page by page; those of the README run, too. The words after a block's language say how it runs. `no-run`: the
block is not run, and NOT_RUN lists it. `endless`: it runs until it has printed a line. A file's name: the block is
saved there, for a later block. HTML is opened by tests/journeys/test_docs_html.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from outfeed import manual
from outfeed.store import adoption
from tests import commands
from tests.server import ROOT, Server

PAGES = {"README": ROOT / "README.md", **{topic: manual.FOLDER / f"{topic}.md" for topic in manual.topics()}}
SECONDS = 60
ENDED = "all-examples-ran"
# For each page the first line of each block that cannot run here: it installs, serves permanently, or needs another
# machine.
NOT_RUN = {
    "README": ["scripts/serve --demo", "scripts/serve --demo    # a server with a simulated swarm"],
    "tutorial": ["python3 -m venv .venv", "outfeed serve"],
    "embed": ['<script type="module" src="https://feed.example.com/static/event-feed.js"></script>'],
    "otlp": ["outfeed serve", 'eval "$(outfeed connect claude-code)"'],
    "webhooks": [
        "outfeed webhook test ops",
        "echo OUTFEED_WEBHOOK_ALLOW=127.0.0.1 >>.env",
        "outfeed webhook add local http://127.0.0.1:9000/ >secret",
    ],
    "targets": ["$EDITOR mail.txt    # lines like password=…"],
    "adopt": ["def include_name(name, type_, parent_names):"],
    "deploy": [
        "apt-get install python3-venv",
        "docker build -t outfeed -f scripts/deploy/Dockerfile .",
        "cp /opt/outfeed/scripts/deploy/Caddyfile /etc/caddy/Caddyfile",
        "outfeed token create prometheus --scopes read   # on the server",
    ],
    "hosts": [
        "scripts/serve --demo --edges 2",
        "apt-get install redis-server",
        "/opt/outfeed/.venv/bin/pip install '/opt/outfeed[edge]'",
        "cp /opt/outfeed/scripts/deploy/outfeed-edge.service /etc/systemd/system/",
        "cp /opt/outfeed/scripts/deploy/Caddyfile.edges /etc/caddy/Caddyfile",
        "litestream restore -o /var/lib/outfeed/copy.db s3://my-bucket/outfeed",
    ],
    "commands": ['eval "$(_OUTFEED_COMPLETE=bash_source outfeed)"    # ~/.bashrc'],
    "watch": [
        "export OUTFEED_DATABASE=db.sqlite3",
        "outfeed webhook add shop https://hooks.example.com/orders --types order.paid",
        "import os",
    ],
    "mcp": [
        "claude mcp add --transport http outfeed http://127.0.0.1:8000/mcp \\",
        "export OUTFEED_TOKEN",
        'gemini mcp add --scope user --transport http --header "Authorization: Bearer $OUTFEED_TOKEN" \\',
        "claude mcp add outfeed --env OUTFEED_URL=https://feed.example \\",
    ],
    "upgrade": ["systemctl stop outfeed"],
    "performance": ["scripts/bench"],
}
LANGUAGES = {"sh", "python", "sql", "html", "json", "text", "toml"}
# Events that an endless example may wait for are written until it has printed a line.
PRELUDE = """
set -euo pipefail
until_it_prints() {
  "$@" >printed &
  local pid=$!
  for _ in $(seq 100); do
    [ ! -s printed ] || break
    for type in order.paid task.failed; do
      curl -sS -o posted -H "Authorization: Bearer $OUTFEED_TOKEN" -H 'Content-Type: application/json' \\
        -d "{\\"event_type\\": \\"$type\\", \\"source\\": \\"docs\\"}" "$OUTFEED_URL/api/events"
    done
    sleep 0.1
  done
  kill "$pid"
  wait "$pid" || true
  cat printed
  [ -s printed ]
}
"""


class Block(NamedTuple):
    """One fenced block: the words after the fence, and its text."""

    language: str
    mode: str
    text: str


def blocks_of(page: str) -> Iterator[Block]:
    for info, text in re.findall(r"^```([^\n]*)\n(.*?)^```$", PAGES[page].read_text("utf-8"), re.DOTALL | re.MULTILINE):
        language, _, mode = info.partition(" ")
        yield Block(language, mode, text)


def script_of(page: str, folder: Path) -> str:
    """Return the page's examples as one script.

    The script keeps the shell's variables from block to block.
    """
    lines = [PRELUDE]
    for number, (language, mode, text) in enumerate(blocks_of(page)):
        if mode == "no-run":
            continue
        file = folder / (mode if "." in mode else f"example-{number}.{language}")
        file.write_text(text, "utf-8")
        if language == "sh":
            lines.append(text)
        elif language == "python" and "." not in mode:
            lines.append(f"{'until_it_prints ' if mode == 'endless' else ''}python3 {shlex.quote(file.name)}")
        elif language == "sql":
            lines.append(f"sqlite3 -bail -cmd '.timeout 10000' instance/outfeed.db <{shlex.quote(file.name)}")
        elif language == "json":
            json.loads(text)
    return "\n".join(lines)


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("docs") / "instance"
    folder.mkdir()
    with Server(folder, auction_secs=0.5) as running:
        yield running


@pytest.fixture(scope="module")
def outfeed_program() -> Iterator[Path]:
    """The folder of a program `outfeed`, without the time of its imports."""
    with commands.forked_outfeed() as folder:
        yield folder


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_run(page, standing: Server, outfeed_program: Path, tmp_path):
    if not any(block.mode != "no-run" and block.language in ("sh", "python", "sql") for block in blocks_of(page)):
        return
    with contextlib.closing(sqlite3.connect(standing.database, timeout=10)) as raw, raw:
        raw.execute("DELETE FROM event_log")  # events of another page, which a reader of all events would get
        raw.execute("DELETE FROM outbox")
        raw.execute("DELETE FROM outfeed_watch")
        for table in adoption.foreign_tables(raw):  # a restore would refuse the file with them
            raw.execute(f'DROP TABLE "{table}"')
    (tmp_path / "instance").symlink_to(standing.database.parent)
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    script = script_of(page, tmp_path).replace("http://127.0.0.1:8000", standing.url)
    environment = standing.environment | {
        "OUTFEED_DATABASE": "instance/outfeed.db",
        "OUTFEED_URL": standing.url,
        "OUTFEED_TOKEN": standing.token,
        "PATH": os.pathsep.join([str(outfeed_program), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONUNBUFFERED": "1",
    }
    (tmp_path / "examples").write_text(f"{script}\necho {ENDED}\n", "utf-8")
    done = subprocess.run(
        ["bash", "-x", "examples"], check=False, cwd=tmp_path, env=environment, timeout=SECONDS,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    assert done.stdout.endswith(f"{ENDED}\n")
    assert '"status":5' not in done.stdout
    assert '"status":4' not in done.stdout


def test_only_these_examples_do_not_run():
    found = {
        page: [block.text.splitlines()[0] for block in blocks_of(page) if block.mode == "no-run"] for page in PAGES
    }
    assert {page: lines for page, lines in found.items() if lines} == NOT_RUN


def test_every_block_names_its_language():
    assert {block.language for page in PAGES for block in blocks_of(page)} <= LANGUAGES
