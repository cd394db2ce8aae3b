"""From body bytes to gathered writes and finished pieces: the hot path of a lane.

    libcurl, 16 KiB a call ──write()──> 1 MiB page-aligned buffer ──flush()──> pwrite
                                              │                        └──> xxh3
                                              └── at the end of a piece ──> record

libcurl hands the body over in calls of at most 16 KiB, whatever its receive buffer is
(CURL_MAX_WRITE_SIZE). One pwrite for each cost 14.6 s of CPU for 4 GiB on ext4,
gathered ones 1.3 - 2.8 s. A flush ends where the absolute offset is a multiple of
the buffer's size, so that all writes but the first and the last of a segment are
whole, aligned blocks, as direct I/O wants them.
"""

from __future__ import annotations

from collections.abc import Callable

import xxhash

from segdl._fs import PartWriter

BLOCK_BYTES = 1 << 20
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
        buffer: Page-aligned and `BLOCK_BYTES` long; the sink's own until `finish`.
        on_piece: Called with (offset, length, xxh3) after a piece's last write.

    Raises:
        StorageError: From `write` and `finish`, when the file can't be written.
    """

    __slots__ = (
        "_fill",
        "_hash",
        "_limit",
        "_on_piece",
        "_piece",
        "_piece_begin",
        "_start",
        "_writer",
        "buffer",
        "end",
        "full",
    )

    def __init__(
        self,
        writer: PartWriter,
        begin: int,
        end: int | None,
        *,
        piece: int,
        buffer: memoryview,
        on_piece: Callable[[int, int, str], None],
    ) -> None:
        self.end = _NO_END if end is None else end
        # All that is wanted has come: a plain attribute, for it is read at every call.
        self.full = begin >= self.end
        self._writer = writer
        self._piece = piece
        self.buffer = buffer
        self._on_piece = on_piece
        self._start = begin  # offset that buffer[0] has in the file
        self._fill = 0
        self._piece_begin = begin
        self._hash = xxhash.xxh3_64()
        self._limit = self._room()

    @property
    def position(self) -> int:
        """One past the last byte taken."""
        return self._start + self._fill

    @property
    def written(self) -> int:
        """One past the last byte that is in the file."""
        return self._start

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

    def split(self) -> int:
        """
        Give up the second half of what is left.

        Returns:
            The end after it; the old one when too little is left.
        """
        position = self.position
        if self.end == _NO_END:
            return self.end
        middle = position + (self.end - position) // 2
        for align in (BLOCK_BYTES, _SPLIT_ALIGN_BYTES):
            border = -(-middle // align) * align
            if position < border < self.end:
                self.end = border
                self._limit = min(self._limit, border - self._start)
                break
        return self.end

    def flush(self) -> None:
        """Write what the buffer holds, so that a slow lane's bytes are in the file."""
        if self._fill:
            self._flush()

    def finish(self) -> int:
        """
        Write what the buffer holds and record the piece it belongs to, whole or not.

        Returns:
            One past the last byte in the file.
        """
        self.flush()
        if self._start > self._piece_begin:
            self._record()
        return self._start

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
                self._flush()
        return taken

    def _flush(self) -> None:
        view = self.buffer[: self._fill]
        self._writer.pwrite(view, self._start)
        self._hash.update(view)
        self._start += self._fill
        self._fill = 0
        self.full = self._start == self.end
        if self.full or self._start % self._piece == 0:
            self._record()
        self._limit = self._room()

    def _record(self) -> None:
        begin, length = self._piece_begin, self._start - self._piece_begin
        self._writer.start_writeback(begin, length)
        self._on_piece(begin, length, self._hash.hexdigest())
        self._piece_begin = self._start
        self._hash.reset()

    def _room(self) -> int:
        """How many bytes the buffer takes before the next flush."""
        border = (self._start // BLOCK_BYTES + 1) * BLOCK_BYTES
        return min(border, self.end) - self._start
