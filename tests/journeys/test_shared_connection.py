"""One connection for all tabs and elements of a browser."""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from outfeed.feed.subscription import FeedRequest
from outfeed.history import Item
from outfeed.principal import EVERYTHING
from tests.journeys.test_embedding import recorded, recorded_seqs
from tests.journeys.test_many_tabs import polls_held
from tests.page import PATIENCE_MS, LivePage, change, tasks, write
from tests.proxy import Proxy
from tests.server import Server
from tests.tabs import Tabs, Walk, leads, seqs, set_visible
from tests.waits import wait_until


@pytest.fixture
def tabs(context: BrowserContext, shared: Server, proxy: Proxy) -> Tabs:
    return Tabs(context, shared, proxy)


def test_tabs_with_different_filters_share_one_connection(tabs: Tabs) -> None:
    server = tabs.server
    write(server.database, *tasks(3))
    first = tabs.open('<event-feed types="task.*"></event-feed>', "/tasks")
    second = tabs.open('<event-feed types="system.*"></event-feed><event-feed source="monitor"></event-feed>', "/two")
    third = tabs.open()
    tabs.expect_sockets(1)
    errors, monitor = second.locator("event-feed").all()
    for number in range(3):
        write(server.database, *tasks(1))
        write(server.database, {"message": "Disk full"}, event_type="system.error")
        write(server.database, {"message": str(number)}, event_type="system.info", source="monitor")
    for feed, wanted in (
        (first.locator("event-feed"), [1, 2, 3, 4, 7, 10]),
        (errors, [5, 6, 8, 9, 11, 12]),
        (monitor, [6, 9, 12]),
        (third.locator("event-feed"), list(range(1, 13))),
    ):
        expect(feed.locator(".rows > .event")).to_have_count(len(wanted))
        assert seqs(feed, server.base) == wanted
        wait_until(
            lambda feed=feed: feed.evaluate("feed => feed.cursor") - server.base == 12, "the cursor is at the head"
        )
    tabs.expect_sockets(1)
    assert tabs.errors == []
    assert recorded_seqs(third, server.base) == list(range(1, 13))
    assert {each["state"] for each in recorded(third, "state")} <= {"connecting", "catching-up", "live"}


# --- changes of the leader --------------------------------------------------------------------------------------------


def expect_leader(page: Page) -> None:
    wait_until(lambda: leads(page), "the tab has the connection")


def expect_complete(pages: list[Page], base: int, count: int) -> None:
    """Each tab has shown each event once, in order, and was always live."""
    for page in pages:
        expect(page.locator("event-feed .rows > .event")).to_have_count(count)
        assert seqs(page, base) == recorded_seqs(page, base) == list(range(1, count + 1))
        assert {each["state"] for each in recorded(page, "state")} <= {"connecting", "catching-up", "live"}


def test_a_visible_tab_leads_and_no_tab_notices_the_change(tabs: Tabs) -> None:
    server = tabs.server
    one, two, three = (tabs.open() for _ in range(3))
    expect_leader(one)
    write(server.database, *tasks(1))
    set_visible(two, False)
    set_visible(one, False)  # three is the only visible one
    expect_leader(three)
    write(server.database, *tasks(1))
    set_visible(one, True)
    write(server.database, *tasks(1))
    assert leads(three)  # it is visible too
    set_visible(three, False)
    expect_leader(one)
    write(server.database, *tasks(1))
    expect_complete([one, two, three], server.base, 4)
    tabs.expect_sockets(1)


