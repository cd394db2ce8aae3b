"""The end of a download: rests that are shared, and rests that are asked for twice."""

from __future__ import annotations

import pytest
from test_lanes import (
    BROKEN,
    BUSY,
    EXPIRED,
    LOST,
    MIRROR,
    PART,
    SUM,
    URL,
    VALIDATOR,
    Stage,
)

from segdl._headers import EntityTag, Validator
from segdl._messages import Accept, Ended, Fetch, Split, Stop
from segdl._plan import MIB
from segdl._retry import Action
from segdl._sources import KNOWN_SECONDS
from segdl._tail import _MOST_DOUBLED_BYTES
from segdl.errors import (
    ConnectError,
    IncompleteTransfer,
    RangeMismatch,
    RepresentationChanged,
    SegdlError,
    StallError,
    StatusError,
)

KIB = 1024
REST = 100 * KIB


class End(Stage):
    """
    Two lanes of which the second, with little left, went silent, and the first is done.

    Attributes:
        slow: The second one.
        end: One past its last byte.
    """

    def __init__(self, rest: int = REST, *, connections: int = 2, **options: object):
        super().__init__(connections=connections, retry_times=0, **options)  # type: ignore[arg-type]  # as Stage takes them
        first, self.slow = self.begin(8 * MIB)[:2]
        for lane in self.numbers():
            self.answer(lane, url=self.fetch_of(lane).url)
            self.receive(lane, 0)
        self.end = self.segments[self.slow].end
        length = self.end - self.segments[self.slow].begin
        self.crew.pass_time(1.0)
        self.write(self.slow, length - rest)
        self.finish(first)
        for lane in self.numbers():
            if lane != self.slow:
                self.finish(lane)

    @property
    def begun(self) -> int:
        """First byte of the rest of the slow lane."""
        return self.end - REST

    def silence(self, seconds: float = 3.0) -> list[int]:
        """Let time pass in which nothing comes; give the lanes that double."""
        for _ in range(round(seconds / 0.1)):
            self.crew.pass_time(0.1)
            self.lanes.fill()
        return self.doubles()

    def doubled(self) -> int:
        """Give the lane that was opened for the rest of the slow one."""
        (lane,) = self.silence()
        self.answer(lane)
        return lane

    def keep(self, lane: int) -> None:
        """Have a lane receive all that it asked for, and say so."""
        fetch = self.fetch_of(lane)
        self.lanes.on_progress(lane, fetch.begin, fetch.end - fetch.begin)
        self.lanes.on_kept(lane)

    def stopped(self, lane: int) -> None:
        """Have a lane end as it was told to."""
        assert self.crew.messages(lane).count(Stop(lane)) == 1
        segment = self.segments.get(lane)
        end = self.opened(lane) if segment is None else segment.begin
        self.lanes.on_ended(Ended(lane, end, end - self.opened(lane), None))

    def check_unharmed(self) -> None:
        """Expect that nothing failed, and nothing counted as an attempt."""
        assert self.owner.names() == ["probe_answered"]
        assert self.owner.retries == []
        limits = self.crew.limits(URL)
        assert limits.not_before <= self.crew.now()

    def check_complete(self) -> None:
        """Expect a file of which every byte was recorded, and no lane."""
        assert self.lanes.plan is not None
        assert self.lanes.plan.finished
        assert (len(self.lanes), self.owner.names()[-1]) == (0, "all_written")
        assert self.owner.names().count("all_written") == 1
        assert self.owner.retries == []


# --- when a rest is asked for twice ---------------------------------------------------


def test_a_silent_lane_is_doubled() -> None:
    """Its rest is asked for over another connection, which may not write."""
    stage = End()
    (lane,) = stage.silence()
    assert stage.fetch_of(lane) == Fetch(
        lane=lane,
        url=URL,
        headers={},
        begin=stage.begun,
        end=stage.end,
        ranged=True,
        follow=False,
        hold=True,
        keep=True,
        complete=8 * MIB,
        had=8 * MIB,
        validator=VALIDATOR.to_json(),
        proof=True,
        if_range=None,
        part=None,
    )
    assert stage.crew.messages(stage.slow) == []


