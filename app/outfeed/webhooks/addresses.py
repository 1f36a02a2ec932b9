"""Addresses that webhooks and alerts may call: public and allowed ones.

A webhook must not reach services that only this machine or its network can reach (SSRF). So a name is resolved once,
its addresses are checked, and the caller connects to a checked address. No second look-up takes place (DNS rebinding).
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from outfeed.errors import TargetForbidden, TargetUnresolvable

Address = IPv4Address | IPv6Address
_GLOBAL_UNICAST = IPv6Network("2000::/3")
# Not public, though some versions of Python call them global: protocol assignments with Teredo, and 6to4
# (RFC 6890, RFC 7526).
_SPECIAL = (
    IPv4Network("192.0.0.0/24"), IPv4Network("192.88.99.0/24"), IPv6Network("2001::/23"), IPv6Network("2002::/16"),
)  # fmt: skip
# A NAT64 translates these to the IPv4 address in their last 32 bits (RFC 6052).
_NAT64 = IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A checked address, in the form that `socket` takes."""

    family: socket.AddressFamily
    sockaddr: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Allowlist:
    """Networks and hosts of OUTFEED_WEBHOOK_ALLOW.

    They are allowed beside public addresses. An allowed host may resolve to any address.
    """

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    hosts: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, text: str) -> Allowlist:
        """Parse comma-separated CIDRs, addresses and host names.

        The settings have checked them.
        """
        networks, hosts = [], set()
        for part in filter(None, (each.strip() for each in text.split(","))):
            try:
                networks.append(ip_network(part, strict=False))
            except ValueError:
                hosts.add(_plain(part))
        return cls(tuple(networks), frozenset(hosts))

    def resolve(self, host: str, port: int) -> list[Endpoint]:
        """Return the allowed addresses of *host*.

        Raises TargetForbidden, TargetUnresolvable.
        """
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise TargetUnresolvable(
                f"{host} can't be resolved: {getattr(error, 'strerror', None) or error}"
            ) from error
        endpoints = [Endpoint(family, sockaddr) for family, _, _, _, sockaddr in found if self._allows(host, sockaddr)]
        if not endpoints:
            seen = ", ".join(sorted({str(sockaddr[0]) for *_, sockaddr in found}))
            target = host if seen == host else f"{host} resolves to {seen}, which"
            raise TargetForbidden(
                f"{target} is not public; to allow it, set OUTFEED_WEBHOOK_ALLOW for this command and for the server"
            )
        return endpoints

    def _allows(self, host: str, sockaddr: tuple[Any, ...]) -> bool:
        address = ip_address(str(sockaddr[0]))
        if _plain(host) in self.hosts or is_public(address):
            return True
        return any(each in network for network in self.networks for each in (address, _unwrapped(address)))


def is_public(address: Address) -> bool:
    """Return whether *address* is a unicast address of the public internet."""
    address = _unwrapped(address)
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    is_special = address.is_multicast or address.is_reserved or any(address in network for network in _SPECIAL)
    return address.is_global and not is_special


def _unwrapped(address: Address) -> Address:
    """Return the IPv4 address in *address*, or *address* if it has none."""
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFF_FFFF)
        return address.ipv4_mapped or address
    return address


def _plain(host: str) -> str:
    return host.rstrip(".").lower()
