"""The verifier: digests behind a growing prefix, and pieces compared in turns."""

from __future__ import annotations

import errno
import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segdl._fs import PartReader
from segdl._messages import (
    Advance,
    Check,
    Checked,
    Drop,
    Hash,
    Hashed,
    Message,
    Quit,
    failure_from_json,
)
from segdl._verify import SLICE_BYTES, Verifier
from segdl.errors import StorageError, UsageError

CONTENT = random.Random(2).randbytes(2 * SLICE_BYTES + 12345)
SIZE = len(CONTENT)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()


class Driven:
    """A verifier that the test turns, and what it has said."""

    def __init__(self) -> None:
        self.said: list[Message] = []
        self.verifier = Verifier(self.said.append)

    def tell(self, *messages: Message) -> None:
        """Give it commands."""
        for message in messages:
            self.verifier.handle(message)

    def run(self) -> list[Message]:
        """Turn it until it has nothing to read, and give all it has said."""
        for _ in range(100):
            if not self.verifier.busy:
                return self.said
            self.verifier.turn()
        raise AssertionError("the verifier does not come to an end")


@pytest.fixture
def driven() -> Iterator[Driven]:
    """Give a verifier, closed at the end."""
    made = Driven()
    yield made
    made.verifier.close()


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Give the path of a file of three slices."""
    file = tmp_path / "a.bin.part"
    file.write_bytes(CONTENT)
    return str(file)


def failure(message: Message) -> Exception:
    """Give the error that an answer carries."""
    assert isinstance(message, (Hashed, Checked))
    assert message.failure is not None
    return failure_from_json(message.failure)


# --- digests --------------------------------------------------------------------------


@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(prefixes=st.lists(st.integers(0, SIZE), max_size=6), turns=st.integers(0, 3))
def test_digest_behind_a_growing_prefix(
    path: str, prefixes: list[int], turns: int
) -> None:
    """However the prefix grows, the digests are those of the whole file, told once."""
    driven = Driven()
    driven.tell(Hash(1, path, ["sha256", "md5"]))
    for prefix in sorted(prefixes):
        driven.tell(Advance(1, prefix, False))
        for _ in range(turns):
            driven.verifier.turn()
    assert driven.said == []
    driven.tell(Advance(1, SIZE, True))
    assert driven.run() == [Hashed(1, {"sha256": SHA256, "md5": MD5}, None)]


def test_bytes_beyond_the_prefix_are_not_read(driven: Driven, path: str) -> None:
    """What is not final yet does not enter the digest."""
    file = Path(path)
    file.write_bytes(CONTENT[:SLICE_BYTES] + bytes(SIZE - SLICE_BYTES))
    driven.tell(Hash(1, path, ["sha256"]), Advance(1, SLICE_BYTES, False))
    driven.run()
    file.write_bytes(CONTENT)
    driven.tell(Advance(1, SIZE, True))
    assert driven.run() == [Hashed(1, {"sha256": SHA256}, None)]


def test_idle_until_the_prefix_grows(driven: Driven, path: str) -> None:
    """A verifier without new bytes has nothing to do, so it waits."""
    driven.tell(Hash(1, path, ["sha256"]))
    assert not driven.verifier.busy
    driven.tell(Advance(1, 10, False))
    assert driven.verifier.busy
    driven.verifier.turn()
    assert not driven.verifier.busy


def test_digest_of_an_empty_file(driven: Driven, tmp_path: Path) -> None:
    """A file without a byte has a digest too."""
    empty = tmp_path / "empty"
    empty.touch()
    driven.tell(Hash(1, str(empty), ["sha256"]), Advance(1, 0, True))
    assert driven.run() == [Hashed(1, {"sha256": hashlib.sha256().hexdigest()}, None)]


def test_jobs_take_turns(driven: Driven, path: str, tmp_path: Path) -> None:
    """A small file does not wait until a large one is hashed."""
    small = tmp_path / "small"
    small.write_bytes(b"abc")
    driven.tell(
        Hash(1, path, ["sha256"]),
        Advance(1, SIZE, True),
        Hash(2, str(small), ["sha256"]),
        Advance(2, 3, True),
    )
    driven.verifier.turn()
    expected = Hashed(2, {"sha256": hashlib.sha256(b"abc").hexdigest()}, None)
    assert driven.said == [expected]
    assert driven.run() == [expected, Hashed(1, {"sha256": SHA256}, None)]


def test_a_second_hash_begins_anew(driven: Driven, path: str) -> None:
    """A job that starts over gets the digest of the bytes that are there then."""
    driven.tell(Hash(1, path, ["md5"]), Advance(1, SIZE, False))
    driven.run()
    Path(path).write_bytes(b"other")
    driven.tell(Hash(1, path, ["md5"]), Advance(1, 5, True))
    assert driven.run() == [Hashed(1, {"md5": hashlib.md5(b"other").hexdigest()}, None)]


def test_a_dropped_job_says_nothing(driven: Driven, path: str) -> None:
    """After a drop neither digests nor checks are told."""
    driven.tell(
        Hash(1, path, ["md5"]),
        Advance(1, SIZE, True),
        Check(2, path, [(0, 1, ""), (1, 1, "")]),
        Drop(1),
        Drop(2),
        Drop(3),
        Advance(1, SIZE, True),
        Quit(),
    )
    assert not driven.verifier.busy
    assert driven.run() == []


def test_a_file_that_is_missing(driven: Driven, tmp_path: Path) -> None:
    """A file that can't be opened is an answer, not the end of the verifier."""
    missing = str(tmp_path / "missing")
    driven.tell(Hash(1, missing, ["md5"]), Check(2, missing, [(0, 1, "")]))
    for message in driven.run():
        error = failure(message)
        assert isinstance(error, StorageError)
        assert missing in str(error)
    assert [type(message) for message in driven.said] == [Hashed, Checked]


