"""100,000 tasks in one engine, while the origin holds the first one.

    python -m bench.tasks URL COUNT DIRECTORY    prints one JSON object

That is what the scenario runs, in a process of its own, so that its memory is that of
the engine and the tasks alone.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench._origin import origin
from bench._processes import ROOT, environment, rss_bytes
from bench._report import Check, Section, mebibytes
from bench._settings import Settings

COUNT = 100_000
_ACCEPT_LIMIT_SECONDS = 5.0
# From the first tenth on, a task must not cost more the more there are: within this
# factor, as an arena or a table that grows comes at once.
_FLAT_LIMIT = 1.5
_STEPS = 10
_SERVED = 40


def run(settings: Settings) -> Section:
    """Measure a process that submits them all."""
    count = COUNT // 10 if settings.quick else COUNT
    with (
        tempfile.TemporaryDirectory(dir=settings.directory) as directory,
        origin() as (url, _),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "bench.tasks", url, str(count), directory],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
    section = Section(title=f"tasks: {count:,} submitted, max_workers=1")
    if done.returncode:
        section.exact = False
        section.notes.append(f"it failed: {done.stderr.strip()}")
        return section
    found = json.loads(done.stdout)
    section.data = found
    _fill(section, found)
    return section


def _fill(section: Section, found: dict[str, Any]) -> None:
    section.header = ("", "")
    section.rows = [
        ("accepted in", f"{found['accept_seconds']:.2f} s"),
        ("resident memory before", f"{mebibytes(found['rss_before'])} MiB"),
        ("resident memory after", f"{mebibytes(found['rss_after'])} MiB"),
        ("a task, over all", f"{found['bytes_a_task']:.0f} B"),
        ("a task, tenth by tenth", ", ".join(f"{n:.0f}" for n in found["tenths"])),
        ("all but some cancelled in", f"{found['cancel_seconds']:.2f} s"),
        ("served in the right order", f"{found['served']} tasks"),
        ("shut down in", f"{found['shutdown_seconds']:.2f} s"),
    ]
    section.exact = all(found["right"].values())
    section.notes += [
        f"{name}: {'right' if right else 'WRONG'}"
        for name, right in found["right"].items()
    ]
    tenths = found["tenths"]
    section.checks = [
        Check(
            name="time to accept all",
            value=found["accept_seconds"],
            limit=_ACCEPT_LIMIT_SECONDS,
            unit="s",
        ),
        Check(
            name="memory of a task, second half over first half",
            value=sum(tenths[_STEPS // 2 :]) / max(1.0, sum(tenths[: _STEPS // 2])),
            limit=_FLAT_LIMIT,
        ),
    ]


def main(base: str, count: int, directory: str) -> int:
    """
    Submit tasks to an engine whose only slot is taken.

    Args:
        base: URL of an embedded origin.
        count: How many.
        directory: To save in.
    """
    from segdl import DownloadEngine

    draw = random.Random(1)
    priorities = [draw.randrange(10) for _ in range(count)]
    engine = DownloadEngine(max_workers=1, processes=0, durability="none")
    served: list[str] = []
    engine.register_completion_callback(
        lambda task: served.append(task.id) if task.status == "completed" else None
    )
    held = engine.download(f"{base}/b/1/1048576/held?f=hang", directory, priority=-1)
    before = rss_bytes()
    levels = [before]
    begin = time.monotonic()
    tasks = []
    for number, priority in enumerate(priorities):
        url = f"{base}/b/1/16/{number}"
        tasks.append(engine.download(url, directory, priority=priority))
        if (number + 1) % (count // _STEPS) == 0:
            levels.append(rss_bytes())
    accepted = time.monotonic() - begin
    in_order = engine.get_all_tasks() == [held, *tasks]
    all_pending = all(task.status == "pending" for task in tasks)
    # Some of each priority, to see in which order they are served.
    kept = tasks[:: max(1, count // _SERVED)]
    keep = {task.id for task in kept}
    begin = time.monotonic()
    cancelled = [task.cancel() for task in tasks if task.id not in keep]
    cancel_seconds = time.monotonic() - begin
    held.cancel()
    finished = engine.wait(kept, 60)
    begin = time.monotonic()
    engine.shutdown()
    shutdown_seconds = time.monotonic() - begin
    # sorted() is stable: equal priorities in order of submission.
    expected = [task.id for task in sorted(kept, key=lambda task: task.priority)]
    result = {
        "accept_seconds": accepted,
        "cancel_seconds": cancel_seconds,
        "shutdown_seconds": shutdown_seconds,
        "rss_before": before,
        "rss_after": levels[-1],
        "bytes_a_task": (levels[-1] - before) / count,
        "tenths": [
            (after - until) * _STEPS / count for until, after in pairwise(levels)
        ],
        "served": len(served),
        "right": {
            "get_all_tasks in order of submission": in_order,
            "all pending while the slot is taken": all_pending,
            "all others could be cancelled": all(cancelled),
            "the kept ones completed": finished,
            "served by priority, then by submission": served == expected,
            "queue alone": _queue_order(priorities),
        },
    }
    print(json.dumps(result))
    return 0


def _queue_order(priorities: list[int]) -> bool:
    """Tell whether a queue lists and hands out its tasks in the right order."""
    from segdl import DownloadQueue, DownloadTask

    queue = DownloadQueue()
    tasks = [
        DownloadTask("http://127.0.0.1/x", ".", priority=priority)
        for priority in priorities
    ]
    for task in tasks:
        queue.add_task(task)
    expected = sorted(tasks, key=lambda task: task.priority)
    listed = queue.get_all_tasks() == expected
    handed_out = [queue.get_next_task() for _ in tasks]
    return listed and handed_out == expected and queue.get_next_task() is None


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], int(sys.argv[2]), str(Path(sys.argv[3]))))
