"""Archives: events of the log as gzipped NDJSON, with a SHA-256 file each.

They can be read back into a new database. A file gets its final name once it is complete and on the disk. One line is
one row, with the API's names. `raw` holds the values that JSON can't represent exactly (BLOBs, bytes that are not
UTF-8, `data` in another spelling), as [storage class, hex].
"""

from __future__ import annotations

import fcntl
import glob
import gzip
import hashlib
import itertools
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

from outfeed.errors import BadArchive
from outfeed.nesting import MAX_DEPTH, is_deep
from outfeed.store import database_file, files, lease, migrate, schema
from outfeed.store.adoption import EVENT_LOG_COLUMNS
from outfeed.store.database import Connection
from outfeed.store.sqlite_errors import translate_errors

SUFFIX = ".ndjson.gz"
CHECKSUM_SUFFIX = ".sha256"
PARTIAL_SUFFIX = ".partial"
MAX_EVENTS = 50_000
MAX_BYTES = 64 * 2**20
# Limit for one event as JSON. A hostile archive can use a multiple of it in memory.
MAX_LINE_BYTES = 16 * 2**20
_BATCH_ROWS = 1000
MIN_INTEGER, MAX_INTEGER = -(2**63), 2**63 - 1


class Key(NamedTuple):
    """Identity of an archived row.

    The bytes of the id protect a table whose rows were renumbered since.
    """

    rowid: int
    id: bytes | None


class _Text(bytes):
    """A value of SQLite's storage class TEXT, with any bytes.

    Plain bytes are a BLOB.
    """


# --- writing ----------------------------------------------------------------------------------------------------------


class Archive:
    """The files of one prune, in one folder.

    `add` rows, then `finish`. Only then may the caller delete the rows.
    """

    def __init__(self, database: Path, folder: Path, now: datetime) -> None:
        self.paths: list[Path] = []
        self._database = database
        self._folder = folder
        self._stem = f"{database.stem}-{now:%Y%m%dT%H%M%S}Z"
        self._segment: _Segment | None = None
        with files.translate_os_errors(f"use the archive folder {folder}"):
            files.make_folder(folder)
            self._remove_abandoned()

    def _remove_abandoned(self) -> None:
        """Remove the partial files of killed prunes.

        The rows of these files are still in the log. Removes nothing while another prune writes here: two databases may
        have the same name or names with the same beginning.
        """
        stem = glob.escape(self._database.stem)
        for partial in self._folder.glob(f"{stem}-*{PARTIAL_SUFFIX}"):
            with lease.hold(partial, wait=False) as is_abandoned:
                if not is_abandoned:
                    return
                partial.unlink()
        for checksum in self._folder.glob(f"{stem}-*{SUFFIX}{CHECKSUM_SUFFIX}"):
            if not checksum.with_suffix("").exists():
                checksum.unlink()

    def add(self, rowids: Sequence[int]) -> list[Key]:
        """Write the log's rows with these rowids. Return the keys of those found."""
        with files.translate_os_errors(f"write to the archive folder {self._folder}"):
            if self._segment is None:
                self._segment = _Segment(self._folder / f"{self._stem}-{secrets.token_hex(8)}{PARTIAL_SUFFIX}")
            rows = _read(self._database, rowids)
            for row in rows:
                self._segment.write(_line(row[1:]))
        return [Key(row[0], None if row[1] is None else bytes(row[1])) for row in rows]

    @property
    def is_full(self) -> bool:
        """Return whether the current file is large enough to be finished."""
        segment = self._segment
        return segment is not None and (segment.events >= MAX_EVENTS or segment.size >= MAX_BYTES)

    def finish(self) -> None:
        """Write the added rows to the disk under a final name.

        Never overwrites a file.
        """
        if self._segment is not None:
            with files.translate_os_errors(f"write to the archive folder {self._folder}"):
                self.paths.append(self._segment.finish(self._names()))
            self._segment = None

    def close(self) -> None:
        """Discard the rows that were not finished."""
        if self._segment is not None:
            self._segment.discard()

    def _names(self) -> Iterator[Path]:
        first = len(self.paths) + 1
        return (self._folder / f"{self._stem}-{number:04d}{SUFFIX}" for number in itertools.count(first))


