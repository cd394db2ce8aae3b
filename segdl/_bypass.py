"""Which lanes read their sockets themselves, past libcurl (see `_exchange`).

    answered ──> ready ──(libcurl holds no byte of it)──> easy handle paused,
                                                          socket watched for the lane

The connection can't be used again, so it pays only while much comes: then every lane
with a plain answer, and much left, does so from its answer on.
"""

from __future__ import annotations

import selectors
from collections.abc import Iterable

from segdl._exchange import Exchange

# From here on, over all lanes of a worker.
_FROM_BYTES_PER_SECOND = 128 << 20

# curl.h; pycurl is imported by `_transfer` alone.
_PAUSE_RECV = 1
_ACTIVESOCKET = 0x500000 + 44


class Bypass:
    """
    The lanes of one worker that do without libcurl.

    Args:
        selector: Gets their sockets, each with its lane as data.
    """

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._is_fast = False
        self._ready: set[Exchange] = set()

    def judge(self, lanes: Iterable[Exchange], bytes_per_second: float) -> None:
        """Take the rate at which all lanes together received lately."""
        self._is_fast = bytes_per_second >= _FROM_BYTES_PER_SECOND
        if self._is_fast:
            self._ready.update(lanes)

    def answered(self, lane: Exchange) -> None:
        """Take a lane whose answer passed every check."""
        if self._is_fast:
            self._ready.add(lane)

    def begin(self) -> None:
        """Have lanes begin that are worth it; between two calls of libcurl."""
        if not self._ready:
            return
        # For one that waits libcurl still holds bytes.
        for lane in [lane for lane in self._ready if not lane.waiting]:
            self._ready.discard(lane)
            if lane.can_bypass:
                self._begin(lane)

    def hold(self, lane: Exchange) -> None:
        """Watch a lane's socket no more, until `go_on`."""
        if lane.socket is not None:
            self._selector.unregister(lane.socket)

    def go_on(self, lane: Exchange) -> None:
        """Watch a lane's socket again."""
        if lane.socket is not None:
            self._selector.register(lane.socket, selectors.EVENT_READ, lane)

    def end(self, lane: Exchange) -> None:
        """Forget a lane, before libcurl closes its socket."""
        self._ready.discard(lane)
        if lane.socket is not None and lane.socket in self._selector.get_map():
            self._selector.unregister(lane.socket)
        lane.socket = None

    def _begin(self, lane: Exchange) -> None:
        fd = lane.curl.getinfo(_ACTIVESOCKET)
        if fd < 0:
            return
        # Paused: libcurl watches neither the socket nor the speed any more. All that it
        # has read was handed over before its call returned.
        lane.curl.pause(_PAUSE_RECV)
        if fd in self._selector.get_map():
            self._selector.unregister(fd)
        lane.socket = fd
        self.go_on(lane)
