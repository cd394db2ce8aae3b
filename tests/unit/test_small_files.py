"""A file of one piece: it has no manifest, but a mark, until it is stopped in order."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import xxhash

from segdl import _fs
from segdl._destination import new_header
from segdl._existing import check_finished
from segdl._fs import _mark
from segdl._headers import EntityTag, Validator
from segdl._left_names import free_name, is_free, name_left_by
from segdl._manifest import Header, Piece, load, url_digest
from segdl._names import SafeName, checked_name
from segdl._store import Store
from segdl._unfinished import discard_unfinished, unfinished
from segdl.cli.clean import find_orphans, remove
from segdl.errors import DestinationBusy, DestinationExists, StorageError

NAME = checked_name("a.bin")
PART, MANIFEST = "a.bin.part", "a.bin.segdl"
URL = "https://example.org/a.bin?token=s3cret"
CONTENT = b"abc" * 5000
SIZE = len(CONTENT)
PIECE = 1 << 20

OpenStore = Callable[..., Store]


@pytest.fixture(autouse=True)
def _marks(tmp_path: Path) -> None:
    probe = tmp_path / "probe"
    probe.touch()
    with probe.open("r+b") as file:
        if not _mark.set_mark(file.fileno(), url_digest(URL)):
            pytest.skip("no extended attributes here")
    probe.unlink()


def header(size: int | None = SIZE, url: str = URL, name: SafeName = NAME) -> Header:
    """Give the header of a small file."""
    return new_header(
        name=name,
        size=size,
        piece=PIECE,
        validator=Validator(etag=EntityTag("v1", weak=False)),
        url=url,
        url_sha256=url_digest(url),
        digest=None,
    )


def begun(store: Store, count: int = SIZE, name: SafeName = NAME) -> Store:
    """Begin a download, and write and record its first bytes."""
    assert store.look(name) is None
    store.create(header(name=name))
    assert store.part is not None
    with open(store.part.path, "r+b") as file:
        file.write(CONTENT[:count])
    if count:
        digest = xxhash.xxh3_64_hexdigest(CONTENT[:count])
        store.record([Piece(0, count, digest)])
    return store


def killed(store: Store) -> None:
    """Let go of everything, as the system does for a process that is killed."""
    assert store.part is not None
    assert store.manifest is not None
    store.part.close()
    store.manifest.close()
    store.part = store.manifest = None
    store.directory.close()


def names(directory: Path) -> list[str]:
    """List a directory."""
    return sorted(os.listdir(directory))


@pytest.mark.parametrize("durability", ["none", "publish", "checkpoint"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_from_nothing_to_the_file(
    tmp_path: Path, open_store: OpenStore, durability: str, overwrite: bool
) -> None:
    """A private part, then the file, which has no mark; never a manifest."""
    store = begun(open_store(durability))
    assert names(tmp_path) == [PART]
    assert stat.S_IMODE((tmp_path / PART).stat().st_mode) == 0o600
    assert _fs.get_mark(str(tmp_path / PART)) == url_digest(URL)
    store.publish(SIZE, overwrite=overwrite)
    assert names(tmp_path) == [NAME]
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert _fs.get_mark(str(tmp_path / NAME)) is None


@pytest.mark.parametrize("size", [None, PIECE + 1])
def test_others_have_a_manifest_from_the_beginning(
    tmp_path: Path, open_store: OpenStore, size: int | None
) -> None:
    """Those of more pieces, and of a length that is not known."""
    store = open_store()
    store.look(NAME)
    store.create(header(size))
    assert names(tmp_path) == [PART, MANIFEST]
    assert _fs.get_mark(str(tmp_path / PART)) is None


@pytest.mark.parametrize("why", ["attributes", "locks"])
def test_where_there_are_no_marks_or_locks(
    tmp_path: Path, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """There a manifest tells whose the part is, and how far it is."""
    if why == "attributes":
        monkeypatch.setattr("segdl._fs._part.set_mark", lambda *_: False)
    else:
        monkeypatch.setattr(_fs.PartFile, "_lock", lambda _: True)
    begun(open_store())
    assert names(tmp_path) == [PART, MANIFEST]


@pytest.mark.parametrize("count", [0, 5000, SIZE])
def test_a_stop_in_order_keeps_everything(
    tmp_path: Path, open_store: OpenStore, count: int
) -> None:
    """A pause, a failure and a shutdown leave a manifest, and no mark."""
    begun(open_store(), count).end(discard=False)
    assert names(tmp_path) == [PART, MANIFEST]
    assert _fs.get_mark(str(tmp_path / PART)) is None
    assert [left.name for left in unfinished(tmp_path)] == [NAME]
    found = open_store().look(NAME)
    assert found is not None
    there = [piece.length for piece in (*found.accepted, *found.doubtful)]
    assert there == ([count] if count else [])


def test_a_checkpoint_writes_the_manifest(
    tmp_path: Path, open_store: OpenStore
) -> None:
    """What takes so long is worth one."""
    begun(open_store("checkpoint"), 5000).checkpoint(1)
    with _fs.Directory.open(tmp_path) as directory:
        assert load(directory, MANIFEST).checkpointed == 1
    assert _fs.get_mark(str(tmp_path / PART)) is None


def test_a_mark_beside_a_manifest(tmp_path: Path, open_store: OpenStore) -> None:
    """A kill between the two leaves both; the file has none of them in the end."""
    store = begun(open_store())
    assert store.manifest is not None
    store.manifest.settle()
    killed(store)
    store = open_store()
    assert store.look(NAME) is not None
    store.publish(SIZE, overwrite=False)
    assert names(tmp_path) == [NAME]
    assert _fs.get_mark(str(tmp_path / NAME)) is None


def test_another_version_that_is_larger(tmp_path: Path, open_store: OpenStore) -> None:
    """A file that grows meanwhile gets a manifest, before its bytes come."""
    store = begun(open_store())
    store.restart(header(PIECE + 1))
    with _fs.Directory.open(tmp_path) as directory:
        assert load(directory, MANIFEST).header.size == PIECE + 1


def test_another_version_that_is_small_as_well(
    tmp_path: Path, open_store: OpenStore
) -> None:
    """The pieces of the old one are forgotten."""
    store = begun(open_store())
    store.restart(header(SIZE - 1))
    assert store.pieces() == []
    assert names(tmp_path) == [PART]
    store.end(discard=False)
    with _fs.Directory.open(tmp_path) as directory:
        assert load(directory, MANIFEST).header.size == SIZE - 1


def test_bad_pieces_stay_doubtful(open_store: OpenStore) -> None:
    """What is recorded after wrong bytes is compared by the next run."""
    store = begun(open_store())
    store.forget([(0, SIZE)])
    store.record([Piece(0, SIZE, xxhash.xxh3_64_hexdigest(CONTENT))])
    store.end(discard=False)
    found = open_store().look(NAME)
    assert found is not None
    assert [piece.length for piece in found.doubtful] == [SIZE]


def test_a_part_that_could_not_be_flushed(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is accepted unseen."""
    store = begun(open_store("publish"))

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("segdl._fs._part.fdatasync", fail)
    with pytest.raises(StorageError):
        store.publish(SIZE, overwrite=False)
    store.end(discard=False)
    monkeypatch.undo()
    found = open_store().look(NAME)
    assert found is not None
    assert [piece.length for piece in found.doubtful] == [SIZE]


