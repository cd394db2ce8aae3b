"""What `segdl bench` measures: one plain stream and peers beside segdl.

    OriginProcess ──URL──┬─> peer_stream    another downloader, in its own processes;
    (or any other URL)   │                  the plain stream is curl's, or urllib's
                         └─> segdl_stream   an engine with given settings
                                 │
             alternated, repeated; every file hashed, compared, removed
                                 v
                        Result: medians of wall and CPU seconds

The origin computes its content in another process, so that it takes no time of the
interpreter that is measured; on a machine with few cores it still competes for them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Literal

from segdl import _fs, _peers
from segdl._digests import new_hasher
from segdl._peers import Fetch
from segdl._redaction import redact_text
from segdl._urls import redact
from segdl.config import EngineConfig
from segdl.engine import DownloadEngine
from segdl.errors import IntegrityError, SegdlError, WorkerError

__all__ = [
    "Measurement",
    "Result",
    "Variant",
    "blob_digest",
    "blob_url",
    "compare",
    "origin_process",
    "peer_stream",
    "peer_variants",
    "plain_variant",
    "segdl_stream",
    "sha256_of",
]

SEED = 1
_READ_BYTES = 1 << 20
_POLL_SECONDS = 0.1
_STOP_SECONDS = 5.0

Progress = Callable[[int, int], None]
"""Called with the bytes so far and the number of connections."""

# Ends with its parent, however that ends: its stdin closes then.
_ORIGIN = """
import os, signal, sys, threading
def watch():
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)
from segdl.testing.__main__ import serve
threading.Thread(target=watch, daemon=True).start()
sys.exit(serve(sys.argv[1:]))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """
    One download.

    Args:
        seconds: Wall clock, from the first call to the last.
        cpu_seconds: Of all processes that took part, the origin's left out.
        bytes: Of the file.
        sha256: Of the file.
        connections: The most that were seen open, 1 for a plain stream.
    """

    seconds: float
    cpu_seconds: float
    bytes: int
    sha256: str
    connections: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """
    A way to download.

    Args:
        name: For the table.
        plain: One plain stream.
        peer: Name of the downloader, None for segdl; the rest does not apply then.
        connections: As in `EngineConfig`.
        processes: As in `EngineConfig`.
    """

    name: str
    plain: bool = False
    peer: str | None = None
    connections: int | Literal["auto"] = "auto"
    processes: int | Literal["auto"] = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """
    What a variant achieved.

    Args:
        variant: Which one.
        runs: In order, one or more; none where it failed.
        failure: Why a peer failed, which ends the measurement of no other.
    """

    variant: Variant
    runs: tuple[Measurement, ...]
    failure: str | None = None

    @property
    def seconds(self) -> float:
        """Median of the wall clock."""
        return median(run.seconds for run in self.runs)

    @property
    def cpu_seconds(self) -> float:
        """Median of the CPU time."""
        return median(run.cpu_seconds for run in self.runs)

    @property
    def bytes_per_second(self) -> float:
        """Rate of the median run."""
        return self.runs[0].bytes / max(self.seconds, 1e-9)