class _Segment:
    """One file that is being written.

    It stays locked until it is complete, so that no other prune removes it as abandoned.
    """

    def __init__(self, path: Path) -> None:
        self.events = 0
        self.size = 0
        self._path = path
        files.make_private(path)
        self._raw: IO[bytes] = path.open("r+b")
        fcntl.flock(self._raw, fcntl.LOCK_EX)
        self._zipped = gzip.GzipFile(filename="", mode="wb", fileobj=self._raw, compresslevel=6)

    def write(self, line: bytes) -> None:
        self._zipped.write(line)
        self.events += 1
        self.size += len(line)

    def finish(self, names: Iterator[Path]) -> Path:
        self._zipped.close()
        self._raw.flush()
        os.fsync(self._raw.fileno())
        digest = _digest(self._path)
        # The checksum comes first, so that each archive has one from the moment it appears.
        path = next(path for path in names if not path.exists() and _create_checksum(path, digest))
        self._path.rename(path)
        self._raw.close()
        files.sync(path.parent)
        return path

    def discard(self) -> None:
        with suppress(OSError):
            self._zipped.close()
        self._raw.close()
        self._path.unlink(missing_ok=True)


def _create_checksum(path: Path, digest: str) -> bool:
    """Write the checksum file of *path* in the format of `sha256sum`.

    Returns False if another archive has a checksum file there.
    """
    target = _checksum_path(path)
    try:
        files.make_private(target)
    except FileExistsError:
        return False
    target.write_text(f"{digest}  {path.name}\n", "ascii")
    files.sync(target)
    return True


def _checksum_path(path: Path) -> Path:
    return path.with_name(path.name + CHECKSUM_SUFFIX)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(database: Path, rowids: Sequence[int]) -> list[tuple[Any, ...]]:
    # A connection of its own returns TEXT unchanged, even if it is not UTF-8.
    with closing(database_file.connect(database)) as connection, translate_errors(database):
        connection.text_factory = _Text
        marks = ",".join("?" * len(rowids))
        return connection.execute(
            f"SELECT rowid, {', '.join(EVENT_LOG_COLUMNS)} FROM event_log WHERE rowid IN ({marks}) ORDER BY rowid",  # noqa: S608
            rowids,
        ).fetchall()


def _line(values: Sequence[Any]) -> bytes:
    fields: dict[str, Any] = {}
    raw: dict[str, list[str]] = {}
    for name, value in zip(EVENT_LOG_COLUMNS, values, strict=True):
        try:
            fields[name] = _as_json(name, value)
        except (ValueError, RecursionError):
            fields[name] = None
            raw[name] = ["text" if isinstance(value, _Text) else "blob", bytes(value).hex()]
    return json.dumps(fields | ({"raw": raw} if raw else {}), ensure_ascii=False).encode() + b"\n"


def _as_json(name: str, value: Any) -> Any:
    """Return *value* as JSON represents it.

    Raises ValueError if JSON would change it.
    """
    if not isinstance(value, bytes):
        return value
    if not isinstance(value, _Text):
        raise ValueError("a BLOB")  # noqa: TRY004 - the value is wrong, not its type in the call
    text = value.decode()
    if name != "data":
        return text
    parsed = json.loads(text)
    if parsed is None or is_deep(parsed) or _compact(parsed) != text:
        raise ValueError("another spelling")
    return parsed


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


# --- reading ----------------------------------------------------------------------------------------------------------


def import_archives(paths: Iterable[Path], into: Path) -> int:
    """Create a database at *into* with the archives' events.

    Returns their number. Either all events are imported or no database is created. As in an adopted database, the
    events are in the log but not in the feed. An event that is in several archives is imported once. Raises BadArchive
    if a checksum does not match or if *into* exists.
    """
    if into.exists():
        raise BadArchive(f"{into} exists; archives can only be imported into a new database")
    with files.translate_os_errors(f"make {into}"):
        files.make_folder(into.parent)
        fresh = into.with_name(f"{into.name}.{os.getpid()}{PARTIAL_SUFFIX}")
        fresh.unlink(missing_ok=True)
        files.make_private(fresh)
    try:
        count = _fill(fresh, paths)
        # It has no side files: the last connection to close removes them.
        with files.translate_os_errors(f"make {into}"):
            files.sync(fresh)
            os.link(fresh, into)
            files.sync(into.parent)
    finally:
        for suffix in ("", "-wal", "-shm", ".lock"):
            Path(f"{fresh}{suffix}").unlink(missing_ok=True)
    return count


