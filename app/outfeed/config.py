"""Settings: every OUTFEED_* variable with type, default, unit and help.

`settings()` reads them once. No other module reads the environment. All bad values are reported together.
"""

from __future__ import annotations

import difflib
import functools
import ipaddress
import logging
import os
import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import SplitResult, urlsplit

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from outfeed.errors import ConfigError
from outfeed.log_message import LogMessage

PREFIX = "OUTFEED_"
MAX_GIVEN_CHARS = 200  # of a bad value, in its error
# In an event, values under these names are hidden, also under names that end in `_` and one of these.
REDACT_KEYS = (
    "password", "passwd", "passphrase", "pwd", "secret", "token", "jwt", "api_key", "apikey", "access_key",
    "authorization", "cookie", "set_cookie", "credential", "credentials", "private_key", "secret_key", "mnemonic",
    "seed_phrase", "preimage", "macaroon", "session_key",
)  # fmt: skip
# The elements of a list are separated by commas.
_Names = Annotated[tuple[str, ...], NoDecode]
# A host name. Text whose last part has only digits would be an address.
_HOST = re.compile(r"([A-Za-z0-9_-]+\.)*(?![0-9]+\.?$)[A-Za-z0-9_-]+\.?")
_BIND = re.compile(r"(\[(?P<v6>[^\]]+)\]|[^:\s\[\]/]+):(?P<port>\d{1,5})")
_ENGINE = re.compile(r"rediss?://[^/\s]+(/\d*)?(\?\S*)?|unix://\S+|sentinel://[^/\s]+/[^/\s]+")
_URL_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PREFIX_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")
MAX_PORT = 65_535
MAX_DAYS = 36_500
MASKED = "********"
LOCAL_LINK = "The link works only on this machine. To share it, set OUTFEED_PUBLIC_URL to the public address."
_DOTENV = ".env"
# Addresses that stand for all addresses of the machine, and the one to connect to instead.
_ALL_ADDRESSES = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound
_LIKE_SQLITE_URL = "must be a path, or sqlite:///PATH"
# The first segments of Outfeed's own paths. A prefix that begins with one of them would be mistaken for the path.
OWN_SEGMENTS = (
    "admin", "api", "docs", "healthz", "in", "login", "logout", "manifest.webmanifest", "mcp", "metrics", "password",
    "preferences", "readyz", "static", "status", "swarm", "v1", "watches", "ws",
)  # fmt: skip
_TYPE_DAYS = re.compile(r"([a-z][a-z0-9_]*(?:\.[a-z0-9_]+)*(?:\.\*)?) *= *(\d+(?:\.\d+)?)")
log = logging.getLogger(__name__)


