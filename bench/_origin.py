"""The embedded origin in a process of its own, and its log read from a file."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench._processes import ROOT, environment, running

Run = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """
    One answer of the origin with bytes of the file, as its log has it.

    Args:
        begin: Offset of the first byte that was sent.
        end: One past the last; what the client's system had not read by its end is
            counted too.
        began: Monotonic seconds when the request had been read.
        ended: Monotonic seconds when the answer was over.
        complete: It was sent to its end.
    """

    begin: int
    end: int
    began: float
    ended: float
    complete: bool


@contextlib.contextmanager
def origin(*options: str) -> Iterator[tuple[str, int]]:
    """
    Run `python -m segdl.testing` for the time of a with block.

    Args:
        options: Of that program.

    Yields:
        Its base URL, and its process id.
    """
    with running(
        [sys.executable, "-m", "segdl.testing", *options],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        if not line:
            raise RuntimeError("the origin did not start")
        yield line.split()[0], process.pid


def read_log(path: Path) -> list[Answer]:
    """
    Read the answers from a log, in order of their beginning.

    Args:
        path: What the origin got as `--log`; complete once the origin has ended.
    """
    entries: list[dict[str, Any]] = [
        json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()
    ]
    answers = [
        Answer(
            begin=entry["offset"],
            end=entry["offset"] + entry["sent_bytes"],
            began=entry["began"],
            ended=entry["ended"],
            complete=entry["complete"],
        )
        for entry in entries
        if entry["offset"] is not None and entry["sent_bytes"]
    ]
    return sorted(answers, key=lambda answer: answer.began)


def merged(runs: Iterable[Run]) -> list[Run]:
    """Join overlapping and adjacent runs, half-open; give them in order."""
    joined: list[Run] = []
    for begin, end in sorted(runs):
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((begin, end))
    return joined


def length(runs: Iterable[Run]) -> int:
    """Sum up the lengths of runs."""
    return sum(end - begin for begin, end in runs)


def overlap(run: Run, others: Iterable[Run]) -> int:
    """Count the bytes of a run that lie in merged others."""
    return sum(max(0, min(run[1], end) - max(run[0], begin)) for begin, end in others)
