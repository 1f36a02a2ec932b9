"""Many tabs behind a proxy without WebSockets.

A browser has six connections per host.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, expect

from tests.page import LivePage, tasks, write
from tests.proxy import Proxy
from tests.server import Server
from tests.waits import wait_until

TABS = 9


def polls_held(server: Server) -> int:
    return int(sum(server.counted("outfeed_clients", transport="poll", state="waiting").values()))


@pytest.fixture
def forbidding(server: Server) -> Iterator[Proxy]:
    """A proxy without WebSockets for its own server.

    Polls of other tests are held until they end.
    """
    with Proxy(server) as proxy:
        proxy.block()
        yield proxy


def test_nine_tabs_load_at_once_and_one_polls_for_all(
    server: Server, forbidding: Proxy, context: BrowserContext
) -> None:
    tabs, took = [], []
    for _ in range(TABS):
        began = time.monotonic()
        tabs.append(LivePage(context.new_page(), server, forbidding.url, state="polling"))
        took.append(time.monotonic() - began)
    assert max(took) < 5, took  # with nine polls held the seventh waited for 5 to 24 s
    wait_until(lambda: polls_held(server) == 1, "one tab holds a poll")

    began = time.monotonic()
    write(server.database, *tasks(1))
    for tab in tabs:
        tab.expect_rows(1)
    assert time.monotonic() - began < 5

    tabs[0].page.close()
    wait_until(
        lambda: polls_held(server) == 1, "another tab holds one", timeout=45
    )  # if the tab ends without a release
    write(server.database, *tasks(1))
    for tab in tabs[1:]:
        tab.expect_rows(2)
        tab.expect_state("polling")


def test_a_crashed_tab_with_the_poll_is_replaced_after_its_turn(
    server: Server, forbidding: Proxy, context: BrowserContext
) -> None:
    page = context.new_page()
    page.clock.install()
    page.add_init_script(
        "localStorage.setItem(`event-feed poll ${location.origin.replace('http', 'ws')}/ws`,"
        " JSON.stringify({id: 'a tab that crashed', until: Date.now() + 30000}));"
    )
    live = LivePage(page, server, forbidding.url, state="polling")
    write(server.database, *tasks(1))
    page.clock.run_for(3000)
    live.expect_rows(1)
    assert polls_held(server) == 0
    page.clock.run_for(30_000)
    wait_until(lambda: polls_held(server) == 1, "the tab holds a poll")
    expect(live.rows).to_have_count(1)
