"""What the calling process and a worker say to each other, and how it is written.

    parent ── Configure, Fetch, Accept, Split, Stop, Limit,       ──> worker
              Hash, Advance, Check, Drop, Quit
    parent <── Answered, Pieces, Progress, Shrunk, Kept, Ended,    ── worker
               Hashed, Checked, Beat, Crashed

A message is one line: a JSON array of its name and its fields in order, then LF. Each
direction is one pipe with one writer and one reader, so no lock is needed, a worker
killed in the middle of a line harms nobody (an unfinished line is dropped), and no
semaphore is left behind. JSON is chosen over pickle so that what comes from outside
can at worst be a wrong value, never code.

Secrets (headers, URLs with a query) travel in `Configure`, `Fetch` and `Answered`
alone, and only through the pipes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from segdl import errors
from segdl.errors import SegdlError

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_):
        return lambda decorator: decorator


_T = TypeVar("_T")

_READ_BYTES = 1 << 18


class Message:
    """Base of all messages; their fields are plain JSON data."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and _row(self) == _row(other)

    def __repr__(self) -> str:
        return repr(_row(self))

    def __setattr__(self, name: str, value: object) -> None:
        if hasattr(self, name):
            raise FrozenInstanceError(f"cannot assign to field {name!r}")
        object.__setattr__(self, name, value)


@dataclass_transform(frozen_default=True)
def _message(cls: type[_T]) -> type[_T]:
    """
    Make a message of a class: a frozen dataclass with slots.

    One of which `dataclass` makes all methods takes 1 ms, which both processes would
    spend twenty times before the first byte; this takes a quarter of it.
    """
    return dataclass(slots=True, eq=False, repr=False)(cls)


class PartRef(NamedTuple):
    """
    Where a lane writes.

    Attributes:
        path: The part file.
        device: Its st_dev; with `inode` it tells a file that was put in its place.
        inode: Its st_ino.
        direct: Whether direct I/O is wanted.
        piece: Piece size in bytes.
    """

    path: str
    device: int
    inode: int
    direct: bool
    piece: int


# --- to a worker ----------------------------------------------------------------------


@_message
class Configure(Message):
    """
    Set what holds for all requests; the first message to every worker.

    Attributes:
        timeout: As in `EngineConfig`, like the four after it.
        environment: Variables to set: those that name proxies, since they may hold a
            password, which the environment of a process shows.
        allow_addresses: As in `EngineConfig`.
    """

    timeout: float
    chunk_size: int
    ca_file: str | None
    proxy: str | None
    user_agent: str
    environment: dict[str, str] = field(default_factory=dict)
    allow_addresses: str = "all"


@_message
class Fetch(Message):
    """
    Request bytes `[begin, end)` of `url` on a new lane.

    Attributes:
        lane: The lane's number, unique in the engine.
        url: The URL to request; it may hold secrets.
        headers: The user's request headers for this origin.
        begin: First byte.
        end: One past the last byte.
        ranged: False asks for the whole representation, without a Range field.
        follow: Whether to follow redirects; without it, one ends the lane.
        hold: Whether to wait for `Accept` before any byte is written.
        keep: Whether to receive meanwhile, into memory; `Kept` tells when all is there.
        complete: Complete length every answer must state; None while unknown.
        had: Complete length that was known before, and may be another one by now.
        validator: What every answer must agree with, as JSON; None while unknown.
        proof: Whether an answer that leaves a strong validator out is refused.
        if_range: Value of an If-Range field; None for none.
        part: Where to write, known from the start unless `hold`; None then.
    """

    lane: int
    url: str
    headers: dict[str, str]
    begin: int
    end: int
    ranged: bool
    follow: bool
    hold: bool
    keep: bool
    complete: int | None
    had: int | None
    validator: dict[str, Any] | None
    proof: bool
    if_range: str | None
    part: PartRef | None


@_message
class Accept(Message):
    """
    Let a held lane write.

    Attributes:
        lane: The lane.
        part: Where to write.
        begin: First byte wanted: where the lane begins, or later with `keep`.
        end: One past the last byte wanted; None for all there is.
    """

    lane: int
    part: PartRef
    begin: int
    end: int | None


@_message
class Split(Message):
    """
    Keep the first part of what is left to a lane; `Shrunk` answers.

    Attributes:
        lane: The lane.
        kept: The share of that part, 0.0 - 1.0.
    """

    lane: int
    kept: float


@_message
class Stop(Message):
    """End a lane in good order: write what it holds; `Ended` answers."""

    lane: int


@_message
class Limit(Message):
    """Receive no more than this many bytes a second over all lanes; None: no limit."""

    bytes_per_second: float | None


@_message
class Hash(Message):
    """Begin to compute digests of a part file as its prefix grows."""

    job: int
    path: str
    algorithms: list[str]


@_message
class Advance(Message):
    """Tell that the first `prefix` bytes are final; `last` asks for the digests."""

    job: int
    prefix: int
    last: bool


@_message
class Check(Message):
    """Read pieces [offset, length, xxh3] back and compare; `Checked` answers."""

    job: int
    path: str
    pieces: list[tuple[int, int, str]]


@_message
class Drop(Message):
    """Forget a job's digests."""

    job: int


@_message
class Quit(Message):
    """Leave."""


# --- from a worker --------------------------------------------------------------------


@_message
class Answered(Message):
    """
    The head of an answer that passed every check.

    Attributes:
        lane: The lane.
        url: The effective URL, after redirects; it may hold secrets.
        ranges: True for 206: further ranges can be asked for.
        complete: Complete length in bytes; None when the answer does not tell.
        validator: The answer's validator, as JSON.
        disposition: Content-Disposition, None without one.
        digests: What the server states: [algorithm, hex, source] each.
        accepts_ranges: False when Accept-Ranges says "none".
        framed: False when only the end of the connection ends the body.
    """

    lane: int
    url: str
    ranges: bool
    complete: int | None
    validator: dict[str, Any]
    disposition: str | None
    digests: list[tuple[str, str, str]]
    accepts_ranges: bool
    framed: bool


