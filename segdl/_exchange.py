"""One lane's exchange with its origin: the request, the head, the body.

    request_fields ──> libcurl ──> on_header ─> HeadParser ─> check_answer
                               ──> on_body ──> Sink ──> part file
                      its socket ──> receive ──^   (a fast lane without TLS)

libcurl calls `on_header` with each line and `on_body` with at most 16 KiB at a time.
Nothing raised there would come through libcurl, so a failure is kept, and the refusal
(-1, or fewer bytes than were given) ends the transfer.

Once the head of a plain answer with a Content-Length has passed every check, libcurl
would do no more than copy and count. A lane with much left may then read its socket
itself, into the sink's buffer: 4 GiB over 2 connections took 2.0 s of CPU so, and 3.5 s
in 16 KiB calls. The connection can't be used for another request afterwards.
"""

from __future__ import annotations

import os
import time
from typing import Any, Protocol

from segdl._answers import REDIRECTS, Answer, Expectation, check_answer
from segdl._headers import Head, HeadParser, Validator
from segdl._messages import Fetch, PartRef
from segdl._ranges import ByteRange
from segdl._sink import Sink
from segdl._urls import redact, redirect_target
from segdl.errors import (
    IncompleteTransfer,
    RangeMismatch,
    RedirectRefused,
    SegdlError,
    StatusError,
)

MAX_REDIRECTS = 10
PAUSE = 0x10000001  # CURL_WRITEFUNC_PAUSE, curl.h

# Bodies of redirects and errors are read, so that the connection can be used again,
# as long as they are short.
_MAX_IGNORED_BYTES = 64 * 1024
_MAX_IGNORED_SECONDS = 1.0
# A lane that has not written for so many reports writes what it has.
_SLOW_TICKS = 5
# Less is not worth a connection that has to be closed afterwards.
_BYPASS_FROM_BYTES = 16 << 20
# What a rate limit lets through at a time.
_LIMITED_BYTES = 64 * 1024


class Owner(Protocol):
    """What an exchange needs of the transfers it belongs to."""

    @property
    def limited(self) -> bool:
        """Whether `allow` has to be asked before bytes are taken."""

    def allow(self, count: int) -> bool:
        """Ask the rate limit, and the disk, for bytes."""

    def answered(self, lane: Exchange) -> None:
        """An answer passed every check."""

    def is_full(self, lane: Exchange) -> None:
        """All that was wanted has come, though the origin would send on."""


