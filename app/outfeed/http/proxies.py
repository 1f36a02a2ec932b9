"""Proxies: which client's address and scheme a request has, when it came through one that we trust."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import Any

# Where a request has the host that a trusted proxy says it was sent to.
FORWARDED_HOST = "outfeed.forwarded_host"
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Proxies:
    """Corrects the address and the scheme of requests that come through one of *networks*.

    The client is the rightmost address of X-Forwarded-For that is not one of ours: each proxy appends the address that
    it was called from, and a client can write anything to the left of that.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._trusts = _membership(networks)

    def correct(self, environ: dict[str, Any]) -> None:
        """Set REMOTE_ADDR, the scheme and FORWARDED_HOST of a request."""
        peer = parse(environ.get("REMOTE_ADDR", ""))
        if peer is None:
            return
        if not self._trusts(peer):
            environ["REMOTE_ADDR"] = str(peer)
            return
        environ["REMOTE_ADDR"] = str(self._client(peer, environ.get("HTTP_X_FORWARDED_FOR", "")))
        scheme = environ.get("HTTP_X_FORWARDED_PROTO", "").rpartition(",")[2].strip().lower()
        if scheme in ("http", "https"):
            environ["wsgi.url_scheme"] = scheme
        if host := environ.get("HTTP_X_FORWARDED_HOST", "").rpartition(",")[2].strip():
            environ[FORWARDED_HOST] = host

    def _client(self, peer: _Address, forwarded_for: str) -> _Address:
        nearest = peer
        for text in reversed(forwarded_for.split(",")):
            address = parse(text)
            if address is None:
                break  # nonsense, which the one before it let pass
            nearest = address
            if not self._trusts(address):
                break
        return nearest


def membership(networks: Iterable[str]) -> Callable[[str], bool]:
    """Return a function that tells whether an address lies in one of *networks*."""
    contains = _membership(networks)

    def is_member(text: str) -> bool:
        address = parse(text)
        return address is not None and contains(address)

    return is_member


def _membership(networks: Iterable[str]) -> Callable[[_Address], bool]:
    parsed = [ipaddress.ip_network(network) for network in networks]
    return lambda address: any(address in network for network in parsed)


def parse(text: str) -> _Address | None:
    """Return the address, without a port and brackets; an IPv4 one in IPv6's clothes is IPv4."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def client_key(address: str | None) -> str:
    """Return what limits count by: the address, or the /64 that one IPv6 customer has to himself."""
    parsed = parse(address or "")
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed or address)
