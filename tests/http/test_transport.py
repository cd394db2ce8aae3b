"""Connections that are too many, or lie (matrix rows 43, 45 and 47)."""

from __future__ import annotations

import pytest
from http_checks import (
    MIB,
    NAME,
    check_failed,
    check_whole,
    names,
    peak,
    recorded_bytes,
)

from segdl.errors import (
    IntegrityError,
    ProtocolError,
    RangeMismatch,
)

SIZE = 20 * MIB + 4321
RATE = 24 * MIB


@pytest.mark.parametrize("over", ["503", "rst"])
@pytest.mark.parametrize("cap", [1, 3])
def test_43_origin_that_caps_connections(origin, fetch, over, cap) -> None:
    """Refused connections make the task do with those it gets."""
    origin.rate = RATE
    url = origin.blob_url(1, SIZE, cap=cap, over=over)
    check_whole(fetch(url, connections=8), origin.blob(1, SIZE))
    refused = [r for r in origin.log.entries if r.status != 206]
    assert len(refused) < 25


@pytest.mark.parametrize("connections", [1, 2, 7])
def test_43_never_more_connections_than_said(origin, fetch, connections) -> None:
    """The number of connections is a limit."""
    origin.rate = 12 * MIB
    task = fetch(origin.blob_url(1, SIZE), connections=connections)
    check_whole(task, origin.blob(1, SIZE))
    assert peak(origin) <= connections


@pytest.mark.parametrize(
    ("fault", "kind", "word"),
    [
        ("garbage", ProtocolError, ""),
        ("hdrflood=2000000", ProtocolError, "larger than"),
        ("hdrflood", ProtocolError, "larger than"),
        ("interim=2000", ProtocolError, "more than 1000 lines"),
    ],
)
def test_45_head_that_is_none(origin, fetch, out, fault, kind, word) -> None:
    """What is no HTTP, or never ends, is an error after bounded reading."""
    task = fetch(origin.blob_url(1, SIZE, f=fault), retry_times=1)
    check_failed(task, kind, word)
    assert len(origin.log.entries) == 2
    assert names(out) == []


@pytest.mark.parametrize(
    ("lines", "word"),
    [
        ("X: a%00b", "NUL"),
        ("X: a%0Db", ""),
        ("no colon here", ""),
        (": no name", "no header field"),
    ],
)
def test_45_header_field_that_is_none(origin, fetch, out, lines, word) -> None:
    """A field that breaks the grammar spoils the whole answer."""
    url = origin.blob_url(1, SIZE) + f"?headers={lines}".replace(" ", "%20")
    task = fetch(url, retry_times=0)
    check_failed(task, ProtocolError, word)
    assert names(out) == []


@pytest.mark.parametrize("lines", ["X: a|  folded: b", "X:", "X-ü: ü", "X : a"])
def test_45_odd_header_field_is_harmless(origin, fetch, lines) -> None:
    """Folded lines, empty values and foreign letters are read past."""
    task = fetch(origin.blob_url(1, SIZE, headers=lines))
    check_whole(task, origin.blob(1, SIZE))


def test_45_early_hints_are_read_past(origin, fetch) -> None:
    """Informational answers come before the real one."""
    task = fetch(origin.blob_url(1, SIZE, f="interim=5"))
    check_whole(task, origin.blob(1, SIZE))


def test_45_connection_close(origin, fetch) -> None:
    """An origin that closes after each answer is no failure."""
    url = origin.blob_url(1, SIZE, f="close")
    check_whole(fetch(url, retry_times=0), origin.blob(1, SIZE))


def test_47_captive_portal_on_the_way(origin, fetch, out) -> None:
    """A login page in place of a range is no part of the file, and no new version."""
    task = fetch(origin.blob_url(1, SIZE, f="html@range2,*"), retry_times=1)
    check_failed(task, RangeMismatch, "HTML page instead of the file")
    assert recorded_bytes(out, origin.blob(1, SIZE)) >= 0


def test_47_captive_portal_for_a_moment(origin, fetch) -> None:
    """Once logged in, the file goes on."""
    task = fetch(origin.blob_url(1, SIZE, f="html@range2,3"))
    check_whole(task, origin.blob(1, SIZE))


def test_47_captive_portal_from_the_start(origin, fetch, out) -> None:
    """With a checksum, a login page is never taken for the file."""
    digest = origin.blob(1, SIZE).digest()
    task = fetch(origin.blob_url(1, SIZE, f="html"), checksum=f"sha256:{digest}")
    check_failed(task, IntegrityError, "sha256")
    assert NAME not in names(out)
