"""URLs and request headers: what may be fetched, what goes where, what may be shown.

    the user's URL ── validate_url ──> the URL to send, byte-exact
                          │
                          ├─ split_userinfo ──> URL for libcurl + "user:password"
                          ├─ origin ──────────> who may see the user's headers
                          ├─ redact ──────────> messages, logs, events
                          └─ strip_secrets ───> what is stored on disk

    Location ── redirect_target ──> next URL ── headers_for ──> headers sent there

A presigned URL is signed over its exact bytes, so nothing here re-encodes, sorts or
normalises what already is ASCII. RFC 3986 appendix B's expression does the splitting:
`urllib.parse.urlsplit` silently removes tabs and line ends, and lower-cases.

Credentials belong to one origin: scheme, host and port (CVE-2022-27774 was a client
that compared the host alone). No error raised here shows a URL's userinfo or query,
or a header's value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from segdl._ranges import shown
from segdl.errors import RedirectRefused, UsageError

INVALID_URL = "<invalid URL>"

# Far more than servers take (8 - 16 KiB), so that nothing real is refused.
_MAX_URL_CHARACTERS = 65_536

_DEFAULT_PORTS = {"http": 80, "https": 443}
_OTHER_SCHEMES = {
    "file": "copy a local file with cp",
    "ftp": "fetch it with curl",
    "sftp": "fetch it with sftp",
    "s3": "use a presigned https URL of the object",
    "gs": "use a signed https URL of the object",
    "hf": "use the file's https://huggingface.co/…/resolve/… URL",
}

# RFC 3986 appendix B, with the scheme's own grammar (s3.1).
_URL = re.compile(
    r"(?:([A-Za-z][A-Za-z0-9+.\-]*):)?(?://([^/?#]*))?([^?#]*)(\?[^#]*)?(#.*)?",
    re.DOTALL,
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SPACE_OR_CONTROL = re.compile(r"[\x00-\x20\x7f-\x9f]")
# A registered name or IPv4 address. Narrower than RFC 3986: libcurl decodes a
# percent sign in a host, so `a%2eb` would be another origin for us than for it.
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._\-]{0,254}")
_IPV6 = re.compile(r"\[([0-9A-Fa-f:.]{2,45})(?:%(?:25)?[A-Za-z0-9._~\-]{1,32})?\]")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 s5.6.2


@dataclass(frozen=True, slots=True)
class Origin:
    """
    Who answers a URL (RFC 9110 s4.3.1): the border that credentials do not cross.

    Args:
        scheme: "http" or "https".
        host: Lower-case; an IPv6 address keeps its brackets.
        port: 1 - 65535, the scheme's default filled in.
    """

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"


class _Parts(NamedTuple):
    scheme: str | None
    authority: str | None
    path: str
    query: str


class _Flaw(Exception):
    """Why a text is no URL segdl fetches; each caller raises its own error of it."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.advice = advice


def validate_url(url: str) -> str:
    """
    Check a URL the user gave, and return the URL to send.

    Non-ASCII characters are percent-encoded as UTF-8 in the path and query, the host
    is converted by IDNA, and the fragment is dropped; every other byte is kept, since
    a presigned URL is signed over its exact bytes.

    Args:
        url: An absolute http or https URL; userinfo is allowed.

    Returns:
        The same URL in ASCII, without a fragment.

    Raises:
        UsageError: It is none; the message says what is wrong and what to do.
    """
    return _join(_checked_for_user(url))


@lru_cache(maxsize=256)  # five times a file, of 17 us each
def origin(url: str) -> Origin:
    """
    Return the origin of a URL.

    Args:
        url: An absolute http or https URL.

    Raises:
        UsageError: The URL is not valid.
    """
    parts = _checked_for_user(url)
    scheme = (parts.scheme or "").lower()
    _, host, port = _split_authority(parts.authority or "")
    return Origin(scheme, host.lower(), int(port) if port else _DEFAULT_PORTS[scheme])


