"""Results of checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from outfeed.verify.model import Breach
from outfeed.verify.transports import Rejected, TransportClient


class Result(NamedTuple):
    """The result of one check over one transport.

    *breach* is empty if the server keeps the specification.
    """

    title: str
    sentences: Sequence[str]
    transport: str
    breach: str


def result_of(
    title: str, sentences: Sequence[str], transport: type[TransportClient], run: Callable[[], object]
) -> Result:
    """Return the result of *run*, which raises Breach or Rejected."""
    breach = ""
    try:
        run()
    except Breach as error:
        breach = str(error)
    except Rejected as error:
        breach = f"{sentences[0]}: the subscription is rejected with {error.code}"
    return Result(title, sentences, transport.transport, breach)
