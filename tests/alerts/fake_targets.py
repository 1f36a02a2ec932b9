"""Targets in memory, for tests of the queue."""

from __future__ import annotations

import threading
from collections.abc import Callable

from outfeed.alerts.targets import AlertTarget, Notice, Outcome


class FakeTargets:
    """Targets with given names. *answer* returns the outcome of each notice."""

    def __init__(self, *names: str) -> None:
        self.names = set(names)
        self.sent: list[tuple[str, Notice]] = []
        self.answer: Callable[[str, Notice], Outcome] = lambda _, __: Outcome(is_delivered=True)
        self.is_cancelled = False
        self._lock = threading.Lock()

    def find(self, name: str) -> AlertTarget | None:
        return AlertTarget(name, "fake", {}) if name in self.names else None

    def send(self, target: AlertTarget, notice: Notice) -> Outcome:
        with self._lock:
            self.sent.append((target.name, notice))
        return self.answer(target.name, notice)

    def cancel(self) -> None:
        self.is_cancelled = True
