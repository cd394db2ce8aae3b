"""Which digests segdl takes from a caller or a server, and computes."""

from __future__ import annotations

import base64
import hashlib
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segdl._digests import (
    ALGORITHMS,
    Digest,
    available,
    is_digest_of_nothing,
    new_hasher,
    parse_checksum,
    stated_digests,
)
from segdl._headers import Head
from segdl.errors import UsageError

DATA = b"123456789"
SHA256 = hashlib.sha256(DATA).hexdigest()
SHA512 = hashlib.sha512(DATA).hexdigest()
SHA1 = hashlib.sha1(DATA, usedforsecurity=False).hexdigest()
MD5 = hashlib.md5(DATA, usedforsecurity=False).hexdigest()
CRC32C = "e3069283"  # the published check value, of the digits 1 to 9

needs_crc32c = pytest.mark.skipif(
    not available("crc32c"), reason="the crc32c package is not installed"
)
needs_blake3 = pytest.mark.skipif(
    not available("blake3"), reason="the blake3 package is not installed"
)


def b64(digits: str) -> str:
    """Return a hexadecimal digest as the base64 header fields carry."""
    return base64.b64encode(bytes.fromhex(digits)).decode()


def answer(*fields: tuple[str, str], status: int = 206) -> Head:
    """Make a response head with these fields."""
    return Head(status, "", tuple(fields))


def stated(*fields: tuple[str, str], status: int = 206) -> list[str]:
    """Return what a single answer states, as ALGORITHM:HEX."""
    return [str(digest) for digest in stated_digests([answer(*fields, status=status)])]


@pytest.mark.parametrize(
    ("text", "algorithm", "digits"),
    [
        (f"sha256:{SHA256}", "sha256", SHA256),
        (f"SHA-256:{SHA256.upper()}", "sha256", SHA256),
        (f"sha-256={SHA256}", "sha256", SHA256),
        (f" sha256: {SHA256}\n", "sha256", SHA256),
        (f"sha512:{SHA512}", "sha512", SHA512),
        (f"sha-1:{SHA1}", "sha1", SHA1),
        (f"md5:{MD5}", "md5", MD5),
        (f"blake3:{SHA256}", "blake3", SHA256),
        (f"crc32c:{CRC32C}", "crc32c", CRC32C),
        ("xxh3:0123456789abcdef", "xxh3", "0123456789abcdef"),
    ],
)
def test_checksum_of_the_caller_is_read(text: str, algorithm: str, digits: str) -> None:
    """Each algorithm is taken in either case, sha-256 as sha256."""
    assert parse_checksum(text) == Digest(algorithm, digits, "caller")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (SHA256, "ALGORITHM:HEX"),
        ("", "ALGORITHM:HEX"),
        (":" + SHA256, "ALGORITHM:HEX"),
        ("sha3:00", "sha512, sha256, blake3, sha1, md5, xxh3, crc32c"),
        ("xxh3-128:" + "0" * 32, "'xxh3-128' is not known"),
        ("sha256:", "64 hexadecimal digits, and this one has 0"),
        ("sha256:" + SHA256[1:], "has 63"),
        ("sha256:" + SHA256 + "0", "has 65"),
        ("sha256:" + SHA1, "has 40"),
        ("sha256:g" + SHA256[1:], "not hexadecimal"),
        ("sha256:0x" + SHA256[2:], "not hexadecimal"),
        ("sha256:" + "٣" * 64, "not hexadecimal"),
        (None, "NoneType"),
    ],
)
def test_bad_checksum_is_refused_with_the_reason(text: str, reason: str) -> None:
    """The error names the known algorithms or the right length."""
    with pytest.raises(UsageError, match=reason):
        parse_checksum(text)


def test_digest_prints_as_it_is_given() -> None:
    """A digest in a message or a manifest reads back."""
    assert str(parse_checksum(f"sha256:{SHA256}")) == f"sha256:{SHA256}"


@pytest.mark.parametrize(
    ("algorithm", "digits"),
    [
        ("sha256", SHA256),
        ("sha512", SHA512),
        ("sha1", SHA1),
        ("md5", MD5),
        ("xxh3", "72dcb18b67a17dff"),
        pytest.param("crc32c", CRC32C, marks=needs_crc32c),
        pytest.param(
            "blake3",
            "b7d65b48420d1033cb2595293263b6f72eabee20d55e699d0df1973b3c9deed1",
            marks=needs_blake3,
        ),
    ],
)
def test_hasher_gives_the_published_value(algorithm: str, digits: str) -> None:
    """Bytes fed in parts, from any buffer, have the digest everyone computes."""
    hasher = new_hasher(algorithm)
    hasher.update(DATA[:4])
    hasher.update(memoryview(DATA)[4:])
    assert hasher.hexdigest() == digits


