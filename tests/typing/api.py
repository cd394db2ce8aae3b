"""The public names, used as a user would; checked by mypy, and never run.

A type that is not exactly the one that is asserted is an error, `Any` included; so is
a misuse that mypy accepts, since its `type: ignore` is then unused.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from typing_extensions import assert_type

import segdl
from segdl import (
    DownloadEngine,
    DownloadQueue,
    DownloadStats,
    DownloadTask,
    SegdlError,
)
from segdl.config import (
    AllowAddresses,
    Durability,
    EngineConfig,
    IoMode,
    OnExists,
    load_config,
    parse_rate,
    parse_size,
    user_config_file,
)
from segdl.errors import (
    AddressRefused,
    Cancelled,
    ConfigError,
    ConnectError,
    DestinationBusy,
    DestinationExists,
    DiskFull,
    IncompleteTransfer,
    IntegrityError,
    ManifestError,
    ProtocolError,
    RangeMismatch,
    RedirectRefused,
    RepresentationChanged,
    SizeLimitExceeded,
    StallError,
    StatusError,
    StorageError,
    TlsError,
    TransferError,
    UsageError,
    WorkerError,
)
from segdl.progress import RateMeter, TaskEvent, eta_seconds

URL = "https://example.org/model.safetensors"


def version() -> None:
    """The package tells its version."""
    assert_type(segdl.__version__, str)


# --- tasks ----------------------------------------------------------------------------


def make_tasks(directory: os.PathLike[str], headers: Mapping[str, str]) -> None:
    """A task takes what `download` takes, by position or by name."""
    assert_type(DownloadTask(URL, "models"), DownloadTask)
    DownloadTask(URL, directory, "model.bin", {"Authorization": "Bearer t"}, -1)
    DownloadTask(
        url=URL, output_path=Path("models"), filename=None, headers=None, priority=0
    )
    DownloadTask(URL, "models", headers=headers)

    DownloadTask(URL)  # type: ignore[call-arg]  # it has to be saved somewhere
    DownloadTask(URL, 7)  # type: ignore[arg-type]  # no path
    DownloadTask(URL, "models", priority="high")  # type: ignore[arg-type]  # no number


def read_a_task(task: DownloadTask) -> None:
    """Every member has the contract's type."""
    assert_type(task.id, str)
    assert_type(task.url, str)
    assert_type(task.output_path, str)
    assert_type(task.filename, str | None)
    assert_type(task.headers, dict[str, str])
    assert_type(task.priority, int)
    assert_type(task.status, str)
    assert_type(task.phase, str)
    assert_type(task.progress, float)
    assert_type(task.speed, float)
    assert_type(task.error, str | None)
    assert_type(task.file_path, str | None)
    assert_type(task.downloaded_size, int)
    assert_type(task.resumed_size, int)
    assert_type(task.total_size, int)
    assert_type(task.eta, int | None)
    assert_type(task.connections, int)
    assert_type(task.checksum, str | None)

    task.status = "completed"  # type: ignore[misc]  # the engine says so
    task.progress = 1.0  # type: ignore[misc]  # update_progress checks it


def use_a_task(task: DownloadTask) -> None:
    """A task is moved, waited for and asked for its result."""
    assert_type(task.cancel(), bool)
    assert_type(task.pause(), bool)
    assert_type(task.resume(), bool)
    assert_type(task.wait(), bool)
    assert_type(task.wait(1.5), bool)
    assert_type(task.wait(timeout=None), bool)
    assert_type(task.result(), str)
    assert_type(task.result(timeout=10), str)
    assert_type(task.exception(), BaseException | None)
    assert_type(task.exception(timeout=0.1), BaseException | None)
    task.update_progress(0.5)
    task.update_progress(1)


# --- engines --------------------------------------------------------------------------


def make_engines(ca_file: str, auto: Literal["auto"]) -> None:
    """An engine takes its settings by position as far as the contract says."""
    assert_type(DownloadEngine(), DownloadEngine)
    DownloadEngine(3, 8192, 3, 5)
    DownloadEngine(max_workers=8, chunk_size=1 << 20, retry_times=0, retry_delay=0.5)
    DownloadEngine(
        timeout=30,
        progress_interval=0.5,
        verify_hash=True,
        connections=16,
        processes=0,
        limit_rate=1.5e6,
        on_exists="overwrite",
        durability="checkpoint",
        io="direct",
        ca_file=ca_file,
        proxy=None,
        user_agent="program/1.0",
        allow_addresses="public",
        max_bytes=1 << 30,
    )
    DownloadEngine(connections="auto", processes=auto, limit_rate=None)
    DownloadEngine(config=EngineConfig(max_workers=1))

    DownloadEngine(3, 8192, 3, 5, 30)  # type: ignore[call-arg]  # timeout has a name
    DownloadEngine(on_exists="ask")  # type: ignore[arg-type]  # no such policy
    DownloadEngine(allow_addresses="private")  # type: ignore[arg-type]  # no such policy
    DownloadEngine(durability="fsync")  # type: ignore[arg-type]  # no such durability
    DownloadEngine(max_bytes="1G")  # type: ignore[arg-type]  # a number
    DownloadEngine(io="mmap")  # type: ignore[arg-type]  # no such way
    DownloadEngine(connections="many")  # type: ignore[arg-type]  # a number, or "auto"


