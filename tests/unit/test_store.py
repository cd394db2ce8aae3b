"""The files of one download: every state that a crash can leave, and what follows."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import xxhash

from segdl import _fs, _left_names, _store
from segdl._destination import new_header
from segdl._headers import EntityTag, Validator
from segdl._left_names import free_name, name_left_by
from segdl._manifest import Header, Piece, url_digest
from segdl._names import SafeName, checked_name, sidecar_names
from segdl._store import Store
from segdl._unfinished import discard_unfinished, unfinished
from segdl.errors import (
    DestinationBusy,
    DestinationExists,
    DiskFull,
    ManifestError,
    StorageError,
)

NAME = checked_name("a.bin")
PART, MANIFEST = "a.bin.part", "a.bin.segdl"
URL = "https://example.org/a.bin?token=s3cret"
KIB = 1024
PIECE = 64 * KIB
SIZE = 4 * PIECE
CONTENT = b"".join(bytes([n]) * PIECE for n in range(1, 5))

OpenStore = Callable[..., Store]


def header(
    name: SafeName = NAME,
    size: int | None = SIZE,
    url: str = URL,
    digest: str | None = None,
) -> Header:
    """Give the header of a file of four pieces."""
    return new_header(
        name=name,
        size=size,
        piece=PIECE,
        validator=Validator(etag=EntityTag("v1", weak=False)),
        url=url,
        url_sha256=url_digest(url),
        digest=digest,
    )


def piece(number: int) -> Piece:
    """Give the record of a piece."""
    data = CONTENT[number * PIECE : (number + 1) * PIECE]
    return Piece(number * PIECE, PIECE, xxhash.xxh3_64_hexdigest(data))


def write(store: Store, *numbers: int) -> None:
    """Write pieces, as a worker does, and record them."""
    assert store.part is not None
    with open(store.part.path, "r+b") as file:
        for number in numbers:
            file.seek(number * PIECE)
            file.write(CONTENT[number * PIECE : (number + 1) * PIECE])
    store.record([piece(number) for number in numbers])


def begun(open_store: OpenStore, *numbers: int) -> Store:
    """Give the store of a new download with some pieces."""
    store = open_store()
    assert store.look(NAME) is None
    store.create(header())
    write(store, *numbers)
    return store


def names(directory: Path) -> list[str]:
    """List a directory."""
    return sorted(os.listdir(directory))


def contents(directory: Path) -> dict[str, bytes]:
    """Read all files of a directory."""
    return {name: (directory / name).read_bytes() for name in names(directory)}


def foreign_manifest(directory: Path) -> None:
    """Put another engine's manifest in the place of one."""
    (directory / "other").write_bytes(b"theirs")
    (directory / "other").replace(directory / MANIFEST)


# --- the usual way --------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["none", "publish", "checkpoint"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_from_nothing_to_the_file(
    tmp_path: Path, open_store: OpenStore, durability: str, overwrite: bool
) -> None:
    """A file is made, written and published; then nothing but it is left."""
    store = open_store(durability)
    assert store.look(NAME) is None
    store.create(header())
    assert names(tmp_path) == [PART, MANIFEST]
    for name in names(tmp_path):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    write(store, 0, 1, 2, 3)
    assert store.publish(SIZE, overwrite=overwrite) == str(tmp_path / NAME)
    assert names(tmp_path) == [NAME]
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert store.published


def test_an_empty_file(tmp_path: Path, open_store: OpenStore) -> None:
    """A file without a byte is published like others."""
    store = open_store()
    store.look(NAME)
    store.create(header(size=0))
    store.publish(0, overwrite=False)
    assert (names(tmp_path), (tmp_path / NAME).read_bytes()) == ([NAME], b"")


def test_a_length_that_becomes_known(tmp_path: Path, open_store: OpenStore) -> None:
    """Without a length the part grows, and the file has what was written."""
    store = open_store()
    store.look(NAME)
    store.create(header(size=None))
    (tmp_path / PART).write_bytes(CONTENT[:1000])
    store.publish(1000, overwrite=False)
    assert (tmp_path / NAME).read_bytes() == CONTENT[:1000]


def test_no_secret_on_disk(tmp_path: Path, open_store: OpenStore) -> None:
    """The manifest tells a URL again without keeping its query."""
    begun(open_store, 0)
    for name in names(tmp_path):
        assert b"s3cret" not in (tmp_path / name).read_bytes()
    assert header().url_sha256 == url_digest(URL)
    assert header().url == "https://example.org/a.bin"


