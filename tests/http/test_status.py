"""The status page: of a running feed, a stopped one, and their clients."""

from __future__ import annotations

import html
import re
from datetime import timedelta
from pathlib import Path

import pytest
from flask import Flask
from freezegun import freeze_time

from outfeed import clock
from outfeed.config import Settings
from outfeed.feed.stats import Percentiles
from outfeed.http import status
from outfeed.http.app import create_app
from outfeed.store import checkpoint
from outfeed.store.database import Database
from outfeed.store.event_log import log_event
from outfeed.upkeep import backup, feature, maintenance
from outfeed.webhooks import store as webhook
from tests.feed.socket_harness import Client
from tests.http.visitors import Visit, show_tokens_and_names, signed_in


@pytest.fixture
def app(database: Database) -> Flask:
    app = create_app(Settings(database=database.path, retention_days=30, retention_days_by_type={"tool.*": 1}))
    show_tokens_and_names(app)
    return app


@pytest.fixture
def operator(app: Flask, database: Database) -> Visit:
    return signed_in(app, database)


def section(visit: Visit, name: str) -> str:
    """Return the text of that section."""
    found = re.search(rf'<section id="{name}".*?</section>', visit("GET", "/status").text, re.DOTALL)
    assert found is not None
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", found[0]).split()))


def test_a_feed_that_does_not_poll_is_not_ready_and_shows_the_reason(operator: Visit) -> None:
    assert section(operator, "health") == "Not ready the last completed poll is inf s old"


def test_the_page_shows_the_position_of_the_feed(app: Flask, operator: Visit, database: Database) -> None:
    services = app.extensions["outfeed"]
    head = services.outbox.window().last_seq
    services.relay.start()
    assert section(operator, "health").startswith("All good")
    with Client(services) as client:
        client.subscribe()
        log_event("a.b", "s")
        services.relay.poll()
    assert f"newest event. {head + 1:,}" in section(operator, "feed")
    assert "p99" in section(operator, "deliveries")
    assert section(operator, "deliveries").count("(1 sample)") == 1
    assert section(operator, "relay").count("(1 sample)") == 1
    assert re.search(r"Database [\d.]+ KiB Write-ahead log .* [\d.]+ [KM]iB Free", section(operator, "files"))


def test_the_page_counts_the_clients_by_transport(app: Flask, operator: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {("websocket", "live"): 2, ("websocket", "idle"): 1, ("stream", "replaying"): 1, ("poll", "waiting"): 3}
    monkeypatch.setattr(app.extensions["outfeed"].hub, "counts", lambda: counts)
    assert section(operator, "clients").endswith("WebSocket 3 2 0 1 Server-sent events 1 0 1 0 Long poll 3 3 0 0")


def test_consumers_and_webhooks_are_shown_with_their_lag(operator: Visit, database: Database) -> None:
    assert "outfeed consumer add" in section(operator, "consumers")
    assert "outfeed webhook add" in section(operator, "webhooks")
    checkpoint.add(database, "ops-bot", is_protected=True)
    webhook.add(database, "audit", "https://me:secret@example.org/hook?key=secret", types=(), secret="x", batch=0)
    log_event("a.b", "s")
    log_event("a.b", "s")
    assert re.search(r"ops-bot [\d,]+ 2 yes \d s ago Reset and remove consumers$", section(operator, "consumers"))
    assert "audit active 2 0 0 never https://example.org/hook" in section(operator, "webhooks")
    assert "secret" not in operator("GET", "/status").text


def test_an_event_that_blocks_a_webhook_is_shown_with_the_response(operator: Visit, database: Database) -> None:
    webhook.add(database, "ops", "https://example.org/hook", types=("a.*",), secret="x", batch=0)
    log_event("x.y", "s")
    poison = log_event("a.b", "s")
    assert "blocked" not in section(operator, "webhooks")
    lease = webhook.claim(database, "ops")
    assert lease is not None
    lease.failed(422, "the target answered 422")
    assert section(operator, "webhooks").endswith(
        f"ops is blocked by seq {lease.window.last_seq} a.b {poison.id}: the target answered 422. "
        "outfeed webhook skip ops skips that event."
    )


def test_the_page_shows_the_retention_and_the_next_prune(operator: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    with freeze_time(clock.now() - timedelta(days=9)):
        for event_type in ("tool.called", "tool.called", "task.created"):
            log_event(event_type, "s")
    kept = section(operator, "retention")
    assert "Log 30 days Log, tool.* 1 day Outbox 7 days" in kept
    assert kept.endswith("The next prune would remove 2 events from the log and 0 rows from the outbox.")
    monkeypatch.setattr(feature, "ESTIMATED_ROWS", 2)
    assert "2+ events" in section(operator, "retention")


def test_the_page_shows_the_server_the_disk_and_the_last_backup(
    operator: Visit, database: Database, tmp_path: Path
) -> None:
    assert re.fullmatch(
        r"Server Version [\d.]+ Uptime Of this worker. \d+ s Memory Resident memory of this worker. [\d.]+ MiB",
        section(operator, "server"),
    )
    assert re.search(r"Free disk space [\d.]+ [GT]iB$", section(operator, "files"))
    assert "Last backup" in (never := section(operator, "retention"))
    assert never.count("never") == 2
    backup.backup(database, tmp_path / "copy.db")
    assert section(operator, "retention").count("never") == 1
    with pytest.raises(ValueError, match="full"), maintenance.recorded(database, "backup"):
        raise ValueError("full")
    with freeze_time(clock.now() + timedelta(minutes=3)):
        assert "3 min ago" in section(operator, "retention")
    assert "the last one failed" in section(operator, "retention")


def test_the_figures_at_the_top_have_a_line_over_the_last_minutes(
    app: Flask, operator: Visit, database: Database
) -> None:
    services = app.extensions["outfeed"]
    assert section(operator, "tile-rate").endswith("– No samples in 15 min")
    webhook.add(database, "audit", "https://example.org/hook", types=(), secret="x", batch=0)
    for number in range(3):
        services.relay.start()
        services.vitals.take()
        log_event("a.b", "s", data=number)
    assert re.search(r" 0 At most 0 in 15 min$", section(operator, "tile-clients"))
    assert re.search(r" 2 At most 2 in 15 min$", section(operator, "tile-lag"))
    assert operator("GET", "/status").text.count("<polyline") == 3  # no event was delivered


@pytest.mark.parametrize(
    ("secs", "text"), [(None, "–"), (0.00044, "0.4 ms"), (0.0123, "12 ms"), (0.9, "900 ms"), (2.345, "2.3 s")]
)
def test_a_duration_has_a_suitable_unit(secs: float | None, text: str) -> None:
    assert status.duration(secs) == text
    assert status.percentiles_of(Percentiles(1, secs, secs)) == (text, text, 1)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (204_800, "200 KiB"), (2**60, "1048576 TiB")],
)
def test_a_size_has_a_suitable_unit(count: int, text: str) -> None:
    assert status.size(count) == text


def test_an_age_has_its_largest_unit() -> None:
    ages = [timedelta(seconds=-5), timedelta(seconds=59), timedelta(minutes=3), timedelta(hours=30), timedelta(days=9)]
    with freeze_time("2026-01-31T12:00:00Z"):
        told = [status.ago(clock.now() - age) for age in ages]
        assert told == ["0 s ago", "59 s ago", "3 min ago", "1 d ago", "9 d ago"]
    assert [status.ago(None), status.ago("when?")] == ["never", "never"]
