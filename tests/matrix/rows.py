"""The table of docs/reliability.md: a line a row, from the tests and their outcomes.

    item ── expect ──> number, fault, injection
    report ── note ──> outcome of each variant ──> write ──> one line a row

Rows that this run left out keep the line an earlier run wrote.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import pytest

from bench._record import record, recorded, run_mark

ROWS = 75
HEAD = "| # | fault | injected by | outcome | last run |\n|---|---|---|---|---|\n"


@dataclass
class Row:
    """
    One row, as far as this run has seen it.

    Attributes:
        number: 1 - 75.
        fault: In words.
        injection: How the fault is made.
        outcomes: Of its variants, by test.
    """

    number: int
    fault: str
    injection: str
    outcomes: dict[str, str] = field(default_factory=dict)

    @property
    def outcome(self) -> str:
        """All outcomes in a few words; "" when none was run."""
        counts = {
            kind: sum(1 for each in self.outcomes.values() if each == kind)
            for kind in ("passed", "failed", "skipped")
        }
        if not counts["passed"] + counts["failed"]:
            return ""
        words = []
        if counts["failed"]:
            words.append(f"**failed: {counts['failed']} of {len(self.outcomes)}**")
        elif counts["passed"] > 1:
            words.append(f"passed ({counts['passed']} variants)")
        else:
            words.append("passed")
        if counts["skipped"]:
            words.append(f"{counts['skipped']} left out")
        return ", ".join(words)


def row_of(name: str) -> tuple[int, str] | None:
    """
    Read a row's number and fault from the name of its test.

    Args:
        name: Such as "test_03_reset_in_the_body[rst]".
    """
    found = re.match(r"test_(\d\d)_(\w+)", name)
    return None if found is None else (int(found[1]), found[2].replace("_", " "))


class Table:
    """The rows of one run."""

    def __init__(self) -> None:
        self._rows: dict[int, Row] = {}
        self._tests: dict[str, int] = {}

    def expect(self, item: pytest.Item) -> None:
        """Take a test's row; nothing when it is none of the matrix."""
        found = row_of(item.name)
        if found is None:
            return
        marker = item.get_closest_marker("row")
        assert marker is not None, f"{item.name} does not say how the fault is made"
        number, fault = found
        self._rows.setdefault(number, Row(number, fault, marker.args[0]))
        self._tests[item.nodeid] = number

    def note(self, report: pytest.TestReport) -> None:
        """Take the outcome of a test's phase; a failure of any phase counts."""
        number = self._tests.get(report.nodeid)
        if number is None:
            return
        outcomes = self._rows[number].outcomes
        if report.failed:
            outcomes[report.nodeid] = "failed"
        elif report.skipped or report.when == "call":
            outcomes.setdefault(report.nodeid, report.outcome)

    def write(self) -> None:
        """Put the rows that were run into docs/reliability.md."""
        lines = {
            int(found[1]): line
            for line in recorded("rows").splitlines()
            if (found := re.match(r"\| (\d+) \|", line))
        }
        mark = run_mark()
        for row in self._rows.values():
            if row.outcome:
                cells = (row.number, row.fault, row.injection, row.outcome, mark)
                lines[row.number] = f"| {' | '.join(map(str, cells))} |"
        passed = sum(1 for line in lines.values() if "| passed" in line)
        table = HEAD + "\n".join(lines[number] for number in sorted(lines))
        partly = sum(1 for line in lines.values() if "left out" in line)
        told = f"{passed} of {ROWS} rows pass, {partly} of them with variants left out."
        record("rows", f"{told}\n\n{table}")
