"""Notices for tests: a usual one, and one that an attacker writes."""

from __future__ import annotations

from outfeed.alerts.targets import Notice, NoticeKind
from outfeed.display import Level

USUAL = Notice(
    event_id="0192f0c1-7d3a-7e2b-9c55-3f1a2b4c5d6e",
    kind=NoticeKind.RAISED,
    rule="payments",
    title="payments: more than 10 events in 5 min",
    text="12 events matched.\nOrder 17 failed: card declined",
    level=Level.ERROR,
    url="https://feed.example.com/alerts/payments?a=1&b=2",
    occurred_at="2026-11-30T12:00:00.000000Z",
    count=12,
    matched={"id": "e-17", "event_type": "order.failed", "source": "shop", "task_id": "t-1", "data": {"card": 1}},
)
# Markup, mentions, links and control characters of all targets. The first line is also the text of a header.
ATTACK = (
    "\x1b[31m@everyone <!channel> <@1> &lt; *a* _b_ `c` [x](http://evil.example) ||d|| \u202egnp.exe {{DATE(1)}}\x00"
)
HOSTILE = Notice(
    event_id="x\r\nBcc: all@example.com",
    kind=NoticeKind.RAISED,
    rule=ATTACK,
    title=f"{ATTACK}\r\nBcc: all@example.com",
    text=f"{ATTACK}\r\n# head\r\n- item <script>alert(1)</script>\r\n{'😀' * 9000}",
    level=Level.WARNING,
    url=None,
    occurred_at="2026-11-30T12:00:00.000000Z",
    count=1,
    matched={"id": ATTACK, "event_type": ATTACK * 50, "source": "\ud800", "task_id": 7, "agent_id": "a\nb"},
)
FORBIDDEN = ("\x1b", "\x00", "\u202e", "\r", "\ud800")
