"""What a process asks of the kernel about its own life, and what it does about being a copy of another."""

from __future__ import annotations

import os
import signal
import sys
import weakref
from typing import Protocol

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Have the kernel kill this process when *parent*, the process that started it, ends; end now if it has already."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


class Renewable(Protocol):
    """What holds locks, threads or sockets, which a forked child inherits in whatever state they are."""

    def start_anew(self) -> None:
        """Forget them, without touching what the parent goes on with."""


_renewables: weakref.WeakSet[Renewable] = weakref.WeakSet()


def renew_in_children(owner: Renewable) -> None:
    """Call *owner*'s `start_anew` in every child that is forked while it lives."""
    _renewables.add(owner)


def _start_anew() -> None:
    for owner in list(_renewables):
        owner.start_anew()


os.register_at_fork(after_in_child=_start_anew)
