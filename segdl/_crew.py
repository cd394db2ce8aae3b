"""What jobs, lanes and the scheduler share: values, and the scheduler's face."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from segdl._manifest import Piece
from segdl._messages import Answered, Fetch, Message
from segdl._retry import Action
from segdl.errors import SegdlError

if TYPE_CHECKING:
    from segdl._job import Job
    from segdl._origins import OriginLimits


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


class LaneOwner(Protocol):
    """What lanes need of their job."""

    number: int

    @property
    def verified(self) -> bool:
        """Whether a digest of the whole file will be compared."""

    def probe_answered(self, answer: Answered) -> None:
        """The held lane has its head, and waits."""

    def pieces_written(self, pieces: list[Piece]) -> None:
        """These are in the file."""

    def all_written(self, end: int) -> None:
        """Nothing is missing any more; the file ends at `end`."""

    def lanes_gone(self) -> None:
        """After `stop`: no lane is left."""

    def pieces_doubted(self, doubted: Callable[[int], bool]) -> None:
        """Those whose offset is in doubt have to be fetched again."""

    def renew_link(self) -> None:
        """The link expired: `use_link` follows with a new one, unless the job fails."""

    def report_retry(
        self, reason: str, attempt: int = 0, delay_seconds: float = 0.0
    ) -> None:
        """Tell the users of events why something is asked for again."""

    def source_failed(self, error: SegdlError, action: Action) -> None:
        """Asking this source again can't help."""

    def stream_broke(self) -> None:
        """A stream without ranges has to begin again."""

    def probe_again(self) -> None:
        """The probe failed, its delay is over."""


class Crew(Protocol):
    """What a job needs of the scheduler; all of it on the scheduler's thread."""

    def now(self) -> float:
        """Monotonic seconds."""

    def random(self) -> float:
        """A number in [0, 1)."""

    def lane_number(self) -> int:
        """A number no lane has had."""

    def limits(self, url: str) -> OriginLimits:
        """What is known of a URL's origin."""

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
