"""File names: the only way from foreign text to a name on disk.

    Content-Disposition ─┐  (RFC 6266; filename* before filename)
                         ├─ safe_name ────> SafeName ── sidecar_names ──> NAME.part
    last segment of URL ─┘  repairs                │                      NAME.segdl
                                                   │
    what the user asked for ── checked_name ──> SafeName
                               refuses

A server-chosen name is repaired until it is harmless on every system, whichever runs
now: a directory may be a share. A user-chosen name is never changed: it is taken or
refused. Neither ever holds a separator, so a name cannot leave its directory
(CVE-2019-20916, CVE-2010-3842, CVE-2025-11563).
"""

from __future__ import annotations

import re
import unicodedata
from typing import NewType

from segdl.errors import UsageError

# Made by safe_name and checked_name alone.
SafeName = NewType("SafeName", str)

FALLBACK_NAME = "download"
# Of the configuration: trusted where it lies, so no server may put one there.
CONFIG_NAME = "segdl.toml"
PART_SUFFIX = ".part"
MANIFEST_SUFFIX = ".segdl"

# NAME_MAX of Linux file systems; in bytes, which is the strictest of all systems.
MAX_NAME_BYTES = 255
# An "extension" longer than this is a sentence with a dot in it.
_MAX_EXTENSION_BYTES = 32

# C0, DEL, C1; line and paragraph separator; the bidirectional controls, which make
# "gpj.exe" look like "exe.jpg"; lone surrogates, which no file system stores.
_DROPPED = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
    "\ud800-\udfff]"
)
_REPLACED = re.compile(r'[:<>"|?*]')
_SPACES = (
    " \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u202f\u205f\u3000"
)
# A leading dot hides the file, a leading dash is an option, a tilde a home directory.
_LEADING = ".-~" + _SPACES
_TRAILING = "." + _SPACES
# Windows treats a device's name as the device with any extension, and the superscript
# digits as digits ("Naming Files, Paths, and Namespaces").
_DEVICE = re.compile(
    r"(?:CON|PRN|AUX|NUL|COM[0-9\xb9\xb2\xb3]|LPT[0-9\xb9\xb2\xb3]"
    r"|CLOCK\$|CONIN\$|CONOUT\$) *(?:\..*)?",
    re.IGNORECASE | re.DOTALL,
)

_PARAMETER = re.compile(
    r'[;\s]*([^\s;="]+)\s*(?:=\s*(?:"((?:[^"\\]|\\.)*)(?:"|\\?\Z)[^;]*|([^;]*)))?',
    re.DOTALL,
)
# Two forms of a 255-byte name, percent-encoded, are below 2 KiB; more is an attack.
_MAX_DISPOSITION_CHARACTERS = 8192
# RFC 8187 s3.2.1: charset'language'percent-encoded
_EXTENDED = re.compile(r"(UTF-8|ISO-8859-1)'[^']*'(.*)", re.IGNORECASE | re.DOTALL)
_ENCODED_WORD = re.compile(r"=\?[^?\s]+\?[BbQq]\?[^?]*\?=")


def safe_name(url: str, content_disposition: str | None) -> SafeName:
    """
    Choose the name to save a download as; never raises.

    Args:
        url: The URL the user gave, not one it was redirected to (CVE-2010-2252).
        content_disposition: The field's value, decoded as latin-1; None without one.

    Returns:
        The server's name when it states a usable one, else the URL's last segment,
        else "download". Never hidden, never a path, at most 255 bytes of UTF-8; no
        extension is invented.
    """
    disposition = (content_disposition or "")[:_MAX_DISPOSITION_CHARACTERS]
    candidates = _disposition_names(disposition)
    for candidate in (*candidates, _url_name(url)):
        name = _repaired(candidate)
        if name:
            return SafeName(name)
    return SafeName(FALLBACK_NAME)


def checked_name(name: str) -> SafeName:
    """
    Take a name the user gave as it is, or refuse it.

    Args:
        name: A bare file name; a leading dot is the user's right.

    Returns:
        The same name.

    Raises:
        UsageError: It cannot be stored, or not on every system; the message says why.
    """
    if not isinstance(name, str):
        raise UsageError(f"the file name is {type(name).__name__}; give a str")
    reason = _refusal(name)
    if reason is not None:
        raise UsageError(f"file name {name[:80]!r} {reason}")
    return SafeName(name)


