"""Dialogue: the messages of a WebSocket client and their answers."""

from __future__ import annotations

from typing import Any

import orjson

from outfeed.errors import ForbiddenConsumer, InvalidRequest
from outfeed.feed import frames, subscription
from outfeed.feed.subscriber import Subscriber
from outfeed.nesting import MAX_DEPTH, is_deep


def answer(subscriber: Subscriber, text: str | bytes) -> bool:
    """Handle one message of a client.

    An invalid message is answered with an `error` frame, and the subscription stays as it was. Returns whether the
    message has acknowledged further events. A client sends such a message once for each event at most.
    """
    acknowledged = subscriber.acknowledged
    try:
        _handle(subscriber, text)
    except ForbiddenConsumer as error:
        subscriber.note_refusal("ownership", error=error)
        subscriber.write(frames.error(error.code, str(error)))
    except InvalidRequest as error:
        subscriber.write(frames.error(error.code, str(error)))
    return subscriber.acknowledged > acknowledged


def _handle(subscriber: Subscriber, text: str | bytes) -> None:
    fields = _parsed(text)
    match fields.get("action"):
        case "subscribe":
            subscriber.subscribe(subscription.parse_subscribe(text))
        case "unsubscribe":
            _unsubscribe(subscriber, fields)
        case "ping":
            subscriber.write(frames.message("pong"))
        case "ack":
            _acknowledge(subscriber, fields.get("seq"))
        case unknown:
            actions = "subscribe, unsubscribe, ping or ack"
            raise InvalidRequest("unknown_action", f"unknown action {unknown!r:.80}: must be {actions}")


def _acknowledge(subscriber: Subscriber, seq: object) -> None:
    if type(seq) is not int or not 0 <= seq <= subscription.MAX_SEQ:
        raise InvalidRequest("invalid_field", "seq: must be the seq of the last event that the consumer has processed")
    subscriber.acknowledge(seq)
    subscriber.write(frames.message("acked", {"seq": seq}))


def _unsubscribe(subscriber: Subscriber, fields: dict[str, Any]) -> None:
    if fields.get("channel") != "events":
        raise InvalidRequest("unknown_channel", f"unknown channel {fields.get('channel')!r:.80}: must be 'events'")
    subscriber.unsubscribe()
    subscriber.write(frames.message("unsubscribed", {"channel": "events"}))


def _parsed(text: str | bytes) -> dict[str, Any]:
    if isinstance(text, bytes):
        raise InvalidRequest("binary", "messages are JSON in text frames")
    try:
        fields = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest("invalid_json", f"not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise InvalidRequest("invalid_message", "a message is a JSON object with an 'action'")
    if is_deep(fields):  # an answer quotes what it refuses: tests/journeys/test_entrances.py
        raise InvalidRequest("invalid_json", f"a message may have {MAX_DEPTH} levels of nesting")
    return fields
