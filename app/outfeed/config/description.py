"""Description of the settings for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import SecretStr

from outfeed.config import Settings, environment, settings
from outfeed.config.environment import PREFIX

MASKED = "********"


class Described(NamedTuple):
    """One setting for people.

    *value* and *default* are texts as in the environment, with secrets masked. *source* is the source of the value.
    """

    name: str
    value: str
    default: str
    source: str
    help: str


def described() -> list[Described]:
    """Return every setting of this process with its source.

    Raises ConfigError.
    """
    current, given = settings(), environment.set_names()
    return [
        Described(
            name=PREFIX + field.upper(),
            value=_written(getattr(current, field)),
            default=_written(info.get_default(call_default_factory=True, validated_data={})),
            source=given.source_of(PREFIX + field.upper()),
            help=info.description or "",
        )
        for field, info in Settings.model_fields.items()
    ]


def _written(value: Any) -> str:
    match value:
        case None:
            return ""
        case SecretStr():
            return MASKED
        case Mapping():
            return ",".join(f"{name}={part:g}" for name, part in value.items())
        case tuple():
            return ",".join(value)
    return str(value)
