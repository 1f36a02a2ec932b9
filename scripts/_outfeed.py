"""What the maintenance scripts beside it share: the checkout's Python and its `outfeed`, from any folder."""

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def enter() -> None:
    """Go on in the checkout's .venv where there is one and this Python lacks what Outfeed needs."""
    venv_python = ROOT / ".venv" / "bin" / "python"
    if importlib.util.find_spec("click") is None and venv_python.exists():
        os.execv(venv_python, [str(venv_python), *sys.argv])
    sys.path.insert(0, str(ROOT / "app"))
