"""Environment: the variables of this process and of the .env file.

No other module reads them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic_settings import PydanticBaseSettingsSource

from outfeed.errors import ConfigError

PREFIX = "OUTFEED_"
DOTENV = ".env"


class SecretFiles(PydanticBaseSettingsSource):
    """Reads `OUTFEED_NAME` from the file that `OUTFEED_NAME_FILE` names."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        path = os.environ.get(f"{PREFIX}{field_name.upper()}_FILE")
        if path is None:
            return None, field_name, False
        try:
            return Path(path).expanduser().read_text(encoding="utf-8").strip(), field_name, False
        except (OSError, RuntimeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{PREFIX}{field_name.upper()}_FILE: can't read {path}: {error}") from error

    def __call__(self) -> dict[str, Any]:
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True, slots=True)
class SetNames:
    """The names, in capitals, that have a value in each source."""

    in_environment: frozenset[str]
    in_file: frozenset[str]

    def source_of(self, name: str) -> str:
        """Return the source of the value of the setting *name*."""
        if name in self.in_environment:
            return "environment"
        if name + "_FILE" in self.in_environment:
            return "file"
        return DOTENV if name in self.in_file else "default"


def set_names() -> SetNames:
    """Return the names that have a value. Raises ConfigError."""
    in_file = frozenset(name.upper() for name, value in _env_file().items() if value is not None)
    return SetNames(frozenset(name.upper() for name in os.environ), in_file)


def names() -> set[str]:
    """Return the names in the environment and in the .env file.

    Raises ConfigError.
    """
    return {*os.environ, *(name.upper() for name in _env_file())}


def proxy_variables(schemes: Iterable[str]) -> list[str]:
    """Return the variables that name a proxy for *schemes*.

    These are variables such as HTTP_PROXY, in the order of *schemes*.
    """
    given = {name.lower(): name for name in sorted(os.environ) if os.environ[name]}  # lower case wins over upper case
    return [given[f"{scheme}_proxy"] for scheme in schemes if f"{scheme}_proxy" in given]


def environment_with(**values: str) -> dict[str, str]:
    """Return this process's environment with other values for settings.

    It is for a child process.
    """
    return {**os.environ, **{PREFIX + name.upper(): value for name, value in values.items()}}


def set_for_library(name: str, value: str) -> None:
    """Set a variable of this process for a library.

    Use it for a library that can be configured in no other way.
    """
    os.environ[name] = value


def _env_file() -> dict[str, str | None]:
    """Return the variables of the .env file.

    Raises ConfigError with every invalid line, because an ignored line may have set a limit.
    """
    try:
        with open(DOTENV, encoding="utf-8") as file:
            broken = [
                f"{DOTENV}: line {each.original.line} must be NAME=value" for each in parse_stream(file) if each.error
            ]
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"can't read {DOTENV}: {error}") from error
    if broken:
        raise ConfigError("\n".join(broken))
    return dotenv_values(DOTENV)
