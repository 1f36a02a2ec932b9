"""/admin/retention, /admin/backups and /admin/doctor."""

from __future__ import annotations

import hashlib
import os
import re
from datetime import timedelta
from pathlib import Path

import pytest
from flask import Flask
from freezegun import freeze_time

from outfeed import clock, list_events, log_event
from outfeed.access.store import account
from outfeed.config import Settings
from outfeed.http.app import create_app
from outfeed.http.services import Services
from outfeed.store.database import Database
from outfeed.upkeep import backups, retention
from outfeed.upkeep.part import UpkeepPart
from outfeed.upkeep.policy import Policy
from tests.http.visitors import Visit, bearer, show_tokens_and_names, signed_in, text_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "backups"
    made.mkdir()
    return made


def app_of(database: Database, **settings: object) -> Flask:
    app = create_app(Settings(database=database.path, **settings))  # type: ignore[arg-type]
    show_tokens_and_names(app)
    return app


@pytest.fixture
def app(database: Database, folder: Path) -> Flask:
    return app_of(database, backup_dir=folder, backup_every_hours=24, backup_keep=2, sign_ins_per_minute=0)


@pytest.fixture
def operator(app: Flask, database: Database) -> Visit:
    return signed_in(app, database)


def name_of(visit: Visit) -> str:
    return str(visit.name)  # type: ignore[attr-defined]


def run_job(app: Flask) -> None:
    """Run the job of the backups, as the scheduler does each second."""
    services: Services = app.extensions["outfeed"]
    services.part(UpkeepPart).backups.run()


class TestBackups:
    def test_a_requested_backup_is_made_with_the_principal_and_listed(
        self, app: Flask, operator: Visit, database: Database, folder: Path
    ) -> None:
        assert "There is no backup yet" in text_of(operator("GET", "/admin/backups"))
        assert operator("POST", "/admin/backups").status_code == 303
        page = operator("GET", "/admin/backups")
        assert "The backup begins within a second." in text_of(page)
        assert "A backup is running." in text_of(page)

        run_job(app)

        (made,) = backups.list_backups(database, folder)
        page = operator("GET", "/admin/backups")
        assert made.name in page.text
        assert "A backup is running." not in text_of(page)
        (event,) = list_events("system.backed_up")
        assert event.data["by"] == f"user:{name_of(operator)}"

    def test_without_a_folder_the_page_names_the_settings(self, database: Database) -> None:
        operator = signed_in(app_of(database), database)
        page = operator("GET", "/admin/backups")

        assert "OUTFEED_BACKUP_DIR=/var/backups/outfeed" in page.text
        assert operator("POST", "/admin/backups").status_code == 404
        assert operator("GET", "/admin/backups/outfeed-20260501T120000Z.db").status_code == 404

    def test_a_missing_folder_and_a_failure_are_shown(self, database: Database, tmp_path: Path) -> None:
        app = app_of(database, backup_dir=tmp_path / "none")
        operator = signed_in(app, database)
        assert "Can't read the folder" in text_of(operator("GET", "/admin/backups"))
        assert "trouble" in text_of(operator("GET", "/admin"))
        operator("POST", "/admin/backups")
        run_job(app)
        (tmp_path / "none").mkdir()
        assert "The last backup failed: there is no folder" in text_of(operator("GET", "/admin/backups"))
        assert "The last backup failed: there is no folder" in text_of(operator("GET", "/status"))


