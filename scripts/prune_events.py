#!/usr/bin/env python3
"""Delete old events from the log; for cron: `scripts/prune_events.py --older-than-days 30 [--dry-run] [--json]`.

The same as `outfeed prune`, run from a checkout, in its .venv where there is one. Exit 0: done, 1: failed, 2: misused.
"""

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Prune, by the arguments of this process."""
    venv_python = ROOT / ".venv" / "bin" / "python"
    if importlib.util.find_spec("click") is None and venv_python.exists():
        os.execv(venv_python, [str(venv_python), *sys.argv])
    sys.path.insert(0, str(ROOT))
    from app.cli import main as outfeed

    outfeed(["prune", *sys.argv[1:]], prog_name="outfeed")


if __name__ == "__main__":
    main()
