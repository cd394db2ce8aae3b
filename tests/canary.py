"""Run programs as real processes, and see what they leave.

    canary ── environment variable ──> the program ──> its workers, theirs, ...
       │                                                    │
       └── alive(): every process that has the variable <───┘

A process that a program started, and any that those started, inherits the variable,
whatever became of its parent. So a scan finds orphans as surely as children.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

CHECKOUT = Path(__file__).resolve().parent.parent
PROGRAM_SECONDS = 60.0
GONE_SECONDS = 10.0

# What the file system in memory would hold of multiprocessing's or of segdl's.
_SHARED_NAMES = ("segdl", "psm_", "sem.", "shm")


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    returncode: int
    stdout: str
    stderr: str


class Canary:
    """
    A mark on all processes of one program.

    Args:
        extra: Environment variables for the program.
    """

    def __init__(self, **extra: str) -> None:
        self._name = f"TEST_CANARY_{secrets.token_hex(8)}"
        self._shared = _shared_memory()
        self.environment = {
            **os.environ,
            **extra,
            self._name: "1",
            "PYTHONPATH": str(CHECKOUT),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def alive(self) -> dict[int, str]:
        """Give the living processes of the program: id and command."""
        found = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if self._name in process.environ():
                    found[process.pid] = " ".join(process.cmdline())
        return found

    def workers(self) -> list[int]:
        """Give the ids of the workers among them."""
        return [pid for pid, command in self.alive().items() if is_worker(command)]

    def check_nothing_left(self) -> None:
        """Fail when a process or an entry in shared memory stays."""
        until(lambda: not self.alive(), GONE_SECONDS, self.alive)
        until(
            lambda: not _shared_memory() - self._shared,
            GONE_SECONDS,
            lambda: _shared_memory() - self._shared,
        )

    @contextmanager
    def start(
        self,
        command: Sequence[str | Path],
        *,
        stdin: Path | None = None,
        cwd: str | Path | None = None,
    ) -> Iterator[subprocess.Popen[str]]:
        """
        Start a program in a session of its own; kill what is left of it at the end.

        Args:
            command: Program and arguments.
            stdin: File for its standard input, None for nothing.
            cwd: Its current directory.
        """
        with open(stdin or os.devnull, "rb") as source:
            process = subprocess.Popen(
                [str(word) for word in command],
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=self.environment,
                cwd=cwd,
                start_new_session=True,
            )
        try:
            yield process
        except BaseException:
            self._kill()
            # pytest shows it with the failure.
            print(f"what the program wrote: {process.communicate()}")
            raise
        finally:
            self._kill()
            process.communicate()

    def run(
        self,
        command: Sequence[str | Path],
        *,
        stdin: Path | None = None,
        cwd: str | Path | None = None,
    ) -> Ended:
        """
        Run a program to its end, and check that nothing of it is left.

        Args:
            command: Program and arguments.
            stdin: File for its standard input, None for nothing.
            cwd: Its current directory.
        """
        with self.start(command, stdin=stdin, cwd=cwd) as process:
            ended = end_of(process)
            self.check_nothing_left()
        return ended

    def _kill(self) -> None:
        for pid in self.alive():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def end_of(process: subprocess.Popen[str]) -> Ended:
    """
    Wait for the end of a program, and for the end of what it writes.

    A process of it that holds its standard output or error open counts as running.
    """
    stdout, stderr = process.communicate(timeout=PROGRAM_SECONDS)
    return Ended(process.returncode, stdout, stderr)


def is_worker(command: str) -> bool:
    """Tell a worker's command line."""
    return "segdl._worker" in command


def children(role: str = "") -> list[psutil.Process]:
    """
    Give the workers of this very process.

    Args:
        role: "transfer" or "verify"; "" for both.
    """
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            words = child.cmdline()
            if is_worker(" ".join(words)) and (not role or role in words):
                found.append(child)
    return found


def until(
    condition: Callable[[], object],
    seconds: float = 30.0,
    describe: Callable[[], object] = lambda: "",
) -> None:
    """
    Wait for a condition.

    Args:
        condition: Asked again and again.
        seconds: The deadline, far above what is needed.
        describe: What to say when it is over.
    """
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {describe()}")
        pause.wait(0.01)


def _shared_memory() -> set[str]:
    with suppress(OSError):
        return {n for n in os.listdir("/dev/shm") if n.startswith(_SHARED_NAMES)}
    return set()
