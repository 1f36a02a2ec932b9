"""Proxies: the client's address and scheme behind a trusted proxy."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import Any

# The key in environ of the host that a trusted proxy reports.
FORWARDED_HOST = "outfeed.forwarded_host"
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Proxies:
    """Corrects address and scheme of requests from proxies in *networks*.

    The client is the rightmost address in X-Forwarded-For that belongs to no trusted proxy. Each proxy appends its
    peer's address on the right. Any client can write the entries further left.
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
                break  # invalid text, which the proxy on its right forwarded
            nearest = address
            if not self._trusts(address):
                break
        return nearest


def membership(networks: Iterable[str]) -> Callable[[str], bool]:
    """Return a function that tells whether an address is in *networks*."""
    contains = _membership(networks)

    def is_member(text: str) -> bool:
        address = parse(text)
        return address is not None and contains(address)

    return is_member


def _membership(networks: Iterable[str]) -> Callable[[_Address], bool]:
    parsed = [ipaddress.ip_network(network) for network in networks]
    return lambda address: any(address in network for network in parsed)


def parse(text: str) -> _Address | None:
    """Return the address without port and brackets, or None if it is invalid.

    An IPv4-mapped IPv6 address is returned as IPv4.
    """
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
    """Return the key that limits count by: the address, or its IPv6 /64.

    One IPv6 customer controls a whole /64.
    """
    parsed = parse(address or "")
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed or address)
