"""Binding and SIGHUP: an unusable port is an error before any change."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from outfeed.config import Settings
from outfeed.errors import ConfigError
from outfeed.http.server import binding
from tests.server import ROOT, Server, free_port
from tests.waits import wait_until


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", free_port()))
        other.listen()
        yield other.getsockname()[1]


def test_a_port_in_use_ends_serve_before_the_database_is_created(tmp_path: Path, taken: int) -> None:
    server = Server(tmp_path, bind=f"127.0.0.1:{taken}")
    done = server.run("serve")
    assert done.returncode == 1
    advice = "Is Outfeed already running? Set OUTFEED_BIND to another port"
    assert done.stderr.splitlines() == [f"Error: OUTFEED_BIND: 127.0.0.1:{taken} is in use. {advice}"]
    assert list(tmp_path.iterdir()) == []


def test_a_second_server_gets_an_error_and_the_first_keeps_running(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        done = server.run("serve")
        assert (done.returncode, "Is Outfeed already running?" in done.stderr) == (1, True)
        with server.http() as http:
            assert http.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("bind", "reason"),
    [
        ("203.0.113.1:8000", "this machine has no address 203.0.113.1"),
        ("no-such-host.invalid:8000", "the host 'no-such-host.invalid' can't be resolved"),
    ],
)
def test_an_address_of_another_machine_is_an_error(bind: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=f"^OUTFEED_BIND: {reason}"):
        binding.require_free(Settings(bind=bind))


AS_NOBODY = """
import os
from outfeed.config import Settings
from outfeed.errors import ConfigError
from outfeed.http.server import binding
settings = Settings(bind="127.0.0.1:80")
os.getuid() or os.setuid(65534)
try:
    binding.require_free(settings)
except ConfigError as error:
    print(error)
"""


def test_a_privileged_port_is_an_error_for_an_unprivileged_user() -> None:
    done = subprocess.run([sys.executable, "-c", AS_NOBODY], check=True, capture_output=True, text=True, cwd=ROOT)
    first = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    refused = "OUTFEED_BIND: this user may not listen on port 80. Set OUTFEED_BIND to a port from 1024 to 65535"
    assert done.stdout.startswith(refused) == (first > 80)


def test_a_port_that_becomes_free_in_time_is_used(taken: int) -> None:
    with socket.socket() as closing:
        closing.bind(("127.0.0.1", free_port()))
        port = closing.getsockname()[1]
    binding.require_free(Settings(bind=f"127.0.0.1:{port}"))
    with pytest.raises(ConfigError):
        binding.require_free(Settings(bind=f"127.0.0.1:{taken}"))


def test_an_invalid_key_is_an_error_before_the_upgrade(tmp_path: Path) -> None:
    Path(tmp_path / "outfeed.db.secret").write_text("short")
    done = Server(tmp_path).run("serve")
    assert "holds no usable key" in done.stderr
    assert not (tmp_path / "outfeed.db").exists()


# --- SIGHUP -----------------------------------------------------------------------------------------------------------


class ServerOnTerminal:
    """`outfeed serve` on a terminal of its own, optionally under `nohup`.

    `close` closes the terminal.
    """

    def __init__(self, server: Server, *before: str) -> None:
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            command = [*before, sys.executable, "-m", "outfeed", "serve"]
            os.execvpe(command[0], command, server.environment)
        wait_until(lambda: not is_free(server.port), "served")

    def close(self) -> None:
        os.close(self._terminal)

    def has_ended(self) -> bool:
        return os.waitpid(self.pid, os.WNOHANG)[0] != 0


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_closed_terminal_ends_the_server(tmp_path: Path) -> None:
    server = Server(tmp_path)
    terminal = ServerOnTerminal(server)
    terminal.close()
    wait_until(terminal.has_ended, "ended")
    assert is_free(server.port)


def test_under_nohup_the_server_keeps_running(tmp_path: Path) -> None:
    server = Server(tmp_path)
    terminal = ServerOnTerminal(server, "sh", "-c", f'exec nohup "$@" >{tmp_path}/out 2>&1', "sh")
    terminal.close()
    os.kill(terminal.pid, signal.SIGHUP)
    with server.http() as http:
        assert http.get("/readyz").status_code == 200
    os.kill(terminal.pid, signal.SIGTERM)
    wait_until(terminal.has_ended, "ended")


def test_without_a_terminal_the_server_reloads(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        assert server.process is not None
        (before,) = server.workers()
        os.kill(server.process.pid, signal.SIGHUP)
        wait_until(lambda: before not in server.workers() and server.workers(), "another worker")
        with server.http() as http:
            assert http.get("/readyz").status_code == 200
        assert server.process.poll() is None


def test_a_refusal_without_a_database_creates_no_file(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "outfeed.db")) as foreign:
        foreign.execute("CREATE TABLE other (id)")
    before = (tmp_path / "outfeed.db").read_bytes()
    done = Server(tmp_path, bind="8000").run("serve")
    assert done.stderr == "Error: OUTFEED_BIND: must be ADDRESS:PORT, like 127.0.0.1:8000 (got '8000')\n"
    assert ((tmp_path / "outfeed.db").read_bytes(), len(list(tmp_path.iterdir()))) == (before, 1)
