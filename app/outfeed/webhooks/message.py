"""Messages: what is posted, and its signature (Standard Webhooks 1.0, standardwebhooks.com)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import NamedTuple

import orjson

from outfeed import clock
from outfeed.history import Item

SECRET_PREFIX = "whsec_"
SECRET_BYTES = 32
MIN_SECRET_BYTES, MAX_SECRET_BYTES = 24, 64


class Message(NamedTuple):
    """One post. The *id* stays the same however often it is sent, so that the receiver can tell."""

    id: str
    body: bytes

    @classmethod
    def of_event(cls, epoch: str, item: Item) -> Message:
        """Return the message of one event: its type and timestamp, and the event as the feed has it."""
        return _message(epoch, item, item.event_type, _with_seq(item))

    @classmethod
    def of_batch(cls, epoch: str, items: Sequence[Item]) -> Message:
        """Return the message of several: a list in seq order, under the type `events`."""
        return _message(epoch, items[-1], "events", b"[%b]" % b",".join(map(_with_seq, items)))

    @classmethod
    def of_test(cls, name: str) -> Message:
        """Return a message that stands for no event."""
        fields = {"type": "webhook.test", "timestamp": clock.timestamp(), "data": {"webhook": name}}
        return cls(f"test_{secrets.token_hex(16)}", orjson.dumps(fields))

    def signed(self, *keys: str) -> dict[str, str]:
        """Return the headers that prove, for a few minutes from now, who sent it: one signature for each secret."""
        moment = int(clock.now().timestamp())
        content = b"%b.%d.%b" % (self.id.encode(), moment, self.body)
        return {
            "webhook-id": self.id,
            "webhook-timestamp": str(moment),
            "webhook-signature": " ".join(_signature(key, content) for key in keys),
        }


def _signature(secret: str, content: bytes) -> str:
    return f"v1,{base64.b64encode(hmac.digest(_key(secret), content, hashlib.sha256)).decode()}"


def _message(epoch: str, last: Item, type_: str, data: bytes) -> Message:
    # A table that was adopted may have anything there.
    timestamp = last.timestamp if isinstance(last.timestamp, str) else None
    head = orjson.dumps({"type": type_, "timestamp": timestamp})
    return Message(f"{epoch}:{last.seq}", b'%b,"data":%b}' % (head[:-1], data))


def _with_seq(item: Item) -> bytes:
    # The item is a JSON object already; it begins with a brace that makes room for its seq.
    return b'{"seq":%d,%b' % (item.seq, item.json[1:])


def new_secret() -> str:
    """Return a new secret as it is shown and stored."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def check_secret(text: str) -> str:
    """Return *text*, with or without its prefix, as it is stored. Raises ValueError, which doesn't show it."""
    secret = SECRET_PREFIX + text.strip().removeprefix(SECRET_PREFIX)
    try:
        size = len(_key(secret))
    except (binascii.Error, ValueError):
        size = 0
    if not MIN_SECRET_BYTES <= size <= MAX_SECRET_BYTES:
        raise ValueError(f"a secret is {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes in base64, as in whsec_MfKQ9r8G…")
    return secret


def _key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