@_message
class Pieces(Message):
    """Pieces that are written: [lane, offset, length, xxh3] each, in order."""

    pieces: list[tuple[int, int, int, str]]


@_message
class Progress(Message):
    """
    How far lanes are.

    Attributes:
        lanes: [lane, position, bytes received by the lane] each.
        busy: The share of the time since the last one in which the worker's loop used
            a processor, 0.0 - 1.0.
    """

    lanes: list[tuple[int, int, int]]
    busy: float = 0.0


@_message
class Shrunk(Message):
    """A lane's end after `Split`; unchanged when too little was left to share."""

    lane: int
    end: int


@_message
class Kept(Message):
    """A lane has all its bytes in memory, and waits for `Accept` or `Stop`."""

    lane: int


@_message
class Ended(Message):
    """
    A lane is over; its pieces were sent before this.

    Attributes:
        lane: The lane.
        position: One past the last byte written.
        received: Body bytes the lane received.
        failure: Why it did not get all it was to fetch, None when it did, or when it
            was told to stop.
    """

    lane: int
    position: int
    received: int
    failure: dict[str, Any] | None


@_message
class Hashed(Message):
    """The digests of a whole part file; `failure` says why there are none."""

    job: int
    digests: dict[str, str]
    failure: dict[str, Any] | None


@_message
class Checked(Message):
    """Which pieces [offset, length] do not have their checksum, or why none is read."""

    job: int
    bad: list[tuple[int, int]]
    failure: dict[str, Any] | None


@_message
class Beat(Message):
    """The worker is not stuck: said every second, unless there is more to say."""


@_message
class Crashed(Message):
    """An exception nobody expected ended the worker."""

    trace: str


_TYPES: dict[str, type[Message]] = {
    cls.__name__: cls
    for cls in (
        *(Configure, Fetch, Accept, Split, Stop, Limit),
        *(Hash, Advance, Check, Drop, Quit),
        *(Answered, Pieces, Progress, Shrunk, Kept, Ended),
        *(Hashed, Checked, Beat, Crashed),
    )
}
_FIELDS = {name: list(cls.__annotations__) for name, cls in _TYPES.items()}


# Made once: `json.dumps` makes its own anew for each message.
_ENCODER = json.JSONEncoder(separators=(",", ":"))


def _row(message: Message) -> list[Any]:
    name = type(message).__name__
    return [name, *(getattr(message, each) for each in _FIELDS[name])]


def encode(message: Message) -> bytes:
    """Write a message as one line."""
    return _ENCODER.encode(_row(message)).encode("ascii") + b"\n"


def decode(line: bytes) -> Message:
    """
    Read a message from its line.

    Raises:
        ValueError: The line is no message.
    """
    try:
        row = json.loads(line)
    except RecursionError as exc:
        raise ValueError("a message is nested too deeply") from exc
    name = row[0] if isinstance(row, list) and row else None
    if not isinstance(name, str) or name not in _TYPES:
        raise ValueError(f"not a message: {len(line)} bytes")  # may hold secrets
    values = row[1:]
    if len(values) != len(_FIELDS[name]):
        raise ValueError(f"{name} takes {len(_FIELDS[name])} fields")
    if name in ("Fetch", "Accept"):
        at = _FIELDS[name].index("part")
        values[at] = _part_of(values[at])
    return _TYPES[name](*values)


def _part_of(value: Any) -> PartRef | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != len(PartRef._fields):
        raise ValueError("a part has other fields than it should")
    return PartRef(*value)


class Lines:
    """Cut a stream of bytes into lines; an unfinished one waits for its rest."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []  # not joined: a Check may have megabytes

    def feed(self, data: bytes) -> list[bytes]:
        """Add what was read; give the lines that are whole."""
        first, *others = data.split(b"\n")
        self._rest.append(first)
        if not others:
            return []
        *whole, rest = [b"".join(self._rest), *others]
        self._rest = [rest]
        return whole


class Reader:
    """
    The reading end of a pipe of messages.

    Args:
        fd: The descriptor; made non-blocking, and closed by its owner.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._lines = Lines()
        os.set_blocking(fd, False)

    def read(self) -> Iterator[Message]:
        """
        Give the messages that have come, without waiting.

        Raises:
            EOFError: There will be no more.
        """
        while True:
            try:
                data = os.read(self.fd, _READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                raise EOFError
            for line in self._lines.feed(data):
                yield decode(line)
            if len(data) < _READ_BYTES:
                return  # that was all; to be told so costs a call


def failure_to_json(error: SegdlError, code: int | None = None) -> dict[str, Any]:
    """
    Write an error of segdl's tree as plain data.

    Args:
        error: The error.
        code: libcurl's result code it stands for, if any.
    """
    row: dict[str, Any] = {"kind": type(error).__name__, "message": error.message}
    for name in ("status", "retry_after_seconds", "errno", "missing_bytes"):
        if getattr(error, name, None) is not None:
            row[name] = getattr(error, name)
    if code is not None:
        row["code"] = code
    return row


def failure_from_json(row: dict[str, Any]) -> SegdlError:
    """Build the error again; one of an unknown kind becomes a WorkerError."""
    kind = row.get("kind", "")
    cls = getattr(errors, kind) if kind in errors.__all__ else errors.WorkerError
    error: SegdlError = cls(str(row.get("message", "unknown failure")))
    for name, value in row.items():
        if name not in ("kind", "message"):
            setattr(error, name, value)
    return error