def test_the_directory_is_made(tmp_path: Path) -> None:
    """A directory that is missing is made, with its parents."""
    store = Store(str(tmp_path / "b" / "c"), "none")
    store.close()
    store.close()
    assert (tmp_path / "b" / "c").is_dir()


# --- the states that a crash leaves ---------------------------------------------------


def test_part_and_manifest(open_store: OpenStore) -> None:
    """What was recorded in this run of the system is accepted without reading it."""
    begun(open_store, 0, 2).close()
    found = open_store().look(NAME)
    assert found is not None
    assert found.header.url_sha256 == url_digest(URL)
    assert (found.accepted, found.doubtful) == ([piece(0), piece(2)], [])


def test_a_part_that_was_never_written(tmp_path: Path, open_store: OpenStore) -> None:
    """A part without manifest and without a block died early: it is made anew."""
    with _fs.Directory.open(tmp_path) as directory:
        _fs.PartFile.create(directory, PART, SIZE).close()
    store = open_store()
    assert store.look(NAME) is None
    assert names(tmp_path) == []
    store.create(header())
    assert names(tmp_path) == [PART, MANIFEST]


def test_a_part_with_somebodys_bytes(tmp_path: Path, open_store: OpenStore) -> None:
    """A part without manifest that holds data is refused, and not touched."""
    (tmp_path / PART).write_bytes(b"precious")
    (tmp_path / PART).chmod(0o600)
    store = open_store()
    with pytest.raises(DestinationExists, match="has no manifest"):
        store.look(NAME)
    store.discard()
    assert (tmp_path / PART).read_bytes() == b"precious"


@pytest.mark.parametrize("data", [b"precious", b""])
def test_a_part_of_another_program(
    tmp_path: Path,
    open_store: OpenStore,
    monkeypatch: pytest.MonkeyPatch,
    data: bytes,
) -> None:
    """A part that is open to others is not ours: it keeps its mode, even if empty."""
    monkeypatch.setattr("segdl._fs._part.current_umask", lambda: 0o022)
    (tmp_path / PART).write_bytes(data)
    (tmp_path / PART).chmod(0o644)
    os.truncate(tmp_path / PART, SIZE)
    store = open_store()
    with pytest.raises(DestinationExists, match="has no manifest"):
        store.look(NAME)
    store.discard()
    assert contents(tmp_path) == {PART: data.ljust(SIZE, b"\0")}
    assert stat.S_IMODE((tmp_path / PART).stat().st_mode) == 0o644


@pytest.mark.parametrize("told", [True, False])
def test_a_part_that_is_said_to_take_no_room(
    tmp_path: Path,
    open_store: OpenStore,
    monkeypatch: pytest.MonkeyPatch,
    told: bool,
) -> None:
    """Where a file system says 0 blocks, data counts, as does not knowing of any."""
    monkeypatch.setattr(_fs.PartFile, "blocks", lambda _self: 0)
    if not told:
        monkeypatch.delattr(os, "SEEK_DATA", raising=False)
    (tmp_path / PART).touch(0o600)
    (tmp_path / PART).write_bytes(b"precious" if told else b"")
    os.truncate(tmp_path / PART, SIZE)
    before = contents(tmp_path)
    store = open_store()
    with pytest.raises(DestinationExists, match="has no manifest"):
        store.look(NAME)
    store.discard()
    assert contents(tmp_path) == before


def test_a_manifest_that_was_being_made(tmp_path: Path, open_store: OpenStore) -> None:
    """A manifest's temporary file is no manifest, and does not stay."""
    begun(open_store).close()
    os.rename(tmp_path / MANIFEST, tmp_path / _fs.temporary_name(MANIFEST))
    store = open_store()
    assert store.look(NAME) is None
    store.create(header())
    write(store, 0, 1, 2, 3)
    store.publish(SIZE, overwrite=False)
    assert names(tmp_path) == [NAME]


@pytest.mark.parametrize("give", [os.link, os.rename])
def test_a_publish_cut_short(
    tmp_path: Path, open_store: OpenStore, give: Callable[[Path, Path], None]
) -> None:
    """One that died between link and unlink, or before its last step, is finished."""
    begun(open_store, 0, 1, 2, 3).close()
    give(tmp_path / PART, tmp_path / NAME)
    store = open_store()
    assert store.look(NAME) is None
    assert store.published_url_sha256 == url_digest(URL)
    assert names(tmp_path) == [NAME]
    assert (tmp_path / NAME).read_bytes() == CONTENT