def download(engine: DownloadEngine, directory: Path, policy: OnExists) -> None:
    """A download takes what a task takes, and options of its own."""
    assert_type(engine.download(URL, "models"), DownloadTask)
    engine.download(URL, directory, "model.bin", {"Accept": "*/*"}, 1)
    engine.download(
        url=URL,
        output_path=directory,
        filename=None,
        headers=None,
        priority=0,
        checksum="sha256:" + "0" * 64,
        mirrors=["https://mirror.example.net/model.safetensors"],
        on_exists=policy,
        connections=4,
        max_bytes=1 << 20,
        new_link=True,
    )
    engine.download(URL, directory, mirrors=(), on_exists="rename", connections="auto")

    engine.download(URL, directory, None, None, 0, None)  # type: ignore[call-arg]  # checksum has a name
    engine.download(lambda: URL, directory)
    engine.download(lambda: 5, directory)  # type: ignore[arg-type, return-value]  # no URL
    engine.download(URL, directory, on_exists="ask")  # type: ignore[arg-type]  # no such policy


def steer(engine: DownloadEngine, task: DownloadTask) -> None:
    """Tasks are found and moved by their id."""
    assert_type(engine.cancel_task(task.id), bool)
    assert_type(engine.pause_task(task.id), bool)
    assert_type(engine.resume_task(task.id), bool)
    assert_type(engine.get_task(task.id), DownloadTask | None)
    assert_type(engine.get_all_tasks(), list[DownloadTask])
    assert_type(engine.get_active_tasks(), list[DownloadTask])
    assert_type(engine.wait(), bool)
    assert_type(engine.wait([task], timeout=5), bool)
    assert_type(engine.wait(engine.get_all_tasks(), 1.5), bool)
    assert_type(engine.resume_unfinished("models"), list[DownloadTask])
    assert_type(engine.resume_unfinished(Path("models")), list[DownloadTask])
    assert_type(engine.stats, DownloadStats)
    assert_type(engine.config, EngineConfig)
    assert_type(engine.limit_rate, float | None)
    engine.limit_rate = 1 << 20
    engine.limit_rate = None
    engine.shutdown()
    engine.shutdown(wait=False)
    engine.shutdown(True)


def manage() -> str:
    """An engine is a context manager; one that hid exceptions would need a return."""
    with DownloadEngine() as engine:
        assert_type(engine, DownloadEngine)
        task = engine.download(URL, "models")
        while task.status == "downloading":
            print(f"{task.progress:.1%}")
        return task.result()


class Watcher:
    """Callbacks are functions, methods, lambdas; what they return is ignored."""

    def __init__(self, engine: DownloadEngine) -> None:
        self.seen: list[str] = []
        engine.register_progress_callback(self.on_task)
        engine.register_progress_callback(lambda task: print(task.speed))
        engine.register_completion_callback(self.on_task)
        engine.register_completion_callback(self.on_end)
        engine.register_event_callback(self.on_event)
        engine.register_progress_callback(self.on_event)  # type: ignore[arg-type]  # tasks come, no events

    def on_task(self, task: DownloadTask) -> None:
        """Take a task."""
        self.seen.append(task.id)

    def on_end(self, task: DownloadTask) -> bool:
        """Take a task, and return something."""
        return task.status == "completed"

    def on_event(self, event: TaskEvent) -> None:
        """Take an event."""
        assert_type(event.kind, str)
        assert_type(event.task_id, str)
        assert_type(event.url, str)
        assert_type(event.time, float)
        assert_type(event.fields, Mapping[str, Any])
        assert_type(event.to_json(), dict[str, Any])


# --- queue and statistics -------------------------------------------------------------


class Job:
    """What has an id and a priority can be queued."""

    id = "job-1"
    priority = 3


def queue_tasks(task: DownloadTask) -> None:
    """A queue hands tasks out in their order."""
    queue = DownloadQueue()
    queue.add_task(task)
    assert_type(queue.get_next_task(), DownloadTask | None)
    assert_type(queue.remove_task(task.id), bool)
    assert_type(queue.get_all_tasks(), list[DownloadTask])
    assert_type(len(queue), int)
    queue.clear()

    jobs: DownloadQueue[Job] = DownloadQueue()
    jobs.add_task(Job())
    assert_type(jobs.get_next_task(), Job | None)
    jobs.add_task(task)  # type: ignore[arg-type]  # a queue of jobs
    DownloadQueue[str]()  # type: ignore[type-var]  # neither id nor priority