def split_userinfo(url: str) -> tuple[str, str | None]:
    """
    Take the credentials out of a URL.

    Args:
        url: An absolute http or https URL.

    Returns:
        The URL without userinfo, and "user:password" percent-decoded, as libcurl's
        USERPWD takes it; None when the URL has no userinfo.

    Raises:
        UsageError: The URL is not valid.
    """
    parts = _checked_for_user(url)
    userinfo, at, rest = (parts.authority or "").rpartition("@")
    if not at:
        return _join(parts), None
    bare = _join(parts._replace(authority=rest))
    if not userinfo:
        return bare, None
    from urllib.parse import unquote

    user, _, password = userinfo.partition(":")
    return bare, f"{unquote(user)}:{unquote(password)}"


def redact(url: object) -> str:
    """
    Return a URL fit for messages and logs; never raises.

    Args:
        url: Anything; usually a URL of any scheme.

    Returns:
        Scheme, host, port and path, `?...` in place of a query; `<invalid URL>` when
        that cannot be told apart from a secret.
    """
    bare, has_query = _display(url)
    return f"{bare}?..." if has_query else bare


def strip_secrets(url: object) -> str:
    """
    Return the URL to store on disk; never raises.

    Args:
        url: A URL; other input gives `<invalid URL>`.

    Returns:
        Scheme, host, port and path alone: no userinfo, no query, no fragment.
    """
    return _display(url)[0]


def redirect_target(base: str, location: str) -> str:
    """
    Resolve the Location of a redirect (RFC 9110 s10.2.2, RFC 3986 s5.2).

    Args:
        base: The URL that was asked.
        location: The field's value, decoded as latin-1; it may be relative.

    Returns:
        The absolute URL to ask next, byte-exact when Location was absolute, except
        that spaces and non-ASCII bytes are percent-encoded; without a fragment.

    Raises:
        RedirectRefused: Another scheme, from https to http, a control character, no
            host, or no URL at all.
    """
    try:
        source = _checked(base)
        reference = _location_text(location)
        parts = _split(reference)
        target = _checked(
            _join(_resolve(source, parts)) if parts.scheme is None else reference
        )
    except _Flaw as exc:
        raise RedirectRefused(
            f"{redact(base)} redirects to what segdl does not fetch: {exc.reason}"
        ) from exc
    schemes = ((source.scheme or "").lower(), (target.scheme or "").lower())
    if schemes == ("https", "http"):
        raise RedirectRefused(
            f"{redact(base)} redirects from https to plain http, "
            f"{redact(_join(target))}; ask for the http URL itself if that is meant"
        )
    return _join(target)


# What another origin may see: nothing that identifies the user (RFC 9110 s15.4).
SAFE_ELSEWHERE = frozenset({"accept", "accept-language", "user-agent"})
# What segdl sets on every request itself; a second one would break ranges or framing.
_OWN_FIELDS = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "if-range",
        "range",
        "transfer-encoding",
    }
)


def headers_for(
    headers: dict[str, str], first: Origin, target: Origin
) -> dict[str, str]:
    """
    Choose the user's headers that may go to an origin.

    Args:
        headers: The task's headers.
        first: The origin of the URL the user gave them for.
        target: The origin about to be asked.

    Returns:
        All of them for the same origin, else only Accept, Accept-Language, User-Agent.
    """
    if first == target:
        return dict(headers)
    return {
        name: value for name, value in headers.items() if name.lower() in SAFE_ELSEWHERE
    }


def validate_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """
    Check request headers that the user gave; libcurl leaves that to its caller.

    Args:
        headers: Names and values; None means none.

    Returns:
        A copy, with the space around the values removed.

    Raises:
        UsageError: A name that is no token, a value with a control character or
            outside latin-1, a field segdl sets itself, or a name given twice. The
            message names the header and never shows its value.
    """
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise UsageError(
            f"headers is {type(headers).__name__}; "
            'give a dict such as {"Authorization": "Bearer …"}'
        )
    checked: dict[str, str] = {}
    seen: set[str] = set()
    for name, value in headers.items():
        _check_header_name(name, seen)
        checked[name] = _checked_header_value(name, value)
        seen.add(name.lower())
    return checked


