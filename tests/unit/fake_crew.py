"""A scheduler without threads, sockets or processes: the test is the clock."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any

from segdl._messages import Fetch, Message
from segdl._origins import OriginLimits
from segdl._urls import Origin, origin
from segdl.errors import SegdlError

Done = Callable[[Any, "SegdlError | None"], None]


class FakeCrew:
    """
    What lanes and jobs need of the scheduler, recorded.

    Time passes in `pass_time` alone, and what is offloaded waits for `settle`, or for
    `work` and `deliver` when the test wants to stand between the two.
    """

    def __init__(self) -> None:
        self.time = 1000.0
        self.fetches: list[Fetch] = []
        self.sent: list[tuple[int, Message]] = []
        self.given_up: list[int] = []
        self.verified: list[Message] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.over: list[Any] = []
        self.waiting: deque[tuple[Callable[[], Any], Done]] = deque()
        self.timers: list[tuple[float, int, Callable[[], None]]] = []
        self.origins: dict[Origin, OriginLimits] = {}
        self.results: deque[Callable[[], None]] = deque()
        self._numbers = count(1)

    # --- the face of the scheduler ----------------------------------------------------

    def now(self) -> float:
        return self.time

    def random(self) -> float:
        return 0.0

    def lane_number(self) -> int:
        return next(self._numbers)

    def limits(self, url: str) -> OriginLimits:
        return self.origins.setdefault(origin(url), OriginLimits())

    def fetch(self, _job: Any, fetch: Fetch, _size: int | None) -> None:
        self.fetches.append(fetch)

    def send(self, lane: int, message: Message) -> None:
        self.sent.append((lane, message))

    def give_up(self, lane: int) -> None:
        self.given_up.append(lane)

    def verify(self, _job: Any, message: Message) -> None:
        self.verified.append(message)

    def offload(self, _job: Any, work: Callable[[], Any], done: Done) -> None:
        self.waiting.append((work, done))

    def call_later(self, _job: Any, seconds: float, call: Callable[[], None]) -> None:
        heapq.heappush(self.timers, (self.time + seconds, next(self._numbers), call))

    def event(self, _job: Any, kind: str, fields: dict[str, Any]) -> None:
        self.events.append((kind, fields))

    def ended(self, job: Any) -> None:
        self.over.append(job)

    # --- for the test -----------------------------------------------------------------

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and call what becomes due, each at its time."""
        end = self.time + seconds
        while self.timers and self.timers[0][0] <= end:
            moment, _, call = heapq.heappop(self.timers)
            self.time = max(self.time, moment)
            call()
        self.time = end

    def work(self) -> None:
        """Do the first piece of offloaded work; its result waits for `deliver`."""
        work, done = self.waiting.popleft()
        result, error = None, None
        try:
            result = work()
        except SegdlError as exc:
            error = exc
        self.results.append(lambda: done(result, error))

    def deliver(self) -> None:
        """Tell the first result."""
        self.results.popleft()()

    def step(self) -> bool:
        """Tell a result, of new work if there is none; False when there is neither."""
        if self.waiting and not self.results:
            self.work()
        if self.results:
            self.deliver()
            return True
        return False

    def settle(self) -> None:
        """Do all offloaded work and tell the results."""
        while self.step():
            pass

    def messages(self, lane: int) -> list[Message]:
        """Give what was sent to a lane."""
        return [message for number, message in self.sent if number == lane]
