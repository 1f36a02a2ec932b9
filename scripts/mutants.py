"""Mutants of the core, the store and the consumers, with their tests.

`scripts/mutate [WORD]` applies them one after the other in a copy of the tree and runs the named tests until the first
failure. WORD selects files by a part of their path. This tree is never changed. A mutant that survives is a missing
test, unless the table says why it behaves the same.

`scripts/mutate --by simulation [WORD]` runs SCHEDULES schedules of tests/simulation instead, for the mutants of the
code that is simulated. It has to find those with `is_simulated`.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PARTS = ("app", "migrations", "scripts", "tests", "pyproject.toml", "setup.cfg")
TIMEOUT_SECS = 60  # a mutant that hangs counts as noticed
SCHEDULES = 1000
SIMULATED = ("edge/", "feed/", "history.py")
MEMORY_BYTES = 4 * 2**30


class Mutant(NamedTuple):
    """A text of a file below app/outfeed, its replacement, and the tests.

    *same* says why no test can notice it. *is_simulated*: the simulator alone finds it in SCHEDULES schedules.
    """

    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    same: str = ""
    is_simulated: bool = False


COHORTS = ("tests/feed/test_cohorts.py", "tests/feed/test_core.py", "tests/feed/test_hub.py")
SUBSCRIBER = ("tests/feed/test_subscriber.py", "tests/feed/test_hub.py", "tests/feed/test_pace.py")
HUB = ("tests/feed/test_hub.py", "tests/feed/test_subscriber.py", "tests/feed/test_another_history.py")
UPLINK = ("tests/edge/test_uplink.py", "tests/edge/test_scripts.py")
RELAY = ("tests/feed/test_relay.py", "tests/feed/test_core.py")
CONSUMERS = ("tests/feed/test_consumers.py", "tests/store/test_checkpoint.py")
CHECKPOINT = ("tests/store/test_checkpoint.py", "tests/consumers")
OUTBOX = ("tests/store/test_source.py", "tests/store/test_outbox.py")

MUTANTS = (
    # --- feed: positions of live clients
    Mutant(
        "feed/cohorts.py",
        "if rest is None or place.cursor > self.position:",
        "if rest is None:",
        COHORTS + SUBSCRIBER,
        is_simulated=True,
    ),
    Mutant(
        "feed/cohorts.py",
        "cohort.position < self.position and cohort.due <= now",
        "cohort.due <= now",
        COHORTS,
        same="at the position the tail has nothing more, and a cohort encodes no batch of nothing",
    ),
    Mutant(
        "feed/cohorts.py",
        "cohort.position == place.cursor and cohort.due >= place.due",
        "cohort.position == place.cursor",
        COHORTS,
        is_simulated=True,
    ),
    Mutant(
        "feed/cohorts.py",
        "            if member.cohort is not cohort:\n                return False\n",
        "",
        (*COHORTS, "tests/feed/test_racing.py"),
        is_simulated=True,
    ),
    Mutant("feed/cohorts.py", "and cohort.position == self.position", "", COHORTS, is_simulated=True),
    Mutant(
        "feed/cohorts.py",
        "            self._check(epoch)\n            return self._tail",
        "            return self._tail",
        SUBSCRIBER + COHORTS,
    ),
    Mutant(
        "feed/cohorts.py", "        if not cohorts:\n            del self._cohorts[cohort.subscription]\n", "", COHORTS
    ),
    Mutant(
        "feed/cohorts.py",
        "prev=batch.last)\n        return True",
        "prev=place.prev)\n        return True",
        SUBSCRIBER + COHORTS,
        is_simulated=True,
    ),
    Mutant("feed/tail.py", "if seq < self.start:", "if seq <= self.start:", COHORTS, is_simulated=True),
    Mutant("feed/tail.py", "self._items[excess - 1].seq", "self._items[excess].seq", COHORTS),
    # --- feed: one connection
    Mutant(
        "feed/subscriber.py",
        "cursor=max(self.place.cursor, self._page_end)",
        "cursor=self._page_end",
        SUBSCRIBER,
        same="a page ends at or behind its last event and the cursor that it was read after",
    ),
    Mutant(
        "feed/subscriber.py",
        "        if self.ending is None:\n            self.ending = ",
        "        if True:\n            self.ending = ",
        SUBSCRIBER + COHORTS,
        is_simulated=True,
    ),
    Mutant(
        "feed/socket_writer.py",
        "self._remainder += frame[sent:]",
        "self._remainder = frame[sent:]",
        ("tests/feed/test_socket_writer.py",),
    ),
    Mutant(
        "feed/socket_writer.py",
        "if self._is_closing or (self._remainder and",
        "if (self._remainder and",
        ("tests/feed/test_socket_writer.py",),
    ),
    Mutant(
        "feed/pace.py",
        "if self._due is None or due < self._due:",
        "if self._due is None or due > self._due:",
        ("tests/feed/test_pace.py",),
        is_simulated=True,
    ),
    # --- feed: reading
    Mutant("feed/relay.py", "if window.last_seq < hub.position:", "if False:", RELAY, is_simulated=True),
    Mutant(
        "feed/relay.py",
        "if window.first_seq > hub.position + 1:",
        "if window.first_seq > hub.position + 2:",
        RELAY,
        is_simulated=True,
    ),
    Mutant(
        "feed/relay.py",
        "        if self._repeats:\n            self.poll()  # another",
        "        if False:\n            self.poll()  # another",
        RELAY,
        is_simulated=True,
    ),
    Mutant(
        "feed/subscription.py",
        "(epoch != window.epoch or (after > head and not window.is_copy))",
        "(epoch != window.epoch and after > head)",
        ("tests/feed/test_subscription.py",),
        is_simulated=True,
    ),
    Mutant(
        "feed/subscription.py",
        "if after < window.first_seq - 1:",
        "if after < window.first_seq:",
        ("tests/feed/test_subscription.py",),
        is_simulated=True,
    ),
    Mutant(
        "feed/page_cache.py",
        "kept.start <= seq < kept.through",
        "kept.start <= seq <= kept.through",
        ("tests/feed/test_page_cache.py",),
        is_simulated=True,
    ),
    Mutant("feed/page_cache.py", "or erasures != self.erasures:", "or False:", ("tests/feed/test_page_cache.py",)),
    Mutant(
        "feed/consumers.py",
        "before = self._release(client)  # so",
        "before: dict[str, _Active] = {}  # so",
        CONSUMERS,
        is_simulated=True,
    ),
    Mutant(
        "feed/subscriber.py",
        "if seq > (self._membership.position if self._membership else self.place.cursor):",
        "if False:",
        (*SUBSCRIBER, "tests/feed/test_consumers.py"),
        is_simulated=True,
    ),
    Mutant(
        "feed/consumers.py",
        "                with self._lock:\n                    self._active |= before\n",
        "                pass\n",
        CONSUMERS,
        is_simulated=True,
    ),
    # --- feed: threads that meet inside a call
    Mutant(
        "feed/hub.py",
        "                    if member.cohort is not cohort:",
        "                    if False:",
        HUB,
        is_simulated=True,
    ),
    Mutant(
        "feed/hub.py",
        "        for client in overtaken:\n            client.ask_to_end(frames.OVERTAKEN, reason)\n",
        "",
        HUB,
        is_simulated=True,
    ),
    Mutant("feed/hub.py", 'Tail(position), "pruning', 'Tail(0), "pruning', HUB, is_simulated=True),
    Mutant(
        "feed/hub.py",
        "Place(each.start, batch.prev, cohort.due))",
        "Place(cohort.position, batch.prev, cohort.due))",
        HUB,
        is_simulated=True,
    ),
    Mutant("feed/hub.py", "if sent == size:", "if sent:", HUB, is_simulated=True),
    Mutant(
        "feed/hub.py",
        "encoding.heartbeat(cohort.position,",
        "encoding.heartbeat(self.position,",
        HUB,
        is_simulated=True,
    ),
    Mutant(
        "feed/cohorts.py",
        "        with self._lock:\n            self._check(epoch)\n            # Pos",
        "        with self._lock:\n            # Pos",
        COHORTS + SUBSCRIBER,
    ),
    Mutant(
        "feed/cohorts.py",
        "            return [client for cohort in list(self._all()) for client in self._remove_members(cohort)]",
        "            return [member.client for cohort in list(self._all()) for member in cohort.members]",
        COHORTS,
        is_simulated=True,
    ),
    Mutant(
        "feed/cohorts.py",
        "at.setdefault((cohort.position, max(cohort.due, now)), cohort)",
        "at.setdefault((0, max(cohort.due, now)), cohort)",
        COHORTS,
        is_simulated=True,
    ),
    Mutant(
        "feed/cohorts.py",
        "Place(start.cursor, batch.prev, start.due) if seq is None",
        "Place(batch.last, batch.last, start.due) if seq is None",
        COHORTS,
        is_simulated=True,
    ),
    Mutant(
        "feed/cohorts.py", "    if unsent:\n        writer.stash_remainder(unsent)\n", "", COHORTS, is_simulated=True
    ),
    Mutant("feed/cohorts.py", "            self._tail.extend(items)\n", "", COHORTS, is_simulated=True),
    Mutant(
        "feed/cohort.py",
        "self.prev = min(self.prev, prev)",
        "self.prev = max(self.prev, prev)",
        COHORTS,
        is_simulated=True,
    ),
    Mutant(
        "feed/cohort.py",
        "self.position = head if is_all else chunk[-1].seq",
        "self.position = head",
        COHORTS,
        is_simulated=True,
    ),
    Mutant("feed/cohort.py", "        self.prev = batch.last\n", "", COHORTS, is_simulated=True),
    Mutant(
        "feed/relay.py",
        "            self._record(page.window.epoch, page.through, page.items)\n",
        "            pass\n",
        RELAY,
        is_simulated=True,
    ),
    Mutant("feed/relay.py", "if window.epoch != hub.epoch:", "if False:", RELAY, is_simulated=True),
    Mutant(
        "feed/relay.py",
        "(window.epoch, window.last_seq, items) if window.last_seq else None",
        "None",
        RELAY,
        is_simulated=True,
    ),
    Mutant("feed/relay.py", "return page.through < window.last_seq", "return False", RELAY, is_simulated=True),
    Mutant(
        "feed/relay.py",
        "                self._repeats = False\n                while self._advance():\n                    pass\n",
        "                while self._advance():\n                    pass\n                self._repeats = False\n",
        RELAY,
        is_simulated=True,
    ),
    Mutant("feed/relay.py", "                self._hub.flush()\n", "", RELAY, is_simulated=True),
    Mutant(
        "feed/relay.py", "return max(rest, wanted_from - clock", "return max(rest, self.wanted_from() - clock", RELAY
    ),
    Mutant(
        "feed/relay.py",
        "        if not self._repeats:\n            return",
        "        if False:\n            return",
        RELAY,
    ),
    Mutant("feed/relay.py", "        if erasures != self._pages.erasures:", "        if False:", RELAY),
    Mutant(
        "feed/reader.py",
        "elif may_sleep:",
        "elif may_sleep and page.window.is_copy:",
        ("tests/feed/test_another_history.py",),
    ),
    Mutant("feed/reader.py", "            page.window.prove(epoch, cursor)\n", "", SUBSCRIBER, is_simulated=True),
    Mutant(
        "feed/reader.py", "        self.catch_up_to(window.epoch, window.last_seq)\n", "", SUBSCRIBER, is_simulated=True
    ),
    Mutant(
        "feed/page_cache.py",
        "window.epoch != kept.epoch or window.last_seq < kept.through",
        "window.last_seq < kept.through",
        ("tests/feed/test_page_cache.py",),
        is_simulated=True,
    ),
    Mutant(
        "feed/subscriber.py",
        "self.epoch, self._page, self.acknowledged = verdict.epoch, [], after",
        "self.epoch, self.acknowledged = verdict.epoch, after",
        SUBSCRIBER,
        is_simulated=True,
    ),
    Mutant(
        "feed/subscriber.py",
        "self._page = self._page[len(chunk) :]",
        "self._page = self._page[len(chunk) + 1 :]",
        SUBSCRIBER,
        is_simulated=True,
    ),
    Mutant(
        "feed/subscriber.py",
        "if self._page and self._erasures == self._core.reader.erasures:",
        "if self._page:",
        SUBSCRIBER,
        is_simulated=True,
    ),
    Mutant(
        "feed/subscriber.py",
        "due = self._leave(ClientState.REPLAYING)",
        "due, self._state = self.place.due, ClientState.REPLAYING",
        SUBSCRIBER,
        is_simulated=True,
    ),
    Mutant(
        "feed/subscriber.py",
        "self.place, self._membership = self._membership.place, None",
        "self._membership = None",
        SUBSCRIBER,
        is_simulated=True,
    ),
    Mutant(
        "feed/socket_writer.py",
        "if self._is_closing or (self._remainder and not self._send_remainder()):",
        "if self._is_closing:",
        ("tests/feed/test_socket_writer.py",),
    ),
    Mutant(
        "feed/socket_writer.py",
        "if self._send_remainder() and not self._is_full:",
        "if self._send_remainder():",
        ("tests/feed/test_socket_writer.py",),
        is_simulated=True,
    ),
    Mutant(
        "feed/pace.py",
        "interval = SLACK / rate\n    was",
        "interval = 0.9 / rate\n    was",
        ("tests/feed/test_pace.py",),
        is_simulated=True,
    ),
    Mutant(
        "feed/pace.py",
        "return min(due, now + SLACK / rate) if rate else 0.0",
        "return 0.0",
        ("tests/feed/test_pace.py",),
        is_simulated=True,
    ),
    Mutant(
        "feed/subscription.py",
        'return Verdict("reset", window.epoch, head, head)',
        'return Verdict("reset", window.epoch, after, head)',
        ("tests/feed/test_subscription.py",),
        is_simulated=True,
    ),
    Mutant("feed/tail.py", "            self.start = self._items[excess - 1].seq\n", "", COHORTS, is_simulated=True),
    Mutant("history.py", "bisect_right(items, seq", "bisect_right(items, seq - 1", COHORTS, is_simulated=True),
    Mutant(
        "feed/consumers.py",
        "            older[0].ask_to_end(frames.SUPERSEDED, _REASON)\n",
        "            pass\n",
        CONSUMERS,
        is_simulated=True,
    ),
    # --- edge: the engine, its failovers and its edges
    Mutant("edge/comparison.py", "if is_published and own_epoch != window.epoch:", "if False:", UPLINK),
    Mutant(
        "edge/comparison.py",
        "if max(held.position, held.target) > window.last_seq:",
        "if False:",
        UPLINK,
        is_simulated=True,
    ),
    Mutant(
        "edge/comparison.py",
        "return ours is not None and ours != held.checksum",
        "return False",
        UPLINK,
        is_simulated=True,
    ),
    Mutant(
        "edge/uplink.py",
        "if window.first_seq > place.position + 1 or {page.window.epoch, window.epoch} != {place.epoch}:",
        "if window.first_seq > place.position + 1:",
        UPLINK,
        is_simulated=True,
    ),
    Mutant(
        "edge/uplink.py",
        "if window.first_seq > place.position + 1 or {page.window.epoch, window.epoch} != {place.epoch}:",
        "if {page.window.epoch, window.epoch} != {place.epoch}:",
        UPLINK,
    ),
    Mutant("edge/uplink.py", " and held.position >= window.first_seq - 1", "", UPLINK, is_simulated=True),
    Mutant(
        "edge/uplink.py",
        "start = max(window.first_seq - 1, newest)",
        "start = window.last_seq",
        UPLINK,
        is_simulated=True,
    ),
    Mutant("edge/uplink.py", "        self._note_published(own, window.epoch)\n", "", UPLINK, is_simulated=True),
    Mutant(
        "edge/scripts.py",
        '"""#!lua flags=allow-oom\nlocal head',
        '"""\nlocal head',
        ("tests/edge/test_scripts.py", "tests/simulation/test_engine.py"),
    ),
    Mutant("edge/stream.py", "if head.position < head.target:", "if False:", UPLINK),
    Mutant(
        "feed/relay.py",
        "            if window.is_copy:\n                return False",
        "            if False:\n                return False",
        ("tests/feed/test_behind.py",),
        is_simulated=True,
    ),
    Mutant(
        "feed/subscription.py",
        "(after > head and not window.is_copy)",
        "after > head",
        ("tests/feed/test_behind.py",),
        is_simulated=True,
    ),
    # --- store
    Mutant(
        "store/outbox.py",
        "through = max(window.last_seq, seq) if is_whole",
        "through = window.last_seq if is_whole",
        OUTBOX,
    ),
    Mutant("store/outbox.py", "WHERE key = 'epoch' AND value = ?", "WHERE key = 'epoch' AND value <> ''", OUTBOX),
    Mutant(
        "store/checkpoint.py",
        "if epoch != found.epoch or seq > found.seq:",
        "if epoch != found.epoch or seq != found.seq:",
        CHECKPOINT,
    ),
    Mutant("store/checkpoint.py", "if limit and count >= limit:", "if limit and count > limit:", CHECKPOINT),
    Mutant(
        "store/checkpoint.py",
        '        " AND reset_epoch IS NOT ?",',
        '        " AND ? IS NOT NULL",',
        ("tests/store/test_checkpoint.py", "tests/consumers", "tests/feed/test_consumers.py"),
    ),
    Mutant(
        "store/commits.py",
        "        self._woken.clear()\n        rest = self._on_commit()\n",
        "        rest = self._on_commit()\n        self._woken.clear()\n",
        ("tests/store/test_commits.py",),
    ),
    Mutant("store/lease.py", "if not is_held or _is_at(file, descriptor):", "if True:", ("tests/store/test_lease.py",)),
    # --- consumers
    Mutant("consumers/api.py", "201 if is_new else 200", "201", ("tests/consumers",)),
    Mutant(
        "consumers/api.py",
        "    _require_name(name)\n    ack = ",
        "    ack = ",
        ("tests/consumers",),
    ),
)


