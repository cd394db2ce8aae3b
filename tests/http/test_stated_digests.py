"""Digests, given by the caller or stated by the server, decide what is published."""

from __future__ import annotations

import base64
import hashlib
from urllib.parse import quote

import pytest
from http_checks import (
    MIB,
    NAME,
    check_failed,
    check_whole,
    file_digest,
    names,
    until,
)
from scripted import Asked, part, refusal

from segdl._digests import available, new_hasher
from segdl.errors import IntegrityError, UsageError
from segdl.testing import Blob

SIZE = 20 * MIB + 17
SMALL = 3 * MIB + 1


def digest_of(blob: Blob, algorithm: str) -> str:
    """Compute a digest of any kind of a blob's content."""
    hasher = new_hasher(algorithm)
    hasher.update(blob.read())
    return hasher.hexdigest()


def in_base64(blob: Blob, algorithm: str) -> str:
    """Give a digest as header fields have it."""
    return base64.b64encode(bytes.fromhex(digest_of(blob, algorithm))).decode()


ALGORITHMS = ["sha256", "sha512", "sha1", "md5", "xxh3", "blake3", "crc32c"]


def need(algorithm: str) -> None:
    """Leave a test out where an optional package is missing."""
    if not available(algorithm):
        pytest.skip(f"the package for {algorithm} is not installed")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("processes", [0, 1])
def test_given_digest(origin, fetch, algorithm, processes) -> None:
    """A file with the expected digest is published, and the task tells which."""
    need(algorithm)
    digest = digest_of(Blob(1, SIZE), algorithm)
    task = fetch(
        origin.blob_url(1, SIZE),
        checksum=f"{algorithm}:{digest.upper()}",
        processes=processes,
    )
    check_whole(task, origin.blob(1, SIZE))
    assert task.checksum == f"{algorithm}:{digest}"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_given_digest_of_something_else(origin, fetch, out, algorithm) -> None:
    """Both values are named, what came is kept aside, nothing is published."""
    need(algorithm)
    expected = digest_of(Blob(2, SIZE), algorithm)
    actual = digest_of(Blob(1, SIZE), algorithm)
    task = fetch(origin.blob_url(1, SIZE), checksum=f"{algorithm}:{expected}")
    error = check_failed(task, IntegrityError, algorithm, expected, actual, "caller")
    assert (error.algorithm, error.expected, error.actual) == (
        algorithm,
        expected,
        actual,
    )
    assert names(out) == [f"{NAME}.corrupt"]
    assert str(out / f"{NAME}.corrupt") in str(error)
    assert file_digest(out / f"{NAME}.corrupt") == origin.blob(1, SIZE).digest()
    assert task.checksum is None


def test_file_kept_aside_is_not_replaced(origin, fetch, out) -> None:
    """A second mismatch is kept beside the first."""
    wrong = f"sha256:{'0' * 64}"
    fetch(origin.blob_url(1, SMALL), checksum=wrong)
    fetch(origin.blob_url(2, SMALL), checksum=wrong)
    kept = {file_digest(out / name) for name in names(out)}
    assert kept == {origin.blob(seed, SMALL).digest() for seed in (1, 2)}


def test_digest_of_nothing_is_explained(origin, fetch) -> None:
    """Some hubs state the digest of an empty file; the message says so."""
    nothing = hashlib.sha256().hexdigest()
    task = fetch(origin.blob_url(1, SMALL), checksum=f"sha256:{nothing}")
    check_failed(task, IntegrityError, "digest of an empty file")


def test_bad_checksum_is_refused_before_any_request(origin, engine, out) -> None:
    """A digest that can't be one raises at once."""
    with pytest.raises(UsageError, match="64 hexadecimal digits"):
        engine.download(origin.blob_url(1, SMALL), out, NAME, checksum="sha256:abc")
    assert origin.log.entries == ()
    assert names(out) == []


def stating(origin, seed: int, size: int, *lines: str) -> str:
    """Give the URL of a blob with header fields added."""
    return f"{origin.blob_url(seed, size)}?headers={quote('|'.join(lines), safe='')}"


# Field, algorithm, and whether it counts on a range that is not the whole.
STATED = [
    ("Repr-Digest: sha-256=:{sha256}:", "sha256", True),
    ("Repr-Digest: sha-512=:{sha512}:, sha-256=:AAAA:", "sha512", True),
    ("x-goog-hash: md5={md5}", "md5", True),
    ("x-amz-checksum-sha256: {sha256}", "sha256", False),
    ("x-amz-checksum-sha1: {sha1}", "sha1", False),
    ('X-Linked-Etag: "{sha256hex}"', "sha256", True),
]


def field(text: str, blob: Blob) -> str:
    """Fill a blob's digests into the text of a header field."""
    values = {
        name: in_base64(blob, name) for name in ("sha256", "sha512", "sha1", "md5")
    }
    return text.format(**values, sha256hex=digest_of(blob, "sha256"))


@pytest.mark.parametrize(("text", "algorithm", "on_ranges"), STATED)
@pytest.mark.parametrize("size", [SMALL, SIZE])
def test_stated_digest_is_verified(
    origin, fetch, text, algorithm, on_ranges, size
) -> None:
    """What the server states of the whole file is checked without being asked."""
    blob = origin.blob(1, size)
    task = fetch(stating(origin, 1, size, field(text, blob)))
    check_whole(task, blob)
    counts = on_ranges or size == SMALL
    expected = f"{algorithm}:{digest_of(blob, algorithm)}"
    assert task.checksum == (expected if counts else None)


