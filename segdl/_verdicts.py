"""What follows from the verifier's answers.

Hashed ─┬─ right ──────────────────────────────────> publish, or reuse what is there
        └─ wrong ─> all pieces are read back ─┐
Checked <─────────────────────────────────────┘
        ├─ pieces changed on the disk ─────────────> those are fetched again
        ├─ all are as they came: a source lied ────> mirrors' pieces, then all
        └─ an earlier run's pieces ────────────────> the right ones are gone on with

A mirror that lied without a digest to tell is known sooner (`_failures`): its pieces
are doubted, and fetched again once no checkpoint is at work on the manifest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from segdl._crew import Crew
from segdl._digests import Digest, is_digest_of_nothing
from segdl._manifest import Piece
from segdl._messages import Check, Checked, Hashed, failure_from_json
from segdl._verification import Verification
from segdl.errors import DestinationExists, IntegrityError, SegdlError

if TYPE_CHECKING:
    from segdl._job import Job

_VERIFIER_LOSSES = 2


class Verdicts:
    """
    The verifier's answers to one job, and the pieces that it doubts.

    Args:
        job: Whose they are.
        crew: The scheduler.
        verification: Which digests the file must have.
    """

    def __init__(self, job: Job, crew: Crew, verification: Verification) -> None:
        self._job = job
        self._crew = crew
        self._verification = verification
        self._comparing = False
        self._checking: list[Piece] | None = None
        self._wrong: tuple[Digest, str] | None = None
        self._rechecked = False
        self._losses = 0
        self._doubts: list[Callable[[int], bool]] = []

    # --- orders of the job ------------------------------------------------------------

    def compare(self, path: str, size: int) -> None:
        """Find out whether a file that is there is the one that is wanted."""
        self._comparing = True
        self._verification.start(path)
        self._verification.finish(path, size)

    def check(self, pieces: list[Piece]) -> None:
        """Have pieces read back and compared with their checksums."""
        self._checking = pieces
        rows = [(p.offset, p.length, p.xxh3) for p in pieces]
        path = self._job.destination.part.path
        self._crew.verify(self._job, Check(self._job.number, path, rows))

    def doubt(self, doubted: Callable[[int], bool]) -> None:
        """
        Have pieces fetched again.

        Args:
            doubted: Tells it by a piece's offset.
        """
        self._doubts.append(doubted)
        # A manifest that is written anew must not meet a checkpoint.
        self._job.once_idle(lambda: self._job.fetch_again(self.drop_doubted()))

    def drop_doubted(self) -> list[Piece]:
        """Drop doubted pieces; also at the end, or the next run would trust them."""
        doubts, self._doubts = self._doubts, []
        return self._job.forget(lambda o: any(d(o) for d in doubts)) if doubts else []

    # --- what the verifier says -------------------------------------------------------

    def on_hashed(self, hashed: Hashed) -> None:
        """Compare digests: of the finished part, or of a file that exists already."""
        self._job.once_idle(lambda: self._hashed(hashed))

    def on_checked(self, checked: Checked) -> None:
        """Go on after pieces were read back."""
        self._checking = None
        self._job.once_idle(lambda: self._checked(checked))

    def on_lost(self, error: SegdlError) -> None:
        """The verifier died: have its work done again, a few times."""
        job = self._job
        checking = self._checking is not None
        if job.is_ending or not (
            self._comparing or checking or self._verification.running
        ):
            return
        self._losses += 1
        if self._losses > _VERIFIER_LOSSES:
            job.fail(error)
        elif self._comparing:
            job.compare_existing()
        elif self._checking is not None:
            self.check(self._checking)
        else:
            self._verification.start(job.destination.part.path)
            if job.phase == "verifying":
                job.all_written(job.total_bytes or 0)

    # --- what follows -----------------------------------------------------------------

    def _hashed(self, hashed: Hashed) -> None:
        job = self._job
        if job.is_ending or not self._verification.running:
            return  # or it is of a version that is no longer fetched
        if hashed.failure is not None:
            # Also while it still transfers: nothing would be told at its end.
            job.fail(failure_from_json(hashed.failure))
            return
        if not (self._comparing or job.phase == "verifying"):
            return  # pieces were doubted meanwhile, so it is fetched and hashed again
        wrong = self._verification.wrong(hashed.digests)
        if self._comparing:
            self._compared(wrong)
        elif wrong is None:
            job.publish(self._verification.best)
        elif self._rechecked or job.lanes.plan is None:
            self._source_lied(*wrong)
        else:
            # Those pieces that the disk changed can be fetched again.
            self._rechecked = True
            self._wrong = wrong
            self.check(job.destination.store.pieces())

    def _compared(self, wrong: tuple[Digest, str] | None) -> None:
        if wrong is None:
            self._job.reuse(self._verification.best)
            return
        expected, actual = wrong
        self._job.fail(
            DestinationExists(
                f"{self._job.destination.store.path} exists with other content: its "
                f"{expected.algorithm} is {actual}, expected {expected.hex}; choose "
                "on_exists: overwrite or rename"
            )
        )

    def _checked(self, checked: Checked) -> None:
        job = self._job
        if job.is_ending:
            return
        if checked.failure is not None:
            job.fail(failure_from_json(checked.failure))
            return
        store = job.destination.store
        job.offload(lambda: store.forget(checked.bad), self._forgotten)

    def _forgotten(self, bad: list[Piece]) -> None:
        """The records of pieces that proved wrong are dropped."""
        if self._wrong is None:
            self._found_checked({piece.offset for piece in bad})
            return
        wrong, self._wrong = self._wrong, None
        if bad:
            changed = f"{len(bad)} pieces changed on the disk"
            self._job.report_retry(changed)
            if self._job.lanes.whole:  # which brings no pieces, but all
                self._job.stream_broke()
            else:
                self._job.fetch_again(bad)
        else:
            self._source_lied(*wrong)

    def _found_checked(self, bad: set[int]) -> None:
        """Begin with the pieces of an earlier run that proved right."""
        destination = self._job.destination
        found = destination.found
        assert found is not None
        good = [piece for piece in found.doubtful if piece.offset not in bad]
        accepted = found.accepted + good
        destination.found = replace(found, accepted=accepted, doubtful=[])
        self._job.transfer()

    def _source_lied(self, expected: Digest, actual: str) -> None:
        """
        Fetch again what mirrors brought, then more, as long as that is wrong too.

        That is all, where a mirror may have served an earlier run; then all from each
        mirror in turn. After the last one the download fails.
        """
        job = self._job
        error = IntegrityError(f"{expected.algorithm} is {actual}, not {expected.hex}")
        doubted = job.lanes.sources.drop_others()
        # Maybe none: others have brought them again, cut in another way.
        pieces = [] if doubted is None else job.forget(doubted)
        if job.is_ending:
            return
        if pieces:
            job.report_retry(f"{error}; without mirrors again")
            job.fetch_again(pieces)
        elif job.resumed_bytes and len(job.request.urls) > 1:
            # A mirror may have brought it in an earlier run.
            job.report_retry(f"{error}; all of it again")
            job.forget(lambda _: True)
            job.stream_broke()
        elif job.lanes.turn_to_mirror(forgiving=True):  # it may have been right
            job.report_retry(f"{error}; all from a mirror")
            job.forget(lambda _: True)
            job.stream_broke()
        else:
            self._mismatch(expected, actual)

    def _mismatch(self, expected: Digest, actual: str) -> None:
        """Fail for wrong content, with the part kept aside."""
        store = self._job.destination.store
        message = (
            f"{expected.algorithm} of {store.name} is {actual}, expected "
            f"{expected.hex} ({expected.source})"
        )
        if is_digest_of_nothing(expected):
            message += "; the expected one is the digest of an empty file"
        # Here, not on a helper thread: a stop in between would hide why it failed.
        try:
            message += f"; what was received is kept as {store.set_aside()}"
        except SegdlError as error:
            message += f"; what was received could not be kept aside: {error}"
        self._job.fail(
            IntegrityError(
                message,
                algorithm=expected.algorithm,
                expected=expected.hex,
                actual=actual,
            )
        )
