"""The plan: every byte is missing, in flight or done, and in exactly one of them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from segdl._plan import (
    MIB,
    MIN_BLIND_SPLIT_BYTES,
    MIN_SPLIT_BYTES,
    MIN_SPLIT_SECONDS,
    Plan,
    piece_size,
    share_of_hashed,
)
from segdl._ranges import ByteRange

KIB = 1024
TIB = 1 << 40


def runs(ranges: Iterable[ByteRange]) -> list[tuple[int, int]]:
    """Give byte ranges as pairs."""
    return [(r.begin, r.end) for r in ranges]


# --- the size of pieces ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "piece"),
    [
        (0, MIB),
        (1, MIB),
        (1024 * MIB, MIB),
        (1024 * MIB + 1, 2 * MIB),
        (4096 * MIB, 4 * MIB),
        (16384 * MIB, 16 * MIB),
        (TIB, 16 * MIB),
    ],
)
def test_piece_size(size: int, piece: int) -> None:
    """About a thousand pieces a file, none below 1 MiB or above 16 MiB."""
    assert piece_size(size) == piece


# --- the model ------------------------------------------------------------------------

PIECE = 64 * KIB
MISSING, DONE = -1, -2


def worth_splitting(rest: int, speed: float) -> bool:
    """Say by the rules of `splittable` whether a lane has enough left."""
    if speed == 0.0:
        return rest >= 2 * MIN_BLIND_SPLIT_BYTES
    return rest >= 2 * MIN_SPLIT_BYTES and rest / speed >= MIN_SPLIT_SECONDS


class PlanMachine(RuleBasedStateMachine):
    """
    A plan beside a list with the state of each 1-KiB cell.

    A cell is MISSING, DONE, or the number of the lane that is to fetch it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.plan = Plan(0, PIECE)
        self.cells: list[int] = []
        self.positions: dict[int, int] = {}
        self.speeds: dict[int, float] = {}
        self.numbers = 0

    def lane(self, data: st.DataObject) -> int:
        """Draw a running lane."""
        return data.draw(st.sampled_from(sorted(self.plan.segments)))

    def mark(self, begin: int, end: int, state: int) -> None:
        """Set the state of the cells that bytes `[begin, end)` are in."""
        first, last = begin // KIB, end // KIB
        self.cells[first:last] = [state] * (last - first)

    @initialize(
        cells=st.integers(0, 2600),
        done=st.lists(st.tuples(st.integers(0, 2600), st.integers(1, 300)), max_size=5),
    )
    def begin(self, cells: int, done: list[tuple[int, int]]) -> None:
        """Begin with some finished runs, which may touch."""
        self.cells = [MISSING] * cells
        given = []
        for at, length in done:
            end = min(at + length, cells)
            if at < end and all(c == MISSING for c in self.cells[at:end]):
                given.append(ByteRange(at * KIB, end * KIB))
                self.mark(at * KIB, end * KIB, DONE)
        self.plan = Plan(cells * KIB, PIECE, given)

    @rule(lanes=st.integers(1, 20))
    def divide(self, lanes: int) -> None:
        """Divide changes borders, and no byte's state."""
        self.plan.divide(lanes)

    @rule(limit=st.none() | st.integers(1, 700))
    def take(self, limit: int | None) -> None:
        """A lane gets the lowest missing run, up to the limit, or to a cut."""
        self.numbers += 1
        segment = self.plan.take(self.numbers, None if limit is None else limit * KIB)
        if MISSING not in self.cells:
            assert segment is None
            return
        assert segment is not None
        lowest = self.cells.index(MISSING)
        end = lowest
        while end < len(self.cells) and self.cells[end] == MISSING:
            end += 1
        assert segment.begin == segment.position == lowest * KIB
        assert segment.begin < segment.end <= end * KIB
        if limit is not None:
            assert segment.end <= (lowest + limit) * KIB
        assert (
            segment.end in (end * KIB, (lowest + (limit or 0)) * KIB)
            or segment.end % PIECE == 0
        )
        self.mark(segment.begin, segment.end, self.numbers)
        self.positions[self.numbers] = segment.begin
        self.speeds[self.numbers] = 0.0

    @rule(begin=st.integers(0, 2600), length=st.integers(0, 700))
    def take_over(self, begin: int, length: int) -> None:
        """A lane gets the first of some bytes that are missing, to the next border."""
        self.numbers += 1
        end = min(begin + length, len(self.cells))
        segment = self.plan.take_over(self.numbers, begin * KIB, end * KIB)
        states = self.cells[begin:end]
        if MISSING not in states:
            assert segment is None
            return
        assert segment is not None
        assert segment.begin == segment.position
        assert segment.begin == (begin + states.index(MISSING)) * KIB
        assert segment.begin < segment.end <= end * KIB
        self.mark(segment.begin, segment.end, self.numbers)
        self.positions[self.numbers] = segment.begin
        self.speeds[self.numbers] = 0.0

    @precondition(lambda self: self.plan.segments)
    @rule(data=st.data(), part=st.floats(0, 1))
    def record(self, data: st.DataObject, part: float) -> None:
        """The next bytes of a lane are done."""
        lane = self.lane(data)
        segment = self.plan.segments[lane]
        cells = (segment.end - segment.begin) // KIB
        if not cells:
            return
        begin, length = segment.begin, max(1, int(cells * part)) * KIB
        self.plan.record(lane, begin, length)
        self.mark(begin, begin + length, DONE)
        self.positions[lane] = max(self.positions[lane], begin + length)

    @precondition(lambda self: self.plan.segments)
    @rule(data=st.data(), move=st.integers(-100, 900), speed=st.floats(0, 1e9))
    def advance(self, data: st.DataObject, move: int, speed: float) -> None:
        """A lane's position goes forwards only, and not past its end."""
        lane = self.lane(data)
        position = self.positions[lane] + move * KIB
        self.plan.advance(lane, position)
        self.plan.segments[lane].bytes_per_second = speed
        end = self.plan.segments[lane].end
        self.positions[lane] = min(max(self.positions[lane], position), end)
        self.speeds[lane] = speed

    @precondition(lambda self: self.plan.segments)
    @rule(data=st.data(), part=st.floats(0, 1))
    def shrink(self, data: st.DataObject, part: float) -> None:
        """What lies behind a lane's new end is missing again."""
        lane = self.lane(data)
        segment = self.plan.segments[lane]
        cells = (segment.end - segment.begin) // KIB
        end, old = segment.begin + int(cells * part) * KIB, segment.end
        self.plan.shrink(lane, end)
        self.mark(end, old, MISSING)
        self.positions[lane] = min(self.positions[lane], end)

    @precondition(lambda self: self.plan.segments)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """What a lane that ended did not record is missing again."""
        lane = self.lane(data)
        segment = self.plan.segments[lane]
        begin, end = segment.begin, segment.end
        self.plan.release(lane)
        self.mark(begin, end, MISSING)
        del self.positions[lane], self.speeds[lane]

    @precondition(lambda self: self.cells)
    @rule(cuts=st.lists(st.integers(0, 2600), max_size=8), data=st.data())
    def forget(self, cuts: list[int], data: st.DataObject) -> None:
        """Of ranges that are forgotten, in any order, what was done is missing."""
        borders = sorted({min(cut, len(self.cells)) for cut in cuts})
        chosen = data.draw(st.permutations(list(pairwise(borders))))
        chosen = chosen[: data.draw(st.integers(0, len(chosen)))]
        self.plan.forget((a * KIB, (b - a) * KIB) for a, b in chosen)
        for begin, end in chosen:
            for cell in range(begin, end):
                if self.cells[cell] == DONE:
                    self.cells[cell] = MISSING

    @rule(data=st.data())
    def splittable(self, data: st.DataObject) -> None:
        """The lane to split is the one that would finish last, if it has enough."""
        busy = data.draw(st.sets(st.sampled_from([0, *self.plan.segments])))
        rest = {
            lane: segment.end - self.positions[lane]
            for lane, segment in self.plan.segments.items()
        }
        known = sorted(speed for speed in self.speeds.values() if speed)
        typical = known[len(known) // 2] if known else 1.0
        seconds = {
            lane: rest[lane] / (speed or typical)
            for lane, speed in self.speeds.items()
            if lane not in busy and worth_splitting(rest[lane], speed)
        }
        chosen = self.plan.splittable(busy)
        if not seconds:
            assert chosen is None
        else:
            assert chosen is not None
            lane, kept = chosen
            assert seconds[lane] == max(seconds.values())
            assert 0.02 <= kept <= 0.8

    @invariant()
    def each_byte_has_one_state(self) -> None:
        """Missing and done runs and segments cover the file, and never overlap."""
        seen = [0] * len(self.cells)
        missing, done = runs(self.plan.missing()), runs(self.plan.done())
        states = [(run, MISSING) for run in missing] + [(run, DONE) for run in done]
        for lane, segment in self.plan.segments.items():
            states.append(((segment.begin, segment.end), lane))
        for (begin, end), state in states:
            first, last = begin // KIB, end // KIB
            assert self.cells[first:last] == [state] * (last - first)
            for cell in range(first, last):
                seen[cell] += 1
        assert seen == [1] * len(self.cells)

    @invariant()
    def runs_are_ordered(self) -> None:
        """Runs come in order; finished ones that touch are one."""
        missing, done = runs(self.plan.missing()), runs(self.plan.done())
        assert all(a[1] <= b[0] for a, b in pairwise(missing))
        assert all(a[1] < b[0] for a, b in pairwise(done))

    @invariant()
    def sums_are_right(self) -> None:
        """The sums agree with the cells."""
        plan, cells = self.plan, self.cells
        done = cells.count(DONE)
        assert plan.done_bytes == done * KIB
        assert plan.missing_bytes == cells.count(MISSING) * KIB
        assert plan.finished == (done == len(cells))
        prefix = next((i for i, c in enumerate(cells) if c != DONE), len(cells))
        assert plan.prefix == prefix * KIB
        on_the_way = sum(
            self.positions[lane] - segment.begin
            for lane, segment in plan.segments.items()
        )
        assert plan.received_bytes == done * KIB + on_the_way


TestPlanMachine = PlanMachine.TestCase
TestPlanMachine.settings = settings(max_examples=40, stateful_step_count=25)


# --- what is refused ------------------------------------------------------------------


@pytest.mark.parametrize(
    "done",
    [
        [ByteRange(0, 10), ByteRange(9, 20)],
        [ByteRange(5, 6), ByteRange(5, 6)],
        [ByteRange(90, 101)],
    ],
)
def test_bad_done_ranges(done: list[ByteRange]) -> None:
    """Finished ranges that overlap or leave the file are refused."""
    with pytest.raises(ValueError, match="overlaps another, or leaves"):
        Plan(100, 10, done)


@pytest.mark.parametrize(
    ("offset", "length"), [(11, 5), (9, 5), (10, 0), (10, -1), (10, 41), (0, 10)]
)
def test_record_of_other_bytes(offset: int, length: int) -> None:
    """Only a lane's next bytes can be recorded; a refusal changes nothing."""
    plan = Plan(100, 10, [ByteRange(0, 10), ByteRange(50, 100)])
    plan.take(1)
    with pytest.raises(ValueError, match="lane 1 recorded"):
        plan.record(1, offset, length)
    assert (plan.done_bytes, plan.segments[1].begin) == (60, 10)


@pytest.mark.parametrize("end", [19, 101])
def test_shrink_outside(end: int) -> None:
    """A segment is cut between its first unrecorded byte and its end."""
    plan = Plan(100, 10)
    plan.take(1)
    plan.record(1, 0, 20)
    with pytest.raises(ValueError, match="outside of the segment"):
        plan.shrink(1, end)


# --- the first shares -----------------------------------------------------------------


def test_divide_cuts_between_pieces() -> None:
    """The first shares are about equal and begin at the borders of pieces."""
    plan = Plan(10 * MIB + 5, MIB)
    plan.divide(4)
    shares = runs(plan.missing())
    assert [begin % MIB for begin, _ in shares] == [0, 0, 0, 0]
    assert all(2 * MIB <= end - begin <= 3 * MIB + 5 for begin, end in shares)


def test_divide_makes_no_share_below_a_piece() -> None:
    """A file of three pieces has three shares, however many lanes there are."""
    plan = Plan(3 * MIB, MIB)
    plan.divide(16)
    assert runs(plan.missing()) == [
        (0, MIB),
        (MIB, 2 * MIB),
        (2 * MIB, 3 * MIB),
    ]


def test_divide_leaves_gaps_alone() -> None:
    """What an earlier run left is never part of a share."""
    plan = Plan(8 * MIB, MIB, [ByteRange(3 * MIB, 4 * MIB)])
    plan.divide(2)
    assert runs(plan.missing()) == [(0, 3 * MIB), (4 * MIB, 8 * MIB)]


def test_divide_of_nothing() -> None:
    """A file without a byte has no shares."""
    plan = Plan(0, MIB)
    plan.divide(4)
    assert (runs(plan.missing()), plan.finished) == ([], True)


# --- the size of the account ----------------------------------------------------------


def test_a_tebibyte_is_one_run() -> None:
    """A plan costs memory by runs and lanes, not by the length of the file."""
    piece = piece_size(TIB)
    plan = Plan(TIB, piece)
    assert len(runs(plan.missing())) == 1
    plan.divide(16)
    assert len(runs(plan.missing())) == 16
    lanes = range(1, 17)
    for lane in lanes:
        assert plan.take(lane) is not None
    for _ in range(20):
        for lane in lanes:
            plan.record(lane, plan.segments[lane].begin, piece)
    assert len(runs(plan.done())) == 16
    assert runs(plan.missing()) == []
    for lane in lanes:
        plan.release(lane)
    assert len(runs(plan.missing())) == 16
    assert plan.done_bytes == 320 * piece


# --- whom to split --------------------------------------------------------------------


def plan_of_lanes(*speeds: float) -> Plan:
    """Give a plan with a lane of 4 MiB for each speed, none of it received."""
    plan = Plan(4 * MIB * len(speeds), MIB)
    for lane, speed in enumerate(speeds, 1):
        plan.take(lane, 4 * MIB)
        plan.segments[lane].bytes_per_second = speed
    return plan


def chosen(plan: Plan, busy: Iterable[int] = ()) -> int | None:
    """Give the lane to split, without the share that it keeps."""
    found = plan.splittable(busy)
    return None if found is None else found[0]


def test_split_by_time_not_by_bytes() -> None:
    """A slow lane with less left is split before a fast one with more."""
    plan = plan_of_lanes(100.0, 10.0)
    plan.advance(2, 6 * MIB)
    assert chosen(plan) == 2


def test_a_new_lane_counts_as_a_usual_one() -> None:
    """A lane of unknown speed is not taken for the slowest."""
    assert chosen(plan_of_lanes(0.0, 10.0, 100.0)) == 2


def test_unknown_speeds_split_by_bytes() -> None:
    """As long as no speed is known, the lane with most left is split."""
    plan = plan_of_lanes(0.0, 0.0)
    plan.advance(1, MIB)
    assert chosen(plan) == 2


def test_busy_lanes_are_not_split_again() -> None:
    """A lane that is being split already is left alone."""
    plan = plan_of_lanes(10.0, 100.0)
    assert chosen(plan, [1]) == 2
    assert chosen(plan, [1, 2]) is None


@pytest.mark.parametrize(
    ("left", "lane"), [(2 * MIN_SPLIT_BYTES, 1), (2 * MIN_SPLIT_BYTES - 1, None)]
)
def test_too_little_is_not_split(left: int, lane: int | None) -> None:
    """A lane with less than 128 KiB left keeps it."""
    plan = plan_of_lanes(10.0)
    plan.advance(1, 4 * MIB - left)
    assert chosen(plan) == lane


def test_what_is_done_soon_is_not_split() -> None:
    """A lane that needs no longer than a new connection is left alone."""
    plan = plan_of_lanes(4.0 * 4 * MIB + 1)
    assert chosen(plan) is None
    plan.segments[1].bytes_per_second = 4.0 * 4 * MIB
    assert chosen(plan) == 1


def test_what_is_done_before_a_connection_would_help_is_not_split() -> None:
    """Where a request takes long until its first byte, twice that is too soon."""
    plan = plan_of_lanes(4 * MIB)
    assert plan.splittable(setup_seconds=0.5) is not None
    assert plan.splittable(setup_seconds=0.51) is None


def test_little_of_unknown_speed_is_not_split() -> None:
    """A lane that has only just begun is split when there is plenty."""
    plan = plan_of_lanes(0.0)
    plan.advance(1, 2 * MIB)
    assert chosen(plan) == 1
    plan.advance(1, 2 * MIB + 1)
    assert chosen(plan) is None


# --- how much a split lane keeps ------------------------------------------------------


@pytest.mark.parametrize(
    ("speed", "usual", "setup_seconds", "kept"),
    [
        (MIB, MIB, 0.0, 0.5),
        (MIB, 3 * MIB, 0.0, 0.25),
        (2 * MIB, MIB, 0.0, 2 / 3),
        # Of 4 s of work the first is done before the other one begins.
        (MIB, MIB, 1.0, 2.5 / 4),
        (MIB, 3 * MIB, 1.0, 1.75 / 4),
        # Whatever is known of speeds is the last second.
        (MIB // 100, 10 * MIB, 0.0, 0.02),
        (4 * MIB, MIB // 4, 0.25, 0.8),
        (MIB, MIB, 2.0, 0.75),
        # It has only just begun, and will be like the others.
        (0, 3 * MIB, 0.0, 0.5),
    ],
)
def test_both_end_together(
    speed: float, usual: float, setup_seconds: float, kept: float
) -> None:
    """It keeps what it brings until the other has brought the rest: 2 % - 80 %."""
    plan = plan_of_lanes(speed)
    found = plan.splittable(usual=usual, setup_seconds=setup_seconds)
    assert found == (1, pytest.approx(kept))
    if 0.02 < kept < 0.8 and speed:
        rest = (1 - kept) * 4 * MIB
        seconds = kept * 4 * MIB / speed
        assert seconds == pytest.approx(setup_seconds + rest / usual)


def test_the_share_is_of_what_is_left() -> None:
    """What a lane has received already does not count."""
    plan = plan_of_lanes(MIB)
    plan.advance(1, 2 * MIB)
    found = plan.splittable(usual=MIB, setup_seconds=0.5)
    assert found == (1, pytest.approx(1.25 / 2))


def test_the_usual_speed() -> None:
    """It is the median of the lanes whose speed is known; the upper one of two."""
    assert plan_of_lanes(0.0, 0.0).usual_speed() == 0.0
    assert plan_of_lanes(0.0, 5.0, 1.0, 100.0).usual_speed() == 5.0
    assert plan_of_lanes(1.0, 9.0).usual_speed() == 9.0
    # Without another one, a lane is split as if the next were like these.
    assert plan_of_lanes(MIB, 3 * MIB, 3 * MIB).splittable() == (1, 0.25)


# --- in place of another lane ---------------------------------------------------------


def ended(begin: int, end: int, size: int = 100) -> Plan:
    """Give a plan in which so much is missing, and all the rest is done."""
    done = [ByteRange(0, begin), ByteRange(end, size)]
    return Plan(size, 10, [run for run in done if run.length])


def test_take_over_of_what_another_lane_left() -> None:
    """Exactly that is the lane's, and nothing is missing any more."""
    plan = ended(30, 50)
    segment = plan.take_over(7, 30, 50)
    assert segment is plan.segments[7]
    assert (segment.begin, segment.position, segment.end) == (30, 30, 50)
    assert (runs(plan.missing()), plan.missing_bytes) == ([], 0)


@pytest.mark.parametrize(
    ("begin", "end", "given", "left"),
    [
        (30, 40, (30, 40), [(40, 50)]),  # bytes behind it are missing as well
        (40, 50, (40, 50), [(30, 40)]),  # and before it
        (35, 45, (35, 45), [(30, 35), (45, 50)]),
        (20, 40, (30, 40), [(40, 50)]),  # its first ones were recorded
        (40, 70, (40, 50), [(30, 40)]),
        (0, 100, (30, 50), []),
        (20, 30, None, [(30, 50)]),
        (50, 60, None, [(30, 50)]),
        (40, 40, None, [(30, 50)]),
        (30, 30, None, [(30, 50)]),
    ],
)
def test_take_over_beside_bytes_that_are_missing(
    begin: int, end: int, given: tuple[int, int] | None, left: list[tuple[int, int]]
) -> None:
    """Of the bytes asked for, those that are missing are given, and no other."""
    plan = ended(30, 50)
    segment = plan.take_over(7, begin, end)
    assert given == (None if segment is None else (segment.begin, segment.end))
    assert list(plan.segments) == ([] if given is None else [7])
    assert runs(plan.missing()) == left


def test_take_over_of_several_runs() -> None:
    """One lane fetches one run: the first one."""
    plan = Plan(100, 10, [ByteRange(30, 40)])
    segment = plan.take_over(7, 10, 60)
    assert segment is not None
    assert (segment.begin, segment.end) == (10, 30)
    assert runs(plan.missing()) == [(0, 10), (40, 100)]


# --- files that are hashed as they grow -----------------------------------------------


@pytest.mark.parametrize(
    ("bytes_per_second", "share"),
    [
        (0.0, 16 * MIB),
        (MIB, 16 * MIB),
        (80.0 * MIB, 20 * MIB),
        (99.0 * MIB, 24 * MIB),  # whole MiB
        (1e12, 256 * MIB),
    ],
)
def test_share_of_hashed(bytes_per_second: float, share: int) -> None:
    """A quarter of a second's worth, 16 - 256 MiB: lanes keep together."""
    assert share_of_hashed(bytes_per_second) == share