def sidecar_names(name: SafeName) -> tuple[str, str]:
    """
    Return the names of a download's two working files.

    Args:
        name: The destination's name.

    Returns:
        NAME.part and NAME.segdl; a NAME too long for a suffix is cut, and eight
        digits of its sha256 keep it apart from others with the same beginning.
    """
    stem: str = name
    room = MAX_NAME_BYTES - len(MANIFEST_SUFFIX)
    if len(name.encode()) > room:
        import hashlib

        mark = "-" + hashlib.sha256(name.encode()).hexdigest()[:8]
        stem = _cut(name, room - len(mark)) + mark
    return stem + PART_SUFFIX, stem + MANIFEST_SUFFIX


def _refusal(name: str) -> str | None:
    if not name:
        return "is empty; give a name, or none to take the server's"
    if name in (".", ".."):
        return "is a directory; give a file name"
    if "/" in name or "\\" in name:
        return "holds a path separator; put the directory into output_path"
    if re.search(r"[\x00-\x1f\x7f-\x9f]", name):
        return "holds a control character; remove it"
    if re.search("[\ud800-\udfff]", name):
        return "is not valid Unicode; give a name that UTF-8 can hold"
    size = len(name.encode())
    if size > MAX_NAME_BYTES:
        return f"has {size} bytes; at most {MAX_NAME_BYTES} can be stored"
    if _DEVICE.fullmatch(name):
        return "is a device on Windows; give another name"
    if name[-1] in ". ":
        return "ends in a dot or space, which Windows drops; remove it"
    return None


def _repaired(text: str) -> str:
    # NFC after the removal, which can bring a letter and its accent together.
    text = unicodedata.normalize("NFC", _DROPPED.sub("", text))
    name = re.split(r"[/\\]", text)[-1]
    name = _REPLACED.sub("_", name)
    name = _shortened(name.lstrip(_LEADING).rstrip(_TRAILING))
    # After the cut, which can leave "CON" and spaces of a longer name.
    if _DEVICE.fullmatch(name) or name.lower() == CONFIG_NAME:
        return _shortened(f"_{name}")
    return name


def _shortened(name: str) -> str:
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    stem, dot, extension = name.rpartition(".")
    suffix = f".{extension}".encode()
    if not dot or len(suffix) > _MAX_EXTENSION_BYTES:
        return _cut(name, MAX_NAME_BYTES).rstrip(_TRAILING)
    return f"{_cut(stem, MAX_NAME_BYTES - len(suffix))}.{extension}"


def _cut(text: str, limit_bytes: int) -> str:
    """Cut to a number of bytes of UTF-8, between two code points."""
    return text.encode()[:limit_bytes].decode(errors="ignore")


def _url_name(url: str) -> str:
    path = re.split(r"[?#]", url, maxsplit=1)[0]
    # Only what follows the authority is a path: "http://host" has no name in it.
    _, _, rest = path.partition("://")
    _, slash, segments = rest.partition("/")
    if not slash:
        return ""
    return _percent_decoded(segments.rpartition("/")[2])


def _percent_decoded(text: str) -> str:
    from urllib.parse import unquote_to_bytes

    raw = unquote_to_bytes(text.encode("utf-8", "replace"))
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _disposition_names(value: str) -> list[str]:
    """Return the names a Content-Disposition states, the better first."""
    parameters: dict[str, str] = {}
    position = 0
    # The disposition type parses as a parameter without a value.
    while match := _PARAMETER.match(value, position):
        position = match.end()
        text = _unquoted(match[2]) if match[2] is not None else match[3]
        if text is not None:
            # A repeated parameter is invalid (RFC 6266 s4.1): the first one counts.
            parameters.setdefault(match[1].lower(), text.strip())
    names = []
    if "filename*" in parameters:
        names.append(_extended(parameters["filename*"]))
    if "filename" in parameters:
        names.append(_plain(parameters["filename"]))
    return names


def _unquoted(text: str) -> str:
    # Only these two are taken for escapes: Internet Explorer's C:\dir\file must keep
    # its separators, so that they can be cut off.
    return re.sub(r'\\(["\\])', r"\1", text)


def _extended(text: str) -> str:
    match = _EXTENDED.fullmatch(text)
    if match is None:
        return ""
    from urllib.parse import unquote_to_bytes

    try:
        return unquote_to_bytes(match[2]).decode(match[1])
    except UnicodeError:
        return ""


def _plain(text: str) -> str:
    if _ENCODED_WORD.search(text):
        return _encoded_words(text)
    # Header fields read as latin-1; many servers put raw UTF-8 there.
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def _encoded_words(text: str) -> str:
    # RFC 2047 has no place in HTTP (RFC 6266 appendix C.1), and is sent all the same.
    from email.header import decode_header

    try:
        return "".join(
            chunk if isinstance(chunk, str) else chunk.decode(charset or "latin-1")
            for chunk, charset in decode_header(text)
        )
    except Exception:
        # The server chooses the codec, so any of Python's may fail in its own way.
        return text
