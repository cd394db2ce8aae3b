"""The floor: a small C program that does nothing but receive and write (floor.c).

What it takes is what the kernel, nginx and the disk take of anybody; segdl's time above
it is the price of checks, records, resuming and Python. It is compiled here.
"""

from __future__ import annotations

import shutil
import subprocess
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from bench._contenders import Contender, segdl
from bench._content import show_size
from bench._report import Section
from bench._scenario import Scenario, run
from bench._server import NotInstalled
from bench._settings import Settings
from segdl._peers import Fetch, Invocation

_SOURCE = Path(__file__).with_name("floor.c")
_PROCESSES = 2
_CONNECTIONS = (2, 16)


def compiled(directory: Path) -> Path:
    """
    Compile the client.

    Args:
        directory: For the program.

    Raises:
        NotInstalled: There is no compiler.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise NotInstalled("cc is not installed; it compiles the floor")
    program = directory / "floor"
    subprocess.run([compiler, "-O2", "-o", str(program), str(_SOURCE)], check=True)
    return program


def run_floor(settings: Settings) -> Section:
    """Measure it beside segdl, over http to a disk."""
    program = compiled(settings.directory)
    floors = [
        Contender(
            name=f"floor, {mode}, {connections} connections",
            make=partial(floor_command, program, settings.size, connections, mode),
            is_peer=True,
        )
        for mode in ("direct", "buffered")
        for connections in _CONNECTIONS
    ]
    section, _ = run(
        settings,
        Scenario(
            title=f"floor: {show_size(settings.size)}, http to disk, beside a C client",
            size=settings.size,
            contenders=[segdl("--durability", "none"), *floors],
            rounds=min(3, settings.repeat),
            notes=[
                f"the floor: {_PROCESSES} processes, one range a connection, received "
                "into blocks of 1 MiB and written; no checks, no records, no retries"
            ],
        ),
    )
    return section


def floor_command(
    program: Path, size: int, connections: int, mode: str, fetch: Fetch
) -> Invocation:
    """
    Give the command of the floor.

    Args:
        program: What `compiled` gave.
        size: Of the file, in bytes.
        connections: At once.
        mode: "direct" or "buffered".
        fetch: What to do.
    """
    parts = urlsplit(fetch.url)
    return Invocation(
        command=(
            *(str(program), str(parts.hostname), str(parts.port), parts.path),
            *(str(size), fetch.path, str(connections), str(_PROCESSES), mode),
        )
    )