class Settings(BaseSettings):
    """The settings of one process.

    A variable's name is `OUTFEED_` and the field in capitals.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_file=_DOTENV, extra="ignore", frozen=True)

    database: Path = Field(Path("instance/outfeed.db"), description="The SQLite database file.")
    bind: str = Field("127.0.0.1:8000", description="Address and port that `serve` listens on.")
    public_url: str | None = Field(
        None, description="Address that browsers reach the server at, also below a path: `https://example.com/feed`."
    )
    workers: int = Field(1, ge=1, le=64, description="Server processes. Limits are per worker.")
    secret_key: SecretStr | None = Field(
        None,
        min_length=16,
        description="Key that signs sessions. Created once beside the database, mode 0600, if not set.",
    )
    max_connections: int = Field(1000, ge=1, le=20_000, description="Open connections that a worker admits.")
    max_connections_per_ip: int = Field(200, ge=0, description="Open connections of one address. 0: no limit.")
    max_incomplete_per_ip: int = Field(
        256,
        ge=0,
        description="Connections of one address with an incomplete request or an unread answer. 0: no limit.",
    )
    connection_attempts_per_minute: int = Field(
        600, ge=0, description="WebSocket attempts of one address per minute. 0: no limit."
    )
    requests_per_minute: int = Field(12_000, ge=0, description="HTTP requests with one token per minute. 0: no limit.")
    sign_ins_per_minute: int = Field(10, ge=0, description="Sign-in attempts from one address per minute. 0: no limit.")
    session_days: float = Field(30.0, gt=0, le=3650, description="Days after which a session ends.")
    allowed_origins: _Names = Field(
        (), description="Origins of other sites whose pages may embed the feed, separated by commas."
    )
    trusted_proxies: _Names = Field(
        (),
        description="Addresses or networks of proxies, with commas, whose X-Forwarded-For, -Proto and -Host count.",
    )
    max_event_bytes: int = Field(65_536, ge=256, le=16_777_216, description="Largest `data` of an event, as JSON.")
    poll_interval: float = Field(1.0, ge=0.05, le=60, description="Seconds between the scheduler's polls.")
    event_rate: float = Field(
        10, ge=0.01, le=1000, description="Frames per second for clients that request no other rate."
    )
    retention_days: float = Field(
        0, ge=0, le=MAX_DAYS, allow_inf_nan=False, description="Days that `serve` keeps events in the log. 0: forever."
    )
    retention_days_by_type: Annotated[Mapping[str, float], NoDecode] = Field(
        default_factory=dict, description="Other days for some types, separated by commas: `tool.*=7,task.failed=365`."
    )
    replay_days: float = Field(
        7, ge=0, le=MAX_DAYS, allow_inf_nan=False, description="Days that the outbox is kept for resuming. 0: forever."
    )
    max_consumer_lag_days: float = Field(
        30,
        ge=0,
        le=MAX_DAYS,
        allow_inf_nan=False,
        description="Days that the outbox waits for a protected consumer. 0: forever.",
    )
    max_consumers_per_owner: int = Field(
        100, ge=0, description="Durable consumers that one token or user may create. 0: no limit."
    )
    backup_dir: Path | None = Field(None, description="Folder of the backups that the server makes. It must exist.")
    backup_every_hours: float = Field(
        0, ge=0, le=8760, description="Hours between two backups into OUTFEED_BACKUP_DIR. 0: only by hand."
    )
    backup_keep: int = Field(14, ge=1, le=1000, description="Newest backups that OUTFEED_BACKUP_DIR keeps.")
    heartbeat_secs: float = Field(15.0, ge=0.1, le=60, description="Seconds between heartbeats to a live client.")
    auction_secs: float = Field(15.0, ge=0.1, le=86_400, description="Seconds that a task is open for bids.")
    agent_timeout_secs: float = Field(
        120.0, ge=1, le=86_400, description="Seconds without a heartbeat after which an agent is removed."
    )
    webhook_allow: str = Field(
        "",
        description="Private addresses, CIDRs and host names that webhooks and targets of alerts may use, with commas.",
    )
    webhook_give_up_hours: float = Field(
        24.0, gt=0, le=8760, description="Hours without a success after which a webhook is paused."
    )
    incoming_mappings: Path | None = Field(
        None, description="TOML file with mappings for incoming webhooks, in addition to those of Outfeed."
    )
    address_requests_per_minute: int = Field(
        600, ge=0, description="Requests to one write-only address per minute. 0: no limit."
    )
    engine: SecretStr | None = Field(
        None,
        description="Redis or Valkey that carries the feed to edges: `redis://`, `rediss://` or"
        " `sentinel://HOST:PORT,HOST:PORT/NAME`.",
    )
    engine_events: int = Field(200_000, ge=1000, le=10_000_000, description="Newest events that the engine keeps.")
    engine_bytes: int = Field(268_435_456, ge=2**20, description="Memory for events in the engine.")
    grant_minutes: float = Field(
        10, ge=0.05, le=1440, description="Minutes that edges admit clients after the origin has stopped."
    )
    origin_url: str | None = Field(None, description="Address of the origin server. Required by `outfeed edge`.")
    trace_file: Path | None = Field(
        None,
        description="File for the decisions of the feed, for `outfeed verify --trace`. Each worker appends its process"
        " id to the name.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level that is logged: debug, info, warning or error."
    )
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="Format of the log: text, json, or auto (text on a terminal, JSON otherwise)."
    )
    url: str | None = Field(None, description="Server that remote commands talk to.")
    token: SecretStr | None = Field(None, description="Token that remote commands send.")

    redact_keys: _Names = Field(REDACT_KEYS, description="Names whose values are redacted, separated by commas.")

    @field_validator("redact_keys", "allowed_origins", "trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value

    @field_validator("allowed_origins")
    @classmethod
    def _origins_are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if not re.fullmatch(r"https?://[^/?#@\s*]+", origin):
                raise ValueError(f"must be origins like https://dashboard.example, got {origin!r:.200}")
        return tuple(origin.lower() for origin in value)

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies_are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ipaddress.ip_network(network)  # its ValueError names the problem
        return value

    @field_validator("database", mode="before")
    @classmethod
    def _database_is_named(cls, value: Any) -> Any:
        path = _path_in(str(value))
        try:
            is_folder = path.is_dir()
        except OSError as error:
            raise ValueError(f"must name a file: {error.strerror}") from error
        if not str(value).strip() or is_folder:
            raise ValueError("must name a file")
        return path

    @field_validator("backup_dir", mode="before")
    @classmethod
    def _folder_is_named(cls, value: Any) -> Any:
        if value is None or not str(value).strip():
            return None
        try:
            return Path(value).expanduser()
        except RuntimeError as error:
            raise ValueError(f"names a user without a home folder: {error}") from error

    @field_validator("bind")
    @classmethod
    def _binds_an_address_and_a_port(cls, value: str) -> str:
        match = _BIND.fullmatch(value)
        if match is None:
            raise ValueError("must be ADDRESS:PORT, like 127.0.0.1:8000")
        if not 1 <= int(match["port"]) <= MAX_PORT:
            raise ValueError(f"must be ADDRESS:PORT with a port from 1 to {MAX_PORT}")
        if match["v6"] is not None:
            ipaddress.IPv6Address(match["v6"])  # its ValueError names the problem
        return value

    @field_validator("public_url")
    @classmethod
    def _is_public_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = _split_url(value)
        path = parts.path.rstrip("/")
        if parts.query or parts.fragment or "@" in parts.netloc or not _PREFIX_PATH.fullmatch(path):
            raise ValueError("must be an address like https://example.com or https://example.com/feed")
        if path.split("/")[1:2] and path.split("/")[1] in OWN_SEGMENTS:
            raise ValueError(f"must not start its path with /{path.split('/')[1]}, which Outfeed uses itself")
        return f"{parts.scheme}://{parts.netloc.lower()}{path}"

    @field_validator("engine")
    @classmethod
    def _names_an_engine(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _ENGINE.fullmatch(value.get_secret_value()):
            raise ValueError("must be like redis://127.0.0.1:6379/0 or sentinel://10.0.0.1:26379,10.0.0.2:26379/NAME")
        return value

    @field_validator("url", "origin_url")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is not None:
            _split_url(value)
        return value

    @field_validator("webhook_allow")
    @classmethod
    def _names_networks_or_hosts(cls, value: str) -> str:
        for part in filter(None, (each.strip() for each in value.split(","))):
            if not _HOST.fullmatch(part):
                try:
                    ip_network(part, strict=False)
                except ValueError:
                    raise ValueError(f"{part!r:.80} is neither an address, nor a CIDR, nor a host name") from None
        return value

    @field_validator("retention_days_by_type", mode="before")
    @classmethod
    def _types_have_days(cls, value: Any) -> Any:
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

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _SecretFiles(settings_cls), dotenv_settings

    @property
    def base_url(self) -> str:
        """The server's address as a URL, without a slash at the end."""
        return (self.url or self.bound_url).rstrip("/")

    @property
    def bound_url(self) -> str:
        """URL of the address that `serve` listens on.

        If it listens on all addresses, the URL has the loopback address.
        """
        host, port = self.bound
        return f"http://{url_host(host)}:{port}"

    @property
    def bound(self) -> tuple[str, int]:
        """Host and port that `serve` listens on."""
        host, _, port = self.bind.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def prefix(self) -> str:
        """Path of OUTFEED_PUBLIC_URL without a slash at the end, or empty."""
        return urlsplit(self.public_url or "").path


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


