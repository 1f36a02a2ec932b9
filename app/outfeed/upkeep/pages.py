"""/admin/retention, /admin/backups and /admin/doctor.

They show what the commands show, and make backups.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import BinaryIO

from flask import Blueprint, Response, redirect, render_template, request, stream_with_context, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import NotFound, Unauthorized

from outfeed import clock
from outfeed.errors import OutfeedError
from outfeed.feature import PROBLEM
from outfeed.http import identity, limits
from outfeed.http.admin import actor, done
from outfeed.http.permission import requires
from outfeed.http.problems import answer
from outfeed.http.services import services
from outfeed.principal import ADMIN
from outfeed.store import audit
from outfeed.text import sentence
from outfeed.upkeep import backups, doctor, health, maintenance, retention
from outfeed.upkeep.backup_job import BackupJob
from outfeed.upkeep.maintenance import MaintenanceRun
from outfeed.upkeep.part import UpkeepPart
from outfeed.upkeep.policy import Policy, days_text, rules_of, schedule_of

BACKUPS = "upkeep_pages.show_backups"
LOOKED_AT = 10_000  # rows of the log and of the outbox
CHUNK_BYTES = 65_536
CHECK_EVERY_BYTES = 2**20
upkeep_pages = Blueprint("upkeep_pages", __name__, url_prefix="/admin")


# --- retention --------------------------------------------------------------------------------------------------------


@upkeep_pages.get("/retention")
@requires(ADMIN, is_page=True)
def show_retention() -> str:
    """Show operators the retention policy, and what the next prune takes."""
    database, settings = services().database, services().settings
    policy = Policy.current(settings, database)
    preview = retention.preview(database, policy, LOOKED_AT)
    of_features = [(name, days_text(days)) for name, days in sorted(policy.days_by_feature.items())]
    return render_template(
        "retention.html", rules=rules_of(settings), of_features=of_features, preview=preview, limit=LOOKED_AT,
        oldest=clock.parsed(preview.oldest), run=_run("prune"), last=_moment(_run("prune").succeeded_at),
    )  # fmt: skip


def _run(name: str) -> MaintenanceRun:
    return maintenance.runs(services().database).get(name, MaintenanceRun())


def _moment(secs: float | None) -> datetime | None:
    return datetime.fromtimestamp(secs, UTC) if secs else None


# --- backups ----------------------------------------------------------------------------------------------------------


@upkeep_pages.get("/backups")
@requires(ADMIN, is_page=True)
def show_backups() -> str:
    """Show operators the backups, their schedule and their problems."""
    database, settings = services().database, services().settings
    files, problem = [], ""
    if settings.backup_dir is not None:
        try:
            files = backups.list_backups(database, settings.backup_dir)
        except OutfeedError as error:
            problem = sentence(str(error))
    is_running = bool(settings.backup_dir) and (_job().is_requested or backups.is_running(database))
    findings = [] if problem else list(health.check(database, settings))
    return render_template(
        "backups.html", folder=settings.backup_dir, schedule=schedule_of(settings), files=files, problem=problem,
        findings=findings, run=_run(backups.JOB), last=_moment(_run(backups.JOB).succeeded_at),
        is_running=is_running, is_fresh=identity.has_just_signed_in(), fresh_mins=identity.FRESH_FOR.seconds // 60,
    )  # fmt: skip


@upkeep_pages.post("/backups")
@requires(ADMIN, is_page=True)
def back_up() -> ResponseReturnValue:
    """Make a backup into the folder of backups, in the background."""
    if services().settings.backup_dir is None:
        return answer(404, "There is no folder of backups. Set OUTFEED_BACKUP_DIR and restart the server.")
    _job().request(actor())
    return done("The backup begins within a second. It is in the list when it is complete and checked.", BACKUPS)


@upkeep_pages.get("/backups/<name>")
@requires(ADMIN, is_page=True)
def download(name: str) -> ResponseReturnValue:
    """Return a backup as a file, soon after a sign-in."""
    folder = services().settings.backup_dir
    if folder is None:
        raise NotFound
    if not identity.principal().is_session:
        return answer(403, "A token can't download a backup. Sign in with a password or a link.")
    if not identity.has_just_signed_in():
        return redirect(url_for("sign_in.login", again=1, next=url_for(BACKUPS)), 303)
    if refusal := limits.admit_export():
        return refusal
    with ExitStack() as opened:
        file = opened.enter_context(backups.open_backup(services().database, folder, name))
        response = _attachment(name, file)
        if request.method == "GET":  # the answer to HEAD has no byte of the file
            _note_download(name, response.content_length)
        response.call_on_close(opened.pop_all().close)
    limits.hold_slot(response)
    return response


def _note_download(name: str, size: int | None) -> None:
    with services().database.transaction() as connection:
        audit.record(connection, "access.backup_downloaded", actor(), backup=name, bytes=size)


def _attachment(name: str, file: BinaryIO) -> Response:
    response = Response(stream_with_context(_stream(file)), content_type="application/vnd.sqlite3")
    response.content_length = os.fstat(file.fileno()).st_size
    response.headers.set("Content-Disposition", "attachment", filename=name)
    return response


def _stream(file: BinaryIO) -> Iterator[bytes]:
    """Yield the file in pieces.

    Closes the connection if the server stops, or if the user is signed out.
    """
    sent = 0
    while piece := file.read(CHUNK_BYTES):
        yield piece
        sent += len(piece)
        if sent % CHECK_EVERY_BYTES < CHUNK_BYTES:
            _check_going_on()


def _check_going_on() -> None:
    if services().hub.closing.is_set():
        raise ConnectionResetError(errno.ECONNRESET, "the server stops")
    try:
        identity.require_not_revoked()
    except Unauthorized as error:
        raise ConnectionResetError(errno.ECONNRESET, "signed out or revoked") from error


def _job() -> BackupJob:
    return services().part(UpkeepPart).backups


# --- doctor -----------------------------------------------------------------------------------------------------------


@upkeep_pages.get("/doctor")
@requires(ADMIN, is_page=True)
def show_doctor() -> str:
    """Show operators the button that runs the doctor's checks."""
    return render_template("doctor.html", findings=None, passed=[])


@upkeep_pages.post("/doctor")
@requires(ADMIN, is_page=True)
def run_doctor() -> ResponseReturnValue:
    """Run the doctor's checks, and show what they found.

    It changes nothing. The deadline of a request bounds the checks.
    """
    if refusal := limits.admit_export():
        return refusal
    found = doctor.run_checks(services().database, services().settings)
    findings = [(rule, one) for rule, each in found.items() for one in each]
    findings.sort(key=lambda pair: pair[1].level != PROBLEM)
    passed = [rule for rule, each in found.items() if not each]
    return render_template("doctor.html", findings=findings, passed=passed, checked_at=clock.now())