@pytest.mark.parametrize("give", [os.rename, os.link])
def test_an_unfinished_part_with_the_final_name(
    tmp_path: Path, open_store: OpenStore, give: Callable[[Path, Path], None]
) -> None:
    """It is not taken for the file, and goes on once the name is taken back."""
    begun(open_store, 0, 2).close()
    give(tmp_path / PART, tmp_path / NAME)
    before = contents(tmp_path)
    store = open_store()
    with pytest.raises(DestinationExists, match="that is not finished"):
        store.look(NAME)
    store.discard()
    assert contents(tmp_path) == before
    (tmp_path / NAME).rename(tmp_path / PART)
    (tmp_path / NAME).unlink(missing_ok=True)  # a rename to a link of itself is none
    found = open_store().look(NAME)
    assert found is not None
    assert found.accepted == [piece(0), piece(2)]


@pytest.mark.parametrize("give", [os.rename, os.link])
def test_a_publish_whose_records_were_lost(
    tmp_path: Path, open_store: OpenStore, give: Callable[[Path, Path], None]
) -> None:
    """A power cut that took the last records, but no data, left the whole file."""
    begun(open_store, 0, 1, 2, 3).close()
    give(tmp_path / PART, tmp_path / NAME)
    log = tmp_path / MANIFEST
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-2]))
    store = open_store()
    assert store.look(NAME) is None
    assert store.published_url_sha256 == url_digest(URL)
    assert contents(tmp_path) == {NAME: CONTENT}


def test_before_the_manifest_was_dropped(tmp_path: Path, open_store: OpenStore) -> None:
    """The part that is made to drop a lone manifest may be there, if cut short."""
    begun(open_store, 0, 1, 2, 3).close()
    os.rename(tmp_path / PART, tmp_path / NAME)
    (tmp_path / PART).touch(0o600)
    store = open_store()
    assert store.look(NAME) is None
    assert store.published_url_sha256 == url_digest(URL)
    assert contents(tmp_path) == {NAME: CONTENT}


@pytest.mark.parametrize("destination", [None, b"another file"])
def test_a_part_that_somebody_removed(
    tmp_path: Path, open_store: OpenStore, destination: bytes | None
) -> None:
    """Without its part a manifest says nothing; another file there is untouched."""
    begun(open_store, 0).close()
    (tmp_path / PART).unlink()
    if destination is not None:
        (tmp_path / NAME).write_bytes(destination)
    store = open_store()
    assert (store.look(NAME), store.published_url_sha256) == (None, None)
    assert names(tmp_path) == ([] if destination is None else [NAME])
    if destination is not None:
        assert (tmp_path / NAME).read_bytes() == destination


@pytest.mark.parametrize(
    "data", [b"\0" * 5000 + b"x", b"\n", b"00000000 {}\n", b"hello\n"]
)
def test_a_manifest_that_is_damaged(
    tmp_path: Path, open_store: OpenStore, data: bytes
) -> None:
    """With a manifest that can't be read the part is not trusted, nor removed."""
    begun(open_store, 0, 1).close()
    (tmp_path / MANIFEST).write_bytes(data)
    kept = (tmp_path / PART).read_bytes()
    store = open_store()
    with pytest.raises(DestinationExists, match=r"cannot be used: .*remove both"):
        store.look(NAME)
    assert names(tmp_path) == [PART, MANIFEST]
    assert (tmp_path / PART).read_bytes() == kept
    assert store.part is None


@pytest.mark.parametrize("data", [b"", b"\0" * 5000])
@pytest.mark.parametrize("odd", ["", "part", "manifest", "link"])
def test_a_manifest_that_is_blank(
    tmp_path: Path, open_store: OpenStore, data: bytes, odd: str
) -> None:
    """With nothing in the manifest all begins anew, where both files are segdl's."""
    begun(open_store, 0, 1).close()
    (tmp_path / MANIFEST).write_bytes(data)
    if odd == "link":
        (tmp_path / "other").hardlink_to(tmp_path / MANIFEST)
    elif odd:
        (tmp_path / (PART if odd == "part" else MANIFEST)).chmod(0o644)
    there = names(tmp_path)
    store = open_store()
    if odd:
        with pytest.raises(DestinationExists, match=r"cannot be used: .*remove both"):
            store.look(NAME)
        assert names(tmp_path) == there
        assert store.dropped is None
    else:
        assert store.look(NAME) is None
        assert names(tmp_path) == []
        assert "holds nothing" in (store.dropped or "")
        store.create(header())
        write(store, 0)


