"""Files that change, or seem to, while they are fetched (matrix rows 29 - 34)."""

from __future__ import annotations

import pytest
from http_checks import MIB, check_failed, check_whole, names

from segdl.errors import IntegrityError, RepresentationChanged

SIZE = 20 * MIB + 77
RATE = 24 * MIB


def test_29_complete_length_differs_once(origin, fetch) -> None:
    """One lane that tells another length makes the task look again, and go on."""
    task = fetch(origin.blob_url(1, SIZE, f="wronglen@range3"))
    check_whole(task, origin.blob(1, SIZE))


def test_29_complete_length_differs_again_and_again(origin, fetch) -> None:
    """Lanes that never agree on the length end in an error that names both."""
    task = fetch(origin.blob_url(1, SIZE, f="wronglen=5@range2,*"))
    error = check_failed(task, RepresentationChanged, "bytes now, it had")
    assert str(SIZE) in str(error)


@pytest.mark.parametrize("size", [SIZE // 2, 2 * SIZE])
@pytest.mark.parametrize("processes", [0, 1])
def test_30_replaced_by_a_file_of_another_size(origin, fetch, size, processes) -> None:
    """A file replaced on the way comes down anew, as one version."""
    origin.rate = RATE
    url = origin.blob_url(1, SIZE, f=f"swap=2:size={size}@range4")
    task = fetch(url, processes=processes)
    check_whole(task, origin.blob(2, size))


@pytest.mark.parametrize("request_number", [2, 3, 4])
def test_31_replaced_by_a_file_of_the_same_size(origin, fetch, request_number) -> None:
    """The entity tag tells a new version although its length is the old one."""
    origin.rate = RATE
    url = origin.blob_url(1, SIZE, f=f"swap=2@range{request_number}")
    check_whole(fetch(url), origin.blob(2, SIZE))


def test_31_replaced_and_only_the_date_tells(origin, fetch) -> None:
    """Without an entity tag, Last-Modified tells a new version."""
    origin.rate = RATE
    url = origin.blob_url(1, SIZE, etag="none", f="swap=2@range3")
    check_whole(fetch(url), origin.blob(2, SIZE))


def test_31_replaced_twice(origin, fetch) -> None:
    """A file that changes again during the second try is an error, never a mix."""
    origin.rate = RATE
    url = origin.blob_url(1, SIZE, f=["swap=2@range3", "swap=3@range7"])
    task = fetch(url)
    if task.status == "completed":
        check_whole(task, origin.blob(3, SIZE))
    else:
        check_failed(task, RepresentationChanged, "the entity tag was")


@pytest.mark.parametrize("stated", [False, True])
def test_32_replaced_without_a_trace_is_caught_by_a_digest(
    origin, fetch, out, stated
) -> None:
    """A change that no header shows is found by a digest, given or stated."""
    origin.rate = RATE
    digest = origin.blob(1, SIZE).digest()
    options = {"digest": "sha-256"} if stated else {}
    url = origin.blob_url(1, SIZE, f="swapsame=2@range3", **options)
    task = fetch(url, checksum=None if stated else f"sha256:{digest}")
    check_failed(task, IntegrityError, "sha256", digest)
    assert names(out) == ["file.bin.corrupt"]


@pytest.mark.parametrize("kind", ["rotate", "per-conn"])
def test_33_entity_tag_of_each_request_differs(origin, fetch, kind) -> None:
    """Backends that disagree about the tag end in one stream or an error, no mix."""
    origin.rate = RATE
    task = fetch(origin.blob_url(1, SIZE, etag=kind))
    if task.status == "completed":
        check_whole(task, origin.blob(1, SIZE))
    else:
        check_failed(task, RepresentationChanged, "the entity tag was")
    assert len(origin.log.entries) < 20


@pytest.mark.parametrize("options", [{"etag": "weak"}, {"etag": "none", "lm": "none"}])
def test_33_weak_validator_or_none_allows_lanes_within_a_run(
    origin, fetch, options
) -> None:
    """Without a strong validator, lanes of one run still share a file they agree on."""
    origin.rate = RATE
    check_whole(fetch(origin.blob_url(1, SIZE, **options)), origin.blob(1, SIZE))
    assert all("if-range" not in r.headers for r in origin.log.entries)


def test_33_weak_tag_that_changes(origin, fetch) -> None:
    """A weak tag that differs is another version."""
    origin.rate = RATE
    url = origin.blob_url(1, SIZE, etag="weak", f="swap=2@range3")
    check_whole(fetch(url), origin.blob(2, SIZE))


def test_change_found_by_the_412_of_an_origin(origin, fetch) -> None:
    """A 412 is read as a change: the file is looked at again, and goes on."""
    task = fetch(origin.blob_url(1, SIZE, f="status=412@range3"))
    check_whole(task, origin.blob(1, SIZE))
