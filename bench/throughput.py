"""One large file from nginx to disk: segdl beside curl and aria2.

    round 1   A  B  C  D        between two runs, and not counted: the last file is
    round 2   B  C  D  A        compared and removed, everything is flushed, and the
    round 3   C  D  A  B        served file is read into the page cache

The contenders take turns, so that what changes over time on the machine meets all. A
last run of each, untimed, samples the memory of its process tree.
"""

from __future__ import annotations

import os
import shutil
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench._content import make_file, same, show_size, warm
from bench._processes import Memory, Usage, measure, segdl_command, watch
from bench._report import Check, Section, mebibytes, spread
from bench._server import Nginx, make_certificate
from bench._settings import Settings

SEGDL = "segdl"
SEGDL_PLAIN = "segdl --durability none"
SEGDL_BEFORE = "segdl before"
CURL = "curl"
ARIA2 = "aria2c"

OUTPUT = "output.bin"
_ARIA2_FLAGS = ("-x16", "-s16", "-k1M", "--file-allocation=none")

# Segdl's wall time over theirs, at most.
_LIMITS = {CURL: 0.8, ARIA2: 0.6, SEGDL_BEFORE: 1.03}


class WrongBytes(Exception):
    """A contender failed, or its file is not the one that was served."""


def commands(
    url: str, ca_file: str | None, before: Path | None = None
) -> dict[str, list[str]]:
    """
    Give the contenders that are installed, each saving `OUTPUT` where it runs.

    Args:
        url: What to fetch.
        ca_file: What they have to trust, None for http.
        before: A checkout of another segdl with its environment, None for none.
    """
    get = segdl_command("get", "--no-progress", "-q", "-o", OUTPUT)
    # Without the configuration of the user.
    curl = [CURL, "-q", "-s", "-f", "-o", OUTPUT]
    aria2 = [ARIA2, "--no-conf", "-q", *_ARIA2_FLAGS, "-o", OUTPUT]
    if ca_file is not None:
        get += ["--cacert", ca_file]
        curl += ["--cacert", ca_file]
        aria2 += [f"--ca-certificate={ca_file}"]
    found = {SEGDL: [*get, url], SEGDL_PLAIN: [*get, "--durability", "none", url]}
    if before is not None:
        where = before.resolve()
        python = str(where / ".venv" / "bin" / "python")
        found[SEGDL_BEFORE] = ["env", f"PYTHONPATH={where}", python, *get[1:], url]
    if shutil.which(CURL):
        found[CURL] = [*curl, url]
    if shutil.which(ARIA2):
        found[ARIA2] = [*aria2, url]
    return found


class Bench:
    """
    A file at nginx, and a directory to fetch it into.

    Args:
        nginx: It serves the file's directory.
        source: The file.
        directory: Where the contenders run; emptied before each.
        before: As `commands` takes it.
    """

    def __init__(
        self, nginx: Nginx, source: Path, directory: Path, before: Path | None
    ) -> None:
        self.nginx = nginx
        self.source = source
        self.directory = directory
        self._before = before

    @property
    def url(self) -> str:
        """Of the file."""
        return f"{self.nginx.url}/{self.source.name}"

    def commands(self) -> dict[str, list[str]]:
        """Give the contenders' command lines."""
        return commands(self.url, self.nginx.ca_file, self._before)

    def timed(self, command: list[str]) -> Usage:
        """
        Run a contender once.

        Raises:
            WrongBytes: It failed, or its file is another one.
        """
        self.prepare()
        usage = measure(command, self.directory)
        self._check(command, usage.exit_code, usage.output)
        return usage

    def watched(self, command: list[str]) -> Memory:
        """
        Run a contender once and sample its memory.

        Raises:
            WrongBytes: It failed, or its file is another one.
        """
        self.prepare()
        memory = watch(command, self.directory)
        self._check(command, memory.exit_code, "")
        return memory

    def prepare(self) -> None:
        """Make every run begin alike."""
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir()
        os.sync()
        warm(self.source)

    def _check(self, command: list[str], exit_code: int, output: str) -> None:
        if exit_code:
            raise WrongBytes(f"{command} ended with {exit_code}: {output.strip()}")
        if not same(self.source, self.directory / OUTPUT):
            raise WrongBytes(f"{command} saved other bytes than were served")


