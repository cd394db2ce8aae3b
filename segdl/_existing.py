"""A file that has the final name already: what forbids to use or replace it."""

from __future__ import annotations

from segdl import _fs
from segdl._manifest import is_manifest
from segdl._names import MANIFEST_SUFFIX, PART_SUFFIX
from segdl.errors import DestinationExists


def check_finished(directory: _fs.Directory, name: str, *, reuse: bool) -> None:
    """
    Refuse a destination that is a file of an unfinished download.

    Such files have their full length from the beginning.

    Args:
        directory: It is in.
        name: Of the destination.
        reuse: It may be used as it is; else it is to be replaced.

    Raises:
        DestinationExists: It is the part or manifest of another download of ours, or
            what aria2 left, which may be replaced.
    """
    signs = []
    for suffix in (PART_SUFFIX, MANIFEST_SUFFIX):
        manifest = name.removesuffix(suffix) + MANIFEST_SUFFIX
        if name.endswith(suffix) and is_manifest(directory, manifest):
            signs.append(manifest)
        elif name.endswith(PART_SUFFIX) and _fs.get_mark(directory.path_of(name)):
            signs.append(name)  # its mark
    if reuse and directory.exists(f"{name}.aria2"):
        signs.append(f"{name}.aria2")
    if signs:
        raise DestinationExists(
            f"{directory.path_of(name)} is of a download that is not finished, as "
            f"{directory.path_of(signs[0])} shows (finish or remove that one, or save "
            "under another name)"
        )


def check_flushed(directory: _fs.Directory, name: str) -> None:
    """
    Refuse a file that lost bytes in a power cut, as far as that shows.

    For durability "none", which flushes nothing. With the others no published file
    loses anything; and file systems that compress may show zeros as holes.

    Raises:
        DestinationExists: It has a hole.
    """
    if directory.has_hole(name):
        raise DestinationExists(
            f"{directory.path_of(name)} exists, and bytes in it were never written: a "
            "power cut may have taken them (give a checksum to have it compared, or "
            "choose on_exists: overwrite or rename)"
        )
