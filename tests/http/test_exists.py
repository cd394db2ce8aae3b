"""A destination that exists, before the download or suddenly."""

from __future__ import annotations

from pathlib import Path

import pytest
from http_checks import (
    MANIFEST,
    MIB,
    NAME,
    PART,
    check_whole,
    file_digest,
    names,
    until,
)

from segdl._names import MANIFEST_SUFFIX, PART_SUFFIX
from segdl.errors import DestinationExists, StatusError, StorageError

SIZE = 12 * MIB + 1
OLD = b"what was there before"


@pytest.fixture
def old(out: Path) -> Path:
    """Put an old file where the download goes."""
    out.mkdir()
    path = out / NAME
    path.write_bytes(OLD)
    return path


def put(out: Path, data: bytes, name: str = NAME) -> Path:
    """Write a file into the directory to save in."""
    out.mkdir(exist_ok=True)
    (out / name).write_bytes(data)
    return out / name


def test_reuse_with_the_right_checksum_asks_nothing(origin, fetch, out) -> None:
    """A file that has the expected digest is done, without a single request."""
    blob = origin.blob(1, SIZE)
    path = put(out, blob.read())
    inode = path.stat().st_ino
    task = fetch(origin.blob_url(1, SIZE), checksum=f"sha256:{blob.digest()}")
    check_whole(task, blob)
    assert task.checksum == f"sha256:{blob.digest()}"
    assert task.resumed_size == SIZE
    assert path.stat().st_ino == inode
    assert origin.log.entries == ()


def test_reuse_with_the_wrong_checksum_fails(origin, fetch, out) -> None:
    """A file with another digest is left alone, and so is the network."""
    path = put(out, origin.blob(2, SIZE).read())
    digest = origin.blob(1, SIZE).digest()
    task = fetch(origin.blob_url(1, SIZE), checksum=f"sha256:{digest}")
    assert task.status == "failed"
    error = task.exception(0)
    assert isinstance(error, DestinationExists)
    for word in ("sha256", digest, origin.blob(2, SIZE).digest(), "overwrite"):
        assert word in str(error)
    assert file_digest(path) == origin.blob(2, SIZE).digest()
    assert names(out) == [NAME]


def test_reuse_of_a_file_of_the_right_size(origin, fetch, out) -> None:
    """Without any digest, the size has to do; nothing but the head is fetched."""
    put(out, origin.blob(1, SIZE).read())
    origin.rate = 4 * MIB
    task = fetch(origin.blob_url(1, SIZE))
    check_whole(task, origin.blob(1, SIZE))
    assert len(origin.log.settle()) == 1
    assert origin.log.bytes_sent() < SIZE // 2


@pytest.mark.parametrize("name", ["named", None])
def test_reuse_of_what_aria2_has_not_finished(origin, fetch, out, name) -> None:
    """It has its full length from the beginning; only its control file tells."""
    url = origin.blob_url(1, SIZE, "named")
    path = put(out, bytes(SIZE), "named")
    put(out, b"", "named.aria2")
    task = fetch(url, filename=name)
    assert isinstance(task.exception(0), DestinationExists)
    assert f"{path}.aria2 shows" in str(task.error)
    assert path.read_bytes() == bytes(SIZE)
    task = fetch(url, filename=name, on_exists="overwrite")
    assert task.status == "completed"
    assert path.read_bytes() == origin.blob(1, SIZE).read()


@pytest.mark.parametrize("suffix", [PART_SUFFIX, MANIFEST_SUFFIX])
@pytest.mark.parametrize("policy", ["reuse", "overwrite"])
def test_file_of_another_download_is_no_destination(
    origin, make_engine, out, policy, suffix
) -> None:
    """A part has its full length from the beginning, and is not replaced either."""
    origin.rate = 4 * MIB
    engine = make_engine()
    first = engine.download(origin.blob_url(1, SIZE), out, NAME)
    until(lambda: first.downloaded_size > MIB)
    second = engine.download(
        origin.blob_url(1, SIZE), out, NAME + suffix, on_exists=policy
    )
    assert second.wait(10)
    assert isinstance(second.exception(0), DestinationExists)
    assert f"{NAME}{MANIFEST_SUFFIX} shows" in str(second.error)
    origin.rate = None
    assert first.wait(10)
    check_whole(first, origin.blob(1, SIZE))
    assert names(out) == [NAME]


@pytest.mark.parametrize("right", [True, False])
def test_reuse_with_a_stated_digest(origin, fetch, out, right) -> None:
    """A digest that the server states decides about the file that is there."""
    path = put(out, origin.blob(1 if right else 2, SIZE).read())
    kept = file_digest(path)
    task = fetch(origin.blob_url(1, SIZE, digest="sha-256"))
    if right:
        check_whole(task, origin.blob(1, SIZE))
        assert task.checksum == f"sha256:{origin.blob(1, SIZE).digest()}"
    else:
        assert isinstance(task.exception(0), DestinationExists)
        assert "other content" in str(task.error)
    assert file_digest(path) == kept
    assert names(out) == [NAME]


def test_reuse_of_another_size_fails(origin, fetch, old, out) -> None:
    """A file of another size is not the one; both sizes are told."""
    task = fetch(origin.blob_url(1, SIZE))
    assert task.status == "failed"
    assert isinstance(task.exception(0), DestinationExists)
    for word in (str(len(OLD)), str(SIZE), "overwrite", "rename"):
        assert word in str(task.error)
    assert old.read_bytes() == OLD
    assert names(out) == [NAME]


