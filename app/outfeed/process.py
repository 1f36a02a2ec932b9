"""Process: requests to the kernel, resource limits, and forks."""

from __future__ import annotations

import os
import signal
import sys
import weakref
from typing import Protocol

_PR_SET_PDEATHSIG = 1
_PR_SET_TIMERSLACK = 29
# Threads in addition to those of the connections that stay open, so that the server still answers HTTP at the limit.
SPARE_THREADS = 32
REQUESTS_AT_ONCE = 24
# Connections whose request or answer is incomplete: no thread waits for them. Clients that reconnect all at once are
# among them for some milliseconds.
MIN_INCOMPLETE = 256
# A connection that stays open has its socket, and a socket pair that wakes its thread.
DESCRIPTORS_A_CONNECTION = 3
# For SQLite and logs.
SPARE_DESCRIPTORS = 256


def exit_with(parent: int) -> None:
    """Make the kernel kill this process when *parent* ends.

    *parent* is the process that started this one. If it has already ended, this process ends now.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def has_terminal() -> bool:
    """Return whether the process has a controlling terminal.

    If it has, SIGHUP means that the terminal was closed.
    """
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def sleep_precisely() -> None:
    """Make this thread's sleeps end on time.

    By default the kernel ends them up to 50 us later, to wake several threads at once.
    """
    _prctl(_PR_SET_TIMERSLACK, 1)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(option, value)


class ForkAware(Protocol):
    """An object with locks, threads or sockets.

    A forked child inherits them in the state of the moment of the fork.
    """

    def after_fork(self) -> None:
        """Replace them, without touching those that the parent still uses."""


_renewables: weakref.WeakSet[ForkAware] = weakref.WeakSet()


def reset_after_fork(owner: ForkAware) -> None:
    """Call *owner*'s `after_fork` in every child that is forked from now on.

    *owner* is referenced weakly.
    """
    _renewables.add(owner)


def _after_fork() -> None:
    for owner in list(_renewables):
        owner.after_fork()


os.register_at_fork(after_in_child=_after_fork)


def needed_descriptors(max_connections: int) -> int:
    """Return the maximum number of open files of a worker."""
    requests = SPARE_THREADS + incomplete_connections(max_connections) + idle_connections(max_connections)
    return DESCRIPTORS_A_CONNECTION * max_connections + requests + SPARE_DESCRIPTORS


def idle_connections(max_connections: int) -> int:
    """Return the maximum number of idle keep-alive clients of a worker."""
    return needed_threads(max_connections) // 2


def incomplete_connections(max_connections: int) -> int:
    """Return the maximum number of incomplete exchanges of a worker.

    These are clients with an incomplete request or an answer that they have not read.
    """
    return max(MIN_INCOMPLETE, needed_threads(max_connections) // 2)


def needed_threads(max_connections: int) -> int:
    """Return the maximum number of threads of a worker.

    Each WebSocket and stream has one. A long poll that waits has none, but its place may be that of a WebSocket.
    """
    return max_connections + SPARE_THREADS
