"""What earlier runs left in a directory, without going on with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from segdl import _fs
from segdl._manifest import Header, find_manifests, load, url_digest
from segdl._names import (
    MANIFEST_SUFFIX,
    PART_SUFFIX,
    SafeName,
    checked_name,
    sidecar_names,
)
from segdl._store import Store
from segdl.errors import ManifestError, SegdlError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """
    A part file with a manifest beside it.

    Args:
        name: Of the destination.
        found: The manifest's header, or why it can't be used.
    """

    name: str
    found: Header | SegdlError

    @property
    def url(self) -> str:
        """Where it came from, as far as that is known."""
        return self.found.url if isinstance(self.found, Header) else ""

    def usable(self) -> Header:
        """
        Give what is needed to go on.

        Raises:
            UsageError: The URL is not known whole.
            ManifestError, StorageError: The manifest can't be used.
        """
        if not isinstance(self.found, Header):
            raise self.found
        if url_digest(self.found.url) != self.found.url_sha256:
            raise UsageError(
                f"the URL of {self.name} is not known whole: a query is never stored; "
                "give the URL again to go on with what is there"
            )
        return self.found


def unfinished(directory: Path) -> Iterator[Unfinished]:
    """
    Find what earlier runs left in a directory, in order of its names.

    Raises:
        StorageError: The directory can't be read.
    """
    with _fs.Directory.open(directory, create=False) as opened:
        for manifest_name in find_manifests(directory):
            name = manifest_name.removesuffix(MANIFEST_SUFFIX)
            if not opened.exists(name + PART_SUFFIX):
                continue
            try:
                header = load(opened, manifest_name).header
                check_named(header, manifest_name)
            except SegdlError as error:
                yield Unfinished(name=name, found=error)
            else:
                yield Unfinished(name=header.name, found=header)


def check_named(header: Header, manifest_name: str) -> None:
    """Raise `ManifestError` when a manifest has another download's name."""
    own_name = sidecar_names(checked_name(header.name))[1]
    if own_name != manifest_name:
        raise ManifestError(
            f"{manifest_name} is of a download of {header.name}: its name was changed "
            f"(rename it to {own_name} to go on, and its part file likewise)"
        )


def discard_unfinished(directory: str, name: SafeName, identity: str) -> None:
    """
    Remove the part and manifest that earlier runs of a URL left under a name.

    Args:
        directory: Where they are.
        name: Of the destination.
        identity: The URL, or what stands for it: see `Request.identity`.

    Raises:
        StorageError: They can't be removed.
    """
    if not Path(directory).is_dir():
        return
    store = Store(directory, "none")
    try:
        found = store.look(name)
        if found is not None and found.header.url_sha256 == url_digest(identity):
            store.discard()
    finally:
        store.close()
