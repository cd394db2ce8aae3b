"""What an origin bears, learned from its refusals, for all tasks of an engine; pure.

    a lane wants to open ──room────> yes: opened ──> answered ──> closed
                              └────> no: the job waits; its lanes ask again
    refused (503, 429, reset, no connection) ──> no more connections than are alive now
                                                 one more is tried after a while
    hold_until (Retry-After, back-off) ────────> nobody opens one before

A refusal teaches something only while other connections live. When none of those is of
the job that was refused, its file may be the reason: should it be refused again with
fewer connections than the origin bore before, what it taught is forgotten.

The limits of an origin are shared fairly: where connections are few, a job that has
more than its share gives one up as soon as another job waits without its own.
"""

from __future__ import annotations

# How long a limit that refusals taught holds, before one more connection is tried; each
# time that one is refused too, it holds twice as long.
RAISE_SECONDS = 30.0
_MOST_RAISE_SECONDS = 960.0
_ANY = 1 << 30


class OriginLimits:
    """
    What is known of one origin: scheme, host and port.

    Attributes:
        not_before: Monotonic time before which no connection is to be opened.
    """

    def __init__(self) -> None:
        self.not_before = 0.0
        self._cap: int | None = None
        self._raise_seconds = RAISE_SECONDS
        self._raise_at = 0.0
        self._raised = False
        self._open: dict[int, int] = {}
        self._answered = 0
        self._borne = 0
        self._taught_by: int | None = None
        self._unlucky: set[int] = set()
        self._waiting: set[int] = set()

    def cap(self, now: float) -> int | None:
        """
        Give how many connections it bears, None while nothing is known.

        Args:
            now: Monotonic time in seconds.
        """
        if self._cap is not None and now >= self._raise_at:
            self._cap += 1
            self._raised = True
            self._raise_at = now + self._raise_seconds
        return self._cap

    def room(self, job: int, now: float) -> int:
        """
        Give how many more connections a job may open now; with 0 it waits for one.

        Args:
            job: Its number.
            now: Monotonic time in seconds.
        """
        cap = self.cap(now)
        room = _ANY
        if cap is not None:
            own, share = self._open.get(job, 0), self._share(cap)
            room = max(0, cap - sum(self._open.values()))
            if self._waiting - {job}:
                room = max(0, min(room, share - own))
            if not room and own < share:
                self._waiting.add(job)
        return room if now >= self.not_before else 0

    def surplus(self, job: int, now: float) -> int:
        """
        Give how many connections a job has to give up for others that wait.

        Args:
            job: Its number.
            now: Monotonic time in seconds.
        """
        cap = self.cap(now)
        others = self._waiting - {job}
        if cap is None or not others or sum(self._open.values()) < cap:
            return 0
        return max(0, min(self._open.get(job, 0) - self._share(cap), len(others)))

    def opened(self, job: int) -> None:
        """Count a connection."""
        self._waiting.discard(job)
        self._open[job] = self._open.get(job, 0) + 1

    def answered(self) -> None:
        """Count a connection that brought its answer."""
        self._answered += 1
        self._borne = max(self._borne, self._answered)
        if self._cap is not None:
            # Refusals are faster than answers: the first ones taught too little.
            self._cap = max(self._cap, self._answered)

    def closed(self, job: int, *, answered: bool) -> None:
        """
        Count a connection no more.

        Args:
            job: Whose it was.
            answered: Whether it had brought its answer.
        """
        self._open[job] -= 1
        if not self._open[job]:
            del self._open[job]
        self._answered -= answered

    def leave(self, job: int) -> None:
        """Forget that a job waits."""
        self._waiting.discard(job)
        self._unlucky.discard(job)

    def refused(self, job: int, now: float, *, alone: bool) -> None:
        """
        Take a refusal of a connection, which counts as open no more.

        Args:
            job: Whose it was.
            now: Monotonic time in seconds.
            alone: Whether the job has no other connection that lives.
        """
        if not self._answered or (alone and job in self._unlucky):
            return
        if alone and sum(self._open.values()) < self._borne:
            if self._taught_by == job:
                self._cap = self._taught_by = None
                self._unlucky.add(job)
            return
        self._taught_by = job if alone else None
        self._borne = self._answered
        if self._raised:
            self._raise_seconds = min(2 * self._raise_seconds, _MOST_RAISE_SECONDS)
            self._raised = False
        self._cap = max(1, self._answered)
        self._raise_at = now + self._raise_seconds

    def hold_until(self, moment: float) -> None:
        """
        Let nobody open a connection for a while.

        Args:
            moment: Monotonic time in seconds at which it ends.
        """
        self.not_before = max(self.not_before, moment)

    def raise_after(self, moment: float) -> None:
        """
        Try no more connections than those that live for a while: they may go on.

        Args:
            moment: Monotonic time in seconds at which it ends.
        """
        self._raise_at = max(self._raise_at, moment)

    def _share(self, cap: int) -> int:
        """How many connections each job may have while others wait."""
        return max(1, cap // max(1, len(self._open.keys() | self._waiting)))
