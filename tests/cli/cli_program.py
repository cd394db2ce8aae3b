"""How a run of the program ended, and a download that it can go on with."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segdl import DownloadEngine
from segdl.testing import Origin


@dataclass(frozen=True)
class Ran:
    """How a run of the program ended."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """What `--json` wrote."""
        return [json.loads(line) for line in self.out.splitlines()]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The events of one kind."""
        return [event for event in self.events if event["event"] == kind]


Program = Callable[..., Ran]

MIB = 1 << 20
UNFINISHED_SIZE = 16 * MIB


@contextmanager
def downloading(origin: Origin, directory: Path, url: str) -> Iterator[DownloadEngine]:
    """Have a throttled download under way: some of it is recorded, it can't finish."""
    origin.rate = 2 * MIB
    deadline = time.monotonic() + 30
    pause = threading.Event()
    engine = DownloadEngine(processes=0, connections=2, durability="none")
    try:
        engine.download(url, directory)
        manifest = None
        while manifest is None or b'"t":"P"' not in manifest.read_bytes():
            assert time.monotonic() < deadline, "nothing was recorded in time"
            pause.wait(0.02)
            manifest = next(directory.glob("*.segdl"), None)
        yield engine
    finally:
        engine.shutdown(wait=False)
        origin.rate = None
