"""Exit codes: every class of error has one."""

from __future__ import annotations

import pytest

from segdl import errors
from segdl.cli.exit_codes import combined, exit_code

CODES = {
    "SegdlError": 1,
    "UsageError": 2,
    "ConfigError": 2,
    "TransferError": 3,
    "AddressRefused": 3,
    "ConnectError": 3,
    "TlsError": 3,
    "StallError": 3,
    "IncompleteTransfer": 3,
    "StatusError": 3,
    "SizeLimitExceeded": 3,
    "ProtocolError": 3,
    "RangeMismatch": 3,
    "RepresentationChanged": 4,
    "RedirectRefused": 3,
    "IntegrityError": 4,
    "StorageError": 5,
    "DiskFull": 5,
    "DestinationExists": 5,
    "DestinationBusy": 5,
    "ManifestError": 1,
    "WorkerError": 1,
    "Cancelled": 1,
}


def test_every_class_of_error_is_in_the_table() -> None:
    """A new class of error is given its exit code on purpose."""
    assert sorted(CODES) == sorted(errors.__all__)


@pytest.mark.parametrize(("name", "code"), CODES.items())
def test_an_error_has_the_exit_code_of_its_class(name: str, code: int) -> None:
    """Each class of the tree has the exit code that the contract says."""
    assert exit_code(getattr(errors, name)("why")) == code


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, 3), (401, 6), (403, 6), (404, 3), (407, 6), (429, 3), (500, 3)],
)
def test_three_statuses_are_about_authentication(status: int, code: int) -> None:
    """401, 403 and 407 have an exit code of their own."""
    assert exit_code(errors.StatusError("why", status=status)) == code


def test_a_foreign_error_is_another_failure() -> None:
    """What is not segdl's gives 1."""
    assert exit_code(ValueError()) == 1


@pytest.mark.parametrize(
    ("codes", "expected"),
    [([], 0), ([0, 0], 0), ([3], 3), ([3, 0, 3], 3), ([3, 4], 1), ([5, 0], 5)],
)
def test_several_failures_make_one_code(codes: list[int], expected: int) -> None:
    """A failure that all share is told; different kinds give 1."""
    assert combined(codes) == expected