def test_another_tab_leads_when_the_leader_ends_or_is_silent(tabs: Tabs) -> None:
    server = tabs.server
    one, two, three, four = (tabs.open() for _ in range(4))
    write(server.database, *tasks(1))
    one.close()
    expect_leader(two)
    write(server.database, *tasks(1))
    two.reload()
    expect_leader(three)
    write(server.database, *tasks(1))
    expect(two.locator("event-feed .rows > .event")).to_have_count(3)
    three.evaluate("addEventListener('pagehide', event => event.stopImmediatePropagation(), true)")
    three.close()  # its scripts end without a step
    expect_leader(four)
    write(server.database, *tasks(1))
    four.evaluate("BroadcastChannel.prototype.postMessage = () => {}")
    write(server.database, *tasks(1))
    expect_leader(two)
    write(server.database, *tasks(1))
    expect_complete([four], server.base, 6)
    expect(two.locator("event-feed .rows > .event")).to_have_count(6)
    assert seqs(two, server.base) == list(range(1, 7))
    tabs.expect_sockets(1)


def test_a_hidden_leader_of_hidden_tabs_keeps_the_connection(tabs: Tabs) -> None:
    one, two = tabs.open(), tabs.open()
    set_visible(two, False)
    set_visible(one, False)
    write(tabs.server.database, *tasks(2))
    expect_complete([one, two], tabs.server.base, 2)
    assert leads(one)
    assert not leads(two)


def test_a_page_that_leaves_and_returns_misses_no_event(tabs: Tabs) -> None:
    """Both ways: frozen, and kept for the button that goes back."""
    server = tabs.server
    one, two = tabs.open(), tabs.open()
    for leave, come_back in (
        ("document.dispatchEvent(new Event('freeze'))", "document.dispatchEvent(new Event('resume'))"),
        (
            "dispatchEvent(new PageTransitionEvent('pagehide', {persisted: true}))",
            "dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))",
        ),
    ):
        for page, other in ((one, two), (two, one)):
            page.evaluate(leave)
            expect_leader(other)
            write(server.database, *tasks(1))
            expect(other.locator("event-feed .rows > .event")).to_have_count(len(seqs(page, server.base)) + 1)
            page.evaluate(come_back)
            expect(page.locator("event-feed .bar")).to_have_attribute("data-state", "live")
            expect(page.locator("event-feed .rows > .event")).to_have_count(len(seqs(other, server.base)))
    assert seqs(one, server.base) == seqs(two, server.base) == recorded_seqs(one, server.base) == [1, 2, 3, 4]


def test_no_tab_misses_or_repeats_an_event_over_any_steps(tabs: Tabs) -> None:
    walk = Walk(tabs, random.Random(5))  # `scripts/soak --tabs` draws others, and takes longer walks
    for _ in range(20):
        walk.step()
    walk.check()


# --- outages and verdicts ---------------------------------------------------------------------------------------------


def test_a_restart_a_gap_a_reset_and_an_erasure_reach_every_tab(server: Server, context: BrowserContext) -> None:
    with Proxy(server) as proxy:
        tabs = Tabs(context, server, proxy)
        pages = [tabs.open() for _ in range(3)]
        write(server.database, *tasks(2))
        proxy.go_down()
        for page in pages:
            expect(page.locator("event-feed .bar")).to_have_attribute("data-state", "reconnecting")
        write(server.database, *tasks(2))
        proxy.come_back()
        pages[2].evaluate("document.querySelector('event-feed').shadowRoot.querySelector('.retry').click()")
        for page in pages:
            expect(page.locator("event-feed .bar")).to_have_attribute("data-state", "live")
            expect(page.locator("event-feed .rows > .event")).to_have_count(4)
        tabs.expect_sockets(1)

        proxy.go_down()
        write(server.database, *tasks(4))
        change(server.database, "DELETE FROM outbox WHERE seq <= 6")
        proxy.come_back()
        for page in pages:
            page.evaluate("dispatchEvent(new Event('online'))")
        for page in pages:
            expect(page.locator("event-feed .notice")).to_contain_text("Events 5–6 are missing here.")
            expect(page.locator("event-feed .rows > .event")).to_have_count(6)
            assert seqs(page, 0) == [1, 2, 3, 4, 7, 8]
        change(server.database, "UPDATE outfeed_meta SET value = 'another' WHERE key = 'epoch'")
        for page in pages:
            expect(page.locator("event-feed .notice")).to_contain_text("The database was restored")
            expect(page.locator("event-feed .bar")).to_have_attribute("data-state", "live")
        write(server.database, *tasks(1))
        for page in pages:
            expect(page.locator("event-feed .rows > .event")).to_have_count(3)
            assert seqs(page, 0) == [7, 8, 9]

        with contextlib.closing(sqlite3.connect(server.database)) as raw:
            erased = json.loads(raw.execute("SELECT payload FROM outbox WHERE seq = 8").fetchone()[0])["id"]
        assert server.run("prune", "--id", erased).returncode == 0
        for page in pages:
            expect(page.locator("event-feed .rows > .event")).to_have_count(2)
            assert seqs(page, 0) == [7, 9]
        tabs.expect_sockets(1)


