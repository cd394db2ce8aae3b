"""What each failure calls for, and how long segdl waits before it asks again."""

from __future__ import annotations

import inspect

import pycurl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segdl import errors
from segdl._retry import Action, classify, curl_error, delay_seconds, may_be_refused
from segdl.errors import (
    ConnectError,
    IncompleteTransfer,
    ProtocolError,
    RedirectRefused,
    SegdlError,
    StallError,
    StatusError,
    TlsError,
    TransferError,
    UsageError,
)

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, SegdlError)
}

# Every class of the tree, but StatusError, whose status decides.
ACTIONS = {
    "AddressRefused": Action.FATAL,
    "Cancelled": Action.FATAL,
    "ConfigError": Action.FATAL,
    "ConnectError": Action.RETRY,
    "DestinationBusy": Action.FATAL,
    "DestinationExists": Action.FATAL,
    "DiskFull": Action.FATAL,
    "IncompleteTransfer": Action.CONTINUE,
    "IntegrityError": Action.FATAL,
    "ManifestError": Action.FATAL,
    "ProtocolError": Action.RETRY,
    "RangeMismatch": Action.RETRY,
    "RedirectRefused": Action.FATAL,
    "RepresentationChanged": Action.CHANGED,
    "SegdlError": Action.FATAL,
    "SizeLimitExceeded": Action.FATAL,
    "StallError": Action.CONTINUE,
    "StorageError": Action.FATAL,
    "TlsError": Action.FATAL,
    "TransferError": Action.FATAL,
    "UsageError": Action.FATAL,
    "WorkerError": Action.RETRY,
}

CURL_CLASSES: dict[type[SegdlError], set[str]] = {
    ConnectError: {
        "COULDNT_CONNECT",
        "COULDNT_RESOLVE_HOST",
        "COULDNT_RESOLVE_PROXY",
        "PROXY",
    },
    IncompleteTransfer: {
        "FTP_CANT_RECONNECT",  # old names of HTTP2 and PARTIAL_FILE
        "FTP_PARTIAL_FILE",
        "GOT_NOTHING",
        "HTTP2",
        "HTTP2_STREAM",
        "HTTP3",
        "PARTIAL_FILE",
        "RECV_ERROR",
        "SEND_ERROR",
    },
    ProtocolError: {
        "BAD_CONTENT_ENCODING",
        "FILESIZE_EXCEEDED",
        "HTTP_RANGE_ERROR",
        "RANGE_ERROR",
        "WEIRD_SERVER_REPLY",
        "FTP_WEIRD_SERVER_REPLY",
    },
    RedirectRefused: {"TOO_MANY_REDIRECTS", "UNSUPPORTED_PROTOCOL"},
    StallError: {"OPERATION_TIMEDOUT", "OPERATION_TIMEOUTED"},
    TlsError: {
        "ECH_REQUIRED",
        "PEER_FAILED_VERIFICATION",
        "SSL_CACERT",
        "SSL_CACERT_BADFILE",
        "SSL_CERTPROBLEM",
        "SSL_CIPHER",
        "SSL_CLIENTCERT",
        "SSL_CONNECT_ERROR",
        "SSL_CRL_BADFILE",
        "SSL_ENGINE_INITFAILED",
        "SSL_ENGINE_NOTFOUND",
        "SSL_ENGINE_SETFAILED",
        "SSL_INVALIDCERTSTATUS",
        "SSL_ISSUER_ERROR",
        "SSL_PEER_CERTIFICATE",
        "SSL_PINNEDPUBKEYNOTMATCH",
        "SSL_SHUTDOWN_FAILED",
        "USE_SSL_FAILED",
        "FTP_SSL_FAILED",
    },
    UsageError: {"URL_MALFORMAT"},
}

