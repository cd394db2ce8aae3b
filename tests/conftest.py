"""What holds for every test: a private environment, and nothing left behind.

    session   proxies and SEGDL_* out, XDG_CONFIG_HOME and TMPDIR private, SIGINT taken
    test      snapshot ──> the test and its own fixtures ──> snapshot, compared

A leftover gets a few seconds to go away by itself (a process that is just ending);
what is still there then fails the test that left it. Fixtures of a wider scope come
before the first snapshot, so what they hold is nobody's leak.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from bench._processes import shared_memory

# No test is about time, and 200 ms are soon over on a busy machine.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

GRACE_SECONDS = 5.0

Leftovers = dict[str, set[str]]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the fault matrix; see tests/matrix/conftest.py."""
    group = parser.getgroup("matrix", "the fault matrix")
    group.addoption("--full", action="store_true", help="leave nothing out")
    group.addoption("--seed", type=int, default=1, help="of what is drawn")
    group.addoption("--record", action="store_true", help="write docs/reliability.md")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what needs nginx, where there is none."""
    marked = [item for item in items if item.get_closest_marker("nginx")]
    if not marked:
        return
    from bench._server import find_nginx  # costs the tests without it nothing

    if find_nginx() is None:
        left_out = pytest.mark.skip(reason="no nginx program; scripts/test installs it")
        for item in marked:
            item.add_marker(left_out)


@pytest.fixture(scope="session", autouse=True)
def private_environment(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Path]:
    """Keep the user's proxies and configuration out, and temporary files in view."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("SEGDL_") or name.lower().endswith("_proxy"):
                patch.delenv(name)
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        directory = tmp_path_factory.mktemp("tmp")
        patch.setenv("TMPDIR", str(directory))
        patch.setattr(tempfile, "tempdir", str(directory))
        yield directory


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Let programs take SIGINT, also where a shell started the tests with `&`."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def default_signals() -> Iterator[None]:
    """Have programs take signals also where the test run itself ignores them."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if handler == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def nothing_left_behind(private_environment: Path) -> Iterator[None]:
    """Fail a test that leaves a process, thread, descriptor or file behind."""
    before = _snapshot(private_environment)
    yield
    left = _new(before, _snapshot(private_environment))
    if not left:
        return
    # Objects in reference cycles hold descriptors until they are collected.
    gc.collect()
    deadline = time.monotonic() + GRACE_SECONDS
    pause = threading.Event()
    while left := _new(before, _snapshot(private_environment)):
        if time.monotonic() >= deadline:
            pytest.fail(f"left behind: {_described(left)}", pytrace=False)
        pause.wait(0.02)


def _snapshot(directory: Path) -> Leftovers:
    return {
        "process": _children(),
        "thread": {
            f"{thread.name} ({thread.ident})"
            for thread in threading.enumerate()
            if thread.name.startswith("segdl-")
        },
        "descriptor": _descriptors(),
        "shared memory": shared_memory(),
        "temporary file": {
            name for name in _names(directory) if not name.startswith("pymp-")
        },
        # Dot files are the caches of tools, which the test run itself writes.
        "file in the current directory": {
            name for name in _names(".") if not name.startswith((".", "__pycache__"))
        },
    }


def _new(before: Leftovers, after: Leftovers) -> Leftovers:
    left = {kind: after[kind] - before[kind] for kind in after}
    return {kind: names for kind, names in left.items() if names}


def _described(left: Leftovers) -> str:
    parts = []
    for kind, names in left.items():
        for name in sorted(names):
            detail = ""
            if kind == "descriptor":
                detail = f" ({_target(name)})"
            elif kind == "process":
                detail = f" ({_command(int(name))})"
            parts.append(f"{kind} {name}{detail}")
    return ", ".join(parts)


def _names(directory: str | Path) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _children() -> set[str]:
    """Return the ids of this process's children, those not waited for included."""
    # /proc keeps the list per thread (0.05 ms); psutil looks at every process (5 ms).
    pids: set[str] = set()
    try:
        for task in os.listdir("/proc/self/task"):
            pids.update(Path(f"/proc/self/task/{task}/children").read_text().split())
    except OSError:
        import psutil

        pids = {str(child.pid) for child in psutil.Process().children()}
    return pids - {str(pid) for pid in _resource_tracker("_pid")}


def _descriptors() -> set[str]:
    # Without the readlink, the listing's own descriptor, closed by now, would count,
    # and hide a leak that takes its number.
    return {fd for fd in _names("/proc/self/fd") if _target(fd)} - {
        str(fd) for fd in _resource_tracker("_fd")
    }


def _resource_tracker(attribute: str) -> list[int]:
    """
    Return what multiprocessing's resource tracker holds.

    It is started by the first semaphore and stays until the interpreter ends.
    """
    module = sys.modules.get("multiprocessing.resource_tracker")
    if module is None:
        return []
    value = getattr(module._resource_tracker, attribute, None)
    return [] if value is None else [value]


def _target(fd: str) -> str:
    """Return what a descriptor is open on, "" for one that is closed."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


def _command(pid: int) -> str:
    import psutil

    try:
        process = psutil.Process(pid)
        return f"{process.status()}: {' '.join(process.cmdline()) or process.name()}"
    except psutil.Error:
        return "gone meanwhile"
