"""Digests of whole files: given by the caller, or stated by the server.

    "sha256:HEX" ── parse_checksum ──┐
                                     ├──> Digest ── new_hasher ──> compare at publish
    response heads ─ stated_digests ─┘

A stated digest counts only in a shape that is known to cover the whole, uncoded
representation; everything else is passed over in silence, since a wrong expectation
fails a good download. An ETag is never taken for a hash: S3's is an MD5 only for
objects uploaded in one part and without KMS.

hashlib, xxhash, blake3 and crc32c are imported when first used: this module is loaded
by every worker, and most workers hash nothing but pieces.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from segdl._headers import Head, content_coding
from segdl._ranges import parse_content_range, shown
from segdl.errors import RangeMismatch, UsageError

# Length in hexadecimal digits; strongest first, which is the order of preference.
_HEX_DIGITS = {
    "sha512": 128,
    "sha256": 64,
    "blake3": 64,
    "sha1": 40,
    "md5": 32,
    "xxh3": 16,
    "crc32c": 8,
}
ALGORITHMS = tuple(_HEX_DIGITS)

# Not in hashlib, and in segdl's optional dependencies.
_OPTIONAL = frozenset({"blake3", "crc32c"})

# RFC 9530's registry of names; "sha" is SHA-1. All but the first two are deprecated
# there as signatures, and still tell a damaged file.
_REPR_DIGEST_NAMES = {
    "sha-512": "sha512",
    "sha-256": "sha256",
    "sha": "sha1",
    "md5": "md5",
    "crc32c": "crc32c",
}
_GOOGLE_NAMES = {"crc32c": "crc32c", "md5": "md5"}

# One member of RFC 9530's dictionary: a byte sequence, parameters allowed after it.
_DICTIONARY_MEMBER = re.compile(
    r"[ \t]*([a-z*][a-z0-9_\-.*]*)=:([A-Za-z0-9+/=]*):[ \t]*(?:;.*)?"
)
_GOOGLE_MEMBER = re.compile(r"[ \t]*([a-z0-9]+)=([A-Za-z0-9+/=]+)[ \t]*")
_SHA256_TAG = re.compile(r'(?:W/)?"?([0-9A-Fa-f]{64})"?')


@dataclass(frozen=True, slots=True)
class Digest:
    """
    The digest a file must have.

    Args:
        algorithm: One of ALGORITHMS.
        hex: Lower-case hexadecimal, of the algorithm's length.
        source: Who says so: "caller", or the header field's name.
    """

    algorithm: str
    hex: str
    source: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


class Hasher(Protocol):
    """What hashlib's objects and those of this module have in common."""

    def update(self, data: bytes | bytearray | memoryview, /) -> object:
        """Add bytes."""

    def hexdigest(self) -> str:
        """Return the digest of all bytes so far, lower-case hexadecimal."""


def parse_checksum(text: str) -> Digest:
    """
    Read a digest that the caller gave.

    Args:
        text: "sha256:HEX" and the like; upper case and the spelling "sha-256" are
            accepted, and aria2's "sha-256=HEX". xxh3 is XXH3-64.

    Returns:
        The digest, with the source "caller".

    Raises:
        UsageError: Another algorithm, another length, or no hexadecimal number.
    """
    if not isinstance(text, str):
        raise UsageError(f"the checksum is {type(text).__name__}; give a str")
    match = re.fullmatch(r"([A-Za-z0-9\-]+)[:=](.*)", text.strip(), re.DOTALL)
    if match is None:
        raise UsageError(f"checksum {shown(text)} is not of the form ALGORITHM:HEX")
    algorithm = match[1].lower()
    if algorithm.startswith("sha-"):
        algorithm = algorithm.replace("-", "", 1)
    if algorithm not in _HEX_DIGITS:
        raise UsageError(
            f"checksum algorithm {shown(match[1])} is not known; "
            f"segdl knows {', '.join(ALGORITHMS)}"
        )
    digits = match[2].strip().lower()
    if not re.fullmatch(r"[0-9a-f]*", digits):
        raise UsageError(f"{algorithm} digest {shown(digits)} is not hexadecimal")
    if len(digits) != _HEX_DIGITS[algorithm]:
        raise UsageError(
            f"a {algorithm} digest has {_HEX_DIGITS[algorithm]} hexadecimal digits, "
            f"and this one has {len(digits)}"
        )
    return Digest(algorithm, digits, "caller")


def available(algorithm: str) -> bool:
    """Return whether the algorithm is known and its package can be imported."""
    if algorithm not in _OPTIONAL:
        return algorithm in _HEX_DIGITS
    from importlib import import_module

    try:
        import_module(algorithm)
    except ImportError:
        return False
    return True


def new_hasher(algorithm: str) -> Hasher:
    """
    Start a digest.

    Args:
        algorithm: One of ALGORITHMS.

    Raises:
        UsageError: The algorithm is not known, or its package is not installed.
    """
    if algorithm not in _HEX_DIGITS:
        raise UsageError(
            f"digest algorithm {shown(algorithm)} is not known; "
            f"segdl knows {', '.join(ALGORITHMS)}"
        )
    if algorithm in _OPTIONAL:
        return _optional_hasher(algorithm)
    if algorithm == "xxh3":
        import xxhash

        return xxhash.xxh3_64()
    import hashlib

    # A FIPS build of OpenSSL refuses md5 and sha1 unless told this.
    return hashlib.new(algorithm, usedforsecurity=False)


