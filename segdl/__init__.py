"""segdl: very large files from HTTP to disk; segmented, resumable, verified.

    from segdl import DownloadEngine

    with DownloadEngine() as engine:
        task = engine.download("https://example.org/model.safetensors", "models")
        path = task.result()

The names load when they are first used, so that `import segdl` costs next to nothing,
and the test plugin, which every pytest run loads, does not load the engine.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from segdl._version import __version__

if TYPE_CHECKING:
    from segdl.engine import DownloadEngine
    from segdl.errors import SegdlError
    from segdl.queue import DownloadQueue
    from segdl.stats import DownloadStats
    from segdl.task import DownloadTask

__all__ = [
    "DownloadEngine",
    "DownloadQueue",
    "DownloadStats",
    "DownloadTask",
    "SegdlError",
    "__version__",
]

_HOMES = {
    "DownloadEngine": "segdl.engine",
    "DownloadQueue": "segdl.queue",
    "DownloadStats": "segdl.stats",
    "DownloadTask": "segdl.task",
    "SegdlError": "segdl.errors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
