"""The server that remote commands talk to."""

from __future__ import annotations

from outfeed.config import Settings, environment, settings
from outfeed.config.addresses import is_local_url
from outfeed.config.environment import DOTENV, PREFIX
from outfeed.errors import ConfigError


def remote(url: str | None = None) -> tuple[str, str | None]:
    """Return the server that remote commands talk to, and its token.

    The server is *url*, or that of the settings. A token from the environment is not sent to an address that only the
    .env file names, because the file may be another user's. Raises ConfigError.
    """
    current, given = settings(), environment.set_names()
    name = PREFIX + ("URL" if current.url else "BIND")
    is_ours = url is not None or given.source_of(name) != DOTENV or _is_local(current)
    if current.token and not is_ours and given.source_of(PREFIX + "TOKEN") != DOTENV:
        raise ConfigError(
            f"{PREFIX}TOKEN: is not sent to {current.base_url}, because {DOTENV} names that address and the token "
            f"comes from the environment. Set {name} in the environment too, or give --url"
        )
    return (url or current.base_url).rstrip("/"), current.token.get_secret_value() if current.token else None


def _is_local(current: Settings) -> bool:
    """Return whether the address is the one that this machine's server uses."""
    return current.url is None and is_local_url(current.bound_url)
