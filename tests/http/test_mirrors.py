"""Other sources of the same file: when they are turned to, and what is kept."""

from __future__ import annotations

import pytest
from http_checks import MIB, check_failed, check_whole, recorded_bytes

from segdl.errors import StatusError

SIZE = 20 * MIB + 3
RATE = 24 * MIB
# All four lanes are cut after 3 MB, and then the file is gone.
BREAKS = ["rst@byte3000000,4", "status=404@range5,*"]


@pytest.mark.parametrize("fault", ["status=404", "rst", "status=500", "nocr"])
def test_mirror_instead_of_a_source_that_fails(
    origin, other_origin, fetch, fault
) -> None:
    """When the first source can't deliver, the next one does."""
    task = fetch(
        origin.blob_url(1, SIZE, f=fault),
        mirrors=[other_origin.blob_url(1, SIZE)],
        retry_times=1,
    )
    check_whole(task, origin.blob(1, SIZE))


def test_mirror_goes_on_where_the_source_broke(origin, other_origin, fetch) -> None:
    """With equal validators, what the first source sent is kept."""
    origin.rate = other_origin.rate = RATE
    task = fetch(
        origin.blob_url(1, SIZE, f=BREAKS),
        mirrors=[other_origin.blob_url(1, SIZE)],
    )
    check_whole(task, origin.blob(1, SIZE))
    assert other_origin.log.bytes_sent() < SIZE


@pytest.mark.parametrize("with_checksum", [False, True])
def test_mirror_with_another_entity_tag(
    origin, other_origin, fetch, with_checksum
) -> None:
    """Another tag means another file, unless a checksum vouches for the whole."""
    origin.rate = other_origin.rate = RATE
    blob = origin.blob(1, SIZE)
    task = fetch(
        origin.blob_url(1, SIZE, f=BREAKS),
        mirrors=[other_origin.blob_url(1, SIZE, etag="weak", lm="none")],
        checksum=f"sha256:{blob.digest()}" if with_checksum else None,
    )
    check_whole(task, blob)


def test_mirror_with_another_file(origin, other_origin, fetch) -> None:
    """A mirror with other content ends in that content, whole, or in an error."""
    origin.rate = other_origin.rate = RATE
    task = fetch(
        origin.blob_url(1, SIZE, f=BREAKS),
        mirrors=[other_origin.blob_url(2, SIZE)],
    )
    check_whole(task, origin.blob(2, SIZE))


def test_no_secret_goes_to_a_mirror(origin, other_origin, fetch) -> None:
    """Headers are for the first URL's origin."""
    task = fetch(
        origin.blob_url(1, SIZE, f="status=404"),
        mirrors=[other_origin.blob_url(1, SIZE)],
        headers={"Authorization": "Bearer canary", "Cookie": "canary"},
    )
    check_whole(task, origin.blob(1, SIZE))
    for request in other_origin.log.entries:
        assert not {"authorization", "cookie"} & request.headers.keys()


def test_all_sources_fail(origin, other_origin, fetch, out) -> None:
    """The last source's error is the task's; what came stays resumable."""
    origin.rate = RATE
    task = fetch(
        origin.blob_url(1, SIZE, f=BREAKS),
        mirrors=[other_origin.blob_url(1, SIZE, f="status=410")],
    )
    check_failed(task, StatusError, "410")
    assert recorded_bytes(out, origin.blob(1, SIZE)) > 0