def test_tabs_without_websockets_share_one_poll(tabs: Tabs) -> None:
    tabs.proxy.block()
    pages = [tabs.open(state="polling") for _ in range(3)]
    system = tabs.open('<event-feed types="system.*"></event-feed>', "/system", state="polling")
    # A tab that led for a moment may have ended without a release of its turn.
    wait_until(lambda: polls_held(tabs.server) == 1, "one tab holds a poll", timeout=45)
    pages[0].close()
    set_visible(pages[1], False)
    write(tabs.server.database, *tasks(2))
    write(tabs.server.database, {"message": "Disk full"}, event_type="system.error")
    for page in pages[1:]:
        expect(page.locator("event-feed .rows > .event")).to_have_count(3)
        assert seqs(page, tabs.server.base) == [1, 2, 3]
    expect(system.locator("event-feed .rows > .event")).to_have_count(1)
    # The closed tab may have ended without a release of its turn.
    wait_until(lambda: polls_held(tabs.server) == 1, "one tab holds a poll", timeout=45)
    tabs.proxy.unblock()
    for page in [*pages[1:], system]:
        expect(page.locator("event-feed .bar")).to_have_attribute("data-state", "live", timeout=2 * PATIENCE_MS)
    tabs.expect_sockets(1)


# Keeps the kinds of the messages between the tabs.
RECORD_MESSAGES = """() => {
    window.heard = [];
    window.channel = new BroadcastChannel(`event-feed ${location.origin.replace("http", "ws")}/ws`);
    channel.onmessage = ({data}) => heard.push(data.kind);
}"""


def test_a_slow_answer_to_a_wider_poll_is_awaited(tabs: Tabs) -> None:
    tabs.proxy.block()
    one = tabs.open('<event-feed types="task.*"></event-feed>', "/tasks", state="polling")
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    one.route("**/api/feed*", hold)
    two = tabs.open('<event-feed types="system.*"></event-feed>', "/system", state="polling")
    wait_until(lambda: held and two.evaluate("true"), "the leader requests the events of both")
    two.evaluate(RECORD_MESSAGES)
    two.evaluate("channel.postMessage({kind: 'want', id: 'three', filter: {types: ['system.error']}})")
    beats = "heard.filter(kind => kind === 'beat').length"
    wait_until(lambda: two.evaluate(beats) > 2, "the leader answers, and is heard twice more")
    assert "want" not in two.evaluate("heard")  # the leader knows the filter
    assert len(held) == 1  # another request would drop this one
    one.unroute("**/api/feed*")  # sends it
    write(tabs.server.database, {"message": "Disk full"}, event_type="system.error")
    expect(two.locator("event-feed .rows > .event")).to_have_count(1)


# --- who shares -------------------------------------------------------------------------------------------------------


def test_a_sign_out_ends_the_feed_of_every_tab(shared: Server, context: BrowserContext) -> None:
    pages = [LivePage(context.new_page(), shared) for _ in range(3)]
    pages[2].page.locator("form[action$='/logout']").evaluate("form => form.requestSubmit()")
    for live in pages[:2]:
        live.expect_state("signed-out")


