"""Contenders take turns on a course, and the slow ones leave it early.

    round 1   A  B  C  D  E        all of them; here their memory is sampled too
    round 2   B  C  D  E  A        the peers that were fastest so far
    round 3   C  A  B              the fastest two and ours, until the last round
    round 4   A  B  C

Between two runs, and not counted: the file is compared and removed, everything is
flushed, and the served file is read into the page cache. What changes over time on
the machine so meets all. Ours run in every round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Protocol

from bench._contenders import Contender
from bench._course import Failed

# How many peers run in the second round, and in those after it.
_SECOND, _LATER = 4, 2
SAMPLE_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """
    One run of a contender; of what was not measured, nothing is said.

    Args:
        wall: Seconds from its start to its end.
        cpu: Seconds of CPU of its process tree.
        pss_bytes: The peak of its process tree; only in the first round.
        processes: At that moment.
        sync: Seconds that `sync FILE` took afterwards.
        read: Seconds that another process took to read the file after that.
    """

    wall: float
    cpu: float
    pss_bytes: int | None = None
    processes: int | None = None
    sync: float | None = None
    read: float | None = None


@dataclass(slots=True, kw_only=True)
class Outcome:
    """
    What came of a race.

    Args:
        runs: Of each contender, in order.
        failures: Of contenders that left it, and why; they have no runs.
        ours: Names of those that are no peers.
    """

    runs: dict[str, list[Run]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    ours: list[str] = field(default_factory=list)

    @property
    def peers(self) -> list[str]:
        """Peers with at least one run, the fastest first."""
        found = [name for name in self.runs if name not in self.ours]
        return sorted(found, key=lambda name: self.median(name, wall) or 0.0)

    @property
    def exact(self) -> bool:
        """Whether ours saved what was served, in every run."""
        return not any(name in self.failures for name in self.ours)

    def median(self, name: str, metric: Metric) -> float | None:
        """Give the median of a figure; None where it was not measured."""
        values = [metric(run) for run in self.runs.get(name, ())]
        known = [value for value in values if value is not None]
        return median(known) if known else None

    def best(self, metric: Metric) -> tuple[str, float] | None:
        """Give the peer with the least median of a figure, and that."""
        medians = [(self.median(name, metric), name) for name in self.peers]
        known = [(value, name) for value, name in medians if value is not None]
        if not known:
            return None
        value, name = min(known)
        return name, value

    def ratio(self, name: str, metric: Metric) -> float | None:
        """Give a contender's figure over the best peer's; None without either."""
        own, best = self.median(name, metric), self.best(metric)
        return None if own is None or best is None else own / max(best[1], 1e-9)


Metric = Callable[[Run], "float | None"]


def wall(run: Run) -> float | None:
    """From start to end, in seconds."""
    return run.wall


def cpu(run: Run) -> float | None:
    """Of the process tree, in seconds."""
    return run.cpu


def synced(run: Run) -> float | None:
    """Until it is on the disk, in seconds."""
    return None if run.sync is None else run.wall + run.sync


def loaded(run: Run) -> float | None:
    """Download, and reading it back once, in seconds."""
    return None if run.read is None else run.wall + run.read


class Lap(Protocol):
    """Runs a contender once on a prepared course, and checks what it saved."""

    def __call__(self, contender: Contender, *, sampled: bool) -> Run:
        """
        Run it.

        Args:
            contender: Who.
            sampled: Look at its memory.

        Raises:
            Failed: Its run does not count.
        """


def race(
    contenders: Sequence[Contender],
    rounds: int,
    lap: Lap,
    say: Callable[[str], None],
) -> Outcome:
    """
    Let contenders take turns.

    Args:
        contenders: In the order of the first round.
        rounds: How many.
        lap: Does one run.
        say: Is told of each run.
    """
    outcome = Outcome(ours=[each.name for each in contenders if not each.is_peer])
    for number in range(rounds):
        staying = stays(contenders, outcome, number)
        first = number % max(1, len(staying))
        for contender in [*staying[first:], *staying[:first]]:
            name = contender.name
            try:
                run = lap(contender, sampled=number == 0)
            except Failed as error:
                outcome.failures[name] = str(error)
                outcome.runs.pop(name, None)
                say(f"{name}: {error}")
                continue
            outcome.runs.setdefault(name, []).append(run)
            say(f"{name}: {run.wall:.2f} s")
    return outcome


def stays(
    contenders: Sequence[Contender], outcome: Outcome, number: int
) -> list[Contender]:
    """
    Tell who runs in a round.

    Args:
        contenders: All of them.
        outcome: So far.
        number: Of the round, from 0.
    """
    going = [each for each in contenders if each.name not in outcome.failures]
    if number == 0:
        return going
    fastest = outcome.peers[: _SECOND if number == 1 else _LATER]
    return [each for each in going if not each.is_peer or each.name in fastest]
