"""Fingerprint of the rules that prepare an event for clients."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from outfeed import credentials, history, nesting, redaction
from outfeed.config import Settings


def fingerprint(settings: Settings) -> str:
    """Return a hash over the settings and the code that prepare events.

    Two processes with the same fingerprint prepare an event to the same bytes.
    """
    parts = [",".join(settings.redact_keys), str(settings.max_event_bytes), _code()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@functools.cache
def _code() -> str:
    modules = (history, redaction, credentials, nesting)
    return "".join(hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest() for module in modules)
