"""What a case of Outfeed by itself is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scripts.benchmarks.cases import Figures
from scripts.benchmarks.stage import Stage


@dataclass(frozen=True, slots=True)
class Figure:
    """How a figure is called, and what it should be, if anything."""

    label: str
    goal: str = ""


@dataclass(frozen=True, slots=True)
class Alone:
    """One case. *measure* gets the stage and each of *clients* in turn, and raises where a sequence is not whole."""

    name: str
    clients: tuple[int, ...]
    measure: Callable[[Stage, int], Figures]
    figures: dict[str, Figure]
