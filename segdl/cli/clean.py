"""`segdl clean`: list, and with --yes remove, what unfinished downloads left.

    NAME.segdl, a good manifest ──┬─ NAME.part, and we get its lock ──> "download"
                                  ├─ NAME.part, locked ──> an engine is at it: skipped
                                  └─ no part ────────────> "manifest"
    *.part without a manifest ──┬─── private, no block ──> "empty part"
                                └─── marked as segdl's ──> "small part"
    .segdl-*.tmp ─────────────────── private ────────────> "temporary"

A part that holds data and has neither a manifest of ours beside it nor a mark may be
anybody's, and is never touched. What is removed was locked first, and is removed under
the lock.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from errno import ENOENT
from typing import TYPE_CHECKING

from segdl import _fs
from segdl._manifest import load
from segdl._names import MANIFEST_SUFFIX, PART_SUFFIX, SafeName, sidecar_names
from segdl.cli.arguments import path_argument
from segdl.cli.exit_codes import OK
from segdl.cli.units import bytes_text
from segdl.errors import (
    DestinationBusy,
    DestinationExists,
    ManifestError,
    SegdlError,
    StorageError,
)

if TYPE_CHECKING:
    import argparse

    from segdl._manifest import LoadedManifest
    from segdl.cli.console import Console

__all__ = ["Orphan", "add_arguments", "find_orphans", "remove", "run"]

_TEMPORARY = re.compile(r"\.segdl-[0-9a-f]{16}\.tmp")
_BLOCK_BYTES = 512  # of st_blocks, whatever the file system's own blocks are


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `segdl clean`."""
    add = parser.add_argument
    add(
        "directory",
        type=path_argument,
        metavar="DIR",
        help="to look into; its own files, not deeper",
    )
    add("--yes", action="store_true", help="remove them")
    add("-q", "--quiet", action="store_true", help="no output but errors")
    add("--json", action="store_true", help="as one JSON object")


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """
    What a download that does not run left.

    Args:
        kind: "download", "manifest", "empty part", "small part" or "temporary".
        names: Of its files, in the order in which they are to be removed.
        bytes: That they take on the disk.
        url: Where the download came from, None where that is not known.
        done: Bytes of it that are recorded.
        size: Complete length of it, None where that is not known.
    """

    kind: str
    names: tuple[str, ...]
    bytes: int
    url: str | None = None
    done: int = 0
    size: int | None = None


def run(args: argparse.Namespace, console: Console) -> int:
    """List or remove; give the exit code."""
    with _fs.Directory.open(args.directory, create=False) as directory:
        orphans = [
            orphan
            for orphan in find_orphans(directory)
            if not args.yes or remove(directory, orphan)
        ]
    total = sum(orphan.bytes for orphan in orphans)
    if args.json:
        console.result(_json(directory.path, orphans, removed=args.yes))
    elif not args.quiet:
        for orphan in orphans:
            console.result(_line(orphan))
        verb = "removed" if args.yes else "found"
        hint = "" if args.yes or not orphans else "; --yes removes them"
        count = f"{len(orphans)} orphan{'' if len(orphans) == 1 else 's'}"
        console.note(f"{verb} {count}, {bytes_text(total)}{hint}")
    return OK


def _line(orphan: Orphan) -> str:
    text = f"{bytes_text(orphan.bytes):>10}  {orphan.kind:<10}  {orphan.names[0]}"
    if orphan.kind == "download" and orphan.size:
        text += f"  ({orphan.done / orphan.size:.0%} of {bytes_text(orphan.size)})"
    return text


def _json(path: str, orphans: list[Orphan], *, removed: bool) -> str:
    import json
    from dataclasses import asdict

    found = [asdict(orphan) for orphan in orphans]
    return json.dumps({"directory": path, "removed": removed, "orphans": found})


def find_orphans(directory: _fs.Directory) -> Iterator[Orphan]:
    """
    Find what can be removed; nothing is changed.

    Args:
        directory: To look into.

    Raises:
        StorageError: It can't be listed.
    """
    names = set(directory.names())
    busy: set[str] = set()
    for name in sorted(names):
        if name.endswith(MANIFEST_SUFFIX):
            part = name.removesuffix(MANIFEST_SUFFIX) + PART_SUFFIX
            yield from _of_manifest(directory, name, part, busy)
    for name in sorted(names):
        manifest = name.removesuffix(PART_SUFFIX) + MANIFEST_SUFFIX
        if name.endswith(PART_SUFFIX) and manifest not in names:
            yield from _of_lone_part(directory, name, busy)
    # The temporary file of an engine that is writing its manifest just now is its own.
    in_use = {
        _fs.temporary_name(part.removesuffix(PART_SUFFIX) + MANIFEST_SUFFIX)
        for part in busy
    }
    for name in sorted(names - in_use):
        if _TEMPORARY.fullmatch(name) and _is_private(directory, name):
            yield Orphan(kind="temporary", names=(name,), bytes=_taken(directory, name))


