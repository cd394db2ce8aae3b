"""Lanes: who fetches what, and what follows when one fails; on a fake scheduler."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fake_crew import FakeCrew
from hypothesis import given, settings
from hypothesis import strategies as st

from segdl._headers import EntityTag, Validator
from segdl._lanes import FIRST_BYTES, Lanes
from segdl._manifest import Piece
from segdl._messages import (
    Accept,
    Answered,
    Ended,
    Fetch,
    PartRef,
    Split,
    Stop,
    failure_to_json,
)
from segdl._plan import MIB, Plan
from segdl._ramp import START
from segdl._ranges import ByteRange
from segdl._request import Request
from segdl._retry import Action
from segdl.config import EngineConfig
from segdl.errors import (
    ConnectError,
    IncompleteTransfer,
    ProtocolError,
    RepresentationChanged,
    SegdlError,
    StallError,
    StatusError,
    StorageError,
    WorkerError,
)

URL = "https://example.org/a.bin"
MIRROR = "https://mirror.example.net/a.bin"
SIGNED = "https://cdn.example.com/a.bin?signature=s3cret"
PART = PartRef("/nowhere/a.bin.part", 1, 2, False, MIB)
VALIDATOR = Validator(etag=EntityTag("v1", weak=False))
SUM = "0" * 16
RETRY_SECONDS = 4.0
# With a random number of 0, half of the delay is waited: 2 s, 4 s, 8 s.
FIRST_DELAY = 2.0

EXPIRED = StatusError("the origin answered 403", status=403)
BUSY = StatusError("the origin answered 503", status=503)
BROKEN = IncompleteTransfer("the connection ended early")
LOST = WorkerError("a transfer worker ended unexpectedly")


class Owner:
    """A job that only writes down what its lanes tell it."""

    def __init__(self) -> None:
        self.number = 1
        self.verified = False
        self.told: list[tuple[Any, ...]] = []
        self.retries: list[tuple[str, int, float]] = []

    def report_retry(
        self, reason: str, attempt: int = 0, delay_seconds: float = 0.0
    ) -> None:
        self.retries.append((reason, attempt, delay_seconds))

    def probe_answered(self, answer: Answered) -> None:
        self.told.append(("probe_answered", answer))

    def pieces_written(self, pieces: list[Piece]) -> None:
        self.told.append(("pieces_written", pieces))

    def all_written(self, end: int) -> None:
        self.told.append(("all_written", end))

    def lanes_gone(self) -> None:
        self.told.append(("lanes_gone",))

    def pieces_doubted(self, doubted: Callable[[int], bool]) -> None:
        self.told.append(("pieces_doubted", doubted))

    def renew_link(self) -> None:
        self.told.append(("renew_link",))

    def source_failed(self, error: SegdlError, action: Action) -> None:
        self.told.append(("source_failed", str(error), action))

    def stream_broke(self) -> None:
        self.told.append(("stream_broke", ""))

    def probe_again(self) -> None:
        self.told.append(("probe_again",))

    def names(self) -> list[str]:
        """Give what was told, without pieces."""
        return [told[0] for told in self.told if told[0] != "pieces_written"]


class Stage:
    """Lanes, with the test as their job, scheduler and workers."""

    def __init__(
        self,
        *,
        connections: int | str = "auto",
        retry_times: int = 3,
        headers: dict[str, str] | None = None,
        mirrors: tuple[str, ...] = (),
        new_url: Callable[[], str] | None = None,
        max_bytes: int | None = None,
    ) -> None:
        self.crew = FakeCrew()
        self.owner = Owner()
        self._request = request = Request(
            urls=(URL, *mirrors),
            headers=headers or {},
            own_headers=headers or {},
            directory="/nowhere",
            filename=None,
            digest=None,
            on_exists="reuse",
            connections=connections,
            max_bytes=max_bytes,
            new_url=new_url,
        )
        config = EngineConfig(retry_times=retry_times, retry_delay=RETRY_SECONDS)
        self.split_answers: dict[int, int] = {}
        self.lanes = Lanes(self.owner, request, config, self.crew)  # type: ignore[arg-type]  # as much of a job as lanes need

    # --- orders -----------------------------------------------------------------------

    def probe(self) -> int:
        """Open the probe, and give its number."""
        self.lanes.open_probe(None, complete=None, validator=None, if_range=None)
        return self.crew.fetches[-1].lane

    def begin(self, size: int, *, url: str = URL, piece: int = MIB) -> list[int]:
        """Have the probe answered and accepted; give the numbers of all lanes."""
        self.answer(self.probe(), url=url)
        self.lanes.begin(Plan(size, piece), PART, VALIDATOR)
        return self.numbers()

    def request(self, **changes: Any) -> Request:
        """Give the request with changes."""
        return replace(self._request, **changes)

    # --- workers ----------------------------------------------------------------------

    def answer(
        self, lane: int, *, url: str = URL, validator: Validator = VALIDATOR
    ) -> Answered:
        """Have a lane's answer come."""
        answer = Answered(
            lane, url, True, None, validator.to_json(), None, [], True, True
        )
        self.lanes.on_answered(answer)
        return answer

    def receive(self, lane: int, count: int) -> None:
        """Have a lane receive bytes that are not written yet."""
        segment = self.segments[lane]
        position = min(segment.position + count, segment.end)
        self.lanes.on_progress(lane, position, position - self.opened(lane))

    def write(self, lane: int, count: int) -> None:
        """Have a lane receive and record its next bytes."""
        begin = self.segments[lane].begin
        self.lanes.on_pieces([(lane, begin, count, SUM)])
        self.lanes.on_progress(
            lane, begin + count, max(0, begin + count - self.opened(lane))
        )

    def finish(self, lane: int) -> None:
        """Have a lane fetch the rest of its segment, and end."""
        segment = self.segments[lane]
        end, rest = segment.end, segment.end - segment.begin
        if rest:
            self.lanes.on_pieces([(lane, segment.begin, rest, SUM)])
        self.lanes.on_ended(Ended(lane, end, end - self.opened(lane), None))

    def fail(self, lane: int, error: SegdlError) -> None:
        """Have a lane fail, with what it has received so far."""
        begin = self.opened(lane)
        segment = self.lanes.plan and self.segments.get(lane)
        position = segment.position if segment else begin
        row = failure_to_json(error)
        self.lanes.on_ended(Ended(lane, position, position - begin, row))

    def share(self) -> None:
        """Answer all that lanes were told to share, until none is told any more."""
        while splitting := [n for n in self.numbers() if self.is_asked_to_split(n)]:
            for lane in splitting:
                segment = self.segments[lane]
                self.split_answers[lane] = self.split_answers.get(lane, 0) + 1
                kept = int(segment.remaining_bytes * self.splits(lane)[-1].kept)
                self.lanes.on_shrunk(lane, segment.position + kept)

    def is_asked_to_split(self, lane: int) -> bool:
        """Tell whether a lane was told to share what it has, and has not answered."""
        return len(self.splits(lane)) > self.split_answers.get(lane, 0)

    def splits(self, lane: int) -> list[Split]:
        """Give what a lane was told to share."""
        return [m for m in self.crew.messages(lane) if isinstance(m, Split)]

    # --- what is there ----------------------------------------------------------------

    @property
    def segments(self) -> dict[int, Any]:
        """What lanes are fetching."""
        assert self.lanes.plan is not None
        return self.lanes.plan.segments

    def numbers(self) -> list[int]:
        """Give the numbers of the lanes that fetch."""
        return sorted(self.segments)

    def lanes_of(self, url: str) -> list[int]:
        """Give the numbers of the lanes that ask a URL."""
        return [lane for lane in self.numbers() if self.fetch_of(lane).url == url]

    def fetch_of(self, lane: int) -> Fetch:
        """Give the request of a lane."""
        return next(f for f in self.crew.fetches if f.lane == lane)

    def opened(self, lane: int) -> int:
        """Give the first byte a lane asked for."""
        return self.fetch_of(lane).begin

    def doubles(self) -> list[int]:
        """Give the lanes that fetch what others have, for their memory."""
        own = self.lanes._lanes
        return [n for n, lane in own.items() if lane.held and n not in self.segments]

    def accepted(self) -> list[Accept]:
        """Give what lanes that had kept their bytes were told to write."""
        return [
            message
            for lane, message in self.crew.sent
            if isinstance(message, Accept) and self.fetch_of(lane).keep
        ]

    def new_lanes(self, before: list[int]) -> list[int]:
        """Give the lanes that were not there before."""
        return [lane for lane in self.numbers() if lane not in before]


