"""Workers that die, hang or never start: the download goes on, or says why not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from canary import Canary, children, until

from segdl import DownloadEngine, DownloadTask, _lanes, _scheduler
from segdl import _processes as processes
from segdl._fs import Directory
from segdl._manifest import load
from segdl._worker import TRANSFER
from segdl.errors import StorageError, WorkerError
from segdl.testing import Origin

MIB = 1 << 20
SIZE = 24 * MIB + 321
# From here on a second worker is started; see segdl._scheduler.
TWO_WORKERS_SIZE = 64 * MIB
LANES = 4

MakeEngine = Callable[..., DownloadEngine]

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="finds workers by their command line"
)


def recorded(task: DownloadTask) -> int:
    """Bytes that the manifest beside a part file has: what a kill can't take away."""
    with Directory.open(task.output_path, create=False) as directory:
        try:
            pieces = load(directory, f"{task.filename}.segdl").pieces
        except StorageError:  # Not there yet.
            return 0
    return sum(piece.length for piece in pieces)


def middle(task: DownloadTask, size: int = 2 * MIB) -> None:
    """Wait until some pieces are recorded."""
    until(lambda: task.status != "downloading" or recorded(task) >= size)
    assert task.status == "downloading", task.error


def kill(victims: list[psutil.Process]) -> None:
    for process in victims:
        process.send_signal(signal.SIGKILL)


def finished(task: DownloadTask) -> bytes:
    return Path(task.result(timeout=60)).read_bytes()


def stop_within_ten_seconds(engine: DownloadEngine) -> None:
    thread = threading.Thread(target=engine.shutdown, kwargs={"wait": False})
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), "shutdown(wait=False) hangs"


