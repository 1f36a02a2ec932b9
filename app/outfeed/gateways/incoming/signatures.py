"""Signatures of incoming webhooks: HMAC-SHA256 by three schemes. No I/O."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta

from outfeed.errors import InvalidSignature
from outfeed.gateways.incoming.mapping import Scheme

TOLERANCE = timedelta(minutes=5)  # of the sender's clock, and of the age of a request; Standard Webhooks has the same
MAX_SIGNATURES = 10  # of a request; a sender that changes its secret sends two
MIN_SECRET_CHARS = 16
STANDARD_PREFIX = "whsec_"
GITHUB_HEADER = "x-hub-signature-256"
GRAFANA_HEADER, GRAFANA_TIME = "x-grafana-alerting-signature", "x-grafana-alerting-timestamp"
STANDARD_ID, STANDARD_TIME, STANDARD_HEADER = "webhook-id", "webhook-timestamp", "webhook-signature"
_WRONG = "does not fit the body and the address's secret; compare the secret of the sender"


def verify(scheme: Scheme, secret: str, headers: Mapping[str, str], body: bytes, now: datetime) -> None:
    """Check a request's signature. The names of *headers* are in lower case.

    Raises InvalidSignature, which names the header and the rule.
    """
    match scheme:
        case Scheme.GITHUB:
            _verify_github(secret, headers, body)
        case Scheme.GRAFANA:
            _verify_grafana(secret, headers, body, now)
        case Scheme.STANDARD:
            _verify_standard(secret, headers, body, now)
        case Scheme.NONE:  # the mapping was replaced since the address was added
            raise InvalidSignature("the address has a secret, but its mapping has no signature; add the address again")


def _verify_github(secret: str, headers: Mapping[str, str], body: bytes) -> None:
    given = _header(headers, GITHUB_HEADER)
    expected = "sha256=" + hmac.digest(secret.encode(), body, hashlib.sha256).hex()
    if not _is_equal(given, expected):
        raise InvalidSignature(f"{GITHUB_HEADER}: {_WRONG}")


def _verify_grafana(secret: str, headers: Mapping[str, str], body: bytes, now: datetime) -> None:
    """Check Grafana's signature, which covers the time if there is one."""
    given, time = _header(headers, GRAFANA_HEADER), headers.get(GRAFANA_TIME)
    if time is not None:
        _check_time(GRAFANA_TIME, time, now)
        body = b"%b:%b" % (time.encode("utf-8", "replace"), body)
    if not _is_equal(given, hmac.digest(secret.encode(), body, hashlib.sha256).hex()):
        raise InvalidSignature(f"{GRAFANA_HEADER}: {_WRONG}")


def _verify_standard(secret: str, headers: Mapping[str, str], body: bytes, now: datetime) -> None:
    message_id, time = _header(headers, STANDARD_ID), _header(headers, STANDARD_TIME)
    given = _header(headers, STANDARD_HEADER).split(" ")
    _check_time(STANDARD_TIME, time, now)
    content = b"%b.%b.%b" % (message_id.encode("utf-8", "replace"), time.encode(), body)
    digest = hmac.digest(standard_key(secret), content, hashlib.sha256)
    expected = f"v1,{base64.b64encode(digest).decode()}"
    if len(given) > MAX_SIGNATURES:
        raise InvalidSignature(f"{STANDARD_HEADER}: has more than {MAX_SIGNATURES} signatures")
    if not any(_is_equal(each, expected) for each in given):
        raise InvalidSignature(f"{STANDARD_HEADER}: {_WRONG}")


def _header(headers: Mapping[str, str], name: str) -> str:
    if not (found := headers.get(name)):
        raise InvalidSignature(f"{name}: is missing; the sender must sign its requests with the address's secret")
    return found


def _check_time(name: str, time: str, now: datetime) -> None:
    """Raise InvalidSignature unless *time*, in Unix seconds, is near *now*."""
    if not (time.isdecimal() and time.isascii() and len(time) <= 12):
        raise InvalidSignature(f"{name}: must be a time in Unix seconds (got {time!r:.40})")
    secs = int(now.timestamp()) - int(time)
    if abs(secs) > TOLERANCE.total_seconds():
        way = "old" if secs > 0 else "in the future"
        raise InvalidSignature(
            f"{name}: is {abs(secs):,} s {way}, and at most {int(TOLERANCE.total_seconds())} s are accepted; a request"
            " can't be sent again later, and the clocks must agree"
        )


def _is_equal(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


# --- secrets ----------------------------------------------------------------------------------------------------------


def new_secret(scheme: Scheme) -> str:
    """Return a new secret of 256 random bits, in the form of *scheme*."""
    key = secrets.token_bytes(32)
    return STANDARD_PREFIX + base64.b64encode(key).decode() if scheme is Scheme.STANDARD else key.hex()


def check_secret(scheme: Scheme, text: str) -> str:
    """Return *text* as a secret of *scheme*.

    Raises ValueError, whose message does not contain the secret.
    """
    secret = text.strip()
    if scheme is Scheme.STANDARD:
        try:
            size = len(standard_key(secret))
        except binascii.Error:
            size = 0
        if not 24 <= size <= 64:
            raise ValueError("a secret of Standard Webhooks is 24 to 64 bytes in base64, as in whsec_MfKQ9r8G…")
    elif len(secret) < MIN_SECRET_CHARS:
        raise ValueError(f"a secret must have at least {MIN_SECRET_CHARS} characters")
    return secret


def standard_key(secret: str) -> bytes:
    """Return the key of a secret of Standard Webhooks."""
    return base64.b64decode(secret.removeprefix(STANDARD_PREFIX), validate=True)
