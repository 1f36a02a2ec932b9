"""Targets: a webhook's URL, and bounded posts to it.

Posts are bounded in time, size and address.
"""

from __future__ import annotations

import contextlib
import email.utils
import ssl
from collections.abc import Mapping
from datetime import UTC
from http import HTTPStatus
from typing import NamedTuple

import httpcore
import httpx

from outfeed import clock
from outfeed.errors import OutfeedError
from outfeed.webhooks.addresses import Allowlist
from outfeed.webhooks.transport import AbortHandle, PinnedBackend

TOTAL_SECS = 20.0
# An answer is read up to this size, so that the connection can be reused. A longer answer closes the connection.
MAX_ANSWER_BYTES = 16 * 1024
MAX_URL_CHARS = 2000
MAX_PORT = 65_535
PORTS = {"http": 80, "https": 443}
_PAUSE_STATUSES = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
# These statuses concern the body. 401, 403, 404 and 410 concern the URL or the secret, and so every event.
_REJECTION_STATUSES = (
    HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)  # fmt: skip
_HEADERS = {"content-type": "application/json", "user-agent": "outfeed"}


class Answer(NamedTuple):
    """The result of a post: a *status* or an *error*.

    *retry_after_secs* is set if the target asked for a pause. *body* is the answer's body; it is empty, not cut, above
    MAX_ANSWER_BYTES.
    """

    status: int | None
    error: str | None = None
    retry_after_secs: float | None = None
    body: bytes = b""

    @property
    def is_delivered(self) -> bool:
        """Return whether the target accepted the post, with any 2xx."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def is_rejected(self) -> bool:
        """Return whether the target rejects this post but may accept others."""
        return self.status in _REJECTION_STATUSES

    @property
    def is_gone(self) -> bool:
        """Return whether the target asks to be removed."""
        return self.status == HTTPStatus.GONE

    def __str__(self) -> str:
        return self.error or f"the target answered {self.status}"


class Target:
    """One URL.

    `post` and `close` belong to one thread. Any thread may call `cancel`. Each connection resolves the name, checks its
    addresses and uses a checked one. TLS checks the certificate against the URL's host name. Redirects are not
    followed, and the environment's proxy is not used.
    """

    def __init__(self, url: str, allowlist: Allowlist, *, total_secs: float = TOTAL_SECS) -> None:
        self._url = check_url(url)
        self._total_secs = total_secs
        self._abort_handle = AbortHandle()
        self._pool = httpcore.ConnectionPool(
            ssl_context=ssl.create_default_context() if self._url.scheme == "https" else None,
            max_connections=1,
            network_backend=PinnedBackend(allowlist, self._abort_handle),
        )

    def post(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Post *body* once and return the result.

        Takes up to TOTAL_SECS and the time of a name look-up.
        """
        self._abort_handle.start(self._total_secs)
        try:
            return self._post(body, headers)
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError, OutfeedError) as error:
            is_late = self._abort_handle.remaining_secs <= 0
            return Answer(None, f"no answer within {self._total_secs:g} s" if is_late else _reason(error))

    def cancel(self) -> None:
        """End the current post at once, and reject every later one."""
        self._abort_handle.abort()

    def close(self) -> None:
        """Close the kept connection. No post may follow."""
        self._pool.close()
        self._abort_handle.close()

    def _post(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        url = httpcore.URL(
            scheme=self._url.scheme, host=self._url.raw_host, port=self._url.port, target=self._url.raw_path
        )
        sent = [*_HEADERS.items(), ("host", self._url.netloc.decode("ascii")), *headers.items()]
        self._abort_handle.check()
        with self._pool.stream("POST", url, headers=sent, content=body) as response:
            answered = httpx.Headers(response.headers)
            body = b""
            # The status counts even if the rest of the answer is lost.
            with contextlib.suppress(httpcore.NetworkError, httpcore.ProtocolError, OSError, OutfeedError):
                body = _read_body(response)
        return Answer(response.status, retry_after_secs=_retry_after(response.status, answered), body=body)


def _read_body(response: httpcore.Response) -> bytes:
    """Return the body, so that the connection can be reused.

    Returns an empty body above MAX_ANSWER_BYTES, which closes the connection: redaction would not recognise a secret
    that is cut.
    """
    body = b""
    for chunk in response.iter_stream():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            return b""
    return body


def check_url(url: str) -> httpx.URL:
    """Return the parsed URL if it can be posted to. Raises ValueError."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"is not a URL: {url!r:.200}") from error
    if parsed.scheme not in PORTS or not parsed.host:
        raise ValueError(f"must begin with http:// or https:// and a host, got {url!r:.200}")
    if parsed.userinfo:
        raise ValueError("must not contain a name or password; the signature proves the sender")
    if parsed.port is not None and not 1 <= parsed.port <= MAX_PORT:
        raise ValueError(f"must have a port from 1 to {MAX_PORT}, got {parsed.port}")
    if len(url) > MAX_URL_CHARS:
        raise ValueError(f"must have at most {MAX_URL_CHARS} characters")
    return parsed


def _retry_after(status: int, headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a Retry-After header.

    The header may contain a date instead (RFC 9110 section 10.2.3).
    """
    text = headers.get("retry-after", "").strip()
    if status not in _PAUSE_STATUSES or not text:
        return None
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - clock.now()).total_seconds())


def _reason(error: Exception) -> str:
    """Return an error's reason on one line, in at most 200 characters.

    It omits the URL, which may contain a secret.
    """
    text = str(getattr(error, "strerror", None) or error) or type(error).__name__
    return " ".join(text.split())[:200]
