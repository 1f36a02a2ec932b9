"""What a process asks of the kernel: its own life, how much it may have; and what it does about being a copy."""

from __future__ import annotations

import os
import signal
import sys
import weakref
from typing import Protocol

_PR_SET_PDEATHSIG = 1
_PR_SET_TIMERSLACK = 29
# Threads beyond those of the connections that stay open, so that HTTP answers at the limit: for each request that is
# served, and for answers of long polls, which are no open connections any more.
SPARE_THREADS = 32
REQUESTS_AT_ONCE = 24
# Connections whose request, or the answer to it, is on its way: no thread waits for them. Clients that come back all at
# once are among them for some milliseconds.
MIN_INCOMPLETE = 256
# A connection that stays open has its socket, and a pair that wakes its thread.
DESCRIPTORS_A_CONNECTION = 3
# For SQLite and logs.
SPARE_DESCRIPTORS = 256


def die_with(parent: int) -> None:
    """Have the kernel kill this process when *parent*, the process that started it, ends; end now if it has already."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def has_terminal() -> bool:
    """Return whether the process has a controlling terminal: SIGHUP then says that it was closed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def sleep_precisely() -> None:
    """Have this thread's sleeps end on time, not up to 50 us later, which the kernel takes to wake several at once."""
    _prctl(_PR_SET_TIMERSLACK, 1)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(option, value)


class ForkAware(Protocol):
    """What holds locks, threads or sockets, which a forked child inherits in whatever state they are."""

    def after_fork(self) -> None:
        """Forget them, without touching what the parent goes on with."""


_renewables: weakref.WeakSet[ForkAware] = weakref.WeakSet()


def reset_after_fork(owner: ForkAware) -> None:
    """Call *owner*'s `after_fork` in every child that is forked while it lives."""
    _renewables.add(owner)


def _after_fork() -> None:
    for owner in list(_renewables):
        owner.after_fork()


os.register_at_fork(after_in_child=_after_fork)


def needed_descriptors(max_connections: int) -> int:
    """Return how many open files a worker may come to."""
    requests = SPARE_THREADS + incomplete_connections(max_connections) + idle_connections(max_connections)
    return DESCRIPTORS_A_CONNECTION * max_connections + requests + SPARE_DESCRIPTORS


def idle_connections(max_connections: int) -> int:
    """Return how many clients a worker keeps between two requests."""
    return needed_threads(max_connections) // 2


def incomplete_connections(max_connections: int) -> int:
    """Return how many clients with an incomplete request, or an answer that they have not taken, a worker waits for."""
    return max(MIN_INCOMPLETE, needed_threads(max_connections) // 2)


def needed_threads(max_connections: int) -> int:
    """Return how many threads a worker may come to: each connection that stays open has one."""
    return max_connections + SPARE_THREADS
