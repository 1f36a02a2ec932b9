"""Addresses that webhooks may call."""

import socket

import pytest

from outfeed import config
from outfeed.errors import ConfigError, TargetForbidden, TargetUnresolvable
from outfeed.webhooks.addresses import Allowlist

# Grouped by the reason why they must not be called. All are numbers, so no name server is asked.
PRIVATE = [
    "127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",  # private
    "169.254.169.254", "169.254.0.1", "100.64.0.1",  # of the link, the cloud, the provider
    "0.0.0.0", "0.1.2.3", "255.255.255.255", "224.0.0.1", "239.1.2.3", "240.0.0.1",  # unassigned or multicast
    "192.0.0.8", "192.88.99.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1",  # special or documentation
    "::1", "::", "fe80::1", "fe80::1%1", "fc00::1", "fd12::1", "fec0::1", "ff02::1", "2001:db8::1", "100::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1",  # IPv4 in IPv6
    "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1", "2002:7f00:1::", "2001:0:7f00:1::",
    "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "0",  # other spellings
]  # fmt: skip
PUBLIC = ["1.1.1.1", "8.8.8.8", "172.32.0.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


@pytest.mark.parametrize("host", PRIVATE)
def test_a_private_address_is_refused(host):
    with pytest.raises(TargetForbidden, match="OUTFEED_WEBHOOK_ALLOW"):
        Allowlist().resolve(host, 80)


@pytest.mark.parametrize("host", PUBLIC)
def test_a_public_address_is_accepted(host):
    assert [str(each.sockaddr[1]) for each in Allowlist().resolve(host, 443)] == ["443"]


@pytest.fixture
def names(monkeypatch):
    """A name server: the addresses of each name at each look-up."""
    table = {}
    real = socket.getaddrinfo

    def look_up(host, port, *args, **options):
        addresses = table.get(host)
        if addresses is None:
            return real(host, port, *args, flags=socket.AI_NUMERICHOST, **options)
        answer = addresses.pop(0) if len(addresses) > 1 else addresses[0]
        return [found for one in answer for found in real(one, port, *args, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return table


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.7", "::1", "::ffff:127.0.0.1", "169.254.169.254", "0.0.0.0"])
def test_a_name_is_refused_for_what_it_resolves_to(names, address):
    names["innocent.example"] = [[address]]
    with pytest.raises(TargetForbidden, match=r"innocent\.example resolves to "):
        Allowlist().resolve("innocent.example", 80)


def test_localhost_is_refused():
    with pytest.raises(TargetForbidden):
        Allowlist().resolve("localhost", 80)


def test_only_the_public_addresses_of_a_name_are_called(names):
    names["mixed.example"] = [["127.0.0.1", "1.1.1.1", "10.0.0.1"]]
    assert [each.sockaddr[0] for each in Allowlist().resolve("mixed.example", 80)] == ["1.1.1.1"]


def test_a_name_without_an_address_is_reported(names):
    with pytest.raises(TargetUnresolvable, match=r"nowhere\.example can't be resolved"):
        Allowlist().resolve("nowhere.example", 80)


@pytest.mark.parametrize(
    ("allowed", "host", "is_allowed"),
    [
        ("127.0.0.0/8", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("127.0.0.1", "::ffff:127.0.0.1", True),
        ("10.0.0.0/8, ::1", "::1", True),
        ("::1", "127.0.0.1", False),
        ("hooks.example", "hooks.example", True),
        ("Hooks.Example.", "hooks.example", True),
        ("hooks.example", "hooks.example.", True),
        ("hooks.example", "other.hooks.example", False),
        ("hooks.example", "127.0.0.1", False),
    ],
)
def test_the_operator_allows_networks_and_names(names, allowed, host, is_allowed):
    for name in ("hooks.example", "hooks.example.", "other.hooks.example"):
        names[name] = [["127.0.0.1"]]
    if is_allowed:
        assert Allowlist.parse(allowed).resolve(host, 80)
    else:
        with pytest.raises(TargetForbidden):
            Allowlist.parse(allowed).resolve(host, 80)


@pytest.mark.parametrize("value", ["10.0.0.0/33", "300.1.1.1", "a b", "http://host", "host:80", "127.0.0.1/x", "*.a.b"])
def test_an_invalid_setting_is_reported(monkeypatch, value):
    monkeypatch.setenv("OUTFEED_WEBHOOK_ALLOW", f"10.0.0.0/8, {value}")
    with pytest.raises(ConfigError, match="OUTFEED_WEBHOOK_ALLOW"):
        config.load()


@pytest.mark.parametrize("value", ["", "10.0.0.0/8", "10.0.0.1/8,::1, fd00::/8", "hooks.internal", "my_host", "a.b."])
def test_a_valid_setting_is_accepted(monkeypatch, value):
    monkeypatch.setenv("OUTFEED_WEBHOOK_ALLOW", value)
    assert config.load().webhook_allow == value


class TestNames:
    """The connection uses the look-up that was checked."""

    def test_an_address_that_changes_after_the_check_is_not_called(self, names):
        from outfeed.webhooks.target import Target
        from tests.receiver import Receiver

        names["rebound.example"] = [["127.0.0.1"], ["127.0.0.2"]]
        with Receiver() as receiver:
            target = Target(f"http://rebound.example:{receiver.port}/", Allowlist.parse("127.0.0.1"))
            first = target.post(b"{}", {"webhook-id": "1"})
            receiver.stop()
            receiver.start()
            second = target.post(b"{}", {"webhook-id": "2"})
            target.close()

        assert first.status == 200
        assert second.status is None
        assert "127.0.0.2, which is not public" in second.error
        assert receiver.connections == 1