@contextmanager
def origin_process(*, rate: float | None = None, latency: float = 0.0) -> Iterator[str]:
    """
    Run the embedded origin in a process of its own, past any proxy.

    Args:
        rate: Bytes per second of each connection, None for no limit.
        latency: Seconds before each answer.

    Yields:
        Its base URL.

    Raises:
        WorkerError: It does not start.
    """
    arguments = ["--latency", str(latency)]
    if rate is not None:
        arguments += ["--rate", str(rate)]
    process = subprocess.Popen(
        [sys.executable, "-c", _ORIGIN, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        if not line.startswith("http"):
            raise WorkerError("the embedded origin did not start")
        with _no_proxy("127.0.0.1"):
            yield line.split()[0]
    finally:
        _stop(process)


@contextmanager
def _no_proxy(host: str) -> Iterator[None]:
    """Have a host asked directly, by curl and by workers, whatever the proxies are."""
    before = {name: os.environ.get(name) for name in ("no_proxy", "NO_PROXY")}
    for name, value in before.items():
        os.environ[name] = f"{value},{host}" if value else host
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and close its pipes."""
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def blob_url(base: str, size: int) -> str:
    """Give the URL of a file of the origin that has so many bytes."""
    return f"{base}/b/{SEED}/{size}/bench.bin"


def blob_digest(size: int) -> str:
    """Give the sha256 that the origin's file must have, without asking the origin."""
    from segdl.testing.content import Blob

    return Blob(SEED, size).digest("sha256")


def plain_variant() -> Variant:
    """Give the plain stream: curl's when it is installed, or urllib's."""
    name = _peers.plain().name
    return Variant(name=f"{name}, one stream", plain=True, peer=name)


def peer_variants() -> tuple[list[Variant], list[str]]:
    """Give the peers beside the plain stream, and say which are not installed."""
    others = [peer for peer in _peers.PEERS if peer is not _peers.plain()]
    found = [peer for peer in others if peer.find() is not None]
    missing = [f"{peer.name} ({peer.source})" for peer in others if peer.find() is None]
    return [Variant(name=peer.name, peer=peer.name) for peer in found], missing


def peer_stream(
    name: str, url: str, path: str, progress: Progress | None = None
) -> Measurement:
    """
    Download with another program, in processes of its own.

    Args:
        name: Of the peer.
        url: What to fetch.
        path: Of the new file.
        progress: Called ten times a second.

    Raises:
        SegdlError: The program failed, or is not installed.
    """
    peer = _peers.by_name(name)
    found = peer.find()
    if found is None:
        raise SegdlError(f"{name} is not installed: {peer.source}")
    directory, file_name = os.path.split(os.path.abspath(path))
    made = peer.make(found, Fetch(url=url, directory=directory, name=file_name))
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as said:
        source.write(made.text.encode())
        source.seek(0)
        before, began = _cpu_seconds(), time.monotonic()
        process = subprocess.Popen(
            made.command,
            cwd=directory,
            env={**os.environ, **made.variables},
            stdin=source,
            stdout=said,
            stderr=said,
        )
        try:
            _wait(process, path, progress)
            seconds = time.monotonic() - began
        finally:
            _stop(process)
        said.seek(0)
        lines = said.read().decode(errors="replace").split("\n")
    if process.returncode or not os.path.exists(path):
        reason = next((line for line in reversed(lines) if line.strip()), "no file")
        raise SegdlError(
            f"{name} could not download {redact(url)}: {redact_text(reason)}"
        )
    return Measurement(
        seconds=seconds,
        cpu_seconds=_cpu_seconds() - before,
        bytes=os.path.getsize(path),
        sha256=sha256_of(path),
    )


def _wait(
    process: subprocess.Popen[bytes], path: str, progress: Progress | None
) -> None:
    while progress is not None:
        try:
            process.wait(_POLL_SECONDS)
            return
        except subprocess.TimeoutExpired:
            progress(os.path.getsize(path) if os.path.exists(path) else 0, 1)
    # Without a timeout there is no polling, which would blur short times.
    process.wait()


def segdl_stream(
    url: str, path: str, config: EngineConfig, progress: Progress | None = None
) -> Measurement:
    """
    Download with an engine: made, used once and shut down.

    Args:
        url: What to fetch.
        path: Of the new file.
        config: Settings of the engine.
        progress: Called ten times a second.

    Raises:
        SegdlError: The download failed.
    """
    directory, name = os.path.split(path)
    connections = 1
    before, began = _cpu_seconds(), time.monotonic()
    with DownloadEngine(config=config) as engine:
        task = engine.download(url, directory, name)
        while not task.wait(_POLL_SECONDS):
            connections = max(connections, task.connections)
            if progress is not None:
                progress(task.downloaded_size, task.connections)
        task.result(0)
    seconds = time.monotonic() - began
    return Measurement(
        seconds=seconds,
        cpu_seconds=_cpu_seconds() - before,
        bytes=os.path.getsize(path),
        sha256=sha256_of(path),
        connections=connections,
    )


def _cpu_seconds() -> float:
    """CPU time of this process, and of the children it has waited for."""
    return sum(os.times()[:4])


def sha256_of(path: str) -> str:
    """Hash a file; give lower-case hexadecimal."""
    hasher = new_hasher("sha256")
    buffer = memoryview(bytearray(_READ_BYTES))
    size, offset = os.path.getsize(path), 0
    reader = _fs.PartReader(path)
    try:
        while offset < size:
            count = reader.pread(buffer, offset)
            hasher.update(buffer[:count])
            offset += count
    finally:
        reader.close()
    return hasher.hexdigest()


def compare(
    url: str,
    directory: str,
    variants: Sequence[Variant],
    *,
    repeat: int = 1,
    expected: str | None = None,
    started: Callable[[Variant, int], None] | None = None,
) -> list[Result]:
    """
    Measure variants in turn, so that a change of the machine's mood meets all of them.

    Args:
        url: What to fetch.
        directory: For the files; each is removed before the next one is begun.
        variants: What to measure.
        repeat: How often each, 1 or more.
        expected: The sha256 that every file must have; None for that of the first.
        started: Called before each run, with its number from 1.

    Returns:
        A result for each variant, in their order.

    Raises:
        IntegrityError: A file of the plain stream or segdl is not the one expected.
        SegdlError: A download of either failed.
    """
    runs: list[list[Measurement]] = [[] for _ in variants]
    failures: dict[Variant, str] = {}
    for number in range(1, repeat + 1):
        for variant, measured in zip(variants, runs, strict=True):
            if variant in failures:
                continue
            if started is not None:
                started(variant, number)
            try:
                measurement = _measure(url, directory, variant)
                expected = expected or measurement.sha256
                check(variant.name, measurement, expected)
            except SegdlError as error:
                if variant.peer is None or variant.plain:
                    raise
                failures[variant] = str(error)
                measured.clear()
            else:
                measured.append(measurement)
    return [
        Result(variant=variant, runs=tuple(measured), failure=failures.get(variant))
        for variant, measured in zip(variants, runs, strict=True)
    ]


def _measure(url: str, directory: str, variant: Variant) -> Measurement:
    path = os.path.join(directory, "bench.bin")
    try:
        if variant.peer is not None:
            return peer_stream(variant.peer, url, path)
        config = EngineConfig(
            connections=variant.connections, processes=variant.processes
        )
        return segdl_stream(url, path, config)
    finally:
        # A peer that failed leaves what it keeps beside its file, too.
        for name in os.listdir(directory):
            os.unlink(os.path.join(directory, name))


def check(name: str, measurement: Measurement, expected: str) -> None:
    """
    Compare what was downloaded with what should have been.

    Raises:
        IntegrityError: It is something else.
    """
    if measurement.sha256 != expected:
        raise IntegrityError(
            f"{name}: the file's sha256 is {measurement.sha256}, "
            f"the origin's is {expected}",
            algorithm="sha256",
            expected=expected,
            actual=measurement.sha256,
        )
