"""An event loop for a test, in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def run_in_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run *work* to its end.

    The test's own thread has the browser's event loop if a page test ran before in the same process.
    """
    with ThreadPoolExecutor(1, "event loop") as thread:
        thread.submit(asyncio.run, work).result()
