"""Options that several commands share, and what becomes of them.

argv ──> Parser ──> Namespace ──> engine_config ──> EngineConfig
                        │           (over file and environment)
                        └───────> header_fields ──> checked headers
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

from segdl._redaction import redact_text
from segdl._urls import validate_headers
from segdl.config import EngineConfig, load_config, parse_rate, parse_size
from segdl.errors import ConfigError, UsageError

__all__ = [
    "Parser",
    "add_engine_options",
    "add_output_options",
    "checked_path",
    "engine_config",
    "header_field",
    "header_fields",
    "path_argument",
    "read_text",
]

# What is no file but a device may have no end.
_MAX_HEADERS_BYTES = 1 << 20


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, like all errors of the program."""

    def __init__(self, *, prog: str, description: str) -> None:
        # An abbreviation that works today means something else tomorrow.
        super().__init__(prog=prog, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and leave with the exit code for usage."""
        message = _without_values(message)
        self.exit(2, f"{self.prog}: {message} (`{self.prog} --help` shows the usage)\n")


def _without_values(message: str) -> str:
    """Leave out of argparse's words what was given: `--tokn=...` holds a secret too."""
    begin, unknown, given = message.partition("unrecognized arguments: ")
    if unknown:
        options = [word for word in given.split() if word.startswith("-")]
        names = " ".join(word.partition("=")[0] for word in options)
        return f"{begin}unrecognized arguments{f': {names}' if names else ''}"
    begin, ignored, _ = message.partition("ignored explicit argument")
    return f"{begin}it takes no value" if ignored else redact_text(message)


# Option, name in EngineConfig, metavar or choices, help.
_ENGINE_OPTIONS: tuple[tuple[str, str, Any, str], ...] = (
    ("--connections", "connections", "N|auto", "connections per file"),
    ("--processes", "processes", "N|auto", "worker processes; 0: a thread instead"),
    ("--limit-rate", "limit_rate", "RATE", "bytes/s in all; k, M, G"),
    (
        "--on-exists",
        "on_exists",
        ("reuse", "overwrite", "rename", "error"),
        "when the destination exists",
    ),
    (
        "--durability",
        "durability",
        ("none", "publish", "checkpoint"),
        "what is synced to disk, and when",
    ),
    ("--io", "io", ("auto", "buffered", "direct"), "how the part file is written"),
    ("--timeout", "timeout", "SECONDS", "to connect, and without data"),
    ("--retry-times", "retry_times", "N", "attempts after the first one"),
    ("--retry-delay", "retry_delay", "SECONDS", "before the first retry"),
    ("--cacert", "ca_file", "FILE", "trusted certificates, PEM"),
    ("--proxy", "proxy", "URL", "instead of what the environment says"),
    (
        "--allow-addresses",
        "allow_addresses",
        ("all", "public"),
        "public: none of this machine or a private network",
    ),
    ("--max-bytes", "max_bytes", "SIZE", "fail files larger than this; k, M, G"),
)

# How the text of an option is read, where it is not `_value`.
_READERS: dict[str, Callable[[str], Any]] = {
    "limit_rate": parse_rate,
    "max_bytes": parse_size,
}


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add what configures the engine; the defaults are the library's."""
    group = parser.add_argument_group("engine")
    group.add_argument(
        "-j", "--jobs", dest="max_workers", metavar="N", help="files at the same time"
    )
    for option, name, values, text in _ENGINE_OPTIONS:
        names = ("-x", option) if option == "--connections" else (option,)
        if isinstance(values, tuple):
            group.add_argument(*names, dest=name, choices=values, help=text)
        else:
            group.add_argument(*names, dest=name, metavar=values, help=text)
    group.add_argument(
        "--config",
        type=lambda text: Path(path_argument(text)),
        metavar="FILE",
        help="configuration, instead of the segdl.toml here or of the user",
    )


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Add what chooses the output."""
    group = parser.add_argument_group("output")
    group.add_argument(
        "-q", "--quiet", action="store_true", help="no output but errors"
    )
    group.add_argument(
        "--json", action="store_true", help="one JSON event a line on stdout"
    )
    group.add_argument("--no-progress", action="store_true", help="no bar")


def engine_config(args: argparse.Namespace) -> EngineConfig:
    """
    Put the configuration together: option > environment > file > default.

    Raises:
        ConfigError: A configuration file or environment variable is wrong.
        UsageError: An option is; the message names it.
    """
    options = {"max_workers": "--jobs"}
    options.update((name, option) for option, name, _, _ in _ENGINE_OPTIONS)
    overrides: dict[str, Any] = {}
    for name, option in options.items():
        text = getattr(args, name)
        if text is None:
            continue
        try:
            overrides[name] = _READERS.get(name, _value)(text)
        except UsageError as exc:
            raise UsageError(f"{option}: {exc}") from exc
    try:
        return load_config(args.config, overrides=overrides)
    except ConfigError:
        raise
    except UsageError as exc:
        name, _, rest = str(exc).partition(" ")
        raise UsageError(f"{options.get(name, name)} {rest}") from exc


def checked_path(text: str) -> str:
    """
    Check a path; give it as it is.

    Raises:
        UsageError: It is empty, as of a variable that is not set, or a URL (nobody has
            such a path, and its secrets would not be known for such), or relative
            though there is no current directory.
    """
    if not text:
        raise UsageError("the path is empty")
    if "\0" in text:
        raise UsageError(f"{text!r} is no path")
    if re.match(r"https?://", text, re.IGNORECASE):
        raise UsageError("it is a URL, and no path; give a path")
    try:
        os.path.abspath(text)
    except OSError as exc:
        raise UsageError(
            f"the current directory is gone ({exc.strerror}); give an absolute path"
        ) from exc
    return text


def path_argument(text: str) -> str:
    """Take a path, for argparse."""
    try:
        return checked_path(text)
    except UsageError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def _value(text: str) -> int | float | str:
    """Read a number; what is none is left for the configuration to refuse."""
    if re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        return int(text)
    if re.fullmatch(r"[+-]?[0-9]*\.[0-9]+", text):
        return float(text)
    return text


def header_fields(options: Iterable[str]) -> dict[str, str]:
    """
    Read what `--header` was given.

    Args:
        options: "Name: value", or "@FILE" with such a line for each field.

    Raises:
        UsageError: A field is none, is given twice, or the file can't be read. No
            message holds a value.
    """
    fields: dict[str, str] = {}
    for option in options:
        if option.startswith("@"):
            for place, line in _lines_of(option[1:]):
                _add(fields, line, place)
        else:
            _add(fields, option, "--header")
    return validate_headers(fields)


def header_field(line: str, place: str) -> tuple[str, str]:
    """
    Split a field into name and value.

    Args:
        line: "Name: value".
        place: Where it stands, for the message.

    Raises:
        UsageError: It has no colon, or no name.
    """
    name, colon, value = line.partition(":")
    if not colon or not name.strip():
        # The line is not shown: it may be a token that was given in place of a field.
        raise UsageError(f"{place}: a header is written 'Name: value'")
    return name, value.lstrip(" \t")


def read_text(name: str, what: str, most: int) -> str:
    """
    Read a file that the user named.

    Args:
        name: Its path, "-" for stdin.
        what: It is, for messages.
        most: How large it may be, in bytes.

    Raises:
        UsageError: It can't be read, is larger, or no UTF-8.
    """
    try:
        if name == "-" and sys.stdin is None:
            raise ValueError("stdin is closed")
        with nullcontext(sys.stdin.buffer) if name == "-" else open(name, "rb") as file:
            data = file.read(most + 1)
        if len(data) <= most:
            return data.decode("utf-8-sig")
        reason: object = f"it is larger than {most} bytes"
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or exc
    raise UsageError(f"cannot read {what}: {reason}")


def _add(fields: dict[str, str], line: str, place: str) -> None:
    name, value = header_field(line, place)
    if name.lower() in map(str.lower, fields):
        raise UsageError(f"{place}: the header {name} is given twice")
    fields[name] = value


def _lines_of(name: str) -> list[tuple[str, str]]:
    """Read a file of header lines; each with its place."""
    text = read_text(name, f"the headers in {name!r}", _MAX_HEADERS_BYTES)
    lines = enumerate(text.split("\n"), 1)
    return [
        (f"{name}:{number}", line.removesuffix("\r")) for number, line in lines
        if line.strip()
    ]  # fmt: skip
