"""The errors of a measurement."""

from __future__ import annotations


class BenchError(Exception):
    """The base class of all errors of the benchmark."""


class ServerError(BenchError):
    """A program of a checkout failed, or its server did not start."""


class LoadError(BenchError):
    """A client lost its connection or did not get its answers in time."""


class SequenceError(BenchError):
    """An event was missing, repeated or out of order.

    The measurement gives no figure.
    """