def test_tabs_of_two_users_do_not_share(shared: Server, context: BrowserContext, tabs: Tabs) -> None:
    operator, another = LivePage(context.new_page(), shared), LivePage(context.new_page(), shared)
    another.feed.evaluate("feed => feed.setAttribute('types', 'access.*,task.*')")
    assert [leads(live.page) for live in (operator, another)] == [True, False]
    write(shared.database, *tasks(1))
    another.expect_rows(1)  # by the shared connection: a request of its own would have the next user's cookie

    [cookie] = [each for each in context.cookies() if each["name"] == shared.cookie_name]
    context.add_cookies([{**cookie, "value": shared.sign_in("viewer")}])  # type: ignore[list-item]
    viewer = LivePage(context.new_page(), shared)
    viewer.feed.evaluate("feed => feed.setAttribute('types', 'access.*,task.*')")
    expect_leader(viewer.page)
    shared.run("token", "create", f"someone-{shared.base}", "--scopes", "read")
    write(shared.database, *tasks(1))
    another.expect_rows(3)
    viewer.expect_rows(2)
    operator.expect_rows(2)  # without the audit events, which it does not ask for
    assert [leads(live.page) for live in (operator, another, viewer)] == [True, False, True]


@pytest.mark.parametrize(
    ("missing", "attributes"),
    [("delete Navigator.prototype.locks;", ""), ("delete window.BroadcastChannel;", ""), ("", "batch=false")],
    ids=["without locks", "without channels", "with a pace of its own"],
)
def test_a_tab_that_cannot_share_connects_by_itself(
    tabs: Tabs, context: BrowserContext, missing: str, attributes: str
) -> None:
    context.add_init_script(missing)
    pages = [tabs.open(f"<event-feed {attributes}></event-feed>") for _ in range(2)]
    write(tabs.server.database, *tasks(2))
    expect_complete(pages, tabs.server.base, 2)
    tabs.expect_sockets(2)


def test_a_tab_whose_requests_are_refused_connects_by_itself(tabs: Tabs) -> None:
    one = tabs.open()
    tabs.proxy.answer = b"HTTP/1.1 404 -\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    two = tabs.open()
    write(tabs.server.database, *tasks(2))
    expect_complete([one, two], tabs.server.base, 2)
    tabs.expect_sockets(2)


# --- the modules ------------------------------------------------------------------------------------------------------


def random_filter(source: random.Random) -> dict[str, Any]:
    """Return the fields of a request, with few values."""
    types = ["task.*", "task.created", "task.done", "task.sub.*", "task.sub.a", "system.*", "taskish"]
    chosen: dict[str, Any] = {}
    if source.random() < 0.6:
        chosen["types"] = source.sample(types, source.randint(1, 3))
    for field in ("source", "task_id", "agent_id"):
        if source.random() < 0.3:
            chosen[field] = source.choice("ab")
    return chosen


def test_filters_agree_with_the_server(shared: Server, page: Page) -> None:
    source = random.Random(7)
    types = ["task.created", "task.done", "task.sub.a", "task", "taskish", "system.error", "task.sub"]
    events = [
        {
            "event_type": source.choice(types),
            **{field: source.choice("abc") for field in ("source", "task_id", "agent_id")},
        }
        for _ in range(60)
    ]
    groups = [[random_filter(source) for _ in range(source.randint(1, 4))] for _ in range(120)]
    page.goto(f"{shared.url}/login")
    found = page.evaluate(
        """async ([groups, events]) => {
            const { covers, matches, union } = await import("/static/event-feed/filters.js");
            return groups.map(filters => ({
                wide: union(filters),
                covered: filters.map(filter => covers(union(filters), filter) && covers(filter, filter)),
                narrow: filters.map(one => filters.map(other => covers(one, other))),
                matching: filters.map(filter => events.map(event => matches(filter, event))),
            }));
        }""",
        [groups, events],
    )
    items = [Item(1, b"", None, timestamp=None, **event) for event in events]
    for filters, answer in zip(groups, found, strict=True):
        ours = [[FeedRequest(**each).filter(EVERYTHING).matches(item) for item in items] for each in filters]
        assert answer["matching"] == ours
        assert all(answer["covered"])
        wide = [FeedRequest(**answer["wide"]).filter(EVERYTHING).matches(item) for item in items]
        for matching, narrow in zip(ours, answer["narrow"], strict=True):
            assert all(it or not mine for mine, it in zip(matching, wide, strict=True))
            for other, is_covered in zip(ours, narrow, strict=True):
                assert not is_covered or all(mine or not theirs for mine, theirs in zip(matching, other, strict=True))


