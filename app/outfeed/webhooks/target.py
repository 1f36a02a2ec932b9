"""Targets: one webhook's URL, and posts to it that are bounded in time, size and address."""

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
# The body of an answer is read up to here, so that the connection can be used again. A longer one closes it.
MAX_ANSWER_BYTES = 16 * 1024
MAX_URL_CHARS = 2000
MAX_PORT = 65_535
PORTS = {"http": 80, "https": 443}
_WAITS = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
# These speak of the body. 401, 403, 404 and 410 speak of the URL or the secret, and so of every event.
_REJECTS = (
    HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)  # fmt: skip
_HEADERS = {"content-type": "application/json", "user-agent": "outfeed"}


class Answer(NamedTuple):
    """The result of a post: a *status* or an *error*. *retry_after_secs* is set if the target asked for a pause.

    *body* is what came with the status; it is empty, not cut, above MAX_ANSWER_BYTES.
    """

    status: int | None
    error: str | None = None
    retry_after_secs: float | None = None
    body: bytes = b""

    @property
    def is_delivered(self) -> bool:
        """Whether the target accepted the post: any 2xx."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def is_rejected(self) -> bool:
        """Whether the target may never accept this post, and may well accept another one."""
        return self.status in _REJECTS

    @property
    def is_gone(self) -> bool:
        """Whether the target asks to be removed."""
        return self.status == HTTPStatus.GONE

    def __str__(self) -> str:
        return self.error or f"the target answered {self.status}"


class Target:
    """One URL. `post` and `close` belong to one thread; `cancel` may be called by any.

    Each connection resolves the name, checks its addresses and goes to one that was checked. TLS checks the certificate
    against the URL's host name. Redirects are not followed, and the environment's proxy is not used.
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
        """Post *body* once and return the result, within TOTAL_SECS and the time of a name look-up."""
        self._abort_handle.start(self._total_secs)
        try:
            return self._post(body, headers)
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError, OutfeedError) as error:
            is_late = self._abort_handle.remaining_secs <= 0
            return Answer(None, f"no answer within {self._total_secs:g} s" if is_late else _reason(error))

    def cancel(self) -> None:
        """End the post in progress at once, and refuse every later one."""
        self._abort_handle.abort()

    def close(self) -> None:
        """Close the connection that is kept for the next post. There may be none afterwards."""
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
            # The status stands, even if the rest of the answer is lost.
            with contextlib.suppress(httpcore.NetworkError, httpcore.ProtocolError, OSError, OutfeedError):
                body = _read_body(response)
        return Answer(response.status, retry_after_secs=_retry_after(response.status, answered), body=body)


def _read_body(response: httpcore.Response) -> bytes:
    """Return the body, read so that the connection can be used again; stop at MAX_ANSWER_BYTES, which closes it.

    A longer one is left out, since a secret that is cut off is not recognised as one.
    """
    body = b""
    for chunk in response.iter_stream():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            return b""
    return body


def check_url(url: str) -> httpx.URL:
    """Return the parts of a URL that can be posted to. Raises ValueError."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"is no URL: {url!r:.200}") from error
    if parsed.scheme not in PORTS or not parsed.host:
        raise ValueError(f"must begin with http:// or https:// and a host, got {url!r:.200}")
    if parsed.userinfo:
        raise ValueError("must not hold a name or password; the signature proves the sender")
    if parsed.port is not None and not 1 <= parsed.port <= MAX_PORT:
        raise ValueError(f"must have a port from 1 to {MAX_PORT}, got {parsed.port}")
    if len(url) > MAX_URL_CHARS:
        raise ValueError(f"has at most {MAX_URL_CHARS} characters")
    return parsed


def _retry_after(status: int, headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a Retry-After header, which may hold a date instead (RFC 9110 section 10.2.3)."""
    text = headers.get("retry-after", "").strip()
    if status not in _WAITS or not text:
        return None
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - clock.now()).total_seconds())


def _reason(error: Exception) -> str:
    """Return an error's reason in at most 200 characters on one line, without the URL, which may hold a secret."""
    text = str(getattr(error, "strerror", None) or error) or type(error).__name__
    return " ".join(text.split())[:200]
