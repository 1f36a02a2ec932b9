"""A program `outfeed` for scripts, with commands forked off one process.

The program sends its arguments, environment, folder and standard streams over a socket to the tests' process. The
tests' process forks the command off the one with all imports. The program ends with the command's exit code.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import socketserver
import sys
import threading
from collections.abc import Iterator
from multiprocessing.reduction import DupFd
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.forked import context, run_outfeed

# It takes a tenth of the CPU time of the imports. The command gets its signals.
PROGRAM = """#!{python} -IS
import json, os, signal, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
order = json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]).encode()
socket.send_fds(server, [len(order).to_bytes(8, "big")], [0, 1, 2])
server.sendall(order)
answers = server.makefile()
pid = int(answers.readline())
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: os.kill(pid, number))
code = int(answers.readline())
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


@contextlib.contextmanager
def forked_outfeed() -> Iterator[Path]:
    """Serve the commands; yield the folder of the program."""
    with TemporaryDirectory(prefix="outfeed-commands-") as folder, _Server(f"{folder}/socket", _Command) as server:
        program = Path(folder, "outfeed")
        program.write_text(PROGRAM.format(python=sys.executable, address=f"{folder}/socket"))
        program.chmod(0o755)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield Path(folder)
        finally:
            server.shutdown()
            thread.join()


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


class _Command(socketserver.BaseRequestHandler):
    """One program that waits for its command."""

    request: socket.socket

    def handle(self) -> None:
        size, streams, _, _ = socket.recv_fds(self.request, 8, 3)
        order = self.request.makefile("rb").read(int.from_bytes(size, "big"))
        process = context.Process(target=_become, args=(order, _Streams(streams)), daemon=True)
        process.start()
        for stream in streams:
            os.close(stream)
        with contextlib.suppress(OSError):  # the program was killed
            self.request.sendall(f"{process.pid}\n".encode())
            process.join()
            self.request.sendall(f"{process.exitcode}\n".encode())


class _Streams:
    """Standard streams that a forked process inherits."""

    def __init__(self, streams: list[int]) -> None:
        self._streams = streams

    def __getstate__(self) -> list[Any]:
        return [DupFd(stream) for stream in self._streams]

    def __setstate__(self, found: list[Any]) -> None:
        self._streams = [each.detach() for each in found]

    def install(self) -> None:
        """Use the streams as input, output and errors of this process."""
        for number, stream in enumerate(self._streams):
            os.dup2(stream, number)
            os.close(stream)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115


def _become(order: bytes, streams: _Streams) -> None:
    arguments, environment, folder = json.loads(order)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    streams.install()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(write_through="PYTHONUNBUFFERED" in environment)  # type: ignore[union-attr]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run_outfeed(arguments)