def main(*arguments: str) -> int:
    """Try all mutants with a word in their file's path.

    Returns 1 if one survives that should not.
    """
    if arguments[:2] == ("--by", "simulation"):
        return run(arguments[2:], is_by_simulation=True)
    return run(arguments, is_by_simulation=False)


def run(words: Sequence[str], *, is_by_simulation: bool) -> int:
    """Try the mutants with the first of *words* in their file's path."""
    holes = found = 0
    chosen = [each for each in MUTANTS if "".join(words[:1]) in each.file]
    if is_by_simulation:
        chosen = [each for each in chosen if each.file.startswith(SIMULATED) and not each.same]
    with copy_of_tree() as copy:
        for mutant in chosen:
            began = time.monotonic()
            is_noticed = simulation_finds(copy, mutant) if is_by_simulation else notices(copy, mutant)
            is_hole = not is_noticed and (mutant.is_simulated if is_by_simulation else not mutant.same)
            said = "noticed" if is_noticed else f"survived ({mutant.same})" if mutant.same else "survived"
            holes, found = holes + is_hole, found + is_noticed
            change = mutant.new.strip() or f"without {mutant.old.strip()}"
            said = said.upper() if is_hole else said
            print(f"{time.monotonic() - began:4.0f} s  {said:10} {mutant.file}: {change!r}", flush=True)
    print(f"{found} of {len(chosen)} mutants were noticed.")
    return int(holes > 0)


