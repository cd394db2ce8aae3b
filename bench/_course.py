"""Where contenders run: a file at nginx, and a directory that is empty before each.

course(settings, size, ...) ──> nginx ──> files/SIZE.bin
                                          target/output.bin, compared after each run
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench._content import make_file, same, warm
from bench._measure import Usage, measure
from bench._server import Nginx, make_certificate
from bench._settings import Settings
from segdl._peers import Fetch, Invocation

OUTPUT = "output.bin"
# Where files are kept in memory; made, used and removed by one scenario.
_MEMORY = Path("/dev/shm")


class Failed(Exception):
    """A contender failed, or its file is not the one that was served; says how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """
    A file at a server, and a directory to fetch it into.

    Args:
        url: Of the file.
        source: The file itself.
        directory: Where the contenders run; emptied before each.
        ca_file: What they have to trust, None for http.
        limit_seconds: A run that takes longer is killed.
    """

    url: str
    source: Path
    directory: Path
    ca_file: str | None = None
    limit_seconds: float | None = None

    @property
    def target(self) -> Path:
        """The file that every contender writes."""
        return self.directory / OUTPUT

    def fetch(self, connections: int) -> Fetch:
        """Say what contenders have to do."""
        return Fetch(
            url=self.url,
            directory=str(self.directory),
            name=OUTPUT,
            connections=connections,
            ca_file=self.ca_file,
        )

    def prepare(self, *, warmed: bool = True) -> None:
        """
        Make every run begin alike.

        Args:
            warmed: With the served file in the page cache, as far as there is room.
        """
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir()
        os.sync()
        if warmed:
            warm(self.source)

    def run(self, invocation: Invocation, sample_seconds: float | None = None) -> Usage:
        """
        Run a contender in the directory as it is.

        Args:
            invocation: Its command.
            sample_seconds: How often to look at its memory, None for never.

        Raises:
            Failed: It ended with another code than 0, or not in time.
        """
        usage = measure(
            invocation.command,
            self.directory,
            text=invocation.text,
            variables=invocation.variables,
            limit_seconds=self.limit_seconds,
            sample_seconds=sample_seconds,
        )
        if usage.killed:
            raise Failed(f"not over after {self.limit_seconds:g} s")
        if usage.exit_code:
            lines = usage.output.strip().splitlines() or ["it said nothing"]
            raise Failed(f"ended with {usage.exit_code}: {lines[-1][:200]}")
        return usage

    def check(self) -> None:
        """
        Compare what was saved with what was served.

        Raises:
            Failed: It is something else.
        """
        if not self.target.exists() or not same(self.source, self.target):
            raise Failed("saved other bytes than were served")


@contextmanager
def served(
    settings: Settings,
    source: Path,
    *,
    tls: bool = False,
    in_memory: bool = False,
    http: str = "",
    server: str = "",
    limit_seconds: float | None = None,
) -> Iterator[Course]:
    """
    Serve a file for the time of a with block.

    Args:
        settings: Of the whole call.
        source: The file; all of its directory is served.
        tls: Serve it over TLS.
        in_memory: Save to tmpfs instead of the disk.
        http: Directives of nginx's http block.
        server: Directives of its server block.
        limit_seconds: A run that takes longer is killed.
    """
    parent = _MEMORY if in_memory else settings.directory
    certificate = make_certificate(settings.directory) if tls else None
    with (
        tempfile.TemporaryDirectory(prefix="segdl-bench-", dir=parent) as directory,
        Nginx(
            source.parent,
            workers=2,
            tls=certificate,
            http=http,
            server=server,
            access_log=False,
        ) as nginx,
    ):
        yield Course(
            url=f"{nginx.url}/{source.name}",
            source=source,
            directory=Path(directory) / "target",
            ca_file=nginx.ca_file,
            limit_seconds=limit_seconds,
        )


def source_file(settings: Settings, size: int) -> Path:
    """Give a file of a size to serve, made when there is none yet."""
    files = settings.directory / "files"
    files.mkdir(exist_ok=True)
    path = files / f"{size}.bin"
    if not path.exists():
        make_file(path, size)
    return path