# --- the probe ------------------------------------------------------------------------


def test_the_first_request() -> None:
    """The first request asks for the first bytes, follows redirects, and is held."""
    stage = Stage(headers={"Authorization": "Bearer t"})
    lane = stage.probe()
    assert stage.crew.fetches == [
        Fetch(
            lane=lane,
            url=URL,
            headers={"Authorization": "Bearer t"},
            begin=0,
            end=FIRST_BYTES,
            ranged=True,
            follow=True,
            hold=True,
            keep=False,
            complete=None,
            had=None,
            validator=None,
            proof=False,
            if_range=None,
            part=None,
        )
    ]
    assert len(stage.lanes) == 1


def test_the_first_request_of_a_resume() -> None:
    """A resume asks for what is missing, of the representation it knows."""
    stage = Stage()
    stage.lanes.open_probe(
        ByteRange(5 * MIB, 6 * MIB), complete=9 * MIB, validator=VALIDATOR, if_range="x"
    )
    fetch = stage.crew.fetches[0]
    assert (fetch.begin, fetch.end, fetch.complete) == (5 * MIB, 6 * MIB, 9 * MIB)
    assert (fetch.validator, fetch.if_range) == (VALIDATOR.to_json(), "x")


def test_the_first_request_without_ranges() -> None:
    """In whole mode all is asked for, from byte 0 and without a Range."""
    stage = Stage()
    stage.lanes.whole = True
    stage.lanes.open_probe(
        ByteRange(5, 6), complete=None, validator=None, if_range=None
    )
    fetch = stage.crew.fetches[0]
    assert (fetch.ranged, fetch.begin) == (False, 0)
    assert fetch.end > 2**60


def test_the_answer_of_the_probe_goes_to_the_job() -> None:
    """The job decides about the first answer; nothing is fetched until it has."""
    stage = Stage()
    answer = stage.answer(stage.probe(), url=SIGNED)
    assert stage.owner.told == [("probe_answered", answer)]
    assert stage.lanes.effective_url == SIGNED
    assert (len(stage.crew.fetches), stage.crew.sent) == (1, [])


@pytest.mark.parametrize(
    ("size", "end"), [(5 * MIB, None), (1000 * MIB, FIRST_BYTES), (100, 100)]
)
def test_the_probe_goes_on_as_a_lane(size: int, end: int | None) -> None:
    """The probe's connection fetches its share, but no more than it asked for."""
    stage = Stage(connections=2)
    probe = stage.begin(size)[0]
    assert end is None or stage.segments[probe].end == end
    assert stage.crew.messages(probe) == [
        Accept(probe, PART, 0, stage.segments[probe].end)
    ]


def test_a_probe_for_bytes_that_are_not_missing() -> None:
    """A probe whose first byte is there already is stopped, others fetch the rest."""
    stage = Stage(connections=1)
    probe = stage.probe()
    stage.answer(probe)
    plan = Plan(8 * MIB, MIB, [ByteRange(0, 2 * MIB)])
    stage.lanes.begin(plan, PART, VALIDATOR)
    assert stage.crew.messages(probe) == [Stop(probe)]
    assert stage.numbers() == []
    stage.lanes.on_ended(Ended(probe, 0, 0, None))
    (lane,) = stage.numbers()
    assert stage.fetch_of(lane).begin == 2 * MIB


def test_a_plan_that_is_finished() -> None:
    """With nothing missing, all is written once the probe has stopped."""
    stage = Stage()
    probe = stage.probe()
    stage.answer(probe)
    stage.lanes.begin(Plan(0, MIB), PART, VALIDATOR)
    assert stage.crew.messages(probe) == [Stop(probe)]
    assert stage.owner.names() == ["probe_answered"]
    stage.lanes.on_ended(Ended(probe, 0, 0, None))
    assert stage.owner.told[-1] == ("all_written", 0)


def test_an_answer_without_a_length_under_a_limit() -> None:
    """The lane takes one byte more than is allowed, which shows that there are more."""
    stage = Stage(max_bytes=5 * MIB)
    stage.lanes.whole = True
    probe = stage.probe()
    stage.answer(probe)
    stage.lanes.begin(None, PART, VALIDATOR)
    assert stage.crew.messages(probe) == [Accept(probe, PART, 0, 5 * MIB + 1)]


def test_an_answer_without_a_length() -> None:
    """Without a length one lane takes all there is, and its end is the file's."""
    stage = Stage()
    stage.lanes.whole = True
    probe = stage.probe()
    stage.answer(probe)
    stage.lanes.begin(None, PART, VALIDATOR)
    assert stage.crew.messages(probe) == [Accept(probe, PART, 0, None)]
    stage.lanes.on_pieces([(probe, 0, MIB, SUM)])
    stage.lanes.on_progress(probe, MIB, MIB)
    stage.lanes.on_ended(Ended(probe, MIB + 5, MIB + 5, None))
    assert stage.owner.told[1:] == [("all_written", MIB + 5)]
    assert len(stage.crew.fetches) == 1
    assert stage.lanes.received_bytes == MIB + 5


@pytest.mark.parametrize("error", [BROKEN, LOST])
def test_a_probe_that_dies_while_the_file_is_prepared(error: SegdlError) -> None:
    """A probe that breaks after its answer costs nothing: its bytes are asked again."""
    stage = Stage(retry_times=0)
    probe = stage.probe()
    stage.answer(probe)
    stage.fail(probe, error)
    stage.lanes.begin(Plan(MIB, MIB), PART, VALIDATOR)
    (lane,) = stage.numbers()
    assert (stage.fetch_of(lane).begin, stage.fetch_of(lane).hold) == (0, False)
    assert stage.owner.names() == ["probe_answered"]


def test_a_stream_that_dies_while_the_file_is_prepared() -> None:
    """Without a length there is nothing to ask for again: the stream has broken."""
    stage = Stage()
    stage.lanes.whole = True
    probe = stage.probe()
    stage.answer(probe)
    stage.fail(probe, BROKEN)
    stage.lanes.begin(None, PART, VALIDATOR)
    # It counts as an attempt, so that an origin that does so for ever is given up.
    assert stage.owner.names() == ["probe_answered"]
    stage.crew.pass_time(FIRST_DELAY)
    assert stage.owner.names() == ["probe_answered", "stream_broke"]


@pytest.mark.parametrize(
    "error", [BROKEN, BUSY, ConnectError("refused"), StallError("stalled"), LOST]
)
def test_a_probe_that_fails_is_sent_again(error: SegdlError) -> None:
    """A probe without an answer is sent again after its delay, by the job."""
    stage = Stage()
    stage.fail(stage.probe(), error)
    assert stage.owner.names() == []
    stage.crew.pass_time(FIRST_DELAY)
    assert stage.owner.names() == ["probe_again"]
    assert stage.crew.timers == []


def test_a_probe_that_always_fails() -> None:
    """After the first attempt and the retries the source has failed."""
    stage = Stage(retry_times=2)
    for _ in range(2):
        stage.fail(stage.probe(), ConnectError("refused"))
        stage.crew.pass_time(60)
    stage.fail(stage.probe(), ConnectError("refused"))
    assert stage.owner.names() == ["probe_again"] * 2 + ["source_failed"]
    assert stage.owner.told[-1] == ("source_failed", "refused", Action.FATAL)
    assert stage.owner.retries == [("refused", 1, 2.0), ("refused", 2, 4.0)]
    assert stage.crew.timers == []


def test_a_probe_that_cannot_succeed() -> None:
    """A 404 fails at once."""
    stage = Stage()
    stage.fail(stage.probe(), StatusError("404", status=404))
    assert stage.owner.told == [("source_failed", "404", Action.FATAL)]


def test_retry_after_is_waited_for() -> None:
    """What the origin asks for counts more than the user's delay."""
    stage = Stage()
    busy = StatusError("503", status=503, retry_after_seconds=30.0)
    stage.fail(stage.probe(), busy)
    stage.crew.pass_time(29)
    assert stage.owner.names() == []
    stage.crew.pass_time(1)
    assert stage.owner.names() == ["probe_again"]


