"""Lists of downloads, in aria2's input format.

    https://a.example/f.iso<TAB>https://b.example/f.iso     a URL, then its mirrors
      out=f.iso                                             options, indented
      checksum=sha-256=9f86d081…
      header=Accept: text/html                              may be repeated
    # a comment

An option that segdl does not know is an error, with file and line: passed over in
silence, it would lose a checksum that somebody relied on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from segdl.cli.arguments import header_field, read_text
from segdl.errors import UsageError

__all__ = ["Entry", "parse_entries", "read_entries"]

_MAX_BYTES = 64 << 20
_OPTIONS = ("out", "dir", "checksum", "header")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """
    A download that is asked for.

    Args:
        url: What to fetch.
        mirrors: Other URLs of the same file.
        directory: To save in, None for the one of the command.
        name: To save as, None for the server's.
        checksum: Expected digest.
        headers: Request headers, as (name, value).
        place: Where the URL stands, for messages: "FILE:LINE", or "URL 2"; empty for
            the only one of the command line.
    """

    url: str
    mirrors: tuple[str, ...] = ()
    directory: str | None = None
    name: str | None = None
    checksum: str | None = None
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    place: str = ""


def read_entries(name: str) -> list[Entry]:
    """
    Read a list of downloads.

    Args:
        name: Of the file, "-" for stdin.

    Raises:
        UsageError: It can't be read, or a line is wrong.
    """
    shown = "<stdin>" if name == "-" else name
    text = read_text(name, f"the input file {shown!r}", _MAX_BYTES)
    return parse_entries(text.split("\n"), shown)


def parse_entries(lines: Iterable[str], name: str) -> list[Entry]:
    """
    Read the lines of a list of downloads.

    Args:
        lines: Without their line ends; a carriage return is dropped.
        name: Of the file, for messages.

    Raises:
        UsageError: A line is wrong; the message begins with "NAME:LINE".
    """
    entries: list[Entry] = []
    for number, line in enumerate(lines, 1):
        place = f"{name}:{number}"
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if line[0] not in " \t":
            urls = [url.strip() for url in text.split("\t") if url.strip()]
            entries.append(Entry(url=urls[0], mirrors=tuple(urls[1:]), place=place))
        elif not entries:
            raise UsageError(f"{place}: an option before the first URL")
        else:
            entries[-1] = _with_option(entries[-1], text, place)
    return entries


def _with_option(entry: Entry, text: str, place: str) -> Entry:
    key, equals, value = text.partition("=")
    key, value = key.strip(), value.strip()
    if not equals or key not in _OPTIONS:
        raise UsageError(
            f"{place}: unknown option {key[:40]!r}; segdl knows {', '.join(_OPTIONS)}, "
            "each written NAME=VALUE"
        )
    if not value:
        raise UsageError(f"{place}: {key} has no value")
    if key == "header":
        added = header_field(value, place)
        if added[0].lower() in (name.lower() for name, _ in entry.headers):
            raise UsageError(f"{place}: the header {added[0]} is given twice")
        return replace(entry, headers=(*entry.headers, added))
    if key == "out":
        changed, before = replace(entry, name=value), entry.name
    elif key == "dir":
        changed, before = replace(entry, directory=value), entry.directory
    else:
        changed, before = replace(entry, checksum=value), entry.checksum
    if before is not None:
        raise UsageError(f"{place}: {key} is given twice for one URL")
    return changed
