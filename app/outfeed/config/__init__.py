"""Settings: every OUTFEED_* variable with type, default, unit and help.

`settings()` reads them once. No other package reads the environment. All bad values are reported together.
"""

from __future__ import annotations

import difflib
import functools
import logging
import re
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from outfeed.config import environment
from outfeed.config.addresses import url_host
from outfeed.config.environment import DOTENV, PREFIX, SecretFiles
from outfeed.config.values import (
    MAX_DAYS,
    AddressAndPort,
    DatabasePath,
    DaysByType,
    EngineAddress,
    Folder,
    Names,
    Networks,
    NetworksOrHosts,
    Origins,
    PublicAddress,
    ServerAddress,
)
from outfeed.errors import ConfigError
from outfeed.log_message import LogMessage

MAX_GIVEN_CHARS = 200  # of a bad value, in its error
# In an event, values under these names are hidden, also under names that end in `_` and one of these.
REDACT_KEYS = (
    "password", "passwd", "passphrase", "pwd", "secret", "token", "jwt", "api_key", "apikey", "access_key",
    "authorization", "cookie", "set_cookie", "credential", "credentials", "private_key", "secret_key", "mnemonic",
    "seed_phrase", "preimage", "macaroon", "session_key",
)  # fmt: skip
log = logging.getLogger(__name__)


class Settings(BaseSettings):
    """The settings of one process.

    A variable's name is `OUTFEED_` and the field in capitals.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_file=DOTENV, extra="ignore", frozen=True)

    database: DatabasePath = Field(Path("instance/outfeed.db"), description="The SQLite database file.")
    bind: AddressAndPort = Field("127.0.0.1:8000", description="Address and port that `serve` listens on.")
    public_url: PublicAddress = Field(
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
    allowed_origins: Origins = Field(
        (), description="Origins of other sites whose pages may embed the feed, separated by commas."
    )
    trusted_proxies: Networks = Field(
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
    retention_days_by_type: DaysByType = Field(
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
    backup_dir: Folder = Field(None, description="Folder of the backups that the server makes. It must exist.")
    backup_every_hours: float = Field(
        0, ge=0, le=8760, description="Hours between two backups into OUTFEED_BACKUP_DIR. 0: only by hand."
    )
    backup_keep: int = Field(14, ge=1, le=1000, description="Newest backups that OUTFEED_BACKUP_DIR keeps.")
    heartbeat_secs: float = Field(15.0, ge=0.1, le=60, description="Seconds between heartbeats to a live client.")
    auction_secs: float = Field(15.0, ge=0.1, le=86_400, description="Seconds that a task is open for bids.")
    agent_timeout_secs: float = Field(
        120.0, ge=1, le=86_400, description="Seconds without a heartbeat after which an agent is removed."
    )
    webhook_allow: NetworksOrHosts = Field(
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
    engine: EngineAddress = Field(
        None,
        description="Redis or Valkey that carries the feed to edges: `redis://`, `rediss://` or"
        " `sentinel://HOST:PORT,HOST:PORT/NAME`.",
    )
    engine_events: int = Field(200_000, ge=1000, le=10_000_000, description="Newest events that the engine keeps.")
    engine_bytes: int = Field(268_435_456, ge=2**20, description="Memory for events in the engine.")
    grant_minutes: float = Field(
        10, ge=0.05, le=1440, description="Minutes that edges admit clients after the origin has stopped."
    )
    origin_url: ServerAddress = Field(None, description="Address of the origin server. Required by `outfeed edge`.")
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
    url: ServerAddress = Field(None, description="Server that remote commands talk to.")
    token: SecretStr | None = Field(None, description="Token that remote commands send.")

    redact_keys: Names = Field(REDACT_KEYS, description="Names whose values are redacted, separated by commas.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, SecretFiles(settings_cls), dotenv_settings

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


@functools.cache
def settings() -> Settings:
    """Return this process's settings, read on the first call."""
    return load()


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
    found = sorted(name for name in environment.names() if name.startswith(PREFIX) and name not in known.values())
    close = {name: difflib.get_close_matches(name.removeprefix(PREFIX), known, n=1) for name in found}
    return {name: known[matches[0]] if matches else None for name, matches in close.items()}


def _explain(problem: Any) -> str:
    name = str(problem["loc"][0])
    is_secret = "Secret" in str(Settings.model_fields[name].annotation)
    given = "a secret" if is_secret else f"{problem['input']!r:.{MAX_GIVEN_CHARS}}"
    text = problem["msg"].removeprefix("Value error, ")
    text = re.sub("^(?:Input|String|Value) should (be|have)", r"must \1", text)
    text = re.sub(", unable to parse string as an? [a-z]+", "", text)
    text = re.sub(" items after validation, not .*", " characters", text)
    return f"{PREFIX}{name.upper()}: {text} (got {given})"