def test_a_file_that_is_too_short(driven: Driven, path: str) -> None:
    """A file that ends before its prefix does is an error, and no endless loop."""
    driven.tell(Hash(1, path, ["md5"]), Advance(1, SIZE + 1, True))
    (message,) = driven.run()
    assert isinstance(failure(message), StorageError)
    assert not driven.verifier.busy


def test_an_unknown_algorithm(driven: Driven, path: str) -> None:
    """A digest that can't be computed here is an answer, and leaves no file open."""
    driven.tell(Hash(1, path, ["rot13"]))
    (message,) = driven.run()
    assert isinstance(failure(message), UsageError)


# --- pieces ---------------------------------------------------------------------------


def piece_rows(length: int) -> list[tuple[int, int, str]]:
    """Cut the content into pieces with their checksums."""
    rows = []
    for offset in range(0, SIZE, length):
        data = CONTENT[offset : offset + length]
        rows.append((offset, len(data), xxhash.xxh3_64_hexdigest(data)))
    return rows


@settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    length=st.sampled_from([500_000, 1 << 20, 3_000_000]),
    flips=st.sets(st.integers(0, SIZE - 1), max_size=3),
)
def test_check_finds_the_damaged_pieces(
    path: str, length: int, flips: set[int]
) -> None:
    """Exactly those pieces are bad that a byte of was changed."""
    damaged = bytearray(CONTENT)
    for flip in flips:
        damaged[flip] ^= 1
    Path(path).write_bytes(damaged)
    driven = Driven()
    rows = piece_rows(length)
    driven.tell(Check(1, path, rows))
    assert driven.run() == [
        Checked(
            1, [(o, n) for o, n, _ in rows if any(o <= f < o + n for f in flips)], None
        )
    ]


def test_check_of_what_cannot_be_read(
    driven: Driven, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A piece on a bad sector, or beyond the end, is a bad one; the others count."""
    good = piece_rows(1 << 20)
    broken = good[3][0]
    pread = PartReader.pread

    def failing(reader: PartReader, buffer: memoryview, offset: int) -> int:
        if offset <= broken + 5000 < offset + len(buffer):
            raise StorageError("Input/output error", errno=errno.EIO)
        return pread(reader, buffer, offset)

    monkeypatch.setattr(PartReader, "pread", failing)
    driven.tell(Check(1, path, [*good, (SIZE - 1, 2, "")]))
    assert driven.run() == [Checked(1, [good[3][:2], (SIZE - 1, 2)], None)]


def test_check_of_nothing(driven: Driven, path: str) -> None:
    """Without a piece to check, none is bad."""
    driven.tell(Check(1, path, []))
    assert driven.run() == [Checked(1, [], None)]


def test_a_check_takes_turns(driven: Driven, path: str) -> None:
    """A check reads one piece a turn, so that other jobs go on."""
    driven.tell(Check(1, path, piece_rows(SLICE_BYTES)))
    driven.verifier.turn()
    driven.verifier.turn()
    assert driven.said == []
    driven.verifier.turn()
    assert driven.said == [Checked(1, [], None)]


def test_a_hash_beside_a_check(driven: Driven, path: str) -> None:
    """Both are answered; of two checks the later one."""
    rows = piece_rows(SLICE_BYTES)
    driven.tell(Check(1, path, rows), Hash(1, path, ["md5"]), Check(1, path, rows))
    driven.tell(Advance(1, SIZE, True))
    said = driven.run()
    assert Hashed(1, {"md5": MD5}, None) in said
    assert said.count(Checked(1, [], None)) == 1


def test_close_ends_all_jobs(driven: Driven, path: str) -> None:
    """A verifier that is closed has no file open any more."""
    driven.tell(Hash(1, path, ["md5"]), Check(2, path, piece_rows(SLICE_BYTES)))
    driven.verifier.close()
    assert not driven.verifier.busy
