"""A kind of target: its settings, and how it sends a notice.

Values are a mapping from names to strings, in the form that the table stores. Their secrets are written, and never
read back by a command or a page.
"""

from __future__ import annotations

import abc
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import ClassVar, NamedTuple

from outfeed.alerts.targets.notice import Notice, Outcome
from outfeed.errors import DeliveryCancelled, InvalidTarget
from outfeed.redaction import REDACTED
from outfeed.text import escaped
from outfeed.webhooks.addresses import Allowlist
from outfeed.webhooks.target import Answer, Target, check_url

MAX_ERROR_CHARS = 300
MIN_SECRET_CHARS = 6  # of a setting that is removed from errors; a shorter one would remove words
MAX_SETTING_CHARS = 2000
# 4xx answers after which the same notice may be accepted later.
_TEMPORARY = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)

Values = Mapping[str, str]


class Setting(NamedTuple):
    """A setting of a kind of target.

    *help* follows `--NAME` in the command and stands below the field of the page. A value that *is_sent* is a secret
    that the target's server gets.
    """

    name: str
    label: str
    help: str
    is_secret: bool = False
    is_required: bool = False
    is_sent: bool = False


class Outbound:
    """The sends in progress of one process. Any thread may call any method.

    `cancel` ends them, and every later one.
    """

    def __init__(self, allowlist: Allowlist) -> None:
        self.allowlist = allowlist
        self._lock = threading.Lock()  # guards the next two
        self._ends: dict[int, Callable[[], object]] = {}
        self._is_cancelled = False

    @contextmanager
    def cancellable(self, end: Callable[[], object]) -> Iterator[None]:
        """Call *end* if `cancel` is called within the block.

        Raises DeliveryCancelled after `cancel`.
        """
        with self._lock:
            if self._is_cancelled:
                raise DeliveryCancelled("cancelled")
            self._ends[id(end)] = end
        try:
            yield
        finally:
            with self._lock:
                del self._ends[id(end)]

    def cancel(self) -> None:
        """End every send in progress, and reject every later one."""
        with self._lock:
            self._is_cancelled = True
            for end in self._ends.values():
                end()


class Kind(abc.ABC):
    """One kind of target. It has no state: any thread may use it."""

    name: ClassVar[str]
    label: ClassVar[str]
    settings: ClassVar[tuple[Setting, ...]]
    is_for_pages: ClassVar[bool] = True  # whether the page offers it beside the command

    @abc.abstractmethod
    def checked(self, given: Values) -> dict[str, str]:
        """Return the settings to store.

        All required ones are given. Raises InvalidTarget.
        """

    @abc.abstractmethod
    def place(self, settings: Values) -> str:
        """Return where notices go, for people, without a secret."""

    @abc.abstractmethod
    def endpoint(self, settings: Values) -> tuple[str, int] | None:
        """Return host and port that a notice is sent to, None if unknown."""

    @abc.abstractmethod
    def send(self, settings: Values, notice: Notice, outbound: Outbound) -> Outcome:
        """Send *notice* once, in 30 seconds at most.

        Raises DeliveryCancelled.
        """

    def secrets(self, settings: Values) -> list[str]:
        """Return the values that no text may show."""
        return [settings[each.name] for each in self.settings if each.is_secret and settings.get(each.name)]


class Post(NamedTuple):
    """One HTTP request of a notice."""

    url: str
    body: bytes
    headers: Mapping[str, str] = {}


class HttpKind(Kind):
    """A kind of target that takes a notice by one HTTP POST."""

    @abc.abstractmethod
    def post(self, settings: Values, notice: Notice) -> Post:
        """Return the request of a notice."""

    def place(self, settings: Values) -> str:
        return check_url(settings["url"]).host

    def endpoint(self, settings: Values) -> tuple[str, int] | None:
        url = check_url(settings["url"])
        return url.host, url.port or (443 if url.scheme == "https" else 80)

    def send(self, settings: Values, notice: Notice, outbound: Outbound) -> Outcome:
        post = self.post(settings, notice)
        target = Target(post.url, outbound.allowlist)
        try:
            with outbound.cancellable(target.cancel):
                answer = target.post(post.body, post.headers)
        finally:
            target.close()
        return self.outcome(answer)

    def outcome(self, answer: Answer) -> Outcome:
        """Return the outcome of an answer.

        4xx and redirects are final, except those that ask to retry. 5xx and network errors are not.
        """
        if answer.is_delivered:
            return Outcome(is_delivered=True)
        is_final = answer.status is not None and answer.status < 500 and answer.status not in _TEMPORARY
        return Outcome(False, str(answer), is_final, answer.retry_after_secs)


def shown_error(text: str, secrets: list[str]) -> str:
    """Return *text* on one line, without control characters and secrets."""
    for secret in secrets:
        if len(secret) >= MIN_SECRET_CHARS:
            text = text.replace(secret, REDACTED)
    return escaped(" ".join(text.split()))[:MAX_ERROR_CHARS]


def checked_url(url: str, example: str) -> str:
    """Return the setting *url* if it can be posted to. Raises InvalidTarget."""
    try:
        parsed = check_url(url)
    except ValueError:
        raise InvalidTarget("url", f"must be an address like {example}") from None
    if parsed.fragment:
        raise InvalidTarget("url", f"must be an address like {example}, without #")
    return url