def test_a_group_has_one_leader_and_a_member_that_hears_no_other_leaves_it(shared: Server, page: Page) -> None:
    page.goto(f"{shared.url}/login")
    page.evaluate(
        """async () => {
            const { Group } = await import("/static/event-feed/group.js");
            window.told = [];
            window.heard = [];
            window.member = (name, place = "group") => new Group(place, {
                lead: () => told.push(`${name} leads`), follow: () => told.push(`${name} follows`),
                fail: () => told.push(`${name} fails`), hear: ({ text }) => text && heard.push(`${name}: ${text}`),
                status: () => ({ text: `from ${name}` }), isReady: () => true,
            });
            [window.one, window.two, window.three] = ["one", "two", "three"].map(name => member(name));
        }"""
    )

    def expect_told(*expected: str) -> None:
        wait_until(lambda: page.evaluate("told.length") >= len(expected), f"{expected} is told")
        assert page.evaluate("told.splice(0)") == list(expected)

    page.evaluate("one.join()")
    expect_told("one leads")
    page.evaluate("two.join(); three.join()")
    expect_told("two follows", "three follows")
    page.evaluate("one.beat()")
    wait_until(lambda: page.evaluate("heard.slice(-2)") == ["two: from one", "three: from one"], "both hear the leader")
    page.evaluate("one.leave()")
    expect_told("two leads")
    page.evaluate("one.join()")
    expect_told("one follows")
    page.evaluate("two.leave(); three.leave(); one.leave()")
    page.evaluate("told.length = 0; void navigator.locks.request('group', () => new Promise(() => {})).catch(() => {})")
    page.evaluate("one.join()")  # the lock's holder says nothing: it is in another part of the browser
    expect_told("one follows", "one leads")
    page.evaluate("void navigator.locks.request('group', { steal: true }, () => null)")
    expect_told("one fails")


FOLLOWER = """async (messages) => {
    const { Follower } = await import("/static/event-feed/following.js");
    const { Subscription } = await import("/static/event-feed/subscription.js");
    const subscription = new Subscription({ types: ["task.*"], last: 10 }, true);
    let now = 0;
    performance.now = () => (now += 1000); // more than the pause between two requests
    const told = [];
    const shown = [];
    const show = (prev, events, end) => shown.push(...subscription.take(prev, events, end).map(({ seq }) => seq));
    const follower = new Follower(subscription, {
        frame: ({ type, prev, payload, end }) => {
            if (type === "subscribed") { told.push(payload.verdict); subscription.accept(payload); }
            else show(prev, payload, end);
        },
        page: (page) => {
            const verdict = subscription.verdictOf(page);
            if (verdict) subscription.accept(verdict);
            show(subscription.received, page.events);
            subscription.reach(page.cursor, page.head);
        },
        link: (link) => told.push(link), request: () => told.push("request"), drop: () => {},
        announce: () => told.push("announce"), alone: () => { told.push("alone"); follower.stop(); },
    });
    return messages.map(({ page, interrupted, ...message }) => {
        told.length = shown.length = 0;
        if (interrupted) subscription.interrupt();
        if (page) { follower.take(page); follower.endCatchUp(); }
        else follower.hear({ principal: "p", epoch: "e", filter: {}, ...message });
        return [[...told], [...shown], subscription.received];
    });
}"""