@pytest.mark.parametrize(("seconds", "fails"), [(5.0, False), (3600.0, True)])
def test_retry_after_with_a_mirror(seconds: float, fails: bool) -> None:
    """Nobody waits longer than the timeout while a mirror was not asked yet."""
    stage = Stage(mirrors=(MIRROR,))
    busy = StatusError("503", status=503, retry_after_seconds=seconds)
    stage.fail(stage.probe(), busy)
    assert stage.owner.names() == (["source_failed"] if fails else [])
    assert stage.lanes.turn_to_mirror()
    stage.fail(stage.probe(), busy)
    assert stage.owner.retries[-1] == ("503", 1, seconds)


def test_a_delay_that_is_over_after_a_stop() -> None:
    """After a stop no probe is sent, whatever was waiting."""
    stage = Stage()
    stage.fail(stage.probe(), BROKEN)
    stage.lanes.stop()
    stage.crew.pass_time(60)
    assert stage.owner.names() == ["lanes_gone"]


# --- sharing out ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "connections", "lanes"),
    [
        (200 * MIB, "auto", START),
        (1000 * MIB, 5, 5),
        (1000 * MIB, 1, 1),
        (1000 * MIB, 50, 50),
        (5 * MIB, 16, 5),
        (MIB + MIB // 2 - 1, 16, 1),
        (1, 16, 1),
    ],
)
def test_how_many_lanes(size: int, connections: int | str, lanes: int) -> None:
    """As many lanes as allowed, each with a piece at least."""
    stage = Stage(connections=connections)
    assert len(stage.begin(size)) == lanes
    assert len(stage.lanes) == lanes


def test_large_file_begins_with_few_lanes() -> None:
    """A moment later more are opened, as next to nothing has come."""
    stage = Stage()
    assert len(stage.begin(1000 * MIB)) == 2
    stage.crew.pass_time(0.1)
    assert len(stage.numbers()) == START


def test_lanes_that_bring_nothing_are_stopped() -> None:
    """Where two lanes are as fast as four, the other two end, and no more follow."""
    stage = Stage()
    first, second = stage.begin(4000 * MIB)

    def receive(seconds: float) -> list[int]:
        """Receive at a gigabyte a second, whatever the number of lanes."""
        lanes = stage.numbers()
        for lane in lanes:
            count = int(seconds * 1000 * MIB) // len(lanes)
            received = stage.lanes._lanes[lane].received + count
            stage.lanes.on_progress(lane, stage.opened(lane), received)
        stage.crew.pass_time(seconds)
        stage.lanes.fill()
        return stage.numbers()

    assert receive(0.1) == [first, second]
    third, fourth = receive(0.5)[2:]
    assert receive(0.5) == [first, second, third, fourth]
    stopped = [lane for lane, message in stage.crew.sent if message == Stop(lane)]
    assert stopped == [third, fourth]
    for lane in stopped:
        received = stage.lanes._lanes[lane].received
        stage.lanes.on_ended(Ended(lane, stage.opened(lane), received, None))
    assert receive(0.5) == [first, second]
    assert stage.lanes.plan is not None
    assert stage.lanes.plan.missing_bytes > 0


def test_what_lanes_ask_for() -> None:
    """Further lanes ask the effective URL, and expect the known representation."""
    secret = {"Authorization": "Bearer t", "Accept": "*/*"}
    stage = Stage(connections=2, headers=secret)
    _, lane = stage.begin(40 * MIB, url=SIGNED)
    segment = stage.segments[lane]
    assert stage.fetch_of(lane) == Fetch(
        lane=lane,
        url=SIGNED,
        headers={"Accept": "*/*"},
        begin=segment.begin,
        end=segment.end,
        ranged=True,
        follow=False,
        hold=False,
        keep=False,
        complete=40 * MIB,
        had=40 * MIB,
        validator=VALIDATOR.to_json(),
        proof=True,
        if_range=None,
        part=PART,
    )


def test_a_lane_that_ends_is_followed_by_another() -> None:
    """What is missing is fetched by lanes that come after others, to the end."""
    stage = Stage(connections=2)
    stage.begin(200 * MIB)
    for _ in range(50):
        if not len(stage.lanes):
            break
        assert len(stage.lanes) <= 2
        stage.finish(stage.numbers()[0])
    assert stage.owner.told[-1] == ("all_written", 200 * MIB)
    assert stage.owner.names().count("all_written") == 1
    assert stage.lanes.received_bytes == 200 * MIB


def test_pieces_go_to_the_job() -> None:
    """Pieces are counted in the plan and told, without the lane."""
    stage = Stage(connections=2)
    first, second = stage.begin(40 * MIB)
    begin = stage.segments[second].begin
    stage.lanes.on_pieces([(first, 0, MIB, "a" * 16), (second, begin, MIB, "b" * 16)])
    assert stage.owner.told[-1] == (
        "pieces_written",
        [Piece(0, MIB, "a" * 16), Piece(begin, MIB, "b" * 16)],
    )
    assert stage.lanes.plan is not None
    assert stage.lanes.plan.done_bytes == 2 * MIB


def test_a_free_lane_shares_the_rest_of_another() -> None:
    """When nothing is missing, what would finish last is split, each lane once."""
    stage = Stage(connections=2)
    first, second = stage.begin(20 * MIB)
    end = stage.segments[second].end
    stage.receive(second, 0)
    stage.answer(second)
    stage.crew.pass_time(1.0)
    stage.write(second, 2 * MIB)
    stage.finish(first)
    # It brings 2 MiB a second and has 8 of them left, the other would bring 10 after
    # 0.025 s: with 1.375 MiB both need 0.688 s.
    assert stage.crew.messages(second) == [Split(second, 0.172)]
    stage.lanes.fill()
    assert len(stage.crew.messages(second)) == 1
    stage.lanes.on_shrunk(second, end - 4 * MIB)
    (third,) = stage.new_lanes([second])
    assert (stage.fetch_of(third).begin, stage.fetch_of(third).end) == (
        end - 4 * MIB,
        end,
    )
    assert stage.segments[second].end == end - 4 * MIB
    stage.finish(second)
    stage.finish(third)
    assert stage.owner.told[-1] == ("all_written", 20 * MIB)


def test_a_lane_that_would_not_be_split() -> None:
    """A lane with too little left keeps it, and is not asked again."""
    stage = Stage(connections=2)
    first, second = stage.begin(20 * MIB)
    stage.finish(first)
    stage.lanes.on_shrunk(second, stage.segments[second].end)
    assert (stage.numbers(), len(stage.lanes)) == ([second], 1)
    stage.lanes.fill()
    assert len(stage.splits(second)) == 1


def test_near_the_end_nothing_is_split() -> None:
    """Rests too small for two are left to the lanes that have them."""
    stage = Stage(connections=2)
    first, second = stage.begin(20 * MIB)
    stage.receive(second, 10 * MIB - 100)
    stage.finish(first)
    assert stage.crew.messages(second) == []


def test_whole_mode_has_one_lane() -> None:
    """Without ranges nothing is shared, divided or split."""
    stage = Stage()
    stage.lanes.whole = True
    (lane,) = stage.begin(100 * MIB)
    assert stage.segments[lane].end == 100 * MIB
    stage.write(lane, MIB)
    stage.lanes.fill()
    assert stage.crew.messages(lane) == [Accept(lane, PART, 0, 100 * MIB)]
    stage.finish(lane)
    assert stage.owner.told[-1] == ("all_written", 100 * MIB)


def test_lanes_of_a_file_that_is_hashed_keep_together() -> None:
    """Each gets the next 16 MiB, so that little lies behind what is missing."""
    stage = Stage(connections=3)
    stage.owner.verified = True
    lanes = stage.begin(400 * MIB)
    for _ in range(6):
        begins = sorted(stage.opened(lane) for lane in lanes)
        assert max(begins) - min(begins) <= 2 * 16 * MIB
        assert all(
            stage.segments[lane].end - stage.opened(lane) <= 16 * MIB for lane in lanes
        )
        stage.crew.pass_time(1.0)  # no faster than 16 MiB a second
        stage.finish(min(lanes, key=stage.opened))
        lanes = stage.numbers()
        assert len(lanes) == 3


def test_a_slow_lane_is_replaced_while_there_is_other_work() -> None:
    """It is stopped; the next lane goes on with its rest, after what was missing."""
    stage = Stage(connections=4)
    lanes = stage.begin(4000 * MIB)
    (first, *_, slow) = lanes
    for _ in range(20):
        stage.crew.pass_time(0.1)
        for lane in lanes:
            stage.receive(lane, 1000 if lane == slow else 100_000)
        stage.lanes.fill()
    assert stage.lanes.plan is not None
    assert stage.lanes.plan.missing_bytes, "the probe was cut to its first bytes"
    stopped = [lane for lane in lanes if Stop(lane) in stage.crew.messages(lane)]
    assert stopped == [slow]
    assert not any(isinstance(message, Split) for _, message in stage.crew.sent)
    begin = stage.segments[slow].begin
    stage.lanes.on_ended(Ended(slow, begin, 20_000, None))
    (after,) = stage.new_lanes(lanes)
    stage.finish(first)
    assert begin in [stage.opened(lane) for lane in stage.new_lanes(lanes)]
    assert stage.owner.retries == []
    assert after in stage.numbers()


