"""A TCP relay that harms what comes down: a bad network between client and origin.

    client <── harm(connection, offset, data) ── relay <── origin
           ──────────────────────────────────────────────>

What the origin's log says was sent right arrives wrong, also below TLS.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterable

#: Gives what to pass on of data that is at an offset of a connection's stream.
Harm = Callable[[int, int, bytes], Iterable[bytes]]

_RUN_BYTES = 1 << 16
_JOIN_SECONDS = 10.0


def flip(connection: int, at: int) -> Harm:
    """
    Flip the lowest bit of one byte.

    Args:
        connection: Of which, from 1.
        at: Its offset in what comes down, head included.
    """

    def harm(number: int, offset: int, data: bytes) -> Iterable[bytes]:
        if number == connection and offset <= at < offset + len(data):
            changed = bytearray(data)
            changed[at - offset] ^= 1
            data = bytes(changed)
        return (data,)

    return harm


def mute(connection: int, at: int) -> Harm:
    """
    Swallow everything from an offset on; the connection stays open.

    Args:
        connection: Of which, from 1.
        at: Offset of the first byte that is swallowed.
    """

    def harm(number: int, offset: int, data: bytes) -> Iterable[bytes]:
        return (data[: max(0, at - offset)],) if number == connection else (data,)

    return harm


def slicer(connection: int, at: int, length: int) -> Harm:
    """
    Pass on byte by byte, in a segment each.

    Args:
        connection: Of which, from 1.
        at: Offset of the first byte that comes so.
        length: How many come so.
    """

    def harm(number: int, offset: int, data: bytes) -> Iterable[bytes]:
        if number != connection:
            return (data,)
        begin = min(len(data), max(0, at - offset))
        end = min(len(data), max(begin, at + length - offset))
        single = (data[i : i + 1] for i in range(begin, end))
        return (data[:begin], *single, data[end:])

    return harm


class Toxics:
    """
    The relay, on a free port of 127.0.0.1.

    Args:
        port: Of the origin, on 127.0.0.1.
        harm: What is done to what comes down; None for nothing.
        resets: So many connections are reset at their first byte, before any is passed.

    Attributes:
        connections: How many there were.
    """

    def __init__(self, port: int, harm: Harm | None = None, *, resets: int = 0) -> None:
        self._target = ("127.0.0.1", port)
        self._harm = harm or (lambda _number, _offset, data: (data,))
        self._resets = resets
        self.connections = 0
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._threads = [threading.Thread(target=self._listen, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Toxics:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(_JOIN_SECONDS)
        self._server.close()
        with self._lock:
            for each in self._sockets:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(_JOIN_SECONDS)

    def through(self, url: str) -> str:
        """Give a URL of the origin as it is reached through the relay."""
        there, here = (f"127.0.0.1:{port}" for port in (self._target[1], self.port))
        assert there in url
        return url.replace(there, here)

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                self.connections += 1
                thread = threading.Thread(
                    target=self._relay, args=(client, self.connections), daemon=True
                )
                self._threads.append(thread)
                thread.start()

    def _relay(self, client: socket.socket, number: int) -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.suppress(OSError))
            self._open(stack, client)
            if number <= self._resets:
                client.recv(1)
                # Closing with SO_LINGER 0 sends a reset.
                linger = struct.pack("ii", 1, 0)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                return
            origin = socket.create_connection(self._target)
            self._open(stack, origin)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            offset = 0
            while True:
                ready, _, _ = select.select([client, origin], [], [])
                if client in ready:
                    data = client.recv(_RUN_BYTES)
                    if not data:
                        return
                    origin.sendall(data)
                if origin in ready:
                    data = origin.recv(_RUN_BYTES)
                    if not data:
                        return
                    for run in self._harm(number, offset, data):
                        client.sendall(run)
                    offset += len(data)

    def _open(self, stack: contextlib.ExitStack, sock: socket.socket) -> None:
        """Have a socket shut down with the relay, and closed with its connection."""

        def close() -> None:
            with self._lock:
                self._sockets.discard(sock)
                sock.close()

        with self._lock:
            self._sockets.add(sock)
        stack.callback(close)
