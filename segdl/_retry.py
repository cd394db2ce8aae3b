"""What to do about a failure: pure decisions, with clock and random passed in.

    failure ──classify──> CONTINUE   ask for the rest again; the origin is fine
                          RETRY      ask again after a delay; counts if nothing came
                          RESOLVE    the link expired: resolve the given URL again
                          CHANGED    another representation: start over, or fail
                          FATAL      asking again cannot help

libcurl's result codes become errors here too, by number (curl.h), so that only
`_transfer` needs libcurl itself.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from segdl._headers import MAX_RETRY_AFTER_SECONDS
from segdl.errors import (
    ConnectError,
    IncompleteTransfer,
    ProtocolError,
    RangeMismatch,
    RedirectRefused,
    RepresentationChanged,
    SegdlError,
    StallError,
    StatusError,
    StorageError,
    TlsError,
    TransferError,
    UsageError,
    WorkerError,
)

MAX_DELAY_SECONDS = 60.0

# RFC 9110 s15 and what proxies add (520 - 527): these pass.
_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504, *range(520, 528)})
# A signed link answers one of these once its time is over.
_EXPIRED_STATUS = frozenset({400, 401, 403, 404, 410})
_BUSY_STATUS = frozenset({429, 503})

# CURLcode -> class; what is not here is a TransferError that is not retried.
_CURL_ERRORS: dict[int, type[TransferError]] = {
    **dict.fromkeys((5, 6, 7, 97), ConnectError),
    **dict.fromkeys((35, 51, 53, 54, 58, 59, 60, 64, 66, 77, 80, 82, 83, 90), TlsError),
    **dict.fromkeys((91, 98), TlsError),
    28: StallError,
    **dict.fromkeys((16, 18, 52, 55, 56, 92, 95), IncompleteTransfer),
    **dict.fromkeys((1, 47), RedirectRefused),
    **dict.fromkeys((8, 33, 61, 63, 100), ProtocolError),
}
# A reset in the handshake shows up as 35; 55 and 56 cover it later on.
_PASSING_TLS = frozenset({35})


class Action(enum.Enum):
    """What a failure calls for."""

    CONTINUE = "continue"
    RETRY = "retry"
    RESOLVE = "resolve"
    CHANGED = "changed"
    FATAL = "fatal"


def curl_error(code: int, text: str, *, connected: bool, proxied: bool) -> SegdlError:
    """
    Turn libcurl's result into an error.

    Args:
        code: CURLcode, not 0.
        text: libcurl's own words, redacted.
        connected: Whether the connection stood; tells a connect time-out (28) from a
            stall.
        proxied: Whether a proxy was used.
    """
    cls = _CURL_ERRORS.get(code, TransferError)
    if code == 100:
        # libcurl says nothing of its own (8.x, a line of more than 300 KiB).
        text += "a line of the response head is larger than libcurl takes"
    if cls is StallError and not connected:
        cls = ConnectError
    if "HTTP/0.9" in text:
        cls = ProtocolError  # also code 1, but what came is no HTTP at all
    if code == 3:
        return UsageError(f"libcurl cannot use the URL: {text}")
    if cls is TlsError and code == 60:
        text += (
            "; if the server uses a private authority, pass its certificate as ca_file"
        )
    if cls is ConnectError and proxied:
        text += " (through the proxy)"
    error = cls(f"{text} (libcurl {code})")
    error.code = code  # type: ignore[attr-defined]  # read by classify()
    return error


def classify(error: SegdlError, *, resolvable: bool = False) -> Action:
    """
    Decide what a failed lane calls for.

    Args:
        error: Why it failed.
        resolvable: Whether the URL it used came from a redirect, so that the URL the
            user gave can be resolved again.
    """
    if isinstance(error, RepresentationChanged):
        return Action.CHANGED
    if isinstance(error, StatusError):
        if resolvable and (expires_with(error.status) or 300 <= error.status < 400):
            return Action.RESOLVE
        return Action.RETRY if error.status in _PASSING_STATUS else Action.FATAL
    if isinstance(error, RedirectRefused):
        return Action.FATAL
    if isinstance(error, TlsError):
        passing = getattr(error, "code", None) in _PASSING_TLS
        return Action.RETRY if passing else Action.FATAL
    if isinstance(error, (IncompleteTransfer, StallError)):
        return Action.CONTINUE
    if isinstance(error, (ConnectError, RangeMismatch, ProtocolError, WorkerError)):
        return Action.RETRY
    if isinstance(error, (StorageError, UsageError)):
        return Action.FATAL
    return Action.FATAL


def expires_with(status: int) -> bool:
    """Tell whether a signed link may answer so once its time is over."""
    return status in _EXPIRED_STATUS


def with_advice(error: SegdlError, path: str) -> SegdlError:
    """
    Say how to go on where a signed link may have expired.

    Args:
        error: Why the download failed.
        path: Of the file, much of which is there.
    """
    if isinstance(error, StatusError) and expires_with(error.status):
        error.message += (
            "; if the link has expired, a new one goes on with what is there: "
            f"segdl resume {path} --url URL"
        )
    return error


def is_busy(error: SegdlError) -> bool:
    """Tell whether an origin said that it is too busy, for anybody."""
    return isinstance(error, StatusError) and error.status in _BUSY_STATUS


def may_be_refused(error: SegdlError) -> bool:
    """
    Tell whether the origin may have refused one connection more than it likes.

    Some say so (429, 503), some do not accept it, some cut it off.
    """
    return is_busy(error) or isinstance(error, (ConnectError, IncompleteTransfer))


def delay_seconds(
    attempt: int,
    retry_delay: float,
    *,
    retry_after_seconds: float | None = None,
    random: Callable[[], float],
) -> float:
    """
    Compute how long to wait before an attempt.

    `retry_delay * 2 ** (attempt - 1)`, at most 60 s (or `retry_delay`, when that is
    more), of which the last half is drawn at random, so that many clients do not come
    back in step. Retry-After wins, unless it is 0, and gets up to a tenth on top,
    within six hours.

    Args:
        attempt: 1 for the first retry.
        retry_delay: The user's setting, in seconds.
        retry_after_seconds: What the origin asked for, None if it did not.
        random: Gives numbers in [0, 1).
    """
    ceiling = max(MAX_DELAY_SECONDS, retry_delay)
    delay = min(ceiling, retry_delay * 2.0 ** min(attempt - 1, 30))
    delay *= 0.5 + 0.5 * random()
    # A server that says 0 to all would use up every attempt in a moment.
    if retry_after_seconds:
        delay = min(
            retry_after_seconds * (1.0 + 0.1 * random()), MAX_RETRY_AFTER_SECONDS
        )
    return delay
