"""Which addresses are public: those of the internet, in every way to write them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segdl._addresses import is_public

PRIVATE = [
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1"),
    *(
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",
        "168.63.129.16",
        "100.64.0.1",
        "192.0.2.1",
    ),
    *("198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250"),
    *("240.0.0.1", "255.255.255.255"),
    # Oracle's metadata, and more of a block that some versions of Python call global.
    *("192.0.0.192", "192.0.0.9"),
]
PUBLIC = ["1.1.1.1", "8.8.8.8", "100.63.255.255", "172.15.0.1", "172.32.0.1"]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    """What is routed on the internet is public, also where IPv6 stands for it."""
    number = int(IPv4Address(address))
    assert is_public(address)
    assert is_public(f"::ffff:{address}")
    assert is_public(f"64:ff9b::{address}")
    assert is_public(str(IPv6Address((0x2002 << 112) | (number << 80) | 1)))


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_are_not_public(address: str) -> None:
    """This machine, private networks, metadata, multicast and reserved ones are not."""
    number = int(IPv4Address(address))
    assert not is_public(address)
    assert not is_public(f"::ffff:{address}")
    assert not is_public(f"64:ff9b::{address}")
    assert not is_public(str(IPv6Address((0x2002 << 112) | (number << 80) | 1)))


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("2606:4700:4700::1111", True),
        ("2001:4860:4860::8888", True),
        *[(address, False) for address in ("::", "::1", "fe80::1", "fe80::1%eth0")],
        *[(address, False) for address in ("fc00::1", "fd00:ec2::254", "fec0::1")],
        *[(address, False) for address in ("ff02::1", "ff0e::1", "2001:db8::1")],
        *[(address, False) for address in ("64:ff9b:1::808:808", "100::1", "4000::1")],
        *[(address, False) for address in ("3fff::1", "3fff:fff::1")],
        ("3fff:1000::1", True),
        *[(address, False) for address in ("::8.8.8.8", "2001:0:808:808::1")],
        *[(text, False) for text in ("", "localhost", "0x7f.1", "1.1.1.1.", "1", "/s")],
    ],
)
def test_ipv6_and_what_is_no_address(address: str, expected: bool) -> None:
    """Of IPv6, global unicast alone is public; what is no address is not."""
    assert is_public(address) is expected


@given(st.text(max_size=50))
def test_any_text_has_an_answer(text: str) -> None:
    """No text raises."""
    assert is_public(text) in (True, False)


@given(st.ip_addresses(v=4))
def test_ipv4_in_ipv6_is_what_it_is(address: IPv4Address) -> None:
    """An IPv4 address stays private, or public, when it is written as IPv6."""
    expected = is_public(str(address))
    assert is_public(f"::ffff:{address}") is expected
    assert is_public(f"64:ff9b::{address}") is expected