def page_of(*numbers: int, **fields: Any) -> dict[str, Any]:
    last = {"epoch": "e", "verdict": "resumed", "principal": "p", "cursor": numbers[-1], "head": numbers[-1]}
    return {"page": {**last, "events": [task(seq) for seq in numbers], **fields}}


def frame_of(*numbers: int, start: int, event_type: str = "task.created", **fields: Any) -> dict[str, Any]:
    payload = [task(seq, event_type) for seq in numbers]
    text = json.dumps({"type": "events", "prev": start, "payload": payload})
    return {"kind": "frame", "from": start, "text": text, **fields}


def task(seq: int, event_type: str = "task.created") -> dict[str, Any]:
    return {"seq": seq, "event_type": event_type}


def verdict_of(kind: str, after: int, head: int) -> dict[str, Any]:
    payload = {"channel": "events", "epoch": "e", "verdict": kind, "after": after, "head": head}
    return {"kind": "frame", "from": after, "text": json.dumps({"type": "subscribed", "payload": payload})}


def test_a_follower_requests_what_it_lacks_and_drops_what_it_has(shared: Server, page: Page) -> None:
    beat = {"kind": "beat", "id": "leader", "link": "open", "news": {}, "received": 9, "isConnected": True}
    steps: list[tuple[dict[str, Any], list[str], list[int], int]] = [
        # Each: what comes, what the follower asks and tells, what it shows, and its position after that.
        (page_of(4, 5, verdict="live"), ["announce"], [4, 5], 5),
        (frame_of(6, 7, start=5), [], [6, 7], 7),
        (frame_of(6, 7, start=5), [], [], 7),
        (frame_of(8, start=7, event_type="system.error"), [], [], 8),
        (beat, ["open", "announce", "request"], [], 8),
        (frame_of(10, 11, start=9), [], [], 8),
        (page_of(9, 10), ["announce"], [9, 10, 11], 11),
        (beat | {"received": 11}, ["open"], [], 11),
        (frame_of(14, start=13), ["request"], [], 11),
        (page_of(12, 13, 14), ["announce"], [12, 13, 14], 14),
        (frame_of(15, start=14, filter={"types": ["system.*"]}), [], [], 14),
        (beat | {"received": 15, "filter": {"types": ["system.*"]}}, ["open", "announce"], [], 14),
        (beat | {"received": 15, "filter": {"types": ["system.*"]}, "wanted": {}}, ["open"], [], 14),
        (verdict_of("resumed", 15, 15), ["request"], [], 14),
        (page_of(15), ["announce"], [15], 15),
        (verdict_of("gap", 12, 16) | {"interrupted": True}, ["resumed"], [], 15),
        (frame_of(16, start=12), [], [16], 16),
        (frame_of(17, start=16, epoch="another"), ["request"], [], 16),
        (page_of(16, cursor=16, head=16), ["announce"], [], 16),
        (page_of(16, epoch="another", verdict="reset"), ["announce"], [16], 16),
        (frame_of(17, start=16, epoch="another"), [], [17], 17),
        (frame_of(18, start=17, epoch="another", principal="q"), ["request"], [], 17),
        (frame_of(18, start=17, epoch="another", principal="q"), [], [], 17),
        (frame_of(19, start=18, epoch="another", principal="q"), [], [], 17),
        (page_of(17, epoch="another", cursor=17, head=17), ["announce", "alone"], [], 17),
    ]
    page.goto(f"{shared.url}/docs")
    found = page.evaluate(FOLLOWER, [message for message, *_ in steps])
    for number, (answer, (message, *expected)) in enumerate(zip(found, steps, strict=True)):
        assert answer == expected, f"step {number}: {message}"
