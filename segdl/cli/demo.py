"""`segdl bench --demo`: one plain stream, then segdl, with a live bar each."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from segdl import bench
from segdl.cli.bench import require_space
from segdl.cli.display import Bar
from segdl.cli.exit_codes import OK
from segdl.cli.units import bytes_text, rate_text, seconds_text
from segdl.config import EngineConfig

if TYPE_CHECKING:
    from segdl.bench import Measurement
    from segdl.cli.console import Console

__all__ = ["run_demo"]


def run_demo(
    console: Console, directory: str, size: int, rate: float, latency: float
) -> int:
    """
    Show the difference, and prove that both files are right.

    Args:
        console: To show it on.
        directory: For the files, one at a time.
        size: Of the file in bytes.
        rate: Of each connection, in bytes per second.
        latency: Of each answer, in seconds.

    Returns:
        The exit code.

    Raises:
        IntegrityError: A file is not the origin's.
    """
    require_space(directory, size)
    plain_one = bench.plain_variant()
    path = os.path.join(directory, "demo.bin")
    with bench.origin_process(rate=rate, latency=latency) as base:
        url = bench.blob_url(base, size)
        console.result(
            f"A file of {bytes_text(size)}, from an origin on this machine that gives "
            f"each connection {rate_text(rate)}.\n"
        )
        # Meanwhile: the plain stream needs next to nothing of the processor.
        expected = _Digest(size)
        with _bar(console, plain_one.name, size) as draw:
            plain = bench.peer_stream(plain_one.peer or "", url, path, draw)
        os.unlink(path)
        _tell(console, plain_one.name, plain)
        bench.check(plain_one.name, plain, expected.wait())
        with _bar(console, "segdl", size) as draw:
            ours = bench.segdl_stream(url, path, EngineConfig(), draw)
        os.unlink(path)
        _tell(console, "segdl", ours)
        bench.check("segdl", ours, expected.wait())
    console.result(
        f"\nsegdl was {plain.seconds / ours.seconds:.1f} times as fast, over "
        f"{ours.connections} connections.\n"
        f"sha256 of both files, and of the origin's: {expected.wait()}"
    )
    return OK


@contextmanager
def _bar(console: Console, name: str, size: int) -> Iterator[bench.Progress]:
    """Give what draws a live bar, and take the bar away at the end."""
    bar = Bar(console, name, size)
    try:
        yield bar.draw
    finally:
        bar.clear()


def _tell(console: Console, name: str, measured: Measurement) -> None:
    rate = rate_text(measured.bytes / max(measured.seconds, 1e-9))
    console.result(f"{name:<18}{rate:>12}  {seconds_text(measured.seconds):>7}")


class _Digest:
    """The sha256 of the origin's file, computed on a thread."""

    def __init__(self, size: int) -> None:
        self._hex = ""
        self._size = size
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._hex = bench.blob_digest(self._size)

    def wait(self) -> str:
        """Give it, lower-case hexadecimal."""
        self._thread.join()
        return self._hex
