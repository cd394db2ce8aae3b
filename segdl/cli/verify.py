"""`segdl verify`: compare a file with a digest, with a bar while it is read."""

from __future__ import annotations

import os
import stat
import time
from typing import TYPE_CHECKING

from segdl import _fs
from segdl._digests import new_hasher, parse_checksum
from segdl.cli.arguments import path_argument
from segdl.cli.display import Bar
from segdl.cli.exit_codes import OK
from segdl.errors import IntegrityError, StorageError

if TYPE_CHECKING:
    import argparse

    from segdl._digests import Hasher
    from segdl.cli.console import Console

__all__ = ["add_arguments", "run"]

_READ_BYTES = 1 << 20
_DRAW_SECONDS = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `segdl verify`."""
    add = parser.add_argument
    add("file", type=path_argument, metavar="FILE", help="to be verified")
    add("--checksum", required=True, metavar="ALGO:HEX", help="what it should have")
    add("-q", "--quiet", action="store_true", help="no output but errors")
    add("--no-progress", action="store_true", help="no bar")


def run(args: argparse.Namespace, console: Console) -> int:
    """Hash a file; give the exit code, or raise what is wrong with it."""
    digest = parse_checksum(args.checksum)
    hasher = new_hasher(digest.algorithm)
    # The user named the file, so a link to it is meant; the reader takes none.
    path = os.path.realpath(args.file)
    size = _size(path, args.file)
    bar = None
    if not args.quiet and not args.no_progress:
        bar = Bar(console, os.path.basename(args.file), size)
    try:
        _hash(path, size, hasher, bar)
    finally:
        if bar is not None:
            bar.clear()
    actual = hasher.hexdigest()
    if actual != digest.hex:
        raise IntegrityError(
            f"{args.file}: its {digest.algorithm} is {actual}, expected {digest.hex}",
            algorithm=digest.algorithm,
            expected=digest.hex,
            actual=actual,
        )
    if not args.quiet:
        console.result(f"{args.file}: {digest.algorithm} OK")
    return OK


def _size(path: str, shown: str) -> int:
    try:
        found = os.stat(path)
    except OSError as exc:
        raise _fs.storage_error(exc, f"read {shown}") from exc
    if not stat.S_ISREG(found.st_mode):
        raise StorageError(f"{shown} is not a regular file; name one")
    return found.st_size


def _hash(path: str, size: int, hasher: Hasher, bar: Bar | None) -> None:
    buffer = memoryview(bytearray(_READ_BYTES))
    reader = _fs.PartReader(path)
    try:
        offset, drawn = 0, time.monotonic()
        while offset < size:
            count = reader.pread(buffer[: size - offset], offset)
            hasher.update(buffer[:count])
            offset += count
            now = time.monotonic()
            if bar is not None and now - drawn >= _DRAW_SECONDS:
                drawn = now
                bar.draw(offset)
    finally:
        reader.close()
