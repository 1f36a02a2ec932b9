"""The folder of backups: made, listed, opened and checked."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from freezegun import freeze_time

from outfeed import clock, list_events, log_event
from outfeed.config import Settings
from outfeed.errors import AlreadyRunning, ConfigError, DatabaseMissing, OutfeedError, UnknownName
from outfeed.store import lease
from outfeed.store.database import Database
from outfeed.upkeep import backups, doctor, health, maintenance
from outfeed.upkeep.backup_job import BackupJob, is_due
from outfeed.upkeep.feature import UpkeepFeature
from tests import forked
from tests.upkeep import killed_backup

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "backups"
    made.mkdir()
    return made


def settings_of(database: Database, folder: Path | None, every: float = 24, keep: int = 3) -> Settings:
    return Settings(database=database.path, backup_dir=folder, backup_every_hours=every, backup_keep=keep)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def at(hour: float) -> datetime:
    return NOON + timedelta(hours=hour)


class TestMake:
    def test_a_backup_has_the_time_in_its_name_and_an_event_with_the_principal(
        self, database: Database, folder: Path
    ) -> None:
        log_event("a.b", "tests")
        with freeze_time(NOON):
            made = backups.make(database, folder, 3, by="ann")

        assert made.path == folder / "outfeed-20260501T120000Z.db"
        assert names(folder) == [made.path.name]
        (event,) = list_events("system.backed_up")
        assert event.data == {
            "message": "Backed up 1 event to outfeed-20260501T120000Z.db", "by": "ann",
            "backup": made.path.name, "events": 1, "bytes": made.path.stat().st_size,
        }  # fmt: skip

    def test_the_newest_are_kept_and_other_files_stay(self, database: Database, folder: Path) -> None:
        others = ["outfeed-20200101T000000.db", "outfeed-2020.db", "other-20200101T000000Z.db", "notes.txt"]
        for name in others:
            (folder / name).touch()
        (folder / "outfeed-20200101T000000Z.db").symlink_to(folder / "notes.txt")
        for hour in range(4):
            with freeze_time(at(hour)):
                made = backups.make(database, folder, 2, by="tests")

        assert made.removed == ["outfeed-20260501T130000Z.db"]
        own = [each.name for each in backups.list_backups(database, folder)]
        assert own == ["outfeed-20260501T150000Z.db", "outfeed-20260501T140000Z.db"]
        assert names(folder) == sorted([*others, "outfeed-20200101T000000Z.db", *own])

    def test_a_backup_by_a_clock_that_was_set_back_stays(self, database: Database, folder: Path) -> None:
        for hour in (0, 1, -5):
            with freeze_time(at(hour)):
                made = backups.make(database, folder, 1, by="tests")

        assert made.path.name in names(folder)

    def test_backups_of_the_future_are_removed_before_older_ones(self, database: Database, folder: Path) -> None:
        for year in (2998, 2999):
            (folder / f"outfeed-{year}0101T000000Z.db").touch()
        kept = []
        for hour in range(3):
            with freeze_time(at(hour)):
                backups.make(database, folder, 3, by="tests")
            kept.append([name[8:12] for name in names(folder)])

        assert kept == [["2026", "2998", "2999"], ["2026", "2026", "2999"], ["2026", "2026", "2026"]]

    def test_a_partial_copy_that_can_not_be_removed_prevents_no_backup(self, database: Database, folder: Path) -> None:
        (folder / ".outfeed-20260501T110000Z.db.7.partial").mkdir()
        job = BackupJob(database, settings_of(database, folder))
        with freeze_time(NOON):
            job.run()

        assert "outfeed-20260501T120000Z.db" in names(folder)

    def test_a_failed_backup_removes_nothing(
        self, database: Database, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with freeze_time(NOON):
            backups.make(database, folder, 1, by="tests")
        before = names(folder)

        def fail(_: int, __: int) -> None:
            raise OSError(28, "No space left on device")

        with freeze_time(at(1)), pytest.raises(OutfeedError, match="No space left"):
            backups.make(database, folder, 1, by="tests", on_progress=fail)

        assert names(folder) == before
        run = maintenance.runs(database)["backup"]
        assert (run.has_failed, run.failures) == (True, 1)
        assert "No space left" in str(run.error)

    def test_two_backups_do_not_run_at_once(self, database: Database, folder: Path) -> None:
        with lease.hold(lease.lock_file(database.path, backups.JOB), wait=False):
            assert backups.is_running(database)
            with pytest.raises(AlreadyRunning):
                backups.make(database, folder, 1, by="tests")
        assert not backups.is_running(database)

    def test_a_missing_database_is_named_and_no_lock_file_is_left(self, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(DatabaseMissing):
            backups.make(Database(tmp_path / "none" / "outfeed.db"), folder, 1, by="tests")

    def test_a_killed_backup_leaves_no_half_file_under_a_good_name(
        self, database: Database, folder: Path, tmp_path: Path
    ) -> None:
        for n in range(50):
            log_event("a.b", "tests", data="x" * 5000, id=f"of-{n}")

        def made_until(last: int) -> int | None:
            process = forked.context.Process(
                target=killed_backup.make, args=(database.path, folder, last, tmp_path / "told")
            )
            process.start()
            process.join()
            return process.exitcode

        assert made_until(10_000) == 0
        statements = int((tmp_path / "told").read_text())
        left = 0
        for last in [*range(1, statements, max(1, statements // 8)), statements]:
            assert made_until(last) == -signal.SIGKILL
            left += len([name for name in names(folder) if name.endswith(".partial")])
            for each in backups.list_backups(database, folder):
                with closing(sqlite3.connect(folder / each.name)) as copy:
                    assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                    assert copy.execute("SELECT count(*) FROM event_log WHERE source = 'tests'").fetchone() == (50,)

        assert left > 0, "no kill fell into a copy"
        made = backups.make(database, folder, 5, by="tests")
        assert made.path.name in names(folder)
        assert not [name for name in names(folder) if not name.endswith("Z.db")]


class TestOpen:
    @pytest.fixture
    def made(self, database: Database, folder: Path) -> Path:
        return backups.make(database, folder, 3, by="tests").path

    def test_a_listed_backup_is_opened(self, database: Database, folder: Path, made: Path) -> None:
        with backups.open_backup(database, folder, made.name) as file:
            assert file.read() == made.read_bytes()

    @pytest.mark.parametrize(
        "name",
        [
            "../outfeed.db", "/etc/passwd", "..", "", ".", "outfeed.db", "outfeed-20260501T120000Z.db",
            "outfeed-20260501T120000Z.db\n", "../backups/outfeed-20260501T120000Z.db", "\0", "outfeed-2026x.db",
            "outfeed-99999999T999999Z.db",
        ],
    )  # fmt: skip
    def test_any_other_name_is_unknown(self, database: Database, folder: Path, made: Path, name: str) -> None:
        with pytest.raises(UnknownName):
            backups.open_backup(database, folder, name)

    def test_links_and_special_files_are_not_opened_and_not_listed(
        self, database: Database, folder: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "private").write_text("private")
        (folder / "outfeed-20260501T000000Z.db").symlink_to(tmp_path / "private")
        os.link(database.path, folder / "outfeed-20260502T000000Z.db")
        os.mkfifo(folder / "outfeed-20260503T000000Z.db")
        (folder / "outfeed-20260504T000000Z.db").mkdir()

        for day in (1, 2, 3, 4):
            with pytest.raises(UnknownName):
                backups.open_backup(database, folder, f"outfeed-2026050{day}T000000Z.db")
        assert [each.name for each in backups.list_backups(database, folder)] == ["outfeed-20260502T000000Z.db"]


class TestSchedule:
    def test_a_backup_is_due_by_the_newest_file(self, database: Database, folder: Path) -> None:
        settings = settings_of(database, folder, every=6)
        with freeze_time(NOON):
            assert is_due(database, settings)
            backups.make(database, folder, 3, by="tests")
            assert not is_due(database, settings)
        with freeze_time(at(5.9)):
            assert not is_due(database, settings)
        with freeze_time(at(6)):
            assert is_due(database, settings)

    def test_a_file_of_the_future_does_not_stop_the_schedule(self, database: Database, folder: Path) -> None:
        (folder / "outfeed-29990101T000000Z.db").touch()
        settings = settings_of(database, folder)
        with freeze_time(NOON):
            assert is_due(database, settings)
            backups.make(database, folder, 3, by="tests")
            assert not is_due(database, settings)

    def test_the_schedule_waits_after_a_failure(self, database: Database, folder: Path) -> None:
        settings = settings_of(database, folder)
        with freeze_time(NOON), pytest.raises(ValueError, match="full"), maintenance.recorded(database, "backup"):
            raise ValueError("full")

        with freeze_time(at(0.1)):
            assert not is_due(database, settings)
        with freeze_time(at(0.2)):
            assert is_due(database, settings)
        with freeze_time(at(-10)):
            assert is_due(database, settings), "a clock that was set back does not stop the schedule"

    def test_without_hours_or_folder_nothing_is_due(self, database: Database, folder: Path) -> None:
        assert not is_due(database, settings_of(database, folder, every=0))
        assert not is_due(database, settings_of(database, None, every=0))
        assert BackupJob(database, settings_of(database, None, every=0)).jobs == {}

    def test_the_job_makes_what_is_due_and_what_is_requested(self, database: Database, folder: Path) -> None:
        with freeze_time(NOON) as frozen:
            job = BackupJob(database, settings_of(database, folder))
            job.run()
            assert len(names(folder)) == 1
            frozen.tick(1)
            job.run()
            assert len(names(folder)) == 1
            job.request("ann")
            job.run()
            assert len(names(folder)) == 2
            assert not job.is_requested

        assert [event.data["by"] for event in list_events("system.backed_up")] == ["ann", "schedule"]

    def test_a_requested_backup_waits_for_another_process(self, database: Database, folder: Path) -> None:
        job = BackupJob(database, settings_of(database, folder, every=0))
        job.request("ann")
        with lease.hold(lease.lock_file(database.path, backups.JOB), wait=False):
            job.run()
            assert job.is_requested
        job.run()
        assert len(names(folder)) == 1

    def test_a_stop_cancels_a_running_backup(self, database: Database, folder: Path) -> None:
        job = BackupJob(database, settings_of(database, folder))
        job.stop()
        job.run()

        assert names(folder) == []
        assert "backup" not in maintenance.runs(database), "a stop is not a failure"

    def test_a_missing_folder_is_a_failure_that_is_counted(self, database: Database, tmp_path: Path) -> None:
        job = BackupJob(database, settings_of(database, tmp_path / "none"))
        job.run()

        run = maintenance.runs(database)["backup"]
        assert run.failures == 1
        assert "there is no folder" in str(run.error)

    def test_hours_without_a_folder_are_an_error(self, database: Database) -> None:
        with pytest.raises(ConfigError, match="OUTFEED_BACKUP_EVERY_HOURS: needs OUTFEED_BACKUP_DIR"):
            UpkeepFeature().check(settings_of(database, None))


class TestHealth:
    def found(self, database: Database, settings: Settings) -> list[str]:
        return [finding.what for finding in health.check(database, settings)]

    def test_without_a_folder_nothing_is_reported(self, database: Database) -> None:
        assert self.found(database, settings_of(database, None, every=0)) == []

    def test_a_late_backup_is_a_problem_for_doctor(self, database: Database, folder: Path) -> None:
        settings = settings_of(database, folder, every=6)
        assert "there is no backup yet" in self.found(database, settings)[0]
        with freeze_time(clock.now() - timedelta(hours=13)):
            backups.make(database, folder, 3, by="tests")

        (finding,) = doctor.run_checks(database, settings)["backups"]

        assert (finding.level, finding.what.split(";")[0]) == ("problem", "the last backup is 13 h old")
        backups.make(database, folder, 3, by="tests")
        assert self.found(database, settings) == []

    def test_a_failure_and_a_missing_folder_are_problems(
        self, database: Database, folder: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(ValueError, match="full"), maintenance.recorded(database, "backup"):
            raise ValueError("full")

        assert self.found(database, settings_of(database, folder, every=0)) == ["the last backup failed: full"]
        (missing,) = self.found(database, settings_of(database, tmp_path / "none", every=0))
        assert missing.startswith("can't read the folder")
