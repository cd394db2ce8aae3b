"""One connection's socket: the ways to use it, and to end it.

The only place that knows plain sockets from TLS ones, and what each system can do.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

__all__ = ["Wire"]

_HEAD_MAX_BYTES = 64 << 10
# How long a closing connection waits for its peer's end, so that what was sent is not
# cut off by a reset (RFC 9112 section 9.6).
_LINGER_SECONDS = 0.5


class Wire:
    """
    A connection as the origin uses it; one thread at a time, but for `abort`.

    Args:
        sock: An accepted, blocking socket.
        context: For TLS; `handshake` does it.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext | None) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._context = context
        self._received = b""
        self._resets = False
        self._aborted = False
        # SSLSocket has sendmsg only to refuse it.
        self._gathers = context is None and hasattr(sock, "sendmsg")

    @property
    def plain_fileno(self) -> int | None:
        """The descriptor for sendfile, None when bytes must be encrypted first."""
        return None if self._context is not None else self._sock.fileno()

    def handshake(self) -> None:
        """Do the TLS handshake, if any."""
        if self._context is not None:
            self._sock = self._context.wrap_socket(
                self._sock, server_side=True, do_handshake_on_connect=False
            )
            if self._aborted:  # while wrap_socket had the descriptor
                raise ConnectionAbortedError
            self._sock.do_handshake()

    def read_head(self) -> bytes | None:
        """
        Read up to the next empty line.

        Returns:
            What was before it; None when the peer is gone or sends no end.
        """
        while (end := self._received.find(b"\r\n\r\n")) < 0:
            data = self._sock.recv(65536)
            if not data or len(self._received) > _HEAD_MAX_BYTES:
                return None
            self._received += data
        head, self._received = self._received[:end], self._received[end + 4 :]
        return head

    def send(self, buffers: Sequence[memoryview | bytes]) -> int:
        """
        Send some or all of the buffers.

        Args:
            buffers: Together not empty.

        Returns:
            How many bytes the system took.
        """
        if self._gathers:
            return self._sock.sendmsg(buffers)
        first = next(buffer for buffer in buffers if len(buffer))
        return self._sock.send(first)

    def wait_for_end(self) -> None:
        """Wait until the peer has gone, or `abort` is called."""
        with suppress(OSError):
            while self._sock.recv(65536):
                pass

    def set_reset(self) -> None:
        """Let `close` reset the connection."""
        self._resets = True
        self._sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )

    def end(self) -> None:
        """End the sending direction, without TLS's closing message."""
        with suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_WR)

    def end_orderly(self) -> None:
        """End the sending direction as an honest server does."""
        if self._context is not None:
            with suppress(OSError):
                self._sock.settimeout(_LINGER_SECONDS)
                self._sock.unwrap()  # type: ignore[attr-defined]
        self.end()

    def linger(self) -> None:
        """Give the peer a moment to end its direction, unless there is a reset."""
        if not self._resets:
            with suppress(OSError):
                self._sock.settimeout(_LINGER_SECONDS)
                self.wait_for_end()

    def abort(self) -> None:
        """Wake whoever uses the connection, from another thread, and end it."""
        self._aborted = True
        # Not SSLSocket.shutdown, which takes the session away from its user.
        with suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()
