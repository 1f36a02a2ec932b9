"""Full-text search: its matches, and the index after every change."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from outfeed import config
from outfeed.events import Event
from outfeed.log.store import indexer, search
from outfeed.log.store.indexer import Indexer
from outfeed.log.store.reading import list_events
from outfeed.log.store.snippet import Snippet
from outfeed.store import database as db
from outfeed.store import event_log, lease, triggers
from outfeed.store.database import Database
from outfeed.store.outbox import Outbox
from outfeed.upkeep import backup, erasure, retention

# An index of the format before words were split.
FORMER = """
    PRAGMA auto_vacuum = INCREMENTAL;
    CREATE TABLE state (epoch TEXT, renumberings INTEGER, signature TEXT, seq INTEGER, last_rowid INTEGER, last_id);
    CREATE TABLE block (number INTEGER PRIMARY KEY, low, high);
    INSERT INTO block VALUES (0, '2026', '2027');
    CREATE VIRTUAL TABLE words_0 USING fts5(text, content='', tokenize='unicode61 remove_diacritics 2');
    INSERT INTO words_0 (rowid, text) VALUES (1, 'NullPointerException');
"""
Write = Callable[..., None]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexer, "MAX_PAUSE_SECS", 0)


@pytest.fixture
def raw(database: Database) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as connection:
        yield connection
    db.at(search.path_of(database.path)).close()


@pytest.fixture
def write(raw: sqlite3.Connection) -> Write:
    """Return a function that logs one event for each of *data*.

    It writes as a raw writer does. The id of an event is its position.
    """

    def write(*data: Any, **columns: Any) -> None:
        for value in data:
            (count,) = raw.execute("SELECT count(*) FROM outbox").fetchone()
            row = {"id": f"e{count + 1}", "event_type": "a.b", "source": "s", "timestamp": "2026-03-10T12:00:00.000Z"}
            row |= {"data": value if isinstance(value, str | bytes) else json.dumps(value), **columns}
            raw.execute(
                f"INSERT INTO event_log ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", list(row.values())
            )

    return write


def found(text: str) -> list[str]:
    return [event.id for event in list_events(text=text)]


def damage_words(path: Path) -> None:
    """Damage the pages of the words, and no page that the indexer reads."""
    db.at(path).close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as raw:
        (size,) = raw.execute("PRAGMA page_size").fetchone()
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        names = raw.execute("SELECT rootpage FROM sqlite_master WHERE name LIKE 'words%_data'").fetchall()
    with path.open("r+b") as file:
        for (page,) in names:
            file.seek((page - 1) * size)
            file.write(b"\xaa" * size)


def in_index(database: Database, text: str) -> list[int]:
    """Return the rowids that the index itself contains, without the log."""
    index, expression = search.Index(database), search.expression(text)
    assert expression is not None
    return [
        rowid
        for span in index.spans()
        if span.block is not None
        for rowid in index.find(span, expression, 10**6, is_upward=True) or []
    ]


@pytest.fixture(params=["indexed", "not indexed yet"])
def index(request: pytest.FixtureRequest, database: Database) -> Callable[[], None]:
    return Indexer(database).run if request.param == "indexed" else lambda: None


class TestMatches:
    @pytest.mark.parametrize(
        ("text", "ids"),
        [
            ("timeout", ["e2", "e1"]),
            ("TIMEOUT database", ["e1"]),
            ("time*", ["e2", "e1"]),
            ("time", []),
            ("timeout OR memory", ["e3", "e2", "e1"]),
            ("timeout -database", ["e2"]),
            ("timeout NOT database", ["e2"]),
            ("timeout AND database", ["e1"]),
            ("database OR memory reason", ["e1"]),
            ("-timeout", ["e5", "e4", "e3"]),
            ('-"out of memory" -naive -next', ["e2", "e1"]),
            ("NOT timeout -memory naive", ["e4"]),
            ("OR timeout OR", ["e2", "e1"]),
            ("or", []),
            ("worker-7 -worker-8", ["e4"]),
            ('"out of memory"', ["e3"]),
            ('"memory out"', []),
            ('"out of mem"*', ["e3"]),
            ('"out of memory', ["e3"]),
            ("naive", ["e4"]),
            ("worker-7", ["e4"]),
            ("a.b", ["e5", "e4", "e3", "e2", "e1"]),
            ("next line", ["e5"]),
            ("4711", ["e5"]),
            ("reason", ["e2", "e1"]),
            ("日本*", ["e5"]),
            ("***", []),
            ("", []),
            (" - ", []),
        ],
    )
    def test_words_phrases_and_prefixes_are_found(
        self, write: Write, index: Callable[[], None], text: str, ids: list[str]
    ) -> None:
        write({"reason": "Timeout of the database"}, {"reason": "timeout"}, ["ran out of memory"])
        write({"name": "Naïve"}, source="worker-7")
        write({"text": "next\nline", "n": [4711, None, True], "日本語": "東京"})
        index()
        assert found(text) == ids

    @pytest.mark.parametrize(
        ("text", "ids"),
        [
            ("数据库", ["cn"]),
            ("据库连接", ["cn"]),
            ("库", ["cn"]),
            ("数据库*", ["cn"]),
            ("数据库连接超时、请稍后重试", ["cn"]),
            ("数库", []),
            ("itgc", ["mixed"]),
            ("重跑gen-itgc后50条", ["mixed"]),
            ("跑gen", ["mixed"]),
            ("50", ["mixed"]),
            ("ไทย", ["th"]),
            ("서버", ["kr"]),
            ("Exception", ["java"]),
            ("exception", ["java"]),
            ("pointer", ["java"]),
            ("NullPointerException", ["java"]),
            ("nullpointerexception", ["java"]),
            ('"nullpointerexception was thrown"', ["java"]),
            ('"PointerException was"', ["java"]),
            ("nullpoint*", ["java"]),
            ("pointerexception", []),
            ("retry", ["snake"]),
            ("max_retry_count", ["snake"]),
            ("sha", ["snake"]),
            ("256", ["snake"]),
            ("utf8mb4", ["snake"]),
            ("ERRLOG", ["snake"]),
            ("👍", ["emoji"]),
            ("🎉", ["emoji"]),
            ("❤", ["emoji"]),
            ("👎", []),
            ("uberprufung", ["de"]),
            ("prufung", ["de"]),
            ("0190a2b4-7f2c", ["uuid"]),
            ("7f2c", ["uuid"]),
            ("7", []),
        ],
    )
    def test_parts_of_words_and_of_scripts_without_spaces_are_found(
        self, write: Write, index: Callable[[], None], text: str, ids: list[str]
    ) -> None:
        write({"message": "数据库连接超时、请稍后重试"}, id="cn")
        write("重跑gen-itgc后50条", id="mixed")
        write("ภาษาไทยง่าย", id="th")
        write("서버가 죽었다", id="kr")
        write({"error": "java.lang.NullPointerException was thrown"}, id="java")
        write({"max_retry_count": "sha256 utf8mb4", "a.b-errLOG": None}, id="snake")
        write("well done 👍🏽🎉, ❤️", id="emoji")
        write("ÜberPrüfung", id="de")
        write({"ref": "0190a2b4-7f2c-7d3e-8a1b-b7c41d2a9e03"}, id="uuid")
        index()
        assert found(text) == ids

    @pytest.mark.parametrize("length", [21_000, 60_000])
    def test_the_last_word_of_a_long_event_is_found(self, write: Write, index: Callable[[], None], length: int) -> None:
        write({"message": "hay " * (length // 4) + "needle"}, ["hay"] * (length // 7) + ["needle"])
        index()
        assert found("needle") == ["e2", "e1"]

    def test_deeply_nested_values_are_found(self, write: Write, index: Callable[[], None]) -> None:
        write('{"a":' * 400 + '"needle"' + "}" * 400)
        index()
        assert found("needle") == ["e1"]

    @pytest.mark.parametrize(
        "text",
        [
            "-",
            "--a",
            "- a",
            '-"',
            "OR",
            "a OR",
            "OR OR -a",
            "NOT",
            "a OR NOT b",
            "··",
            "-··",
            '"',
            '""',
            "AND",
            "a AND",
            "NOT a",
            "NEAR(",
            "(",
            "text:x",
            "^x",
            "a-b",
            "{a}",
            "+",
            "a\0b",
            "\ud800",
            "'",
            "*",
        ],
    )
    def test_no_search_text_is_an_error(self, write: Write, index: Callable[[], None], text: str) -> None:
        write({"a": 1})
        index()
        found(text)

    def test_secrets_are_neither_found_nor_stored_in_the_index(self, database: Database, write: Write) -> None:
        write({"password": "hunter2xyz", "note": "plain"}, "Bearer abcdef1234567890abcdef")
        Indexer(database).run()
        assert found("plain") == ["e1"]
        for secret in ("hunter2xyz", "hunter", "abcdef1234567890abcdef", "hunt*"):
            assert in_index(database, secret) == found(secret) == []
            assert secret.encode() not in files_of(database)
        assert search.snippet_of(list_events()[1], "plain OR hunter2xyz") == Snippet("note: plain", [(6, 11)])

    def test_a_new_redaction_rule_disables_an_older_index(
        self, database: Database, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write({"colour": "green"})
        Indexer(database).run()
        monkeypatch.setenv("OUTFEED_REDACT_KEYS", "colour")
        config.settings.cache_clear()
        assert found("green") == []

    def test_an_index_of_another_format_is_rebuilt(
        self, database: Database, raw: sqlite3.Connection, write: Write
    ) -> None:
        write({"n": "NullPointerException"})
        with contextlib.closing(sqlite3.connect(search.path_of(database.path), isolation_level=None)) as old:
            old.executescript(FORMER)
            state = raw.execute("SELECT value FROM outfeed_meta WHERE key = 'epoch'").fetchone()
            old.execute("INSERT INTO state VALUES (?, 0, 'of format 1', 1, 1, 'e1')", state)
        assert found("pointer") == ["e1"]
        Indexer(database).run()
        assert in_index(database, "pointer") == [1]

    def test_a_malformed_row_does_not_stop_the_indexer(self, database: Database, write: Write) -> None:
        write(b"\xff\x00", "[" * 5000, "{oops", '"\\ud800"', "1e999")
        write({"deep": "enough"}, id="\ud7ff", timestamp="t")
        Indexer(database).run()
        assert found("oops") == ["e3"]
        assert found("enough") == ["\ud7ff"]

    def test_an_event_newer_than_the_index_is_found_at_once(self, database: Database, write: Write) -> None:
        write({"n": "early"})
        Indexer(database).run()
        write({"n": "late"})
        assert found("early") == ["e1"]
        assert found("late") == ["e2"]


def files_of(database: Database) -> bytes:
    path = search.path_of(database.path)
    return b"".join(file.read_bytes() for suffix in ("", "-wal") if (file := Path(f"{path}{suffix}")).exists())


class TestTheIndex:
    def test_the_index_follows_the_outbox_and_has_each_event_once(self, database: Database, write: Write) -> None:
        first, second = Indexer(database), Indexer(database)
        for n in range(3):
            write(*[{"n": "word"}] * 400)
            (first, second)[n % 2].run()
            assert in_index(database, "word") == list(range(1, (n + 1) * 400 + 1))

    def test_only_one_process_runs_the_indexer(self, database: Database, write: Write) -> None:
        write({"n": "word"})
        with lease.hold(lease.lock_file(database.path, indexer.JOB), wait=True):
            Indexer(database).run()
        assert not search.path_of(database.path).exists()

    def test_events_from_before_the_outbox_are_indexed(
        self, database: Database, raw: sqlite3.Connection, write: Write
    ) -> None:
        write({"n": "old"})
        raw.execute("DELETE FROM outbox")
        Indexer(database).run()
        write({"n": "old"}, id="new")
        Indexer(database).run()
        assert in_index(database, "old") == [1, 2]

    @pytest.mark.parametrize("harm", [
        "deleted", "no database", "damaged", "of a name that is not UTF-8", "of another history", "other keys",
    ])  # fmt: skip
    def test_an_unusable_index_is_rebuilt(
        self, database: Database, write: Write, harm: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write({"n": "word", "colour": "green"})
        Indexer(database).run()
        path = search.path_of(database.path)
        db.at(path).close()
        if harm == "deleted":
            path.unlink()
        elif harm == "no database":
            path.write_bytes(b"not a database" * 1000)
        elif harm == "damaged":
            Path(f"{path}-wal").unlink(missing_ok=True)
            path.write_bytes(path.read_bytes()[:4096] + b"\xaa" * 8192)
        elif harm == "of another history":
            Outbox(database, 1000).renew_epoch(Outbox(database, 1000).window().epoch)
        elif harm == "of a name that is not UTF-8":
            path.write_bytes(path.read_bytes().replace(b"CREATE TABLE state", b"CRE\xa0TE TABLE state"))
        else:
            monkeypatch.setenv("OUTFEED_REDACT_KEYS", "colour")
            config.settings.cache_clear()
        assert found("word") == ["e1"]
        for _ in range(3):
            Indexer(database).run()
        assert in_index(database, "word") == [1]
        assert in_index(database, "green") == ([] if harm == "other keys" else [1])
        assert not list(path.parent.glob("*.damaged"))

    def test_damage_that_only_a_search_meets_leads_to_a_rebuild(
        self, database: Database, write: Write, caplog: pytest.LogCaptureFixture
    ) -> None:
        write(*[{"n": "word"}] * 400)
        Indexer(database).run()
        path = search.path_of(database.path)
        damage_words(path)
        before = path.stat().st_ino
        for _ in range(2):
            assert len(found("word")) == 100  # without the index
            Indexer(database).run()
        assert path.stat().st_ino != before
        assert in_index(database, "word") == list(range(1, 401))
        assert "will be rebuilt" in caplog.text
        assert "restore" not in caplog.text

    def test_a_restore_rebuilds_the_index(self, database: Database, write: Write, tmp_path: Path) -> None:
        write({"n": "stays"})
        backup.backup(database, tmp_path / "saved.db")
        write({"n": "after"})
        Indexer(database).run()
        backup.restore(database, tmp_path / "saved.db", by="tests")
        assert found("after") == []
        Indexer(database).run()
        assert in_index(database, "after") == []
        assert found("stays") == ["e1"]

    def test_a_rebuilt_table_rebuilds_the_index(
        self, database: Database, raw: sqlite3.Connection, write: Write
    ) -> None:
        write({"n": "one"}, {"n": "two"}, {"n": "three"})
        Indexer(database).run()
        raw.executescript(
            "CREATE TABLE fresh AS SELECT * FROM event_log WHERE id <> 'e1' ORDER BY rowid; DROP TABLE event_log;"
            "ALTER TABLE fresh RENAME TO event_log"
        )
        triggers.repair(database)
        Indexer(database).run()
        assert found("one") == in_index(database, "one") == []
        assert found("three") == ["e3"]

    def test_an_index_that_missed_pruned_rows_is_rebuilt(
        self, database: Database, raw: sqlite3.Connection, write: Write
    ) -> None:
        write({"n": "one"})
        Indexer(database).run()
        write({"n": "two"}, {"n": "three"})
        raw.execute("DELETE FROM outbox WHERE seq <= 2")
        Indexer(database).run()
        assert in_index(database, "two") == [2]

    def test_a_kill_at_any_moment_leaves_the_index_correct(self, database: Database, write: Write) -> None:
        write(*[{"n": "word"}] * 2000)
        code = (
            "import sys; from pathlib import Path\n"
            "from outfeed.log.store import indexer; from outfeed.store import database as db\n"
            "print(flush=True)\n"
            "indexer.Indexer(db.at(Path(sys.argv[1]))).run(); print(flush=True)"
        )
        for _ in range(2):
            process = subprocess.Popen([sys.executable, "-c", code, str(database.path)], stdout=subprocess.PIPE)
            assert process.stdout is not None
            process.stdout.readline()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
        Indexer(database).run()
        assert in_index(database, "word") == list(range(1, 2001))


class TestDeletions:
    @pytest.fixture
    def run_twice(self, database: Database) -> Callable[[], None]:
        """Return a function that runs the indexer twice.

        The first run waits for more deletions.
        """
        one = Indexer(database)

        def run() -> None:
            one.run()
            one.run()

        return run

    def test_an_erased_event_is_in_neither_file_of_the_index(
        self, database: Database, write: Write, run_twice: Callable[[], None]
    ) -> None:
        write({"n": "keepword"}, {"n": "secretword"})
        run_twice()
        assert found("secretword") == ["e2"]
        assert erasure.erase(database, "e2")
        assert found("secretword") == []
        run_twice()
        assert in_index(database, "secretword") == []
        assert b"secretword" not in files_of(database)
        assert in_index(database, "keepword") == [1]

    def test_the_rowid_of_an_erased_event_may_be_reused(
        self, database: Database, raw: sqlite3.Connection, write: Write, run_twice: Callable[[], None]
    ) -> None:
        write({"n": "first"}, {"n": "second"})
        run_twice()
        raw.execute("DELETE FROM event_log WHERE id = 'e2'")
        write({"n": "third"})
        run_twice()
        assert in_index(database, "second") == []
        assert in_index(database, "third") == [2]
        assert found("third") == ["e3"]

    @pytest.mark.parametrize("left", [0, 1])
    def test_a_new_event_in_a_reused_rowid_is_found_at_once(
        self, database: Database, raw: sqlite3.Connection, write: Write, run_twice: Callable[[], None], left: int
    ) -> None:
        write({"n": "first"}, {"n": "second"})
        run_twice()
        raw.execute("DELETE FROM event_log WHERE rowid > ?", (left,))
        write({"n": "third"})
        assert raw.execute("SELECT max(rowid) FROM event_log").fetchone() == (left + 1,)
        assert found("third") == ["e3"]
        run_twice()
        assert in_index(database, "third") == [left + 1]

    def test_after_a_prune_the_index_is_used_for_the_rest(
        self, database: Database, raw: sqlite3.Connection, write: Write, run_twice: Callable[[], None]
    ) -> None:
        write({"n": "first"}, {"n": "second"})
        run_twice()
        raw.execute("DELETE FROM event_log WHERE rowid = 1")
        assert in_index(database, "second") == [2]

    def test_empty_blocks_are_dropped(
        self, database: Database, raw: sqlite3.Connection, write: Write, run_twice: Callable[[], None]
    ) -> None:
        write({"n": "oldword"})
        raw.execute("INSERT INTO event_log (rowid, id, event_type, source, data, timestamp)"
                    " VALUES (70000, 'far', 'a.b', 's', '\"farword\"', 't')")  # fmt: skip
        run_twice()
        assert [span.block for span in search.Index(database).spans()] == [None, 1, 0, None]
        raw.execute("DELETE FROM event_log WHERE id = 'e1'")
        run_twice()
        assert [span.block for span in search.Index(database).spans()] == [None, 1, None]
        assert b"oldword" not in files_of(database)
        assert raw.execute("SELECT * FROM outfeed_search_stale").fetchall() == []

    def test_a_deletion_during_the_rebuild_of_its_block_is_kept(
        self, database: Database, raw: sqlite3.Connection, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write({"n": "one"}, {"n": "two"})
        one = Indexer(database)
        one.run()
        raw.execute("DELETE FROM event_log WHERE id = 'e1'")
        text_of, deletions = search.text_of, ["DELETE FROM event_log WHERE id = 'e2'"]

        def delete_once(event: Event) -> str:
            while deletions:
                raw.execute(deletions.pop())
            return text_of(event)

        monkeypatch.setattr(indexer, "text_of", delete_once)
        one.run()
        one.run()
        assert deletions == []
        one.run()
        one.run()
        assert in_index(database, "two") == []

    def test_a_prune_leaves_no_word_in_the_index(
        self, database: Database, write: Write, run_twice: Callable[[], None]
    ) -> None:
        write({"n": "ancient"}, timestamp="2020-01-01T00:00:00.000Z")
        event_log.log_event("a.b", "s", data="recent")
        run_twice()
        retention.prune_events(30)
        run_twice()
        assert in_index(database, "ancient") == []
        assert b"ancient" not in files_of(database)
        assert len(in_index(database, "recent")) == 1
