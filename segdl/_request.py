"""What a task asks for, checked before anything is done."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from segdl import _urls
from segdl._digests import Digest, new_hasher, parse_checksum
from segdl._names import SafeName, checked_name
from segdl._threads import with_callers_signals
from segdl.errors import SizeLimitExceeded, UsageError

if TYPE_CHECKING:
    from segdl.config import EngineConfig, OnExists
    from segdl.task import DownloadTask


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """
    A task's request, as a job needs it.

    Attributes:
        urls: The URL, then its mirrors; without userinfo. The first is empty until
            `renewed`, where a function gives it.
        new_url: The caller's function that gives the URL; None where there is none.
        new_link: Whether the URL is said to be a new link to the file that an earlier
            run left under this name.
        headers: Request headers for the first URL's origin.
        own_headers: Those of them that the caller gave; others come with the URL.
        directory: To save in; absolute.
        filename: Name to save as, None to take it from the answer.
        digest: What the caller expects, None for nothing.
        on_exists: As in `EngineConfig`.
        connections: As in `EngineConfig`.
        max_bytes: As in `EngineConfig`.
    """

    urls: tuple[str, ...]
    headers: Mapping[str, str]
    own_headers: Mapping[str, str]
    directory: str
    filename: SafeName | None
    digest: Digest | None
    on_exists: str
    connections: int | str
    max_bytes: int | None = None
    new_url: Callable[[], str] | None = None
    new_link: bool = False

    @property
    def identity(self) -> str:
        """What tells this download from others; a signature that changes does not."""
        if self.new_url is None:
            return self.urls[0]
        return f"function {_urls.strip_secrets(self.urls[0])}"

    def check_size(self, size: int | None, *, ended: bool = True) -> None:
        """
        Refuse a file that is larger than the user allows.

        Args:
            size: In bytes; None while unknown.
            ended: Whether that is all of it, rather than what has come so far.

        Raises:
            SizeLimitExceeded: It is.
        """
        limit = self.max_bytes
        if limit is None or size is None or size <= limit:
            return
        said = "has" if ended else "did not say how much it has, and sent"
        raise SizeLimitExceeded(
            f"the origin {said} {size} bytes, more than the {limit} bytes of "
            "max_bytes; raise max_bytes (--max-bytes) if you trust it"
        )

    def renewed(self) -> Request:
        """
        Ask the caller's function for the URL, which may take its time.

        Raises:
            UsageError: It failed, or gave no URL.
        """
        assert self.new_url is not None
        try:
            given = self.new_url()
        except BaseException as error:  # sys.exit() too: the task would never end
            # Not its text, which may hold what must not be shown.
            raise UsageError(
                f"the function that was given as url raised {type(error).__name__}"
            ) from error
        if not isinstance(given, str):
            raise UsageError(
                "the function that was given as url returned "
                f"{type(given).__name__}, not a string"
            )
        url, fields = _checked_url(given, dict(self.own_headers))
        return replace(self, urls=(url, *self.urls[1:]), headers=fields)


def checked_request(
    task: DownloadTask,
    config: EngineConfig,
    checksum: str | None = None,
    mirrors: Iterable[str] = (),
    on_exists: OnExists | None = None,
    connections: int | Literal["auto"] | None = None,
    new_url: Callable[[], str] | None = None,
    max_bytes: int | None = None,
    new_link: bool = False,
) -> Request:
    """
    Check what a user asks for.

    Args:
        task: URL, directory, name and headers.
        config: The engine's settings.
        checksum: Expected digest, "algorithm:hex"; None for none.
        mirrors: Other URLs of the same file.
        on_exists: Instead of the engine's, None for that.
        connections: Instead of the engine's, None for that.
        new_url: Gives the URL when it is needed, instead of the task's.
        max_bytes: Instead of the engine's, None for that.
        new_link: As in `Request`.

    Raises:
        UsageError: Something can't work; the message says what to do.
    """
    own = _urls.validate_headers(task.headers)
    url, fields = "", own
    if new_url is None:
        url, fields = _checked_url(task.url, own)
    elif not callable(new_url):
        raise UsageError(
            "url is a string, or a function that gives one, not "
            f"{type(new_url).__name__}"
        )
    changes: dict[str, Any] = {}
    if on_exists is not None:
        changes["on_exists"] = on_exists
    if connections is not None:
        changes["connections"] = connections
    if max_bytes is not None:
        changes["max_bytes"] = max_bytes
    if changes:
        config = replace(config, **changes)
    if isinstance(mirrors, str) or not isinstance(mirrors, Iterable):
        raise UsageError(f"mirrors is a list of URLs, not {type(mirrors).__name__}")
    others = [_checked_mirror(mirror) for mirror in mirrors]
    return Request(
        urls=(url, *others),
        headers=fields,
        own_headers=own,
        directory=_absolute(task.output_path),
        filename=None if task.filename is None else checked_name(task.filename),
        digest=None if checksum is None else _computable(checksum),
        on_exists=config.on_exists,
        connections=config.connections,
        max_bytes=config.max_bytes,
        new_url=None if new_url is None else with_callers_signals(new_url),
        new_link=new_link,
    )


def _checked_mirror(url: str) -> str:
    url, userinfo = _urls.split_userinfo(_urls.validate_url(url))
    if userinfo is not None:
        raise UsageError(
            f"the mirror {_urls.redact(url)} has a user name: mirrors get no "
            "credentials (make it the URL, or use one that needs none)"
        )
    return url


def _checked_url(url: str, fields: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Take the credentials out of a URL, into the header fields."""
    url, userinfo = _urls.split_userinfo(_urls.validate_url(url))
    if userinfo is not None and "authorization" not in map(str.lower, fields):
        token = base64.b64encode(userinfo.encode()).decode()
        fields = fields | {"Authorization": f"Basic {token}"}
    return url, fields


def _absolute(directory: str) -> str:
    try:
        return os.path.abspath(directory)
    except OSError as error:
        raise UsageError(
            f"output_path {directory!r} is relative, and the current directory is "
            f"gone ({error.strerror}); give an absolute path"
        ) from error


def _computable(checksum: str) -> Digest:
    """Check a digest, and that it can be computed here."""
    digest = parse_checksum(checksum)
    new_hasher(digest.algorithm)
    return digest
