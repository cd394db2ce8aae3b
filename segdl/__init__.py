"""segdl: very large files from HTTP to disk; segmented, resumable, verified.

from segdl import DownloadEngine

with DownloadEngine() as engine:
    task = engine.download("https://example.org/model.safetensors", "models")
    path = task.result()
"""

from segdl._version import __version__
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
