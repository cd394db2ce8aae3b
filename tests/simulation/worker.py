"""What a worker does with the parent's messages, and what it says: no more than that.

    Fetch ─> request ─┬─ 503 ──────────────────────────────> Ended(failure)
                      └─ Answered ─> (held until Accept) ─> body ─> Pieces, Ended
    every 0.1 s ─> Progress, the first one 40 ms after Accept; stalls of 30 s ─> Ended

It follows segdl/_transfer.py, _exchange.py and _sink.py. Blocks of 1 MiB are written
when they are full. A piece that is in the file is told of with the next report, not
after 20 ms: nothing follows from it. A connection is used again when the lane had all
it had asked for; one that `Split` or `Stop` ended earlier is closed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from segdl._headers import EntityTag, Validator
from segdl._messages import (
    Accept,
    Answered,
    Ended,
    Fetch,
    Kept,
    Message,
    Pieces,
    Progress,
    Shrunk,
    Split,
    Stop,
    failure_to_json,
)
from segdl.errors import IncompleteTransfer, SegdlError, StallError, StatusError
from simulation.clock import Clock
from simulation.network import Connection, Ending, Network

VALIDATOR = Validator(etag=EntityTag("v1", weak=False))
TIMEOUT_SECONDS = 30.0

_BLOCK_BYTES = 1 << 20
_SPLIT_ALIGN_BYTES = 64 * 1024
_ALIGN_BYTES = 4096
_SLOW_TICKS = 5
_PROGRESS_SECONDS = 0.1
_FIRST_PROGRESS_SECONDS = 0.04
_LOW_SPEED_BYTES_PER_SECOND = 512
_MAX_IDLE_SECONDS = 118.0
_SUM = "0" * 16


@dataclass(slots=True, eq=False)
class Lane:
    """
    A lane, as its worker sees it.

    Attributes:
        number: Its number.
        begin: First byte.
        end: One past the last byte wanted.
        asked: One past the last byte asked for.
        held: Whether it waits for `Accept`.
        keep: Whether it receives meanwhile.
        connection: The one its request is on.
        piece: Piece size in bytes, 0 while it may not write.
        recorded: One past the last byte that a record covers.
        written: One past the last byte in the file.
        receiving: Whether its body has begun.
        whole: Whether its body is over, while it was held.
    """

    number: int
    begin: int
    end: int
    asked: int
    held: bool
    keep: bool
    connection: Connection
    piece: int
    recorded: int
    written: int
    receiving: bool = False
    whole: bool = False
    reported: tuple[int, int] = (-1, -1)
    unwritten_ticks: int = 0
    heard: int = 0
    quiet_seconds: float = 0.0


class Worker:
    """
    All lanes of one worker.

    Args:
        clock: The time.
        network: The server.
        emit: Called with each message for the parent.

    Attributes:
        requests: How many were sent.
        received_bytes: Body bytes of all lanes that have ended.
    """

    def __init__(
        self, clock: Clock, network: Network, emit: Callable[[Message], None]
    ) -> None:
        self.requests = 0
        self.received_bytes = 0
        self._clock = clock
        self._network = network
        self._emit = emit
        self._lanes: dict[int, Lane] = {}
        self._idle: list[tuple[float, Connection]] = []
        self._silent_since = float("-inf")
        self._reports = 0  # a number for the one that is due
        self._reported_at = clock.now
        self._handlers: dict[type[Message], Callable[[Any], None]] = {
            Fetch: self._fetch,
            Accept: self._accept,
            Split: self._split,
            Stop: self._stop,
        }

    def take(self, message: Message) -> None:
        """Take one of the parent's messages."""
        self._handlers[type(message)](message)

    # --- commands ---------------------------------------------------------------------

    def _fetch(self, fetch: Fetch) -> None:
        if not self._lanes:
            self._report_in(_PROGRESS_SECONDS)
        connection = self._idle_connection()
        trip = self._network.server.round_trip_seconds
        seconds = trip / 2
        if connection is None:
            connection = self._network.open()
            seconds += self._network.server.handshake_seconds
        asked = min(fetch.end, self._network.server.size)
        lane = Lane(
            fetch.lane,
            fetch.begin,
            asked,
            asked,
            fetch.hold,
            fetch.keep,
            connection,
            0 if fetch.part is None else fetch.part.piece,
            recorded=fetch.begin,
            written=fetch.begin,
        )
        self.requests += 1
        self._lanes[lane.number] = lane
        self._clock.later(seconds, lambda: self._arrived(lane))

    def _accept(self, accept: Accept) -> None:
        lane = self._lanes.get(accept.lane)
        if lane is None:
            return
        lane.held = False
        lane.piece = accept.part.piece
        if accept.end is not None:
            lane.end = min(lane.end, accept.end)
        if lane.keep:
            lane.recorded = lane.written = accept.begin
            self._end(lane, keep=True)
            return
        self._report_in(_FIRST_PROGRESS_SECONDS)
        self._receive(lane)

    def _split(self, split: Split) -> None:
        lane = self._lanes.get(split.lane)
        if lane is None or not lane.piece:
            return
        position = self._position(lane)
        kept = int((lane.end - position) * split.kept)
        border = _border(position, lane.end, kept)
        if border is not None:
            self._cut(lane, border)
        self._emit(Shrunk(lane.number, lane.end))

    def _stop(self, stop: Stop) -> None:
        lane = self._lanes.get(stop.lane)
        if lane is not None:
            self._end(lane, keep=lane.whole)

    # --- the exchange -----------------------------------------------------------------

    def _arrived(self, lane: Lane) -> None:
        """Have the server decide about a request."""
        if lane.number not in self._lanes:
            return
        admitted = self._network.admit(lane.connection)
        half = self._network.server.round_trip_seconds / 2
        self._clock.later(half, lambda: self._answered(lane, admitted))

    def _answered(self, lane: Lane, admitted: bool) -> None:
        if lane.number not in self._lanes:
            return
        if not admitted:
            seconds = self._network.server.retry_after_seconds
            error = StatusError("the origin answered 503", status=503)
            error.retry_after_seconds = seconds
            self._end(lane, error)
            return
        size, validator = self._network.server.size, VALIDATOR.to_json()
        url = "https://example.org/a.bin"
        self._emit(
            Answered(lane.number, url, True, size, validator, None, [], True, True)
        )
        if lane.keep or not lane.held:
            self._receive(lane)

    def _receive(self, lane: Lane) -> None:
        """Let the body come."""
        lane.receiving = True
        count = lane.end - lane.begin
        self._network.start(lane.connection, count, lambda how: self._over(lane, how))

    def _over(self, lane: Lane, how: Ending) -> None:
        """End a lane whose body has ended."""
        if how == "end" and lane.held:
            lane.whole = True
            self._emit(Kept(lane.number))
        elif how == "end":
            self._end(lane, keep=lane.end == lane.asked)
        else:
            self._end(lane, IncompleteTransfer("the connection was reset"))

    def _cut(self, lane: Lane, end: int) -> None:
        lane.end = end
        if lane.receiving:
            self._network.cut(lane.connection, end - lane.begin)

    def _end(
        self, lane: Lane, failure: SegdlError | None = None, *, keep: bool = False
    ) -> None:
        """Write and record what came, and tell the parent."""
        del self._lanes[lane.number]
        received = self._received(lane)
        if keep:
            self._idle.append((self._clock.now, lane.connection))
        else:
            self._network.close(lane.connection)
        self.received_bytes += received
        if not lane.held:
            lane.written = lane.begin + received
        rows = self._records(lane)
        if lane.recorded < lane.written:
            length = lane.written - lane.recorded
            rows.append((lane.number, lane.recorded, length, _SUM))
        if rows:
            self._emit(Pieces(rows))
        row = None if failure is None else failure_to_json(failure)
        self._emit(Ended(lane.number, lane.written, received, row))

    def _idle_connection(self) -> Connection | None:
        """Take a connection that may be used again; close those that may not."""
        now = self._clock.now
        silent = now - self._silent_since
        # Where one connection went silent the idle ones may be dead as well.
        limit = max(1, int(silent) - 1) if silent < _MAX_IDLE_SECONDS else silent
        while self._idle:
            since, connection = self._idle.pop()
            if now - since <= min(limit, _MAX_IDLE_SECONDS):
                return connection
            self._network.close(connection)
        return None

    def _received(self, lane: Lane) -> int:
        return self._network.received(lane.connection) if lane.receiving else 0

    def _position(self, lane: Lane) -> int:
        return lane.begin + self._received(lane)

    # --- reports ----------------------------------------------------------------------

    def _report_in(self, seconds: float) -> None:
        self._reports += 1
        number = self._reports
        self._clock.later(seconds, lambda: self._report(number))

    def _report(self, number: int) -> None:
        """Tell how far the lanes are."""
        if number != self._reports or not self._lanes:
            return
        now = self._clock.now
        seconds = min(now - self._reported_at, 2 * _PROGRESS_SECONDS)
        self._reported_at = now
        rows, records = [], []
        for lane in list(self._lanes.values()):
            received = self._received(lane)
            if self._stalled(lane, received, seconds):
                continue
            if lane.piece and not lane.held:
                self._write(lane, lane.begin + received)
                records += self._records(lane)
            state = (lane.written, received)
            if state != lane.reported:
                lane.reported = state
                rows.append((lane.number, *state))
        if records:
            self._emit(Pieces(records))
        if rows:
            self._emit(Progress(rows))
        self._report_in(_PROGRESS_SECONDS)

    def _stalled(self, lane: Lane, received: int, seconds: float) -> bool:
        """End a lane that brought next to nothing for 30 s."""
        if not received:
            return False
        if received - lane.heard >= _LOW_SPEED_BYTES_PER_SECOND * TIMEOUT_SECONDS:
            lane.heard, lane.quiet_seconds = received, 0.0
            return False
        lane.quiet_seconds += seconds
        if lane.quiet_seconds < TIMEOUT_SECONDS:
            return False
        self._silent_since = self._clock.now - TIMEOUT_SECONDS
        self._end(lane, StallError("next to nothing came for 30 s"))
        return True

    def _write(self, lane: Lane, position: int) -> None:
        """Write whole blocks; part of one where none was full for some reports."""
        lane.written = max(lane.written, position // _BLOCK_BYTES * _BLOCK_BYTES)
        if lane.written != lane.reported[0]:
            lane.unwritten_ticks = 0
            return
        lane.unwritten_ticks += 1
        if lane.unwritten_ticks >= _SLOW_TICKS:
            lane.unwritten_ticks = 0
            lane.written = max(lane.written, position & -_ALIGN_BYTES)

    def _records(self, lane: Lane) -> list[tuple[int, int, int, str]]:
        """Give the records of the pieces that are whole by now."""
        rows: list[tuple[int, int, int, str]] = []
        while lane.piece:
            border = min((lane.recorded // lane.piece + 1) * lane.piece, lane.end)
            if border > lane.written or border == lane.recorded:
                break
            length = border - lane.recorded
            rows.append((lane.number, lane.recorded, length, _SUM))
            lane.recorded = border
        return rows


def _border(position: int, end: int, kept: int) -> int | None:
    """Find where to cut, so that about `kept` bytes stay; None where it can't be."""
    for align in (_BLOCK_BYTES, _SPLIT_ALIGN_BYTES):
        border = -(-(position + kept) // align) * align
        if position < border < end:
            return border
    return None
