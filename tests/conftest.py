"""Fixtures that all tests share. A leaked thread fails its test."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import freezegun
import pytest

from outfeed import config
from outfeed.config.environment import PREFIX
from outfeed.store import database as db
from outfeed.store.database import Database
from tests import compiled
from tests.app_fixtures import api, flask_app, outfeed, services
from tests.engine_fixtures import engine, origin_in_process, redis_server, standing_engine
from tests.server import Server, make_database, upgraded_database
from tests.waits import wait_until

freezegun.configure(extend_ignore_list=["_pytest.timing"])  # or `--durations` counts frozen time

__all__ = [
    "api", "compiled", "engine", "flask_app", "origin_in_process", "outfeed", "redis_server", "services",
    "standing_engine",
]  # fmt: skip
MEMORY = Path("/dev/shm")

# A process that a shell starts in the background ignores SIGINT, and one under `nohup` SIGHUP. So would every process
# that a test starts and signals.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


# Files that take the longest. They begin first: a process that begins one last would leave the others idle.
LONG = (
    "tests/verify/test_checks.py", "tests/test_docs_examples.py", "tests/test_bench.py", "tests/test_entrances.py",
    "tests/journeys/test_page.py", "tests/journeys/test_live_and_log.py", "tests/journeys/test_edges.py",
    "tests/journeys/test_conformance.py", "tests/journeys/test_log_page.py", "tests/http/test_openapi.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the tests of the long files to the front."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


def pytest_collection_finish() -> None:
    """Exclude the objects loaded so far from garbage collection.

    They stay until the end of the run.
    """
    gc.collect()
    gc.freeze()


def _is_roomy(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > 2**30


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A temporary folder, in memory if there is space.

    On a disk the few commits of a test cost 20 ms. Journeys use the disk.
    """
    if not _is_roomy(MEMORY):
        yield tmp_path_factory.mktemp("test")
        return
    with TemporaryDirectory(prefix="outfeed-test-", dir=MEMORY, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def no_leaked_threads() -> Iterator[None]:
    before = set(threading.enumerate())
    yield

    def leaked() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread not in before and thread.is_alive()}

    with contextlib.suppress(AssertionError):
        wait_until(lambda: not leaked(), "threads ended")
    assert not leaked()


@pytest.fixture(autouse=True)
def own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Give every test its own database path and no setting of the machine."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OUTFEED_DATABASE", str(tmp_path / "outfeed.db"))
    config.settings.cache_clear()
    yield
    config.settings.cache_clear()


@pytest.fixture(scope="session")
def upgraded() -> Path:
    """An upgraded database, for copies."""
    return upgraded_database()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """An upgraded database, to which `log_event` writes."""
    path = tmp_path / "outfeed.db"
    make_database(path)
    yield db.at(path)
    db.at(path).close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A running server with one worker."""
    with Server(tmp_path) as running:
        yield running