class Exchange:
    """
    One segment's request, with the requests that redirects lead to.

    Args:
        owner: Told of an answer, and of a segment that is full; holds the rate limit.
        fetch: What to ask for.

    Attributes:
        url: The URL of the present request.
        heads: Of all answers so far, redirects first.
        followed: How many of them belong to requests before the present one.
        answer: The one whose body is used, once its head has passed every check.
        sink: Where the body goes; None while the exchange is held.
        failure: Why it can't go on.
        held: Whether the body waits for `Accept`.
        waiting: Whether libcurl was told to pause.
        over: libcurl's result, when it came while the exchange was held.
        received: Body bytes taken.
        kept: Those that wait in memory for `Accept`, where the fetch asks for that.
        refused: An address that the request led to and that may not be connected to.
        allowed: Whether it led to one that may be.
        socket: What it reads from without libcurl, None while libcurl does it.
    """

    def __init__(self, owner: Owner, fetch: Fetch) -> None:
        self.owner = owner
        self.fetch = fetch
        self.url = fetch.url
        self.headers = fetch.headers
        self.curl: Any = None  # its easy handle
        self.heads: list[Head] = []
        self.followed = 0
        self.parser = HeadParser()
        self.answer: Answer | None = None
        self.sink: Sink | None = None
        self.part: PartRef | None = None
        self.failure: SegdlError | None = None
        self.held = fetch.hold
        self.waiting = False  # paused by us, at the first byte or by the rate limit
        self.over: int | None = None  # libcurl's result, while the lane is held
        self.received = 0
        self.kept = bytearray()
        self.refused: str | None = None
        self.allowed = False
        self.socket: int | None = None
        self.ignored = 0
        self._ignoring_since = 0.0
        self.reported = (-1, -1)
        self._heard = 0  # bytes received when it last was not quiet
        self._quiet_seconds = 0.0
        self._unwritten_ticks = 0

    @property
    def wanted(self) -> ByteRange | None:
        """What the Range field asks for."""
        fetch = self.fetch
        return ByteRange(fetch.begin, fetch.end) if fetch.ranged else None

    @property
    def headed(self) -> bool:
        """Whether the present request has a head, though maybe not yet its body."""
        return len(self.heads) > self.followed

    @property
    def full(self) -> bool:
        """Whether all that was wanted has come, though the origin may send on."""
        if self.held and self.fetch.keep:
            return self.fetch.begin + len(self.kept) >= self.fetch.end
        return self.sink is not None and self.sink.full

    @property
    def takes(self) -> bool:
        """Whether body bytes have where to go: the file, or memory."""
        return not self.held or self.fetch.keep

    @property
    def position(self) -> int:
        """One past the last byte received."""
        if self.sink is None:
            return self.fetch.begin + len(self.kept)
        return self.sink.position

    def written(self) -> int:
        """
        Tell how far the file is filled, at a tick of the progress reports.

        A lane so slow that its buffer has not been full for some ticks writes what it
        has, so that progress moves.
        """
        if self.sink is None:
            return self.fetch.begin
        if self.sink.written != self.reported[0]:
            self._unwritten_ticks = 0
        else:
            self._unwritten_ticks += 1
            # While its last block is on its way, it is the disk that is slow.
            if self._unwritten_ticks >= _SLOW_TICKS and not self.sink.pending:
                self._unwritten_ticks = 0
                self.sink.flush()
        return self.sink.written

    def quiet(self, seconds: float, enough_bytes: float) -> float:
        """
        Add up for how long next to nothing of the body has come.

        Args:
            seconds: How long ago this was called last.
            enough_bytes: So many new ones end the quiet.

        Returns:
            Seconds; 0.0 before the body, where libcurl sees to it, and while we are
            who holds it up.
        """
        if self.waiting or not (self.received or self.socket is not None):
            return 0.0
        if self.received - self._heard >= enough_bytes:
            self._heard, self._quiet_seconds = self.received, 0.0
        else:
            self._quiet_seconds += seconds
        return self._quiet_seconds

    def on_header(self, line: bytes) -> int | None:
        """Take a header line; refuse the answer as soon as its head is whole."""
        try:
            self.parser.feed(line)
            if self.parser.complete:
                self._on_head(self.parser.head)
        except SegdlError as error:
            self.failure = error
            return -1
        return None

    def on_body(self, data: memoryview) -> int | None:
        """Take body bytes."""
        if self.answer is None:
            # A redirect's: it never waits for the parent, which does not hear of it.
            return None if self._ignores(len(data)) else -1
        sink, keep = self.sink, self.held and self.fetch.keep
        if (self.held or sink is None) and not keep:
            self.waiting = True
            return PAUSE
        if self.owner.limited and not self.owner.allow(len(data)):
            self.waiting = True
            return PAUSE
        if keep or sink is None:
            return self._keep(data)
        try:
            taken = sink.write(data)
        except SegdlError as error:
            self.failure = error
            return -1
        self.received += taken
        if taken < len(data):
            return taken
        if sink.full and not self._ends_by_itself(sink):
            self.owner.is_full(self)
        return None

    def _keep(self, data: memoryview) -> int:
        """Take body bytes into memory."""
        room = self.fetch.end - self.fetch.begin - len(self.kept)
        self.kept += data[:room]
        self.received += min(room, len(data))
        return min(room, len(data))

    def write_kept(self) -> None:
        """
        Put what waited in memory into the sink, from where that begins.

        Raises:
            StorageError: It could not be written.
        """
        assert self.sink is not None
        self.sink.write(memoryview(self.kept)[self.sink.position - self.fetch.begin :])
        self.kept = bytearray()

    @property
    def can_bypass(self) -> bool:
        """Whether it is worth reading the rest of the body without libcurl."""
        answer, sink = self.answer, self.sink
        if answer is None or answer.end is None or sink is None:
            return False
        return (
            self.socket is None
            and hasattr(os, "readv")
            and self.url[:5].lower() == "http:"
            and self.heads[-1].get("content-length") is not None
            and min(answer.end, sink.end) - sink.position >= _BYPASS_FROM_BYTES
        )

    def receive(self) -> bool:
        """
        Read from the socket what it has, at most what the buffer has room for.

        Returns:
            Whether there is more to come.

        Raises:
            IncompleteTransfer: The connection broke, or ended early.
            StorageError: The file could not be written.
        """
        answer, sink, socket = self.answer, self.sink, self.socket
        assert answer is not None
        assert answer.end is not None
        assert sink is not None
        assert socket is not None
        room = sink.room()[: answer.end - sink.position]
        limited = self.owner.limited
        if limited:
            if not self.owner.allow(0):
                self.waiting = True
                return True
            room = room[:_LIMITED_BYTES]
        try:
            count = os.readv(socket, [room])
        except BlockingIOError:
            return True
        except OSError as error:
            broken = f"{redact(self.url)}: the connection broke: {error.strerror}"
            raise IncompleteTransfer(broken) from error
        if not count:
            raise self._cut_short(answer.end)
        if limited:
            self.owner.allow(count)
        sink.took(count)
        self.received += count
        return not sink.full and sink.position < answer.end

    def _ignores(self, count: int) -> bool:
        """Read past a short body, so that the connection can be used again."""
        now = time.monotonic()
        if not self.ignored:
            self._ignoring_since = now
        self.ignored += count
        return (
            self.ignored <= _MAX_IGNORED_BYTES
            and now - self._ignoring_since < _MAX_IGNORED_SECONDS
        )

    def _ends_by_itself(self, sink: Sink) -> bool:
        """
        Whether the origin has nothing more to send, so the connection stays good.

        Where no Content-Length says so, the end of the connection, or a last chunk,
        may be long in coming: the range is there, and nothing waits for that.
        """
        return (
            self.answer is not None
            and self.answer.end == sink.end
            and self.heads[-1].get("content-length") is not None
        )

    def _on_head(self, head: Head) -> None:
        """Decide about an answer, at the end of its head."""
        if head.status < 200:
            return
        self.heads.append(head)
        if head.status in REDIRECTS and head.get("location"):
            if not self.fetch.follow:
                raise StatusError(
                    f"the origin redirects this link now ({head.status})",
                    status=head.status,
                )
            return
        validator = self.fetch.validator
        expected = Expectation(
            wanted=self.wanted,
            complete=self.fetch.complete,
            had=self.fetch.had,
            validator=None if validator is None else Validator.from_json(validator),
            proof=self.fetch.proof,
        )
        answer = check_answer(self.heads, expected)
        # The first one, whose answer said what the file is, is held and had a range.
        alike = self.fetch.begin == 0 and answer.complete == self.fetch.complete
        # Without ranges, only a lane that begins with the file may write a whole one;
        # for one that is held the parent decides, but not for one that keeps its bytes.
        held = self.held and not self.fetch.keep
        fits = answer.ranges or held or alike
        if not fits and (self.fetch.ranged or self.fetch.begin):
            raise RangeMismatch(
                f"asked for bytes {self.fetch.begin}-{self.fetch.end - 1}, the origin "
                "sent the whole file (200)"
            )
        self.answer = answer
        self.owner.answered(self)

    def redirect(self) -> str | None:
        """The target when the last head is a redirect that is to be followed."""
        if self.answer is not None or not self.headed:
            return None  # also where the target of the last one can't be reached
        head = self.heads[-1]
        location = head.get("location")
        if head.status not in REDIRECTS or not location:
            return None
        if len(self.heads) > MAX_REDIRECTS:
            raise RedirectRefused(
                f"more than {MAX_REDIRECTS} redirects, the last one from "
                f"{redact(self.url)}"
            )
        return redirect_target(self.url, location)

    def request_fields(self) -> list[bytes]:
        """Give the request's fields, the user's first, as libcurl wants them."""
        rows = [
            # libcurl leaves a field with an empty value out unless it is written so.
            f"{name}: {value}" if value else f"{name};"
            for name, value in self.headers.items()
        ]
        rows.append("Accept-Encoding: identity")
        rows.append("Want-Repr-Digest: sha-256=10")
        if self.wanted is not None:
            rows.append(f"Range: {self.wanted.header_value()}")
            if self.fetch.if_range is not None:
                rows.append(f"If-Range: {self.fetch.if_range}")
        return [row.encode("latin-1") for row in rows]

    def shortfall(self) -> SegdlError | None:
        """Tell what a request that libcurl calls done lacks of what was promised."""
        if self.answer is None:
            # libcurl is content with an end in the middle of a head.
            return IncompleteTransfer(
                f"{redact(self.url)}: the connection ended before the response head did"
            )
        if self.full:
            return None
        if self.held and self.fetch.keep:
            return self._cut_short(self.fetch.end)
        if self.sink is None:
            return None
        end = self.answer.end
        if end is None or self.position >= min(end, self.sink.end):
            return None
        return self._cut_short(end)

    def _cut_short(self, end: int) -> SegdlError:
        return IncompleteTransfer(
            f"{redact(self.url)}: the origin promised bytes up to {end - 1} and ended "
            f"before {self.position}"
        )
