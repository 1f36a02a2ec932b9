"""The doctor: rules that check a database and this machine.

Each finding says what is wrong, why it matters and which command fixes it. A *problem* can lose events or stop the
feed. A *note* is worth knowing and does not make the command fail.
"""

from __future__ import annotations

import functools
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from outfeed import clock
from outfeed.config import Settings
from outfeed.errors import QueryCancelled, SchemaMismatch
from outfeed.feature import NOTE, PROBLEM, Feature, Finding, registered
from outfeed.store import adoption, database_file, deadline, files, foreign_schema, migrate, serving, triggers
from outfeed.store import database as db
from outfeed.store.database import Connection, Database
from outfeed.store.high_water_mark import HighWaterMark, renew_epoch_if_behind
from outfeed.store.outbox import Outbox
from outfeed.store.sqlite_errors import translate_errors
from outfeed.upkeep import health

MIN_FREE_BYTES = 256 * 2**20
MAX_AHEAD = timedelta(minutes=1)
# Compiles the triggers with the writer's own SQLite and settings, but executes nothing.
WRITER_CHECK = "EXPLAIN INSERT INTO event_log (id, event_type, source, timestamp) VALUES ('x', 'x.y', 'x', 'x')"


@dataclass(frozen=True, slots=True)
class CheckContext:
    """The objects that the rules check."""

    database: Database
    connection: Connection
    settings: Settings

    def pragma(self, name: str) -> int | str:
        value: int | str = self.connection.execute(f"PRAGMA {name}").fetchone()[0]
        return value

    @property
    def quoted(self) -> str:
        return shlex.quote(str(self.database.path))


def run_checks(database: Database, settings: Settings) -> dict[str, list[Finding]]:
    """Return the findings of each rule, by its name.

    The thread's deadline applies: a rule that exceeds it has a note that says so. The rules of SLOW come last, so that
    a deadline leaves the others complete. Raises DatabaseError if the database can't be read, and AdoptionNeeded if it
    belongs to another program, because a fix would change it.
    """
    adoption.check(database.path, adopt=False)
    with closing(database_file.connect(database.path)) as connection, deadline.enforced(connection):
        context = CheckContext(database, connection, settings)
        found = _quick_findings(context)
        return found | {name: _findings(context, rule) for name, rule in SLOW.items()}


def _quick_findings(context: CheckContext) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for name, rule in RULES.items():
        found[name] = _findings(context, rule)
        if name == "tables" and found[name]:
            return found  # the later rules read the tables
    for feature in registered():
        found |= _findings_of(feature, context.database, context.settings)
    return found


def _findings(context: CheckContext, rule: Callable[[CheckContext], Iterator[Finding]]) -> list[Finding]:
    try:
        with translate_errors(context.database.path):
            return list(rule(context))
    except QueryCancelled:
        return [UNFINISHED]


def _findings_of(feature: Feature, database: Database, settings: Settings) -> dict[str, list[Finding]]:
    try:
        return {name: list(found) for name, found in feature.check_health(database, settings).items()}
    except QueryCancelled:
        return {type(feature).__name__.removesuffix("Feature").lower(): [UNFINISHED]}


