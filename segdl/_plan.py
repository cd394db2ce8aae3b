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

# What a lane gets at once of a file that is hashed as it grows.
HASHED_SECONDS = 0.25
MIN_HASHED_BYTES = 16 * MIB
MAX_HASHED_BYTES = 256 * MIB

# A lane is not split when each half would be shorter than this, or when it will be done
# in less than a new connection needs to come up.
MIN_SPLIT_BYTES = 64 * 1024
MIN_SPLIT_SECONDS = 0.25
# One whose speed is not known yet is split only when there is plenty.
MIN_BLIND_SPLIT_BYTES = MIB
# Of what is left to a lane, it keeps no less and no more than this share: what is
# known of speeds is the last second.
_LEAST_KEPT = 0.02
_MOST_KEPT = 0.8


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


def share_of_hashed(bytes_per_second: float) -> int:
    """
    Give how much a lane gets at once of a file that is hashed as it grows.

    Lanes keep together then: what does not lie behind all of them has to be hashed
    after the last byte has come.

    Args:
        bytes_per_second: What a lane brings, 0.0 while unknown.
    """
    wanted = int(bytes_per_second * HASHED_SECONDS) // MIB * MIB
    return min(max(wanted, MIN_HASHED_BYTES), MAX_HASHED_BYTES)


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

    def take_over(self, lane: int, begin: int, end: int) -> Segment | None:
        """
        Give a lane missing bytes that it has, in place of a lane that ended.

        Args:
            lane: A number no running lane has.
            begin: The first it can have.
            end: One past the last.

        Returns:
            The lane's segment: the first of these bytes that are missing, up to the
            next ones that are not; None when none is.
        """
        index = next(
            (i for i, (_, until) in enumerate(self._missing) if until > begin), None
        )
        if index is None:
            return None
        first, until = self._missing[index]
        begin, end = max(begin, first), min(end, until)
        if begin >= end:
            return None
        cut = [(first, begin), (end, until)]
        self._missing[index : index + 1] = [run for run in cut if run[0] < run[1]]
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

    def splittable(
        self,
        busy: Iterable[int] = (),
        *,
        usual: float = 0.0,
        setup_seconds: float = 0.0,
    ) -> tuple[int, float] | None:
        """
        Choose the lane whose rest a free lane should share, and how much it keeps.

        That is the one which would finish last: by time where speeds are known. It
        keeps what it brings until the other one, once its connection is up, has brought
        the rest.

        Args:
            busy: Lanes that must not be chosen, such as those being split already.
            usual: What a lane brings, in bytes a second; 0.0 for the median of those
                there are.
            setup_seconds: What a new request takes until its first byte.

        Returns:
            The lane's number and the share of its rest, 0.0 - 1.0; None when no lane
            has enough left to share.
        """
        excluded = set(busy)
        usual = usual or self.usual_speed() or 1.0
        best: tuple[float, int] | None = None
        for lane, segment in self.segments.items():
            if lane in excluded or not _worth_splitting(segment, setup_seconds):
                continue
            # A lane of unknown speed counts as a usual one: it has only just begun.
            seconds = segment.remaining_bytes / (segment.bytes_per_second or usual)
            if best is None or seconds > best[0]:
                best = (seconds, lane)
        if best is None:
            return None
        segment = self.segments[best[1]]
        speed, rest = segment.bytes_per_second or usual, segment.remaining_bytes
        kept = speed * (setup_seconds * usual + rest) / (speed + usual) / rest
        return best[1], min(max(kept, _LEAST_KEPT), _MOST_KEPT)

    def usual_speed(self) -> float:
        """Give the median of the lanes' speeds, of those that are known, or 0.0."""
        speeds = [s.bytes_per_second for s in self.segments.values()]
        known = sorted(speed for speed in speeds if speed)
        return known[len(known) // 2] if known else 0.0

    def _between(self, begin: int, end: int, wanted: int) -> int:
        """Move a cut to the border of a piece, inside of `[begin, end)`."""
        border = round(wanted / self.piece) * self.piece
        return border if begin < border < end else begin

    def _give_back(self, begin: int, end: int) -> None:
        _add_run(self._missing, begin, end)


def _worth_splitting(segment: Segment, setup_seconds: float) -> bool:
    rest, speed = segment.remaining_bytes, segment.bytes_per_second
    if not speed:
        return rest >= 2 * MIN_BLIND_SPLIT_BYTES
    seconds = max(MIN_SPLIT_SECONDS, 2 * setup_seconds)
    return rest >= 2 * MIN_SPLIT_BYTES and rest / speed >= seconds


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
