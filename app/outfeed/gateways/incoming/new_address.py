"""A new write-only address: its values and its secrets.

The command `outfeed address add` and the page /admin/addresses use it.
"""

from __future__ import annotations

from collections.abc import Mapping

from outfeed.config import Settings
from outfeed.errors import InvalidRequest
from outfeed.events import MAX_NAME_CHARS
from outfeed.gateways.incoming import mapping_file, signatures
from outfeed.gateways.incoming.mapping import FieldTable, Scheme
from outfeed.gateways.incoming.topic import check_topic, word_of_type
from outfeed.principal import check_patterns
from outfeed.text import separated


def check_source(value: str) -> str:
    """Return the source of an address's events. Raises ValueError."""
    if not (1 <= len(value) <= MAX_NAME_CHARS):
        raise ValueError(f"must have 1 to {MAX_NAME_CHARS} characters")
    return value


def types(value: str) -> tuple[str, ...]:
    """Return the types of `backups.*,job.done`; none allows all.

    Raises ValueError.
    """
    return check_patterns(separated(value))


def mappings(settings: Settings) -> Mapping[str, FieldTable]:
    """Return the mappings by name: those of Outfeed and of the operator."""
    return mapping_file.load(settings.incoming_mappings)


def default_topic(name: str) -> str:
    """Return the topic that *name*, of a mapping or an address, stands for.

    Raises InvalidRequest.
    """
    try:
        return check_topic(word_of_type(name.replace("-", "_")))
    except InvalidRequest:
        raise InvalidRequest("invalid_field", f"topic: {name} can't be a topic; give one, such as backups") from None


def is_signed(table: FieldTable | None) -> bool:
    """Return whether senders of the mapping sign their requests."""
    return table is not None and table.signature is not Scheme.NONE


def signing_secret(table: FieldTable | None, given: str | None, *, is_unsigned: bool) -> str | None:
    """Return the secret with which the sender signs, or None.

    It is *given*, or a new one. Raises ValueError, whose message does not contain the secret.
    """
    if given is not None and (is_unsigned or not is_signed(table)):
        raise ValueError("needs a mapping with a signature, and excludes unsigned requests")
    if table is None or not is_signed(table) or is_unsigned:
        return None
    return signatures.new_secret(table.signature) if given is None else signatures.check_secret(table.signature, given)
