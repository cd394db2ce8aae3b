"""Process trees: which processes there are, what they hold, and how they are ended.

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
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_SHARED_MEMORY_NAMES = ("segdl", "psm_", "sem.mp-", "sem.loky-")


def segdl_command(*arguments: str) -> list[str]:
    """Give the command line of this checkout's `segdl`."""
    return [sys.executable, "-m", "segdl", *arguments]


def environment(**more: str) -> dict[str, str]:
    """Give an environment without proxies and SEGDL_* settings, with `more` added."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SEGDL_")
        and not name.lower().endswith("_proxy")
        # Without its bytecode a program of Python is compiled at every start.
        and name != "PYTHONDONTWRITEBYTECODE"
    }
    # Neither a configuration of the user's nor one in the current directory.
    kept["XDG_CONFIG_HOME"] = "/nonexistent"
    paths = [str(ROOT), *filter(None, [kept.get("PYTHONPATH")])]
    kept["PYTHONPATH"] = os.pathsep.join(paths)
    return kept | more


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