@pytest.mark.parametrize("count", [0, 5000, SIZE])
def test_killed(tmp_path: Path, open_store: OpenStore, count: int) -> None:
    """What is left is begun anew, whatever it holds."""
    killed(begun(open_store(), count))
    assert names(tmp_path) == [PART]
    store = begun(open_store())
    store.publish(SIZE, overwrite=False)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert names(tmp_path) == [NAME]


def test_killed_with_the_final_mode(tmp_path: Path, open_store: OpenStore) -> None:
    """A publish that was cut short has widened the mode, to a group's even."""
    killed(begun(open_store()))
    before = os.umask(0o002)
    try:
        (tmp_path / PART).chmod(0o664)
        begun(open_store())
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / PART).stat().st_mode) == 0o600


def test_killed_between_its_two_names(tmp_path: Path, open_store: OpenStore) -> None:
    """The publish is finished."""
    killed(begun(open_store()))
    (tmp_path / NAME).hardlink_to(tmp_path / PART)
    store = open_store()
    assert store.look(NAME) is None
    assert store.published_url_sha256 == url_digest(URL)
    assert names(tmp_path) == [NAME]
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert _fs.get_mark(str(tmp_path / NAME)) is None


def test_a_name_that_somebody_gave_it(tmp_path: Path, open_store: OpenStore) -> None:
    """A part that is not whole does not become the file by that."""
    killed(begun(open_store(), 5000))
    (tmp_path / NAME).hardlink_to(tmp_path / PART)
    with pytest.raises(DestinationExists, match="not finished"):
        open_store().look(NAME)
    assert names(tmp_path) == [NAME, PART]


