"""From body bytes to gathered writes and finished pieces: the hot path of a lane.

    libcurl, 16 KiB a call ──write()──> 1 MiB page-aligned buffer ──flush()──> xxh3
                                                                       │
           record of each piece that is in the file <── on_done ── WriteBehind

libcurl hands the body over in calls of at most 16 KiB, whatever its receive buffer is
(CURL_MAX_WRITE_SIZE). One pwrite for each cost 14.6 s of CPU for 4 GiB on ext4,
gathered ones 1.3 - 2.8 s. A flush ends where the absolute offset is a multiple of
the buffer's size, so that all writes but the first and the last of a segment are
whole, aligned blocks, as direct I/O wants them. The checksum is taken before the write,
while the block is in the cache of the processor that gathered it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import xxhash

from segdl._fs import ALIGNMENT, PartWriter
from segdl._writebehind import BLOCK_BYTES, Block, WriteBehind

_NO_END = 2**63

# Borders drawn by a split: aligned for direct I/O, and no tiny rests.
_SPLIT_ALIGN_BYTES = 64 * 1024


class Sink:
    """
    Where one lane's bytes go.

    Args:
        writer: The part file.
        begin: Offset of the first byte.
        end: One past the last byte wanted; None for all that comes.
        piece: Piece size in bytes, a multiple of `BLOCK_BYTES`.
        behind: Writes the blocks, and tells the sink of them.
        on_piece: Called with (offset, length, xxh3) when a piece is in the file.

    Attributes:
        buffer: The one being filled; to be given back to `behind` after `finish`.
        end: One past the last byte wanted; `split` lowers it.
        full: Whether all that is wanted has come, though it may not be written yet.
        written: One past the last byte in the file, as far as `behind` has told.

    Raises:
        StorageError: From `write`, `flush` and `finish`, when the file can't be
            written; maybe some calls later.
    """

    __slots__ = (
        "_behind",
        "_error",
        "_fill",
        "_hash",
        "_limit",
        "_on_piece",
        "_pending",
        "_piece",
        "_piece_begin",
        "_start",
        "_submitted_pieces",
        "_writer",
        "buffer",
        "end",
        "full",
        "written",
    )

    def __init__(
        self,
        writer: PartWriter,
        begin: int,
        end: int | None,
        *,
        piece: int,
        behind: WriteBehind,
        on_piece: Callable[[int, int, str], None],
    ) -> None:
        self.end = _NO_END if end is None else end
        self.full = begin >= self.end  # a plain attribute: it is read at every call
        self.written = begin
        self._writer = writer
        self._piece = piece
        self._behind = behind
        self.buffer = behind.take_buffer()
        self._on_piece = on_piece
        self._start = begin  # offset that buffer[0] has in the file
        self._fill = 0
        self._piece_begin = begin
        self._hash = xxhash.xxh3_64()
        # (offset, length, xxh3) of pieces whose last block is on its way.
        self._submitted_pieces: deque[tuple[int, int, str]] = deque()
        self._pending = 0
        self._error: Exception | None = None
        self._limit = self._room()

    @property
    def pending(self) -> bool:
        """Whether something is on its way to the file."""
        return self._pending > 0

    @property
    def position(self) -> int:
        """One past the last byte taken."""
        return self._start + self._fill

    def room(self) -> memoryview:
        """Give the place for the next bytes, which whoever fills it `took`."""
        return self.buffer[self._fill : self._limit]

    def took(self, count: int) -> None:
        """Count bytes that were put into the first part of `room`."""
        self._fill += count
        if self._fill == self._limit:
            self._flush(self._fill)

    def write(self, data: memoryview) -> int:
        """
        Take bytes, up to the end of the segment.

        Returns:
            How many were taken; fewer than given means that the segment is full.
        """
        fill = self._fill
        filled = fill + len(data)
        if filled < self._limit:
            self.buffer[fill:filled] = data
            self._fill = filled
            return len(data)
        return self._write_across(data)

    def split(self, kept: float) -> int:
        """
        Give up the second part of what is left.

        Args:
            kept: The share of the first part, 0.0 - 1.0.

        Returns:
            The end after it; the old one when too little is left.
        """
        position = self.position
        if self.end == _NO_END:
            return self.end
        middle = position + int((self.end - position) * kept)
        for align in (BLOCK_BYTES, _SPLIT_ALIGN_BYTES):
            border = -(-middle // align) * align
            if position < border < self.end:
                self.end = border
                self._limit = min(self._limit, border - self._start)
                break
        return self.end

    def flush(self) -> None:
        """
        Send the whole blocks of the buffer on their way, so that a slow lane's move.

        The rest of a block stays: one that is written twice, and the second time lost
        by the disk, would be no hole, by which a resume sees what was lost.
        """
        self._flush(max(0, (self.position & -ALIGNMENT) - self._start))

    def finish(self) -> int:
        """
        Wait until all is in the file, and record the last piece, whole or not.

        Nothing is on its way afterwards, also when this fails.

        Returns:
            One past the last byte in the file.
        """
        try:
            self._flush(self._fill)
        finally:
            while self._pending:
                self._behind.wait()
        if self._error is not None:
            raise self._error
        if self._start > self._piece_begin:
            self._end_piece()
            self._record()
        return self.written

    def _write_across(self, data: memoryview) -> int:
        """Take bytes that reach the end of the buffer's room."""
        taken = 0
        wanted = min(len(data), self.end - self.position)
        while taken < wanted:
            fill = self._fill
            step = min(wanted - taken, self._limit - fill)
            self.buffer[fill : fill + step] = data[taken : taken + step]
            self._fill = fill + step
            taken += step
            if self._fill == self._limit:
                self._flush(self._fill)
        return taken

    def _flush(self, count: int) -> None:
        if self._error is not None:
            raise self._error
        if not count:
            return
        # First, as it may fail: a buffer on its way must not be filled on.
        following = self._behind.take_buffer()
        block = Block(self._writer, self.buffer, self._start, count, self._on_done)
        self._hash.update(self.buffer[:count])
        rest = self._fill - count
        if rest:
            following[:rest] = self.buffer[count : self._fill]
        self._start += count
        self._fill = rest
        self.full = self._start == self.end
        if self.full or self._start % self._piece == 0:
            self._end_piece()
        self._limit = self._room()
        self._behind.submit(block)
        self._pending += 1
        self.buffer = following

    def _end_piece(self) -> None:
        begin, self._piece_begin = self._piece_begin, self._start
        piece = (begin, self._start - begin, self._hash.hexdigest())
        self._submitted_pieces.append(piece)
        self._hash.reset()

    def _on_done(self, block: Block) -> None:
        """Count a block, in the order in which they were sent on their way."""
        self._pending -= 1
        if self._error is None:
            self._error = block.error
        # What follows a hole that a failed write left is not counted.
        if self._error is None:
            self.written = block.offset + block.length
            self._record()

    def _record(self) -> None:
        """Tell of the pieces that are in the file."""
        pieces = self._submitted_pieces
        while pieces and pieces[0][0] + pieces[0][1] <= self.written:
            self._on_piece(*pieces.popleft())

    def _room(self) -> int:
        """How many bytes the buffer takes before the next flush."""
        border = (self._start // BLOCK_BYTES + 1) * BLOCK_BYTES
        return min(border, self.end) - self._start
