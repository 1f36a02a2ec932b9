"""Pauses of the client are short in its tests."""

import pytest

from outfeed.client import retries


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch):
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECS", 0.001)