@pytest.mark.parametrize(("text", "algorithm"), [row[:2] for row in STATED])
def test_stated_digest_of_something_else(origin, fetch, out, text, algorithm) -> None:
    """A file that contradicts what its server states is not published."""
    other = origin.blob(2, SMALL)
    task = fetch(stating(origin, 1, SMALL, field(text, other)))
    source = text.partition(":")[0]
    error = check_failed(task, IntegrityError, digest_of(other, algorithm), source)
    assert error.algorithm == algorithm
    assert names(out) == [f"{NAME}.corrupt"]


@pytest.mark.parametrize(
    "line",
    [
        "Repr-Digest: sha-256=:AAAA:",
        "Repr-Digest: sha-256=nonsense",
        "x-goog-hash: md5=",
        "x-amz-checksum-sha256: AAAA-3",
        "Content-MD5: rL0Y20zC+Fzt72VPzMSk2A==",  # of a range, or of the whole?
        "Content-Digest: sha-256=:AAAA:",
        "Digest: sha-256=AAAA",
    ],
)
def test_stated_digest_that_says_nothing(origin, fetch, line) -> None:
    """What has no known shape is passed over: it must not fail a good file."""
    task = fetch(stating(origin, 1, SMALL, line))
    check_whole(task, origin.blob(1, SMALL))
    assert task.checksum is None


def test_own_digest_option_of_the_origin(origin, fetch) -> None:
    """Repr-Digest is asked for, with Want-Repr-Digest (RFC 9530)."""
    task = fetch(origin.blob_url(1, SIZE, digest="sha-256"))
    assert task.checksum == f"sha256:{origin.blob(1, SIZE).digest()}"
    assert origin.log.entries[0].headers["want-repr-digest"] == "sha-256=10"


def test_the_callers_word_counts_more_than_the_servers(origin, fetch) -> None:
    """A digest given is what the task tells; both have to hold."""
    blob = origin.blob(1, SMALL)
    md5 = f"md5:{digest_of(blob, 'md5')}"
    task = fetch(origin.blob_url(1, SMALL, digest="sha-256"), checksum=md5)
    check_whole(task, blob)
    assert task.checksum == md5


def test_given_digest_against_a_stated_one(origin, fetch) -> None:
    """A stated digest of the same kind that contradicts the caller's is ignored."""
    blob = origin.blob(1, SMALL)
    url = stating(
        origin, 1, SMALL, f"Repr-Digest: sha-256=:{in_base64(Blob(2, 9), 'sha256')}:"
    )
    task = fetch(url, checksum=f"sha256:{blob.digest()}")
    check_whole(task, blob)


@pytest.mark.parametrize("given", [False, True])
def test_verification_can_be_turned_off(origin, fetch, given) -> None:
    """With verify_hash=False nothing is compared, and nothing said to be."""
    wrong = f"Repr-Digest: sha-256=:{in_base64(Blob(2, 9), 'sha256')}:"
    task = fetch(
        stating(origin, 1, SMALL, wrong),
        verify_hash=False,
        checksum=f"sha256:{'0' * 64}" if given else None,
    )
    check_whole(task, origin.blob(1, SMALL))
    assert task.checksum is None


@pytest.mark.parametrize("ranges", ["on", "off"])
def test_digest_of_a_file_of_unknown_length(origin, fetch, ranges) -> None:
    """A stream without a length is verified like any other."""
    blob = origin.blob(1, SIZE)
    task = fetch(
        origin.blob_url(1, SIZE, ranges=ranges, length="off"),
        checksum=f"sha256:{blob.digest()}",
    )
    check_whole(task, blob)
    assert task.checksum == f"sha256:{blob.digest()}"


def test_phase_tells_that_it_is_verified(origin, make_engine, out) -> None:
    """Verifying happens under `downloading`; callbacks see it as a phase."""
    engine = make_engine(progress_interval=0.01)
    digest = origin.blob(1, 40 * MIB).digest("sha512")
    task = engine.download(
        origin.blob_url(1, 40 * MIB), out, NAME, checksum=f"sha512:{digest}"
    )
    phases: list[tuple[str, str]] = []
    until(
        lambda: phases.append((task.status, task.phase)) or task.status != "downloading"
    )
    assert task.status == "completed"
    assert {status for status, phase in phases if phase == "verifying"} <= {
        "downloading"
    }


@pytest.mark.parametrize("fault", ["status=404@range2,*", "status=404@req2,*"])
def test_digest_stated_before_a_mirror_took_over(
    origin, other_origin, fetch, fault
) -> None:
    """What the URL said of its file counts for what a mirror brings in its place."""
    other = other_origin.blob_url(2, SIZE, etag="none", lm="none")
    url = origin.blob_url(1, SIZE, digest="sha-256", f=["rst@byte3000000,9", fault])
    task = fetch(url, mirrors=[other], connections=1)
    check_failed(task, IntegrityError, "Repr-Digest", origin.blob(1, SIZE).digest())


def test_digest_stated_before_the_file_was_looked_at_again(script, fetch) -> None:
    """It counts for all of a file whose first piece it was stated of."""
    old, new = Blob(1, SMALL), Blob(2, SMALL)
    tag, stated = 'ETag: "v1"', field("Repr-Digest: sha-256=:{sha256}:", old)

    def answer(asked: Asked) -> bytes:
        if asked.number == 1:
            return part(asked, old.read(), tag, stated)
        if asked.number == 2:
            return refusal("412 Precondition Failed")
        return part(asked, new.read(), tag)

    task = fetch(script(answer).url, connections=1)
    check_failed(task, IntegrityError, "Repr-Digest", old.digest())