def test_a_lane_that_moves_goes_on_elsewhere() -> None:
    """It is stopped, and another one opened for its rest at once."""
    stage = Stage(connections=2)
    first, second = stage.begin(20 * MIB)
    stage.write(second, MIB)
    stage.lanes.move(second)
    stage.lanes.move(second)
    assert stage.crew.messages(second) == [Stop(second)]
    begin = stage.segments[second].begin
    stage.lanes.on_ended(Ended(second, begin, MIB, None))
    (after,) = stage.new_lanes([first])
    assert stage.opened(after) == begin
    assert stage.owner.retries == []


def test_what_can_not_move() -> None:
    """A stream would have to begin again, and a held lane waits for the job."""
    stage = Stage()
    stage.lanes.whole = True
    probe = stage.probe()
    stage.lanes.move(probe)
    stage.answer(probe)
    stage.lanes.move(probe)
    stage.lanes.begin(Plan(100 * MIB, MIB), PART, VALIDATOR)
    stage.lanes.move(probe)
    assert Stop(probe) not in stage.crew.messages(probe)


def test_what_moves_after_its_end() -> None:
    """A job that gave its lanes up may have forgotten one that its worker has yet."""
    stage = Stage(connections=2)
    _, second = stage.begin(20 * MIB)
    stage.lanes.on_lost(second, LOST)
    stage.lanes.move(second)
    assert stage.crew.messages(second) == []


def test_rates() -> None:
    """The job's rate is over all lanes."""
    stage = Stage(connections=2)
    first, second = stage.begin(40 * MIB)
    stage.receive(first, 1000)
    stage.receive(second, 10)
    stage.crew.pass_time(1.0)
    stage.receive(first, 1000)
    stage.receive(second, 10)
    assert stage.lanes.meter.rate(stage.crew.now()) == pytest.approx(2020, rel=0.01)


# --- failures -------------------------------------------------------------------------


def test_a_lane_that_broke_goes_on_at_its_offset() -> None:
    """A lane that delivered and broke is followed soon, and costs no attempt."""
    stage = Stage(connections=1, retry_times=0)
    (lane,) = stage.begin(10 * MIB)
    stage.write(lane, 3 * MIB)
    stage.fail(lane, BROKEN)
    assert stage.numbers() == []
    stage.crew.pass_time(0.2)
    (lane,) = stage.numbers()
    assert stage.fetch_of(lane).begin == 3 * MIB
    assert (stage.owner.names(), stage.owner.retries) == (["probe_answered"], [])


def test_bytes_received_but_not_recorded_are_asked_again() -> None:
    """No byte counts before its record."""
    stage = Stage(connections=1)
    (lane,) = stage.begin(10 * MIB)
    stage.write(lane, 3 * MIB)
    stage.receive(lane, MIB)
    stage.fail(lane, BROKEN)
    stage.crew.pass_time(0.2)
    (lane,) = stage.numbers()
    assert stage.fetch_of(lane).begin == 3 * MIB


def test_a_lost_worker() -> None:
    """The lanes of a worker that died go on soon; it costs them no attempt."""
    stage = Stage(connections=2, retry_times=0)
    first, second = stage.begin(40 * MIB)
    stage.write(first, MIB)
    stage.lanes.on_lost(first, LOST)
    stage.lanes.on_lost(second, LOST)
    stage.crew.pass_time(0.2)
    stage.share()
    assert len(stage.numbers()) == 2
    assert min(stage.opened(lane) for lane in stage.numbers()) == MIB
    assert stage.owner.retries == []


def test_a_wave_of_failures_counts_once() -> None:
    """All lanes of a server that restarts fail at the same time: one attempt."""
    stage = Stage(connections=4, retry_times=1)
    for lane in stage.begin(100 * MIB):
        stage.fail(lane, StallError("stalled"))
    assert stage.owner.names() == ["probe_answered"]
    assert [attempt for _, attempt, _ in stage.owner.retries] == [1]
    stage.crew.pass_time(FIRST_DELAY)
    stage.share()
    assert len(stage.numbers()) == 4
    for lane in stage.numbers():
        stage.fail(lane, StallError("stalled"))
    assert stage.owner.told[-1] == ("source_failed", "stalled", Action.FATAL)
    assert stage.owner.names().count("source_failed") == 1


def test_a_late_failure_of_an_earlier_wave() -> None:
    """A lane of an earlier wave that fails last of all is followed all the same."""
    stage = Stage(connections=2)
    first, second = stage.begin(20 * MIB)
    stage.fail(first, StallError("stalled"))
    stage.crew.pass_time(FIRST_DELAY)
    (third,) = stage.new_lanes([second])
    stage.finish(third)
    stage.fail(second, StallError("stalled"))
    stage.crew.pass_time(60)
    assert len(stage.lanes) > 0
    for _ in range(10):
        if len(stage.lanes):
            stage.finish(stage.numbers()[0])
    assert stage.owner.told[-1] == ("all_written", 20 * MIB)


def test_nobody_asks_before_the_delay_is_over() -> None:
    """While an attempt waits, lanes that end are not followed either."""
    stage = Stage(connections=3)
    first, second, third = stage.begin(300 * MIB)
    stage.fail(first, StallError("stalled"))
    stage.finish(second)
    assert stage.numbers() == [third]
    stage.crew.pass_time(FIRST_DELAY - 0.1)
    assert stage.numbers() == [third]
    stage.crew.pass_time(0.1)
    assert len(stage.numbers()) == 3


def test_progress_refills_the_budget() -> None:
    """Attempts count anew after a byte of the present wave has come."""
    stage = Stage(connections=1, retry_times=1)
    stage.begin(100 * MIB)
    for _ in range(5):
        (lane,) = stage.numbers()
        stage.fail(lane, StallError("stalled"))
        stage.crew.pass_time(FIRST_DELAY)
        (lane,) = stage.numbers()
        stage.receive(lane, 1)
        stage.fail(lane, BROKEN)
        stage.crew.pass_time(FIRST_DELAY)
    assert stage.owner.names() == ["probe_answered"]
    assert {attempt for _, attempt, _ in stage.owner.retries} == {1}


def test_bytes_of_an_earlier_wave_refill_the_budget() -> None:
    """Progress is progress, whichever lane makes it."""
    stage = Stage(connections=2, retry_times=1)
    first, second = stage.begin(100 * MIB)
    stage.fail(first, StallError("stalled"))
    stage.receive(second, MIB)
    stage.crew.pass_time(FIRST_DELAY)
    (third,) = stage.new_lanes([second])
    stage.fail(third, StallError("stalled"))
    assert stage.owner.names() == ["probe_answered"]


def test_delays_grow() -> None:
    """Each attempt that brings nothing waits twice as long."""
    stage = Stage(connections=1, retry_times=3)
    stage.begin(10 * MIB)
    for _ in range(3):
        stage.fail(stage.numbers()[0], StallError("stalled"))
        stage.crew.pass_time(60)
    assert [delay for _, _, delay in stage.owner.retries] == [2.0, 4.0, 8.0]


@pytest.mark.parametrize("error", [BUSY, ConnectError("refused")])
def test_a_busy_origin_gets_fewer_connections(error: SegdlError) -> None:
    """An origin that refuses one connection more keeps those it serves."""
    stage = Stage(connections=4, retry_times=0)
    lanes = stage.begin(400 * MIB)
    stage.answer(lanes[1])
    for lane in lanes[2:]:
        stage.fail(lane, error)
    stage.crew.pass_time(29)
    assert stage.numbers() == lanes[:2]
    stage.finish(lanes[0])
    assert len(stage.numbers()) == 2
    stage.crew.pass_time(2)
    assert any(stage.splits(lane) for lane in stage.numbers())
    assert (stage.owner.names(), stage.owner.retries) == (["probe_answered"], [])


