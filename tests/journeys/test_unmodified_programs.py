"""Events of unmodified programs on watched tables arrive exactly once.

Each program writes while the server runs, while it is killed and while it starts again, and changes its own schema.
"""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from outfeed.config import settings
from outfeed.watch.store import repair
from tests.database_file import head_of
from tests.journeys.test_restart import following, log_ids
from tests.server import Server, free_port
from tests.transports import Follower
from tests.waits import wait_until

PROGRAMS = Path(__file__).parent / "programs"
BIN = Path(sys.executable).parent
ROWS = 40
OWNER, PASSWORD = "owner@example.com", "correct horse battery"


def start(*command: object) -> subprocess.Popen[str]:
    return subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> None:
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said


class Program:
    """A Python program on a database: its file in PROGRAMS."""

    def __init__(self, database: Path, name: str) -> None:
        self.command = (sys.executable, PROGRAMS / name, database)

    def run(self, *arguments: object) -> None:
        finish(start(*self.command, *arguments))

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        return start(*self.command, *arguments)


def adopt(server: Server, *options: str) -> None:
    """Adopt the program's database, and watch a table with *options*."""
    for command in (("upgrade", "--adopt"), ("watch", "add", *options)):
        done = server.run(*command)
        assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def followed(server: Server) -> Iterator[None]:
    """Follow the server during the block, then compare with the log."""
    assert server.token
    follower = Follower(server)
    with following([follower]) as end:
        yield
        end(head_of(server.database))
    assert follower.ids == log_ids(server)
    assert len(set(follower.ids)) == len(follower.ids)
    assert set(follower.verdicts) == {"resumed"}


def kill_while(process: subprocess.Popen[str], server: Server) -> None:
    """Kill the server while the program writes, and start it again."""
    seen = head_of(server.database)
    wait_until(lambda: head_of(server.database) > seen + 4, "events of the program")
    server.kill()
    seen = head_of(server.database)
    wait_until(lambda: head_of(server.database) > seen or process.poll() is not None, "events without a server")
    server.start()
    finish(process)


def await_repair(server: Server) -> None:
    """Wait until the triggers fit the table."""

    def is_repaired() -> bool:
        with contextlib.closing(sqlite3.connect(server.database, timeout=10)) as raw:
            return repair.problems(raw, settings()) == []

    wait_until(is_repaired, "triggers that fit the table")


def counts(server: Server, word: str) -> dict[str, int]:
    """Return how many events of each type that begins with *word* exist."""
    with contextlib.closing(sqlite3.connect(server.database)) as raw:
        found = raw.execute("SELECT event_type FROM event_log WHERE event_type GLOB ?", (f"{word}.*",)).fetchall()
    return dict(Counter(type_.partition(".")[2] for (type_,) in found))


