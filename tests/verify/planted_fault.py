"""Run simulated schedules with traces.

The command is `python -m tests.verify.planted_fault FOLDER`.
tests/verify/test_trace.py runs it with a fault in a copy of the package.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.simulation.schedule import run, schedule_of

SEEDS = range(3, 16)


def main(folder: Path) -> None:
    """Write the traces of some schedules below *folder*."""
    for seed in SEEDS:
        (folder / str(seed)).mkdir(parents=True)
        run(schedule_of(seed), traces=folder / str(seed))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
