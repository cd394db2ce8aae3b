"""Which addresses are public: what a service that fetches foreign URLs may connect to.

    OPENSOCKETFUNCTION ── the address libcurl is about to connect to ──> is_public

It is asked about the address itself, after every name was looked up, every odd way to
write a number was read and every redirect was followed: so a name that leads elsewhere
the second time (DNS rebinding), `0x7f.1` and `::ffff:127.0.0.1` are all seen for what
they are.
"""

from __future__ import annotations

from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
)

# All that IANA has given out for global unicast (RFC 4291 s2.4): loopback, link-local,
# unique local, site-local, multicast and what is reserved lie outside of it.
_GLOBAL_UNICAST = IPv6Network("2000::/3")
# Of Azure's platform: a service of the host, though the address is a public one.
_OF_THE_HOST = frozenset({IPv4Address("168.63.129.16")})
# Reserved, and not known to every version of the standard library.
_RESERVED_V4 = IPv4Network("192.0.0.0/24")  # RFC 6890 s2.2.2
_RESERVED_V6 = IPv6Network("3fff::/20")  # documentation, RFC 9637
# A translator behind such an address connects to the IPv4 address in its last 32 bits
# (RFC 6052 s2.1).
_TRANSLATED = IPv6Network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """
    Tell whether an address belongs to the public internet.

    Not public are loopback, private and link-local addresses (cloud metadata services
    among them), carrier-grade NAT, multicast, documentation and reserved ranges, and
    IPv6 addresses that stand for such an IPv4 address.

    Args:
        address: IPv4 or IPv6, as `getaddrinfo` gives it; a zone is allowed.

    Returns:
        False also for what is no address.
    """
    try:
        found = ip_address(address)
    except ValueError:
        return False
    if isinstance(found, IPv4Address):
        return _is_public_v4(found)
    embedded = _embedded(found)
    if embedded is not None and not _is_public_v4(embedded):
        return False
    if found.ipv4_mapped is not None or found in _TRANSLATED:
        return True
    return found in _GLOBAL_UNICAST and found not in _RESERVED_V6 and found.is_global


def _is_public_v4(address: IPv4Address) -> bool:
    # Multicast counts as global to the standard library; no HTTP server is there.
    return (
        address.is_global
        and not address.is_multicast
        and address not in _OF_THE_HOST
        and address not in _RESERVED_V4
    )


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """Give the IPv4 address that packets for an IPv6 one end up at, None for none."""
    if address in _TRANSLATED:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour
