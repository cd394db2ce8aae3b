"""Which digests a file must have, and what the verifier is told."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from fake_crew import FakeCrew

from segdl._digests import Digest, parse_checksum
from segdl._messages import Advance, Drop, Hash
from segdl._plan import MIB
from segdl._verification import Verification

SHA = "ab" * 32
MD5 = "cd" * 16
PATH = "/nowhere/a.bin.part"
JOB = SimpleNamespace(number=7)
GIVEN = parse_checksum(f"sha256:{SHA}")
STATED = ("md5", MD5, "Content-MD5")


def verification(
    given: Digest | None = GIVEN, *, enabled: bool = True
) -> tuple[Verification, FakeCrew]:
    """Give the verification of job 7, and its scheduler."""
    crew = FakeCrew()
    return Verification(JOB, crew, given, enabled=enabled), crew  # type: ignore[arg-type]  # a number is all it needs of a job


def test_nothing_is_expected() -> None:
    """Without a digest there is nothing to verify, and nothing is hashed."""
    made, crew = verification(None)
    assert (bool(made), made.best) == (False, None)
    made.start(PATH)
    made.advance(100 * MIB)
    assert (made.running, crew.verified) == (False, [])


def test_verifying_is_switched_off() -> None:
    """Switched off, neither the caller's nor a stated digest counts."""
    made, _ = verification(enabled=False)
    made.expect([STATED])
    assert (bool(made), made.given, made.best) == (False, None, None)


def test_what_the_server_states_is_expected_too() -> None:
    """All digests are verified; the caller's is the one that is shown."""
    made, crew = verification()
    made.expect([STATED])
    made.start(PATH)
    assert crew.verified == [Hash(7, PATH, ["sha256", "md5"])]
    assert made.best == f"sha256:{SHA}"


def test_the_strongest_stated_digest_is_shown() -> None:
    """Without the caller's, the first stated digest is shown."""
    made, _ = verification(None)
    made.expect([("sha256", SHA, "Repr-Digest"), STATED])
    assert made.best == f"sha256:{SHA}"


def test_the_caller_counts_more() -> None:
    """Of two digests of one algorithm, the caller's is expected."""
    made, _ = verification()
    made.expect([("sha256", "00" * 32, "Repr-Digest")])
    assert made.wrong({"sha256": SHA}) is None


def test_a_later_answer_replaces_what_was_stated() -> None:
    """After the file changed, the old version's digest is not expected any more."""
    made, _ = verification(None)
    made.expect([("sha256", SHA, "Repr-Digest")])
    made.expect([STATED])
    assert made.best == f"md5:{MD5}"
    made.expect([])
    assert not made


def test_what_was_stated_of_a_part_goes_on_to_count() -> None:
    """The rest of the file may come from somebody who states nothing, or another."""
    made, _ = verification(None)
    made.expect([("sha256", SHA, "Repr-Digest")])
    made.expect([], further=True)
    assert made.best == f"sha256:{SHA}"
    made.expect([("sha256", "00" * 32, "Repr-Digest"), STATED], further=True)
    assert made.wrong({"sha256": SHA, "md5": MD5}) is None


def test_rows_from_a_message() -> None:
    """What comes as JSON lists is taken as well."""
    made, _ = verification(None)
    made.expect([list(STATED)])  # type: ignore[list-item]  # JSON has no tuples
    assert made.best == f"md5:{MD5}"


def test_the_verifier_hears_of_progress_in_steps() -> None:
    """The prefix is told when it has grown by 8 MiB, not for every piece."""
    made, crew = verification()
    made.start(PATH)
    crew.verified.clear()
    for prefix in range(0, 24 * MIB + 1, MIB):
        made.advance(prefix)
    assert crew.verified == [
        Advance(7, 8 * MIB, False),
        Advance(7, 16 * MIB, False),
        Advance(7, 24 * MIB, False),
    ]


def test_a_new_start_tells_the_prefix_again() -> None:
    """A verifier that begins anew hears the whole prefix."""
    made, crew = verification()
    made.start(PATH)
    made.advance(20 * MIB)
    crew.verified.clear()
    made.start(PATH)
    made.advance(20 * MIB)
    assert crew.verified == [Hash(7, PATH, ["sha256"]), Advance(7, 20 * MIB, False)]


@pytest.mark.parametrize("started", [True, False])
def test_finish_asks_for_the_digests(started: bool) -> None:
    """The end asks for the digests, of a job not started yet too."""
    made, crew = verification()
    if started:
        made.start(PATH)
    made.finish(PATH, 100)
    assert crew.verified == [Hash(7, PATH, ["sha256"]), Advance(7, 100, True)]


def test_right_and_wrong_digests() -> None:
    """One wrong digest of several is enough, and is told with its actual value."""
    made, _ = verification()
    made.expect([STATED])
    made.start(PATH)
    assert made.wrong({"sha256": SHA, "md5": MD5}) is None
    assert not made.running
    assert made.wrong({"sha256": SHA, "md5": "00" * 16}) == (
        Digest(*STATED),
        "00" * 16,
    )
    assert made.wrong({"sha256": "11" * 32, "md5": MD5}) == (GIVEN, "11" * 32)


def test_drop() -> None:
    """A job that is dropped is not told about any more."""
    made, crew = verification()
    made.start(PATH)
    made.drop()
    made.advance(100 * MIB)
    assert crew.verified == [Hash(7, PATH, ["sha256"]), Drop(7)]