def _of_manifest(
    directory: _fs.Directory, name: str, part: str, busy: set[str]
) -> Iterator[Orphan]:
    loaded = _manifest_of(directory, name)
    if loaded is None:
        return
    header = loaded.header
    held = directory.exists(part)
    if held and not _is_idle(directory, part, header.name):
        busy.add(part)
        return
    names = (part, name) if held else (name,)
    yield Orphan(
        kind="download" if held else "manifest",
        names=names,
        bytes=sum(_taken(directory, each) for each in names),
        url=header.url or None,
        done=loaded.pieces.total_bytes(),
        size=header.size,
    )


def _of_lone_part(
    directory: _fs.Directory, name: str, busy: set[str]
) -> Iterator[Orphan]:
    marked = _fs.get_mark(directory.path_of(name)) is not None
    if not (marked or _is_private(directory, name)):
        return
    final = name.removesuffix(PART_SUFFIX) if marked else None
    try:
        part = _fs.PartFile.open_existing(directory, name, final_name=final)
    except DestinationBusy:
        busy.add(name)
        return
    except StorageError:
        return
    is_empty = part.is_empty()
    part.close()  # before the caller removes it, which takes the lock again
    if marked:
        taken = _taken(directory, name)
        yield Orphan(kind="small part", names=(name,), bytes=taken)
    elif is_empty:
        yield Orphan(kind="empty part", names=(name,), bytes=0)


def remove(directory: _fs.Directory, orphan: Orphan) -> bool:
    """
    Remove an orphan, unless an engine took it up meanwhile.

    Args:
        directory: It is in.
        orphan: From `find_orphans`.

    Returns:
        Whether it was removed.

    Raises:
        StorageError: A file can't be removed.
    """
    if orphan.kind == "temporary":
        directory.unlink(orphan.names[0])
        return True
    manifest = orphan.names[-1]
    if orphan.kind == "manifest":
        return _remove_manifest(directory, manifest)
    return _remove_part(directory, orphan)


def _remove_manifest(directory: _fs.Directory, name: str) -> bool:
    # A part file is the lock: an engine may be about to begin here.
    try:
        part = _fs.PartFile.create(
            directory, name.removesuffix(MANIFEST_SUFFIX) + PART_SUFFIX, 0
        )
    except (DestinationBusy, DestinationExists):
        return False
    try:
        if _manifest_of(directory, name) is None:
            return False
        directory.unlink(name)
    finally:
        part.remove()
        part.close()
    return True


def _remove_part(directory: _fs.Directory, orphan: Orphan) -> bool:
    final: str | None = None
    if orphan.kind == "download":
        loaded = _manifest_of(directory, orphan.names[-1])
        if loaded is None:
            return False
        final = loaded.header.name
    elif orphan.kind == "small part":
        final = SafeName(orphan.names[0].removesuffix(PART_SUFFIX))
    try:
        part = _fs.PartFile.open_existing(directory, orphan.names[0], final_name=final)
    except DestinationBusy:
        return False
    except StorageError as exc:
        if exc.errno == ENOENT:
            return False
        raise
    try:
        if orphan.kind == "empty part" and not part.is_empty():
            return False
        if orphan.kind == "small part" and part.mark_found is None:
            return False
        for name in orphan.names:
            directory.unlink(name)
    finally:
        part.close()
    return True


def _manifest_of(directory: _fs.Directory, name: str) -> LoadedManifest | None:
    """Read a manifest; None when it is not one of ours, for this very name."""
    try:
        loaded = load(directory, name)
    except (ManifestError, StorageError):
        return None
    own = sidecar_names(SafeName(loaded.header.name))[1]
    return loaded if own == name else None


def _is_idle(directory: _fs.Directory, part: str, final: str) -> bool:
    """Tell whether no engine has a part file, by taking its lock for a moment."""
    with suppress(SegdlError):
        _fs.PartFile.open_existing(directory, part, final_name=final).close()
        return True
    return False


def _is_private(directory: _fs.Directory, name: str) -> bool:
    """Tell whether it is a regular file, open to its owner alone, as segdl's are."""
    found = directory.stat(name)
    if found is None or not stat.S_ISREG(found.st_mode):
        return False
    return not hasattr(stat, "S_IRWXG") or not found.st_mode & 0o077


def _taken(directory: _fs.Directory, name: str) -> int:
    """Give the bytes a file takes on the disk: a part is sparse."""
    found = directory.stat(name)
    if found is None:
        return 0
    return int(getattr(found, "st_blocks", -(-found.st_size // 512))) * _BLOCK_BYTES
