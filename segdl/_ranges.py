"""Byte ranges, and the one function that reads a length from foreign text.

    inside segdl        half-open   ByteRange(0, 10)         bytes 0 … 9
    on the wire         inclusive   Range: bytes=0-9
                                    Content-Range: bytes 0-9/1000
                                    Content-Range: bytes */1000      (416)

libcurl checks neither the status nor the Content-Range of an answer to a range
request, so this grammar is what stands between a wrong answer and the file. It is
RFC 9110 s14.4 to the letter: a field that is only nearly right is refused, because
bytes written at a guessed offset cannot be told from right ones afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass

from segdl.errors import ProtocolError, RangeMismatch

# The largest file offset that pread, pwrite and lseek take (a signed 64-bit off_t).
MAX_LENGTH = 2**63 - 1


def shown(text: str, limit: int = 40) -> str:
    """
    Quote foreign text for a message: escaped, and cut when it is long.

    Args:
        text: Whatever an origin or a user sent; must not be a secret.
        limit: How many characters to show at most.

    Returns:
        The repr of the text, or of its beginning and how long it is.
    """
    if len(text) <= limit:
        return repr(text)
    return f"{text[:limit]!r}… ({len(text)} characters)"


def parse_length(text: str) -> int:
    """
    Read a non-negative length or position, RFC 9110's `1*DIGIT`.

    Args:
        text: ASCII digits; no sign, no space, no underscore, no other script's digits.

    Returns:
        The number of bytes, 0 - MAX_LENGTH.

    Raises:
        ProtocolError: The text is anything else, or larger than MAX_LENGTH.
    """
    if not (text.isascii() and text.isdigit()):
        raise ProtocolError(f"{shown(text)} is not a length in decimal digits")
    significant = text.lstrip("0") or "0"
    # Counted before int(), whose own limit of 4300 digits raises a bare ValueError.
    if len(significant) > 19 or int(significant) > MAX_LENGTH:
        raise ProtocolError(f"length {shown(text)} is larger than 2^63 - 1 bytes")
    return int(significant)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """
    The bytes from `begin` up to, not including, `end`; never empty.

    Args:
        begin: Offset of the first byte, at least 0.
        end: Offset after the last byte, greater than `begin`.

    Raises:
        ValueError: The range would be empty, or begin before 0.
    """

    begin: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.begin < self.end:
            raise ValueError(f"no byte range from {self.begin} to {self.end}")

    @property
    def length(self) -> int:
        """Return the number of bytes."""
        return self.end - self.begin

    def header_value(self) -> str:
        """Return the value of a Range field, `bytes=0-9` (RFC 9110 s14.2)."""
        return f"bytes={self.begin}-{self.end - 1}"


@dataclass(frozen=True, slots=True)
class ContentRange:
    """
    A Content-Range field as the origin sent it: positions inclusive.

    Args:
        first: Position of the first byte; None in the unsatisfied form `bytes */N`.
        last: Position of the last byte; None in the unsatisfied form.
        complete: Length of the whole representation in bytes; None for `*`.
    """

    first: int | None
    last: int | None
    complete: int | None


def parse_content_range(value: str) -> ContentRange:
    """
    Read a Content-Range field value (RFC 9110 s14.4).

    Args:
        value: The field's value; space and tab around it are not part of it.

    Returns:
        What the field states, with first <= last < complete.

    Raises:
        RangeMismatch: The value breaks the grammar or contradicts itself.
    """
    try:
        return _parse_content_range(value.strip(" \t"))
    except ProtocolError as exc:
        raise RangeMismatch(f"Content-Range {shown(value)}: {exc.message}") from exc


def _parse_content_range(value: str) -> ContentRange:
    unit, space, rest = value.partition(" ")
    if not space:
        raise ProtocolError("no space between the range unit and the positions")
    # Range units compare case-insensitively (RFC 9110 s14.1).
    if unit.lower() != "bytes":
        raise ProtocolError(f"unknown range unit {shown(unit)}")
    positions, slash, complete_text = rest.partition("/")
    if not slash:
        raise ProtocolError("no '/' before the complete length")
    complete = None if complete_text == "*" else parse_length(complete_text)
    if positions == "*":
        if complete is None:
            raise ProtocolError("it states neither a range nor a complete length")
        return ContentRange(None, None, complete)
    first_text, dash, last_text = positions.partition("-")
    if not dash:
        raise ProtocolError("no '-' between the first and the last position")
    first, last = parse_length(first_text), parse_length(last_text)
    if last < first:
        raise ProtocolError("the last position is before the first")
    if complete is not None and complete <= last:
        raise ProtocolError("the last position is not inside the complete length")
    if last == MAX_LENGTH:
        raise ProtocolError("the range ends beyond 2^63 - 1 bytes")
    return ContentRange(first, last, complete)