def test_a_blank_manifest_alone(tmp_path: Path, open_store: OpenStore) -> None:
    """What a removal that was cut short leaves is removed."""
    begun(open_store, 0).close()
    (tmp_path / PART).unlink()
    (tmp_path / MANIFEST).write_bytes(b"")
    store = open_store()
    assert (store.look(NAME), store.dropped, names(tmp_path)) == (None, None, [])


def test_a_torn_record(tmp_path: Path, open_store: OpenStore) -> None:
    """A record that was cut is no record; those before it count."""
    begun(open_store, 0, 1).close()
    log = tmp_path / MANIFEST
    log.write_bytes(log.read_bytes()[:-5])
    store = open_store()
    found = store.look(NAME)
    assert found is not None
    assert found.accepted == [piece(0)]
    write(store, 1)
    store.close()
    found = open_store().look(NAME)
    assert found is not None
    assert found.accepted == [piece(0), piece(1)]


def test_a_file_of_another_program(tmp_path: Path, open_store: OpenStore) -> None:
    """A file that only has the manifest's name is neither used nor removed."""
    (tmp_path / MANIFEST).write_bytes(b"not ours\n")
    (tmp_path / MANIFEST).chmod(0o600)
    store = open_store()
    assert store.look(NAME) is None
    with pytest.raises(DestinationExists):
        store.create(header())
    assert names(tmp_path) == [MANIFEST]
    assert (tmp_path / MANIFEST).read_bytes() == b"not ours\n"


# --- what can be trusted --------------------------------------------------------------


