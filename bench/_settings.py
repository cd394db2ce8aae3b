"""What a call of `python -m bench` asks for."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    The options all scenarios share.

    Args:
        size: Of the large file, in bytes.
        repeat: Runs of each contender.
        quick: Smaller files and counts, to see that everything works.
        directory: For all files; on a disk.
        before: A checkout of an earlier segdl with its environment, None for none.
    """

    size: int
    repeat: int
    quick: bool
    directory: Path
    before: Path | None = None

    def say(self, text: str) -> None:
        """Tell how far it is, on standard error."""
        print(f"  {text}", file=sys.stderr, flush=True)
