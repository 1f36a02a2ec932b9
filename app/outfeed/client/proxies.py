"""Proxies of the environment.

No proxy is used for this machine. A proxy that cannot be used is named in the error.
"""

from __future__ import annotations

import ssl
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
from websockets.exceptions import InvalidProxy

from outfeed.config.environment import proxy_variables
from outfeed.errors import ConfigError

# The variables `<scheme>_proxy` that each library reads for a server with TLS and for one without, the first one first.
SOCKET_PROXIES = {"https": ("wss", "socks", "https"), "http": ("ws", "socks", "https", "http")}
HTTP_PROXIES = {"https": ("https", "all"), "http": ("http", "all")}
Connection = TypeVar("Connection")


def is_loopback(url: str) -> bool:
    """Return whether *url* names this machine.

    A token for this machine must not pass through a proxy.
    """
    host = (urlsplit(url).hostname or "").rstrip(".")
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def may_take_proxy(url: str) -> bool:
    """Return whether a request to *url* uses the environment's proxy."""
    return not is_loopback(url) and not urllib.request.proxy_bypass(urlsplit(url).netloc)


def through_proxy(url: str, schemes: Mapping[str, tuple[str, ...]]) -> str:
    """Return ` through the proxy of HTTP_PROXY`, or an empty text.

    The text is empty if a request to *url* uses no proxy.
    """
    names = proxy_variables(schemes[_security(url)]) if may_take_proxy(url) else []
    return f" through the proxy of {names[0]}" if names else ""


def open_socket(url: str, connect: Callable[..., Connection]) -> Connection:
    """Return the connection that *connect* opens through the right proxy.

    *connect* is called with the proxy that a WebSocket to *url* uses. Raises ConfigError.
    """
    with _proxies_named(url, proxy_variables(SOCKET_PROXIES[_security(url)])[:1]):
        return connect(proxy=True if may_take_proxy(url) else None)


def open_http(url: str, **options: Any) -> httpx.Client:
    """Return an HTTP client for the server at *url*. Raises ConfigError."""
    # Without https the system's certificates, which take 40 ms to read, are not needed.
    verify = httpx.create_ssl_context() if _security(url) == "https" else False
    with _proxies_named(url, proxy_variables(("http", "https", "all"))):  # httpx reads all of them
        return httpx.Client(base_url=url, trust_env=may_take_proxy(url), verify=verify, **options)


def _security(url: str) -> str:
    return "https" if urlsplit(url).scheme.lower() in ("https", "wss") else "http"


@contextmanager
def _proxies_named(url: str, names: list[str]) -> Iterator[None]:
    """Raise ConfigError with *names* if the library cannot use the proxy.

    *names* are the variables that name it.
    """
    try:
        yield
    except (InvalidProxy, httpx.InvalidURL, ImportError, ValueError) as error:
        if isinstance(error, ssl.SSLError) or not names or not may_take_proxy(url):
            raise
        needs = f" ({error})" if isinstance(error, ImportError) else ""
        raise ConfigError(
            f"{' or '.join(names)}: names a proxy that can't be used for {url}{needs}. "
            f"Set it to http://HOST:PORT, unset it, or add {urlsplit(url).hostname} to NO_PROXY"
        ) from None