def test_one_that_is_in_use(open_store: OpenStore) -> None:
    """Another engine's is left alone."""
    store = begun(open_store())
    with pytest.raises(DestinationBusy):
        open_store().look(NAME)
    store.publish(SIZE, overwrite=False)


def test_a_part_without_a_mark_is_refused(
    tmp_path: Path, open_store: OpenStore
) -> None:
    """It may be a browser's."""
    (tmp_path / PART).write_bytes(CONTENT)
    (tmp_path / PART).chmod(0o600)
    with pytest.raises(DestinationExists, match="has no manifest"):
        open_store().look(NAME)
    assert (tmp_path / PART).read_bytes() == CONTENT


def test_a_manifest_that_comes_meanwhile(tmp_path: Path, open_store: OpenStore) -> None:
    """What has its name by the time it is written is not touched."""
    store = begun(open_store(), 5000)
    (tmp_path / MANIFEST).write_bytes(b"theirs")
    store.end(discard=False)
    assert (tmp_path / MANIFEST).read_bytes() == b"theirs"


def test_discard(tmp_path: Path, open_store: OpenStore) -> None:
    """Nothing stays, and what is not its own does."""
    store = begun(open_store(), 5000)
    (tmp_path / MANIFEST).write_bytes(b"theirs")
    store.end(discard=True)
    assert names(tmp_path) == [MANIFEST]


def test_set_aside(tmp_path: Path, open_store: OpenStore) -> None:
    """A file of the wrong digest is nobody's part."""
    store = begun(open_store())
    aside = store.set_aside()
    assert _fs.get_mark(aside) is None
    assert names(tmp_path) == ["a.bin.corrupt"]


def test_names_that_are_free(tmp_path: Path, open_store: OpenStore) -> None:
    """The name of one's own orphan is, that of another URL's is not."""
    killed(begun(open_store()))
    with _fs.Directory.open(tmp_path) as directory:
        assert is_free(directory, NAME, url_digest(URL))
        assert not is_free(directory, NAME, url_digest("https://example.org/b"))
        assert free_name(directory, NAME) == "a.1.bin"


def test_a_name_left_a_moment_ago(tmp_path: Path, open_store: OpenStore) -> None:
    """A list of the directory that is kept for a while misses no manifest of ours."""
    for number in range(100):
        name = checked_name(f"{number}.bin")
        store = open_store()
        assert name_left_by(store.directory, url_digest(URL)) is None
        begun(store, name=name).end(discard=False)
        with _fs.Directory.open(tmp_path) as directory:
            assert name_left_by(directory, url_digest(URL)) == name
        discard_unfinished(str(tmp_path), name, URL)


def test_a_part_is_no_finished_file(tmp_path: Path, open_store: OpenStore) -> None:
    """A download that is to be saved as NAME.part is not over because it is there."""
    killed(begun(open_store()))
    with _fs.Directory.open(tmp_path) as directory:
        with pytest.raises(DestinationExists, match="not finished"):
            check_finished(directory, PART, reuse=True)
        (tmp_path / "b.part").write_bytes(CONTENT)
        check_finished(directory, "b.part", reuse=True)


def test_clean(tmp_path: Path, open_store: OpenStore) -> None:
    """It removes an orphan, and neither what is in use nor what may be anybody's."""
    other = checked_name("b.bin")
    killed(begun(open_store()))
    running = begun(open_store(), name=other)
    (tmp_path / "c.bin.part").write_bytes(CONTENT)
    (tmp_path / "c.bin.part").chmod(0o600)
    with _fs.Directory.open(tmp_path) as directory:
        (orphan,) = find_orphans(directory)
        assert (orphan.kind, orphan.names) == ("small part", (PART,))
        assert remove(directory, orphan)
        assert not remove(directory, orphan)
    assert names(tmp_path) == ["b.bin.part", "c.bin.part"]
    running.end(discard=True)
