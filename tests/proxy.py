"""A forward proxy for HTTP: a relay, a tunnel, with a password, one that dies."""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


class Proxy(ThreadingHTTPServer):
    """
    A forward proxy that notes what it is asked.

    Args:
        password: Value of Proxy-Authorization that it wants, None for none.
        port: 0 for a free one.

    Attributes:
        refusal: Status of the answer to a request without the password.
        asked: Method, target and fields (names in lower case) of each request.
    """

    daemon_threads = True

    def __init__(self, password: str | None = None, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Relay)
        self.password = password
        self.refusal = 407
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self._sockets: set[socket.socket] = set()
        self._thread = threading.Thread(
            target=self.serve_forever, args=(0.01,), daemon=True
        )
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that went away."""

    def process_request(self, request: Any, client_address: Any) -> None:
        """Note a connection, to be cut when the proxy dies."""
        self._sockets.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget a connection that is over."""
        self._sockets.discard(request)
        super().shutdown_request(request)

    def close(self) -> None:
        """Stop to listen; what is under way goes on."""
        self.shutdown()
        self._thread.join(5)
        self.server_close()

    def die(self) -> None:
        """Stop to listen, and cut every connection."""
        self.close()
        for each in list(self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


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