class TestDownload:
    @pytest.fixture
    def made(self, database: Database, folder: Path) -> Path:
        return backups.make(database, folder, 3, by="tests").path

    def test_the_file_is_sent_soon_after_a_sign_in_and_that_is_an_event(self, operator: Visit, made: Path) -> None:
        answer = operator("GET", f"/admin/backups/{made.name}")

        assert answer.status_code == 200
        assert hashlib.sha256(answer.data).digest() == hashlib.sha256(made.read_bytes()).digest()
        assert answer.headers["Content-Length"] == str(made.stat().st_size)
        assert answer.headers["Content-Disposition"] == f"attachment; filename={made.name}"
        assert answer.headers["Cache-Control"] == "no-store"
        (event,) = list_events("access.backup_downloaded")
        assert event.data == {
            "backup": made.name, "bytes": made.stat().st_size, "by": f"user:{name_of(operator)}"
        }  # fmt: skip

    def test_a_request_for_the_headers_alone_is_no_download(self, operator: Visit, made: Path) -> None:
        answer = operator("HEAD", f"/admin/backups/{made.name}")

        assert (answer.status_code, answer.data) == (200, b"")
        assert list_events("access.backup_downloaded") == []

    def test_an_older_sign_in_leads_to_the_sign_in_page(self, operator: Visit, database: Database, made: Path) -> None:
        with freeze_time(clock.now() + timedelta(minutes=11)):
            page = operator("GET", "/admin/backups")
            answer = operator("GET", f"/admin/backups/{made.name}")
            again = operator("GET", answer.location)

        assert "sign in again" in page.text
        assert f'/admin/backups/{made.name}"' not in page.text
        assert (answer.status_code, answer.location) == (303, "/login?again=1&next=/admin/backups")
        assert (again.status_code, "The page needs a fresh sign-in" in text_of(again)) == (200, True)
        assert list_events("access.backup_downloaded") == []

    def test_a_sign_in_of_the_future_is_not_fresh(self, operator: Visit, made: Path) -> None:
        with freeze_time(clock.now() - timedelta(hours=1)):
            assert operator("GET", f"/admin/backups/{made.name}").status_code in (302, 303)

    def test_a_token_never_gets_a_backup(self, app: Flask, database: Database, made: Path) -> None:
        program = bearer(app, account.create_token(database, "ops", ["admin"]))
        assert program("GET", f"/admin/backups/{made.name}").status_code == 403

    @pytest.mark.parametrize("role", ["viewer", "producer"])
    def test_other_roles_see_neither_page_nor_file(self, app: Flask, database: Database, made: Path, role: str) -> None:
        visit = signed_in(app, database, role)
        for path in ("/admin/backups", f"/admin/backups/{made.name}", "/admin/doctor", "/admin/retention"):
            answer = visit("GET", path)
            assert (answer.status_code, made.name in answer.text) == (403, False)

    @pytest.mark.parametrize(
        "name",
        [
            "..%2Foutfeed.db", "%2Fetc%2Fpasswd", "..", "outfeed.db", "%2e%2e%2foutfeed.db",
            "outfeed-20260501T000000Z.db", "..%5Coutfeed.db", "outfeed-20260501T000000Z.db%00",
            "outfeed-20260501T000000Z.db%0A", "link", "%00",
        ],
    )  # fmt: skip
    def test_no_other_file_is_reached(
        self, operator: Visit, folder: Path, tmp_path: Path, made: Path, name: str
    ) -> None:
        (tmp_path / "private").write_text("private")
        (folder / "outfeed-20260501T000000Z.db").symlink_to(tmp_path / "private")
        (folder / "link").symlink_to(tmp_path / "private")
        answer = operator("GET", f"/admin/backups/{name}")

        assert answer.status_code in (303, 308, 404)
        assert b"private" not in answer.data
        assert not answer.data.startswith(b"SQLite format 3")

    def test_a_download_reads_the_file_in_pieces(self, app: Flask, operator: Visit, folder: Path, made: Path) -> None:
        big = folder / "outfeed-20260501T000000Z.db"
        os.truncate(os.open(big, os.O_CREAT | os.O_WRONLY), 8 * 2**20)
        client = operator.client  # type: ignore[attr-defined]
        with client.get(f"/admin/backups/{big.name}", buffered=False) as answer:
            pieces = [len(piece) for piece in answer.iter_encoded()]

        assert (sum(pieces), max(pieces)) == (8 * 2**20, 65_536)

    def test_a_download_ends_when_the_user_is_signed_out(
        self, app: Flask, operator: Visit, database: Database, folder: Path
    ) -> None:
        big = folder / "outfeed-20260501T000000Z.db"
        os.truncate(os.open(big, os.O_CREAT | os.O_WRONLY), 8 * 2**20)
        client = operator.client  # type: ignore[attr-defined]
        with client.get(f"/admin/backups/{big.name}", buffered=False) as answer:
            pieces = answer.iter_encoded()
            next(pieces)
            with database.transaction() as connection:
                connection.execute("DELETE FROM outfeed_session")
            with pytest.raises(ConnectionResetError):
                list(pieces)