def rows(server: Server, table: str) -> int:
    with contextlib.closing(sqlite3.connect(server.database)) as raw:
        return int(raw.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def test_django_with_its_migrations(tmp_path: Path) -> None:
    server = Server(tmp_path)
    site = Program(server.database, "site/manage.py")
    site.run("migrate", "0001")
    adopt(server, "shop_order", "--as", "order")
    with server, followed(server):
        kill_while(site.start("write", ROWS), server)
        site.run("migrate", "0002")
        for migration in ("0003", "0004", "0005"):
            await_repair(server)
            site.run("write", 2, "migrate", migration)
        await_repair(server)
        site.run("write", 2)
    assert rows(server, "shop_purchase") == ROWS + 8
    # AddField with a default, and AlterField, copy the table. RemoveField and RenameModel do not.
    assert counts(server, "order") == {"created": ROWS + 8, "updated": ROWS + 8, "gap": 2}


def test_sqlalchemy_with_a_batch_of_alembic(tmp_path: Path) -> None:
    server = Server(tmp_path)
    shop = Program(server.database, "alembic_shop.py")
    shop.run("create")
    adopt(server, "orders", "--as", "order")
    with server, followed(server):
        kill_while(shop.start("write", ROWS), server)
        shop.run("migrate")
        await_repair(server)
        shop.run("write", 2)
    assert counts(server, "order") == {"created": ROWS + 2, "updated": ROWS + 2, "gap": 1}


def test_sqlite_utils_with_its_transform(tmp_path: Path) -> None:
    server = Server(tmp_path)

    def utils(command: str, *arguments: str, given: str | None = None) -> None:
        subprocess.run(
            [BIN / "sqlite-utils", command, server.database, *arguments],
            check=True, input=given, text=True, timeout=60, capture_output=True,
        )  # fmt: skip

    utils("insert", "docs", "-", "--pk", "id", given='{"id": 1, "title": "a", "size": "3"}')
    adopt(server, "docs", "--as", "doc")
    with server, followed(server):
        utils("upsert", "docs", "-", "--pk", "id", given='[{"id": 1, "title": "b"}, {"id": 2, "title": "c"}]')
        server.kill()
        utils("insert", "docs", "-", given='{"id": 3, "title": "d"}')
        server.start()
        utils("transform", "docs", "--type", "size", "integer", "--rename", "title", "name")
        await_repair(server)
        utils("insert", "docs", "-", "--replace", given='{"id": 2, "name": "e"}')
        utils("query", "DELETE FROM docs WHERE id = 3")
    # sqlite-utils sets recursive_triggers, with which a REPLACE is a delete and an insert.
    assert counts(server, "doc") == {"updated": 1, "created": 3, "gap": 1, "deleted": 2}


def test_huey_with_its_jobs(tmp_path: Path) -> None:
    server = Server(tmp_path)
    jobs = Program(server.database, "huey_jobs.py")
    jobs.run("create")
    adopt(server, "task", "--as", "job", "--columns", "id,queue,priority")
    with server, followed(server):
        kill_while(jobs.start("write", ROWS), server)
    assert counts(server, "job") == {"created": ROWS, "deleted": ROWS}


class PocketBase:
    """A PocketBase server, a program in Go, on its own folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{free_port()}"
        self._process: subprocess.Popen[str] | None = None
        self._http = httpx.Client(base_url=self.url, trust_env=False, timeout=30)

    def __enter__(self) -> PocketBase:
        address = self.url.removeprefix("http://")
        self._process = start(BIN / "pocketbase", "serve", "--dir", self.folder, "--http", address)
        wait_until(self._is_ready, "PocketBase ready")
        key = self.call("POST", "/api/collections/_superusers/auth-with-password", identity=OWNER, password=PASSWORD)[
            "token"
        ]
        self._http.headers["Authorization"] = key
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._http.close()
        self._process.terminate()
        self._process.communicate(timeout=30)

    def _is_ready(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return self._http.get("/api/health").status_code == 200
        return False

    def call(self, method: str, path: str, **values: Any) -> Any:
        answer = self._http.request(method, path, json=values)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None


def notes(*fields: str) -> list[dict[str, str]]:
    return [{"name": name, "type": "text", "id": f"text_{name}"} for name in fields]


@pytest.fixture
def pocketbase(tmp_path: Path) -> PocketBase:
    """PocketBase with a database and an account."""
    finish(start(BIN / "pocketbase", "superuser", "upsert", OWNER, PASSWORD, "--dir", tmp_path / "pb"))
    return PocketBase(tmp_path / "pb")


def test_pocketbase_with_a_collection_that_changes(tmp_path: Path, pocketbase: PocketBase) -> None:
    server = Server(tmp_path)
    server.database = tmp_path / "pb" / "data.db"
    with pocketbase as base:
        base.call("POST", "/api/collections", name="notes", type="base", fields=notes("title"))
    adopt(server, "notes", "--as", "note")
    with server, PocketBase(pocketbase.folder) as base, followed(server):
        records = "/api/collections/notes/records"
        first = base.call("POST", records, title="a")["id"]
        server.kill()
        base.call("PATCH", f"{records}/{first}", title="b")
        base.call("POST", records, title="c")
        server.start()
        base.call("PATCH", "/api/collections/notes", fields=[*notes("title"), *notes("text")])
        await_repair(server)
        base.call("POST", records, title="d", text="e")
        base.call("DELETE", f"{records}/{first}")
    assert counts(server, "note") == {"created": 3, "updated": 1, "deleted": 1}
