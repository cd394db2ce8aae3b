"""Which bytes of a file are done, in flight, and missing; no I/O, no clock.

        missing runs ──take()──> segment of a lane ──record()──> done
             ^                        │    │
             └──── release() ─────────┘    │   (a lane ended: its rest is missing again)
             └──── shrink() ───────────────┘   (a lane was split: its tail is missing)

Every byte of `[0, size)` is in exactly one of the three states. Memory grows with the
number of runs and lanes, not with the size of the file: a plan for 1 TiB that has just
begun is one run.

*piece*: the accounting unit; its checksum stands in the manifest. First borders are
drawn between pieces, so that a whole segment is whole pieces. *segment*: the run one
request is to fetch. *lane*: the slot that fetches it, here only a number.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from segdl._ranges import ByteRange

MIB = 1 << 20

MIN_PIECE_BYTES = MIB
MAX_PIECE_BYTES = 16 * MIB
# At most about a thousand pieces up to 16 GiB: a kill costs at most one piece a lane,
# and a 4 GiB file at 2 GB/s makes 500 records a second.
PIECES_WANTED = 1024

# A lane is not split when each half would be shorter than this, or when it will be done
# in less than a new connection needs to come up.
MIN_SPLIT_BYTES = 64 * 1024
MIN_SPLIT_SECONDS = 0.25
# One whose speed is not known yet is split only when there is plenty.
MIN_BLIND_SPLIT_BYTES = 2 * MIB


def piece_size(size: int) -> int:
    """
    Choose the piece size for a file.

    Args:
        size: Complete length in bytes.

    Returns:
        A power of two from 1 MiB to 16 MiB, in bytes.
    """
    piece = MIN_PIECE_BYTES
    while piece < MAX_PIECE_BYTES and piece * PIECES_WANTED < size:
        piece *= 2
    return piece


@dataclass(slots=True)
class Segment:
    """
    What one lane is fetching.

    Attributes:
        begin: First byte that is not recorded as done yet.
        end: One past the last byte it is to fetch.
        position: One past the last byte received; never below `begin`.
        bytes_per_second: What the lane delivers, 0.0 while unknown.
    """

    begin: int
    end: int
    position: int
    bytes_per_second: float = 0.0

    @property
    def remaining_bytes(self) -> int:
        return self.end - self.position


class Plan:
    """
    The account of one file.

    Args:
        size: Complete length in bytes, 0 or more.
        piece: Piece size in bytes.
        done: Byte ranges that are finished already; they must not overlap.

    Raises:
        ValueError: `done` overlaps itself or leaves `[0, size)`.
    """

    def __init__(self, size: int, piece: int, done: Iterable[ByteRange] = ()) -> None:
        self.size = size
        self.piece = piece
        self.segments: dict[int, Segment] = {}
        self.done_bytes = 0
        # Sorted, disjoint, never adjacent: (begin, end).
        self._missing: list[tuple[int, int]] = []
        # Finished runs by their begin; kept merged so that the prefix is known.
        self._done: list[tuple[int, int]] = []
        position = 0
        for run in sorted(done, key=lambda r: r.begin):
            if run.begin < position or run.end > size:
                raise ValueError(
                    f"done range {run.begin}-{run.end} overlaps another, or leaves "
                    f"the file of {size} bytes"
                )
            if run.begin > position or not self._done:
                self._done.append((run.begin, run.end))
            else:
                self._done[-1] = (self._done[-1][0], run.end)
            if run.begin > position:
                self._missing.append((position, run.begin))
            self.done_bytes += run.length
            position = run.end
        if position < size:
            self._missing.append((position, size))

    @property
    def finished(self) -> bool:
        """Whether every byte is done."""
        return self.done_bytes == self.size

    @property
    def missing_bytes(self) -> int:
        """Bytes that no lane has been given; asked for at every fill, so not summed."""
        given = sum(segment.end - segment.begin for segment in self.segments.values())
        return self.size - self.done_bytes - given

    @property
    def received_bytes(self) -> int:
        """Bytes done, and those received that no record covers yet."""
        return self.done_bytes + sum(
            segment.position - segment.begin for segment in self.segments.values()
        )

    @property
    def prefix(self) -> int:
        """How many bytes from the beginning are done without a gap."""
        if self._done and self._done[0][0] == 0:
            return self._done[0][1]
        return 0

    def missing(self) -> Iterator[ByteRange]:
        """Give the runs that no lane has been given, in order."""
        for begin, end in self._missing:
            yield ByteRange(begin, end)

    def done(self) -> Iterator[ByteRange]:
        """Give the finished runs, merged, in order."""
        for begin, end in self._done:
            yield ByteRange(begin, end)

    def divide(self, lanes: int) -> None:
        """
        Cut what is missing into at least `lanes` shares of about the same length.

        This is the static first plan: each lane then takes a share. Cuts lie between
        pieces, so a share is no shorter than a piece, and there may be fewer shares.
        """
        share = max(self.piece, -(-self.missing_bytes // max(1, lanes)))
        cut: list[tuple[int, int]] = []
        for begin, end in self._missing:
            parts = max(1, round((end - begin) / share))
            borders = [
                self._between(begin, end, begin + (end - begin) * part // parts)
                for part in range(1, parts)
            ]
            starts = [begin, *sorted(set(borders) - {begin})]
            cut += list(zip(starts, [*starts[1:], end], strict=True))
        self._missing = cut

    def take(self, lane: int, limit: int | None = None) -> Segment | None:
        """
        Give a lane the first missing run.

        Args:
            lane: A number no running lane has.
            limit: The most bytes to give; None for the whole run.

        Returns:
            The lane's segment, or None when nothing is missing.
        """
        if not self._missing:
            return None
        begin, end = self._missing.pop(0)
        if limit is not None and end - begin > limit:
            self._missing.insert(0, (begin + limit, end))
            end = begin + limit
        segment = Segment(begin, end, begin)
        self.segments[lane] = segment
        return segment

    def advance(self, lane: int, position: int) -> None:
        """Note how far a lane has come."""
        segment = self.segments[lane]
        segment.position = min(max(segment.position, position), segment.end)

    def record(self, lane: int, offset: int, length: int) -> None:
        """
        Count a piece, or the part of one, that a lane has written.

        Raises:
            ValueError: The bytes are not the lane's next ones.
        """
        segment = self.segments[lane]
        end = offset + length
        if offset != segment.begin or length <= 0 or end > segment.end:
            raise ValueError(
                f"lane {lane} recorded bytes {offset}-{end}, but its segment is "
                f"{segment.begin}-{segment.end}"
            )
        segment.begin = end
        segment.position = max(segment.position, end)
        self.done_bytes += length
        _add_run(self._done, offset, end)

    def shrink(self, lane: int, end: int) -> None:
        """Cut a lane's segment at `end`; what lies behind is missing again."""
        segment = self.segments[lane]
        if not segment.begin <= end <= segment.end:
            raise ValueError(f"{end} is outside of the segment of lane {lane}")
        if end < segment.end:
            self._give_back(end, segment.end)
            segment.end = end
            segment.position = min(segment.position, end)

    def release(self, lane: int) -> None:
        """End a lane; what it was given and has not recorded is missing again."""
        segment = self.segments.pop(lane)
        if segment.begin < segment.end:
            self._give_back(segment.begin, segment.end)

    def forget(self, ranges: Iterable[tuple[int, int]]) -> None:
        """
        Turn finished bytes that proved wrong into missing ones; O(n log n) for all.

        Args:
            ranges: (offset, length) of each; they must not overlap.
        """
        bad = deque(sorted((offset, offset + length) for offset, length in ranges))
        kept: list[tuple[int, int]] = []
        lost: list[tuple[int, int]] = []
        for begin, end in self._done:
            position = begin
            while bad and bad[0][0] < end:
                bad_begin, bad_end = max(bad[0][0], position), min(bad[0][1], end)
                if bad_begin < bad_end:
                    if position < bad_begin:
                        kept.append((position, bad_begin))
                    lost.append((bad_begin, bad_end))
                    position = bad_end
                if bad[0][1] > end:
                    break  # its rest may be in the next run
                bad.popleft()
            if position < end:
                kept.append((position, end))
        self._done = kept
        self.done_bytes -= sum(end - begin for begin, end in lost)
        self._missing = _joined(self._missing, lost)

    def splittable(self, busy: Iterable[int] = ()) -> int | None:
        """
        Choose the lane whose rest a free lane should share.

        That is the one which would finish last: by time where speeds are known.

        Args:
            busy: Lanes that must not be chosen, such as those being split already.

        Returns:
            The lane's number, or None when no lane has enough left to share.
        """
        excluded = set(busy)
        speeds = [s.bytes_per_second for s in self.segments.values()]
        typical = max(speeds, default=0.0) or 1.0
        best: tuple[float, int] | None = None
        for lane, segment in self.segments.items():
            if lane in excluded or not _worth_splitting(segment):
                continue
            # A lane of unknown speed counts as a fast one: it has only just begun.
            seconds = segment.remaining_bytes / (segment.bytes_per_second or typical)
            if best is None or seconds > best[0]:
                best = (seconds, lane)
        return None if best is None else best[1]

    def _between(self, begin: int, end: int, wanted: int) -> int:
        """Move a cut to the border of a piece, inside of `[begin, end)`."""
        border = round(wanted / self.piece) * self.piece
        return border if begin < border < end else begin

    def _give_back(self, begin: int, end: int) -> None:
        _add_run(self._missing, begin, end)


def _worth_splitting(segment: Segment) -> bool:
    rest, speed = segment.remaining_bytes, segment.bytes_per_second
    if not speed:
        return rest >= 2 * MIN_BLIND_SPLIT_BYTES
    return rest >= 2 * MIN_SPLIT_BYTES and rest / speed >= MIN_SPLIT_SECONDS


def _joined(
    runs: list[tuple[int, int]], more: list[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Merge sorted lists of runs; those of `more` are joined with their neighbours."""
    joined: list[tuple[int, int]] = []
    last_is_new = False
    new = set(more)
    for run in sorted(runs + more):
        is_new = run in new
        if joined and joined[-1][1] == run[0] and (is_new or last_is_new):
            joined[-1] = (joined[-1][0], run[1])
        else:
            joined.append(run)
        last_is_new = is_new
    return joined


def _add_run(runs: list[tuple[int, int]], begin: int, end: int) -> None:
    """Put a run into a sorted list of disjoint runs, joined with its neighbours."""
    index = bisect_left(runs, (begin, end))
    if index < len(runs) and runs[index][0] == end:
        end = runs.pop(index)[1]
    if index > 0 and runs[index - 1][1] == begin:
        begin = runs.pop(index - 1)[0]
    insort(runs, (begin, end))
