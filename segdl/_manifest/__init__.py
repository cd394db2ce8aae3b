"""NAME.segdl, the sidecar that says which pieces of NAME.part can be trusted.

    5d1fc0a2 {"t":"H","format":1,"size":…}     header: what is downloaded, to which file
    90c1b3e7 {"t":"R","boot":…,"pid":…}        run: who wrote the records that follow
    1b2a3c4d {"t":"P","o":0,"n":…,"x":…}       piece: offset, length, XXH3-64
    77aa0b1c {"t":"P","o":8388608,…}
    0c9d8e7f {"t":"C","n":2}                   checkpoint: the first 2 are on the disk
    3e4f5a6b {"t":"X"}                         restart: forget the pieces; H, R follow

A text log with one writer, the parent, which holds the lock of the part file: a record
a line, `crc32 SP json LF`, at most 4096 bytes. Records are only appended, so a record
once written cannot be lost by writing the next. What a crash tears is the tail: it is
read up to the first bad line and cut there.

`_records` has the records and their lines, `_load` reads a log, `_store` writes it.

A piece's record is appended after the last write of the piece returned, and nothing is
flushed for it: a killed process loses no page cache. A power cut does, hence
`needs_verification`:

    hole in the piece?  ──yes──> verify its checksum    (a lost piece shows as a hole)
    under a checkpoint? ──yes──> accept                 (data flushed, then the record)
    shares a block?     ──yes──> verify its checksum    (half a lost block is no hole)
    run of this boot?   ──yes──> accept                 (no power cut since)
                        ──no───> verify its checksum

What a crash can leave, and what it means:

    part with a mark             a file of one piece, which has no manifest: begun anew
    part, no manifest            died while creating; a part without blocks is untouched
    temporary file               died while creating or compacting: replaced next time
    manifest + part              resume
    manifest + part + NAME,      died inside of publish (part and NAME are one inode):
      one inode                    finish it
    manifest, no part, NAME has  died after publish: remove the manifest, done
      the header's (dev, ino)
    manifest, no part            somebody removed the part: start over
    manifest empty, or zeros     power cut, nothing was flushed: start over, if all is
                                   private and has one name, else refuse

The file is input like any other: whoever can write it can lie about checksums, but
cannot make it crash segdl, exhaust memory, or reach outside of the file's size.
"""

from __future__ import annotations

from segdl._manifest._load import (
    LoadedManifest,
    find_manifests,
    is_blank,
    is_manifest,
    load,
    needs_verification,
    parse,
)
from segdl._manifest._records import Header, Piece, PieceTable, Run, url_digest
from segdl._manifest._store import Manifest, count_created

__all__ = [
    "Header",
    "LoadedManifest",
    "Manifest",
    "Piece",
    "PieceTable",
    "Run",
    "count_created",
    "find_manifests",
    "is_blank",
    "is_manifest",
    "load",
    "needs_verification",
    "parse",
    "url_digest",
]
