"""What a digest costs: sha256 of a large file that comes at a modest speed."""

from __future__ import annotations

from statistics import median

from bench._contenders import segdl
from bench._content import MIB, sha256, show_size
from bench._course import source_file
from bench._report import Section
from bench._scenario import Limit, Scenario, run
from bench._settings import Settings

_LINK = 500
_CONNECTIONS = 64
_MOST = 1.10


def run_verified(settings: Settings) -> Section:
    """Measure with and without a digest, on a link of 500 MiB/s in all."""
    digest = sha256(source_file(settings, settings.size))
    options = ("-x", str(_CONNECTIONS))
    without = segdl(*options, title="segdl")
    verified = segdl(
        *options, "--checksum", f"sha256:{digest}", title="segdl --checksum sha256:..."
    )
    section, outcome = run(
        settings,
        Scenario(
            title=f"verified: {show_size(settings.size)}, http to disk, "
            f"{_LINK} MiB/s in all",
            size=settings.size,
            contenders=[without, verified],
            rounds=min(3, settings.repeat),
            limits=[Limit(contender=verified.name, most=_MOST, over=without.name)],
            # Many connections: what each may have in its first second is let through
            # at once, which so is less than one request's range.
            server=f"limit_rate {_LINK * 1024 // _CONNECTIONS}k;",
        ),
    )
    walls = [each.wall for each in outcome.runs.get(without.name, ())]
    if walls:
        rate = settings.size / MIB / median(walls)
        section.notes.append(
            f"the link: {_CONNECTIONS} connections of {_LINK / _CONNECTIONS:.1f} "
            f"MiB/s; without a digest it came at {rate:.0f} MiB/s"
        )
    return section
