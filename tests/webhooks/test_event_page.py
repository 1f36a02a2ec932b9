"""The deliveries of an event, on its page."""

from __future__ import annotations

import pytest

from outfeed import log_event
from outfeed.access.store import account
from outfeed.webhooks import store as webhook
from outfeed.webhooks.delivery_log.store import DeliveryLog
from outfeed.webhooks.target import Answer
from tests.http.visitors import bearer
from tests.receiver import SECRET
from tests.webhooks.test_delivery_log import add_post, items_of


@pytest.fixture
def page(flask_app, database):
    def get(event_id, *scopes):
        secret = account.create_token(database, f"bot-{len(scopes)}-{event_id}", list(scopes))
        return bearer(flask_app, secret)("GET", f"/swarm/events/{event_id}", {"Accept": "text/html"}).text

    return get


def test_an_operator_sees_the_deliveries_of_an_event_newest_first(database, page):
    webhook.add(database, "ops", "http://127.0.0.1:9/", types=(), secret=SECRET, batch=0)
    log_event("a.b", "tests", id="one")
    log_event("a.b", "tests", id="other")
    log, (one, other) = DeliveryLog(database), items_of(database)
    add_post(log, [one], Answer(None, "it took too long"))
    add_post(log, [one, other], Answer(200))
    log.write()

    shown = page("one", "admin")
    assert shown.index("<td>200</td>") < shown.index("no answer · it took too long")
    assert page("other", "admin").count('<th scope="row">ops</th>') == 1
    log_event("a.b", "tests", id="third")
    assert "No webhook has posted this event" in page("third", "admin")


def test_other_principals_and_servers_without_webhooks_have_no_deliveries(database, page):
    log_event("a.b", "tests", id="one")
    assert "Webhook deliveries" not in page("one", "admin")
    webhook.add(database, "ops", "http://127.0.0.1:9/", types=(), secret=SECRET, batch=0)
    assert "Webhook deliveries" not in page("one", "read", "write")
    assert "Webhook deliveries" in page("one", "read", "write", "admin")