def count_bytes() -> None:
    """Statistics are kept by id, and summed up."""
    stats = DownloadStats()
    stats.start_task("a")
    stats.update_task_progress("a", 10, 100, 2.5)
    stats.update_task_progress("a", bytes_downloaded=20, total_bytes=100, speed=3)
    stats.complete_task("a")
    stats.fail_task("b", "no connection")
    stats.fail_task("c", StallError("stalled"))
    assert_type(stats.get_overall_speed(), float)
    assert_type(stats.get_completed_bytes(), int)
    assert_type(stats.get_total_bytes(), int)
    assert_type(stats.get_overall_progress(), float)
    assert_type(stats.get_error("b"), str | None)


def measure() -> None:
    """What progress is made of can be used alone."""
    meter = RateMeter(window_seconds=5)
    meter.add(1.0, 100)
    assert_type(meter.rate(2.0), float)
    assert_type(eta_seconds(100, 2.5), int | None)


# --- errors ---------------------------------------------------------------------------


def code_of(error: SegdlError) -> int:
    """Errors are told apart by what happened."""
    assert_type(error.message, str)
    if isinstance(error, StatusError):
        assert_type(error.status, int)
        assert_type(error.retry_after_seconds, float | None)
        return 6 if error.status in (401, 403, 407) else 3
    if isinstance(error, (IntegrityError, RepresentationChanged)):
        return 4
    if isinstance(error, DiskFull):
        assert_type(error.missing_bytes, int)
        return 5
    if isinstance(error, WorkerError):
        assert_type(error.exitcode, int | None)
    return 3 if isinstance(error, TransferError) else 1


def fields_of(error: IntegrityError) -> tuple[str, str, str]:
    """A mismatch tells both digests."""
    return error.algorithm, error.expected, error.actual


def the_tree() -> None:
    """Each error is one of its parent's kind, and of a built-in one's where it fits."""
    errors: list[SegdlError] = [
        ManifestError("message"),
        Cancelled("message"),
        IntegrityError("message", algorithm="md5", expected="0", actual="1"),
        WorkerError("message", exitcode=-9),
    ]
    usage: list[UsageError] = [ConfigError("message")]
    values: list[ValueError] = [*usage]
    transfers: list[TransferError] = [
        AddressRefused("message"),
        ConnectError("message"),
        TlsError("message"),
        StallError("message"),
        IncompleteTransfer("message"),
        SizeLimitExceeded("message"),
        StatusError("message", status=503, retry_after_seconds=1.5),
    ]
    protocol: list[ProtocolError] = [
        RangeMismatch("message"),
        RepresentationChanged("message"),
        RedirectRefused("message"),
    ]
    storage: list[StorageError] = [
        DiskFull("message", errno=28, missing_bytes=10),
        DestinationExists("message"),
        DestinationBusy("message"),
    ]
    system: list[OSError] = [*storage]
    errors += [*usage, *transfers, *protocol, *storage]
    assert_type([code_of(error) for error in errors], list[int])
    assert_type(len(values) + len(system), int)


# --- configuration --------------------------------------------------------------------


def configure() -> None:
    """Settings come from argument, environment and file, or are made by hand."""
    durability: Durability = "none"
    io: IoMode = "buffered"
    config = EngineConfig(durability=durability, io=io, connections=2)
    assert_type(config.max_workers, int)
    assert_type(config.chunk_size, int)
    assert_type(config.retry_times, int)
    assert_type(config.retry_delay, float)
    assert_type(config.timeout, float)
    assert_type(config.progress_interval, float)
    assert_type(config.verify_hash, bool)
    assert_type(config.connections, int | Literal["auto"])
    assert_type(config.processes, int | Literal["auto"])
    assert_type(config.limit_rate, float | None)
    assert_type(config.on_exists, OnExists)
    assert_type(config.durability, Durability)
    assert_type(config.io, IoMode)
    assert_type(config.ca_file, str | None)
    assert_type(config.proxy, str | None)
    assert_type(config.user_agent, str | None)
    assert_type(config.allow_addresses, AllowAddresses)
    assert_type(config.max_bytes, int | None)
    config.max_workers = 9  # type: ignore[misc]  # settings do not change
    assert_type(load_config(), EngineConfig)
    assert_type(parse_rate("1.5M"), float)
    assert_type(parse_size("1.5M"), int)
    assert_type(
        load_config(
            Path("segdl.toml"), environ={}, cwd=Path(), overrides={"timeout": 9}
        ),
        EngineConfig,
    )
    assert_type(user_config_file(os.environ), Path | None)
