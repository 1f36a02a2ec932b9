"""Write-only addresses: their commands, rights, limits and secrecy."""

from __future__ import annotations

import io
import json
import logging
import re
from datetime import timedelta
from typing import Any

import pytest
from freezegun import freeze_time

from outfeed import clock, config, list_events
from outfeed.gateways.incoming import endpoint, store
from outfeed.http import logs
from outfeed.store import database as db
from outfeed.store.database import Database
from outfeed.upkeep import backup
from tests.app_fixtures import Api


def added(outfeed: Any, *arguments: Any) -> list[str]:
    """Add an address; return its path, and its signing secret if it has one."""
    done = outfeed("address", "add", *arguments)
    assert done.exit_code == 0, done.output
    url, *more = done.stdout.splitlines()
    return [url.removeprefix("http://127.0.0.1:8000"), *more]


class TestCommands:
    def test_add_prints_the_url_once_and_list_shows_no_secret(self, outfeed: Any, database: Database) -> None:
        done = outfeed("address", "add", "backups", "--types", "backups.*")

        assert re.fullmatch(r"http://127\.0\.0\.1:8000/in/at/outfeed_[\w-]{43}\n", done.stdout)
        assert "The URL is a secret, and is not shown again." in done.stderr
        shown = outfeed("address", "list").output + outfeed("address", "list", "--json").output
        assert re.search(r"backups +backups +backups +backups\.\* +none +no +\d s ago +never", shown)
        assert done.stdout.rpartition("/")[2].strip() not in shown
        assert outfeed("address", "list").output.endswith("There is 1 address.\n")
        (event,) = list_events("access.address_added")
        assert event.data == {
            "name": "backups",
            "topic": "backups",
            "types": ["backups.*"],
            "mapping": None,
            "by": "command line",
        }

    def test_the_database_has_only_a_hash_of_the_url(self, outfeed: Any, database: Database) -> None:
        path, *_ = added(outfeed, "backups")
        with database.connection() as connection:
            (row,) = connection.execute("SELECT * FROM outfeed_address").fetchall()
        assert path.rpartition("/")[2] not in map(str, row)

    def test_an_address_with_a_signing_mapping_prints_its_secret(self, outfeed: Any, database: Database) -> None:
        assert re.fullmatch(r"[0-9a-f]{64}", added(outfeed, "repo", "--as", "github")[1])
        assert added(outfeed, "billing", "--as", "standard")[1].startswith("whsec_")
        assert len(added(outfeed, "alerts", "--as", "alertmanager")) == 1
        assert len(added(outfeed, "open", "--as", "grafana", "--unsigned")) == 1
        facts = {one["name"]: one for one in json.loads(outfeed("address", "list", "--json").output)}
        assert {name: one["is_signed"] for name, one in facts.items()} == {
            "repo": True, "billing": True, "alerts": False, "open": False,
        }  # fmt: skip
        assert {name: one["topic"] for name, one in facts.items()}["repo"] == "github"

    def test_a_given_secret_is_read_from_a_file_and_not_printed(
        self, outfeed: Any, database: Database, tmp_path: Any
    ) -> None:
        (tmp_path / "secret").write_text("0123456789abcdef\n")
        assert len(added(outfeed, "repo", "--as", "github", "--secret-file", tmp_path / "secret")) == 1
        (address,) = store.list_addresses(database)
        assert address.signing_secret == "0123456789abcdef"
        assert "0123456789abcdef" not in repr(address)

    @pytest.mark.parametrize(
        ("arguments", "status"),
        [
            (("a b",), 2),
            (("UPPER-9x", "--topic", "Not A Topic"), 2),
            (("9",), 2),  # no topic
            (("x", "--types", "task*"), 2),
            (("x", "--source", ""), 2),
            (("x", "--as", "nothing"), 1),
            (("taken",), 1),
        ],
    )  # fmt: skip
    def test_a_wrong_argument_creates_no_address(
        self, outfeed: Any, database: Database, arguments: tuple[str, ...], status: int
    ) -> None:
        added(outfeed, "taken")
        assert outfeed("address", "add", *arguments).exit_code == status
        assert [one.name for one in store.list_addresses(database)] == ["taken"]

    def test_a_secret_needs_a_mapping_that_signs(self, outfeed: Any, database: Database, tmp_path: Any) -> None:
        (tmp_path / "s").write_text("short")
        for more in ((), ("--as", "alertmanager"), ("--as", "github", "--unsigned"), ("--as", "github")):
            assert outfeed("address", "add", "x", *more, "--secret-file", tmp_path / "s").exit_code == 2
        assert store.list_addresses(database) == []

    def test_revoke_of_an_unknown_address_fails(self, outfeed: Any, database: Database) -> None:
        assert outfeed("address", "revoke", "nothing").stderr.startswith("Error: address 'nothing' not found")


