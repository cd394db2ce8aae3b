"""Start-up: what a small download and an import cost; and a file past 2**32 bytes."""

from __future__ import annotations

import shutil
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

from bench._content import GIB, MIB, make_sparse_file, same, sha256
from bench._processes import measure, segdl_command
from bench._report import Check, Section, spread
from bench._server import Nginx
from bench._settings import Settings
from bench.throughput import OUTPUT, bench

_RUNS = 10
_GET_LIMIT_MS = 250.0
_IMPORT_LIMIT_MS = 60.0


def run_cold(settings: Settings) -> Section:
    """Measure `segdl get` of 1 MiB, `import segdl`, and the bare interpreter."""
    section = Section(
        title=f"cold: whole processes, {_RUNS} runs each",
        header=("", "wall ms, median (min - max)", "CPU ms"),
    )
    with bench(settings, MIB) as made:
        made.prepare()
        get = segdl_command("get", "-q", "--no-progress", "-o", OUTPUT)
        target = made.directory / OUTPUT
        got = _time([*get, made.url], made.directory, target)
        section.exact = target.exists() and same(made.source, target)
        imported = _time([sys.executable, "-c", "import segdl"], made.directory)
        bare = _time([sys.executable, "-c", ""], made.directory)
    for name, (walls, cpus) in (
        ("segdl get, 1 MiB", got),
        ("import segdl", imported),
        ("bare interpreter", bare),
    ):
        section.rows.append((name, spread(walls, 0), spread(cpus, 0)))
        section.data[name] = {"wall_ms": walls, "cpu_ms": cpus}
    section.checks = [
        Check(
            name="segdl get of 1 MiB",
            value=statistics.median(got[0]),
            limit=_GET_LIMIT_MS,
            unit="ms",
        ),
        Check(
            name="import segdl, the interpreter's own start included",
            value=statistics.median(imported[0]),
            limit=_IMPORT_LIMIT_MS,
            unit="ms",
        ),
    ]
    return section


def _time(
    command: list[str], directory: Path, remove: Path | None = None
) -> tuple[list[float], list[float]]:
    """Run a program some times; give wall and CPU milliseconds of each."""
    walls, cpus = [], []
    for _ in range(_RUNS):
        if remove is not None:
            remove.unlink(missing_ok=True)
        usage = measure(command, directory)
        if usage.exit_code:
            raise RuntimeError(f"{command} failed: {usage.output.strip()}")
        walls.append(usage.wall_seconds * 1000)
        cpus.append(usage.cpu_seconds * 1000)
    return walls, cpus


def run_five_gib(settings: Settings) -> Section:
    """Fetch a sparse file of 5 GiB, and compare every byte and its digest."""
    size = 5 * GIB
    section = Section(
        title="five_gib: a file past 2**32 bytes",
        header=("", "exact", "wall s"),
    )
    files, target = settings.directory / "sparse", settings.directory / "target"
    for each in (files, target):
        each.mkdir()
    source, saved = files / "five.bin", target / OUTPUT
    try:
        make_sparse_file(source, size)
        digest = sha256(source)
        get = segdl_command("get", "-q", "--no-progress", "-o", OUTPUT)
        checks: dict[str, Callable[[], bool]] = {
            "every byte": lambda: same(source, saved),
            "sha256": lambda: sha256(saved) == digest,
        }
        with Nginx(files, workers=2, access_log=False) as nginx:
            url = f"{nginx.url}/{source.name}"
            command = [*get, "--checksum", f"sha256:{digest}", url]
            usage = measure(command, target)
        settings.say(f"fetched in {usage.wall_seconds:.1f} s")
        for name, check in checks.items():
            right = usage.exit_code == 0 and check()
            section.exact = section.exact and right
            section.rows.append(
                (name, "yes" if right else "NO", f"{usage.wall_seconds:.1f}")
            )
        if usage.exit_code:
            section.notes.append(f"it failed: {usage.output.strip()}")
        section.data = {"wall_seconds": usage.wall_seconds, "sha256": digest}
    finally:
        for each in (files, target):
            shutil.rmtree(each)
    return section