def test_after_the_system_was_restarted(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was recorded before a restart of the system has to be compared."""
    begun(open_store, 0, 2).close()
    monkeypatch.setattr(_fs, "boot_id", lambda: "another")
    found = open_store().look(NAME)
    assert found is not None
    assert (found.accepted, found.doubtful) == ([], [piece(0), piece(2)])


def test_after_a_checkpoint(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a checkpoint covers is accepted after a restart of the system too."""
    store = begun(open_store, 0)
    covered = store.recorded
    write(store, 2)
    store.checkpoint(covered)
    store.close()
    store.checkpoint(covered)
    assert store.recorded == 0
    monkeypatch.setattr(_fs, "boot_id", lambda: "another")
    found = open_store().look(NAME)
    assert found is not None
    assert (found.accepted, found.doubtful) == ([piece(0)], [piece(2)])


def test_a_hole_in_a_recorded_piece(tmp_path: Path, open_store: OpenStore) -> None:
    """A piece that the disk lost shows as a hole, and has to be compared."""
    store = begun(open_store, 0, 1)
    store.close()
    with open(tmp_path / PART, "r+b") as file:
        file.truncate(PIECE)
        file.truncate(SIZE)
    found = open_store().look(NAME)
    assert found is not None
    if not found.doubtful:
        pytest.skip("this file system does not tell its holes")
    assert (found.accepted, found.doubtful) == ([piece(0)], [piece(1)])


def test_a_hole_is_not_published(tmp_path: Path, open_store: OpenStore) -> None:
    """A part that was cut, and written on, has its size again, but not its bytes."""
    store = begun(open_store, 0, 1)
    os.truncate(tmp_path / PART, 0)
    write(store, 2, 3)
    assert (tmp_path / PART).stat().st_size == SIZE
    assert store.part is not None
    if not store.part.has_hole(0, SIZE):
        pytest.skip("this file system does not tell its holes")
    with pytest.raises(StorageError, match="lost what was written at 0"):
        store.publish(SIZE, overwrite=False)
    assert names(tmp_path) == [PART, MANIFEST]


@pytest.mark.parametrize(
    "flush",
    [
        lambda store: store.checkpoint(4),
        lambda store: store.publish(SIZE, overwrite=False),
    ],
    ids=["checkpoint", "publish"],
)
def test_a_failed_flush(
    open_store: OpenStore,
    monkeypatch: pytest.MonkeyPatch,
    flush: Callable[[Store], None],
) -> None:
    """What was not flushed before has to be compared, though the boot is the same."""
    store = begun(open_store, 0)
    store.durability = "publish"
    store.checkpoint(1)
    write(store, 1, 2, 3)

    def refuse(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", refuse)
        with pytest.raises(StorageError, match="Input/output error"):
            flush(store)
    store.close()
    found = open_store().look(NAME)
    assert found is not None
    assert found.accepted == [piece(0)]
    assert found.doubtful == [piece(1), piece(2), piece(3)]


@pytest.mark.parametrize("mode", [0o644, 0o664])
def test_a_publish_that_had_set_the_mode(
    tmp_path: Path, open_store: OpenStore, mode: int
) -> None:
    """Cut short before the name, the part is private again, and compared if need be."""
    before = os.umask(0o666 & ~mode)
    try:
        begun(open_store, 0).close()
        (tmp_path / PART).chmod(mode)
        found = open_store().look(NAME)
    finally:
        os.umask(before)
    assert found is not None
    kept = [piece(0)]
    assert (found.accepted, found.doubtful) == (
        ([], kept) if mode & 0o022 else (kept, [])
    )
    assert stat.S_IMODE((tmp_path / PART).stat().st_mode) == 0o600


def test_files_that_were_copied(tmp_path: Path, open_store: OpenStore) -> None:
    """A part that is another file now has to be compared, whatever is recorded."""
    begun(open_store, 0, 1).close()
    copy = tmp_path / "copy"
    copy.touch(0o600)
    copy.write_bytes((tmp_path / PART).read_bytes())
    copy.replace(tmp_path / PART)
    for _ in range(2):  # the first look does not make them right
        store = open_store()
        found = store.look(NAME)
        assert found is not None
        assert (found.accepted, found.doubtful) == ([], [piece(0), piece(1)])
        write(store, 2)
        store.forget([(2 * PIECE, PIECE)])
        store.close()
    store = open_store()
    store.look(NAME)
    write(store, 2, 3)
    assert store.manifest is not None
    store.manifest.close()
    store.manifest = None  # the publish is cut short
    store.publish(SIZE, overwrite=False)
    store = open_store()
    assert store.look(NAME) is None
    assert store.published_url_sha256 is not None


@pytest.mark.parametrize("size", [SIZE - 1, SIZE + 1, 0])
def test_a_part_of_another_length(
    tmp_path: Path, open_store: OpenStore, size: int
) -> None:
    """Nothing is trusted in a part that something else has cut or lengthened."""
    begun(open_store, 0).close()
    os.truncate(tmp_path / PART, size)
    found = open_store().look(NAME)
    assert found is not None
    assert (found.accepted, found.doubtful) == ([], [])


def test_a_part_without_a_length(open_store: OpenStore) -> None:
    """A stream whose length was not known is not gone on with."""
    store = open_store()
    store.look(NAME)
    store.create(header(size=None))
    store.close()
    found = open_store().look(NAME)
    assert found is not None
    assert (found.accepted, found.doubtful) == ([], [])


def test_pieces_that_proved_wrong(open_store: OpenStore) -> None:
    """
    A piece that is forgotten can be recorded again; others stay.

    It has to be verified then: where bad bytes are on the disk, losing the new ones
    leaves no hole.
    """
    store = begun(open_store, 0, 1, 2)
    assert store.forget([(PIECE, PIECE)]) == [piece(1)]
    assert store.forget([(PIECE, PIECE)]) == []
    write(store, 1)
    store.close()
    found = open_store().look(NAME)
    assert found is not None
    assert found.accepted == [piece(0), piece(2)]
    assert found.doubtful == [piece(1)]


def test_another_representation(tmp_path: Path, open_store: OpenStore) -> None:
    """A restart forgets all pieces before a byte of the new version is written."""
    store = begun(open_store, 0, 1)
    store.restart(header(size=2 * PIECE))
    assert (tmp_path / PART).stat().st_size == 2 * PIECE
    assert (tmp_path / PART).read_bytes() == bytes(2 * PIECE)
    store.close()
    found = open_store().look(NAME)
    assert found is not None
    assert (found.header.size, found.accepted, found.doubtful) == (2 * PIECE, [], [])


def test_restart_as_a_stream(open_store: OpenStore) -> None:
    """A part begun again without a known length grows: it was not changed by others."""
    store = begun(open_store, 0)
    store.restart(header(size=None))
    assert store.part is not None
    os.pwrite(store.part.fd, b"x" * 100, 0)
    store.checkpoint(0)
    assert store.part.size == 100


# --- two at a time --------------------------------------------------------------------


def test_another_engine(open_store: OpenStore) -> None:
    """A file that another engine is at is refused, and not harmed."""
    first = begun(open_store, 0)
    second = open_store()
    with pytest.raises(DestinationBusy):
        second.look(NAME)
    second.discard()
    write(first, 1, 2, 3)
    first.publish(SIZE, overwrite=False)


def test_a_release_lets_others_go_on(open_store: OpenStore) -> None:
    """After a release the next one takes up what is there."""
    store = begun(open_store, 0)
    store.release()
    store.record([piece(1)])
    found = open_store().look(NAME)
    assert found is not None
    assert found.accepted == [piece(0)]


def test_a_manifest_that_was_replaced(tmp_path: Path, open_store: OpenStore) -> None:
    """What another engine put in the place of a manifest is not removed."""
    store = begun(open_store, 0)
    foreign_manifest(tmp_path)
    store.discard()
    assert contents(tmp_path) == {MANIFEST: b"theirs"}


@pytest.mark.parametrize("size", [SIZE, 0])
def test_an_engine_that_begins_while_another_publishes(
    tmp_path: Path, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """As soon as the part has the final name, the others may belong to the next."""
    store = open_store()
    store.look(NAME)
    store.create(header(size=size))
    if size:
        write(store, 0, 1, 2, 3)
    publish = _fs.PartFile.publish

    def followed(part: _fs.PartFile, *args: str, **keys: bool | str) -> None:
        publish(part, *args, **keys)  # type: ignore[arg-type]
        foreign_manifest(tmp_path)

    monkeypatch.setattr(_fs.PartFile, "publish", followed)
    store.publish(size, overwrite=True)
    assert contents(tmp_path) == {NAME: CONTENT[:size], MANIFEST: b"theirs"}


def test_a_part_that_its_engine_publishes_just_now(
    tmp_path: Path, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was there a moment ago: nothing is left to go on with, which is no error."""
    other = begun(open_store, 0, 1, 2, 3)
    opened = _fs.PartFile.open_existing

    def late(directory: _fs.Directory, name: str, **options: str | None) -> object:
        if not other.published:
            other.publish(SIZE, overwrite=False)
        return opened(directory, name, **options)

    monkeypatch.setattr(_fs.PartFile, "open_existing", late)
    assert open_store().look(NAME) is None
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_a_lone_manifest_that_its_engine_removes_just_now(
    tmp_path: Path, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that has published frees the part's name first."""
    left = tmp_path / sidecar_names(NAME)[1]
    left.write_bytes(b"")
    load = _store.load

    def late(directory: _fs.Directory, name: str) -> object:
        left.unlink()
        return load(directory, name)

    monkeypatch.setattr(_store, "load", late)
    assert open_store().look(NAME) is None
    assert list(tmp_path.iterdir()) == []


def test_an_engine_that_begins_at_a_lone_manifest(
    tmp_path: Path, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that comes first has the part: its manifest is not dropped as a lone one."""
    begun(open_store, 0)
    exists, answers = _fs.Directory.exists, [False]
    monkeypatch.setattr(
        _fs.Directory,
        "exists",
        lambda self, name: (
            answers.pop() if name == PART and answers else exists(self, name)
        ),
    )
    before = contents(tmp_path)
    store = open_store()
    with pytest.raises(DestinationExists):
        store.look(NAME)
    answers.append(False)
    assert store.look_free(NAME, url_digest(URL)) is None
    assert (answers, store.name) == ([], "a.1.bin")
    assert contents(tmp_path) == before


# --- publishing -----------------------------------------------------------------------


def test_a_destination_that_appeared(tmp_path: Path, open_store: OpenStore) -> None:
    """A file that has the name by now stays, and so does the part."""
    store = begun(open_store, 0, 1, 2, 3)
    (tmp_path / NAME).write_bytes(b"quicker")
    with pytest.raises(DestinationExists):
        store.publish(SIZE, overwrite=False)
    assert not store.published
    store.close()
    assert (tmp_path / NAME).read_bytes() == b"quicker"
    found = open_store().look(NAME)
    assert found is not None
    assert len(found.accepted) == 4


def test_overwriting(tmp_path: Path, open_store: OpenStore) -> None:
    """A destination is replaced at the end, and not before."""
    (tmp_path / NAME).write_bytes(b"old")
    store = begun(open_store, 0, 1, 2, 3)
    assert store.size_of_existing() == 3
    assert (tmp_path / NAME).read_bytes() == b"old"
    store.publish(SIZE, overwrite=True)
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_a_part_that_was_replaced(tmp_path: Path, open_store: OpenStore) -> None:
    """A file that was put in the part's place is never published."""
    store = begun(open_store, 0, 1, 2, 3)
    (tmp_path / PART).unlink()
    (tmp_path / PART).write_bytes(b"evil")
    with pytest.raises(StorageError, match="replaced"):
        store.publish(SIZE, overwrite=False)
    assert not (tmp_path / NAME).exists()


def test_set_aside(tmp_path: Path, open_store: OpenStore) -> None:
    """A part with wrong content is kept under another name, each of several."""
    for expected in ("a.bin.corrupt", "a.bin.1.corrupt"):
        store = begun(open_store, 0)
        assert store.set_aside() == str(tmp_path / expected)
        store.close()
    assert names(tmp_path) == ["a.bin.1.corrupt", "a.bin.corrupt"]
    assert (tmp_path / "a.bin.corrupt").stat().st_size == SIZE


# --- giving up ------------------------------------------------------------------------


def test_discard(tmp_path: Path, open_store: OpenStore) -> None:
    """A download that is given up leaves nothing, and no other file is touched."""
    (tmp_path / NAME).write_bytes(b"old")
    store = begun(open_store, 0)
    store.discard()
    store.discard()
    assert names(tmp_path) == [NAME]


def test_discard_of_nothing(tmp_path: Path, open_store: OpenStore) -> None:
    """Before there is a part, nothing is removed."""
    open_store().discard()
    assert names(tmp_path) == []


def test_discard_of_an_earlier_run(tmp_path: Path, open_store: OpenStore) -> None:
    """What a run of the URL left is removed; another URL's is not."""
    begun(open_store, 0).close()
    discard_unfinished(str(tmp_path), NAME, "https://example.org/other")
    assert names(tmp_path) == [PART, MANIFEST]
    discard_unfinished(str(tmp_path), NAME, URL)
    assert names(tmp_path) == []
    discard_unfinished(str(tmp_path), NAME, URL)
    discard_unfinished(str(tmp_path / "missing"), NAME, URL)
    assert names(tmp_path) == []


def test_discard_of_what_somebody_is_at(tmp_path: Path, open_store: OpenStore) -> None:
    """What another engine is at is not removed."""
    begun(open_store, 0)
    with pytest.raises(DestinationBusy):
        discard_unfinished(str(tmp_path), NAME, URL)
    assert names(tmp_path) == [PART, MANIFEST]


# --- errors of the disk ---------------------------------------------------------------


def test_too_little_space(
    tmp_path: Path, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that will not fit is refused before it is made."""
    monkeypatch.setattr(_fs.Directory, "free_bytes", lambda _self: SIZE - 1)
    store = open_store()
    store.look(NAME)
    with pytest.raises(DiskFull) as caught:
        store.create(header())
    assert caught.value.missing_bytes == 1
    assert names(tmp_path) == []


def test_space_that_is_taken_already(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a part holds already needs no more room."""
    store = begun(open_store, 0, 1, 2)
    monkeypatch.setattr(_fs.Directory, "free_bytes", lambda _self: PIECE)
    store.check_space(SIZE)
    with pytest.raises(DiskFull):
        store.check_space(SIZE + 4 * KIB)


def test_a_manifest_that_cannot_be_made(
    tmp_path: Path, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the manifest fails, no lone part is left."""

    def failing(*_args: object, **_kwargs: object) -> None:
        raise DiskFull("no room", errno=errno.ENOSPC)

    monkeypatch.setattr(_fs, "replace_atomically", failing)
    store = open_store()
    store.look(NAME)
    with pytest.raises(DiskFull):
        store.create(header())
    assert names(tmp_path) == []


def test_a_header_that_does_not_fit(tmp_path: Path, open_store: OpenStore) -> None:
    """A header too long for the manifest fails, and leaves nothing."""
    store = open_store()
    store.look(NAME)
    validator = Validator(etag=EntityTag("v" * 5000, weak=False))
    with pytest.raises(ManifestError):
        store.create(replace(header(), validator=validator))
    assert names(tmp_path) == []


# --- names ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("taken", "free"),
    [
        ([], "a.bin"),
        (["a.bin"], "a.1.bin"),
        (["a.bin", "a.1.bin"], "a.2.bin"),
        (["a.bin", "a.1.bin.part"], "a.2.bin"),
        (["a.bin", "a.1.bin.segdl"], "a.2.bin"),
        (["a.bin.part"], "a.1.bin"),
    ],
)
def test_free_name(
    tmp_path: Path, open_store: OpenStore, taken: list[str], free: str
) -> None:
    """A name counts as taken by the file, or by the files of a download to it."""
    for name in taken:
        (tmp_path / name).touch()
    assert free_name(open_store().directory, NAME) == free


def test_ones_own_unfinished_file_is_free(
    tmp_path: Path, open_store: OpenStore
) -> None:
    """A renamed download of the same URL is found again, another's is left alone."""
    (tmp_path / NAME).touch()
    store = open_store()
    renamed = checked_name("a.1.bin")
    store.look(renamed)
    store.create(header(renamed))
    other = open_store()
    assert other.look_free(NAME, url_digest("https://example.org/b")) is None
    assert other.name == "a.2.bin"
    # Somebody is at it: it is passed by.
    assert other.look_free(NAME, url_digest(URL)) is None
    assert other.name == "a.2.bin"
    store.close()
    assert other.look_free(NAME, url_digest(URL)) is not None
    assert other.name == "a.1.bin"


@pytest.mark.parametrize("looks", [0, 1])
@pytest.mark.parametrize("own", [True, False])
def test_a_name_that_is_published_meanwhile(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, looks: int, own: bool
) -> None:
    """A publish is seen, whichever look for the name's files it comes before."""
    other, store = begun(open_store, 0, 1, 2, 3), open_store()
    exists, left = _fs.Directory.exists, [looks]

    def followed(directory: _fs.Directory, name: str) -> bool:
        if directory is store.directory and not other.published:
            if left[0] == 0:
                other.publish(SIZE, overwrite=False)
            left[0] -= 1
        return exists(directory, name)

    monkeypatch.setattr(_fs.Directory, "exists", followed)
    if own:
        assert store.look_free(NAME, url_digest(URL)) is None
        assert store.name == "a.1.bin"
    else:
        assert free_name(store.directory, NAME) == "a.1.bin"


def test_no_free_name(open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search for a free name comes to an end."""
    store = open_store()
    monkeypatch.setattr(_fs.Directory, "exists", lambda *_: True)
    monkeypatch.setattr(_left_names, "_MAX_RENAMES", 3)
    with pytest.raises(StorageError, match="no free name"):
        free_name(store.directory, NAME)


def test_a_name_without_room_for_a_number(
    tmp_path: Path, open_store: OpenStore
) -> None:
    """A name as long as a name can be has no numbered ones beside it."""
    name = checked_name("n" * 255)
    (tmp_path / name).touch()
    with pytest.raises(StorageError, match="no free name"):
        free_name(open_store().directory, name)


def test_a_long_name(tmp_path: Path, open_store: OpenStore) -> None:
    """A name too long for a suffix is found again by what its manifest says."""
    name = checked_name("n" * 255)
    part_name, manifest_name = sidecar_names(name)
    store = open_store()
    store.look(name)
    store.create(header(name))
    write(store, 0, 1, 2, 3)
    assert names(tmp_path) == sorted([part_name, manifest_name])
    assert name_left_by(store.directory, url_digest(URL)) == name
    store.publish(SIZE, overwrite=False)
    assert names(tmp_path) == [name]


def test_new_link_is_remembered(open_store: OpenStore) -> None:
    """What is recorded stays, under the link that worked last."""
    first = begun(open_store, 0, 1)
    first.close()
    store = open_store()
    assert store.look(NAME) is not None
    digest = f"md5:{'0' * 32}"
    store.adopt(header(url="https://example.org/b.bin?token=n3w", digest=digest))
    write(store, 3)
    store.close()
    again = open_store()
    found = again.look(NAME)
    assert found is not None
    assert found.header.url == "https://example.org/b.bin"
    assert found.header.digest == digest
    assert found.accepted == [piece(0), piece(1), piece(3)]
    again.adopt(header())
    again.close()
    # One that is not given again still counts.
    assert open_store().look(NAME).header.digest == digest


def test_name_left_by(tmp_path: Path, open_store: OpenStore) -> None:
    """The name of an earlier run of a URL is found among all manifests."""
    (tmp_path / "0.segdl").write_bytes(b"not ours\n")
    begun(open_store, 0).close()
    moved = tmp_path / "moved.segdl"
    moved.touch(0o600)
    moved.write_bytes((tmp_path / MANIFEST).read_bytes())
    store = open_store()
    assert name_left_by(store.directory, url_digest(URL)) == NAME
    assert (
        name_left_by(store.directory, url_digest("https://example.org/a.bin")) is None
    )
    (tmp_path / MANIFEST).unlink()
    assert name_left_by(store.directory, url_digest(URL)) is None


def test_unfinished(tmp_path: Path, open_store: OpenStore) -> None:
    """Downloads that can be gone on with are those with a part and a manifest."""
    for name in ("b.bin", "a.bin", "c.bin"):
        store = open_store()
        store.look(checked_name(name))
        store.create(header(checked_name(name)))
        store.close()
    (tmp_path / "c.bin.part").unlink()
    (tmp_path / "0.segdl").write_bytes(b"not ours\n")
    assert [found.name for found in unfinished(tmp_path)] == ["a.bin", "b.bin"]


def test_unfinished_in_no_directory(tmp_path: Path) -> None:
    """A directory that is missing is an error, and is not made."""
    with pytest.raises(StorageError):
        list(unfinished(tmp_path / "missing"))
    assert not (tmp_path / "missing").exists()