def test_a_busy_origin_that_serves_nobody() -> None:
    """A refusal while no lane receives anything is an attempt like others."""
    stage = Stage(connections=2, retry_times=0)
    first, _ = stage.begin(40 * MIB)
    stage.fail(first, BUSY)
    assert stage.owner.told[-1] == ("source_failed", str(BUSY), Action.FATAL)


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (StorageError("read-only"), Action.FATAL),
        (StatusError("404", status=404), Action.FATAL),
        (RepresentationChanged("another tag"), Action.CHANGED),
    ],
)
def test_failures_the_job_decides(error: SegdlError, action: Action) -> None:
    """What asking again can't help goes to the job at once."""
    stage = Stage()
    stage.fail(stage.begin(10 * MIB)[0], error)
    assert stage.owner.told[-1] == ("source_failed", str(error), action)


def test_answers_that_end_before_they_begin() -> None:
    """An end in good order that brought nothing is an attempt, not asked for ever."""
    stage = Stage(connections=1, retry_times=1)
    (lane,) = stage.begin(10 * MIB)
    stage.lanes.on_ended(Ended(lane, 0, 0, None))
    assert stage.numbers() == []
    stage.crew.pass_time(FIRST_DELAY)
    (lane,) = stage.numbers()
    stage.lanes.on_ended(Ended(lane, 0, 0, None))
    ended = "the answer ended before its first byte"
    assert stage.owner.told[-1] == ("source_failed", ended, Action.FATAL)


@pytest.mark.parametrize("where", ["header", "link", "url"])
def test_two_tags_that_echo(where: str) -> None:
    """Lanes that disagree are a change; what the tags repeat of a secret is hidden."""
    secret = "canary-5f0c"
    stage = Stage(headers={"X-Key": secret} if where == "header" else None)
    base = f"{URL}?x={secret}" if where == "url" else URL
    stage.lanes.sources.first.url = base
    stage.answer(stage.probe(), url=f"{SIGNED}{secret}" if where == "link" else base)
    stage.lanes.begin(Plan(100 * MIB, MIB), PART, Validator())
    for number, lane in enumerate(stage.numbers()[1:3]):
        tag = EntityTag(f"{number}-s3cret{secret}", weak=False)
        stage.answer(lane, validator=Validator(etag=tag))
    kind, error, action = stage.owner.told[-1]
    assert (kind, action) == ("source_failed", Action.CHANGED)
    assert "the remote file changed: the entity tag was" in error
    assert secret not in error


def test_wrong_answers_are_attempts() -> None:
    """An answer that breaks HTTP is asked for again, as long as it differs."""
    stage = Stage(connections=1, retry_times=3)
    (lane,) = stage.begin(10 * MIB)
    for said in ("no sense", "nonsense", "no sense"):
        stage.fail(lane, ProtocolError(said))
        assert stage.owner.retries[-1][0] == said
        stage.crew.pass_time(60)
        (lane,) = stage.numbers()
    stage.fail(lane, ProtocolError("no sense"))
    assert stage.owner.told[-1] == ("source_failed", "no sense", Action.FATAL)
    assert len(stage.owner.retries) == 3


def test_the_same_wrong_answer_twice_is_final() -> None:
    """Unless something came in between; lanes of one wave are one answer."""
    stage = Stage(connections=4, retry_times=9)
    lanes = stage.begin(100 * MIB)
    for again in range(3):
        for lane in lanes:
            stage.fail(lane, ProtocolError("no sense"))
        assert len(stage.owner.retries) == again + 1
        stage.crew.pass_time(60)
        stage.share()
        lanes = stage.numbers()
        if again < 2:
            stage.receive(lanes[0], MIB)
    stage.fail(lanes[0], ProtocolError("no sense"))
    assert stage.owner.told[-1] == ("source_failed", "no sense", Action.FATAL)


# --- links that expire ----------------------------------------------------------------


def test_an_expired_link_is_resolved_again() -> None:
    """One lane asks the user's URL where the link leads now; then all go there."""
    stage = Stage(connections=3, retry_times=0)
    lanes = stage.begin(300 * MIB, url=SIGNED)
    for lane in lanes:
        stage.receive(lane, MIB)
    stage.fail(lanes[0], BROKEN)
    stage.fail(lanes[1], BROKEN)
    stage.crew.pass_time(0.2)
    first, second = stage.new_lanes(lanes)
    stage.receive(second, 100)
    stage.fail(first, EXPIRED)
    (resolving,) = stage.new_lanes([*lanes, first, second])
    fetch = stage.fetch_of(resolving)
    assert (fetch.url, fetch.follow) == (URL, True)
    stage.fail(second, BROKEN)
    stage.crew.pass_time(0.2)
    assert stage.new_lanes([*lanes, first, second]) == [resolving]
    stage.answer(resolving, url=SIGNED + "2")
    (third,) = stage.new_lanes([*lanes, first, second, resolving])
    fetch = stage.fetch_of(third)
    assert (fetch.url, fetch.follow) == (SIGNED + "2", False)
    assert stage.owner.names() == ["probe_answered"]


def test_a_wave_of_expired_answers() -> None:
    """When all lanes find the link expired, it is resolved once, and nothing fails."""
    stage = Stage(connections=4)
    lanes = stage.begin(400 * MIB, url=SIGNED)
    for lane in lanes:
        stage.receive(lane, 100)
        stage.fail(lane, BROKEN)
    stage.crew.pass_time(0.2)
    stage.share()
    lanes = stage.numbers()
    assert [stage.fetch_of(lane).url for lane in lanes] == [SIGNED] * 4
    for lane in lanes:
        stage.fail(lane, EXPIRED)
    assert stage.owner.names() == ["probe_answered"]
    (resolving,) = stage.new_lanes(lanes)
    fetch = stage.fetch_of(resolving)
    assert (fetch.url, fetch.follow) == (URL, True)
    stage.answer(resolving, url=SIGNED + "2")
    stage.share()
    assert len(stage.numbers()) == 4
    urls = {stage.fetch_of(lane).url for lane in stage.numbers()}
    assert urls == {URL, SIGNED + "2"}


def test_a_late_answer_on_an_expired_link() -> None:
    """An answer on the old link does not make it the present one again."""
    stage = Stage(connections=2)
    first, second = stage.begin(300 * MIB, url=SIGNED)
    stage.fail(first, EXPIRED)
    (resolving,) = stage.new_lanes([second])
    stage.answer(second, url=SIGNED)
    assert stage.lanes.effective_url is None
    stage.answer(resolving, url=SIGNED + "2")
    stage.answer(second, url=SIGNED)
    assert stage.lanes.effective_url == SIGNED + "2"


def test_a_link_that_stays_expired() -> None:
    """A refusal after the link was resolved again is final."""
    stage = Stage(connections=1)
    (lane,) = stage.begin(10 * MIB, url=SIGNED)
    stage.fail(lane, EXPIRED)
    (lane,) = stage.numbers()
    stage.answer(lane, url=SIGNED)
    stage.fail(lane, EXPIRED)
    assert stage.owner.told[-1][:2] == ("source_failed", str(EXPIRED))


def test_a_link_that_expires_again_later() -> None:
    """After progress a link may expire, and be resolved, once more."""
    stage = Stage(connections=1, retry_times=0)
    stage.begin(100 * MIB, url=SIGNED)
    for _ in range(3):
        (lane,) = stage.numbers()
        stage.fail(lane, EXPIRED)
        (lane,) = stage.numbers()
        assert stage.fetch_of(lane).url == URL
        stage.answer(lane, url=SIGNED)
        stage.write(lane, MIB)
        stage.fail(lane, BROKEN)
        stage.crew.pass_time(0.2)
    assert stage.owner.names() == ["probe_answered"]


def test_a_refusal_by_the_url_itself() -> None:
    """A 403 of a URL that led nowhere else is final: there is nothing to resolve."""
    stage = Stage()
    stage.fail(stage.begin(10 * MIB)[0], EXPIRED)
    assert stage.owner.told[-1] == ("source_failed", str(EXPIRED), Action.FATAL)


def test_a_redirector_that_is_busy_while_old_links_live() -> None:
    """Its refusals are attempts: lanes with another origin say nothing of it."""
    stage = Stage(connections=4, retry_times=2)
    lanes = stage.begin(64 * MIB, url=SIGNED)
    stage.receive(lanes[0], MIB)
    for lane in lanes[1:3]:
        stage.answer(lane, url=SIGNED)
        stage.receive(lane, MIB)
    before = len(stage.crew.fetches)
    stage.fail(lanes[3], EXPIRED)
    while "source_failed" not in stage.owner.names():
        for lane in stage.new_lanes(lanes):
            stage.fail(lane, BUSY)
        stage.crew.pass_time(0.1)
        stage.lanes.fill()
    assert len(stage.crew.fetches) - before <= 4  # one more by its end
    assert [attempt for _, attempt, _ in stage.owner.retries] == [1, 2]


