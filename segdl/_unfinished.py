"""What earlier runs left in a directory, without going on with it."""

from __future__ import annotations

from pathlib import Path

from segdl import _fs
from segdl._manifest import Header, find_manifests, load
from segdl._names import SafeName, checked_name, sidecar_names
from segdl._store import Store, url_digest
from segdl.errors import SegdlError


def unfinished(directory: Path) -> list[Header]:
    """
    Find what earlier runs left in a directory, in order of its names.

    Raises:
        StorageError: The directory can't be read.
    """
    headers = []
    with _fs.Directory.open(directory, create=False) as opened:
        for manifest_name in find_manifests(directory):
            try:
                header = load(opened, manifest_name).header
            except SegdlError:
                continue  # not a manifest of ours, or damaged: nothing to go on with
            part_name, own_name = sidecar_names(checked_name(header.name))
            if own_name == manifest_name and opened.exists(part_name):
                headers.append(header)
    return headers


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
