"""`segdl serve`: the embedded test origin by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segdl.testing import __main__ as origin
from segdl.testing.__main__ import add_arguments

if TYPE_CHECKING:
    import argparse

    from segdl.cli.console import Console

__all__ = ["add_arguments", "run"]


def run(args: argparse.Namespace, console: Console) -> int:  # noqa: ARG001 - it prints its first line itself, as its other callers rely on
    """Serve until SIGINT or SIGTERM; give the exit code."""
    return origin.run(args)
