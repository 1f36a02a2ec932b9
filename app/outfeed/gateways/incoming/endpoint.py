"""The simplest way in: text, a form or JSON under a topic, and webhooks.

A sender has a token, or a write-only address. With a mapping, the request is a webhook of a known kind of sender.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from flask import Response, request
from werkzeug.exceptions import BadRequest, NotFound, UnsupportedMediaType

from outfeed import clock
from outfeed.display import Level
from outfeed.errors import DatabaseError, InvalidEvent, InvalidRequest, InvalidSignature
from outfeed.gateways import intake
from outfeed.gateways.incoming import mapping_file, signatures, store
from outfeed.gateways.incoming.mapping import FieldTable, Scheme
from outfeed.gateways.incoming.template import Payload
from outfeed.gateways.incoming.topic import check_topic, type_of
from outfeed.http import bodies, identity, limits
from outfeed.http.services import services, serving
from outfeed.log_message import LogMessage
from outfeed.principal import Principal

GUESSES_PER_MINUTE = 60  # requests of a client to addresses that do not exist
MAX_FORM_FIELDS = 200
MAX_ID_CHARS = 120  # of a sender, before the prefix of its address
FORM, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"
# `curl -d TEXT` calls any text a form. A form has no white space, and each of its parts has a name and a value.
_FORM_BODY = re.compile(rb"[^\s=&]+=[^\s=&]*(?:&[^\s=&]+=[^\s=&]*)*")

log = logging.getLogger(__name__)


class Sender(NamedTuple):
    """The sender of a request, and what its credential says about its events."""

    principal: Principal
    topic: str
    source: str
    id_prefix: str = ""


def receive_as_principal(topic: str, mapping: str | None) -> Response:
    """Write the events of a request with a token, or of a signed-in user."""
    principal = identity.principal()
    sender = Sender(principal, check_topic(topic), principal.name)
    return _record(sender, _mapping(mapping) if mapping else None)


def receive_at_address(secret: str) -> Response:
    """Write the events of a request to a write-only address."""
    found = store.find(services().database, secret)
    if found is None:
        return _refuse_guess()
    if refusal := limits.refusal("requests", f"address:{found.name}", services().settings.address_requests_per_minute):
        return refusal
    table = _mapping(found.mapping) if found.mapping else None
    if table is not None and found.signing_secret is not None:
        _verify(table.signature, found)
    response = _record(Sender(found.principal, found.topic, found.source, f"{found.name}:"), table)
    _note_use(found)
    return response


def _note_use(address: store.Address) -> None:
    """Note that the address is used; log an error.

    The event is written by then. With an error as the answer, the sender would send it again.
    """
    try:
        store.note_use(services().database, address)
    except DatabaseError as error:
        log.warning(LogMessage("the use of an address can't be noted", address=address.name, error=error))


def _refuse_guess() -> Response:
    if refusal := limits.refusal("guesses of addresses", limits.client(), GUESSES_PER_MINUTE):
        return refusal
    raise NotFound("this address does not exist, or was revoked")


def _mapping(name: str) -> FieldTable:
    tables = mapping_file.load(services().settings.incoming_mappings)
    if name not in tables:
        raise InvalidRequest("invalid_field", f"as: there is no mapping {name!r:.80}; there are {', '.join(tables)}")
    return tables[name]


def _verify(scheme: Scheme, address: store.Address) -> None:
    assert address.signing_secret is not None
    try:
        signatures.verify(scheme, address.signing_secret, _headers(), request.get_data(), clock.now())
    except InvalidSignature as error:
        serving().metrics.note_refusal("signature", address=address.name, error=error)
        raise


def _record(sender: Sender, table: FieldTable | None) -> Response:
    if table is None:
        return intake.record(sender.principal, [_message(sender)])
    events = table.events(Payload(sender.topic, sender.source, _headers(), _webhook_body()))
    if not events:
        raise InvalidRequest("invalid_event", f"{table.items}: is empty, and each item becomes an event")
    for event in events:
        if "id" in event:
            event["id"] = sender.id_prefix + _checked_id(event["id"])
    return intake.record(sender.principal, events, keeps_known=table.keeps_known)


# --- a message under a topic ------------------------------------------------------------------------------------------


def _message(sender: Sender) -> dict[str, Any]:
    """Return the event of a request without a mapping."""
    event = {"event_type": type_of(sender.topic), "source": sender.source, "data": _with_headers(_content())}
    if key := _text_header("Idempotency-Key"):
        event["id"] = sender.id_prefix + _checked_id(key)
    return event


def _checked_id(text: str) -> str:
    if len(text) > MAX_ID_CHARS:
        raise InvalidEvent("id", f"must have at most {MAX_ID_CHARS} characters, got {len(text):,}")
    return text


def _content() -> Any:
    """Return the body: JSON, the fields of a form, or `message` with its text.

    Raises 400, 413 and 415 as HTTPException, and InvalidRequest.
    """
    if request.is_json:
        return _json(bodies.read())
    if request.mimetype == MULTIPART:
        return _multipart()
    body = bodies.read()
    if request.mimetype == FORM and _FORM_BODY.fullmatch(body.strip()):
        return _form(body.strip())
    if not (text := _text(body).strip()):
        raise InvalidRequest("invalid_event", "the body is empty; send a text, a form or JSON")
    return {"message": text}


def _json(body: bytes) -> Any:
    try:
        return bodies.parsed(lambda: json.loads(body), "the body")
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}") from None


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not UTF-8 text: byte {error.start:,} is invalid") from None


def _form(body: bytes) -> dict[str, str]:
    try:
        fields = parse_qsl(
            body.decode(), keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS, errors="strict", strict_parsing=True
        )
    except ValueError as error:
        raise BadRequest(f"the body is not a form of at most {MAX_FORM_FIELDS} fields: {error}") from None
    return dict(fields)


def _multipart() -> dict[str, str]:
    if request.files:
        raise UnsupportedMediaType("a form may have no files; send the text of a file as the body")
    return dict(request.form.items(multi=True))  # the last of equal names counts, as in `_form`


def _with_headers(content: Any) -> Any:
    """Return *content* with the title and the level of the headers."""
    given = {name: value for name in ("title", "level") if (value := _text_header(name.capitalize()))}
    if not given:
        return content
    if not isinstance(content, dict):
        raise InvalidRequest("invalid_field", "Title and Level: need a text, a form or a JSON object as the body")
    if "level" in given:
        given["level"] = _level(given["level"])
    return {**content, **given}


def _level(text: str) -> str:
    if (level := text.lower()) not in list(Level):
        raise InvalidRequest("invalid_field", f"Level: must be info, warning or error (got {text!r:.80})")
    return level


def _text_header(name: str) -> str:
    """Return the header as text: UTF-8, as curl sends it, or Latin-1."""
    value = request.headers.get(name, "")
    try:
        return value.encode("latin-1").decode().strip()
    except (UnicodeEncodeError, UnicodeDecodeError):
        return value.strip()


# --- webhooks ---------------------------------------------------------------------------------------------------------


def _headers() -> Mapping[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}


def _webhook_body() -> Any:
    """Return the JSON of a webhook: the body, or a form's field `payload`."""
    body = bodies.read()
    if request.mimetype == FORM:
        payload = _form(body.strip()).get("payload")
        if payload is None:
            raise BadRequest("the form has no field `payload`; send JSON")
        body = payload.encode()
    return _json(body)
