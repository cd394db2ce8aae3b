"""The sockets of requests that may reach public addresses alone.

libcurl ── OPENSOCKETFUNCTION ──> open_public ──> a socket, or None
        ── SOCKOPTFUNCTION ─────> close_in_programs
"""

from __future__ import annotations

import os
import socket
from typing import Any

from segdl._addresses import is_public
from segdl._exchange import Exchange

_OK = 0  # CURL_SOCKOPT_OK


def open_public(lane: Exchange, to: Any) -> _Lent | None:
    """
    Make the socket for a connection that libcurl is about to open, or refuse it.

    Args:
        lane: Notes what it was.
        to: As pycurl's OPENSOCKETFUNCTION gives it.

    Returns:
        None when it is refused, or can't be made.
    """
    address = str(to.addr[0]) if to.family in (socket.AF_INET, socket.AF_INET6) else ""
    if not is_public(address):
        lane.refused = address or "a local socket"
        return None
    lane.allowed = True
    try:
        return _Lent(socket.socket(to.family, to.socktype, to.protocol))
    except OSError:
        return None  # libcurl tells it as a failed connection


def close_in_programs(fd: int, _purpose: int) -> int:
    """Keep a socket out of programs that are started: pycurl made it by dup."""
    os.set_inheritable(fd, False)
    return _OK


class _Lent:
    """A socket of which pycurl takes a duplicate, and which is closed after that."""

    def __init__(self, made: Any) -> None:
        self._made = made

    def fileno(self) -> int:
        return int(self._made.fileno())

    def __del__(self) -> None:
        self._made.close()
