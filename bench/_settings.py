"""What a call of `python -m bench` asks for."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
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
        fastest: Names of the fastest peers, by the scheme they were measured with.
    """

    size: int
    repeat: int
    quick: bool
    directory: Path
    before: Path | None = None
    fastest: dict[str, list[str]] = field(default_factory=dict)

    def say(self, text: str) -> None:
        """Tell how far it is, on standard error."""
        print(f"  {text}", file=sys.stderr, flush=True)
