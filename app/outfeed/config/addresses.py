"""Addresses of servers: as a URL, and whether they are local."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

LOCAL_LINK = "The link works only on this machine. To share it, set OUTFEED_PUBLIC_URL to the public address."
# Addresses that stand for all addresses of the machine, and the one to connect to instead.
_ALL_ADDRESSES = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


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