# --- streams without ranges -----------------------------------------------------------


def test_a_stream_that_breaks() -> None:
    """A stream has to begin again; bytes don't refill its budget."""
    stage = Stage(retry_times=1)
    stage.lanes.whole = True
    (lane,) = stage.begin(100 * MIB)
    stage.write(lane, MIB)
    stage.fail(lane, BROKEN)
    assert "stream_broke" not in stage.owner.names()
    stage.crew.pass_time(FIRST_DELAY)
    assert stage.owner.names()[-1] == "stream_broke"
    (lane,) = stage.begin(100 * MIB)
    stage.write(lane, MIB)
    stage.fail(lane, BROKEN)
    assert stage.owner.told[-1] == ("source_failed", str(BROKEN), Action.FATAL)


# --- another source -------------------------------------------------------------------


def test_another_source() -> None:
    """A mirror gets a fresh budget, ranges again, and not the user's secrets."""
    secret = {"Authorization": "Bearer t"}
    stage = Stage(retry_times=1, headers=secret, mirrors=(MIRROR,))
    stage.fail(stage.probe(), BROKEN)
    stage.lanes.whole = True
    assert stage.lanes.turn_to_mirror()
    stage.fail(stage.probe(), BROKEN)
    fetch = stage.crew.fetches[-1]
    assert (fetch.url, fetch.headers, fetch.ranged) == (MIRROR, {}, True)
    assert [attempt for _, attempt, _ in stage.owner.retries] == [1, 1]


def with_mirror(*, verified: bool = False, **options: Any) -> tuple[Stage, int]:
    """Give a stage whose mirror was asked, and the number of that lane."""
    stage = Stage(mirrors=(MIRROR,), **options)
    stage.owner.verified = verified
    stage.begin(100 * MIB)
    (lane,) = stage.lanes_of(MIRROR)
    return stage, lane


def test_a_mirror_is_asked_once_at_first() -> None:
    """One lane waits for the mirror's answer, and has a part of the file to bring."""
    stage, lane = with_mirror(headers={"Authorization": "Bearer t"})
    fetch = stage.fetch_of(lane)
    assert (fetch.hold, fetch.complete, fetch.validator) == (True, 100 * MIB, None)
    assert (fetch.part, fetch.headers) == (None, {})
    assert len(stage.lanes_of(URL)) == START - 1


def test_a_proved_mirror_writes() -> None:
    """The same strong validator is proof; then the lane brings its part."""
    stage, lane = with_mirror()
    stage.answer(lane, url=MIRROR)
    given = stage.segments[lane]
    accept = Accept(lane, PART, given.begin, given.end)
    assert stage.crew.messages(lane) == [accept]
    stage.write(lane, MIB)
    assert len(stage.owner.told[-1][1]) == 1


@pytest.mark.parametrize("verified", [False, True])
def test_a_mirror_with_another_validator(verified: bool) -> None:
    """It is proof enough only when a digest will be compared."""
    stage, lane = with_mirror(verified=verified)
    other = Validator(etag=EntityTag("v2", weak=False))
    stage.answer(lane, url=MIRROR, validator=other)
    if verified:
        assert isinstance(stage.crew.messages(lane)[0], Accept)
    else:
        assert stage.crew.messages(lane) == [Stop(lane)]
        stage.lanes.on_ended(Ended(lane, stage.opened(lane), 0, None))
        assert stage.lanes_of(MIRROR) == []
        assert len(stage.numbers()) == 16


def test_pieces_of_a_mirror_that_lied_are_doubted() -> None:
    """What it brought is in doubt, and what is still on its way is not recorded."""
    stage, lane = with_mirror()
    stage.answer(lane, url=MIRROR)
    stage.write(lane, MIB)
    offset = stage.opened(lane)
    stage.fail(lane, RepresentationChanged("another entity tag"))
    name, doubted = stage.owner.told[-1]
    assert name == "pieces_doubted"
    assert doubted(offset)
    assert not doubted(0)
    assert stage.lanes_of(MIRROR) == []
    assert "going on with the others" in stage.owner.retries[-1][0]


def test_a_base_that_fails_leaves_it_to_a_proved_mirror() -> None:
    """The others go on, and nothing begins anew."""
    stage, lane = with_mirror(retry_times=0)
    stage.answer(lane, url=MIRROR)
    first = stage.lanes_of(URL)[0]
    stage.fail(first, StatusError("the origin answered 404", status=404))
    assert stage.owner.names() == ["probe_answered"]
    for other in stage.lanes_of(URL):
        assert Stop(other) in stage.crew.messages(other)
        stage.lanes.on_ended(Ended(other, stage.opened(other), 0, None))
    assert stage.lanes_of(URL) == []
    assert len(stage.lanes_of(MIRROR)) == 16


@pytest.mark.parametrize(("brought", "left"), [(60_000, 1), (1000, 0)])
def test_a_slow_source_loses_its_lanes_to_a_fast_one(brought: int, left: int) -> None:
    """One at a time, down to the last; that one too where it is as if it were sick."""
    stage, lane = with_mirror(connections=4)
    stage.answer(lane, url=MIRROR)
    for _ in range(40):
        stage.crew.pass_time(0.5)
        for number in stage.numbers():
            slow = stage.fetch_of(number).url == URL
            stage.receive(number, brought if slow else 200_000)
        stage.lanes.fill()
        for number in stage.numbers():
            if Stop(number) in stage.crew.messages(number):
                position = stage.segments[number].position
                received = position - stage.opened(number)
                stage.lanes.on_ended(Ended(number, position, received, None))
    assert len(stage.lanes_of(URL)) == left
    assert len(stage.lanes_of(MIRROR)) == 4 - left


def test_a_source_that_is_as_fast_keeps_its_lanes() -> None:
    """Nothing is moved for less than twice the speed."""
    stage, lane = with_mirror(connections=4)
    stage.answer(lane, url=MIRROR)
    for _ in range(20):
        stage.crew.pass_time(0.5)
        for number in stage.numbers():
            fast = stage.fetch_of(number).url == MIRROR
            stage.receive(number, 190_000 if fast else 100_000)
        stage.lanes.fill()
    assert not any(isinstance(message, Stop) for _, message in stage.crew.sent)


