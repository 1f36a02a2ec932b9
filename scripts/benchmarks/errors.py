"""What can go wrong with a measurement.

BenchError
├── ServerError      a server did not start, or ended too early
├── LoadError        the load client lost its connections or did not answer in time
└── SequenceError    an event was missing, twice, or out of order: there is no figure
"""

from __future__ import annotations


class BenchError(Exception):
    """The root of all errors here."""


class ServerError(BenchError):
    """A server did not start, or ended too early."""


class LoadError(BenchError):
    """The load client lost its connections or did not answer in time."""


class SequenceError(BenchError):
    """An event was missing, twice, or out of order."""
