"""Every error segdl raises, as one tree.

    SegdlError
    ├─ UsageError (ValueError)        bad URL, header, option; raised before any I/O
    ├─ ConfigError (UsageError)       bad configuration file or environment variable
    ├─ TransferError                  the network or the origin failed
    │  ├─ ConnectError                no connection: DNS, refused, unreachable, proxy
    │  ├─ AddressRefused              the settings forbid to connect to that address
    │  ├─ TlsError                    certificate or handshake
    │  ├─ StallError                  next to nothing arrived for `timeout` seconds
    │  ├─ IncompleteTransfer          the connection ended before its bytes did
    │  ├─ SizeLimitExceeded           more bytes than `max_bytes` allows
    │  ├─ StatusError                 an HTTP status that is no success
    │  └─ ProtocolError               the origin broke HTTP
    │     ├─ RangeMismatch            the answer is not the range that was asked for
    │     ├─ RepresentationChanged    another validator or complete length than recorded
    │     └─ RedirectRefused          scheme, downgrade, or too many hops
    ├─ IntegrityError                 the bytes do not have the expected digest
    ├─ StorageError (OSError)         the local file system failed; keeps `errno`
    │  ├─ DiskFull
    │  ├─ DestinationExists
    │  └─ DestinationBusy             another engine is downloading to the same name
    ├─ ManifestError                  the sidecar cannot be used
    ├─ WorkerError                    a worker process died, or did not start
    └─ Cancelled                      the task was cancelled

Each takes one message and keyword fields, survives pickling and copying, and holds
no secret: whoever builds one passes URLs through `segdl._urls.redact` first.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "AddressRefused",
    "Cancelled",
    "ConfigError",
    "ConnectError",
    "DestinationBusy",
    "DestinationExists",
    "DiskFull",
    "IncompleteTransfer",
    "IntegrityError",
    "ManifestError",
    "ProtocolError",
    "RangeMismatch",
    "RedirectRefused",
    "RepresentationChanged",
    "SegdlError",
    "SizeLimitExceeded",
    "StallError",
    "StatusError",
    "StorageError",
    "TlsError",
    "TransferError",
    "UsageError",
    "WorkerError",
]


class SegdlError(Exception):
    """
    Base of every error segdl raises.

    Args:
        message: What failed, with which numbers, and what to do; no secret in it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self._fields())

    def _fields(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "message"}


def _rebuild(cls: type[SegdlError], message: str, fields: dict[str, Any]) -> SegdlError:
    error = cls(message)
    for name, value in fields.items():
        setattr(error, name, value)
    return error


class UsageError(SegdlError, ValueError):
    """The caller passed something that cannot work, found before any I/O."""


class ConfigError(UsageError):
    """A configuration file or environment variable holds a bad key or value."""


class TransferError(SegdlError):
    """The network or the origin failed."""


class ConnectError(TransferError):
    """No connection could be made: name lookup, refusal, no route, proxy."""


class AddressRefused(TransferError):
    """The origin's address is one that `allow_addresses` does not allow."""


class TlsError(TransferError):
    """The certificate was not accepted, or the TLS handshake failed."""


class StallError(TransferError):
    """A connection delivered next to nothing for the whole of `timeout`."""


class IncompleteTransfer(TransferError):
    """The connection ended before its last byte had arrived."""


class SizeLimitExceeded(TransferError):
    """The remote file is larger than `max_bytes` allows; never retried."""


class StatusError(TransferError):
    """
    The origin answered with a status that is no success.

    Args:
        status: The HTTP status code, 100 - 599.
        retry_after_seconds: What Retry-After asked for, None without one.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_seconds = retry_after_seconds


class ProtocolError(TransferError):
    """The origin's answer breaks HTTP, or is one segdl must not use."""


class RangeMismatch(ProtocolError):
    """The answer to a range request is not that range of that representation."""


class RepresentationChanged(ProtocolError):
    """The remote file is another one than the one the download began with."""


class RedirectRefused(ProtocolError):
    """A redirect leads where segdl does not go."""


class IntegrityError(SegdlError):
    """
    The bytes do not have the digest they should have.

    Args:
        algorithm: Such as "sha256".
        expected: The digest that was given or stated, lower-case hexadecimal.
        actual: The digest the bytes have, lower-case hexadecimal.
    """

    def __init__(
        self, message: str, *, algorithm: str = "", expected: str = "", actual: str = ""
    ) -> None:
        super().__init__(message)
        self.algorithm = algorithm
        self.expected = expected
        self.actual = actual


class StorageError(SegdlError, OSError):
    """
    The local file system failed; never retried, and the task stays resumable.

    Args:
        errno: The system's error number, None where none applies.
    """

    def __init__(self, message: str, *, errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = errno

    def _fields(self) -> dict[str, Any]:
        # OSError keeps errno in a C slot, so it is not in vars().
        return {**super()._fields(), "errno": self.errno}


class DiskFull(StorageError):
    """
    The file system has too little room, or the quota is used up.

    Args:
        missing_bytes: How much more room is needed; 0 when unknown.
    """

    def __init__(
        self, message: str, *, errno: int | None = None, missing_bytes: int = 0
    ) -> None:
        super().__init__(message, errno=errno)
        self.missing_bytes = missing_bytes


class DestinationExists(StorageError):
    """The destination is there already and may not be replaced."""


class DestinationBusy(StorageError):
    """Another engine, here or in another process, is writing this destination."""


class ManifestError(SegdlError):
    """The sidecar manifest is damaged beyond use, or belongs to another download."""


class WorkerError(SegdlError):
    """
    A worker process died, or could not be started.

    Args:
        exitcode: The process's exit code, negative for a signal, None if unknown.
    """

    def __init__(self, message: str, *, exitcode: int | None = None) -> None:
        super().__init__(message)
        self.exitcode = exitcode


class Cancelled(SegdlError):
    """The task was cancelled before it finished."""
