"""The real lanes at work: a job and a scheduler without files, threads and processes.

    Case ──> Desk ── Lanes.open_probe ──> ... ──> all_written ──> Result
               │
               every message, both ways, one after the other, at the moment it is sent

What must hold is looked at on the way, each breach told once, in words:

- the download ends, with every byte recorded exactly once;
- no more lanes, and no more connections, than asked for;
- an origin that refuses gets one wave of refusals and then one each half minute, and
  nothing at all as long as its Retry-After says so;
- lanes don't lie idle for a second while one of them has seconds of work for others;
- what is received is at most a tenth more than the file.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

from segdl._lanes import Lanes
from segdl._manifest import Piece
from segdl._messages import (
    Answered,
    Ended,
    Fetch,
    Kept,
    Message,
    PartRef,
    Pieces,
    Progress,
    Shrunk,
)
from segdl._origins import OriginLimits
from segdl._plan import MIB, Plan, piece_size
from segdl._ramp import most_lanes
from segdl._request import Request
from segdl._retry import Action
from segdl._urls import Origin, origin
from segdl.config import EngineConfig
from segdl.errors import SegdlError
from simulation.clock import BEGIN_SECONDS, Clock
from simulation.ideal import ideal_seconds
from simulation.network import Network, Server, go_on
from simulation.worker import VALIDATOR, Worker

URL = "https://example.org/a.bin"

_TICK_SECONDS = 0.1
# The part file and its manifest are made while the first answer waits.
_PREPARE_SECONDS = 0.005
# Then it hangs: the longest wait a policy has is 30 s, for a stall, some times over.
_PATIENCE_SECONDS = 300.0
_PATIENCE_FACTOR = 20.0

# So many in one moment go round in a circle.
_MOST_MESSAGES = 10_000

# Asking for a rest twice costs its bytes twice: of a small file that is a larger share.
_MOST_RECEIVED = 1.1
_MOST_RECEIVED_BESIDES = 1 << 20
_RAISE_SECONDS = 30.0
_FEW_REFUSALS = 2
_JITTER = 0.1
_IDLE_TICKS = 10
_WORTH_SHARING_BYTES = 8 * MIB
_WORTH_SHARING_SECONDS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """
    One download.

    Attributes:
        family: What its server is a case of.
        seed: Of what is drawn on the way.
        server: The model.
        connections: As in `EngineConfig`.
    """

    family: str
    seed: int
    server: Server
    connections: int | str = "auto"

    @property
    def ceiling(self) -> int:
        """The most connections that are allowed."""
        return most_lanes(self.connections)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """
    How a case went.

    Attributes:
        case: Which.
        seconds: It took.
        ideal_seconds: It could have taken.
        requests: That were sent.
        refused: Of these, answered 503.
        twice_bytes: Received and of no use, since another lane had them.
        connections: The most at the same time.
        broken: What did not hold.
    """

    case: Case
    seconds: float
    ideal_seconds: float
    requests: int
    refused: int
    twice_bytes: int
    connections: int
    broken: tuple[str, ...]

    @property
    def ratio(self) -> float:
        """How many times the ideal time it took."""
        return self.seconds / self.ideal_seconds


Trace = Callable[[float, str], None]


class Desk:
    """
    One case on its way: what Lanes need of a job and of a scheduler.

    Args:
        case: Which.
        trace: Called with seconds and words at every message; None for silence.
    """

    def __init__(self, case: Case, trace: Trace | None = None) -> None:
        self.number = 1
        self.verified = False
        self.case = case
        self.clock = Clock()
        self.network = Network(case.server, self.clock, case.seed)
        self.worker = Worker(self.clock, self.network, self._to_parent)
        self.ended_at: float | None = None
        self.most_lanes = 0
        self.failure: str | None = None
        self.pieces: list[tuple[int, int]] = []
        self.broken: dict[str, None] = {}
        self._trace = trace
        self._mail: deque[tuple[Callable[[Any], None], Message]] = deque()
        self._numbers = count(1)
        self._random = random.Random(case.seed + 1)
        self._origins: dict[Origin, OriginLimits] = {}
        self._held_until = 0.0
        self._bears = 0
        self._not_before = 0.0
        self._back_at = 0.0
        self._idle_ticks = 0
        self._moment = 0.0
        self._messages = 0  # in this moment
        request = Request(
            urls=(URL,),
            headers={},
            own_headers={},
            directory="/",
            filename=None,
            digest=None,
            on_exists="reuse",
            connections=case.connections,
        )
        self.lanes = Lanes(self, request, EngineConfig(), self)  # type: ignore[arg-type]  # as much of a job as lanes need

    def run(self) -> Result:
        """Run to the end, or to where nothing more is to be expected."""
        ideal = ideal_seconds(self.case.server, self.case.ceiling)
        last = BEGIN_SECONDS + _PATIENCE_SECONDS + _PATIENCE_FACTOR * ideal
        self.probe_again()
        self.clock.later(_TICK_SECONDS, self._tick)
        while self.ended_at is None and self.failure is None:
            self._deliver()
            if not go_on(self.clock, self.network, last):
                self.failure = f"not over after {last - BEGIN_SECONDS:.0f} s"
        self._check_end()
        return Result(
            case=self.case,
            seconds=(self.ended_at or self.clock.now) - BEGIN_SECONDS,
            ideal_seconds=ideal,
            requests=self.worker.requests,
            refused=self.network.refused,
            twice_bytes=self.worker.received_bytes - sum(n for _, n in self.pieces),
            connections=self.network.most,
            broken=tuple(self.broken),
        )

    def say(self, words: str) -> None:
        """Write into the trace, if there is one."""
        if self._trace is not None:
            self._trace(self.clock.now - BEGIN_SECONDS, words)

    # --- what the job is told ---------------------------------------------------------

    def probe_answered(self, _answer: Answered) -> None:
        self.clock.later(_PREPARE_SECONDS, self._begin)

    def _begin(self) -> None:
        size = self.case.server.size
        piece = piece_size(size)
        part = PartRef("/a.bin.part", 1, 2, False, piece)
        self.lanes.begin(Plan(size, piece), part, VALIDATOR)

    def pieces_written(self, pieces: list[Piece]) -> None:
        self.pieces += [(piece.offset, piece.length) for piece in pieces]

    def all_written(self, end: int) -> None:
        self.say(f"all {end} bytes are written")
        self.ended_at = self.clock.now

    def lanes_gone(self) -> None:
        self.failure = "the lanes were stopped"

    def pieces_doubted(self, _doubted: Callable[[int], bool]) -> None:
        self.failure = "pieces were put in doubt"

    def renew_link(self) -> None:
        self.failure = "a new link was asked for"

    def report_retry(
        self, reason: str, attempt: int = 0, delay_seconds: float = 0.0
    ) -> None:
        self.say(f"retry {attempt} in {delay_seconds:.3g} s: {reason}")

    def source_failed(self, error: SegdlError, _action: Action) -> None:
        self.failure = f"the source was given up: {error}"

    def stream_broke(self) -> None:
        self.failure = "it was to begin again"

    def probe_again(self) -> None:
        self.lanes.open_probe(None, complete=None, validator=None, if_range=None)

    # --- what the scheduler does ------------------------------------------------------

    def now(self) -> float:
        return self.clock.now

    def random(self) -> float:
        return self._random.random()

    def lane_number(self) -> int:
        return next(self._numbers)

    def limits(self, url: str) -> OriginLimits:
        return self._origins.setdefault(origin(url), OriginLimits())

    def fetch(self, _job: Any, fetch: Fetch, _size: int | None) -> None:
        self.most_lanes = max(self.most_lanes, len(self.lanes))
        self._bears = max(self._bears, self._answered())
        if self.clock.now < self._held_until - 1e-6 and len(self.lanes) > self._bears:
            self._breach("one more than there were, before the time of Retry-After")
        self.send(fetch.lane, fetch)

    def send(self, _lane: int, message: Message) -> None:
        self.say(f"──> {_described(message)}")
        self._mail.append((self.worker.take, message))

    def give_up(self, lane: int) -> None:
        self.failure = f"lane {lane} was given up"

    def verify(self, _job: Any, _message: Message) -> None:
        self.failure = "something was to be verified"

    def offload(self, _job: Any, _work: Any, _done: Any) -> None:
        self.failure = "work was offloaded"

    def call_later(self, _job: Any, seconds: float, call: Callable[[], None]) -> None:
        self.clock.later(seconds, call)

    def event(self, _job: Any, _kind: str, _fields: dict[str, Any]) -> None:
        pass

    def ended(self, _job: Any) -> None:
        self.failure = "the job was ended"

    def _to_parent(self, message: Message) -> None:
        self._mail.append((self._handle, message))

    def _deliver(self) -> None:
        if self.clock.now != self._moment:
            self._moment, self._messages = self.clock.now, 0
        while self._mail and self.failure is None:
            take, message = self._mail.popleft()
            take(message)
            self._messages += 1
            if self._messages > _MOST_MESSAGES:
                self.failure = "messages without an end, in a moment"

    def _handle(self, message: Message) -> None:
        """Hand a worker's message on, as the scheduler does."""
        lanes = self.lanes
        if isinstance(message, Progress):
            for row in message.lanes:
                lanes.on_progress(*row)
            return
        if isinstance(message, Pieces):
            lanes.on_pieces(message.pieces)
            return
        self.say(f"<── {_described(message)}")
        if isinstance(message, Answered):
            lanes.on_answered(message)
            # Those that were asked before a refusal came show what it bears.
            self._bears = max(self._bears, self._answered())
        elif isinstance(message, Shrunk):
            lanes.on_shrunk(message.lane, message.end)
        elif isinstance(message, Kept):
            lanes.on_kept(message.lane)
        elif isinstance(message, Ended):
            seconds = (message.failure or {}).get("retry_after_seconds")
            if seconds is not None:
                until = self.clock.now + seconds
                self._held_until = max(self._held_until, until)
                self._bears = self._answered()
            lanes.on_ended(message)

    def _answered(self) -> int:
        return sum(1 for lane in self.lanes.living() if lane.answered)

    def _tick(self) -> None:
        self.lanes.fill()
        self._check_idle()
        self.clock.later(_TICK_SECONDS, self._tick)

    # --- what must hold ---------------------------------------------------------------

    def _breach(self, words: str) -> None:
        self.say(f"BREACH {words}")
        self.broken[words] = None

    def _check_idle(self) -> None:
        """
        Find lanes that lie idle: half of those there have been, or more of them.

        While the origin may get no connection, or no more of them, all is well.
        """
        lanes, plan = self.lanes, self.lanes.plan
        limits, now = self.limits(URL), self.clock.now
        if limits.not_before != self._not_before:
            self._not_before = limits.not_before
            # Nobody need come back at once: not all should in the same moment.
            self._back_at = now + (limits.not_before - now) * (1 + _JITTER)
        if (
            plan is None
            or 2 * len(lanes) >= self.most_lanes
            or now < self._back_at
            or not limits.room(self.number, now)
            or not self._is_shareable(plan)
        ):
            self._idle_ticks = 0
            return
        self._idle_ticks += 1
        if self._idle_ticks == _IDLE_TICKS:
            self._breach(f"{len(lanes)} of {self.most_lanes} lanes, with work for more")

    def _is_shareable(self, plan: Plan) -> bool:
        """Whether one lane has much to do, for long, at the best speed it may have."""
        if plan.missing_bytes > _WORTH_SHARING_BYTES:
            return True
        server = self.case.server
        rate = min(server.fastest, server.total_rate)
        least = max(_WORTH_SHARING_BYTES, rate * _WORTH_SHARING_SECONDS)
        return any(s.remaining_bytes > least for s in plan.segments.values())

    def _check_end(self) -> None:
        case, size = self.case, self.case.server.size
        if self.failure is not None:
            self._breach(self.failure)
            return
        position = 0
        for offset, length in sorted(self.pieces):
            if offset != position:
                self._breach(f"byte {min(position, offset)} has no record, or two")
            position = offset + length
        if position != size:
            self._breach(f"{position} bytes are recorded, not {size}")
        if self.most_lanes > case.ceiling:
            self._breach(f"{self.most_lanes} lanes, {case.ceiling} were allowed")
        if self.network.most > case.ceiling:
            self._breach(
                f"{self.network.most} connections, {case.ceiling} were allowed"
            )
        most = _MOST_RECEIVED * size + _MOST_RECEIVED_BESIDES
        if self.worker.received_bytes > most:
            self._breach(f"{self.worker.received_bytes} bytes received of {size}")
        seconds = self.clock.now - BEGIN_SECONDS
        refusals = case.ceiling + _FEW_REFUSALS + seconds / _RAISE_SECONDS
        if self.network.refused > refusals:
            self._breach(f"{self.network.refused} refusals in {seconds:.1f} s")


def simulate(case: Case, trace: Trace | None = None) -> Result:
    """
    Run a case.

    Args:
        case: Which.
        trace: Called with seconds and words at every message; None for silence.
    """
    return Desk(case, trace).run()


def _described(message: Message) -> str:
    """Say what a trace needs of a message."""
    name = type(message).__name__
    words = [f"{name} {getattr(message, 'lane', '')}"]
    for field in ("begin", "end", "position", "received"):
        value = getattr(message, field, None)
        if value is not None:
            words.append(f"{field}={value / MIB:.2f}Mi")
    if isinstance(message, Ended) and message.failure is not None:
        words.append(str(message.failure["message"]))
    return " ".join(words)
