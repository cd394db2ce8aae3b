"""Names in a directory: which one an earlier run of a URL left, and which are free."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

from segdl import _fs
from segdl._manifest import count_created, find_manifests, load
from segdl._names import SafeName, checked_name, sidecar_names
from segdl.errors import SegdlError, StorageError, UsageError

_MAX_RENAMES = 10_000

# A listing counts for so many times as long as it took: each file of a batch asks for
# one, and listing n names n times over would be most of the work on a large directory.
_KEPT_TIMES = 20
_MAX_KEPT = 64
_listings: dict[str, tuple[float, int, list[str]]] = {}
_lock = threading.Lock()


def name_left_by(directory: _fs.Directory, url_sha256: str) -> SafeName | None:
    """
    Find the name that an earlier run of the same URL is saving as.

    What another process left a moment ago may be missed, as it would have been a moment
    sooner. What this one left is not.
    """
    for manifest_name in _manifests(directory.path):
        try:
            header = load(directory, manifest_name).header
        except SegdlError:
            continue
        name = checked_name(header.name)
        if header.url_sha256 == url_sha256 and sidecar_names(name)[1] == manifest_name:
            return name
    return None


def _manifests(path: str) -> list[str]:
    """List the manifests in a directory, or give the last list of them."""
    begin, created = time.monotonic(), count_created()
    with _lock:
        until, at, names = _listings.get(path, (0.0, 0, []))
    if begin < until and at == created:
        return names
    names = find_manifests(Path(path))
    end = time.monotonic()
    with _lock:
        if len(_listings) >= _MAX_KEPT:
            _listings.clear()
        _listings[path] = (end + (end - begin) * _KEPT_TIMES, created, names)
    return names


def free_name(directory: _fs.Directory, name: SafeName) -> SafeName:
    """Find a name that is not taken: NAME, NAME.1, NAME.2, before the suffix."""
    return next(c for c in candidates(name) if is_free(directory, c, None))


def candidates(name: SafeName) -> Iterator[SafeName]:
    """Give NAME, NAME.1, and so on; `StorageError` when they come to an end."""
    path = Path(name)
    yield name
    for number in range(1, _MAX_RENAMES):
        try:
            yield checked_name(f"{path.stem}.{number}{path.suffix}")
        except UsageError as exc:
            raise StorageError(f"no free name beside {name}: {exc}") from exc
    raise StorageError(f"no free name beside {name}")


def is_free(directory: _fs.Directory, name: SafeName, url_sha256: str | None) -> bool:
    """
    Tell whether nobody has a name.

    Args:
        directory: It would be in.
        name: Of a destination.
        url_sha256: An unfinished download of this URL does not count.
    """
    part_name, manifest_name = sidecar_names(name)
    if directory.exists(manifest_name):
        try:
            header = load(directory, manifest_name).header
        except SegdlError:
            return False
        if header.url_sha256 != url_sha256:
            return False
    elif directory.exists(part_name):
        mark = _fs.get_mark(directory.path_of(part_name))
        if mark is None or mark != url_sha256:
            return False
    # At last, as a publish of another engine goes from the part to the name.
    return not directory.exists(name)
