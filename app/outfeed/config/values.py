"""Values of the settings: the types that parse and check them.

Each check raises ValueError with the rest of the sentence "OUTFEED_NAME: …".
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_settings import NoDecode

MAX_PORT = 65_535
MAX_DAYS = 36_500
# The first segments of Outfeed's own paths. A prefix that begins with one of them would be mistaken for the path.
OWN_SEGMENTS = (
    "admin", "api", "docs", "healthz", "in", "login", "logout", "manifest.webmanifest", "mcp", "metrics", "password",
    "preferences", "readyz", "static", "status", "swarm", "v1", "watches", "ws",
)  # fmt: skip
# A host name. Text whose last part has only digits would be an address.
_HOST = re.compile(r"([A-Za-z0-9_-]+\.)*(?![0-9]+\.?$)[A-Za-z0-9_-]+\.?")
_BIND = re.compile(r"(\[(?P<v6>[^\]]+)\]|[^:\s\[\]/]+):(?P<port>\d{1,5})")
_ENGINE = re.compile(r"rediss?://[^/\s]+(/\d*)?(\?\S*)?|unix://\S+|sentinel://[^/\s]+/[^/\s]+")
_URL_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PREFIX_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")
_LIKE_SQLITE_URL = "must be a path, or sqlite:///PATH"
_TYPE_DAYS = re.compile(r"([a-z][a-z0-9_]*(?:\.[a-z0-9_]+)*(?:\.\*)?) *= *(\d+(?:\.\d+)?)")


def _split(value: Any) -> Any:
    return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value


def _origins(value: tuple[str, ...]) -> tuple[str, ...]:
    for origin in value:
        if not re.fullmatch(r"https?://[^/?#@\s*]+", origin):
            raise ValueError(f"must be origins like https://dashboard.example, got {origin!r:.200}")
    return tuple(origin.lower() for origin in value)


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for network in value:
        ipaddress.ip_network(network)  # its ValueError names the problem
    return value


def _database_path(value: Any) -> Any:
    path = _path_in(str(value))
    try:
        is_folder = path.is_dir()
    except OSError as error:
        raise ValueError(f"must name a file: {error.strerror}") from error
    if not str(value).strip() or is_folder:
        raise ValueError("must name a file")
    return path


def _folder(value: Any) -> Any:
    if value is None or not str(value).strip():
        return None
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        raise ValueError(f"names a user without a home folder: {error}") from error


def _address_and_port(value: str) -> str:
    match = _BIND.fullmatch(value)
    if match is None:
        raise ValueError("must be ADDRESS:PORT, like 127.0.0.1:8000")
    if not 1 <= int(match["port"]) <= MAX_PORT:
        raise ValueError(f"must be ADDRESS:PORT with a port from 1 to {MAX_PORT}")
    if match["v6"] is not None:
        ipaddress.IPv6Address(match["v6"])  # its ValueError names the problem
    return value


def _public_address(value: str | None) -> str | None:
    if value is None:
        return None
    parts = _split_url(value)
    path = parts.path.rstrip("/")
    if parts.query or parts.fragment or "@" in parts.netloc or not _PREFIX_PATH.fullmatch(path):
        raise ValueError("must be an address like https://example.com or https://example.com/feed")
    if path.split("/")[1:2] and path.split("/")[1] in OWN_SEGMENTS:
        raise ValueError(f"must not start its path with /{path.split('/')[1]}, which Outfeed uses itself")
    return f"{parts.scheme}://{parts.netloc.lower()}{path}"


def _engine(value: SecretStr | None) -> SecretStr | None:
    if value is not None and not _ENGINE.fullmatch(value.get_secret_value()):
        raise ValueError("must be like redis://127.0.0.1:6379/0 or sentinel://10.0.0.1:26379,10.0.0.2:26379/NAME")
    return value


def _address(value: str | None) -> str | None:
    if value is not None:
        _split_url(value)
    return value


def _networks_or_hosts(value: str) -> str:
    for part in filter(None, (each.strip() for each in value.split(","))):
        if not _HOST.fullmatch(part):
            try:
                ip_network(part, strict=False)
            except ValueError:
                raise ValueError(f"{part!r:.80} is neither an address, nor a CIDR, nor a host name") from None
    return value


def _days_by_type(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    days: dict[str, float] = {}
    for part in filter(None, map(str.strip, value.split(","))):
        match = _TYPE_DAYS.fullmatch(part)
        if match is None or float(match[2]) > MAX_DAYS:
            raise ValueError(f"each part is a type and days up to {MAX_DAYS}, like tool.*=7; this is {part!r}")
        if match[1] in days:
            raise ValueError(f"{match[1]} is named twice")
        days[match[1]] = float(match[2])
    return days


def _path_in(value: str) -> Path:
    """Return the path that *value* names.

    `~` is the home folder, and `sqlite:///x.db` is `x.db`.
    """
    if value.startswith("sqlite:///"):
        value = value.removeprefix("sqlite:///")
        if "?" in value or "#" in value:
            raise ValueError(f"{_LIKE_SQLITE_URL}, without parameters")
    elif _URL_SCHEME.match(value) or value.startswith(("sqlite:", "file:")):
        raise ValueError(_LIKE_SQLITE_URL)
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        raise ValueError(f"names a user without a home folder: {error}") from error


def _split_url(value: str) -> SplitResult:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0 or not value.isprintable():
        raise ValueError("must be an address like https://feed.example")
    return parts


# The elements of a list are separated by commas.
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Origins = Annotated[Names, AfterValidator(_origins)]
Networks = Annotated[Names, AfterValidator(_networks)]
NetworksOrHosts = Annotated[str, AfterValidator(_networks_or_hosts)]
DatabasePath = Annotated[Path, BeforeValidator(_database_path)]
Folder = Annotated[Path | None, BeforeValidator(_folder)]
AddressAndPort = Annotated[str, AfterValidator(_address_and_port)]
PublicAddress = Annotated[str | None, AfterValidator(_public_address)]
ServerAddress = Annotated[str | None, AfterValidator(_address)]
EngineAddress = Annotated[SecretStr | None, AfterValidator(_engine)]
DaysByType = Annotated[Mapping[str, float], NoDecode, BeforeValidator(_days_by_type)]
