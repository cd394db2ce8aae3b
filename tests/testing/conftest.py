"""A raw client for the origin's tests: sees each byte, and how a connection ends."""

from __future__ import annotations

import gzip
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from segdl.testing import Origin


@dataclass(frozen=True)
class Reply:
    """What came back on one connection until it ended."""

    raw: bytes
    reset: bool

    @property
    def head(self) -> list[str]:
        return self.raw.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")

    @property
    def status(self) -> int:
        return int(self.head[0].split(" ")[1])

    @property
    def body(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[2]

    @property
    def fields(self) -> dict[str, str]:
        pairs = (line.partition(": ") for line in self.head[1:])
        return {name.lower(): value for name, _, value in pairs}

    @property
    def unpacked(self) -> bytes:
        """The body out of its chunks and its gzip."""
        data, rest = b"", self.body
        while True:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size, 16)
            if length == 0:
                break
            assert rest[length : length + 2] == b"\r\n"
            data, rest = data + rest[:length], rest[length + 2 :]
        assert rest == b"\r\n"
        return gzip.decompress(data) if "content-encoding" in self.fields else data


class Line:
    """A connection to the origin, for several requests or for waiting."""

    def __init__(self, origin: Origin) -> None:
        self.sock = socket.create_connection(("127.0.0.1", origin.port), timeout=20)
        self._base = origin.url

    def send(self, url: str, *fields: str, method: str = "GET") -> None:
        target = url.removeprefix(self._base)
        lines = [f"{method} {target} HTTP/1.1", "Host: test", *fields]
        self.sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    def read(self, count: int) -> bytes:
        data = b""
        while len(data) < count and (more := self.sock.recv(count - len(data))):
            data += more
        return data

    def read_head(self) -> bytes:
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            byte = self.sock.recv(1)
            assert byte, data
            data += byte
        return data

    def read_to_end(self) -> Reply:
        data = bytearray()
        try:
            while more := self.sock.recv(1 << 20):
                data += more
        except ConnectionResetError:
            return Reply(bytes(data), reset=True)
        return Reply(bytes(data), reset=False)


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as running:
        yield running


@pytest.fixture
def dial() -> Iterator[Callable[[Origin], Line]]:
    """Open a connection that is closed after the test."""
    lines = []

    def open_line(origin: Origin) -> Line:
        lines.append(Line(origin))
        return lines[-1]

    yield open_line
    for line in lines:
        line.sock.close()


@pytest.fixture
def ask(dial: Callable[[Origin], Line]) -> Callable[..., Reply]:
    """Send one request on a connection of its own and read until the end of it."""

    def exchange(origin: Origin, url: str, *fields: str, method: str = "GET") -> Reply:
        line = dial(origin)
        line.send(url, "Connection: close", *fields, method=method)
        return line.read_to_end()

    return exchange