def url_host(host: str) -> str:
    """Return *host* as in a URL.

    An address that stands for all addresses of the machine becomes the loopback address.
    """
    host = _ALL_ADDRESSES.get(host, host)
    return f"[{host}]" if ":" in host else host


def is_local_url(url: str) -> bool:
    """Return whether *url* leads to the machine that uses it."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


class _SecretFiles(PydanticBaseSettingsSource):
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


def load() -> Settings:
    """Read the environment again.

    Raises ConfigError with every bad value on a line of its own.
    """
    warn_of_unknown_settings()
    try:
        return Settings()
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(problem) for problem in error.errors())) from None


def warn_of_unknown_settings() -> None:
    """Log each OUTFEED_* name that is not a setting, with the closest one."""
    for name, meant in unknown_settings().items():
        hint = {"did_you_mean": meant} if meant else {}
        log.warning(LogMessage("unknown setting", name=name, **hint))


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
    current, in_file = settings(), {name.upper() for name, value in _env_file().items() if value is not None}
    given = {name.upper() for name in os.environ}
    return [
        Described(
            name=PREFIX + field.upper(),
            value=_written(getattr(current, field)),
            default=_written(info.get_default(call_default_factory=True, validated_data={})),
            source=_source(PREFIX + field.upper(), given, in_file),
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


def _source(name: str, given: set[str], in_file: set[str]) -> str:
    if name in given:
        return "environment"
    if name + "_FILE" in given:
        return "file"
    return _DOTENV if name in in_file else "default"


def _explain(problem: Any) -> str:
    name = str(problem["loc"][0])
    is_secret = "Secret" in str(Settings.model_fields[name].annotation)
    given = "a secret" if is_secret else f"{problem['input']!r:.{MAX_GIVEN_CHARS}}"
    text = problem["msg"].removeprefix("Value error, ")
    text = re.sub("^(?:Input|String) should (be|have)", r"must \1", text)
    return f"{PREFIX}{name.upper()}: {text} (got {given})"


@functools.cache
def settings() -> Settings:
    """Return this process's settings, read on the first call."""
    return load()


