"""Actors: greenlets that take turns, in an order that a seed chooses.

One actor runs at a time. It may lose its turn at each seam: where the core takes or releases a lock, reads the clock or
the source, writes to a socket, or waits. Time stands still until a step moves it, so that one seed always gives the
same run.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from greenlet import GreenletExit, greenlet

# More seams than any step needs: the actors never come to rest.
MAX_SEAMS = 60_000
MIN_WAIT_SECS = 1e-6
_PACKAGES = ("outfeed.feed.", "outfeed.edge.")


class Livelock(Exception):
    """The actors do not come to rest although time stands still."""


class Actor:
    """One thread of a simulated process.

    It may run if *until* is None or true, or from *deadline* on, and not before the turn *held_until*.
    """

    __slots__ = ("deadline", "group", "held_until", "name", "thread", "until")

    def __init__(self, name: str, group: object, thread: greenlet) -> None:
        self.name = name
        self.group = group
        self.thread = thread
        self.until: Callable[[], bool] | None = None
        self.deadline: float | None = None
        self.held_until = 0


class Actors:
    """All actors of one world, and its clock.

    *trace* receives the name of each actor that gets a turn. `is_late`: time has passed while an actor was in a call,
    so that no time of a frame is sure. `is_at_rest`: all actors wait.
    """

    def __init__(self) -> None:
        self.now = 12_345.678
        self.is_late = False
        self.is_at_rest = True
        self.trace: Callable[[str], None] = lambda _: None
        self._actors: list[Actor] = []
        self.running: Actor | None = None
        self._left = 0
        self._turns = 0
        self._main = greenlet.getcurrent()

    # --- for the steps ------------------------------------------------------------------------------------------------

    def start(self, name: str, group: object, call: Callable[[], object]) -> Actor:
        """Start an actor of the process *group*."""
        actor = Actor(name, group, greenlet(call, self._main))
        self._actors.append(actor)
        return actor

    def kill(self, group: object) -> None:
        """End all actors of *group* at the seam where they are."""
        dead = [actor for actor in self._actors if actor.group is group]
        self._actors = [actor for actor in self._actors if actor.group is not group]
        for actor in dead:
            if actor.thread:  # it has begun and has not ended
                actor.thread.throw(GreenletExit)

    def pass_time(self, secs: float) -> None:
        """Move the clock."""
        self.is_late |= not self.is_at_rest
        self.now += secs

    def run(self, dice: random.Random, seams: float, turns: int | None = None) -> None:
        """Give turns of about *seams* seams until all actors wait, or *turns*.

        Raises what an actor raises, and Livelock.
        """
        self.is_at_rest = False
        passed, last = 0, None if turns is None else self._turns + turns
        while self._turns != last:
            self._turns += 1
            ready = [actor for actor in self._actors if self._is_ready(actor)]
            if not ready and not self._release_held():
                self.is_at_rest = True
                return
            if not ready:
                continue
            if passed > MAX_SEAMS:
                raise Livelock(", ".join(sorted({actor.name for actor in ready})))
            actor = ready[int(dice.random() * len(ready))]
            self._left = int(dice.expovariate(1 / seams))
            passed += self._left + 1
            self.trace(actor.name)
            self.running, actor.until = actor, None
            try:
                actor.thread.switch()
            finally:
                self.running = None
            if actor.thread.dead:
                self._actors.remove(actor)

    def hold(self, dice: random.Random, turns: int) -> None:
        """Give a random actor no turn for the next *turns*.

        An actor inside a call is preferred. The actor goes on before all others have come to rest.
        """
        if found := [actor for actor in self._actors if actor.until is None] or self._actors:
            dice.choice(found).held_until = self._turns + turns

    def _release_held(self) -> bool:
        """Let all held actors go on. Return whether there were any."""
        held = [actor for actor in self._actors if actor.held_until > self._turns]
        for actor in held:
            actor.held_until = 0
        return bool(held)

    def _is_ready(self, actor: Actor) -> bool:
        if actor.held_until > self._turns:
            return False
        until = actor.until
        return until is None or until() or (actor.deadline is not None and actor.deadline <= self.now)

    # --- for the actors -----------------------------------------------------------------------------------------------

    def seam(self) -> None:
        """Let another actor run here, if its turn has come."""
        if self.running is not None:
            self._left -= 1
            if self._left < 0:
                self._main.switch()

    def wait(self, until: Callable[[], bool], timeout: float | None = None) -> None:
        """Wait until *until* is true, *timeout* seconds at most."""
        actor = self.running
        if actor is None:  # a killed actor that unwinds, or a step
            return
        actor.until = until
        # A shorter time would be lost in the sum, and the clock stands still.
        actor.deadline = None if timeout is None else self.now + max(timeout, MIN_WAIT_SECS)
        self._main.switch()

    def sleep(self, secs: float) -> None:
        """Wait until *secs* have passed."""
        self.wait(_never, secs)

    def monotonic(self) -> float:
        """Return the simulated time."""
        self.seam()
        return self.now

    def start_thread(self, name: str, call: Callable[[], object]) -> Actor:
        """Start an actor of the running actor's process."""
        return self.start(name, self.running and self.running.group, call)