def test_a_lane_that_crawls_is_doubled() -> None:
    """One that needs twice as long as a new one, and a quarter second, is so too."""
    stage = End(MIB)
    for _ in range(20):
        stage.crew.pass_time(0.1)
        if stage.slow in stage.numbers():
            stage.receive(stage.slow, 20 * KIB)
        for _ in stage.splits(stage.slow)[stage.split_answers.get(stage.slow, 0) :]:
            stage.split_answers[stage.slow] = 1
            stage.lanes.on_shrunk(stage.slow, stage.end)
        stage.lanes.fill()
    (lane,) = stage.doubles()
    assert stage.opened(lane) > stage.end - MIB, "from where it was by then"


def test_a_lane_that_is_done_soon_is_not_doubled() -> None:
    """Another connection would not be faster."""
    stage = End(MIB)
    for _ in range(9):
        stage.crew.pass_time(0.1)
        stage.receive(stage.slow, 110 * KIB)
        stage.lanes.on_shrunk(stage.slow, stage.end)
        stage.lanes.fill()
    assert stage.doubles() == []
    assert len(stage.crew.fetches) == 2


@pytest.mark.parametrize(
    ("rest", "doubled"), [(_MOST_DOUBLED_BYTES, 1), (_MOST_DOUBLED_BYTES + 1, 0)]
)
def test_a_large_rest_is_not_doubled(rest: int, doubled: int) -> None:
    """What waits in memory is 2 MiB at most; a larger rest is shared."""
    stage = End(rest)
    stage.silence()
    assert len(stage.splits(stage.slow)) == 1
    stage.lanes.on_shrunk(stage.slow, stage.end)
    assert len(stage.silence()) == doubled


def test_a_lane_that_is_being_split_is_not_doubled() -> None:
    """Its end is about to be another one."""
    stage = End(MIB)
    assert stage.silence() == []
    assert len(stage.splits(stage.slow)) == 1


def test_a_lane_that_is_doubled_is_not_split() -> None:
    """Its end stays what the other one was asked for."""
    stage = End(MIB, connections=3)
    stage.silence(1.0)
    stage.lanes.on_shrunk(stage.slow, stage.end)
    stage.lanes._lanes[stage.slow].indivisible = False
    assert stage.doubles() == []
    stage.silence(0.1)
    # It was asked to share once more, and doubled after it could not.
    stage.lanes.on_shrunk(stage.slow, stage.end)
    (lane,) = stage.silence()
    stage.lanes._lanes[stage.slow].indivisible = False
    before = len(stage.splits(stage.slow))
    assert stage.silence() == [lane]
    assert len(stage.splits(stage.slow)) == before


def test_a_lane_that_is_known_a_moment_too_late() -> None:
    """Time goes on between two looks at the clock: nothing fails by that."""
    stage = End(connections=3)
    stage.crew.pass_time(2.0)
    lane = stage.lanes._lanes[stage.slow]
    lane.began = stage.crew.now() - KNOWN_SECONDS + 0.001
    stage.segments[stage.slow].bytes_per_second = 0.0

    def now() -> float:
        stage.crew.time += 0.0001
        return stage.crew.time

    stage.crew.now = now  # type: ignore[method-assign]  # as a clock
    for _ in range(20):
        stage.lanes.fill()
    assert len(stage.doubles()) == 1


def test_a_lane_is_never_doubled_twice() -> None:
    """Not by two lanes at the same time, nor by one that is asked for again."""
    stage = End(connections=4)
    lane = stage.doubled()
    assert stage.silence(10.0) == [lane]
    stage.fail(lane, BROKEN)
    assert stage.silence(10.0) == []


def test_a_lane_that_doubles_is_not_doubled() -> None:
    """Nor split: it has no bytes of its own."""
    stage = End(connections=4)
    lane = stage.doubled()
    assert stage.silence(30.0) == [lane]
    assert stage.crew.messages(lane) == []


def test_each_of_two_silent_lanes_is_doubled() -> None:
    """As long as there are connections for it."""
    stage = Stage(connections=4)
    lanes = stage.begin(8 * MIB)
    for lane in lanes:
        stage.answer(lane)
        stage.receive(lane, 0)
    stage.crew.pass_time(1.0)
    for lane in lanes[2:]:
        stage.write(lane, 2 * MIB - REST)
    for lane in lanes[:2]:
        stage.finish(lane)
    stage.crew.pass_time(3.0)
    stage.lanes.fill()
    ends = {stage.fetch_of(lane).end for lane in stage.doubles()}
    assert ends == {stage.segments[lane].end for lane in lanes[2:]}


def test_nothing_is_doubled_over_a_mirror_that_is_not_proved() -> None:
    """Its bytes may be of another file."""
    stage = End(mirrors=(MIRROR,))
    stage.lanes.sources.base.bytes_per_second = 1.0
    before = len(stage.crew.fetches)
    stage.silence()
    assert all(f.url == URL for f in stage.crew.fetches[before:])


