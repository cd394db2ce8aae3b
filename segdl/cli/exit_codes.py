"""Exit codes: what a script can tell from how `segdl` ended.

| code | meaning                                                    |
|------|------------------------------------------------------------|
| 0    | all done                                                   |
| 1    | another failure, or several kinds at once                  |
| 2    | usage: an argument, a configuration file, an input file    |
| 3    | the network, or HTTP                                       |
| 4    | a checksum does not match, or the remote file changed      |
| 5    | the local file system: full, permission, read-only, exists |
| 6    | authentication: 401, 403, 407                              |
| 130  | interrupted; 128 + the signal's number for another signal  |
"""

from __future__ import annotations

from collections.abc import Iterable

from segdl.errors import (
    IntegrityError,
    RepresentationChanged,
    SegdlError,
    StatusError,
    StorageError,
    TransferError,
    UsageError,
)

__all__ = ["INTERRUPTED", "OK", "OTHER", "USAGE", "combined", "exit_code"]

OK = 0
OTHER = 1
USAGE = 2
NETWORK = 3
CONTENT = 4
STORAGE = 5
AUTHENTICATION = 6
INTERRUPTED = 130

_AUTHENTICATION_STATUS = frozenset({401, 403, 407})

# The nearest ancestor in the tree of errors counts.
_BY_CLASS: dict[type, int] = {
    SegdlError: OTHER,
    UsageError: USAGE,
    TransferError: NETWORK,
    RepresentationChanged: CONTENT,
    IntegrityError: CONTENT,
    StorageError: STORAGE,
}


def exit_code(error: BaseException) -> int:
    """
    Give the exit code of an error.

    Args:
        error: Any; one that is not segdl's gives 1.
    """
    if isinstance(error, StatusError) and error.status in _AUTHENTICATION_STATUS:
        return AUTHENTICATION
    codes = (_BY_CLASS[kind] for kind in type(error).__mro__ if kind in _BY_CLASS)
    return next(codes, OTHER)


def combined(codes: Iterable[int]) -> int:
    """
    Make one exit code of several.

    Args:
        codes: One for each task.

    Returns:
        The one that all failures share, 1 when they differ, 0 without a failure.
    """
    kinds = set(codes) - {OK}
    if not kinds:
        return OK
    return kinds.pop() if len(kinds) == 1 else OTHER
