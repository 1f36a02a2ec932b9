"""Leases: one holder at a time, freed by any end of the holder."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from outfeed.errors import DatabaseError
from outfeed.store import lease
from tests.waits import wait_until

ROOT = Path(__file__).parents[2]
LOCKS = Path("/proc/locks")

HOLDER = """
import sys
from pathlib import Path
from outfeed.store import lease
with lease.hold(Path(sys.argv[1]), wait=True):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def file(tmp_path):
    return lease.lock_file(tmp_path / "feed.db", "prune")


@pytest.fixture
def holder(file):
    """Another process that holds the lease until its stdin closes.

    A signal that ends the process frees the lease, too.
    """
    command = [sys.executable, "-c", HOLDER, str(file)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


class TestHold:
    def test_a_lease_is_held_during_the_block(self, file):
        with lease.hold(file, wait=False) as first, lease.hold(file, wait=False) as second:
            assert (first, second) == (True, False)
        with lease.hold(file, wait=False) as third:
            assert third

    def test_a_refused_attempt_does_not_affect_the_holder(self, file):
        with lease.hold(file, wait=False):
            with lease.hold(file, wait=False) as refused:
                assert not refused
            with lease.hold(file, wait=False) as refused_again:
                assert not refused_again

    def test_a_lease_is_freed_when_the_block_raises(self, file):
        with pytest.raises(ZeroDivisionError), lease.hold(file, wait=False):
            _ = 1 / 0
        with lease.hold(file, wait=False) as is_held:
            assert is_held

    def test_another_process_keeps_a_lease_until_it_is_killed(self, file, holder):
        with lease.hold(file, wait=False) as is_held:
            assert not is_held
        holder.send_signal(signal.SIGKILL)
        with lease.hold(file, wait=True) as is_held:
            assert is_held

    def test_a_waiting_caller_gets_the_lease_when_the_holder_releases_it(self, file, holder):
        got = threading.Event()

        def wait():
            with lease.hold(file, wait=True):
                got.set()

        waiting = threading.Thread(target=wait)
        waiting.start()
        assert not got.is_set()
        holder.stdin.close()
        waiting.join(10)
        assert got.is_set()

    def test_a_forked_child_does_not_keep_the_lease(self, file):
        ready, done = os.pipe(), os.pipe()
        with lease.hold(file, wait=True):
            child = os.fork()
            if child == 0:
                os.write(ready[1], b"!")
                os.read(done[0], 1)
                os._exit(0)
            os.read(ready[0], 1)
        try:
            with lease.hold(file, wait=False) as is_held:
                assert is_held
        finally:
            os.write(done[1], b"!")
            os.waitpid(child, 0)
            for descriptor in (*ready, *done):
                os.close(descriptor)

    def test_a_process_that_waited_for_a_removed_file_shares_the_new_one(self, file):
        got, done = threading.Event(), threading.Event()

        def wait():
            with lease.hold(file, wait=True):
                got.set()
                done.wait(10)

        waiting = threading.Thread(target=wait)
        with lease.hold(file, wait=True):
            waiting.start()
            inode = f":{file.stat().st_ino} "
            wait_until(lambda: any("->" in line and inode in line for line in LOCKS.read_text().splitlines()), "waits")
            file.unlink()
        assert got.wait(10)
        with lease.hold(file, wait=False) as is_held:
            assert not is_held
        done.set()
        waiting.join(10)

    def test_the_lock_file_is_private_and_stays(self, file):
        with lease.hold(file, wait=True):
            pass
        assert stat.S_IMODE(file.stat().st_mode) == 0o600

    def test_a_missing_folder_is_named(self, tmp_path):
        with (
            pytest.raises(DatabaseError, match=r"missing.*No such file"),
            lease.hold(tmp_path / "missing/a.lock", wait=False),
        ):
            pass


class TestLockFile:
    def test_the_lock_file_is_beside_the_database(self, tmp_path):
        assert lease.lock_file(tmp_path / "feed.db", "prune") == tmp_path / "feed.db.prune.lock"
        assert lease.lock_file(tmp_path / "feed.db") == tmp_path / "feed.db.lock"

    def test_two_names_of_one_database_share_the_lock_file(self, tmp_path):
        (tmp_path / "real.db").touch()
        (tmp_path / "link.db").symlink_to("real.db")
        assert lease.lock_file(tmp_path / "link.db") == lease.lock_file(tmp_path / "real.db")