def test_a_mirror_that_is_slow_to_answer_once_is_not_put_aside() -> None:
    """A proved one whose answer to such a request takes long goes on with its lanes."""
    stage = End()
    lane = stage.doubled()
    double = stage.lanes._lanes[lane]
    double.answered = False
    double.source = other = type(double.source)(MIRROR, proved=True)
    assert stage.silence(5.0) == [lane]
    assert not other.aside
    assert stage.crew.messages(lane) == []


# --- won by the second ----------------------------------------------------------------


def test_the_second_has_all_of_it_first() -> None:
    """The first is stopped; then the second writes what is left, and nothing else."""
    stage = End()
    lane = stage.doubled()
    stage.keep(lane)
    assert stage.crew.messages(stage.slow) == [Stop(stage.slow)]
    assert stage.crew.messages(lane) == [], "not while the first may write"
    stage.stopped(stage.slow)
    assert stage.crew.messages(lane) == [Accept(lane, PART, stage.begun, stage.end)]
    assert stage.segments[lane].begin == stage.begun
    assert stage.silence(1.0) == [], "it needs no help with what it has in memory"
    stage.finish(lane)
    stage.check_complete()


def test_the_second_begins_where_the_first_ended() -> None:
    """What the first wrote meanwhile is not written again."""
    stage = End()
    lane = stage.doubled()
    stage.write(stage.slow, 30 * KIB)
    stage.keep(lane)
    stage.write(stage.slow, 10 * KIB)
    stage.stopped(stage.slow)
    begin = stage.begun + 40 * KIB
    assert stage.crew.messages(lane) == [Accept(lane, PART, begin, stage.end)]
    stage.finish(lane)
    stage.check_complete()


def test_bytes_that_the_first_received_and_did_not_write() -> None:
    """The second begins where it asked; what lies before it is asked for again."""
    stage = End()
    stage.receive(stage.slow, 50 * KIB)
    lane = stage.doubled()
    assert stage.opened(lane) == stage.begun + 50 * KIB
    stage.keep(lane)
    stage.stopped(stage.slow)  # of the 50 KiB nothing is in the file
    begin = stage.begun + 50 * KIB
    assert stage.crew.messages(lane) == [Accept(lane, PART, begin, stage.end)]
    (again,) = stage.new_lanes([lane])
    assert (stage.opened(again), stage.fetch_of(again).end) == (stage.begun, begin)
    stage.finish(lane)
    stage.finish(again)
    stage.check_complete()


def neighbours() -> tuple[Stage, list[int], int]:
    """
    Give three lanes of 1 MiB, of which the middle one is silent from its first byte.

    Returns:
        The stage, its lanes, and the one that doubles the middle one.
    """
    stage = Stage(connections=4)
    lanes = stage.begin(3 * MIB)
    assert len(lanes) == 3
    for lane in lanes:
        stage.answer(lane)
        stage.receive(lane, 0)
    for _ in range(10):
        stage.crew.pass_time(0.1)
        for lane in (lanes[0], lanes[2]):
            stage.receive(lane, 20 * KIB)
    stage.lanes.fill()
    while asked := [n for n in lanes if stage.is_asked_to_split(n)]:
        for lane in asked:
            stage.split_answers[lane] = 1
            stage.lanes.on_shrunk(lane, stage.segments[lane].end)
        stage.lanes.fill()
    (double,) = stage.doubles()
    assert stage.opened(double) == MIB
    stage.answer(double)
    stage.lanes.on_progress(double, MIB, MIB)
    return stage, lanes, double


@pytest.mark.parametrize("failing", [0, 2], ids=["before", "behind"])
def test_bytes_beside_it_are_missing_as_well(failing: int) -> None:
    """Its neighbour broke: its bytes are joined in the account, and no others taken."""
    stage, lanes, double = neighbours()
    stage.fail(lanes[failing], BROKEN)
    stage.lanes.on_kept(double)
    stage.lanes.on_ended(Ended(lanes[1], MIB, 0, None))
    assert stage.crew.messages(double) == [Accept(double, PART, MIB, 2 * MIB)]
    stage.finish(double)
    for _ in range(9):
        stage.crew.pass_time(1.0)
        for lane in stage.numbers():
            stage.finish(lane)
        for lane in stage.doubles():
            assert Stop(lane) in stage.crew.messages(lane)
            stage.lanes.on_ended(Ended(lane, stage.opened(lane), 0, None))
    assert stage.owner.told[-1] == ("all_written", 3 * MIB)
    assert stage.lanes.plan is not None
    assert stage.lanes.plan.finished


