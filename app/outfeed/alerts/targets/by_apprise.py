"""Notices by Apprise, for services that have no kind of their own.

Apprise is the extra `outfeed[apprise]`. It makes its own connections, so OUTFEED_WEBHOOK_ALLOW does not limit them. So
only the command adds such a target, and no page.
"""

from __future__ import annotations

import importlib.util
import logging
import queue
import threading
from typing import Any, ClassVar

from outfeed.alerts.targets import wording
from outfeed.alerts.targets.kind import Kind, Outbound, Setting, Values
from outfeed.alerts.targets.notice import Notice, NoticeKind, Outcome
from outfeed.display import Level
from outfeed.errors import InvalidTarget

TOTAL_SECS = 25.0
MISSING = "Apprise is not installed; install it by: pip install 'outfeed[apprise]'"
_TYPES = {Level.INFO: "info", Level.WARNING: "warning", Level.ERROR: "failure"}
# A space of no width after them, so that no service reads a mention, a link or a tag.
_SIGNS = {ord(sign): f"{sign}\u200b" for sign in "@<&[`*"}


class AppriseKind(Kind):
    """A service of Apprise, by its URL."""

    name: ClassVar = "apprise"
    label: ClassVar = "Apprise"
    settings: ClassVar = (Setting("url", "URL", "Address as Apprise has it.", is_secret=True, is_required=True),)
    is_for_pages: ClassVar = False

    def checked(self, given: Values) -> dict[str, str]:
        if importlib.util.find_spec("apprise") is None:
            raise InvalidTarget("url", MISSING)
        if _service(given["url"]) is None:
            raise InvalidTarget("url", "Apprise does not know such an address; see https://appriseit.com/services/")
        return {"url": given["url"]}

    def place(self, settings: Values) -> str:
        return settings["url"].partition("://")[0]

    def endpoint(self, settings: Values) -> None:
        return None

    def send(self, settings: Values, notice: Notice, outbound: Outbound) -> Outcome:
        if importlib.util.find_spec("apprise") is None:
            return Outcome(False, MISSING, is_final=True)
        found: queue.SimpleQueue[bool] = queue.SimpleQueue()
        # Apprise can't be cancelled: its thread ends with its own timeouts, or with the process.
        thread = threading.Thread(
            target=lambda: found.put(_notify(settings["url"], notice)), name="outfeed-apprise", daemon=True
        )
        thread.start()
        with outbound.cancellable(lambda: found.put(False)):
            try:
                is_sent = found.get(timeout=TOTAL_SECS)
            except queue.Empty:
                return Outcome(False, f"no answer within {TOTAL_SECS:g} s")
        return Outcome(is_sent, None if is_sent else "Apprise could not send the notice")


def _service(url: str) -> Any:
    import apprise

    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)  # its messages have addresses with secrets
    return apprise.Apprise.instantiate(url, suppress_exceptions=True)


def _notify(url: str, notice: Notice) -> bool:
    import apprise

    service = _service(url)
    client = apprise.Apprise()
    if service is None or not client.add(service):
        return False
    kind = apprise.NotifyType("success" if notice.kind is NoticeKind.CLEARED else _TYPES[notice.level])
    title, body = (text.translate(_SIGNS) for text in (wording.title(notice), wording.plain(notice)))
    sent = client.notify(body=body, title=title, notify_type=kind, body_format=apprise.NotifyFormat.TEXT)
    return bool(sent)
