"""Helper of the maintenance scripts: finds the checkout's package."""

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def enter() -> None:
    """Restart in the checkout's .venv if this Python lacks Outfeed's packages.

    Does nothing without a .venv.
    """
    venv_python = ROOT / ".venv" / "bin" / "python"
    if importlib.util.find_spec("click") is None and venv_python.exists():
        os.execv(venv_python, [str(venv_python), *sys.argv])
    sys.path.insert(0, str(ROOT / "app"))
