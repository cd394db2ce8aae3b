"""Other sources of the same file: when they are turned to, and what is kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from http_checks import (
    MANIFEST,
    MIB,
    NAME,
    PART,
    check_failed,
    check_whole,
    names,
    recorded_bytes,
    until,
)
from scripted import Asked, page, part

from segdl.errors import IntegrityError, RangeMismatch, StatusError
from segdl.testing import Blob

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


NONE = {"etag": "none", "lm": "none"}


@pytest.mark.parametrize("first", [{}, NONE])
@pytest.mark.parametrize("second", [{}, {"etag": "weak"}, {"etag": "none"}, NONE])
def test_mirror_with_another_file(origin, other_origin, fetch, first, second) -> None:
    """A mirror with other content ends in that content, whole, or in an error."""
    origin.rate = other_origin.rate = RATE
    task = fetch(
        origin.blob_url(1, SIZE, f=BREAKS, **first),
        mirrors=[other_origin.blob_url(2, SIZE, **second)],
    )
    check_whole(task, origin.blob(2, SIZE))


@pytest.mark.parametrize("connections", [1, 4])
@pytest.mark.parametrize("options", [{}, NONE])
def test_mirror_of_another_length(
    origin, other_origin, fetch, out, options, connections
) -> None:
    """What is there is not given up for something else: the mirror has failed, too."""
    origin.rate = other_origin.rate = RATE
    task = fetch(
        origin.blob_url(1, SIZE, f=BREAKS),
        mirrors=[other_origin.blob_url(2, SIZE - 1, **options)],
        connections=connections,
    )
    assert task.status == "failed"
    assert recorded_bytes(out, origin.blob(1, SIZE)) > 0


@pytest.mark.parametrize("with_checksum", [False, True])
def test_mirror_with_an_error_page(origin, script, fetch, out, with_checksum) -> None:
    """An error that is sent as 200 is no file, and takes the place of none."""
    origin.rate = RATE
    mirror = script(lambda _: page(b'{"error": 1}', "Content-Type: application/json"))
    blob = origin.blob(1, SIZE)
    task = fetch(
        origin.blob_url(1, SIZE, f=BREAKS),
        mirrors=[mirror.url],
        checksum=f"sha256:{blob.digest()}" if with_checksum else None,
    )
    check_failed(task, RangeMismatch, "12 bytes", str(SIZE))
    assert recorded_bytes(out, blob) > 0


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


# --- mirrors that share the work ------------------------------------------------------


def test_mirrors_share_the_work(origin, other_origin, fetch) -> None:
    """A mirror with the same strong entity tag has lanes beside the URL."""
    origin.rate = other_origin.rate = 4 * MIB
    task = fetch(origin.blob_url(1, SIZE), mirrors=[other_origin.blob_url(1, SIZE)])
    check_whole(task, origin.blob(1, SIZE))
    assert origin.log.bytes_sent() > 2 * MIB
    assert other_origin.log.bytes_sent() > 2 * MIB
    assert origin.log.bytes_sent() + other_origin.log.bytes_sent() < SIZE + 8 * MIB


def test_faster_mirror_brings_more(origin, other_origin, fetch) -> None:
    """Lanes go where they are fastest."""
    origin.rate, other_origin.rate = MIB // 4, 4 * MIB
    task = fetch(
        origin.blob_url(1, SIZE),
        mirrors=[other_origin.blob_url(1, SIZE)],
        connections=6,
        wait=30,
    )
    check_whole(task, origin.blob(1, SIZE))
    assert other_origin.log.bytes_sent() > 2 * origin.log.bytes_sent()


@pytest.mark.parametrize(
    "options", [{"etag": "weak"}, {"etag": "none"}, {"etag": "none", "lm": "none"}]
)
def test_unproved_mirror_is_not_mixed_in(origin, other_origin, fetch, options) -> None:
    """Without a digest, only a strong validator proves that a mirror has the file."""
    origin.rate = 8 * MIB
    task = fetch(
        origin.blob_url(1, SIZE), mirrors=[other_origin.blob_url(2, SIZE, **options)]
    )
    check_whole(task, origin.blob(1, SIZE))
    assert len(other_origin.log.entries) == 1


def test_mirror_that_lies_is_found_by_the_digest(origin, other_origin, fetch) -> None:
    """What a mirror brought is fetched again from the URL, and the file is right."""
    origin.rate = other_origin.rate = 8 * MIB
    blob = origin.blob(1, SIZE)
    task = fetch(
        origin.blob_url(1, SIZE),
        mirrors=[other_origin.blob_url(2, SIZE, etag="none", lm="none")],
        checksum=f"sha256:{blob.digest()}",
    )
    check_whole(task, blob)
    assert other_origin.log.bytes_sent() > MIB
    assert origin.log.served_twice() < 4 * MIB


def test_url_that_lies_is_replaced_by_a_mirror(origin, other_origin, fetch) -> None:
    """When the URL itself has the wrong bytes, a mirror brings all of them."""
    origin.rate = other_origin.rate = 16 * MIB
    blob = origin.blob(1, SIZE)
    task = fetch(
        origin.blob_url(2, SIZE),
        mirrors=[other_origin.blob_url(1, SIZE)],
        checksum=f"sha256:{blob.digest()}",
    )
    check_whole(task, blob)


def test_url_that_lies_about_the_length(origin, other_origin, fetch) -> None:
    """A mirror that was put aside for another length has its turn, too."""
    origin.rate = other_origin.rate = 16 * MIB
    blob = origin.blob(1, SIZE)
    task = fetch(
        origin.blob_url(2, SIZE + 1),
        mirrors=[other_origin.blob_url(1, SIZE)],
        checksum=f"sha256:{blob.digest()}",
    )
    check_whole(task, blob)


def test_all_sources_lie(origin, other_origin, fetch) -> None:
    """With wrong bytes everywhere nothing is published, and each was asked once."""
    origin.rate = other_origin.rate = 16 * MIB
    task = fetch(
        origin.blob_url(2, SIZE),
        mirrors=[other_origin.blob_url(3, SIZE)],
        checksum=f"sha256:{origin.blob(1, SIZE).digest()}",
        wait=30,
    )
    check_failed(task, IntegrityError, "sha256")
    sent = origin.log.bytes_sent() + other_origin.log.bytes_sent()
    assert sent < 4 * SIZE


@pytest.mark.parametrize("with_checksum", [False, True])
def test_mirror_that_changes_is_dropped(
    origin, other_origin, fetch, with_checksum
) -> None:
    """Its pieces are fetched again, from the URL."""
    origin.rate = other_origin.rate = 4 * MIB
    blob = origin.blob(1, SIZE)
    faults = ["rst@byte1500000,9", "swap=2@range3"]
    task = fetch(
        origin.blob_url(1, SIZE),
        mirrors=[other_origin.blob_url(1, SIZE, f=faults)],
        checksum=f"sha256:{blob.digest()}" if with_checksum else None,
    )
    check_whole(task, blob)


def test_mirror_of_another_length_is_dropped(origin, other_origin, fetch) -> None:
    """One answer is enough to see that."""
    origin.rate = 8 * MIB
    task = fetch(origin.blob_url(1, SIZE), mirrors=[other_origin.blob_url(1, SIZE - 1)])
    check_whole(task, origin.blob(1, SIZE))
    assert len(other_origin.log.entries) == 1


def test_url_that_goes_away_leaves_it_to_the_mirrors(
    origin, other_origin, fetch
) -> None:
    """Lanes of a proved mirror go on without a new beginning."""
    origin.rate = other_origin.rate = 4 * MIB
    task = fetch(
        origin.blob_url(1, SIZE, f=["rst@byte2000000,9", "status=404@range4,*"]),
        mirrors=[other_origin.blob_url(1, SIZE)],
    )
    check_whole(task, origin.blob(1, SIZE))
    assert origin.log.bytes_sent() + other_origin.log.bytes_sent() < SIZE + 8 * MIB


@pytest.mark.parametrize("fault", ["status=404", "status=500", "rst", "hang", "html"])
def test_mirror_that_fails_harms_nothing(origin, other_origin, fetch, fault) -> None:
    """The URL alone does, as if there were no mirror."""
    origin.rate = 8 * MIB
    task = fetch(
        origin.blob_url(1, SIZE),
        mirrors=[other_origin.blob_url(1, SIZE, f=fault)],
        timeout=1,
    )
    check_whole(task, origin.blob(1, SIZE))


@pytest.mark.parametrize(("before", "again"), [(0, False), (1, False), (0, True)])
def test_mirror_that_lied_to_an_earlier_run(
    script, make_engine, out, before, again
) -> None:
    """A digest that let a mirror in is compared by later runs, given again or not."""
    right, wrong = Blob(1, 4 * MIB), Blob(2, 4 * MIB)
    go_on = threading.Event()

    def answer(asked: Asked) -> Iterator[bytes]:
        data = part(asked, right.read(), 'ETag: "v1"', most=right.size)
        if asked.number <= before + 1:
            # With the mirror, less than its share.
            yield data[: MIB + 1000 if asked.number <= before else MIB // 2]
            go_on.wait(10)
        yield data

    url = script(answer).url
    for _ in range(before):
        engine = make_engine(connections=1)
        engine.download(url, out, NAME)
        until(lambda: names(out) == [PART, MANIFEST] and recorded_bytes(out, right))
        engine.shutdown(wait=False)

    def lie(asked: Asked) -> Iterator[bytes]:
        if asked.number > 1:
            go_on.wait(10)  # what the URL holds back it does not bring either
        yield part(asked, wrong.read(), most=wrong.size)

    mirror = script(lie).url
    options = {"checksum": f"sha256:{right.digest()}", "mirrors": [mirror]}
    engine = make_engine(connections=2)
    task = engine.download(url, out, NAME, **options)
    until(lambda: task.downloaded_size >= (before + 1) * MIB)
    engine.shutdown(wait=False)
    go_on.set()
    task = make_engine().download(url, out, NAME, **(options if again else {}))
    assert task.wait(10)
    if again:
        check_whole(task, right)
    else:
        check_failed(task, IntegrityError, "an earlier run", ".corrupt")