def _check_header_name(name: object, seen: set[str]) -> None:
    if not isinstance(name, str):
        raise UsageError(f"a header name is {type(name).__name__}; give a str")
    token = _TOKEN.match(name)
    if token is None or token.end() != len(name):
        # A whole "Name: value" line may have been given as the name, so only the
        # part before the first wrong character is shown.
        start = token[0] if token else ""
        raise UsageError(
            f"the header name that begins {shown(start)} holds a character no name "
            "may have; give names and values apart"
        )
    if name.lower() in _OWN_FIELDS:
        raise UsageError(f"segdl sets the header {name} itself; leave it out")
    if name.lower() in seen:
        raise UsageError(f"the header {name} is given twice, in different case")


def _checked_header_value(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise UsageError(
            f"the value of header {name} is {type(value).__name__}; give a str"
        )
    # Checked before the strip: a trailing line end is refused, not mended.
    if any(character < " " and character != "\t" for character in value):
        raise UsageError(
            f"the value of header {name} holds a line end or another control "
            "character; remove it (a token read from a file often ends in one)"
        )
    if "\x7f" in value:
        raise UsageError(f"the value of header {name} holds a DEL character; remove it")
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        raise UsageError(
            f"the value of header {name} holds a character outside latin-1; "
            "encode it as the server expects"
        ) from None
    return value.strip(" \t")


def _split(url: str) -> _Parts:
    match = _URL.fullmatch(url)
    assert match is not None, "every string matches"
    scheme, authority, path, query, _ = match.groups()
    return _Parts(scheme, authority, path, query or "")


def _join(parts: _Parts) -> str:
    return f"{parts.scheme}://{parts.authority}{parts.path}{parts.query}"


def _checked_for_user(url: str) -> _Parts:
    try:
        return _checked(url)
    except _Flaw as exc:
        raise UsageError(f"{exc.reason}; {exc.advice}") from exc


def _checked(url: object) -> _Parts:
    if not isinstance(url, str):
        raise _Flaw(f"the URL is {type(url).__name__}", "give a str")
    if not url:
        raise _Flaw("the URL is empty", "give an http or https URL")
    if len(url) > _MAX_URL_CHARACTERS:
        raise _Flaw(
            f"the URL has {len(url)} characters",
            f"more than {_MAX_URL_CHARACTERS} are not taken",
        )
    if "\\" in url:
        raise _Flaw("the URL holds a backslash", "write / or %5C")
    found = _SPACE_OR_CONTROL.search(url)
    if found and found[0] == " ":
        raise _Flaw("the URL holds a space", "write %20, and none around it")
    if found:
        raise _Flaw(f"the URL holds the control character {found[0]!r}", "remove it")
    parts = _split(url)
    _check_scheme(parts)
    try:
        return _Parts(
            parts.scheme,
            _checked_authority(parts.authority),
            _encode_non_ascii(parts.path),
            _encode_non_ascii(parts.query),
        )
    except UnicodeEncodeError:
        raise _Flaw(
            "the URL holds bytes that are not UTF-8", "percent-encode them"
        ) from None


def _check_scheme(parts: _Parts) -> None:
    if parts.scheme is None:
        raise _Flaw("the URL has no scheme", "put https:// in front")
    scheme = parts.scheme.lower()
    if scheme in _DEFAULT_PORTS:
        return
    advice = _OTHER_SCHEMES.get(scheme)
    if advice is None and parts.authority is None:
        # `localhost:8080/x` and `example.org:80/x` parse as a scheme and a path.
        advice = "put http:// or https:// in front of a host name"
    raise _Flaw(
        f"the URL's scheme is {shown(scheme, 20)}, and segdl fetches http and https",
        advice or "give an http or https URL",
    )


def _split_authority(authority: str) -> tuple[str | None, str, str | None]:
    userinfo, at, hostport = authority.rpartition("@")
    if hostport.startswith("["):
        host, bracket, rest = hostport.partition("]")
        host += bracket
        colon, port = rest[:1], rest[1:]
        if colon not in ("", ":"):
            host, port = "", ""
    else:
        host, colon, port = hostport.partition(":")
    return (userinfo if at else None), host, (port if colon else None)


def _checked_authority(authority: str | None) -> str:
    if not authority:
        raise _Flaw("the URL has no host", "write it as https://host/path")
    userinfo, host, port = _split_authority(authority)
    if userinfo and "@" in userinfo:
        raise _Flaw("the URL holds two @ before its path", "write %40 in a password")
    if userinfo and "%" in userinfo:
        from urllib.parse import unquote

        if _CONTROL.search(unquote(userinfo)):
            raise _Flaw("the URL's userinfo holds a control character", "remove it")
    if port and not (
        port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535
    ):
        raise _Flaw("the URL's port is no number from 1 to 65535", "correct it")
    encoded = _checked_host(host)
    prefix = "" if userinfo is None else f"{_encode_non_ascii(userinfo)}@"
    return prefix + encoded + ("" if port is None else f":{port}")


def _checked_host(host: str) -> str:
    if not host:
        raise _Flaw("the URL has no host", "write it as https://host/path")
    literal = _IPV6.fullmatch(host)
    if literal:
        import ipaddress

        try:
            ipaddress.IPv6Address(literal[1])
        except ValueError:
            raise _Flaw("the URL's IPv6 address is not valid", "correct it") from None
        return host
    # The limit of a DNS name, applied first: Python's IDNA codec took quadratic time
    # on long input before 3.10.9 (CVE-2022-45061).
    if not host.isascii() and len(host) <= 253:
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError:
            raise _Flaw("the URL's host name is not valid", "correct it") from None
    # After IDNA, whose compatibility mapping can yield '/', ':' or '@'.
    if not _HOST.fullmatch(host):
        raise _Flaw("the URL's host name is not valid", "correct it")
    return host


def _encode_non_ascii(text: str, errors: str = "strict") -> str:
    if text.isascii():
        return text
    return "".join(
        chr(byte) if byte < 0x80 else f"%{byte:02X}"
        for byte in text.encode("utf-8", errors)
    )


def _display(url: object) -> tuple[str, bool]:
    if not isinstance(url, str) or _SPACE_OR_CONTROL.search(url):
        return INVALID_URL, False
    parts = _split(url)
    if parts.scheme is None or not parts.authority:
        return INVALID_URL, False
    _, host, port = _split_authority(parts.authority)
    # `https://user:pa/ss@host` splits after "pa": a port that is no number may be the
    # beginning of a password.
    if not host or (port and not (port.isascii() and port.isdigit())):
        return INVALID_URL, False
    hostport = host if port is None else f"{host}:{port}"
    shown_url = f"{parts.scheme}://{hostport}{parts.path}"
    return _encode_non_ascii(shown_url, "replace"), bool(parts.query)


def _location_text(location: str) -> str:
    location = location.strip(" \t")
    if not location:
        raise _Flaw("the Location field is empty", "")
    try:
        raw = location.encode("latin-1")
    except UnicodeEncodeError:
        text = location
    else:
        # Servers send raw UTF-8, which reads as latin-1 in a header field.
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            text = "".join(chr(b) if b < 0x80 else f"%{b:02X}" for b in raw)
    # As curl and the browsers do: a space in Location is sent as %20.
    return text.replace(" ", "%20")


def _resolve(base: _Parts, reference: _Parts) -> _Parts:
    if reference.authority is not None:
        return reference._replace(scheme=base.scheme)
    if not reference.path:
        return base._replace(query=reference.query or base.query)
    path = reference.path
    if not path.startswith("/"):
        directory = base.path[: base.path.rfind("/") + 1] or "/"
        path = directory + path
    return base._replace(path=_remove_dot_segments(path), query=reference.query)


def _remove_dot_segments(path: str) -> str:
    segments = path.split("/")[1:]
    kept: list[str] = []
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)
