"""Start-up: what a small download and an import cost; and a file past 2**32 bytes."""

from __future__ import annotations

import shutil
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench._contenders import peers, segdl
from bench._content import GIB, MIB, make_sparse_file, same, sha256
from bench._course import OUTPUT, Failed, served, source_file
from bench._measure import Usage, measure
from bench._processes import segdl_command
from bench._report import Check, Section, spread
from bench._server import Nginx
from bench._settings import Settings
from segdl._peers import Invocation

_RUNS = 10
_LIMITS_MS = {"segdl, 1 MiB": 200.0, "import segdl": 60.0}


def run_cold(settings: Settings) -> Section:
    """Measure 1 MiB with everybody, `import segdl`, and the bare interpreter."""
    section = Section(
        title=f"cold: whole processes, {_RUNS} runs each",
        header=("", "wall ms, median (min - max)", "CPU ms"),
    )
    shown: dict[str, tuple[list[float], list[float]]] = {}
    with served(settings, source_file(settings, MIB)) as course:
        course.prepare()
        for contender in [segdl(), *peers()]:
            made = contender.make(course.fetch(1))
            name = f"{contender.name}, 1 MiB"
            try:
                shown[name] = _time(partial(course.run, made), course.target)
                course.check()
            except Failed as error:
                section.exact = section.exact and contender.is_peer
                section.notes.append(f"{contender.name}: {error}")
        for name, code in (("import segdl", "import segdl"), ("bare interpreter", "")):
            command = (sys.executable, "-c", code)
            shown[name] = _time(
                partial(course.run, Invocation(command=command)),
                course.target,
            )
    for name, (walls, cpus) in shown.items():
        section.rows.append((name, spread(walls, 0), spread(cpus, 0)))
        section.data[name] = {"wall_ms": walls, "cpu_ms": cpus}
    section.checks = [
        Check(name=name, value=statistics.median(shown[name][0]), limit=most, unit="ms")
        for name, most in _LIMITS_MS.items()
        if name in shown
    ]
    return section


def _time(run: Callable[[], Usage], target: Path) -> tuple[list[float], list[float]]:
    """Run a program some times; give wall and CPU milliseconds of each."""
    usages = []
    for _ in range(_RUNS):
        target.unlink(missing_ok=True)
        usages.append(run())
    return (
        [usage.wall_seconds * 1000 for usage in usages],
        [usage.cpu_seconds * 1000 for usage in usages],
    )


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