def test_reuse_of_an_empty_file(origin, fetch, out) -> None:
    """An empty file is no finished download of a longer one."""
    put(out, b"")
    task = fetch(origin.blob_url(1, SIZE))
    assert isinstance(task.exception(0), DestinationExists)
    assert (out / NAME).read_bytes() == b""


@pytest.mark.parametrize("per_task", [False, True])
def test_error_fails_before_any_request(
    origin, make_engine, old, out, per_task
) -> None:
    """on_exists="error" fails at once; a task's setting goes before the engine's."""
    engine = make_engine(on_exists="overwrite" if per_task else "error")
    own = "error" if per_task else None
    task = engine.download(origin.blob_url(1, SIZE), out, NAME, on_exists=own)
    assert task.wait(10)
    assert isinstance(task.exception(0), DestinationExists)
    assert str(old) in str(task.error)
    assert old.read_bytes() == OLD
    assert names(out) == [NAME]
    assert origin.log.entries == ()


def test_error_fails_before_the_rest_is_fetched(origin, make_engine, out) -> None:
    """A name that the URL gives counts too, where an earlier run left a part of it."""
    origin.rate = 12 * MIB
    url = origin.blob_url(1, SIZE, NAME)
    engine = make_engine()
    task = engine.download(url, out)
    until(lambda: task.downloaded_size > MIB)
    engine.shutdown(wait=False)
    assert names(out) == [PART, MANIFEST]
    old = put(out, OLD)
    origin.log.settle()
    origin.log.clear()
    task = make_engine(on_exists="error").download(url, out)
    assert task.wait(10)
    assert isinstance(task.exception(0), DestinationExists)
    assert len(origin.log.entries) == 1
    assert old.read_bytes() == OLD
    assert names(out) == [NAME, PART, MANIFEST]


def test_overwrite_replaces_at_the_end(origin, make_engine, old, out) -> None:
    """Until the new file is whole, the old one is there, untouched."""
    origin.rate = 4 * MIB
    engine = make_engine(on_exists="overwrite")
    task = engine.download(origin.blob_url(1, SIZE), out, NAME)
    until(lambda: task.downloaded_size > SIZE // 3)
    assert old.read_bytes() == OLD
    assert task.wait(10)
    check_whole(task, origin.blob(1, SIZE))


def test_overwrite_that_fails_leaves_the_old_file(origin, fetch, old, out) -> None:
    """A failed download costs nothing of what was there."""
    origin.rate = 12 * MIB
    url = origin.blob_url(1, SIZE, f="status=404@range3,*")
    task = fetch(url, on_exists="overwrite")
    assert isinstance(task.exception(0), StatusError)
    assert old.read_bytes() == OLD
    assert names(out) == [NAME, PART, MANIFEST]


def test_overwrite_with_the_right_checksum_is_done_at_once(origin, fetch, out) -> None:
    """Overwriting a file with itself may be spared, but ends in the same content."""
    blob = origin.blob(1, SIZE)
    put(out, blob.read())
    task = fetch(
        origin.blob_url(1, SIZE),
        on_exists="overwrite",
        checksum=f"sha256:{blob.digest()}",
    )
    check_whole(task, blob)


def test_overwrite_with_the_wrong_content_leaves_the_old_file(
    origin, fetch, old, out
) -> None:
    """A digest that does not fit keeps the old file in place."""
    task = fetch(
        origin.blob_url(1, SIZE), on_exists="overwrite", checksum=f"sha256:{'0' * 64}"
    )
    assert task.status == "failed"
    assert old.read_bytes() == OLD
    assert names(out) == [NAME, f"{NAME}.corrupt"]


def test_rename_takes_the_next_free_name(origin, fetch, old, out) -> None:
    """on_exists="rename" numbers before the suffix."""
    for number in (1, 2):
        task = fetch(origin.blob_url(number, SIZE), on_exists="rename")
        assert task.status == "completed", task.error
        assert task.file_path == str(out / f"file.{number}.bin")
        assert file_digest(task.result(0)) == origin.blob(number, SIZE).digest()
    assert old.read_bytes() == OLD
    assert names(out) == ["file.1.bin", "file.2.bin", NAME]


def test_directory_is_created(origin, fetch, out) -> None:
    """The directory to save in, and those above it, are made."""
    assert not out.exists()
    check_whole(fetch(origin.blob_url(1, 1000)), origin.blob(1, 1000))


def test_directory_is_a_file(origin, make_engine, tmp_path) -> None:
    """A file in place of the directory is an error that names it."""
    (tmp_path / "out").write_bytes(b"")
    task = make_engine().download(origin.blob_url(1, 1000), tmp_path / "out", NAME)
    assert task.wait(10)
    assert isinstance(task.exception(0), StorageError)
    assert str(tmp_path / "out") in str(task.error)
    assert origin.log.entries == ()


@pytest.mark.parametrize("durability", ["none", "publish"])
@pytest.mark.parametrize("given", [False, True])
def test_reuse_of_a_file_with_a_hole(origin, fetch, out, durability, given) -> None:
    """Where nothing is flushed, a hole is what a power cut took: it is not reused."""
    blob = origin.blob(1, SIZE)
    path = put(out, b"")
    with path.open("wb") as file:
        file.write(blob.read()[:MIB])
        file.truncate(SIZE)
    digest = f"sha256:{file_digest(path)}" if given else None
    task = fetch(origin.blob_url(1, SIZE), durability=durability, checksum=digest)
    refused = durability == "none" and not given
    assert task.status == ("failed" if refused else "completed")
    if refused:
        assert isinstance(task.exception(0), DestinationExists)
        assert "power cut" in task.error
    assert path.stat().st_size == SIZE