class TestRequests:
    def test_an_address_writes_under_its_topic_and_reads_nothing(self, outfeed: Any, api: Api) -> None:
        path, *_ = added(outfeed, "nightly", "--topic", "backup.nightly", "--source", "nas")

        answer = api.client.post(path, data="done", content_type="text/plain")

        assert answer.status_code == 201
        (event,) = list_events("backup.nightly")
        assert (event.source, event.data) == ("nas", {"message": "done"})
        secret = path.rpartition("/")[2]
        for route in ("/api/events", "/metrics", "/api/feed?after=0"):
            assert api.client.get(route, headers={"Authorization": f"Bearer {secret}"}).status_code == 401
        assert api.client.get(path).status_code == 405

    def test_a_revoked_address_is_invalid_at_once(self, outfeed: Any, api: Api) -> None:
        path, *_ = added(outfeed, "backups")
        assert api.client.post(path, data="one").status_code == 201
        outfeed("address", "revoke", "backups")

        answer = api.client.post(path, data="two")

        assert (answer.status_code, answer.json["detail"]) == (404, "this address does not exist, or was revoked")
        assert len(list_events("backups.*")) == 1
        assert [event.data["name"] for event in list_events("access.address_revoked")] == ["backups"]

    def test_an_address_writes_only_its_types_and_never_the_audits(self, outfeed: Any, api: Api) -> None:
        limited, *_ = added(
            outfeed, "limited", "--as", "standard", "--unsigned", "--topic", "billing", "--types", "billing.paid"
        )
        audit, *_ = added(outfeed, "audit", "--as", "standard", "--unsigned", "--topic", "access")
        headers = {"webhook-id": "1"}
        assert api.client.post(limited, json={"type": "paid"}, headers=headers).status_code == 201
        refused = api.client.post(limited, json={"type": "refunded"}, headers=headers)
        assert (refused.status_code, "billing.refunded" in refused.json["detail"]) == (403, True)
        assert api.client.post(audit, json={"type": "signed_in"}, headers=headers).status_code == 403
        assert list_events("access.signed_in") == []

    def test_ids_of_an_address_have_its_name_so_that_it_takes_no_others(self, outfeed: Any, api: Api) -> None:
        path, *_ = added(outfeed, "backups")
        api.client.post(path, data="x", headers={"Idempotency-Key": "order-7"})

        answer = api.post("/api/events", json={"event_type": "order.paid", "source": "shop", "id": "order-7"})

        assert answer.status_code == 201
        assert {event.id for event in list_events("backups.*")} == {"backups:order-7"}

    def test_requests_to_one_address_are_limited_and_others_go_on(
        self, outfeed: Any, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OUTFEED_ADDRESS_REQUESTS_PER_MINUTE", "2")
        config.settings.cache_clear()
        busy, other = added(outfeed, "busy")[0], added(outfeed, "other")[0]
        api = Api(database)

        statuses = [api.client.post(busy, data="x").status_code for _ in range(3)]

        assert statuses == [201, 201, 429]
        assert int(api.client.post(busy, data="x").headers["Retry-After"]) >= 1
        assert api.client.post(other, data="x").status_code == 201

    def test_guesses_of_one_client_are_limited_and_real_addresses_stay_open(
        self, outfeed: Any, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path, *_ = added(outfeed, "backups")
        api.client.post("/in/at/x", data="x")  # imports the module
        monkeypatch.setattr(endpoint, "GUESSES_PER_MINUTE", 1)

        statuses = [api.client.post(f"/in/at/guess-{n}", data="x").status_code for n in range(2)]

        assert statuses[-1] == 429
        assert api.client.post(path, data="x").status_code == 201

    def test_the_last_use_is_noted_once_a_minute(self, outfeed: Any, api: Api, database: Database) -> None:
        path, *_ = added(outfeed, "backups")
        seen = []
        for minutes in (0, 0.5, 2):
            with freeze_time(clock.now() + timedelta(minutes=minutes), tick=True):
                api.client.post(path, data="x")
            seen.append(store.list_addresses(database)[0].last_used_at)
        assert seen[0] is not None
        assert seen[0] == seen[1] != seen[2]

    def test_a_written_event_is_confirmed_even_if_the_use_can_not_be_noted(
        self, outfeed: Any, api: Api, database: Database, caplog: pytest.LogCaptureFixture
    ) -> None:
        path, *_ = added(outfeed, "backups")
        with database.transaction() as connection:
            connection.execute(
                "CREATE TRIGGER failing BEFORE UPDATE ON outfeed_address BEGIN SELECT * FROM not_there; END"
            )

        assert api.client.post(path, data="x").status_code == 201
        assert len(list_events("backups.*")) == 1
        assert "not_there" in caplog.text


def test_the_secret_of_an_address_is_in_no_log_line_error_or_metric(
    outfeed: Any, api: Api, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, signing = added(outfeed, "repo", "--as", "github")
    secret, lines = path.rpartition("/")[2], io.StringIO()
    handler = logs.Handler(lines)
    handler.setFormatter(logs.formatter(config.load()))
    logging.getLogger().addHandler(handler)
    texts = []
    try:
        for body, headers in ((b"{", {}), (b"{}", {"X-Hub-Signature-256": "sha256=0"})):
            texts.append(api.client.post(path, data=body, headers=headers).text)
        monkeypatch.setattr(store, "find", lambda *_: 1 / 0)
        texts.append(api.client.post(path, data="x").text)
        outfeed("address", "revoke", "repo")
        monkeypatch.undo()
        texts.append(api.client.post(path, data="x").text)
        texts.append(api.client.get(path).text)
    finally:
        logging.getLogger().removeHandler(handler)
    api.services.own_errors.write()
    texts += [
        lines.getvalue(),
        api.get("/metrics").text,
        json.dumps([event.as_dict() for event in list_events(limit=-1)]),
    ]

    assert "request failed" in lines.getvalue()
    assert "/in/at/[redacted]" in lines.getvalue()
    assert [text for text in texts if secret in text or signing in text] == []


def test_an_address_that_was_revoked_after_the_backup_stays_revoked(
    outfeed: Any, database: Database, tmp_path: Any
) -> None:
    added(outfeed, "backups")
    backup.backup(database, tmp_path / "copy.db")
    outfeed("address", "revoke", "backups")

    backup.restore(db.at(database.path), tmp_path / "copy.db", by=None)

    assert store.list_addresses(database) == []