# A failure with one of these cannot be helped by asking again, or cannot happen: other
# protocols, bad use of libcurl, no memory.
CURL_FATAL_PREFIXES = ("FTP_", "LDAP_", "TELNET_", "TFTP_", "RTSP_")
CURL_FATAL = {
    "ABORTED_BY_CALLBACK",
    "AGAIN",
    "ALREADY_COMPLETE",
    "AUTH_ERROR",
    "BAD_CALLING_ORDER",
    "BAD_DOWNLOAD_RESUME",
    "BAD_FUNCTION_ARGUMENT",
    "BAD_PASSWORD_ENTERED",
    "CHUNK_FAILED",
    "CONV_FAILED",
    "CONV_REQD",
    "FAILED_INIT",
    "FILE_COULDNT_READ_FILE",
    "FUNCTION_NOT_FOUND",
    "HTTP_NOT_FOUND",
    "HTTP_PORT_FAILED",
    "HTTP_POST_ERROR",
    "HTTP_RETURNED_ERROR",
    "INTERFACE_FAILED",
    "LIBRARY_NOT_FOUND",
    "LOGIN_DENIED",
    "MALFORMAT_USER",
    "NOT_BUILT_IN",
    "NO_CONNECTION_AVAILABLE",
    "OUT_OF_MEMORY",
    "PASSWORD_NOT_MATCHED",
    "QUIC_CONNECT_ERROR",
    "QUOTE_ERROR",
    "READ_ERROR",
    "RECURSIVE_API_CALL",
    "REMOTE_ACCESS_DENIED",
    "REMOTE_DISK_FULL",
    "REMOTE_FILE_EXISTS",
    "REMOTE_FILE_NOT_FOUND",
    "SEND_FAIL_REWIND",
    "SETOPT_OPTION_SYNTAX",
    "SHARE_IN_USE",
    "SSH",
    "TOO_LARGE",
    "UNKNOWN_OPTION",
    "UNKNOWN_TELNET_OPTION",
    "UNRECOVERABLE_POLL",
    "UPLOAD_FAILED",
    "URL_MALFORMAT_USER",
    "WRITE_ERROR",
}

# E_MULTI_* are another set of numbers: what the multi interface's own calls return.
CURL_NAMES = sorted(
    name[2:]
    for name in dir(pycurl)
    if name.startswith("E_") and not name.startswith(("E_OK", "E_MULTI_", "E_CALL_"))
)


def of_code(code: int, *, connected: bool = True, proxied: bool = False) -> SegdlError:
    """Make the error of a libcurl result."""
    return curl_error(code, "what it said", connected=connected, proxied=proxied)


def test_every_class_of_error_is_classified() -> None:
    """A new error class must be given its action here."""
    assert sorted(CLASSES) == sorted({*ACTIONS, "StatusError"})


@pytest.mark.parametrize(("name", "action"), sorted(ACTIONS.items()))
@pytest.mark.parametrize("resolvable", [False, True])
def test_action_of_each_error(name: str, action: Action, resolvable: bool) -> None:
    """The network's failures are tried again; disk, content and misuse never are."""
    assert classify(CLASSES[name]("why"), resolvable=resolvable) is action


@pytest.mark.parametrize("status", range(200, 600))
def test_action_of_each_status(status: int) -> None:
    """Only what passes by itself is asked again (RFC 9110 s15, 520 - 527 by CDNs)."""
    passing = {408, 425, 429, 500, 502, 503, 504, *range(520, 528)}
    expected = Action.RETRY if status in passing else Action.FATAL
    assert classify(StatusError("why", status=status)) is expected


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 401, 403, 404, 410])
def test_link_that_may_have_expired_is_resolved_again(status: int) -> None:
    """What a signed URL answers after its time sends us back to the URL given."""
    error = StatusError("why", status=status)
    assert classify(error, resolvable=True) is Action.RESOLVE
    assert classify(error, resolvable=False) is Action.FATAL


@pytest.mark.parametrize("status", [402, 405, 412, 416, 418, 451, 501])
def test_status_that_no_fresh_link_cures(status: int) -> None:
    """A refusal that is about the request, not the link, is final."""
    error = StatusError("why", status=status)
    assert classify(error, resolvable=True) is Action.FATAL


@pytest.mark.parametrize("name", CURL_NAMES)
def test_every_result_of_libcurl_is_classified(name: str) -> None:
    """Each pycurl.E_* has its error class, or is listed as one that is not retried."""
    code = getattr(pycurl, f"E_{name}")
    expected = next((c for c, names in CURL_CLASSES.items() if name in names), None)
    if expected is None:
        listed = name in CURL_FATAL or name.startswith(CURL_FATAL_PREFIXES)
        assert listed, f"E_{name} ({code}) is new: classify it"
        expected = TransferError
    error = of_code(code)
    assert type(error) is expected
    assert f"(libcurl {code})" in str(error) or expected is UsageError