def _fill(fresh: Path, paths: Iterable[Path]) -> int:
    database_file.create(fresh)
    with closing(database_file.connect(fresh)) as connection, translate_errors(fresh):
        for statement in schema.statements("0001.event-log"):
            connection.execute(statement)
        for path in paths:
            for batch in _batches(path):
                _insert(connection, batch)
        (count,) = connection.execute("SELECT count(*) FROM event_log").fetchone()
    # The log was there before the feed, as in an adopted database: its events are listed, not replayed.
    migrate.upgrade(fresh, adopt=True)
    return int(count)


def _insert(connection: Connection, rows: list[list[Any]]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    # Bytes that were TEXT are cast to TEXT: Python's sqlite3 can't bind text that is not UTF-8.
    values = ", ".join(["CASE WHEN ? THEN CAST(? AS TEXT) ELSE ? END"] * len(EVENT_LOG_COLUMNS))
    connection.executemany(
        f"INSERT OR IGNORE INTO event_log ({', '.join(EVENT_LOG_COLUMNS)}) VALUES ({values})",  # noqa: S608
        (
            [part for value in row for part in (isinstance(value, _Text), _as_bytes(value), _as_bytes(value))]
            for row in rows
        ),
    )
    connection.execute("COMMIT")


def _as_bytes(value: Any) -> Any:
    return bytes(value) if isinstance(value, bytes) else value


def _batches(path: Path) -> Iterator[list[list[Any]]]:
    """Yield the rows of an archive in lists limited in rows and bytes."""
    _verify_checksum(path)
    rows: list[list[Any]] = []
    size = 0
    try:
        for number, line in enumerate(_lines(path), 1):
            rows.append(_row(_fields_of(line, f"line {number}")))
            size += len(line)
            if len(rows) >= _BATCH_ROWS or size >= MAX_LINE_BYTES:
                yield rows
                rows, size = [], 0
    except (OSError, EOFError, ValueError, TypeError, KeyError) as error:
        raise BadArchive(f"{path} is not an archive of events: {error or type(error).__name__}") from error
    yield rows


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the lines, each cut to one byte over the limit."""
    with gzip.open(path, "rb") as file:
        while line := file.readline(MAX_LINE_BYTES + 1):
            yield line


def _fields_of(line: bytes, name: str) -> Any:
    """Return the JSON of a line.

    Raises ValueError, also if the line would need too much memory or stack.
    """
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(f"{name} has more than {MAX_LINE_BYTES:,} bytes")
    try:
        fields = json.loads(line)
    except RecursionError:
        raise ValueError(f"{name} is nested too deeply") from None
    if is_deep(fields, MAX_DEPTH + 1):
        raise ValueError(f"{name} is nested too deeply")
    return fields


def _verify_checksum(path: Path) -> None:
    """Compare the file with its checksum file. Raises BadArchive."""
    with files.translate_os_errors(f"read the archive {path}"):
        found = _digest(path)
    try:
        expected = _checksum_path(path).read_text("ascii").split()[0]
    except (OSError, ValueError, IndexError):
        raise BadArchive(f"{path} has no checksum file ({_checksum_path(path).name})") from None
    if found != expected:
        raise BadArchive(f"{path} was changed after it was written: its SHA-256 is {found}, expected {expected}")


def _row(fields: Any) -> list[Any]:
    raw = fields.get("raw", {}) if isinstance(fields, dict) else None
    if not isinstance(raw, dict):
        raise TypeError("a line is not an event")
    return [_value(name, fields[name], raw.get(name)) for name in EVENT_LOG_COLUMNS]


def _value(name: str, value: Any, raw: list[str] | None) -> Any:
    if raw is not None:
        kind, content = raw
        return _Text(bytes.fromhex(content)) if kind == "text" else bytes.fromhex(content)
    return _storable(name, _compact(value) if name == "data" and value is not None else value)


def _storable(name: str, value: Any) -> Any:
    """Return *value* if SQLite can store it. Raises ValueError, TypeError."""
    if isinstance(value, dict | list):
        raise TypeError(f"{name} is neither text nor a number")
    if isinstance(value, int) and not MIN_INTEGER <= value <= MAX_INTEGER:
        raise ValueError(f"{name} is beyond SQLite's integers")
    if isinstance(value, str):
        value.encode()  # a lone surrogate is a ValueError
    return value
