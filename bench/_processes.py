"""Process trees: run a program, and say what all of its processes cost.

    measure()  ── wait4 ──> wall time, CPU of the program and of what it waited for
    watch()    ── /proc ──> peak PSS of the tree, sampled; in a run of its own, as
                            reading smaps_rollup walks the page tables

Linux only, like everything that reads /proc.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SAMPLE_SECONDS = 0.05
_SHARED_MEMORY_NAMES = ("segdl", "psm_", "sem.mp-", "sem.loky-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """
    What one run of a program took.

    Args:
        exit_code: Of the program; negative for a signal.
        wall_seconds: From just before its start until it was waited for.
        user_seconds: CPU in user mode, of the program and what it waited for.
        system_seconds: CPU in the kernel, of the same.
        output: What it wrote to standard output and standard error.
    """

    exit_code: int
    wall_seconds: float
    user_seconds: float
    system_seconds: float
    output: str

    @property
    def cpu_seconds(self) -> float:
        """User and system together."""
        return self.user_seconds + self.system_seconds


def segdl_command(*arguments: str) -> list[str]:
    """Give the command line of this checkout's `segdl`."""
    return [sys.executable, "-m", "segdl", *arguments]


def environment(**more: str) -> dict[str, str]:
    """Give an environment without proxies and SEGDL_* settings, with `more` added."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SEGDL_") and not name.lower().endswith("_proxy")
    }
    # Neither a configuration of the user's nor one in the current directory.
    kept["XDG_CONFIG_HOME"] = "/nonexistent"
    paths = [str(ROOT), *filter(None, [kept.get("PYTHONPATH")])]
    kept["PYTHONPATH"] = os.pathsep.join(paths)
    return kept | more


def measure(command: Sequence[str], directory: Path) -> Usage:
    """
    Run a program to its end.

    Args:
        command: The program and its arguments.
        directory: Its current directory; its output is kept there while it runs.
    """
    log = directory / ".output"
    with open(log, "w+b") as output:
        begin = time.monotonic()
        process = subprocess.Popen(
            list(command),
            cwd=directory,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        # wait4 adds up the descendants that were waited for themselves.
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode(errors="replace")
    log.unlink()
    return Usage(
        exit_code=process.returncode,
        wall_seconds=wall,
        user_seconds=usage.ru_utime,
        system_seconds=usage.ru_stime,
        output=text,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """
    The memory of a process tree over a run.

    Args:
        exit_code: Of the program.
        peak_pss_bytes: The largest sum of all processes' PSS seen at one moment.
        processes: How many there were at that moment.
        samples: How many moments were looked at.
    """

    exit_code: int
    peak_pss_bytes: int
    processes: int
    samples: int


def watch(command: Sequence[str], directory: Path) -> Memory:
    """
    Run a program to its end and sample its memory.

    Args:
        command: The program and its arguments.
        directory: Its current directory.
    """
    process = subprocess.Popen(
        list(command),
        cwd=directory,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    peak, count, samples = 0, 0, 0
    pause = threading.Event()
    while process.poll() is None:
        tree = [process.pid, *descendants(process.pid)]
        total = sum(pss_bytes(pid) for pid in tree)
        samples += 1
        if total > peak:
            peak, count = total, len(tree)
        pause.wait(SAMPLE_SECONDS)
    return Memory(
        exit_code=process.returncode,
        peak_pss_bytes=peak,
        processes=count,
        samples=samples,
    )


def children(pid: int) -> list[int]:
    """List the children of a process; empty when it is gone."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{pid}/task/{task}/children").read_text()
                found += map(int, text.split())
    return found


def descendants(pid: int) -> list[int]:
    """List the children of a process, theirs, and so on."""
    found: list[int] = []
    waiting = children(pid)
    while waiting:
        child = waiting.pop()
        found.append(child)
        waiting += children(child)
    return found


def pss_bytes(pid: int) -> int:
    """Give the proportional set size of a process, 0 when it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def rss_bytes(pid: int | str = "self") -> int:
    """Give the resident set size of a process, 0 when it is gone."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def is_running(pid: int) -> bool:
    """Tell whether a process exists and has not ended; a zombie has."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def marked(name: str, value: str) -> list[int]:
    """List the running processes that have a variable in their environment."""
    wanted = f"{name}={value}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            variables = Path(f"/proc/{entry}/environ").read_bytes().split(b"\0")
            if wanted in variables and is_running(int(entry)):
                found.append(int(entry))
    return found


def shared_memory() -> set[str]:
    """List the names in /dev/shm that are segdl's, or Python's multiprocessing's."""
    with contextlib.suppress(FileNotFoundError):
        names = os.listdir("/dev/shm")
        return {name for name in names if name.startswith(_SHARED_MEMORY_NAMES)}
    return set()


def kill(pid: int) -> bool:
    """Send SIGKILL; True when there was such a process."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def wait_until(condition: Any, seconds: float) -> bool:
    """
    Wait for a condition.

    Args:
        condition: Called every 20 ms until it gives something true.
        seconds: The longest wait.
    """
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        if time.monotonic() >= deadline:
            return False
        pause.wait(0.02)
    return True


@contextlib.contextmanager
def running(
    command: Sequence[str], stop: signal.Signals = signal.SIGTERM, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """
    Run a server for the time of a with block.

    Args:
        command: The program and its arguments.
        stop: The signal that ends it.
        options: For `subprocess.Popen`.
    """
    process = subprocess.Popen(list(command), stdin=subprocess.DEVNULL, **options)
    try:
        yield process
    finally:
        process.send_signal(stop)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
