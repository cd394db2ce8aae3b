"""The embedded origin: an HTTP server for stressing download code.

    with Origin(rate=4 << 20) as origin:                  4 MiB/s for each connection
        url = origin.blob_url(1, 64 << 20, f="rst@byte4096")
        ...download url...
        assert digest(file) == origin.blob(1, 64 << 20).digest("sha256")
        assert origin.log.served_twice() == 0

Its content is computed from a seed, so a file of any size costs nothing; its faults
are stated in the URL (see `segdl.testing.faults`); its request log says what a client
really asked for. `segdl.testing.pytest_plugin` offers it as fixtures, and
`python -m segdl.testing` (or `segdl serve`) runs it by itself. It needs the standard
library only, knows nothing of the rest of segdl, and is no server for the open
internet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segdl.testing.content import Blob
    from segdl.testing.log import Request, RequestLog
    from segdl.testing.origin import Origin
    from segdl.testing.throttle import TokenBucket
    from segdl.testing.tls import TlsFiles

__all__ = ["Blob", "Origin", "Request", "RequestLog", "TlsFiles", "TokenBucket"]

_HOMES = {
    "Blob": "content",
    "Origin": "origin",
    "Request": "log",
    "RequestLog": "log",
    "TlsFiles": "tls",
    "TokenBucket": "throttle",
}


def __getattr__(name: str) -> Any:
    # Every pytest run where segdl is installed imports this package (the plugin lives
    # in it); the server is loaded when a test first uses it.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