@contextlib.contextmanager
def copy_of_tree() -> Iterator[Path]:
    """Provide a copy of the parts of the tree that tests need."""
    with tempfile.TemporaryDirectory(prefix="outfeed-mutants-") as folder:
        copy = Path(folder)
        for part in PARTS:
            source = ROOT / part
            (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / part)
        yield copy


def bound_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def notices(copy: Path, mutant: Mutant) -> bool:
    """Return whether the tests fail with the mutant. Restore *copy*."""
    return fails(copy, mutant, ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *mutant.tests])


def simulation_finds(copy: Path, mutant: Mutant) -> bool:
    """Return whether a schedule fails with the mutant. Restore *copy*."""
    command = ["-m", "tests.simulation", "--schedules", str(SCHEDULES), "--no-shrink"]
    return fails(copy, mutant, command, is_hang_noticed=False)


def fails(copy: Path, mutant: Mutant, command: list[str], *, is_hang_noticed: bool = True) -> bool:
    """Return whether Python with *command* fails with the mutant.

    Many schedules without a failure may take longer than the limit. They count as passed.
    """
    path = copy / "app/outfeed" / mutant.file
    original = path.read_text()
    if original.count(mutant.old) != 1:
        raise SystemExit(f"{mutant.file}: must hold {mutant.old!r} once")
    environment = {**os.environ, "PYTHONPATH": str(copy / "app"), "PYTHONDONTWRITEBYTECODE": "1"}
    path.write_text(original.replace(mutant.old, mutant.new))
    try:
        ended = subprocess.run(
            [sys.executable, *command],
            check=False,
            cwd=copy,
            env=environment,
            capture_output=True,
            timeout=TIMEOUT_SECS,
            preexec_fn=bound_memory,
        )
    except subprocess.TimeoutExpired:
        return is_hang_noticed
    finally:
        path.write_text(original)
    if ended.returncode > 1:
        raise SystemExit(ended.stdout.decode() + ended.stderr.decode())
    return ended.returncode != 0  # negative if the process exceeded its memory


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
