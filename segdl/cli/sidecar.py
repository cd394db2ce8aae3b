"""Finding a manifest by any of the three names of its download."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segdl import _fs
from segdl._manifest import load
from segdl._names import MANIFEST_SUFFIX, PART_SUFFIX, checked_name, sidecar_names
from segdl.errors import ManifestError

if TYPE_CHECKING:
    from segdl._manifest import LoadedManifest

__all__ = ["Sidecar"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """
    Where a manifest and its part file are.

    Args:
        directory: Absolute path.
        manifest: Name of the manifest, which is there.
        part: Name of the part file, there or not.
    """

    directory: str
    manifest: str
    part: str

    @classmethod
    def find(cls, path: str) -> Sidecar:
        """
        Find the manifest of a download.

        Args:
            path: Of the destination, of the part file, or of the manifest itself.

        Raises:
            ManifestError: There is none.
        """
        directory, name = os.path.split(os.path.abspath(path))
        for suffix in (MANIFEST_SUFFIX, PART_SUFFIX):
            if name.endswith(suffix) and len(name) > len(suffix):
                stem = name.removesuffix(suffix)
                names = (stem + PART_SUFFIX, stem + MANIFEST_SUFFIX)
                if os.path.isfile(os.path.join(directory, names[1])):
                    return cls(directory=directory, part=names[0], manifest=names[1])
        part, manifest = sidecar_names(checked_name(name))
        if os.path.isfile(os.path.join(directory, manifest)):
            return cls(directory=directory, part=part, manifest=manifest)
        if os.path.exists(path):
            raise ManifestError(
                f"{path} has no manifest beside it: it is complete, or not segdl's"
            )
        raise ManifestError(f"there is no unfinished download {path}")

    def load(self) -> LoadedManifest:
        """
        Read the manifest; nothing is changed or locked.

        Raises:
            ManifestError: It can't be used.
            StorageError: It can't be read.
        """
        with _fs.Directory.open(self.directory, create=False) as opened:
            return load(opened, self.manifest)