def remote(url: str | None = None) -> tuple[str, str | None]:
    """Return the server that remote commands talk to, and its token.

    The server is *url*, or that of the settings. A token from the environment is not sent to an address that only the
    .env file names, because the file may be another user's. Raises ConfigError.
    """
    current, in_file = settings(), {name.upper() for name, value in _env_file().items() if value is not None}
    given = {name.upper() for name in os.environ}
    name = PREFIX + ("URL" if current.url else "BIND")
    is_ours = url is not None or _source(name, given, in_file) != _DOTENV or _is_local(current)
    if current.token and not is_ours and _source(PREFIX + "TOKEN", given, in_file) != _DOTENV:
        raise ConfigError(
            f"{PREFIX}TOKEN: is not sent to {current.base_url}, because {_DOTENV} names that address and the token "
            f"comes from the environment. Set {name} in the environment too, or give --url"
        )
    return (url or current.base_url).rstrip("/"), current.token.get_secret_value() if current.token else None


def _is_local(current: Settings) -> bool:
    """Return whether the address is the one that this machine's server uses."""
    return current.url is None and is_local_url(current.bound_url)


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


def known_names() -> list[str]:
    """Return the names of all variables that are read."""
    names = [PREFIX + field.upper() for field in Settings.model_fields]
    return [*names, *(name + "_FILE" for name in names)]


def unknown_settings() -> dict[str, str | None]:
    """Return the unknown OUTFEED_* names, each with the closest setting.

    The names come from the environment and the .env file. Raises ConfigError for a line of the file that is not
    NAME=value.
    """
    known = {name.removeprefix(PREFIX): name for name in known_names()}
    given = {*os.environ, *(name.upper() for name in _env_file())}
    found = sorted(name for name in given if name.startswith(PREFIX) and name not in known.values())
    close = {name: difflib.get_close_matches(name.removeprefix(PREFIX), known, n=1) for name in found}
    return {name: known[matches[0]] if matches else None for name, matches in close.items()}


def _env_file() -> dict[str, str | None]:
    """Return the variables of the .env file.

    Raises ConfigError with every invalid line, because an ignored line may have set a limit.
    """
    try:
        with open(_DOTENV, encoding="utf-8") as file:
            broken = [
                f"{_DOTENV}: line {each.original.line} must be NAME=value" for each in parse_stream(file) if each.error
            ]
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"can't read {_DOTENV}: {error}") from error
    if broken:
        raise ConfigError("\n".join(broken))
    return dotenv_values(_DOTENV)
