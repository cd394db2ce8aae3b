"""What the scenarios give back, and how it is printed and kept.

scenario ──> Section: rows, notes, checks, data ──> Markdown on stdout
                                              └───> JSON in a file: save(), load()
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench._content import MIB
from bench._processes import ROOT

RESULTS = ROOT / "bench" / "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """
    A figure and the limit it has to keep.

    Args:
        name: What is measured.
        value: What it was.
        limit: The most it may be.
        unit: Of both, such as "ms"; empty for a ratio.
    """

    name: str
    value: float
    limit: float
    unit: str = ""

    @property
    def kept(self) -> bool:
        """Whether the value is within the limit."""
        return self.value <= self.limit

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        verdict = "kept" if self.kept else "MISSED"
        figures = f"{self.value:.3g}{unit} (limit {self.limit:g}{unit})"
        return f"{self.name}: {figures} {verdict}"


@dataclass(slots=True, kw_only=True)
class Section:
    """
    The outcome of one scenario.

    Args:
        title: One line.
        header: The names of the columns.
        rows: As many cells each.
        notes: Sentences below the table, such as what is not installed.
        checks: Figures with limits.
        exact: Whether every file that was compared had exactly the right bytes.
        data: Every single figure, for the JSON file.
    """

    title: str
    header: Sequence[str] = ()
    rows: list[Sequence[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    exact: bool = True
    data: dict[str, Any] = field(default_factory=dict)

    def markdown(self, *, level: int = 2) -> str:
        """
        Give the section as Markdown.

        Args:
            level: Of its heading.
        """
        lines = [f"{'#' * level} {self.title}", ""]
        lines += table(self.header, self.rows)
        if self.rows:
            lines.append("")
        if not self.exact:
            lines.append("- **WRONG BYTES, or it failed**")
        lines += [f"- {check}" for check in self.checks]
        lines += [f"- {note}" for note in self.notes]
        return "\n".join(lines) + "\n"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Give the lines of a Markdown table; none without rows."""
    if not rows:
        return []
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
        *("| " + " | ".join(row) + " |" for row in cells),
    ]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Write the median, the least and the most of some seconds."""
    return (
        f"{statistics.median(values):.{digits}f} "
        f"({min(values):.{digits}f} - {max(values):.{digits}f})"
    )


def mebibytes(count: float) -> str:
    """Write a number of bytes in MiB."""
    return f"{count / MIB:.1f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """
    What one call measured, or several.

    Args:
        machine: What it ran on.
        flags: Of each peer, with their reasons.
        marks: Day and commit of each scenario's run, by its name.
        sections: By the scenario's name.
    """

    machine: dict[str, str]
    flags: dict[str, list[str]]
    marks: dict[str, str]
    sections: dict[str, Section]

    def with_later(self, later: Results) -> Results:
        """Give these, with what later ones have in the place of what was there."""
        return Results(
            machine=later.machine,
            flags=later.flags,
            marks=self.marks | later.marks,
            sections=self.sections | later.sections,
        )


def save(results: Results, also: Path | None) -> Path:
    """
    Write everything as JSON.

    Args:
        results: What was measured.
        also: A second file to write, None for none.

    Returns:
        The file in `bench/results/`.
    """
    text = json.dumps(asdict(results), indent=1) + "\n"
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / time.strftime("%Y%m%d-%H%M%S.json")
    path.write_text(text, encoding="utf-8")
    if also is not None:
        also.write_text(text, encoding="utf-8")
    return path


def load(path: Path) -> Results:
    """Read what `save` wrote."""
    record = json.loads(path.read_text(encoding="utf-8"))
    sections = {}
    for name, fields in record.pop("sections").items():
        checks = [Check(**check) for check in fields.pop("checks")]
        sections[name] = Section(**fields, checks=checks)
    return Results(**record, sections=sections)
