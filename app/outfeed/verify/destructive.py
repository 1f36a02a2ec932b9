"""Destructive checks: a prune, a restore and a kill.

The user gives the commands. Each command runs once, with one reader on every transport.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TypeVar

import httpx

from outfeed import clock
from outfeed.errors import Unreachable
from outfeed.verify.checks import require, require_exactly
from outfeed.verify.model import Breach
from outfeed.verify.results import Result, result_of
from outfeed.verify.server import Reader, VerifiedServer
from outfeed.verify.transports import TRANSPORTS, Rejected, TransportClient

# A restarted server must accept connections within this time.
RESTART_SECS = 60.0
RETRY_SECS = 0.2
Found = TypeVar("Found")
Command = Callable[[], None]
Transport = type[TransportClient]


def check_prune(target: VerifiedServer, prune: Command) -> list[Result]:
    """Check that pruned events are a gap, and that live readers continue."""
    with _readers(target) as readers:
        old = target.write(2)
        for reader in readers.values():
            reader.until(old[-1].seq)
        prune()
        new = target.write(1)

        def go_on(transport: Transport) -> None:
            readers[transport].until(new[0].seq)

        def gap(transport: Transport) -> None:
            with target.reader(transport, after=old[0].seq - 1, epoch=old[0].epoch) as reader:
                require(
                    reader.model.verdict == "gap",
                    "V4",
                    f"the verdict is {reader.model.verdict} after the prune, as if its events were still there",
                )
                reader.until(new[-1].seq)
                require_exactly(reader, new)

        return _results("A live client continues over a prune", ("E1",), go_on) + _results(
            "A pruned cursor is a gap", ("V4", "E1"), gap
        )


def check_restore(target: VerifiedServer, restore: Command) -> list[Result]:
    """Check that a restore ends every connection and resets every cursor."""
    with _readers(target) as readers:
        old = target.write(1)
        for reader in readers.values():
            reader.until(old[0].seq)
        restore()

        def reset(transport: Transport) -> None:
            reader = readers[transport]
            epoch = reader.model.epoch
            reader.until_another_verdict_or_end("E10")
            require(reader.code in (None, 4008, 1012), "E10", f"the connection ended with {reader.code}")
            with _again(target, transport, old[0].seq, epoch) as found:
                require(found.model.verdict == "reset", "V3", f"the verdict is {found.model.verdict} after the restore")
                new = target.write(1)
                found.until(new[0].seq)
                require_exactly(found, new)

        return _results("A restore resets every client", ("E10", "V3"), reset)


def check_kill(target: VerifiedServer, kill: Command) -> list[Result]:
    """Check that a kill loses no event and repeats none."""
    with _readers(target) as readers:
        probes = target.write(2)
        for reader in readers.values():
            reader.until(probes[0].seq)
        kill()
        probes += _patiently(lambda: target.write(2))

        def resume(transport: Transport) -> None:
            reader = readers[transport]
            with _again(target, transport, reader.model.cursor, reader.model.epoch) as resumed:
                resumed.until(probes[-1].seq)
                seqs = [*reader.seqs, *resumed.seqs]
                require(seqs == [probe.seq for probe in probes], "E1", f"received {seqs}")

        return _results("A kill loses and repeats nothing", ("E1", "V5"), resume)


def _results(title: str, sentences: tuple[str, ...], run: Callable[[Transport], None]) -> list[Result]:
    return [result_of(title, sentences, each, functools.partial(run, each)) for each in TRANSPORTS]


@contextlib.contextmanager
def _readers(target: VerifiedServer) -> Iterator[dict[Transport, Reader]]:
    """Connect one reader over each transport."""
    with ExitStack() as stack:
        yield {each: stack.enter_context(target.reader(each)) for each in TRANSPORTS}


@contextlib.contextmanager
def _again(target: VerifiedServer, transport: Transport, after: int, epoch: str) -> Iterator[Reader]:
    """Connect once the server accepts connections."""
    with ExitStack() as stack:
        yield _patiently(lambda: stack.enter_context(target.reader(transport, after=after, epoch=epoch)))


def _patiently(call: Callable[[], Found]) -> Found:
    """Repeat *call* until the server answers. Raises Breach."""
    end = clock.monotonic() + RESTART_SECS
    while True:
        try:
            return call()
        except (OSError, Unreachable, Rejected, httpx.TransportError) as error:
            if clock.monotonic() > end:
                raise Breach("E1", f"the server does not answer: {error}") from None
        time.sleep(RETRY_SECS)
