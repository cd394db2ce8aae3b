"""Run a program to its end, and say what all of its processes took.

    measure() ──> process in a session of its own ── wait4 ──> wall time, and CPU of it
                      │                                        and what it waited for
                      └── /proc, a few times a second ──> peak PSS of the tree

A program that takes longer than it may is killed, with its session.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench._processes import descendants, environment, pss_bytes

_OUTPUT_BYTES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """
    What one run of a program took.

    Args:
        exit_code: Of the program; negative for a signal.
        wall_seconds: From just before its start until it was waited for.
        user_seconds: CPU in user mode, of the program and what it waited for.
        system_seconds: CPU in the kernel, of the same.
        output: The end of what it wrote to standard output and standard error.
        peak_pss_bytes: The largest sum of all processes' PSS seen at one moment; 0
            where nobody looked.
        processes: How many there were at that moment.
        killed: It took longer than it may.
    """

    exit_code: int
    wall_seconds: float
    user_seconds: float
    system_seconds: float
    output: str
    peak_pss_bytes: int = 0
    processes: int = 0
    killed: bool = False

    @property
    def cpu_seconds(self) -> float:
        """User and system together."""
        return self.user_seconds + self.system_seconds


def measure(
    command: Sequence[str],
    directory: Path,
    *,
    text: str = "",
    variables: Mapping[str, str] | None = None,
    limit_seconds: float | None = None,
    sample_seconds: float | None = None,
) -> Usage:
    """
    Run a program to its end.

    Args:
        command: The program and its arguments.
        directory: Its current directory; its input and output are kept there while it
            runs.
        text: What it reads.
        variables: To add to its environment.
        limit_seconds: It is killed after so long; None for never.
        sample_seconds: How often to look at its memory, None for never: reading
            smaps_rollup walks the page tables.
    """
    said, read = directory / ".output", directory / ".input"
    read.write_text(text, encoding="utf-8")
    with open(said, "w+b") as output, open(read, "rb") as source:
        begin = time.monotonic()
        process = subprocess.Popen(
            list(command),
            cwd=directory,
            env=environment(**(variables or {})),
            stdin=source,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        watcher = _Watcher(process.pid, begin, limit_seconds, sample_seconds)
        with watcher.watching():
            # wait4 adds up the descendants that were waited for themselves.
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.monotonic() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(max(0, output.seek(0, os.SEEK_END) - _OUTPUT_BYTES))
        tail = output.read().decode(errors="replace")
    said.unlink()
    read.unlink()
    return Usage(
        exit_code=process.returncode,
        wall_seconds=wall,
        user_seconds=usage.ru_utime,
        system_seconds=usage.ru_stime,
        output=tail,
        peak_pss_bytes=watcher.peak_bytes,
        processes=watcher.processes,
        killed=watcher.killed,
    )


class _Watcher:
    """A thread that samples the memory of a process tree, and kills it when late."""

    def __init__(
        self, pid: int, begin: float, limit: float | None, sample: float | None
    ) -> None:
        self.peak_bytes = 0
        self.processes = 0
        self.killed = False
        self._pid = pid
        self._deadline = None if limit is None else begin + limit
        self._sample = sample
        self._over = threading.Event()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch for the time of a with block."""
        if self._deadline is None and self._sample is None:
            yield
            return
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _run(self) -> None:
        while True:
            if self._sample is not None:
                self._look()
            left = None
            if self._deadline is not None:
                left = max(0.0, self._deadline - time.monotonic())
            waits = [each for each in (left, self._sample) if each is not None]
            if self._over.wait(min(waits)):
                return
            if left is not None and time.monotonic() >= (self._deadline or 0.0):
                self.killed = True
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._pid, signal.SIGKILL)
                return

    def _look(self) -> None:
        tree = [self._pid, *descendants(self._pid)]
        total = sum(pss_bytes(pid) for pid in tree)
        if total > self.peak_bytes:
            self.peak_bytes, self.processes = total, len(tree)
