"""Many small files at once, from one directory of nginx."""

from __future__ import annotations

from pathlib import Path

from bench._contenders import Contender, missing, peers, segdl
from bench._content import MIB, make_file, same, warm
from bench._course import Course, Failed, served
from bench._race import SAMPLE_SECONDS, Run, race
from bench._report import Section
from bench._scenario import Limit, Scenario, section
from bench._settings import Settings
from segdl._peers import Batch, Peer

COUNT = 1000
_AT_ONCE = 16
_MOST = 1.5


def run_batch(settings: Settings) -> Section:
    """Measure everybody who takes a list of URLs."""
    count = COUNT // 10 if settings.quick else COUNT
    ours = [segdl(), segdl("--durability", "none")]
    scenario = Scenario(
        title=f"batch: {count:,} files of 1 MiB, http to disk",
        size=count * MIB,
        contenders=[*ours, *peers(_takes_many)],
        connections=_AT_ONCE,
        rounds=settings.repeat,
        limits=[Limit(contender=each.name, most=_MOST) for each in ours],
        limit_seconds=60.0,
        notes=[
            f"peers: {_AT_ONCE} files at once, where that can be told",
            *missing(_takes_many),
        ],
    )
    sources = batch_files(settings, count, MIB)
    with served(settings, sources[0], limit_seconds=scenario.limit_seconds) as course:

        def lap(contender: Contender, *, sampled: bool) -> Run:
            return batch_lap(course, contender, sources, sampled=sampled)

        outcome = race(scenario.contenders, scenario.rounds, lap, settings.say)
    return section(scenario, outcome)


def _takes_many(peer: Peer) -> bool:
    return peer.many is not None


def batch_files(settings: Settings, count: int, size: int) -> list[Path]:
    """
    Make files to serve, each with a content of its own, in one directory.

    Args:
        settings: Of the whole call.
        count: How many.
        size: Of each, in bytes.
    """
    directory = settings.directory / f"batch-{count}-{size}"
    paths = [directory / f"{number:06}.bin" for number in range(count)]
    if not directory.exists():
        directory.mkdir()
        for number, path in enumerate(paths):
            make_file(path, size, seed=number)
    return paths


def batch_lap(
    course: Course, contender: Contender, sources: list[Path], *, sampled: bool
) -> Run:
    """
    Fetch all files once.

    Args:
        course: It serves their directory.
        contender: Who.
        sources: The files.
        sampled: Look at its memory.

    Raises:
        Failed: It failed, or a file is not the one that was served.
    """
    assert contender.many is not None
    course.prepare()
    for path in sources:
        warm(path)
    batch = Batch(
        base=course.url.rpartition("/")[0],
        names=[path.name for path in sources],
        directory=str(course.directory),
        connections=_AT_ONCE,
        ca_file=course.ca_file,
    )
    made = contender.many(batch)
    usage = course.run(made, SAMPLE_SECONDS if sampled else None)
    for path in sources:
        saved = course.directory / path.name
        if not saved.exists() or not same(path, saved):
            raise Failed(f"{path.name}: other bytes than were served, or none")
    return Run(
        wall=usage.wall_seconds,
        cpu=usage.cpu_seconds,
        pss_bytes=usage.peak_pss_bytes if sampled else None,
        processes=usage.processes if sampled else None,
    )