def test_time_out_before_the_connection_stood_is_no_stall() -> None:
    """Code 28 is a connect time-out until there is a connection, then a stall."""
    assert type(of_code(28, connected=False)) is ConnectError
    assert type(of_code(28, connected=True)) is StallError


def test_line_of_the_head_that_is_too_large() -> None:
    """Code 100, which pycurl has no name for, breaks HTTP; libcurl gives no words."""
    error = curl_error(100, "", connected=True, proxied=False)
    assert type(error) is ProtocolError
    assert "larger than libcurl takes" in str(error)
    assert classify(error) is Action.RETRY


def test_reset_in_the_handshake_is_tried_again() -> None:
    """A refused certificate is final; a handshake that broke is not (code 35)."""
    assert classify(of_code(35)) is Action.RETRY
    for code in (51, 58, 60, 77, 83, 91):
        assert classify(of_code(code)) is Action.FATAL


def test_refused_certificate_says_what_to_do() -> None:
    """Whoever runs a private authority is told about ca_file."""
    assert "ca_file" in str(of_code(60))


def test_failure_through_a_proxy_says_so() -> None:
    """A message about a connection names the proxy it went through."""
    assert "through the proxy" in str(of_code(7, proxied=True))
    assert "proxy" not in str(of_code(7))


@pytest.mark.parametrize(
    ("error", "busy"),
    [
        (StatusError("why", status=429), True),
        (StatusError("why", status=503), True),
        (ConnectError("why"), True),
        (StatusError("why", status=500), False),
        (StatusError("why", status=404), False),
        (IncompleteTransfer("why"), True),
        (StallError("why"), False),
    ],
)
def test_busy_origin_is_recognised(error: SegdlError, busy: bool) -> None:
    """A refusal, or a connection cut off, may mean that there are too many."""
    assert may_be_refused(error) is busy


@pytest.mark.parametrize(
    ("attempt", "lowest", "highest"),
    [
        (1, 2.5, 5.0),
        (2, 5.0, 10.0),
        (3, 10.0, 20.0),
        (4, 20.0, 40.0),
        (5, 30.0, 60.0),
        (6, 30.0, 60.0),
        (5000, 30.0, 60.0),
    ],
)
def test_delay_doubles_up_to_a_minute(
    attempt: int, lowest: float, highest: float
) -> None:
    """The delay doubles to 60 s; its last half is left to chance."""
    assert delay_seconds(attempt, 5, random=lambda: 0.0) == lowest
    assert delay_seconds(attempt, 5, random=lambda: 1.0) == highest


def test_delay_the_user_set_above_a_minute_is_kept() -> None:
    """The cap never makes the first delay shorter than what the user asked for."""
    assert delay_seconds(1, 300, random=lambda: 1.0) == 300.0
    assert delay_seconds(9, 300, random=lambda: 1.0) == 300.0


def test_no_delay_when_the_user_wants_none() -> None:
    """retry_delay=0 asks again at once."""
    assert delay_seconds(7, 0, random=lambda: 1.0) == 0.0


@pytest.mark.parametrize("asked", [0.5, 7.0, 21600.0])
def test_retry_after_wins(asked: float) -> None:
    """What the origin asks for is the least to wait; a tenth more, or 6 h, the most."""
    for chance, factor in ((0.0, 1.0), (1.0, 1.1)):
        delay = delay_seconds(
            3, 5, retry_after_seconds=asked, random=lambda chance=chance: chance
        )
        assert delay == pytest.approx(min(asked * factor, 21600.0))


def test_retry_after_0_uses_no_attempt_up_at_once() -> None:
    """A server that says 0 each time is asked after delays that grow."""
    asked = [
        delay_seconds(n, 5, retry_after_seconds=0.0, random=lambda: 1.0) for n in (1, 2)
    ]
    assert asked == [5.0, 10.0]


@given(
    attempt=st.integers(1, 10_000),
    retry_delay=st.floats(0, 3600),
    chance=st.floats(0, 1, exclude_max=True),
)
def test_delay_stays_within_its_bounds(
    attempt: int, retry_delay: float, chance: float
) -> None:
    """However many attempts there were, the delay is finite and bounded."""
    delay = delay_seconds(attempt, retry_delay, random=lambda: chance)
    assert 0 <= delay <= max(60.0, retry_delay)
    assert delay >= retry_delay / 2 * (1 - 1e-9)
