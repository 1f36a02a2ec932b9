"""Simulated schedules on all processors, and the check of traces."""

from __future__ import annotations

import os
from pathlib import Path

from outfeed.verify.trace import check_traces
from scripts.soaks.stage import Mismatch
from tests.simulation.schedule import report
from tests.simulation.seeds import first_failure

TRACE = "feed.trace"


def run(schedules: int, seed: int) -> str:
    """Run *schedules* from *seed* on.

    Returns a sentence on the run. Raises Mismatch.
    """
    processes = os.cpu_count() or 1
    if found := first_failure(seed, schedules, processes):
        raise Mismatch(report(*found))
    return f"{schedules:,} schedules from seed {seed} on keep the protocol"


def check_trace(folder: Path) -> str:
    """Compare the traces of all processes of a run with the model.

    Raises Mismatch.
    """
    result = check_traces(folder.glob(f"{TRACE}.*"))
    if result.breach is not None:
        raise Mismatch(f"{result.breach.file}:{result.breach.line}: {result.breach.breach}")
    if not result.pushes:
        raise Mismatch("the trace has no write")
    return f"the trace of {result.pushes:,} writes keeps the protocol"
