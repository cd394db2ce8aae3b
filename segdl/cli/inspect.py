"""`segdl inspect`: what a manifest says, and the file as a map.

    ████████████████▒░░░░░░░░████████████████░░░░░░    █ done  ▒ in part  ░ missing

Nothing is changed or locked, so it may be called while the download runs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from segdl.cli.arguments import path_argument
from segdl.cli.exit_codes import OK
from segdl.cli.sidecar import Sidecar
from segdl.cli.units import bytes_text

if TYPE_CHECKING:
    import argparse

    from segdl._manifest import LoadedManifest
    from segdl.cli.console import Console

__all__ = ["add_arguments", "cells", "run"]

DONE, PARTLY, MISSING = "█▒░"
_MAP_ROWS = 8
_MIN_COLUMNS, _MAX_COLUMNS = 10, 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `segdl inspect`."""
    parser.add_argument(
        "file",
        type=path_argument,
        metavar="FILE",
        help="the download, its .part or its .segdl",
    )
    parser.add_argument("--json", action="store_true", help="as one JSON object")


def run(args: argparse.Namespace, console: Console) -> int:
    """Show a manifest; give the exit code."""
    sidecar = Sidecar.find(args.file)
    loaded = sidecar.load()
    facts = _facts(sidecar, loaded)
    if args.json:
        import json

        console.result(json.dumps(facts))
        return OK
    for line in _lines(facts, loaded):
        console.result(line)
    return OK


def _facts(sidecar: Sidecar, loaded: LoadedManifest) -> dict[str, Any]:
    """Collect what there is to say, as JSON values."""
    header = loaded.header
    done = loaded.pieces.total_bytes()
    part = os.path.join(sidecar.directory, sidecar.part)
    return {
        "name": header.name,
        "directory": sidecar.directory,
        "part": part,
        "part_exists": os.path.exists(part),
        "url": header.url or None,
        "size": header.size,
        "piece": header.piece,
        "validator": header.validator.to_json(),
        "checksum": header.digest,
        "created": header.created,
        "done": done,
        "progress": done / header.size if header.size else 0.0,
        "pieces": [list(each) for each in sorted(loaded.pieces.ranges())],
        "damaged": loaded.damaged,
        "last_pid": loaded.runs[-1].pid if loaded.runs else None,
    }


def _lines(facts: dict[str, Any], loaded: LoadedManifest) -> Iterable[str]:
    size, done = facts["size"], facts["done"]
    validator = loaded.header.validator
    tags = [str(tag) for tag in (validator.etag, validator.last_modified) if tag]
    rows = {
        "file": facts["name"],
        "url": facts["url"] or "not kept",
        "size": "unknown" if size is None else _exactly(size),
        "piece": bytes_text(facts["piece"]),
        "validator": ", ".join(tags) or "none",
        "digest": facts["checksum"] or "none given",
        "created": _date(facts["created"]),
        "done": _exactly(done) + (f", {done / size:.1%}" if size else ""),
    }
    for name, value in rows.items():
        yield f"{name:<11}{value}"
    if not facts["part_exists"]:
        yield f"{'part':<11}is missing: the download would start over"
    if facts["damaged"]:
        yield f"{'damaged':<11}the end of the manifest is torn; it will be cut there"
    if size:
        columns = _columns()
        # A cell that stands for less than a byte would be drawn for nothing.
        count = min(columns * _MAP_ROWS, max(columns, -(-size // facts["piece"])))
        drawn = cells(sorted(loaded.pieces.ranges()), size, min(count, size))
        yield ""
        for start in range(0, len(drawn), columns):
            yield drawn[start : start + columns]


def _date(seconds: float) -> str:
    """Write a moment in local time; one beyond the calendar as what it is."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(seconds))
    except (OSError, OverflowError, ValueError):
        return f"{seconds:g} s after 1970"


def _exactly(count: int) -> str:
    return f"{bytes_text(count)} ({count} bytes)"


def _columns() -> int:
    import shutil

    return max(_MIN_COLUMNS, min(_MAX_COLUMNS, shutil.get_terminal_size().columns - 1))


def cells(ranges: Iterable[tuple[int, int]], size: int, count: int) -> str:
    """
    Draw a file as cells of equal width.

    Args:
        ranges: (offset, length) of what is done, in order, without overlaps.
        size: Complete length in bytes, 1 or more.
        count: Number of cells, 1 - size.

    Returns:
        A character for each cell: done, in part, or missing.
    """
    borders = [index * size // count for index in range(count + 1)]
    held = [0] * count
    for offset, length in ranges:
        end = offset + length
        cell = offset * count // size
        # The border before may lie further on: it was rounded down.
        while borders[cell + 1] <= offset:
            cell += 1
        while cell < count and borders[cell] < end:
            inside = min(end, borders[cell + 1]) - max(offset, borders[cell])
            held[cell] += inside
            cell += 1
    return "".join(
        DONE if bytes_held == high - low else PARTLY if bytes_held else MISSING
        for bytes_held, low, high in zip(held, borders, borders[1:], strict=False)
    )
