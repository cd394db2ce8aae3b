"""An origin that answers what a test says, byte for byte, and then hangs up."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """
    A request: which one it is, and for which bytes.

    Attributes:
        number: 1 for the first one.
        begin, end: The range, half-open; 0 and 2^63 without one.
        fields: Names in lower case.
    """

    number: int
    begin: int
    end: int
    fields: dict[str, str]


class Script(ThreadingHTTPServer):
    """
    An origin of one file.

    Args:
        answer: Gives all that is sent, head and body, at once or in steps; the
            connection ends after it.

    Attributes:
        asked: The requests, in order.
    """

    daemon_threads = True

    def __init__(self, answer: Callable[[Asked], bytes | Iterable[bytes]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.asked: list[Asked] = []
        self.lock = threading.Lock()
        self._thread = threading.Thread(
            target=self.serve_forever, args=(0.01,), daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file.bin"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that went away."""

    def close(self) -> None:
        """Stop to listen."""
        self.shutdown()
        self._thread.join(5)
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Script

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        fields = {name.lower(): value for name, value in self.headers.items()}
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", fields.get("range", ""))
        begin, end = (int(found[1]), int(found[2]) + 1) if found else (0, 1 << 63)
        with self.server.lock:
            number = len(self.server.asked) + 1
            asked = Asked(number=number, begin=begin, end=end, fields=fields)
            self.server.asked.append(asked)
        answer = self.server.answer(asked)
        for data in [answer] if isinstance(answer, bytes) else answer:
            self.wfile.write(data)


def head(status: str, *lines: str, version: str = "1.1") -> bytes:
    """Give the head of an answer, such as `404 Not Found`."""
    return "\r\n".join([f"HTTP/{version} {status}", *lines, "", ""]).encode("latin-1")


def refusal(status: str, *lines: str) -> bytes:
    """Give an answer without a body."""
    return head(status, "Content-Length: 0", *lines)


def part(asked: Asked, content: bytes, *lines: str, most: int = MIB) -> bytes:
    """Give a 206 of what was asked for, or its first bytes."""
    end = min(asked.end, asked.begin + most, len(content))
    where = f"Content-Range: bytes {asked.begin}-{end - 1}/{len(content)}"
    length = f"Content-Length: {end - asked.begin}"
    return head("206 Part", where, length, *lines) + content[asked.begin : end]


def page(text: bytes, *lines: str) -> bytes:
    """Give a 200 with its length."""
    return head("200 OK", f"Content-Length: {len(text)}", *lines) + text


def stream(content: bytes, *lines: str) -> bytes:
    """Give a 200 in one chunk, or in none when it is empty."""
    chunk = b"%x\r\n%s\r\n" % (len(content), content) if content else b""
    return head("200 OK", "Transfer-Encoding: chunked", *lines) + chunk + b"0\r\n\r\n"
