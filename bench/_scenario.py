"""A scenario: who runs where, what the figures are compared with, and the table of it.

    Scenario ──> course ──> race ──> Section: a row for each contender, a Check for
                 (nginx)             each limit, a sentence for each that is missing

A ratio is a median over the least median of any peer in the same race, so smaller is
better; peers that left early are among those that count.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from statistics import median

from bench._contenders import Contender
from bench._course import Course, Failed, served, source_file
from bench._race import (
    SAMPLE_SECONDS,
    Metric,
    Outcome,
    Run,
    cpu,
    loaded,
    race,
    synced,
    wall,
)
from bench._report import Check, Section, mebibytes, spread
from bench._settings import Settings
from bench.delay import far

METRICS: dict[str, Metric] = {
    "wall": wall,
    "CPU": cpu,
    "wall and sync": synced,
    "wall and reading back": loaded,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """
    What a contender of ours has to keep.

    Args:
        contender: Its name.
        most: The most that the ratio may be.
        metric: A key of METRICS.
        over: The peer it is compared with, "ideal" for the ideal time, None for the
            best peer.
    """

    contender: str
    most: float
    metric: str = "wall"
    over: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """
    One table of the report.

    Args:
        title: One line.
        size: Of the file, in bytes.
        contenders: Ours and the peers.
        connections: That peers are told to use.
        rounds: Of the race.
        limits: To keep.
        tls: Serve it over TLS.
        in_memory: Save to tmpfs.
        http: Directives of nginx's http block.
        server: Directives of nginx's server block.
        round_trip: Seconds that a proxy adds, 0 for none.
        afterwards: Also time `sync FILE`, and a program that reads the file.
        limit_seconds: A run that takes longer is killed.
        ideal: Seconds that the server's limits allow at best, None for no such limit.
        notes: Sentences below the table.
    """

    title: str
    size: int
    contenders: Sequence[Contender]
    connections: int = 16
    rounds: int
    limits: Sequence[Limit] = ()
    tls: bool = False
    in_memory: bool = False
    http: str = ""
    server: str = ""
    round_trip: float = 0.0
    afterwards: bool = False
    limit_seconds: float = 120.0
    ideal: float | None = None
    notes: Sequence[str] = ()


def run(settings: Settings, scenario: Scenario) -> tuple[Section, Outcome]:
    """
    Run a scenario.

    Args:
        settings: Of the whole call.
        scenario: What to do.
    """
    source = source_file(settings, scenario.size)
    with ExitStack() as stack:
        course = stack.enter_context(
            served(
                settings,
                source,
                tls=scenario.tls,
                in_memory=scenario.in_memory,
                http=scenario.http,
                server=scenario.server,
                limit_seconds=scenario.limit_seconds,
            )
        )
        if scenario.round_trip:
            course = stack.enter_context(far(course, scenario.round_trip))
        lap = _lap(course, scenario)
        outcome = race(scenario.contenders, scenario.rounds, lap, settings.say)
    return section(scenario, outcome), outcome


def _lap(course: Course, scenario: Scenario) -> Callable[..., Run]:
    def lap(contender: Contender, *, sampled: bool) -> Run:
        course.prepare()
        invocation = contender.make(course.fetch(scenario.connections))
        usage = course.run(invocation, SAMPLE_SECONDS if sampled else None)
        if not course.target.exists():
            raise Failed("saved no file")
        target = str(course.target)
        sync = read = None
        if scenario.afterwards:
            sync = _seconds(["sync", target])
            read = _seconds(["dd", f"if={target}", "of=/dev/null", "bs=16M"])
        course.check()
        return Run(
            wall=usage.wall_seconds,
            cpu=usage.cpu_seconds,
            pss_bytes=usage.peak_pss_bytes if sampled else None,
            processes=usage.processes if sampled else None,
            sync=sync,
            read=read,
        )

    return lap


def _seconds(command: list[str]) -> float:
    begin = time.monotonic()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return time.monotonic() - begin


def section(scenario: Scenario, outcome: Outcome) -> Section:
    """
    Lay a race out.

    Args:
        scenario: What was done.
        outcome: What came of it.
    """
    metrics = _measured(outcome)
    header = ["", "runs"]
    for name in metrics:
        header += [f"{name} s", "/ best"]
    header.append("peak PSS MiB")
    if scenario.ideal is not None:
        header.append("wall / ideal")
    laid = Section(title=scenario.title, header=header, exact=outcome.exact)
    for name in [*outcome.ours, *outcome.peers]:
        if name in outcome.runs:
            laid.rows.append(_row(name, outcome, metrics, scenario.ideal))
    for name, why in outcome.failures.items():
        laid.rows.append((name, "0", why, *["-"] * (len(header) - 3)))
    laid.checks = [
        check
        for limit in scenario.limits
        if (check := _check(limit, outcome, scenario.ideal)) is not None
    ]
    laid.notes += scenario.notes
    laid.data = {
        "ideal_seconds": scenario.ideal,
        "runs": {
            name: [asdict(each) for each in runs] for name, runs in outcome.runs.items()
        },
        "failures": outcome.failures,
    }
    return laid


def _measured(outcome: Outcome) -> dict[str, Metric]:
    """Leave out the metrics that no run has."""
    every = [run for runs in outcome.runs.values() for run in runs]
    return {
        name: metric
        for name, metric in METRICS.items()
        if any(metric(run) is not None for run in every)
    }


def _row(
    name: str, outcome: Outcome, metrics: dict[str, Metric], ideal: float | None
) -> list[str]:
    runs = outcome.runs[name]
    row = [name, str(len(runs))]
    for metric in metrics.values():
        values = [value for run in runs if (value := metric(run)) is not None]
        ratio = outcome.ratio(name, metric)
        row += [spread(values), "-" if ratio is None else f"{ratio:.2f}"]
    peaks = [run.pss_bytes for run in runs if run.pss_bytes]
    row.append(mebibytes(max(peaks)) if peaks else "-")
    if ideal is not None:
        row.append(f"{median(run.wall for run in runs) / ideal:.2f}")
    return row


def _check(limit: Limit, outcome: Outcome, ideal: float | None) -> Check | None:
    """Compare with a limit; None where the race has not what it takes."""
    metric = METRICS[limit.metric]
    own = outcome.median(limit.contender, metric)
    if limit.over is None:
        best = outcome.best(metric)
        over, other = (f"best peer ({best[0]})", best[1]) if best else ("", None)
    elif limit.over == "ideal":
        over, other = "ideal", ideal
    else:
        over, other = limit.over, outcome.median(limit.over, metric)
    if own is None or other is None:
        return None
    return Check(
        name=f"{limit.contender} / {over}, {limit.metric}",
        value=own / max(other, 1e-9),
        limit=limit.most,
    )