def test_every_algorithm_has_the_length_that_is_checked() -> None:
    """A digest segdl computes is one parse_checksum accepts."""
    for algorithm in filter(available, ALGORITHMS):
        digits = new_hasher(algorithm).hexdigest()
        assert parse_checksum(f"{algorithm}:{digits}").hex == digits


@pytest.mark.parametrize("algorithm", ["blake3", "crc32c"])
def test_missing_package_is_named(
    algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the optional package the error says what to install."""
    monkeypatch.setitem(sys.modules, algorithm, None)
    assert not available(algorithm)
    with pytest.raises(UsageError, match=r"segdl\[hashes\]"):
        new_hasher(algorithm)


def test_unknown_algorithm_is_refused() -> None:
    """hashlib knows more algorithms than segdl offers, and they stay out."""
    assert not available("sha3_256")
    with pytest.raises(UsageError, match="not known"):
        new_hasher("sha3_256")


def test_digest_of_nothing_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    """The digest of zero bytes explains a mismatch; any other does not."""
    for algorithm in filter(available, ALGORITHMS):
        empty = new_hasher(algorithm).hexdigest()
        assert is_digest_of_nothing(Digest(algorithm, empty, "x"))
    assert not is_digest_of_nothing(Digest("sha256", SHA256, "x"))
    monkeypatch.setitem(sys.modules, "blake3", None)
    assert not is_digest_of_nothing(Digest("blake3", SHA256, "x"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (f"sha-256=:{b64(SHA256)}:", [f"sha256:{SHA256}"]),
        (
            f"sha-256=:{b64(SHA256)}:, sha-512=:{b64(SHA512)}:",
            [f"sha512:{SHA512}", f"sha256:{SHA256}"],
        ),
        (f"md5=:{b64(MD5)}:,sha=:{b64(SHA1)}:", [f"sha1:{SHA1}", f"md5:{MD5}"]),
        (f"sha-256=:{b64(SHA256)}:;x=1", [f"sha256:{SHA256}"]),
        (f"unixsum=:AAAA:, sha-256=:{b64(SHA256)}:", [f"sha256:{SHA256}"]),
        (f"sha-256={b64(SHA256)}", []),
        (f"sha-256=:{b64(SHA1)}:", []),
        (f"sha-256=:{b64(SHA256)[:-1]}:", []),
        (f"sha-256=:{b64(SHA256)[:-2]}*=:", []),
        (f'sha-256="{SHA256}"', []),
        (f"SHA-256=:{b64(SHA256)}:", []),
        ("", []),
        ("sha-256=::", []),
    ],
)
def test_repr_digest_is_read(value: str, expected: list[str]) -> None:
    """RFC 9530's dictionary gives its known members; malformed ones are ignored."""
    assert stated(("repr-digest", value)) == expected


def test_repr_digest_may_span_lines() -> None:
    """Several lines are one dictionary."""
    fields = [
        ("repr-digest", f"sha-512=:{b64(SHA512)}:"),
        ("repr-digest", f"sha-256=:{b64(SHA256)}:"),
    ]
    assert stated(*fields) == [f"sha512:{SHA512}", f"sha256:{SHA256}"]


def test_google_hash_is_read() -> None:
    """Cloud Storage's MD5 counts, on one line or on several."""
    assert stated(("x-goog-hash", f"crc32c=x,md5={b64(MD5)}")) == [f"md5:{MD5}"]
    assert stated(
        ("x-goog-hash", "crc32c=x"),
        ("x-goog-hash", f"md5={b64(MD5)}"),
        ("x-goog-stored-content-encoding", "identity"),
    ) == [f"md5:{MD5}"]


@pytest.mark.parametrize(
    "field",
    [("x-goog-stored-content-encoding", "gzip"), ("content-encoding", "gzip")],
)
def test_google_hash_of_coded_objects_is_ignored(field: tuple[str, str]) -> None:
    """The hash of a gzip object is not that of the bytes sent decoded."""
    assert stated(("x-goog-hash", f"md5={b64(MD5)}"), field) == []


def test_amazon_checksum_counts_for_the_whole_object() -> None:
    """A full-object checksum on a whole answer is taken, 200 or complete 206."""
    field = ("x-amz-checksum-sha256", b64(SHA256))
    whole = ("content-range", "bytes 0-8/9")
    kind = ("x-amz-checksum-type", "FULL_OBJECT")
    assert stated(field, status=200) == [f"sha256:{SHA256}"]
    assert stated(field, whole, kind) == [f"sha256:{SHA256}"]
    sha1 = ("x-amz-checksum-sha1", b64(SHA1))
    assert stated(sha1, status=200) == [f"sha1:{SHA1}"]


@pytest.mark.parametrize(
    "fields",
    [
        [("content-range", "bytes 0-7/9")],
        [("content-range", "bytes 1-8/9")],
        [("content-range", "bytes 0-8/*")],
        [("content-range", "junk")],
        [],
        [("content-range", "bytes 0-8/9"), ("x-amz-checksum-type", "COMPOSITE")],
    ],
)
def test_amazon_checksum_of_a_part_is_ignored(fields: list[tuple[str, str]]) -> None:
    """A range's answer may carry the part's checksum, and COMPOSITE is no hash."""
    assert stated(("x-amz-checksum-sha256", b64(SHA256)), *fields) == []


def test_amazon_checksum_of_checksums_is_ignored() -> None:
    """BASE64-N is a hash over N parts' hashes, not over the bytes."""
    assert stated(("x-amz-checksum-sha256", f"{b64(SHA256)}-3"), status=200) == []


@needs_crc32c
def test_crc32c_is_stated_where_it_can_be_computed() -> None:
    """With the package, Google's and Amazon's CRC-32C count."""
    value = b64(CRC32C)
    assert stated(("x-goog-hash", f"crc32c={value}")) == [f"crc32c:{CRC32C}"]
    assert stated(("x-amz-checksum-crc32c", value), status=200) == [f"crc32c:{CRC32C}"]


def test_crc32c_is_left_out_where_it_cannot_be_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the package a stated CRC-32C does not fail the download."""
    monkeypatch.setitem(sys.modules, "crc32c", None)
    assert stated(("x-goog-hash", f"crc32c={b64(CRC32C)}")) == []


def test_content_md5_counts_on_a_200_only() -> None:
    """On a range nobody knows whether it covers the part or the whole."""
    field = ("content-md5", b64(MD5))
    assert stated(field, status=200) == [f"md5:{MD5}"]
    assert stated(field, ("content-range", "bytes 0-8/9")) == []


@pytest.mark.parametrize("form", ["{}", '"{}"', 'W/"{}"'])
def test_linked_etag_counts_from_any_hop(form: str) -> None:
    """Hugging Face states the sha256 on the redirect, not on the file's answer."""
    hop = answer(("x-linked-etag", form.format(SHA256.upper())), status=302)
    assert stated_digests([hop, answer()]) == [
        Digest("sha256", SHA256, "X-Linked-Etag")
    ]


def test_linked_etag_of_another_length_is_no_digest() -> None:
    """A small file's 40 digits are a git blob hash, which is not SHA-1 of the bytes."""
    assert stated(("x-linked-etag", f'"{SHA1}"')) == []


def test_etag_is_never_a_digest() -> None:
    """An ETag that looks like MD5 or sha256 is a name, not a hash."""
    for digits in (MD5, SHA256):
        assert stated(("etag", f'"{digits}"'), status=200) == []


def test_only_linked_etag_counts_on_a_redirect() -> None:
    """A redirect's own Repr-Digest or Content-MD5 is about its own text."""
    hop = answer(
        ("repr-digest", f"sha-256=:{b64(SHA256)}:"),
        ("content-md5", b64(MD5)),
        status=302,
    )
    assert stated_digests([hop, answer(status=200)]) == []


@pytest.mark.parametrize("status", [302, 404, 416, 500])
def test_failed_answers_state_nothing(status: int) -> None:
    """An error page's digest is not the file's."""
    assert stated(("repr-digest", f"sha-256=:{b64(SHA256)}:"), status=status) == []
    assert stated_digests([]) == []


def test_same_digest_is_named_once_with_its_best_source() -> None:
    """Two fields that agree are one check; two that differ are both kept."""
    other = "0" * 64
    got = stated_digests(
        [
            answer(("x-linked-etag", SHA256), status=302),
            answer(("repr-digest", f"sha-256=:{b64(SHA256)}:")),
        ]
    )
    assert got == [Digest("sha256", SHA256, "X-Linked-Etag")]
    assert stated(
        ("x-linked-etag", SHA256), ("repr-digest", f"sha-256=:{b64(other)}:")
    ) == [f"sha256:{other}", f"sha256:{SHA256}"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "repr-digest",
                    "x-goog-hash",
                    "x-amz-checksum-sha256",
                    "content-md5",
                    "x-linked-etag",
                    "content-range",
                ]
            ),
            st.text(max_size=30) | st.just(f"sha-256=:{b64(SHA256)}:"),
        ),
        max_size=6,
    ),
    st.sampled_from([200, 206]),
)
def test_whatever_a_server_states_is_usable_or_ignored(
    fields: list[tuple[str, str]], status: int
) -> None:
    """No header value raises, and each digest found is one that can be checked."""
    for text in stated(*fields, status=status):
        digest = parse_checksum(text)
        assert available(digest.algorithm)
