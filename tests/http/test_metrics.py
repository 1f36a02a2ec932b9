"""/metrics: all declared metrics, read by Prometheus' own parser.

Only principals that may see all types get them.
"""

from __future__ import annotations

import secrets
import shutil
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from outfeed import log_event
from outfeed.access.store import account
from outfeed.config import Settings
from outfeed.http.app import create_app
from outfeed.http.metrics import declared_metrics
from outfeed.http.services import Services
from outfeed.metrics import PREFIX, WORKER
from outfeed.store import checkpoint
from outfeed.store.database import Database
from outfeed.upkeep import backup
from outfeed.upkeep.retention import prune_events
from tests.feed.socket_harness import Client
from tests.waits import wait_until


class Scraper:
    def __init__(self, flask_app: Flask, database: Database, *, types: tuple[str, ...] = ()) -> None:
        token = account.create_token(database, f"scraper-{secrets.token_hex(4)}", ["read"], types=types)
        self.client: FlaskClient = flask_app.test_client()
        self.headers = {"Authorization": f"Bearer {token}"}

    def scrape(self) -> dict[str, float]:
        """Return each sample's value by name and labels, without the worker."""
        answer = self.client.get("/metrics", headers=self.headers)
        assert answer.status_code == 200, answer.text
        assert answer.content_type.startswith("text/plain; version=0.0.4")
        samples = [each for family in text_string_to_metric_families(answer.text) for each in family.samples]
        return {" ".join([each.name.removeprefix(PREFIX), *labels_of(each)]): each.value for each in samples}


def labels_of(sample: Any) -> list[str]:
    return [value for name, value in sorted(sample.labels.items()) if name != "worker"]


@pytest.fixture
def scraper(flask_app: Flask, database: Database) -> Scraper:
    return Scraper(flask_app, database)


def test_every_declared_metric_is_exported_with_its_help_and_type(scraper: Scraper) -> None:
    families = list(text_string_to_metric_families(scraper.client.get("/metrics", headers=scraper.headers).text))
    found = {family.name.removeprefix(PREFIX): (family.type, family.documentation) for family in families}
    assert found == {name: (each.kind, each.help) for name, each in (WORKER | declared_metrics()).items()}


def test_events_are_counted_by_type_and_custom_types_as_one(scraper: Scraper, services: Services) -> None:
    with Client(services) as client:
        client.subscribe()
        for event_type in ("task.created", "task.created", "a.b", "c.d"):
            log_event(event_type, source="s")
        wait_until(lambda: scraper.scrape().get("events_total other") == 2, "counted")
    wait_until(lambda: scraper.scrape()["poll_seconds_count"] > 0, "a poll has ended")
    found = wait_until(lambda: (each := scraper.scrape())["ready"] and each, "ready")
    assert found["events_total task.created"] == 2
    assert found["position"] == found["outbox_head"] == found["outbox_depth"] == 4
    assert found["delivery_seconds_count"] >= 1
    assert found["delivery_seconds_bucket +Inf"] == found["delivery_seconds_count"]
    assert found["poll_age_seconds"] < 60
    assert found["ready"] == 1


def test_buckets_are_cumulative(scraper: Scraper, services: Services) -> None:
    for secs in (0.0005, 0.002, 0.3, 9999.0):
        services.relay.stats.deliveries.note(secs)
    found = scraper.scrape()
    assert [found[f"delivery_seconds_bucket {bound}"] for bound in ("0.0005", "0.001", "0.0025", "0.5", "3600.0")] == [
        1, 1, 2, 3, 3,
    ]  # fmt: skip
    assert found["delivery_seconds_bucket +Inf"] == 4
    assert found["delivery_seconds_sum"] == pytest.approx(9999.3025)


def test_lag_refusals_and_maintenance_are_counted(
    scraper: Scraper, services: Services, database: Database, tmp_path: object
) -> None:
    log_event("a.b", source="s")
    checkpoint.add(database, "ops", is_protected=False)
    log_event("a.b", source="s")
    refused = scraper.scrape().get("refusals_total unauthorized", 0)
    scraper.client.get("/api/events")
    backup.backup(database, database.path.with_name("copy.db"))
    prune_events(30)
    found = scraper.scrape()
    assert found["consumer_lag ops"] == 1
    assert found["refusals_total unauthorized"] == refused + 1
    assert found["maintenance_success_timestamp_seconds backup"] <= found["maintenance_success_timestamp_seconds prune"]
    assert found["database_bytes"] == database.path.stat().st_size
    assert found["wal_bytes"] > 0
    assert 0 < found["disk_free_bytes"] <= shutil.disk_usage(database.path.parent).total
    with pytest.raises(Exception, match="folder"):
        backup.backup(database, database.path.parent)
    failed = scraper.scrape()
    failed_at = failed["maintenance_failure_timestamp_seconds backup"]
    assert failed_at >= found["maintenance_success_timestamp_seconds backup"]
    assert (found["maintenance_failures_total backup"], failed["maintenance_failures_total backup"]) == (0, 1)


def test_without_a_database_the_workers_metrics_are_exported(flask_app: Flask, services: Services) -> None:
    from outfeed.http.metrics import MetricsCollector

    services.database.path.rename(services.database.path.with_name("away"))
    samples = {sample.name for family in MetricsCollector(services).collect() for sample in family.samples}
    assert "outfeed_position" in samples
    assert "outfeed_outbox_head" not in samples


def test_two_apps_in_one_process_have_separate_counts(scraper: Scraper, database: Database) -> None:
    other = Scraper(create_app(Settings(database=database.path)), database)
    other.client.get("/api/events")
    assert other.scrape()["refusals_total unauthorized"] == 1
    assert "refusals_total unauthorized" not in scraper.scrape()


def test_disconnected_clients_are_counted_as_zero(scraper: Scraper, services: Services) -> None:
    with Client(services) as client:
        client.subscribe()
        assert scraper.scrape()["clients live websocket"] == 1
    assert scraper.scrape()["clients live websocket"] == 0


def test_anonymous_requests_and_tokens_limited_to_types_are_rejected(flask_app: Flask, database: Database) -> None:
    assert flask_app.test_client().get("/metrics").status_code in (302, 401)
    limited = Scraper(flask_app, database, types=("task.*",))
    assert limited.client.get("/metrics", headers=limited.headers).status_code == 403