def _never() -> bool:
    return False


# --- what the core takes from `threading` -----------------------------------------------------------------------------


class Lock:
    """A lock. Before each acquisition and after each release is a seam."""

    def __init__(self, actors: Actors) -> None:
        self._actors = actors
        self._is_held = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        self._actors.seam()
        if self._is_held:
            if not blocking:
                return False
            self._actors.wait(lambda: not self._is_held)
        self._is_held = True
        return True

    def release(self) -> None:
        self._is_held = False
        self._actors.seam()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Semaphore:
    """A semaphore of *value*."""

    def __init__(self, actors: Actors, value: int) -> None:
        self._actors = actors
        self._value = value

    def __enter__(self) -> None:
        self._actors.seam()
        if not self._value:
            self._actors.wait(lambda: self._value > 0)
        self._value -= 1

    def __exit__(self, *_: object) -> None:
        self._value += 1
        self._actors.seam()


class Event:
    """An event."""

    def __init__(self, actors: Actors) -> None:
        self._actors = actors
        self._is_set = False

    def is_set(self) -> bool:
        self._actors.seam()
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        self._actors.seam()

    def clear(self) -> None:
        self._is_set = False
        self._actors.seam()

    def wait(self, timeout: float | None = None) -> bool:
        self._actors.seam()
        if not self._is_set:
            self._actors.wait(lambda: self._is_set, timeout)
        return self._is_set


class Condition:
    """A condition, whose lock the thread that holds it may take again."""

    def __init__(self, actors: Actors) -> None:
        self._actors = actors
        self._lock = Lock(actors)
        self._holder: object = None
        self._depth = 0
        self._notices = 0

    def __enter__(self) -> None:
        if self._holder is None or self._holder is not self._actors.running:
            self._lock.acquire()
            self._holder = self._actors.running
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._holder = None
            self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        before, holder, depth = self._notices, self._holder, self._depth
        self._holder, self._depth = None, 0
        self._lock.release()
        self._actors.wait(lambda: self._notices > before, timeout)
        is_notified = self._notices > before
        self._lock.acquire()
        self._holder, self._depth = holder, depth
        return is_notified

    def wait_for(self, predicate: Callable[[], bool], timeout: float) -> bool:
        until = self._actors.now + timeout
        while not predicate() and self._actors.now < until:
            self.wait(until - self._actors.now)
        return predicate()

    def notify(self) -> None:
        self._notices += 1

    notify_all = notify


class Thread:
    """A thread of the process that starts it."""

    def __init__(self, actors: Actors, target: Callable[..., object], args: Any = (), name: str = "", **_: Any) -> None:
        self._actors = actors
        self._call = partial(target, *args)
        self._name = name

    def start(self) -> None:
        self._actors.start_thread(self._name, self._call)


class Poller:
    """A `select.poll` of one simulated socket."""

    def __init__(self, actors: Actors) -> None:
        self._actors = actors
        self._is_ready: Callable[[], bool] = _never

    def register(self, sock: Any, event: int) -> None:
        self._is_ready = partial(sock.is_ready, event)

    def poll(self, timeout: float) -> list[int]:
        if not self._is_ready():
            self._actors.wait(self._is_ready, timeout / 1000)
        return [1] if self._is_ready() else []


def replace_threads(monkeypatch: pytest.MonkeyPatch, actors: Actors) -> None:
    """Replace the threads, locks and sleeps of the core and the edges."""
    threading = SimpleNamespace(
        Lock=partial(Lock, actors), Event=partial(Event, actors), Condition=partial(Condition, actors),
        BoundedSemaphore=partial(Semaphore, actors), Thread=partial(Thread, actors),
    )  # fmt: skip
    time = SimpleNamespace(sleep=actors.sleep)
    for name, module in sorted(sys.modules.items()):
        if name.startswith(_PACKAGES):
            _replace(monkeypatch, module, "threading", threading)
            _replace(monkeypatch, module, "time", time)


def _replace(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, substitute: object) -> None:
    if isinstance(getattr(module, name, None), ModuleType):
        monkeypatch.setattr(module, name, substitute)