def test_the_second_can_not_write() -> None:
    """From then on it is a lane like others: what it fails with counts."""
    stage = End()
    lane = stage.doubled()
    stage.keep(lane)
    stage.stopped(stage.slow)
    stage.fail(lane, StatusError("the origin answered 404", status=404))
    assert stage.owner.names() == ["probe_answered", "source_failed"]


# --- won by the first -----------------------------------------------------------------


def test_the_first_is_done_before() -> None:
    """The second is stopped; the file is whole when it has ended."""
    stage = End()
    lane = stage.doubled()
    stage.lanes.on_progress(lane, stage.begun, REST // 2)
    stage.finish(stage.slow)
    assert stage.crew.messages(lane) == [Stop(lane)]
    assert stage.owner.names() == ["probe_answered"]
    stage.stopped(lane)
    stage.check_complete()


def test_both_are_done_at_the_same_time() -> None:
    """The first wrote all while it was told to stop: nothing is left to the second."""
    stage = End()
    lane = stage.doubled()
    stage.keep(lane)
    stage.finish(stage.slow)
    assert stage.crew.messages(lane) == [Stop(lane)]
    stage.stopped(lane)
    stage.check_complete()


def test_the_second_says_so_too_late() -> None:
    """It was told to stop already: nothing follows."""
    stage = End()
    lane = stage.doubled()
    stage.finish(stage.slow)
    stage.keep(lane)
    assert stage.crew.messages(lane) == [Stop(lane)]
    stage.stopped(lane)
    stage.check_complete()


# --- when one of them fails -----------------------------------------------------------


def test_the_first_fails_meanwhile() -> None:
    """The second, which has not all of it, is stopped, and the rest asked for anew."""
    stage = End()
    lane = stage.doubled()
    stage.fail(stage.slow, BROKEN)
    assert stage.crew.messages(lane) == [Stop(lane)]
    stage.stopped(lane)
    stage.crew.pass_time(0.2)
    stage.lanes.fill()
    (again,) = stage.numbers()
    assert (stage.opened(again), stage.fetch_of(again).keep) == (stage.begun, False)
    stage.finish(again)
    stage.check_complete()


def test_the_first_fails_when_the_second_has_all() -> None:
    """However the first ends, the second takes over."""
    stage = End()
    lane = stage.doubled()
    stage.keep(lane)
    stage.fail(stage.slow, BROKEN)
    assert stage.crew.messages(lane) == [Accept(lane, PART, stage.begun, stage.end)]
    stage.finish(lane)
    stage.check_complete()


@pytest.mark.parametrize(
    "error",
    [
        BROKEN,
        BUSY,
        EXPIRED,
        StatusError("503", status=503, retry_after_seconds=60.0),
        ConnectError("refused"),
        StallError("stalled"),
        RangeMismatch("the whole file"),
        StatusError("404", status=404),
        LOST,
    ],
    ids=lambda error: str(error).replace(" ", "-"),
)
@pytest.mark.parametrize("answered", [False, True])
def test_the_second_fails(error: SegdlError, answered: bool) -> None:
    """That costs no attempt, and nobody waits: the first goes on as if alone."""
    stage = End()
    (lane,) = stage.silence()
    if answered:
        stage.answer(lane)
    if error is LOST:
        stage.lanes.on_lost(lane, LOST)
    else:
        stage.fail(lane, error)
    stage.check_unharmed()
    assert stage.numbers() == [stage.slow]
    assert stage.crew.messages(stage.slow) == []
    assert stage.silence(10.0) == []
    stage.finish(stage.slow)
    stage.check_complete()


def test_the_second_is_of_another_version() -> None:
    """What it says is believed, as of any lane: the file changed."""
    stage = End()
    (lane,) = stage.silence()
    stage.answer(lane, validator=Validator(etag=EntityTag("v2", weak=False)))
    kind, error, action = stage.owner.told[-1]
    assert (kind, action) == ("source_failed", Action.CHANGED)
    assert "the remote file changed" in error


def test_the_second_is_refused_as_another_version() -> None:
    """A worker that refuses its answer harms nothing: none of it is used."""
    stage = End()
    lane = stage.doubled()
    stage.fail(lane, RepresentationChanged("another tag"))
    stage.check_unharmed()


def test_the_worker_of_the_first_dies() -> None:
    """What it recorded counts; the second takes over from there."""
    stage = End()
    lane = stage.doubled()
    stage.keep(lane)
    stage.write(stage.slow, 30 * KIB)
    stage.lanes.on_lost(stage.slow, LOST)
    begin = stage.begun + 30 * KIB
    assert stage.crew.messages(lane) == [Accept(lane, PART, begin, stage.end)]
    stage.finish(lane)
    stage.check_complete()


def test_the_worker_of_the_first_dies_before() -> None:
    """The second has not all of it: the rest is asked for anew."""
    stage = End()
    lane = stage.doubled()
    stage.lanes.on_lost(stage.slow, LOST)
    stage.stopped(lane)
    stage.crew.pass_time(0.2)
    (again,) = stage.numbers()
    stage.finish(again)
    stage.check_complete()


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("second_first", [False, True])
def test_the_worker_of_both_dies(kept: bool, second_first: bool) -> None:
    """In either order, what was not recorded is asked for anew."""
    stage = End()
    lane = stage.doubled()
    if kept:
        stage.keep(lane)
    for number in sorted((stage.slow, lane), reverse=second_first):
        stage.lanes.on_lost(number, LOST)
    stage.crew.pass_time(0.2)
    (again,) = stage.numbers()
    assert stage.opened(again) == stage.begun
    stage.finish(again)
    stage.check_complete()


# --- a stop meanwhile -----------------------------------------------------------------


@pytest.mark.parametrize("kept", ["never", "before", "after"])
def test_a_stop_while_a_lane_is_doubled(kept: str) -> None:
    """Both end, nothing is accepted, and what was kept in memory is missing."""
    stage = End()
    lane = stage.doubled()
    if kept == "before":
        stage.keep(lane)
    stage.lanes.stop()
    if kept == "after":
        stage.keep(lane)
    stage.lanes.on_ended(Ended(stage.slow, stage.begun, MIB, None))
    assert stage.owner.names() == ["probe_answered"]
    stage.lanes.on_ended(Ended(lane, stage.begun, REST, None))
    assert stage.owner.names() == ["probe_answered", "lanes_gone"]
    assert stage.accepted() == []
    assert stage.lanes.plan is not None
    assert stage.lanes.plan.missing_bytes == REST


def test_what_a_lane_that_is_gone_says() -> None:
    """Nothing follows from it."""
    stage = End()
    lane = stage.doubled()
    stage.lanes.on_lost(lane, LOST)
    sent = list(stage.crew.sent)
    stage.lanes.on_kept(lane)
    assert stage.crew.sent == sent


# --- shares ---------------------------------------------------------------------------


def test_a_lane_keeps_more_where_connections_take_long() -> None:
    """What answers took is learned, and what a lane brings meanwhile it keeps."""

    def kept(setup_seconds: float) -> float:
        stage = Stage(connections=2)
        first, second = stage.begin(30 * MIB)
        for lane in (first, second):
            stage.receive(lane, 0)
        for _ in range(20):  # as each of many answers would teach it
            lane = stage.lanes._lanes[second]
            lane.began = stage.crew.now() - setup_seconds
            stage.lanes._tail.answered(lane)
        stage.crew.pass_time(1.0)
        stage.write(second, 5 * MIB)
        stage.receive(first, 6 * MIB)
        stage.finish(first)
        (split,) = stage.splits(second)
        return split.kept

    assert kept(0.01) < kept(0.2)


def test_a_lane_that_could_not_be_split_is_not_asked_again() -> None:
    """Its rest only gets smaller."""
    stage = End(MIB)
    assert isinstance(stage.crew.messages(stage.slow)[0], Split)
    stage.lanes.on_shrunk(stage.slow, stage.end)
    stage.silence(1.0)
    assert len(stage.splits(stage.slow)) == 1


def test_pieces_of_the_second_are_counted_once() -> None:
    """They come after it was accepted, and are its own."""
    stage = End()
    lane = stage.doubled()
    stage.keep(lane)
    stage.stopped(stage.slow)
    stage.lanes.on_pieces([(lane, stage.begun, REST, SUM)])
    with pytest.raises(ValueError, match="recorded"):
        stage.lanes.on_pieces([(lane, stage.begun, REST, SUM)])
    short = IncompleteTransfer("the end")
    assert str(short) not in [reason for reason, _, _ in stage.owner.retries]
