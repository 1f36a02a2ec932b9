"""The cases of Outfeed by itself, in the order in which they run."""

from __future__ import annotations

from scripts.benchmarks.alone.case import Alone
from scripts.benchmarks.alone.growth import GROWTH
from scripts.benchmarks.alone.paced import PACED
from scripts.benchmarks.alone.resume import RESUME
from scripts.benchmarks.alone.start import START
from scripts.benchmarks.alone.workers import WORKERS
from scripts.benchmarks.alone.write import WRITE

ALONE: dict[str, Alone] = {case.name: case for case in (PACED, WRITE, START, RESUME, GROWTH, WORKERS)}