def _optional_hasher(algorithm: str) -> Hasher:
    try:
        if algorithm == "crc32c":
            import crc32c

            return _Crc32c(crc32c.crc32c)
        import blake3

        hasher: Hasher = blake3.blake3()
    except ImportError as exc:
        raise UsageError(
            f'{algorithm} digests need another package: pip install "segdl[hashes]"'
        ) from exc
    return hasher


class _Crc32c:
    """The crc32c package's function in the shape of a hash object."""

    def __init__(self, function: Callable[..., int]) -> None:
        self._function = function
        self._value = 0

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        self._value = self._function(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


def is_digest_of_nothing(digest: Digest) -> bool:
    """
    Return whether a digest is that of zero bytes.

    Some hubs state it for files whose replica was empty when it was computed, so it
    explains a mismatch; False when the algorithm is not available.
    """
    if not available(digest.algorithm):
        return False
    return new_hasher(digest.algorithm).hexdigest() == digest.hex


def stated_digests(heads: Sequence[Head]) -> list[Digest]:
    """
    Collect the digests that a server states for the whole file.

    | field                    | counts when                                          |
    |--------------------------|------------------------------------------------------|
    | Repr-Digest              | always (RFC 9530: the same on every range)           |
    | x-goog-hash              | the object is stored, and was sent, without a coding |
    | x-amz-checksum-*         | the answer is the whole object, not COMPOSITE        |
    | Content-MD5              | on a 200 (RFC 1864 does not tell part from whole)    |
    | X-Linked-Etag (any hop)  | 64 hexadecimal digits: Hugging Face's sha256         |

    Args:
        heads: Every answer of the redirect chain, the final one last.

    Returns:
        Well-formed digests of available algorithms, the strongest first; one of each
        algorithm and value. Empty when the final answer is no 200 or 206.
    """
    if not heads or heads[-1].status not in (200, 206):
        return []
    final = heads[-1]
    found = [
        *_linked_etags(heads),
        *_repr_digests(final),
        *_google_hashes(final),
        *_amazon_checksums(final),
        *_content_md5(final),
    ]
    unique = {(d.algorithm, d.hex): d for d in reversed(found)}
    return sorted(
        (digest for digest in unique.values() if available(digest.algorithm)),
        key=lambda digest: (ALGORITHMS.index(digest.algorithm), digest.hex),
    )


def _linked_etags(heads: Sequence[Head]) -> list[Digest]:
    matches = [
        _SHA256_TAG.fullmatch(value)
        for head in heads
        for value in head.get_all("x-linked-etag")
    ]
    return [
        Digest("sha256", match[1].lower(), "X-Linked-Etag")
        for match in matches
        if match
    ]


def _repr_digests(head: Head) -> list[Digest]:
    # Several lines are one dictionary (RFC 9651 s4.2). A comma inside a string member
    # only yields pieces that are no byte sequence.
    members = ",".join(head.get_all("repr-digest")).split(",")
    return _members(members, _DICTIONARY_MEMBER, _REPR_DIGEST_NAMES, "Repr-Digest")


def _google_hashes(head: Head) -> list[Digest]:
    # The hash covers the stored object; Cloud Storage may decode that while sending.
    stored = head.get("x-goog-stored-content-encoding")
    if content_coding(head) or (stored or "identity").lower() != "identity":
        return []
    members = ",".join(head.get_all("x-goog-hash")).split(",")
    return _members(members, _GOOGLE_MEMBER, _GOOGLE_NAMES, "x-goog-hash")


def _amazon_checksums(head: Head) -> list[Digest]:
    # S3 states none for a range, but an S3-like server may state the part's
    # (MinIO did until pull request 17105), so only a whole answer counts.
    if not _is_whole(head):
        return []
    if (head.get("x-amz-checksum-type") or "").upper() == "COMPOSITE":
        return []
    found = []
    for algorithm in ("crc32c", "sha1", "sha256"):
        field = f"x-amz-checksum-{algorithm}"
        # The composite form BASE64-N fails to decode, as it should.
        digits = _hex_of_base64(algorithm, head.get(field) or "")
        if digits:
            found.append(Digest(algorithm, digits, field))
    return found


def _content_md5(head: Head) -> list[Digest]:
    if head.status != 200:
        return []
    digits = _hex_of_base64("md5", head.get("content-md5") or "")
    return [Digest("md5", digits, "Content-MD5")] if digits else []


def _is_whole(head: Head) -> bool:
    if head.status == 200:
        return True
    try:
        sent = parse_content_range(head.get("content-range") or "")
    except RangeMismatch:
        return False
    return (
        sent.first == 0
        and sent.last is not None
        and sent.complete is not None
        and sent.last + 1 == sent.complete
    )


def _members(
    members: Sequence[str], grammar: re.Pattern[str], names: dict[str, str], source: str
) -> list[Digest]:
    found = []
    for member in members:
        match = grammar.fullmatch(member)
        algorithm = names.get(match[1]) if match else None
        if match is None or algorithm is None:
            continue
        digits = _hex_of_base64(algorithm, match[2])
        if digits:
            found.append(Digest(algorithm, digits, source))
    return found


def _hex_of_base64(algorithm: str, text: str) -> str | None:
    import binascii

    if not re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", text):
        return None
    try:
        raw = binascii.a2b_base64(text)
    except binascii.Error:
        return None
    return raw.hex() if len(raw) * 2 == _HEX_DIGITS[algorithm] else None
