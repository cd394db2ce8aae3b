"""One large file from nginx at full speed: to a disk, and to memory."""

from __future__ import annotations

from bench._contenders import missing, peers, segdl
from bench._content import show_size
from bench._report import Section
from bench._scenario import Limit, Scenario, run
from bench._settings import Settings

_PLAIN = segdl("--durability", "none")
_PUBLISH = segdl()
_SAFE = "wall and sync"
_BACK = "wall and reading back"

# Most of the best peer: wall and CPU to a disk, wall and CPU to memory.
_DISK = {"http": (0.55, 0.50), "https": (0.65, 0.60)}
_MEMORY = (0.85, 0.95)
_READ_BACK = 0.80
_BEFORE = 1.03
# The best takes 4 s for 4 GiB; whoever is slower than this is so by a factor.
_LIMIT_SECONDS = 20.0


def run_disk(settings: Settings, scheme: str) -> Section:
    """
    Measure everybody over http or https, to a disk.

    Args:
        settings: Of the whole call.
        scheme: "http" or "https".
    """
    wall, cpu = _DISK[scheme]
    limits = [
        Limit(contender=_PLAIN.name, most=wall),
        Limit(contender=_PLAIN.name, most=cpu, metric="CPU"),
        Limit(contender=_PUBLISH.name, most=wall, metric=_SAFE),
        Limit(contender=_PLAIN.name, most=_READ_BACK, metric=_BACK),
    ]
    ours = [_PLAIN, _PUBLISH]
    if settings.before is not None:
        before = segdl(before=settings.before, title="segdl before")
        ours.append(before)
        limits.append(
            Limit(contender=_PUBLISH.name, most=_BEFORE, over=before.name),
        )
    section, outcome = run(
        settings,
        Scenario(
            title=f"{scheme}: {show_size(settings.size)} from nginx to disk",
            size=settings.size,
            contenders=[*ours, *peers()],
            rounds=settings.repeat,
            limits=limits,
            tls=scheme == "https",
            afterwards=True,
            limit_seconds=_LIMIT_SECONDS,
            notes=[
                f"{_PUBLISH.name}: with its default, --durability publish; its file is "
                "on the disk when it ends",
                "after each run `sync FILE` is timed, then `dd bs=16M` that reads the "
                "file as a loader does, in that order: what a peer left in memory is "
                "read without the disk",
                *missing(),
            ],
        ),
    )
    settings.fastest[scheme] = outcome.peers[:2]
    return section


def run_memory(settings: Settings, scheme: str) -> Section:
    """
    Measure the fastest over http or https, to tmpfs.

    Args:
        settings: Of the whole call.
        scheme: "http" or "https".
    """
    wall, cpu = _MEMORY
    fastest = settings.fastest.get(scheme)
    section, _ = run(
        settings,
        Scenario(
            title=f"{scheme}: {show_size(settings.size)} from nginx to tmpfs",
            size=settings.size,
            contenders=[
                _PLAIN,
                *peers(lambda peer: fastest is None or peer.name in fastest),
            ],
            rounds=settings.repeat,
            limits=[
                Limit(contender=_PLAIN.name, most=wall),
                Limit(contender=_PLAIN.name, most=cpu, metric="CPU"),
            ],
            tls=scheme == "https",
            in_memory=True,
            limit_seconds=_LIMIT_SECONDS,
            notes=[f"peers: the fastest of {scheme} to disk"] if fastest else missing(),
        ),
    )
    return section
