"""Through an HTTP proxy: as a relay, as a tunnel, with a password, dead (row 19)."""

from __future__ import annotations

import base64
import contextlib
import http.client
import select
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest
from http_checks import MIB, check_failed, check_whole, names

from segdl.errors import ConnectError, StatusError

SIZE = 12 * MIB + 9
PASSWORD = "Basic " + base64.b64encode(b"me:canary-secret").decode()


class Proxy(ThreadingHTTPServer):
    """A forward proxy that notes what it is asked, and may want a password."""

    daemon_threads = True

    def __init__(self, password: str | None) -> None:
        super().__init__(("127.0.0.1", 0), _Relay)
        self.password = password
        self.refusal = 407
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self._thread = threading.Thread(
            target=self.serve_forever, args=(0.01,), daemon=True
        )
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that went away."""

    def close(self) -> None:
        self.shutdown()
        self._thread.join(5)
        self.server_close()


class _Relay(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""

    def _admitted(self) -> bool:
        fields = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append((self.command, self.path, fields))
        wanted = self.server.password
        if wanted is None or fields.get("proxy-authorization") == wanted:
            return True
        self.send_response(self.server.refusal)
        self.send_header("Proxy-Authenticate", 'Basic realm="canary"')
        self.send_header("Content-Length", "0")
        self.end_headers()
        return False

    def do_GET(self) -> None:
        if not self._admitted():
            return
        parts = urlsplit(self.path)
        upstream = http.client.HTTPConnection(parts.netloc, timeout=10)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        upstream.putrequest("GET", target, skip_accept_encoding=True, skip_host=True)
        for name, value in self.headers.items():
            if not name.lower().startswith("proxy-"):
                upstream.putheader(name, value)
        upstream.endheaders()
        with contextlib.closing(upstream), upstream.getresponse() as answer:
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                self.send_header(name, value)
            self.end_headers()
            while data := answer.read(1 << 16):
                self.wfile.write(data)

    def do_CONNECT(self) -> None:
        if not self._admitted():
            return
        host, _, port = self.path.partition(":")
        with socket.create_connection((host, int(port)), timeout=10) as upstream:
            self.send_response_only(200)
            self.send_header("ETag", '"of the proxy"')
            self.end_headers()
            pair = {self.connection: upstream, upstream: self.connection}
            while True:
                for ready in select.select(list(pair), [], [], 10)[0]:
                    data = ready.recv(1 << 16)
                    if not data:
                        self.close_connection = True
                        return
                    pair[ready].sendall(data)


@pytest.fixture
def start_proxy() -> Iterator[Callable[..., Proxy]]:
    """Give a function that starts a proxy; it is stopped after the test."""
    proxies: list[Proxy] = []

    def start(password: str | None = None) -> Proxy:
        proxies.append(Proxy(password))
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


@pytest.mark.parametrize("tls", [False, True])
def test_19_proxy_with_a_password(origin, tls_origin, fetch, start_proxy, tls) -> None:
    """The proxy gets its password, the origin never sees it."""
    proxy = start_proxy(PASSWORD)
    server = tls_origin if tls else origin
    task = fetch(
        server.blob_url(1, SIZE),
        proxy=f"http://me:canary-secret@{proxy.address}",
        ca_file=tls_origin.ca_file,
    )
    check_whole(task, server.blob(1, SIZE))
    for request in server.log.entries:
        assert "proxy-authorization" not in request.headers


@pytest.mark.parametrize("tls", [False, True])
def test_19_proxy_that_refuses(
    origin, tls_origin, fetch, start_proxy, out, tls
) -> None:
    """A 407 is final; the message speaks of the proxy's password and holds none."""
    proxy = start_proxy(PASSWORD)
    server = tls_origin if tls else origin
    task = fetch(
        server.blob_url(1, SIZE),
        proxy=f"http://me:canary-wrong@{proxy.address}",
        ca_file=tls_origin.ca_file,
    )
    error = check_failed(task, StatusError, "407", "the proxy wants")
    assert error.status == 407
    assert "canary" not in str(error)
    assert len(proxy.asked) == 1
    assert server.log.entries == ()
    assert names(out) == []


@pytest.mark.parametrize(("status", "requests"), [(403, 1), (502, 3)])
def test_19_proxy_that_makes_no_tunnel(
    tls_origin, fetch, start_proxy, status, requests
) -> None:
    """A proxy's refusal to connect is told as its own, and retried if it may pass."""
    proxy = start_proxy(PASSWORD)
    proxy.refusal = status
    task = fetch(
        tls_origin.blob_url(1, SIZE), proxy=f"http://{proxy.address}", retry_times=2
    )
    error = check_failed(task, StatusError, f"the proxy answered {status}")
    assert error.status == status
    assert len(proxy.asked) == requests


def test_19_dead_proxy(origin, fetch) -> None:
    """A proxy that is not there is a failed connection, and named as the proxy's."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        task = fetch(
            origin.blob_url(1, SIZE),
            proxy=f"http://me:canary@127.0.0.1:{taken.getsockname()[1]}",
            retry_times=1,
        )
    error = check_failed(task, ConnectError, "proxy")
    assert "canary" not in str(error)
