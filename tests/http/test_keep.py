"""A lane that keeps its bytes in memory: what a worker does with it, over a socket."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from http_checks import MIB, until
from scripted import head, part

from segdl._messages import (
    Accept,
    Ended,
    Fetch,
    Kept,
    Message,
    PartRef,
    Pieces,
    Split,
)
from segdl._transfer import Transfers
from segdl.testing import Blob

CONTENT = Blob(1, 4 * MIB).read()
BEGIN, END = MIB + 7, 2 * MIB + 11
WANTED = END - BEGIN


class Worker:
    """A worker's transfers without a process, and what they told."""

    def __init__(self, path: Path) -> None:
        self.told: list[Message] = []
        self.transfers = Transfers(self.told.append)
        self.path = path
        path.write_bytes(bytes(len(CONTENT)))
        found = os.stat(path)
        self.part = PartRef(str(path), found.st_dev, found.st_ino, False, MIB)

    def fetch(self, url: str) -> None:
        """Ask for some bytes, to be kept."""
        self.transfers.fetch(
            Fetch(
                lane=1,
                url=url,
                headers={},
                begin=BEGIN,
                end=END,
                ranged=True,
                follow=False,
                hold=True,
                keep=True,
                complete=len(CONTENT),
                had=None,
                validator=None,
                proof=False,
                if_range=None,
                part=None,
            )
        )

    def kinds(self) -> list[str]:
        """Give what was told, without reports on the way."""
        kinds = [type(message).__name__ for message in self.told]
        return [kind for kind in kinds if kind != "Progress"]

    def wait(self, *kinds: type[Message]) -> Message:
        """Let the loop turn until something is told."""

        def told() -> bool:
            self.transfers.turn(0.01)
            return any(isinstance(message, kinds) for message in self.told)

        until(told)
        return next(message for message in self.told if isinstance(message, kinds))

    def ended(self) -> Ended:
        """Wait for the end of the lane."""
        message = self.wait(Ended)
        assert isinstance(message, Ended)
        return message

    def file(self) -> bytes:
        """Give what is in the file."""
        return self.path.read_bytes()

    def check_untouched(self) -> None:
        """Expect a file in which nothing was written."""
        assert self.file() == bytes(len(CONTENT))
        assert "Pieces" not in self.kinds()


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    """Give a worker."""
    made = Worker(tmp_path / "part")
    yield made
    made.transfers.close()


def whole(asked: Any) -> bytes:
    """Answer a range."""
    return part(asked, CONTENT, most=len(CONTENT))


@pytest.fixture
def kept(worker: Worker, script: Callable[..., Any]) -> Worker:
    """Give a worker whose lane has all its bytes."""
    worker.fetch(script(whole).url)
    worker.wait(Kept)
    return worker


def test_all_bytes_wait_in_memory(kept: Worker) -> None:
    """The answer is told, and that they are there; nothing is written."""
    assert kept.kinds() == ["Answered", "Kept"]
    for _ in range(20):
        kept.transfers.turn(0.01)
    assert kept.kinds() == ["Answered", "Kept"]
    kept.check_untouched()


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        (BEGIN, END),
        (BEGIN + 100_001, END),
        (END - 1, END),
        (BEGIN, END - 5),
        (BEGIN + 5, BEGIN + 6),
    ],
)
def test_what_was_accepted_is_written(kept: Worker, begin: int, end: int) -> None:
    """From a later byte too, and up to an earlier one: these bytes, and no other."""
    kept.transfers.accept(Accept(1, kept.part, begin, end))
    assert kept.ended() == Ended(1, end, WANTED, None)
    written = CONTENT[begin:end]
    assert kept.file() == bytes(begin) + written + bytes(len(CONTENT) - end)
    pieces = [p for m in kept.told if isinstance(m, Pieces) for p in m.pieces]
    position = begin
    for lane, offset, length, _ in pieces:
        assert (lane, offset) == (1, position)
        position += length
    assert position == end


def test_a_stop_of_what_was_kept(kept: Worker) -> None:
    """It is dropped; the lane ends where it began, in good order."""
    kept.transfers.stop(1)
    assert kept.ended() == Ended(1, BEGIN, WANTED, None)
    kept.check_untouched()