def test_download_survives_the_death_of_its_worker(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """kill -9 of the worker: recorded pieces stay, the rest comes by a new one."""
    engine = make_engine(connections=LANES)
    task = engine.download(origin.blob_url(1, SIZE), tmp_path, "file")
    middle(task)
    (worker,) = children("transfer")
    kill([worker])
    assert finished(task) == origin.blob(1, SIZE).read()
    # A lane loses a piece (1 MiB), a receive buffer and what the sockets held.
    assert origin.log.served_twice() <= LANES * 4 * MIB
    assert [child.pid for child in children("transfer")] != [worker.pid]


def test_worker_dies_while_a_rest_is_asked_for_twice(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """Both lanes die with it, the silent one and its second: others bring the rest."""
    origin.total_rate = None
    engine = make_engine(connections=LANES, timeout=30)
    size = 4 * MIB + 5
    silent = 3 * MIB + 100_000
    # The first answer that gets there stops, and the second crawls.
    faults = [f"slow=50k@at{silent},2", f"stall@at{silent},1"]
    url = origin.blob_url(9, size, f=faults)
    task = engine.download(url, tmp_path, "file")

    def doubled() -> bool:
        ranges = [entry.range or (0, 0) for entry in origin.log.entries[1:]]
        return sum(1 for begin, end in ranges if begin <= silent < end) >= 2

    until(doubled)
    middle(task)
    kill(children("transfer"))
    assert finished(task) == origin.blob(9, size).read()


def test_other_worker_goes_on(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """Of two workers one dies: the other stays, with the lanes it has."""
    origin.total_rate = 48 * MIB
    engine = make_engine(connections=LANES, processes=2)
    size = TWO_WORKERS_SIZE
    task = engine.download(origin.blob_url(2, size), tmp_path, "file")
    until(lambda: len(children("transfer")) == 2)
    middle(task, 8 * MIB)
    first, second = children("transfer")
    kill([first])
    middle(task, 24 * MIB)
    assert second.is_running()
    assert finished(task) == origin.blob(2, size).read()
    assert second.is_running()
    assert origin.log.served_twice() <= LANES * 4 * MIB


def test_download_survives_the_death_of_every_worker(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """All workers die at once, the verifier too: the bytes and the digest are right."""
    origin.total_rate = 48 * MIB
    engine = make_engine(connections=LANES, processes=2)
    size, digest = TWO_WORKERS_SIZE, origin.blob(3, TWO_WORKERS_SIZE).digest("sha256")
    task = engine.download(
        origin.blob_url(3, size), tmp_path, "file", checksum=f"sha256:{digest}"
    )
    until(lambda: len(children("transfer")) == 2 and children("verify"))
    middle(task, 8 * MIB)
    kill(children())
    task.result(timeout=60)
    assert task.checksum == f"sha256:{digest}"
    assert origin.log.served_twice() <= LANES * 4 * MIB


def test_download_survives_the_death_of_the_verifier(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """kill -9 of the verifier costs no transfer: another one reads the file."""
    engine = make_engine(connections=LANES)
    digest = origin.blob(4, SIZE).digest("sha256")
    task = engine.download(
        origin.blob_url(4, SIZE), tmp_path, "file", checksum=f"sha256:{digest}"
    )
    until(lambda: children("verify"))
    middle(task)
    (transfer,) = children("transfer")
    kill(children("verify"))
    assert finished(task) == origin.blob(4, SIZE).read()
    assert task.checksum == f"sha256:{digest}"
    assert [child.pid for child in children("transfer")] == [transfer.pid]


@pytest.mark.parametrize("role", ["transfer", "verify"])
def test_stopped_worker_does_not_hold_a_shutdown_up(
    role: str, origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """A worker under SIGSTOP answers nothing; shutdown(wait=False) ends yet."""
    engine = make_engine(connections=LANES)
    digest = origin.blob(5, SIZE).digest("sha256")
    task = engine.download(
        origin.blob_url(5, SIZE), tmp_path, "file", checksum=f"sha256:{digest}"
    )
    until(lambda: children("verify"))
    middle(task)
    (worker,) = children(role)
    worker.send_signal(signal.SIGSTOP)
    stop_within_ten_seconds(engine)
    assert children() == []
    assert not worker.is_running()
    assert not (tmp_path / "file").exists()

    again = make_engine().download(origin.blob_url(5, SIZE), tmp_path, "file")
    assert finished(again) == origin.blob(5, SIZE).read()
    assert again.resumed_size >= 2 * MIB


def test_stopped_worker_does_not_hold_a_cancel_up(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """Cancelling under a hung worker removes the partial files; the engine works on."""
    engine = make_engine(max_workers=1)
    task = engine.download(origin.blob_url(6, SIZE), tmp_path, "file")
    middle(task)
    (worker,) = children("transfer")
    worker.send_signal(signal.SIGSTOP)
    assert engine.cancel_task(task.id)
    other = engine.download(origin.blob_url(7, MIB), tmp_path, "other")
    assert finished(other) == origin.blob(7, MIB).read()
    until(lambda: [path.name for path in tmp_path.iterdir()] == ["other"])


def test_workers_that_the_engine_gives_up_are_no_unexpected_deaths(
    origin: Origin,
    make_engine: MakeEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many hung workers are killed by cancelling, a next task gets a worker."""
    monkeypatch.setattr(_lanes, "_STOP_SECONDS", 0.1)
    origin.total_rate = 48 * MIB
    engine = make_engine(max_workers=1)
    for number in range(_scheduler._MAX_DEATHS + 1):
        task = engine.download(origin.blob_url(number, SIZE), tmp_path, f"{number}")
        middle(task)
        (worker,) = children("transfer")
        worker.send_signal(signal.SIGSTOP)
        assert engine.cancel_task(task.id)
        until(lambda worker=worker: not worker.is_running())
    last = engine.download(origin.blob_url(7, MIB), tmp_path, "last")
    assert finished(last) == origin.blob(7, MIB).read()


def test_worker_that_can_not_be_killed_gets_no_more_lanes(
    origin: Origin,
    make_engine: MakeEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where a dead disk holds a worker for ever, downloads to others get a new one."""
    monkeypatch.setattr(_lanes, "_STOP_SECONDS", 0.1)
    engine = make_engine(max_workers=1)
    task = engine.download(origin.blob_url(6, SIZE), tmp_path, "file")
    middle(task)
    (worker,) = children("transfer")
    worker.send_signal(signal.SIGSTOP)
    with monkeypatch.context() as patch:
        patch.setattr(processes.Worker, "kill", lambda _self: None)
        assert engine.cancel_task(task.id)
        until(lambda: not list(tmp_path.iterdir()))
        other = engine.download(origin.blob_url(7, MIB), tmp_path, "other")
        assert finished(other) == origin.blob(7, MIB).read()
        assert worker.is_running()
    kill([worker])


def test_worker_that_was_stopped_for_a_while_goes_on(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """SIGSTOP and SIGCONT, as a suspended machine: nothing is lost or doubled."""
    engine = make_engine(connections=LANES)
    task = engine.download(origin.blob_url(8, SIZE), tmp_path, "file")
    middle(task)
    (worker,) = children("transfer")
    worker.send_signal(signal.SIGSTOP)
    until(lambda: worker.status() == psutil.STATUS_STOPPED)
    assert not task.wait(timeout=0.3)
    worker.send_signal(signal.SIGCONT)
    assert finished(task) == origin.blob(8, SIZE).read()
    assert children("transfer") == [worker]
    assert origin.log.served_twice() <= LANES * 4 * MIB


def stop_in_verification(
    origin: Origin, engine: DownloadEngine, directory: Path
) -> tuple[DownloadTask, psutil.Process]:
    """Transfer a file whole, and stop its verifier before it has read all of it."""
    digest = origin.blob(10, SIZE).digest("sha256")
    task = engine.download(
        origin.blob_url(10, SIZE), directory, "file", checksum=f"sha256:{digest}"
    )
    until(lambda: children("verify"))
    (verifier,) = children("verify")
    verifier.send_signal(signal.SIGSTOP)
    until(lambda: task.phase == "verifying")
    return task, verifier


def test_verifier_killed_at_the_end_is_replaced(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """Every byte is there and the verifier dies: another one reads them all."""
    task, verifier = stop_in_verification(origin, make_engine(), tmp_path)
    assert (task.status, task.downloaded_size) == ("downloading", SIZE)
    assert not (tmp_path / "file").exists()
    kill([verifier])
    assert finished(task) == origin.blob(10, SIZE).read()
    assert task.checksum == f"sha256:{origin.blob(10, SIZE).digest('sha256')}"


@pytest.mark.parametrize("call", ["pause", "cancel", "shutdown"])
def test_verification_can_be_left(
    call: str, origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """Pause, cancel and shutdown do not wait for a verifier that hangs."""
    engine = make_engine()
    task, verifier = stop_in_verification(origin, engine, tmp_path)
    requests, sent = len(origin.log.settle()), origin.log.bytes_sent()
    if call == "shutdown":
        stop_within_ten_seconds(engine)
        engine = make_engine()
        task = engine.download(origin.blob_url(10, SIZE), tmp_path, "file")
    elif call == "pause":
        assert task.pause()
        kill([verifier])
        assert task.resume()
    else:
        assert task.cancel()
        until(lambda: list(tmp_path.iterdir()) == [])
        kill([verifier])
        return
    assert finished(task) == origin.blob(10, SIZE).read()
    # One request compares validators; no byte is needed again.
    assert len(origin.log.entries) <= requests + 1
    assert origin.log.bytes_sent() - sent <= 4096


@pytest.mark.parametrize(
    "program",
    ["import sys; sys.exit(3)", "import os; os.kill(os.getpid(), 9)", "syntax error"],
)
def test_workers_that_always_crash_end_in_an_error(
    program: str,
    origin: Origin,
    make_engine: MakeEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A crash loop has an end: a WorkerError that says what to do."""
    monkeypatch.setattr(processes, "_BOOTSTRAP", program)
    engine = make_engine()
    task = engine.download(origin.blob_url(1, MIB), tmp_path, "file")
    with pytest.raises(WorkerError, match="processes=0"):
        task.result(timeout=30)
    assert task.status == "failed"
    assert list(tmp_path.iterdir()) == []


def test_verifier_that_always_crashes_ends_in_an_error(
    origin: Origin,
    make_engine: MakeEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a verifier nothing is published: the task fails and stays resumable."""
    crash = "import sys; sys.argv[2] == 'verify' and sys.exit(3);"
    monkeypatch.setattr(processes, "_BOOTSTRAP", crash + processes._BOOTSTRAP)
    digest = origin.blob(1, MIB).digest("sha256")
    task = make_engine().download(
        origin.blob_url(1, MIB), tmp_path, "file", checksum=f"sha256:{digest}"
    )
    with pytest.raises(WorkerError):
        task.result(timeout=30)
    assert not (tmp_path / "file").exists()


def test_interpreter_that_cannot_be_started_is_an_error(
    origin: Origin,
    make_engine: MakeEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An executable file that is no program gives a WorkerError, not a hang."""
    broken = tmp_path / "python"
    broken.write_text("no program")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    task = make_engine().download(origin.blob_url(1, MIB), tmp_path / "d", "file")
    with pytest.raises(WorkerError, match="processes=0"):
        task.result(timeout=30)


@pytest.mark.parametrize("executable", ["", "/nowhere/python", None])
def test_engine_does_without_an_interpreter(
    executable: str | None,
    origin: Origin,
    make_engine: MakeEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Embedded or frozen, with no interpreter to start, a thread does the work."""
    monkeypatch.setattr(sys, "executable", executable)
    task = make_engine().download(origin.blob_url(1, MIB), tmp_path, "file")
    assert finished(task) == origin.blob(1, MIB).read()
    assert children() == []


@pytest.mark.parametrize("processes", ["auto", 0])
def test_threads_of_the_engine_take_no_signal(
    processes: Any, origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """Ctrl-C is for the main thread: one that the engine's thread took wakes nobody."""
    engine = make_engine(processes=processes)
    task = engine.download(origin.blob_url(1, SIZE), tmp_path, "file")
    middle(task)
    threads = [
        thread
        for thread in threading.enumerate()
        if thread.name in ("segdl-engine", "segdl-transfer")
    ]
    assert len(threads) == (1 if processes == "auto" else 2)
    for thread in threads:
        status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
        blocked = int(status.partition("SigBlk:")[2].split()[0], 16)
        for number in (signal.SIGINT, signal.SIGTERM):
            assert blocked >> (number - 1) & 1, f"{thread.name} takes signal {number}"


class Undying:
    """A process that hangs in the kernel, where no signal reaches it."""

    pid = os.getpid()

    def __init__(self, *_args: Any, **_options: Any) -> None:
        self.calls: list[str] = []

    def poll(self) -> None:
        """Tell that it lives."""

    def kill(self) -> None:
        """Note it."""
        self.calls.append("kill")

    def wait(self, timeout: float) -> None:
        """Note it, and be there still."""
        self.calls.append("wait")
        raise subprocess.TimeoutExpired("worker", timeout)


def test_worker_that_can_not_be_killed_is_waited_for_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its lanes are given up one by one, and the engine waits for one alone."""
    monkeypatch.setattr(processes.subprocess, "Popen", Undying)
    worker = processes.Worker("transfer", in_process=False)
    for _lane in range(3):
        worker.kill()
    worker.close()
    assert worker._process.calls == ["kill", "wait"]


def test_worker_ends_by_sigterm(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """Of the signals that the engine keeps from its threads, SIGTERM ends a worker."""
    engine = make_engine()
    task = engine.download(origin.blob_url(1, SIZE), tmp_path, "file")
    middle(task)
    (worker,) = children("transfer")
    worker.terminate()
    until(lambda: not worker.is_running())
    assert finished(task) == origin.blob(1, SIZE).read()


def test_command_line_of_a_worker_holds_no_secret(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """URL and headers go through the pipe: `ps` shows none of them."""
    engine = make_engine()
    url = origin.blob_url(1, SIZE) + "?token=S3CRET"
    task = engine.download(
        url, tmp_path, "file", headers={"Authorization": "Bearer S3CRET"}
    )
    middle(task)
    for child in children():
        assert "S3CRET" not in " ".join(child.cmdline())
        assert "S3CRET" not in str(child.environ())


def test_workers_hold_no_descriptor_of_the_caller(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """A worker has its two pipes; an inheritable file of the caller stays out."""
    with open(tmp_path / "held", "wb") as held:
        os.set_inheritable(held.fileno(), True)
        engine = make_engine()
        task = engine.download(origin.blob_url(1, SIZE), tmp_path, "file")
        middle(task)
        (worker,) = children("transfer")
        opened = {item.path for item in worker.open_files()}
    assert str(tmp_path / "held") not in opened


def test_file_beside_the_program_does_not_replace_the_standard_library(
    origin: Origin,
    make_engine: MakeEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A `select.py` or `threading.py` first on sys.path does not reach the workers."""
    for name in ("threading", "json", "dataclasses", "random"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('shadowed')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    task = make_engine().download(origin.blob_url(1, MIB), tmp_path / "d", "file")
    assert finished(task) == origin.blob(1, MIB).read()


@pytest.mark.parametrize("entry", [b"/bytes", None, 5])
def test_entries_of_the_path_that_are_no_strings_are_passed_over(
    entry: Any,
    origin: Origin,
    make_engine: MakeEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As Python does."""
    monkeypatch.setattr(sys, "path", [entry, *sys.path, entry])
    task = make_engine().download(origin.blob_url(1, MIB), tmp_path, "file")
    assert finished(task) == origin.blob(1, MIB).read()


def test_descriptors_are_closed_once_when_a_start_fails_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a worker that was started already: two of the four are closed by then."""
    closed: list[int] = []
    close = os.close

    def refuse(_pid: int) -> int:
        monkeypatch.setattr(os, "close", lambda fd: (closed.append(fd), close(fd)))
        raise MemoryError

    monkeypatch.setattr(os, "pidfd_open", refuse, raising=False)
    worker = object.__new__(processes.Worker)
    with pytest.raises(MemoryError):
        worker.__init__(TRANSFER, in_process=False)  # type: ignore[misc]
    monkeypatch.undo()
    assert worker.join(30)  # its parent's pipes are gone
    assert len(closed) == len(set(closed)) == 4


def test_download_that_could_not_begin_leaves_the_engine_usable(
    origin: Origin, tmp_path: Path
) -> None:
    """No descriptor was free: an error, no slot taken, and the next download works."""
    program = """
import os, resource
from segdl import DownloadEngine
from segdl.errors import SegdlError
import segdl._job, segdl._verify
url, directory = os.environ["URL"], os.environ["DIRECTORY"]
engine = DownloadEngine(max_workers=1)
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
try:
    engine.download(url, directory, "first").result(timeout=20)
except SegdlError as error:
    print("open files" in str(error))
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(len(engine.get_active_tasks()))
print(engine.download(url, directory, "second").result(timeout=20))
engine.shutdown()
"""
    canary = Canary(URL=origin.blob_url(1, MIB), DIRECTORY=str(tmp_path))
    ended = canary.run([sys.executable, "-c", program])
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == ["True", "0", str(tmp_path / "second")]
