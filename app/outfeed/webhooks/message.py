"""Messages of webhooks and their signatures.

The format is Standard Webhooks 1.0 (standardwebhooks.com).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from outfeed import clock
from outfeed.display import Display, look_of
from outfeed.events import Event
from outfeed.history import Item

SECRET_PREFIX = "whsec_"
SECRET_BYTES = 32
MIN_SECRET_BYTES, MAX_SECRET_BYTES = 24, 64


class Message(NamedTuple):
    """One message.

    Every attempt to post it has the same *id*, so that a receiver can drop duplicates.
    """

    id: str
    body: bytes

    @classmethod
    def of_event(cls, epoch: str, item: Item, displays: Mapping[str, Display]) -> Message:
        """Return the message of one event.

        It has the event's type and timestamp, its sentence, and the event as the feed sends it.
        """
        return _message(epoch, item, item.event_type, {"message": _sentence(item, displays)}, _with_seq(item))

    @classmethod
    def of_batch(cls, epoch: str, items: Sequence[Item], displays: Mapping[str, Display]) -> Message:
        """Return the message of several events, of the type `events`.

        The events are a list in seq order, and so are their sentences.
        """
        data = b"[%b]" % b",".join(map(_with_seq, items))
        return _message(epoch, items[-1], "events", {"messages": [_sentence(each, displays) for each in items]}, data)

    @classmethod
    def of_test(cls, name: str) -> Message:
        """Return a message of the type `webhook.test`, without an event."""
        fields = {"type": "webhook.test", "timestamp": clock.timestamp(), "data": {"webhook": name}}
        return cls(f"test_{secrets.token_hex(16)}", orjson.dumps(fields))

    def signed(self, *keys: str) -> dict[str, str]:
        """Return a post's headers: its id, the time and a signature by each key.

        Receivers accept a signature for some minutes.
        """
        moment = int(clock.now().timestamp())
        content = b"%b.%d.%b" % (self.id.encode(), moment, self.body)
        return {
            "webhook-id": self.id,
            "webhook-timestamp": str(moment),
            "webhook-signature": " ".join(_signature(key, content) for key in keys),
        }


def _signature(secret: str, content: bytes) -> str:
    return f"v1,{base64.b64encode(hmac.digest(_key(secret), content, hashlib.sha256)).decode()}"


def _message(epoch: str, last: Item, type_: str, sentences: dict[str, Any], data: bytes) -> Message:
    # An adopted table may have any value there.
    timestamp = last.timestamp if isinstance(last.timestamp, str) else None
    head = orjson.dumps({"type": type_, "timestamp": timestamp} | sentences)
    return Message(f"{epoch}:{last.seq}", b'%b,"data":%b}' % (head[:-1], data))


def _sentence(item: Item, displays: Mapping[str, Display]) -> str:
    """Return how the event reads, with its icon."""
    fields: dict[str, Any] = {"id": None, "source": None, "task_id": None, "agent_id": None, "timestamp": None}
    known = item._asdict()
    event = Event(
        event_type=item.event_type, data=orjson.loads(item.json).get("data"), **{name: known[name] for name in fields}
    )
    look = look_of(event, displays)
    return f"{look.icon} {look.text}".strip()


def _with_seq(item: Item) -> bytes:
    # The item is a JSON object; the seq is inserted behind its opening brace.
    return b'{"seq":%d,%b' % (item.seq, item.json[1:])


def new_secret() -> str:
    """Return a new secret, in the form that is shown and stored."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def check_secret(text: str) -> str:
    """Return *text* as a secret in its stored form.

    *text* may lack the prefix. Raises ValueError, whose message does not contain the secret.
    """
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
