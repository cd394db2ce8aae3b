"""Which digests a file must have, and the verifier's work on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from segdl._crew import Crew
from segdl._digests import Digest
from segdl._messages import Advance, Drop, Hash
from segdl._plan import MIB

if TYPE_CHECKING:
    from segdl._job import Job

# How far the finished prefix grows before the verifier hears of it.
_STEP_BYTES = 8 * MIB


class Verification:
    """
    The digests of one job.

    Args:
        job: Whose they are.
        crew: The scheduler.
        given: What the caller expects, None for nothing.
        enabled: False to verify nothing, whoever states it.
    """

    def __init__(
        self, job: Job, crew: Crew, given: Digest | None, *, enabled: bool
    ) -> None:
        self.given = given if enabled else None
        self.running = False
        self._job = job
        self._crew = crew
        self._enabled = enabled
        self._expected: dict[str, Digest] = {}
        self._told = 0
        self.expect(())

    def __bool__(self) -> bool:
        return bool(self._expected)

    @property
    def best(self) -> str | None:
        """The digest to show: the caller's, else the strongest stated."""
        best = self.given or next(iter(self._expected.values()), None)
        return None if best is None else str(best)

    def expect(
        self, stated: Iterable[tuple[str, str, str]], *, further: bool = False
    ) -> None:
        """
        Expect what the server states; the caller's word counts more.

        Args:
            stated: algorithm, hex and source of each, the strongest first.
            further: It is said of a file that is there in part, or by a mirror: what
                was stated of that before goes on to count, unless the caller knows
                better.
        """
        if not further or self.given is not None:
            self._expected = {}
        if self.given is not None:
            self._expected[self.given.algorithm] = self.given
        if self._enabled:
            for row in stated:
                self._expected.setdefault(row[0], Digest(*row))

    def start(self, path: str) -> None:
        """Begin to hash a file whose prefix grows."""
        if self._expected:
            self.running = True
            self._told = 0
            self._crew.verify(
                self._job, Hash(self._job.number, path, list(self._expected))
            )

    def advance(self, prefix: int) -> None:
        """Tell that the first `prefix` bytes are final."""
        if self.running and prefix - self._told >= _STEP_BYTES:
            self._told = prefix
            self._crew.verify(self._job, Advance(self._job.number, prefix, False))

    def finish(self, path: str, size: int) -> None:
        """Ask for the digests of the whole file; `Hashed` answers."""
        if not self.running:
            self.start(path)
        self._crew.verify(self._job, Advance(self._job.number, size, True))

    def wrong(self, digests: Mapping[str, str]) -> tuple[Digest, str] | None:
        """Give the first digest that is not the expected one, and the actual value."""
        self.running = False
        for expected in self._expected.values():
            actual = digests[expected.algorithm]
            if actual != expected.hex:
                return expected, actual
        return None

    def drop(self) -> None:
        """Have the verifier forget the job."""
        self.running = False
        self._crew.verify(self._job, Drop(self._job.number))
