"""Through an HTTP proxy: as a relay, or as a tunnel; row 19 has what goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from http_checks import MIB, check_whole
from proxy import Proxy

SIZE = 12 * MIB + 9


@pytest.fixture
def start_proxy() -> Iterator[Callable[..., Proxy]]:
    """Give a function that starts a proxy; it is stopped after the test."""
    proxies: list[Proxy] = []

    def start() -> Proxy:
        proxies.append(Proxy())
        return proxies[-1]

    yield start
    for proxy in proxies:
        proxy.close()


@pytest.mark.parametrize("from_environment", [False, True])
def test_through_a_proxy(
    origin, fetch, start_proxy, monkeypatch, from_environment
) -> None:
    """All requests go through the proxy that was set, or that the environment names."""
    proxy = start_proxy()
    address = f"http://{proxy.address}"
    if from_environment:
        monkeypatch.setenv("http_proxy", address)
    task = fetch(origin.blob_url(1, SIZE), proxy=None if from_environment else address)
    check_whole(task, origin.blob(1, SIZE))
    assert len(proxy.asked) == len(origin.log.entries) >= 4


def test_no_proxy_is_honoured(origin, fetch, start_proxy, monkeypatch) -> None:
    """The environment's exceptions are made."""
    proxy = start_proxy()
    monkeypatch.setenv("http_proxy", f"http://{proxy.address}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    check_whole(fetch(origin.blob_url(1, SIZE)), origin.blob(1, SIZE))
    assert proxy.asked == []


def test_tunnel_through_a_proxy(tls_origin, fetch, start_proxy) -> None:
    """TLS goes through a tunnel; the proxy's own answer is not the origin's."""
    proxy = start_proxy()
    task = fetch(
        tls_origin.blob_url(1, SIZE),
        proxy=f"http://{proxy.address}",
        ca_file=tls_origin.ca_file,
        headers={"Authorization": "Bearer canary"},
    )
    check_whole(task, tls_origin.blob(1, SIZE))
    assert {command for command, _, _ in proxy.asked} == {"CONNECT"}
    # What is for the origin is for it alone.
    assert all("authorization" not in fields for _, _, fields in proxy.asked)