def _tables(context: CheckContext) -> Iterator[Finding]:
    try:
        pending = migrate.pending(context.database.path)
    except SchemaMismatch as error:
        yield Finding(PROBLEM, str(error), "this version can't read the newer schema", "pip install --upgrade outfeed")
        return
    if pending:
        yield Finding(
            PROBLEM,
            f"{len(pending)} migrations are pending: {', '.join(pending)}",
            "the code needs tables that are missing",
            "outfeed upgrade",
            lambda: migrate.upgrade(context.database.path),
        )
        return
    known = {row[0] for row in context.connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    for name in ("event_log", "outbox", "outfeed_meta"):
        if name not in known:
            yield _broken_outbox(f"the table {name} is missing", "no event can be written, or none reaches the feed")


def _server(context: CheckContext) -> Iterator[Finding]:
    running, ours = serving.serving(context.database.path), serving.version()
    if running is not None and running.version != ours:
        yield Finding(
            NOTE,
            f"outfeed {running.version} serves this database, and this is {ours}",
            "it runs the old code until it is restarted, and upgrades are refused until then",
            "systemctl restart outfeed",
        )


def _sqlite(_: CheckContext) -> Iterator[Finding]:
    if db.SQLITE_VERSION < (3, 51, 3):
        yield Finding(
            NOTE,
            f"SQLite is {'.'.join(map(str, db.SQLITE_VERSION))}",
            "before 3.51.3 two simultaneous checkpoints can, very rarely, damage a database (sqlite.org/wal.html)",
            "take backups (scripts/backup_feed.py), and install a newer SQLite when your system has it",
        )


def _writers(_: CheckContext) -> Iterator[Finding]:
    """Name the writers that the trigger can refuse.

    Only a writer can check itself.
    """
    yield Finding(
        NOTE,
        "a writer's own SQLite runs the trigger: with trusted_schema=OFF it must be 3.42 or newer, it needs the JSON"
        " functions, and its busy timeout must not be 0",
        "its INSERT fails with 'unsafe use of json_object()', 'no such function' or 'database is locked'",
        f"in the writer's program: {WRITER_CHECK}; it fails if the trigger is refused, and writes nothing",
    )


def _filesystem(context: CheckContext) -> Iterator[Finding]:
    kind = files.filesystem_of(context.database.path.resolve())
    if kind and files.is_remote(kind):
        yield Finding(
            PROBLEM,
            f"the database is on {kind}",
            "its locks and shared memory are not reliable for SQLite: the database will be damaged",
            f"outfeed backup /var/lib/outfeed/{context.database.path.name}, and set OUTFEED_DATABASE to it",
        )


def _integrity(context: CheckContext) -> Iterator[Finding]:
    for (problem,) in context.connection.execute("PRAGMA integrity_check(5)").fetchall():
        if problem != "ok":
            yield Finding(
                PROBLEM,
                f"the database is damaged: {problem}",
                "reads can be wrong, and writes can be lost",
                f"move {context.quoted}, its -wal and -shm away, then outfeed restore FILE, with your newest backup",
            )


def _triggers(context: CheckContext) -> Iterator[Finding]:
    for problem in triggers.problems(context.database):
        yield Finding(
            PROBLEM,
            problem,
            "events can miss the feed or arrive out of order, history can be rewritten, or clients keep revoked "
            "permissions; the cause is a tool that rebuilt the table, or a newer trigger",
            "outfeed doctor --fix",
            lambda: triggers.repair(context.database),
        )


def _missed(context: CheckContext) -> Iterator[Finding]:
    if not triggers.problems(context.database) and (count := triggers.count_missed(context.database)):
        yield Finding(
            PROBLEM,
            f"{count:,} events of the log were never in the outbox",
            "they were written while a trigger was missing; no client has seen them",
            "outfeed doctor --fix",
            lambda: triggers.add_missed(context.database),
        )


def _outbox(context: CheckContext) -> Iterator[Finding]:
    query = "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = 'outbox'"
    sql = str(context.connection.execute(query).fetchone()[0])
    if not re.search(r"\bAUTOINCREMENT\b", sql, re.IGNORECASE):
        yield _broken_outbox("the outbox has no AUTOINCREMENT", "once it is pruned, its seqs are reused")
    if re.search(r"\b(UNIQUE|CHECK|REFERENCES|NOT\s+NULL)\b", sql, re.IGNORECASE) or _unique_indexes(context):
        yield _broken_outbox(
            "the outbox has a constraint that can fail", "INSERT OR IGNORE and OR REPLACE lose its rows"
        )


def _unique_indexes(context: CheckContext) -> bool:
    query = "SELECT count(*) FROM pragma_index_list('outbox') WHERE \"unique\""
    return bool(context.connection.execute(query).fetchone()[0])


def _broken_outbox(what: str, why: str) -> Finding:
    return Finding(PROBLEM, what, why, "outfeed restore FILE, with your newest backup")


def _indexes(context: CheckContext) -> Iterator[Finding]:
    rows = context.connection.execute(
        "SELECT substr(key, 7), value FROM outfeed_meta WHERE key LIKE 'index:%' AND NOT EXISTS"
        " (SELECT 1 FROM sqlite_master WHERE type = 'index' AND name = substr(key, 7))"
    ).fetchall()
    for name, sql in rows:
        yield Finding(
            PROBLEM,
            f"index {name} is missing",
            "queries become slow or fail; the cause is a tool that rebuilt the table",
            "outfeed doctor --fix",
            functools.partial(_execute, context.database, sql),
        )


def _execute(database: Database, sql: str) -> None:
    with database.transaction() as connection:
        connection.execute(sql)


def _null_ids(context: CheckContext) -> Iterator[Finding]:
    (count,) = context.connection.execute("SELECT count(*) FROM event_log WHERE id IS NULL").fetchone()
    if count:
        yield Finding(
            NOTE,
            f"{count:,} events have no id",
            "they can't be shown by id or pruned; they were written before the feed was added",
            f"sqlite3 {context.quoted} 'DELETE FROM event_log WHERE id IS NULL'",  # noqa: S608 - for people
        )


def _journal(context: CheckContext) -> Iterator[Finding]:
    if (mode := context.pragma("journal_mode")) != "wal":
        yield Finding(
            PROBLEM,
            f"journal_mode is {mode}",
            "readers and writers block each other, and commits are noticed late",
            "outfeed doctor --fix",
            lambda: database_file.use_wal(context.database.path),
        )


def _wal(context: CheckContext) -> Iterator[Finding]:
    wal = Path(f"{context.database.path}-wal")
    size = wal.stat().st_size if wal.exists() else 0
    if size > database_file.JOURNAL_SIZE_LIMIT_BYTES:
        _, frames, done = context.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        yield Finding(
            PROBLEM if done < frames else NOTE,
            f"the write-ahead log is {size / 2**20:,.0f} MiB",
            "a read transaction that never ends prevents its reset, and it grows until the disk is full",
            f"lsof {shlex.quote(str(wal))}, and end the reading process",
        )


def _auto_vacuum(context: CheckContext) -> Iterator[Finding]:
    if context.pragma("auto_vacuum") != 2:
        yield Finding(
            NOTE,
            "auto_vacuum is not INCREMENTAL",
            "the file never shrinks; space that pruning frees is only reused",
            f"stop outfeed, then: sqlite3 {context.quoted} 'PRAGMA auto_vacuum = INCREMENTAL; VACUUM'",
        )


def _disk(context: CheckContext) -> Iterator[Finding]:
    folder = context.database.path.resolve().parent
    free, size = shutil.disk_usage(folder).free, context.database.path.stat().st_size
    if free < max(MIN_FREE_BYTES, size):
        yield Finding(
            PROBLEM if free < MIN_FREE_BYTES else NOTE,
            f"{free / 2**20:,.0f} MiB are free in {folder}, for a database of {size / 2**20:,.0f} MiB",
            "when the disk is full no event can be written"
            if free < MIN_FREE_BYTES
            else "a restore needs space for copies",
            f"move other files away from {folder}, then: outfeed prune --older-than-days 30 --dry-run",
        )


def _clock(context: CheckContext) -> Iterator[Finding]:
    row = context.connection.execute("SELECT created_at FROM outbox ORDER BY seq DESC LIMIT 1").fetchone()
    newest = clock.parsed(row[0]) if row else None
    if newest is not None and newest > clock.now() + MAX_AHEAD:
        ahead = newest - clock.now()
        yield Finding(
            PROBLEM,
            f"the newest event was written {ahead / timedelta(hours=1):,.1f} hours from now",
            "the clock was wrong then or is wrong now: pruning deletes too little or too much",
            "timedatectl status",
        )


def _mark(context: CheckContext) -> Iterator[Finding]:
    outbox = Outbox(context.database, context.settings.max_event_bytes)
    mark = HighWaterMark(context.database.path)
    window = outbox.window()
    point = mark.read().get(window.epoch)
    if point is not None and window.last_seq < point.seq:
        yield Finding(
            PROBLEM,
            f"the feed was served up to seq {point.seq:,}, but the database ends at {window.last_seq:,}",
            "a copy was restored by hand, or a power cut lost commits: the same seqs would be used for other events",
            "outfeed doctor --fix",
            lambda: renew_epoch_if_behind(context.database, outbox, mark),
        )


def _secrets(context: CheckContext) -> Iterator[Finding]:
    database, secret = context.database.path, Path(f"{context.database.path}.secret")
    for path, forbidden, verb, change in (
        (database, 0o002, "write to", "o-w"),
        (secret, 0o066, "read or write", "go-rw"),
    ):
        if path.exists() and (mode := path.stat().st_mode) & forbidden:
            yield Finding(
                PROBLEM,
                f"other users of this machine can {verb} {path.name}",
                "a user with that access can sign in as any other user",
                f"chmod {change} {shlex.quote(str(path))}",
                functools.partial(os.chmod, path, mode & 0o777 & ~forbidden),
            )


def _private(context: CheckContext) -> Iterator[Finding]:
    """Report files that other users can read.

    Outfeed creates files with mode 0600. A file that existed before keeps its mode.
    """
    path = context.database.path
    for each in (path, *(Path(f"{path}{suffix}") for suffix in ("-wal", "-shm", ".mark", "-search"))):
        if each.exists() and (mode := each.stat().st_mode & 0o777) & 0o044:
            yield Finding(
                NOTE,
                f"{each.name} has the mode {mode:04o}: other users of this machine can read it",
                "it holds webhook secrets, password hashes and events as they were written",
                f"chmod go-rw {shlex.quote(str(each))}, unless another program's user reads it",
            )


def _foreign(context: CheckContext) -> Iterator[Finding]:
    for each in foreign_schema.find(context.connection):
        if each.is_on_own_table and not foreign_schema.is_known(
            each.name
        ):  # the rule `triggers` reports an altered trigger of Outfeed
            yield Finding(
                NOTE if each.table.lower() == "event_log" else PROBLEM,
                f"{each} is not Outfeed's",
                "it runs in the transaction of each writer, and can change rights or copy secrets into the log",
                f"sqlite3 {context.quoted} 'DROP {each.kind.upper()} \"{each.name}\"', unless you made it",
            )


def _backups(context: CheckContext) -> Iterator[Finding]:
    return health.check(context.database, context.settings)


RULES: dict[str, Callable[[CheckContext], Iterator[Finding]]] = {
    "sqlite": _sqlite,
    "writers": _writers,
    "server": _server,
    "filesystem": _filesystem,
    "disk": _disk,
    "permissions": _secrets,
    "privacy": _private,
    "journal": _journal,
    "auto_vacuum": _auto_vacuum,
    "write-ahead log": _wal,
    "tables": _tables,
    "triggers": _triggers,
    "foreign triggers": _foreign,
    "missed events": _missed,
    "outbox": _outbox,
    "indexes": _indexes,
    "ids": _null_ids,
    "clock": _clock,
    "mark": _mark,
    "backups": _backups,
}
SLOW: dict[str, Callable[[CheckContext], Iterator[Finding]]] = {"integrity": _integrity}
UNFINISHED = Finding(
    NOTE,
    "the check did not end in time",
    "it reads the whole database, and a page has ten seconds for all checks",
    "outfeed doctor, which has no limit",
)