class TestRetention:
    def test_the_page_shows_the_policy_and_what_the_next_prune_takes(self, database: Database) -> None:
        settings = {"retention_days": 30, "retention_days_by_type": {"tool.*": 7}}
        operator = signed_in(app_of(database, **settings), database)
        assert "It removes nothing." in text_of(operator("GET", "/admin/retention"))
        with freeze_time(clock.now() - timedelta(days=10)):
            log_event("tool.called", "s", data="x" * 1000)
            log_event("task.created", "s")
        with freeze_time(clock.now() - timedelta(days=40)):
            log_event("task.created", "s")

        page = text_of(operator("GET", "/admin/retention"))

        assert re.search(r"Events of the log 2 .* Oldest event 40 d ago", page)
        assert "tool.called 1" in page
        assert "task.created 1" in page
        assert "Log 30 days" in page
        assert "Log, tool.* 7 days" in page

    def test_a_preview_agrees_with_the_plan_and_reads_so_many_rows_at_most(self, database: Database) -> None:
        with freeze_time(clock.now() - timedelta(days=40)):
            for n in range(30):
                log_event("a.b", "s", data="x" * 98, id=f"of-{n}")
        policy = Policy(30, {}, 7, None)
        with database.transaction() as connection:
            connection.execute("UPDATE outbox SET created_at = '2024-01-15T00:00:00.000Z'")

        whole = retention.preview(database, policy, 100)
        part = retention.preview(database, policy, 10)

        assert (whole.events, whole.outbox_rows) == retention.plan(database, policy)[:2]
        assert (whole.is_whole, whole.by_type, whole.data_bytes) == (True, {"a.b": 30}, 3000)
        assert (part.events, part.outbox_rows, part.is_whole) == (10, 10, False)


class TestDoctor:
    def test_the_checks_run_on_request_and_change_nothing(self, operator: Visit, database: Database) -> None:
        with database.transaction() as connection:
            connection.execute("DROP TRIGGER event_log_outbox")
        assert "event_log_outbox" not in operator("GET", "/admin/doctor").text

        page = text_of(operator("POST", "/admin/doctor"))

        assert re.search(r"\d problems? found", page)
        assert "Trigger event_log_outbox is missing." in page
        assert "Fix: outfeed doctor --fix" in page
        assert re.search(r"Passed .*indexes", page)
        with database.connection() as connection:
            query = "SELECT 1 FROM sqlite_master WHERE name = 'event_log_outbox'"
            assert connection.execute(query).fetchone() is None

    def test_a_deadline_leaves_a_note_at_the_slow_rules(self, database: Database) -> None:
        from outfeed.store import deadline
        from outfeed.upkeep import doctor

        with deadline.limited(0):
            found = doctor.run_checks(database, Settings(database=database.path))

        assert list(found)[-1] == "integrity"
        with database.transaction() as connection:
            connection.executemany(
                "INSERT INTO event_log (id, event_type, source, timestamp) VALUES (?, 'a.b', 's', 't')",
                [(f"{n}",) for n in range(5000)],
            )
        with deadline.limited(0):
            found = doctor.run_checks(database, Settings(database=database.path))
        assert found["integrity"] == [doctor.UNFINISHED]


def test_every_form_needs_the_csrf_token(app: Flask, database: Database) -> None:
    forged = signed_in(app, database, csrf=False)
    for path in ("/admin/backups", "/admin/doctor"):
        assert forged("POST", path).status_code == 403
    run_job(app)
    assert [event.data["by"] for event in list_events("system.backed_up")] == ["schedule"]
