"""What jobs, lanes and the scheduler share: values, and the scheduler's face."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from segdl._messages import Fetch, Message
from segdl.errors import SegdlError

if TYPE_CHECKING:
    from segdl._job import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """
    How a job ended.

    Attributes:
        kind: "completed", "failed", "stopped" (resumable) or "discarded".
        error: Why it failed.
        checksum: The digest that was verified, "algorithm:hex".
    """

    kind: str
    error: SegdlError | None = None
    checksum: str | None = None


class Crew(Protocol):
    """What a job needs of the scheduler; all of it on the scheduler's thread."""

    def now(self) -> float:
        """Monotonic seconds."""

    def random(self) -> float:
        """A number in [0, 1)."""

    def lane_number(self) -> int:
        """A number no lane has had."""

    def fetch(self, job: Job, fetch: Fetch, size: int | None) -> None:
        """Start a lane on the worker that has fewest; the file's size helps choose."""

    def send(self, lane: int, message: Message) -> None:
        """Send a command to a lane's worker."""

    def give_up(self, lane: int) -> None:
        """End the worker of a lane that does not stop."""

    def verify(self, job: Job, message: Message) -> None:
        """Send a command to the verifier, which is started when needed."""

    def offload(
        self,
        job: Job,
        work: Callable[[], Any],
        done: Callable[[Any, SegdlError | None], None],
    ) -> None:
        """Run `work` on a helper thread, then `done(result, error)` on this one."""

    def call_later(self, job: Job, seconds: float, call: Callable[[], None]) -> None:
        """Call on this thread, after so long."""

    def event(self, job: Job, kind: str, fields: dict[str, Any]) -> None:
        """Tell the users of events."""

    def ended(self, job: Job) -> None:
        """The job is over: `job.outcome` tells how."""
