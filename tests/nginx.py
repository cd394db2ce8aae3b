"""The nginx of benchmarks and long runs (`bench/_server.py`), as tests use it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench._server import Nginx

__all__ = ["Nginx", "serving"]


@contextmanager
def serving(root: Path) -> Iterator[Callable[..., Nginx]]:
    """Give a function that has nginx serve a directory; requests are checked after."""
    servers: list[Nginx] = []
    with ExitStack() as running:

        def serve(**options: Any) -> Nginx:
            servers.append(running.enter_context(Nginx(root, **options)))
            return servers[-1]

        yield serve
    for server in servers:
        for request in server.requests():
            assert request.method == "GET"
            assert re.fullmatch(r"bytes=\d+-\d+", request.range)
            assert not request.if_range.startswith("W/")
