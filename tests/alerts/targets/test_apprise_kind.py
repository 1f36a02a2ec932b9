"""A notice by Apprise, taken by its JSON service."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from apprise import apprise

from outfeed.alerts.targets import AlertTarget, Outcome, StoredTargets
from outfeed.alerts.targets.kinds import KINDS
from outfeed.config import Settings
from tests.alerts.targets.chat_receiver import ChatReceiver
from tests.alerts.targets.notices import FORBIDDEN, HOSTILE, USUAL
from tests.receiver import Reply

# A plugin of Apprise imports it, on the versions of Python that still have it.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")


@pytest.fixture(scope="module", autouse=True)
def standing_threads() -> None:
    """Start two of Apprise's own threads, which stay until the process ends.

    One of them is idle when the next notice comes.
    """
    both = threading.Barrier(2)
    started = [apprise.get_shared_executor().submit(both.wait) for _ in range(2)]
    for each in started:
        each.result()


@pytest.fixture
def stored(database: Any) -> StoredTargets:
    return StoredTargets(database, Settings())


def sent(stored: StoredTargets, notice: Any, reply: Reply) -> tuple[Outcome, list[Any]]:
    with ChatReceiver(lambda _: [], lambda _: reply) as service:
        url = f"json://user:SECRET@127.0.0.1:{service.port}/notify"
        target = AlertTarget("ops", "apprise", KINDS["apprise"].checked({"url": url}))
        return stored.send(target, notice), [post.body for post in service.posts]


def test_a_notice_reaches_a_service_of_apprise(stored: StoredTargets) -> None:
    outcome, (body,) = sent(stored, USUAL, Reply())
    assert outcome == Outcome(is_delivered=True)
    assert body["title"] == f"🔔 {USUAL.title}"
    assert body["type"] == "failure"
    assert "Order 17 failed: card declined" in body["message"]


def test_mentions_and_control_characters_of_an_attacker_are_broken(stored: StoredTargets) -> None:
    outcome, (body,) = sent(stored, HOSTILE, Reply())
    assert outcome.is_delivered
    assert "@everyone" not in body["message"]
    assert "<!channel>" not in body["message"]
    assert [sign for sign in FORBIDDEN if sign in body["message"]] == []


def test_a_failure_is_retried_and_shows_no_secret(stored: StoredTargets, caplog: pytest.LogCaptureFixture) -> None:
    outcome, _ = sent(stored, USUAL, Reply(500))
    assert (outcome.is_delivered, outcome.is_final) == (False, False)
    assert "SECRET" not in f"{outcome}{caplog.text}"


def test_an_address_that_apprise_does_not_know_is_rejected() -> None:
    with pytest.raises(ValueError, match="does not know"):
        KINDS["apprise"].checked({"url": "nonsense://SECRET"})


def test_only_the_command_offers_apprise() -> None:
    assert [kind.name for kind in KINDS.values() if not kind.is_for_pages] == ["apprise"]
