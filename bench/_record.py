"""docs/reliability.md and docs/performance.md: their tables are written by runs.

    run ──> record("power-cuts", table) ──> <!-- power-cuts: begin --> ... replaced

What stands between the two comments of a section is the last run's, word by word; the
text around them is written by hand.
"""

from __future__ import annotations

import re
import subprocess
from datetime import datetime, timezone
from pathlib import Path

from bench._processes import ROOT

RELIABILITY = ROOT / "docs" / "reliability.md"
PERFORMANCE = ROOT / "docs" / "performance.md"
PLOT = PERFORMANCE.with_suffix(".png")


def record(section: str, markdown: str, path: Path = RELIABILITY) -> None:
    """
    Replace a section's content.

    Args:
        section: Its name, as in the comments around it.
        markdown: What takes the place of what was there.
        path: The document.

    Raises:
        ValueError: There is no such section.
    """
    text = path.read_text()
    pattern = _pattern(section)
    if not pattern.search(text):
        raise ValueError(f"{path} has no section {section!r}")
    new = f"\\g<begin>\n{_escaped(markdown.strip())}\n\\g<end>"
    path.write_text(pattern.sub(new, text))


def recorded(section: str, path: Path = RELIABILITY) -> str:
    """
    Give a section's content.

    Args:
        section: Its name, as in the comments around it.
        path: The document.

    Raises:
        ValueError: There is no such section.
    """
    found = _pattern(section).search(path.read_text())
    if found is None:
        raise ValueError(f"{path} has no section {section!r}")
    return found["content"].strip()


def run_mark() -> str:
    """
    Say when and on which commit a run is made, such as "2026-11-25, 9c4d760".

    A `+` says that more than these documents, which runs write, has changed since.
    """
    day = datetime.now(timezone.utc).date().isoformat()
    commit = _git("describe", "--always")
    written = [f":(exclude){path}" for path in (RELIABILITY, PERFORMANCE, PLOT)]
    changed = _git("status", "--porcelain", "-uno", "--", *written)
    return f"{day}, {commit or 'no commit'}{'+' if changed else ''}"


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def _pattern(section: str) -> re.Pattern[str]:
    name = re.escape(section)
    return re.compile(
        rf"(?P<begin><!-- {name}: begin -->)\n"
        rf"(?P<content>.*?)(?P<end><!-- {name}: end -->)",
        re.DOTALL,
    )


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\")