def test_a_stop_on_the_way(worker: Worker, script: Callable[..., Any]) -> None:
    """What has come is dropped as well."""

    def stuck(asked: Any) -> Iterator[bytes]:
        yield whole(asked)[:300_000]
        until(lambda: "Ended" in worker.kinds())

    worker.fetch(script(stuck).url)
    lane = worker.transfers._lanes[1]
    until(lambda: worker.transfers.turn(0.01) or len(lane.kept) > 200_000)
    assert lane.position == BEGIN + len(lane.kept)
    worker.transfers.stop(1)
    assert worker.ended().failure is None
    worker.check_untouched()


def test_a_split_changes_nothing(kept: Worker) -> None:
    """It has no place in the file that it could give up."""
    kept.transfers.split(Split(1, 0.5))
    assert kept.kinds() == ["Answered", "Kept"]


def test_a_file_that_can_not_be_written(kept: Worker) -> None:
    """The lane fails, and says so."""
    kept.path.unlink()
    kept.transfers.accept(Accept(1, kept.part, BEGIN, END))
    failure = kept.ended().failure
    assert failure is not None
    assert failure["kind"] == "StorageError"


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (lambda asked: whole(asked)[:-9], "IncompleteTransfer", ""),
        (
            lambda asked: part(asked, CONTENT, most=1000),
            "IncompleteTransfer",
            f"ended before {BEGIN + 1000}",
        ),
        (
            lambda _: head("200 OK", f"Content-Length: {len(CONTENT)}") + CONTENT,
            "RangeMismatch",
            "the whole file",
        ),
        (lambda _: head("503 Busy", "Content-Length: 0"), "StatusError", "503"),
        (lambda _: b"", "IncompleteTransfer", ""),
    ],
    ids=["cut", "short", "whole", "busy", "nothing"],
)
def test_other_answers(
    worker: Worker,
    script: Callable[..., Any],
    answer: Callable[[Any], bytes],
    kind: str,
    words: str,
) -> None:
    """The lane fails as any other; it never says that it has all."""
    worker.fetch(script(answer).url)
    ended = worker.ended()
    assert ended.failure is not None
    assert ended.failure["kind"] == kind
    assert words in ended.failure["message"]
    assert "Kept" not in worker.kinds()
    worker.check_untouched()


def test_more_than_was_asked_for(worker: Worker, script: Callable[..., Any]) -> None:
    """A range that goes on is cut: what was asked for is there."""

    def more(asked: Any) -> bytes:
        where = f"Content-Range: bytes {asked.begin}-{asked.end + 999}/{len(CONTENT)}"
        length = f"Content-Length: {asked.end + 1000 - asked.begin}"
        rest = CONTENT[asked.begin : asked.end + 1000]
        return head("206 Part", where, length) + rest

    worker.fetch(script(more).url)
    message = worker.wait(Kept, Ended)
    if isinstance(message, Kept):
        worker.transfers.accept(Accept(1, worker.part, BEGIN, END))
        assert worker.ended() == Ended(1, END, WANTED, None)
        assert worker.file()[BEGIN:END] == CONTENT[BEGIN:END]
        assert worker.file()[END:] == bytes(len(CONTENT) - END)
    else:
        worker.check_untouched()


def test_a_rate_limit(worker: Worker, script: Callable[..., Any]) -> None:
    """What the limit holds up goes on when there is room again."""
    worker.transfers.limit(4.0 * MIB)
    worker.fetch(script(whole).url)
    worker.wait(Kept)
    assert worker.kinds() == ["Answered", "Kept"]


def test_a_rate_limit_that_is_lifted(
    worker: Worker, script: Callable[..., Any]
) -> None:
    """The lane does not wait for ever."""
    worker.transfers.limit(1.0)
    worker.fetch(script(whole).url)
    lane = worker.transfers._lanes[1]
    until(lambda: worker.transfers.turn(0.01) or lane.waiting)
    worker.transfers.limit(None)
    worker.wait(Kept)