def test_a_fast_source_without_room_takes_no_lane_away() -> None:
    """A mirror that bears one connection leaves the others where they are."""
    stage = Stage(connections=8, mirrors=(MIRROR,))
    stage.begin(4000 * MIB)
    for lane in stage.numbers():
        stage.answer(lane, url=stage.fetch_of(lane).url)
    for _ in range(8):
        stage.crew.limits(MIRROR).refused(99, stage.crew.time, alone=False)
    before = len(stage.crew.fetches)
    for _ in range(100):
        for lane in stage.numbers():
            fast = stage.fetch_of(lane).url == MIRROR
            stage.receive(lane, MIB // 4 if fast else MIB // 16)
            assert Stop(lane) not in stage.crew.messages(lane)
        stage.crew.pass_time(0.1)
        stage.lanes.fill()
    assert len(stage.crew.fetches) == before


def test_a_mirror_that_says_nothing_is_put_aside() -> None:
    """What it was asked for is not waited for while others have nothing to do."""
    stage = Stage(connections=2, mirrors=(MIRROR,))
    stage.begin(64 * MIB)
    (silent,) = stage.lanes_of(MIRROR)
    stage.crew.pass_time(1.0)
    while lanes := stage.lanes_of(URL):
        stage.finish(lanes[0])
    assert Stop(silent) not in stage.crew.messages(silent)
    stage.crew.pass_time(1.1)
    stage.lanes.fill()
    assert Stop(silent) in stage.crew.messages(silent)
    stage.fail(silent, StallError("stalled"))
    stage.lanes.fill()
    assert stage.lanes_of(MIRROR) == []
    assert stage.lanes_of(URL)


# --- links that are made anew ---------------------------------------------------------


def test_a_link_is_made_anew_once_for_all_lanes() -> None:
    """Nobody asks until the new link is there; then all ask it."""
    stage = Stage(connections=3, new_url=lambda: URL)
    lanes = stage.begin(100 * MIB)
    stage.write(lanes[0], MIB)
    for lane in lanes:
        stage.fail(lane, EXPIRED)
    assert stage.owner.names() == ["probe_answered", "renew_link"]
    assert stage.numbers() == []
    stage.lanes.use_link(stage.request(urls=(URL + "?new",)))
    (first,) = stage.numbers()
    assert (stage.fetch_of(first).url, stage.fetch_of(first).follow) == (
        URL + "?new",
        True,
    )
    stage.answer(first, url=URL + "?new")
    stage.receive(first, MIB)
    stage.lanes.fill()
    stage.share()
    assert len(stage.numbers()) == 3


def test_a_mirror_whose_link_expired_wants_no_new_one() -> None:
    """The caller's function makes links of the URL, not of a mirror."""
    stage = Stage(connections=8, mirrors=(MIRROR,), new_url=lambda: URL)
    stage.begin(4000 * MIB)
    for lane in stage.numbers():
        stage.answer(lane, url=stage.fetch_of(lane).url)
    (lane,) = stage.lanes_of(MIRROR)
    stage.receive(lane, MIB)
    stage.fail(lane, EXPIRED)
    assert "renew_link" not in stage.owner.names()


def test_a_new_link_that_comes_when_a_mirror_is_the_base() -> None:
    """It belongs to the URL that was given first, whoever leads by then."""
    stage = Stage(connections=8, mirrors=(MIRROR,), new_url=lambda: URL)
    stage.begin(4000 * MIB)
    for lane in stage.numbers():
        stage.answer(lane, url=stage.fetch_of(lane).url)
        stage.receive(lane, MIB)
    _, one, other, *_ = stage.lanes_of(URL)
    stage.fail(one, EXPIRED)
    stage.fail(other, StatusError("451", status=451))
    assert stage.lanes.sources.base.url == MIRROR
    stage.lanes.use_link(stage.request(urls=(URL + "?new", MIRROR)))
    assert stage.lanes.sources.base.url == MIRROR
    assert stage.lanes.sources.first.url == URL + "?new"


# --- origins that are busy ------------------------------------------------------------


def test_a_file_that_is_whole_waits_for_no_connection() -> None:
    """What it would have liked at its end is left to others while it is verified."""
    stage = Stage(connections=4)
    (*most, last) = stage.begin(64 * MIB)
    for lane in (*most, last):
        stage.answer(lane)
    limits = stage.crew.limits(URL)
    for _ in range(4):
        limits.opened(2)
        limits.answered()
    limits.refused(2, stage.crew.now(), alone=False)
    for lane in most:
        stage.finish(lane)
        limits.opened(2)
        limits.answered()
    stage.lanes.fill()
    assert limits.surplus(2, stage.crew.now()) == 1
    stage.finish(last)
    assert stage.owner.names()[-1] == "all_written"
    assert limits.room(2, stage.crew.now()) == 1


def test_another_jobs_wait_is_heeded() -> None:
    """What another job was told to wait is waited here too, before the probe."""
    stage = Stage()
    stage.crew.limits(URL).hold_until(stage.crew.time + 5)
    stage.lanes.open_probe(None, complete=None, validator=None, if_range=None)
    assert stage.crew.fetches == []
    assert stage.owner.retries[0][2] == 5
    stage.crew.pass_time(4.9)
    assert stage.crew.fetches == []
    stage.crew.pass_time(0.2)
    assert len(stage.crew.fetches) == 1


def test_a_busy_origin_holds_back_others() -> None:
    """A refusal with Retry-After holds back everybody, for that long."""
    stage = Stage()
    busy = StatusError("busy", status=503, retry_after_seconds=9.0)
    stage.fail(stage.probe(), busy)
    assert stage.crew.limits(URL).not_before == stage.crew.time + 9
    assert stage.crew.limits(MIRROR).not_before == 0


def test_those_that_live_go_on_where_one_was_too_many() -> None:
    """A Retry-After for one more holds nobody up, but one more is not tried before."""
    stage = Stage(connections=4)
    lanes = stage.begin(4000 * MIB)
    for lane in lanes[:3]:
        stage.answer(lane)
        stage.receive(lane, MIB)
    stage.fail(lanes[3], StatusError("503", status=503, retry_after_seconds=90.0))
    limits = stage.crew.limits(URL)
    assert limits.not_before == 0
    stage.finish(lanes[0])
    assert len(stage.numbers()) == 3, "in place of the one that ended"
    stage.answer(stage.numbers()[-1])
    stage.crew.pass_time(89)
    stage.lanes.fill()
    assert len(stage.numbers()) == 3
    assert not any(stage.splits(lane) for lane in stage.numbers())
    stage.crew.pass_time(2)
    stage.lanes.fill()
    stage.share()
    assert len(stage.numbers()) == 4
    assert stage.owner.retries == []


def test_nothing_is_split_for_lanes_that_are_not_to_be() -> None:
    """At the number an origin bears, lanes keep what they have."""
    stage = Stage(connections=8)
    lanes = stage.begin(100 * MIB)
    for lane in lanes[:3]:
        stage.answer(lane)
        stage.receive(lane, 1000)
    for lane in lanes[3:]:
        stage.fail(lane, BUSY)
    stage.crew.pass_time(2)
    for lane in stage.numbers():
        stage.receive(lane, MIB)
    stage.lanes.fill()
    assert stage.numbers() == lanes[:3]
    assert not any(isinstance(message, Split) for _, message in stage.crew.sent)


def test_a_stop_while_it_waits() -> None:
    """A job that waits for an origin ends at once, and asks nothing later."""
    stage = Stage()
    stage.crew.limits(URL).hold_until(stage.crew.time + 5)
    stage.lanes.open_probe(None, complete=None, validator=None, if_range=None)
    stage.lanes.stop()
    assert stage.owner.names() == ["lanes_gone"]
    stage.crew.pass_time(10)
    assert stage.crew.fetches == []


# --- stopping -------------------------------------------------------------------------


def test_a_stop_waits_for_the_lanes() -> None:
    """All lanes are told to stop; when the last has ended, the job hears of it."""
    stage = Stage(connections=2)
    first, second = stage.begin(40 * MIB)
    stage.lanes.stop()
    assert stage.crew.messages(first)[-1] == Stop(first)
    assert stage.crew.messages(second) == [Stop(second)]
    stage.lanes.on_pieces([(first, 0, 100, SUM)])
    stage.lanes.on_ended(Ended(first, 100, 100, None))
    assert stage.owner.names() == ["probe_answered"]
    stage.fail(second, BROKEN)
    assert stage.owner.names() == ["probe_answered", "lanes_gone"]
    assert stage.lanes.plan is not None
    assert stage.lanes.plan.done_bytes == 100
    stage.crew.pass_time(60)
    assert stage.owner.names() == ["probe_answered", "lanes_gone"]
    assert stage.crew.given_up == []


def test_a_stop_without_lanes() -> None:
    """With no lane open the job hears at once."""
    stage = Stage()
    stage.lanes.stop()
    assert stage.owner.names() == ["lanes_gone"]


def test_lanes_that_hang_are_given_up() -> None:
    """A lane that doesn't stop within five seconds is ended with its worker."""
    stage = Stage(connections=2)
    first, second = stage.begin(40 * MIB)
    stage.lanes.stop()
    stage.finish(first)
    stage.crew.pass_time(4.9)
    assert stage.crew.given_up == []
    stage.crew.pass_time(0.2)
    assert stage.crew.given_up == [second]
    assert (len(stage.lanes), stage.numbers()) == (0, [])
    assert stage.owner.names() == ["probe_answered", "lanes_gone"]
    stage.lanes.on_lost(second, LOST)
    assert stage.owner.names() == ["probe_answered", "lanes_gone"]


def test_lanes_are_given_up_at_once_when_there_is_no_time() -> None:
    """The end of an engine does not wait; without a stop nothing is given up."""
    stage = Stage(connections=2)
    first, second = stage.begin(40 * MIB)
    stage.lanes.give_up()
    assert stage.crew.given_up == []
    stage.lanes.stop()
    stage.lanes.give_up()
    assert stage.crew.given_up == [first, second]
    assert stage.owner.names() == ["probe_answered", "lanes_gone"]
    stage.crew.pass_time(10)
    assert stage.owner.names() == ["probe_answered", "lanes_gone"]


def test_giving_up_belongs_to_its_stop() -> None:
    """The deadline of a stop that worked doesn't end the lanes of a later one early."""
    stage = Stage()
    probe = stage.probe()
    stage.lanes.stop()
    stage.lanes.on_ended(Ended(probe, 0, 0, None))
    stage.crew.pass_time(0.5)
    later = stage.probe()
    stage.lanes.stop()
    stage.crew.pass_time(4.9)
    assert stage.crew.given_up == []
    stage.crew.pass_time(0.2)
    assert stage.crew.given_up == [later]


def test_lanes_after_a_stop_are_not_given_up() -> None:
    """Lanes that were opened after a stop live on past its deadline."""
    stage = Stage()
    probe = stage.probe()
    stage.lanes.stop()
    stage.lanes.on_ended(Ended(probe, 0, 0, None))
    stage.probe()
    stage.crew.pass_time(5)
    assert (stage.crew.given_up, len(stage.lanes)) == ([], 1)


def test_a_stop_while_lanes_are_split() -> None:
    """What a split frees during a stop is missing, and nobody fetches it."""
    stage = Stage(connections=2)
    first, second = stage.begin(20 * MIB)
    stage.finish(first)
    end = stage.segments[second].end
    stage.lanes.stop()
    stage.lanes.on_shrunk(second, end - 4 * MIB)
    assert stage.numbers() == [second]
    stage.lanes.on_ended(Ended(second, stage.opened(second), 0, None))
    assert stage.owner.names()[-1] == "lanes_gone"
    assert stage.lanes.plan is not None
    assert stage.lanes.plan.missing_bytes == 20 * MIB - stage.lanes.plan.done_bytes


def test_an_answer_during_a_stop() -> None:
    """The answer of a probe that is being stopped is nobody's."""
    stage = Stage()
    probe = stage.probe()
    stage.lanes.stop()
    stage.answer(probe)
    assert stage.owner.names() == []


def test_delays_that_end_after_a_stop() -> None:
    """A lane that waited to be followed is not, after a stop."""
    stage = Stage(connections=1)
    (lane,) = stage.begin(10 * MIB)
    stage.receive(lane, MIB)
    stage.fail(lane, BROKEN)
    stage.lanes.stop()
    opened = len(stage.crew.fetches)
    stage.crew.pass_time(60)
    assert len(stage.crew.fetches) == opened


# --- events of lanes that are gone ----------------------------------------------------


def test_events_of_lanes_that_are_gone() -> None:
    """What a lane says after it was given up changes nothing."""
    stage = Stage(connections=2)
    first, second = stage.begin(40 * MIB)
    stage.lanes.on_lost(second, LOST)
    told, opened = list(stage.owner.names()), len(stage.crew.fetches)
    received, plan = stage.lanes.received_bytes, stage.lanes.plan
    assert plan is not None
    missing = plan.missing_bytes
    begin = stage.opened(second)

    stage.answer(second, url=SIGNED)
    stage.lanes.on_pieces([(second, begin, MIB, SUM)])
    stage.lanes.on_progress(second, begin + MIB, MIB)
    stage.lanes.on_shrunk(second, begin + MIB)
    stage.lanes.on_ended(Ended(second, begin + MIB, MIB, failure_to_json(EXPIRED)))
    stage.lanes.on_lost(second, LOST)

    assert stage.owner.names() == told
    assert len(stage.crew.fetches) == opened
    assert (plan.missing_bytes, plan.done_bytes) == (missing, 0)
    assert stage.lanes.received_bytes == received
    assert stage.lanes.effective_url == URL
    assert stage.numbers() == [first]


# --- any order of events --------------------------------------------------------------


class Chaos:
    """Lanes whose workers and origin do one random thing after the other."""

    def __init__(self, seed: int, connections: int) -> None:
        self.drawn = random.Random(seed)
        self.stage = Stage(connections=connections, retry_times=1000)
        self.failures = self.drawn.randrange(60)
        # The link that works now; it expires only after it has brought something,
        # since a link that never works is a failure of the source.
        self.link = 1
        self.worked = False

    def url(self) -> str:
        """Give where the link leads now."""
        return f"{SIGNED}&link={self.link}"

    def step(self) -> None:
        """Let one thing happen."""
        stage, drawn = self.stage, self.drawn
        lanes = [*stage.numbers(), *stage.doubles()]
        if not lanes or drawn.random() < 0.1:
            stage.crew.pass_time(drawn.choice([0.05, 0.5, 10.0]))
            stage.lanes.fill()
            return
        lane = drawn.choice(lanes)
        if lane not in stage.segments:
            self.go_on_double(lane)
            return
        if Stop(lane) in stage.crew.messages(lane) and drawn.random() < 0.5:
            written = stage.segments[lane].begin
            stage.lanes.on_ended(Ended(lane, written, MIB, None))
            return
        fresh = stage.segments[lane].position == stage.opened(lane)
        expired = fresh and stage.fetch_of(lane).url not in (URL, self.url())
        if expired and drawn.random() < 0.8:
            stage.fail(lane, EXPIRED)
        elif self.failures > 0 and drawn.random() < 0.4:
            self.failures -= 1
            self.fail(lane, fresh)
        elif stage.is_asked_to_split(lane) and drawn.random() < 0.5:
            segment = stage.segments[lane]
            stage.split_answers[lane] = stage.split_answers.get(lane, 0) + 1
            kept = int(segment.remaining_bytes * stage.splits(lane)[-1].kept)
            end = drawn.choice([segment.position + kept, segment.end])
            stage.lanes.on_shrunk(lane, end)
        else:
            self.go_on(lane)

    def go_on_double(self, lane: int) -> None:
        """Let a lane that has no bytes of its own do something, or fail."""
        stage, drawn = self.stage, self.drawn
        fetch = stage.fetch_of(lane)
        wanted = fetch.end - fetch.begin
        if Stop(lane) in stage.crew.messages(lane):
            stage.lanes.on_ended(Ended(lane, fetch.begin, 0, None))
        elif drawn.random() < 0.1:
            stage.lanes.on_lost(lane, LOST)
        elif drawn.random() < 0.2:
            stage.fail(lane, drawn.choice([BROKEN, BUSY, EXPIRED, StallError("s")]))
        elif drawn.random() < 0.5:
            stage.answer(lane, url=fetch.url)
            stage.lanes.on_progress(lane, fetch.begin, drawn.randint(0, wanted))
        elif stage.lanes._lanes[lane].answered:
            stage.lanes.on_progress(lane, fetch.begin, wanted)
            stage.lanes.on_kept(lane)

    def fail(self, lane: int, fresh: bool) -> None:
        """Let something go wrong."""
        stage = self.stage
        error = self.drawn.choice([BROKEN, LOST, StallError("stalled"), BUSY])
        if error is LOST:
            stage.lanes.on_lost(lane, LOST)
        elif error is not BUSY or fresh:
            stage.fail(lane, error)
        elif self.worked:
            self.link += 1
            self.worked = False

    def go_on(self, lane: int) -> None:
        """Let a lane deliver something."""
        stage, drawn = self.stage, self.drawn
        url, segment = stage.fetch_of(lane).url, stage.segments[lane]
        stage.answer(lane, url=self.url() if url == URL else url)
        self.worked = self.worked or url in (URL, self.url())
        if drawn.random() < 0.6 and segment.end - segment.begin > MIB:
            stage.write(lane, MIB)
        elif drawn.random() < 0.3:
            stage.receive(lane, 100_000)
        else:
            stage.finish(lane)


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**32),
    size=st.integers(0, 60 * MIB),
    connections=st.integers(1, 6),
)
def test_whatever_happens_it_goes_on(seed: int, size: int, connections: int) -> None:
    """After failures that pass, the file is always fetched to its end."""
    chaos = Chaos(seed, connections)
    stage = chaos.stage
    probe = stage.probe()
    stage.answer(probe, url=chaos.url())
    plan = Plan(size, MIB)
    stage.lanes.begin(plan, PART, VALIDATOR)
    if not size:
        stage.lanes.on_ended(Ended(probe, 0, 0, None))
    for _ in range(2000):
        if stage.owner.names() != ["probe_answered"]:
            break
        assert len(stage.lanes) or stage.crew.timers, "nothing would happen any more"
        assert len(stage.lanes) <= connections
        chaos.step()
        for accept in stage.accepted():
            fetch = stage.fetch_of(accept.lane)
            assert fetch.begin <= accept.begin < (accept.end or 0) <= fetch.end
    assert stage.owner.names() == ["probe_answered", "all_written"]
    assert stage.owner.told[-1] == ("all_written", size)
    assert (plan.finished, len(stage.lanes)) == (True, 0)