@contextmanager
def bench(settings: Settings, size: int, scheme: str = "http") -> Iterator[Bench]:
    """
    Serve a file of a size for the time of a with block.

    Args:
        settings: Of the whole call.
        size: In bytes.
        scheme: "http" or "https".
    """
    files = settings.directory / "files"
    files.mkdir(exist_ok=True)
    source = files / f"{size}.bin"
    if not source.exists():
        make_file(source, size)
    target = settings.directory / "target"
    tls = make_certificate(settings.directory) if scheme == "https" else None
    try:
        with Nginx(files, workers=2, tls=tls, access_log=False) as nginx:
            yield Bench(nginx, source, target, settings.before)
    finally:
        shutil.rmtree(target, ignore_errors=True)


def run(settings: Settings, scheme: str) -> Section:
    """
    Measure all contenders over http or https.

    Args:
        settings: Of the whole call.
        scheme: "http" or "https".
    """
    section = Section(
        title=f"{scheme}: {show_size(settings.size)} from nginx to disk, "
        f"median of {settings.repeat}",
        header=(
            "",
            "wall s (min - max)",
            "CPU s",
            "peak PSS MiB",
            "/ curl",
            "/ aria2c",
            "/ before",
        ),
    )
    with bench(settings, settings.size, scheme) as made:
        contenders = made.commands()
        section.notes += [
            f"{name} is not installed, and left out"
            for name in _LIMITS
            if name not in contenders and name != SEGDL_BEFORE
        ]
        try:
            runs = _rounds(made, contenders, settings)
            memories = {name: made.watched(contenders[name]) for name in contenders}
        except WrongBytes as error:
            section.exact = False
            section.notes.append(str(error))
            return section
    _fill(section, scheme, runs, memories)
    section.data["commands"] = contenders
    return section


def _rounds(
    made: Bench, contenders: dict[str, list[str]], settings: Settings
) -> dict[str, list[Usage]]:
    names = list(contenders)
    runs: dict[str, list[Usage]] = {name: [] for name in names}
    for number in range(settings.repeat):
        first = number % len(names)
        for name in [*names[first:], *names[:first]]:
            usage = made.timed(contenders[name])
            runs[name].append(usage)
            settings.say(f"{name}: {usage.wall_seconds:.2f} s")
    return runs


def _fill(
    section: Section,
    scheme: str,
    runs: dict[str, list[Usage]],
    memories: dict[str, Memory],
) -> None:
    walls = {
        name: statistics.median(usage.wall_seconds for usage in usages)
        for name, usages in runs.items()
    }
    for name, usages in runs.items():
        ratios = [
            f"{walls[name] / walls[peer]:.2f}" if peer in walls else "-"
            for peer in _LIMITS
        ]
        section.rows.append(
            (
                name,
                spread([usage.wall_seconds for usage in usages]),
                spread([usage.cpu_seconds for usage in usages]),
                mebibytes(memories[name].peak_pss_bytes),
                *ratios,
            )
        )
        section.data[name] = _figures(usages, memories[name])
    section.checks += [
        Check(
            name=f"{scheme}, {SEGDL} / {peer}, wall",
            value=walls[SEGDL] / walls[peer],
            limit=limit,
        )
        for peer, limit in _LIMITS.items()
        if peer in walls
    ]


def _figures(usages: list[Usage], memory: Memory) -> dict[str, Any]:
    return {
        "wall_seconds": [usage.wall_seconds for usage in usages],
        "user_seconds": [usage.user_seconds for usage in usages],
        "system_seconds": [usage.system_seconds for usage in usages],
        "peak_pss_bytes": memory.peak_pss_bytes,
        "processes": memory.processes,
    }
