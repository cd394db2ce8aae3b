"""Sending an answer: pace, framing, and the faults that happen on the way.

head ──> [run to the next event ──> event] ... ──> rest ──> end of framing
             │ a slice at a time: wait for the buckets, then send
"""

from __future__ import annotations

import os
import threading
import time
import zlib
from collections.abc import Callable, Sequence

from segdl.testing._answer import Answer, Event, render_head
from segdl.testing._files import RealFile
from segdl.testing._wire import Wire
from segdl.testing.content import BLOCK_BYTES
from segdl.testing.faults import Fault
from segdl.testing.log import Record
from segdl.testing.throttle import TokenBucket, slice_bytes

__all__ = ["Cut", "Pace", "Sender", "SharedBucket"]

_FLOOD_LINE = b"X-Flood: " + b"f" * 1012 + b"\r\n"
_FLOOD_DEFAULT_BYTES = 1 << 30
_SHORT_LINE = b"X: y\r\n"
_SHORT_DEFAULT_LINES = 100_000
_GARBAGE = b"\x00\xff\x16\x03 this is no HTTP \r\n\r\n" * 8


class Cut(Exception):
    """The connection ends here, and how it does has been arranged."""


class SharedBucket:
    """The total rate of an origin; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bucket: TokenBucket | None = None

    def take(self, rate: float, count: int) -> float:
        """
        Reserve bytes.

        Args:
            rate: Bytes per second over all connections.
            count: How many bytes.

        Returns:
            Seconds to wait before they are sent.
        """
        now = time.monotonic()
        with self._lock:
            if self._bucket is None:
                self._bucket = TokenBucket(rate, now)
            self._bucket.rate = rate
            return self._bucket.take(count, now)


class Pace:
    """
    The pace of one connection.

    Args:
        rates: Gives the rate of a connection and of all, bytes per second, as they are
            now; None for as fast as can be.
        shared: The bucket of all connections.
        stopping: Set when the origin stops.
    """

    def __init__(
        self,
        rates: Callable[[], tuple[float | None, float | None]],
        shared: SharedBucket,
        stopping: threading.Event,
    ) -> None:
        self._rates = rates
        self._shared = shared
        self._stopping = stopping
        self._bucket = TokenBucket(1.0, time.monotonic())
        self.own_rate: float | None = None

    def wait_for_slice(self, wanted: int) -> int:
        """
        Wait until some bytes may be sent.

        Args:
            wanted: How many there are to send.

        Returns:
            How many may be sent now, at least 1.
        """
        rate, total = self._rates()
        if self.own_rate is not None:
            rate = self.own_rate
        count = min(wanted, *(slice_bytes(r) for r in (rate, total) if r), BLOCK_BYTES)
        delay = 0.0
        if rate:
            self._bucket.rate = rate
            delay = self._bucket.take(count, time.monotonic())
        if total:
            delay = max(delay, self._shared.take(total, count))
        if delay:
            self.sleep(delay)
        return count

    def sleep(self, seconds: float) -> None:
        """
        Wait, or end the connection when the origin stops.

        Args:
            seconds: How long.
        """
        if self._stopping.wait(seconds):
            raise Cut


class Sender:
    """
    Sends one answer.

    Args:
        wire: The connection.
        pace: Its pace.
        record: The entry of the request; its `sent_bytes` is kept up to date.
        fire: Counts a fault as happened; False when it happened often enough.
        swap: Replaces the file from the next request on.
    """

    def __init__(
        self,
        wire: Wire,
        pace: Pace,
        record: Record,
        fire: Callable[[Fault], bool],
        swap: Callable[[Fault], None],
    ) -> None:
        self._wire = wire
        self._pace = pace
        self._record = record
        self._fire = fire
        self._swap = swap
        self._packer: zlib._Compress | None = None

    def send(self, answer: Answer, *, with_body: bool) -> None:
        """
        Send the answer.

        Args:
            answer: What was planned.
            with_body: False for HEAD.

        Raises:
            Cut: when a fault ended the connection.
            OSError: when the peer did.
        """
        record = self._record
        head = render_head(answer)
        if answer.instead is not None:
            self._instead(answer, answer.instead, head)
        else:
            record.status = answer.status
            self._raw(b"HTTP/1.1 103 Early Hints\r\n\r\n" * answer.interim + head)
        if not with_body:
            return
        if answer.located:
            record.offset = answer.begin
        if answer.gzip:
            # Level 0 stores: the content is random and this must be fast.
            self._packer = zlib.compressobj(0, zlib.DEFLATED, 31)
        self._raw(answer.prefix)
        position = answer.begin
        for event in answer.events:
            position = self._run(answer, position, event.position)
            position = self._happen(answer, event, position)
        self._run(answer, position, answer.end)
        self._finish_body(answer)

    def _instead(self, answer: Answer, fault: Fault, head: bytes) -> None:
        """Do what happens in place of the head; return only after a flood of one."""
        if fault.kind in {"hdrflood", "hdrlines", "hdrline"}:
            self._record.status = answer.status
            self._flood(head, fault)
            return
        if fault.kind == "garbage":
            self._raw(_GARBAGE)
        elif fault.kind == "http09":
            self._run(answer, answer.begin, answer.end)
        elif fault.where.header or fault.kind == "headerhang":
            self._raw(head[: len(head) // 2])
        self._cut(fault.kind)

    def _cut(self, kind: str) -> None:
        if kind == "rst":
            self._wire.set_reset()
        elif kind in {"stall", "hang", "headerhang"}:
            self._wire.wait_for_end()
        else:
            self._wire.end()
        raise Cut

    def _flood(self, head: bytes, fault: Fault) -> None:
        count = fault.number or _FLOOD_DEFAULT_BYTES
        unit, end = _FLOOD_LINE * 64, b"\r\n"
        self._raw(head[:-2])
        if fault.kind == "hdrflood":
            count += -count % len(_FLOOD_LINE)
        elif fault.kind == "hdrlines":
            count = (fault.number or _SHORT_DEFAULT_LINES) * len(_SHORT_LINE)
            unit = _SHORT_LINE * 10_000
        else:
            self._raw(b"X-Flood: ")
            unit, end = b"f" * 65536, b"\r\n\r\n"
        while count > 0:
            self._raw(unit[:count])
            count -= len(unit)
        self._raw(end)

    def _run(self, answer: Answer, position: int, stop: int) -> int:
        """Send the body up to an offset and give that offset."""
        source = answer.source
        fileno = self._wire.plain_fileno
        whole = not answer.chunked and self._packer is None and hasattr(os, "sendfile")
        while position < stop:
            # A slice ends where a block does: two buffers, no copy.
            edge = BLOCK_BYTES - position % BLOCK_BYTES
            count = self._pace.wait_for_slice(min(stop - position, edge))
            if (
                whole
                and fileno is not None
                and isinstance(source, RealFile)
                and position < source.size
            ):
                count = self._send_file(source, fileno, position, count)
            else:
                views = source.buffers(position, position + count)
                self._payload(views, chunked=answer.chunked)
            position += count
        return position

    def _happen(self, answer: Answer, event: Event, position: int) -> int:
        """Let an event happen unless it has often enough; give the offset after it."""
        fault = event.fault
        if not self._fire(fault):
            return position
        if fault.kind == "slow":
            self._pace.own_rate = float(fault.number or 1)
        elif fault.kind in {"swap", "swapsame"}:
            self._swap(fault)
        elif fault.kind == "corrupt":
            if position < answer.end:
                byte = b"".join(answer.source.buffers(position, position + 1))
                self._payload([bytes([byte[0] ^ 0x10])], chunked=answer.chunked)
                position += 1
        elif fault.kind == "chunkbad":
            self._raw(b"not a size\r\n")
            self._cut("fin")
        else:
            self._cut(fault.kind)
        return position

    def _finish_body(self, answer: Answer) -> None:
        if self._packer is not None:
            self._chunk([self._packer.flush()], chunked=answer.chunked)
        self._raw(answer.suffix)
        if answer.chunked:
            self._raw(b"0\r\n\r\n")

    def _payload(self, views: Sequence[memoryview | bytes], *, chunked: bool) -> None:
        if self._packer is None:
            self._chunk(views, chunked=chunked)
            return
        packed = b"".join(self._packer.compress(view) for view in views)
        if packed:  # an empty chunk would end the body
            self._chunk([packed], chunked=chunked)

    def _chunk(self, views: Sequence[memoryview | bytes], *, chunked: bool) -> None:
        """Send payload in its framing, counting it before it leaves."""
        size = sum(map(len, views))
        lead = b"%x\r\n" % size if chunked else b""
        framed = [lead, *views, b"\r\n"] if chunked else views
        before = self._record.sent_bytes
        self._record.sent_bytes = before + size
        left = [memoryview(view) for view in framed if len(view)]
        try:
            self._drain(left)
        except OSError:
            unsent = sum(map(len, left)) - (2 if chunked else 0)
            self._record.sent_bytes = before + max(0, min(size, size - unsent))
            raise

    def _send_file(self, file: RealFile, fileno: int, begin: int, count: int) -> int:
        """Send bytes of a real file, counted likewise, and give how many were sent."""
        before = self._record.sent_bytes
        self._record.sent_bytes = before + count
        sent = 0
        try:
            sent = file.send_to(fileno, begin, count)
        finally:
            self._record.sent_bytes = before + sent
        return sent

    def _drain(self, left: list[memoryview]) -> None:
        """Send all buffers, taking from the list what has been sent."""
        while left:
            count = self._wire.send(left)
            while left and count >= len(left[0]):
                count -= len(left.pop(0))
            if count:
                left[0] = left[0][count:]

    def _raw(self, data: bytes) -> None:
        if data:
            self._drain([memoryview(data)])
