"""The commands of target. None of them shows a secret."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from outfeed import config
from outfeed.alerts.targets import store
from outfeed.store.database import Database
from tests.alerts.targets.chat_receiver import ChatReceiver
from tests.receiver import SECRET, Receiver, Reply

URL = "http://127.0.0.1:9/services/T0/B0/SECRETPATH"


@pytest.fixture(autouse=True)
def loopback_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTFEED_WEBHOOK_ALLOW", "127.0.0.1")
    config.settings.cache_clear()


def audited(database: Database) -> list[tuple[str, dict[str, Any]]]:
    with database.connection() as connection:
        rows = connection.execute(
            "SELECT event_type, data FROM event_log WHERE event_type GLOB 'access.target_*' ORDER BY rowid"
        ).fetchall()
    return [(event_type, json.loads(data)) for event_type, data in rows]


def test_a_target_is_added_changed_and_removed_and_each_is_audited(
    outfeed: Any, database: Database, tmp_path: Path
) -> None:
    file = tmp_path / "slack.txt"
    file.write_text(f"# from the app's page\n\nurl = {URL}\n".replace(" = ", "="))
    added = outfeed("target", "add", "ops", "slack", "--from", file)
    assert added.output == "Target ops is added. To try it: outfeed target test ops\n"
    assert store.find(database, "ops").settings == {"url": URL}
    assert outfeed("target", "edit", "ops", "--set", "url=http://127.0.0.1:10/x").output == "Changed target ops.\n"
    assert store.find(database, "ops").settings == {"url": "http://127.0.0.1:10/x"}
    assert outfeed("target", "remove", "ops").output == "Removed target ops.\n"
    assert store.list_targets(database) == []
    events = audited(database)
    assert [event_type for event_type, _ in events] == [
        "access.target_added", "access.target_changed", "access.target_removed",
    ]  # fmt: skip
    assert all(data["name"] == "ops" and data["by"] for _, data in events)
    assert "127.0.0.1" not in json.dumps(events)


def test_the_list_shows_no_secret(outfeed: Any, database: Database) -> None:
    outfeed("target", "add", "ops", "slack", "--set", f"url={URL}")
    outfeed("target", "add", "phone", "ntfy", "--set", "url=http://127.0.0.1:9/SECRETTOPIC", "--set", "token=SECRETTK")
    mail = ("to=ops@example.com", "from=o@example.com", "server=127.0.0.1:25", "user=SECRETU", "password=SECRETPW")
    outfeed("target", "add", "mail", "email", *(part for each in mail for part in ("--set", each)))
    shown = outfeed("target", "list")
    found = json.loads(outfeed("target", "list", "--json").stdout)
    assert [(each["name"], each["kind"], each["place"], each["rules"]) for each in found] == [
        ("mail", "email", "ops@example.com by 127.0.0.1", []), ("ops", "slack", "127.0.0.1", []),
        ("phone", "ntfy", "127.0.0.1", []),
    ]  # fmt: skip
    assert "SECRET" not in f"{shown.output}{found}{store.list_targets(database)}"


def test_a_webhook_gets_a_secret_that_is_printed_once(outfeed: Any, database: Database) -> None:
    result = outfeed("target", "add", "hook", "webhook", "--set", "url=http://127.0.0.1:9/hook")
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/=]{44}\n", result.stdout)
    assert store.find(database, "hook").settings["secret"] == result.stdout.strip()
    given = outfeed(
        "target", "add", "given", "webhook", "--set", "url=http://127.0.0.1:9/", "--set", f"secret={SECRET}"
    )
    assert SECRET not in given.output


@pytest.mark.usefixtures("database")
def test_a_test_is_sent_and_its_failure_is_an_error(outfeed: Any) -> None:
    with Receiver() as receiver:
        outfeed("target", "add", "hook", "webhook", "--set", f"url={receiver.url}", "--set", f"secret={SECRET}")
        assert re.fullmatch(r"Target hook accepted the test in \d+ ms\.\n", outfeed("target", "test", "hook").output)
    assert receiver.problems == []
    assert receiver.posts[0].body["type"] == "alert.test"
    with ChatReceiver(lambda _: [], lambda _: Reply(404)) as service:
        outfeed("target", "add", "ops", "slack", "--set", f"url=http://127.0.0.1:{service.port}/SECRETPATH")
        failed = outfeed("target", "test", "ops")
    assert failed.exit_code == 1
    assert "target ops failed the test: the target answered 404" in failed.output
    assert "SECRETPATH" not in failed.output


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["slack"], "url: must be given"), (["slack", "--set", "url=SECRET"], "must be an address"),
        (["slack", "--set", f"url={URL}", "--set", "color=red"], "has only the settings url"),
        (["slack", "--set", "url"], "NAME=VALUE"), (["fax"], "is not one of"),
        (["slack", "--set", "url=http://127.0.0.1/\x1b"], "one line"),
        (["slack", "--set", f"url={URL}{'x' * 2000}"], "one line of at most"),
        (["slack", "--set", "url=http://127.0.0.2/"], "is not public"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_an_error_and_nothing_is_added(
    outfeed: Any, database: Database, arguments: list[str], problem: str
) -> None:
    result = outfeed("target", "add", "ops", *arguments)
    assert result.exit_code != 0
    assert problem in result.output
    assert "SECRET" not in result.output
    assert store.list_targets(database) == []


@pytest.mark.usefixtures("database")
def test_a_name_is_taken_once_and_an_unknown_one_is_an_error(outfeed: Any) -> None:
    outfeed("target", "add", "ops", "slack", "--set", f"url={URL}")
    assert "already a target named" in outfeed("target", "add", "ops", "slack", "--set", f"url={URL}").output
    for command in (["remove", "x"], ["test", "x"], ["edit", "x", "--set", "url=http://127.0.0.1/"]):
        result = outfeed("target", *command)
        assert (result.exit_code, "`outfeed target list` shows all targets" in result.output) == (1, True)


def test_an_optional_setting_is_removed_by_an_empty_value(outfeed: Any, database: Database) -> None:
    outfeed("target", "add", "phone", "ntfy", "--set", "url=http://127.0.0.1:9/t", "--set", "token=tk")
    outfeed("target", "edit", "phone", "--set", "token=")
    assert store.find(database, "phone").settings == {"url": "http://127.0.0.1:9/t"}
    assert outfeed("target", "edit", "phone").exit_code == 2


def test_a_target_that_a_rule_uses_is_removed_by_force_only(outfeed: Any, database: Database) -> None:
    outfeed("target", "add", "ops", "slack", "--set", f"url={URL}")
    assert outfeed("alert", "add", "errors", "type:system.error", "--to", "ops").exit_code == 0
    refused = outfeed("target", "remove", "ops")
    assert (refused.exit_code, "is used by: errors" in refused.output) == (1, True)
    assert outfeed("target", "list", "--json").stdout.count('"rules": ["errors"]') == 1
    assert outfeed("target", "remove", "ops", "--force").exit_code == 0
