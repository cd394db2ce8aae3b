"""Configuration of an engine: one checked value, put together from four layers.

    argument ──> environment ──> segdl.toml ──> default      the first that says
    overrides    SEGDL_…         [downloader]                something wins, key by key
        └────────────┴───────────────┴──────────────┘
                             │ every value passes the same rule
                             v
                       EngineConfig

Goals: a typing mistake never passes in silence, and the error names the place, the
key, the value and what is accepted. The password of a proxy is in no message.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

from segdl._names import CONFIG_NAME
from segdl.errors import ConfigError, UsageError

__all__ = [
    "AllowAddresses",
    "Durability",
    "EngineConfig",
    "IoMode",
    "OnExists",
    "load_config",
    "parse_rate",
    "parse_size",
    "user_config_file",
]

OnExists = Literal["reuse", "overwrite", "rename", "error"]
Durability = Literal["none", "publish", "checkpoint"]
IoMode = Literal["auto", "buffered", "direct"]
AllowAddresses = Literal["all", "public"]

MAX_CHUNK_BYTES = 10 * 1024 * 1024
MAX_CONNECTIONS = 256
MAX_PROCESSES = 64

_MAX_FILE_BYTES = 1 << 20  # /dev/zero has no end
_TABLE = "downloader"
_PREFIX = "SEGDL_"

# K = 1024, as in curl's --limit-rate and aria2's --max-download-limit.
_RATE_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([kmg]?)", re.ASCII | re.IGNORECASE)

# More than any size has; int() refuses thousands of them.
_MAX_SIZE_DIGITS = 40

_WORDS = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}

_PROXY = re.compile(
    r"(?:https?|socks4a?|socks5h?)://"
    r"(?:[^@/\s]*@)?"  # user:password, percent-encoded
    r"(?:[^@/:?#\[\]\s]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?/?",
    re.IGNORECASE,
)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


def parse_rate(text: str) -> float:
    """
    Read a rate such as "800k" or "1.5M".

    The suffixes k, M and G, in either case, are binary multiples: 1k is 1024 bytes/s,
    as curl and aria2 count.

    Args:
        text: Digits, at most one decimal point, at most one suffix.

    Returns:
        Bytes per second, above 0.

    Raises:
        UsageError: The text is no such rate, or is 0.
    """
    match = _RATE.fullmatch(text.strip())
    rate = float(match[1]) * _RATE_UNITS[match[2].lower()] if match else 0.0
    if not 0 < rate < math.inf:
        raise UsageError(
            f"{text[:40]!r} is no rate: write bytes per second above 0, "
            "such as 500000, 800k, 1.5M or 2G (k is 1024)"
        )
    return rate


def parse_size(text: str) -> int:
    """
    Read a number of bytes such as "800k" or "1.5G", with the suffixes of `parse_rate`.

    Args:
        text: Digits, at most one decimal point, at most one suffix.

    Returns:
        Bytes, 1 or more; a fraction of one is dropped.

    Raises:
        UsageError: The text is no such size, or is 0.
    """
    match = _RATE.fullmatch(text.strip())
    size = 0
    if match and len(match[1]) <= _MAX_SIZE_DIGITS:
        whole, _, fraction = match[1].partition(".")
        unit = _RATE_UNITS[match[2].lower()]
        size = int(whole + fraction) * unit // 10 ** len(fraction)
    if size < 1:
        raise UsageError(
            f"{text[:40]!r} is no size: write bytes, 1 or more, such as 500000, 800k, "
            "1.5M or 2G (k is 1024)"
        )
    return size


class _Rule(NamedTuple):
    """What one argument accepts, and how its text in the environment is read."""

    accepts: str
    test: Callable[[Any], bool]
    read: Callable[[str], Any]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class EngineConfig:
    """
    Hold every argument of `DownloadEngine`, checked.

    ======================================== =========================================
    call                                     means
    ======================================== =========================================
    `EngineConfig()`                         3 tasks at a time, everything else learnt
    `EngineConfig(max_workers=8)`            8 tasks at a time
    `EngineConfig(connections=16)`           16 connections per task, no learning
    `EngineConfig(connections=1)`            one plain stream per task
    `EngineConfig(processes=0)`              no worker process: a thread of this one
    `EngineConfig(retry_times=0)`            the first failure is final
    `EngineConfig(limit_rate=2**20)`         1 MiB/s over the whole engine
    `EngineConfig(on_exists="overwrite")`    replace the destination, at the very end
    `EngineConfig(durability="none")`        no sync calls: safe from crashes of the
                                             programs, not from a power cut
    `EngineConfig(durability="checkpoint")`  sync while it runs too: less is fetched
                                             again after a power cut
    `EngineConfig(io="direct")`              write past the page cache where possible
    `EngineConfig(proxy="http://h:3128")`    this proxy, whatever the environment says
    `EngineConfig(allow_addresses="public")` never connect to a private address, such
                                             as the cloud's metadata service
    `EngineConfig(max_bytes=2**30)`          fail files that have more than 1 GiB
    ======================================== =========================================

    Args:
        max_workers: Tasks downloading at the same time, 1 or more.
        chunk_size: Smallest receive buffer in bytes, 1 - 10 MiB.
        retry_times: Attempts after the first without progress, 0 or more.
        retry_delay: Seconds before the first retry, 0 or more.
        timeout: Seconds to connect, and the stall limit, above 0.
        progress_interval: Seconds between progress callbacks of a task, above 0.
        verify_hash: Verify against every trustworthy digest that is known.
        connections: Connections per task, "auto" or 1 - 256.
        processes: Worker processes, "auto" or 0 - 64; 0 is a thread instead.
        limit_rate: Bytes per second over the whole engine, above 0; None for no limit.
        on_exists: What to do when the destination exists.
        durability: What is synced to disk, and when.
        io: How the part file is written.
        ca_file: File of trusted certificates, kept as an absolute path; None for the
            system's.
        proxy: Proxy URL; None for the usual environment variables.
        user_agent: User-Agent to send; None for segdl's own.
        allow_addresses: Which addresses may be connected to: "all", or "public" for
            none of the own machine or network, wherever names and redirects lead. Of
            a proxy it is the proxy's address that counts; what that one connects to
            is for it to decide.
        max_bytes: Size in bytes that a file may have, 1 or more; None for any. A
            larger one fails before anything is written, or, where the server does not
            tell the length, as soon as one byte more has come.

    Raises:
        UsageError: A value has the wrong type or is out of range.
    """

    max_workers: int = 3
    chunk_size: int = 8192
    retry_times: int = 3
    retry_delay: float = 5
    timeout: float = 30
    progress_interval: float = 0.5
    verify_hash: bool = True
    connections: int | Literal["auto"] = "auto"
    processes: int | Literal["auto"] = "auto"
    limit_rate: float | None = None
    on_exists: OnExists = "reuse"
    durability: Durability = "publish"
    io: IoMode = "auto"
    ca_file: str | None = None
    proxy: str | None = None
    user_agent: str | None = None
    allow_addresses: AllowAddresses = "all"
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        for name in _RULES:
            if problem := _problem(name, getattr(self, name)):
                raise UsageError(f"{name} {problem}")
        if self.ca_file is not None:
            # A worker, or a chdir of the caller, must not change which file it is.
            object.__setattr__(self, "ca_file", os.path.abspath(self.ca_file))

    def __repr__(self) -> str:
        shown = (f"{name}={_shown(name, getattr(self, name))}" for name in _RULES)
        return f"EngineConfig({', '.join(shown)})"


def _is_int(value: object, low: int, high: float = math.inf) -> bool:
    # bool is a subclass of int, and True connections are a mistake.
    return type(value) is int and low <= value <= high


def _is_number(value: object) -> bool:
    if type(value) not in (int, float):  # isinstance lets bool through
        return False
    try:
        return math.isfinite(value)  # type: ignore[arg-type]  # not narrowed by type()
    except OverflowError:  # an integer beyond all floats
        return False


def _is_above_0(value: Any) -> bool:
    return _is_number(value) and value > 0


def _is_readable(value: Any) -> bool:
    return (
        isinstance(value, (str, os.PathLike))
        and os.path.isfile(value)
        and os.access(value, os.R_OK)
    )


def _is_proxy(value: Any) -> bool:
    return (
        isinstance(value, str)
        and not _CONTROLS.search(value)
        and _PROXY.fullmatch(value) is not None
    )


def _is_header_value(value: Any) -> bool:
    return (
        isinstance(value, str)
        and value.isascii()
        and value.strip() != ""
        and not _CONTROLS.search(value)
    )


def _read_int(text: str) -> Any:
    # int() alone would take "1_000" and the digits of every script.
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else text


def _read_number(text: str) -> Any:
    return float(text) if re.fullmatch(r"[+-]?[0-9]*\.?[0-9]+", text) else text


def _read_bool(text: str) -> Any:
    return _WORDS.get(text.lower(), text)


def _read_rate(text: str) -> Any:
    try:
        return None if text.lower() == "none" else parse_rate(text)
    except UsageError:
        return text


def _read_size(text: str) -> Any:
    try:
        return None if text.lower() == "none" else parse_size(text)
    except UsageError:
        return text


def _int_rule(low: int, high: int | None = None) -> _Rule:
    accepts = f"an integer from {low} to {high}" if high else f"an integer >= {low}"
    return _Rule(accepts, lambda v: _is_int(v, low, high or math.inf), _read_int)


def _auto_rule(low: int, high: int) -> _Rule:
    accepts = f'"auto" or an integer from {low} to {high}'
    return _Rule(accepts, lambda v: v == "auto" or _is_int(v, low, high), _read_int)


def _choice_rule(*words: str) -> _Rule:
    accepts = "one of " + ", ".join(f'"{word}"' for word in words)
    return _Rule(accepts, lambda v: isinstance(v, str) and v in words, str)


def _optional_rule(accepts: str, test: Callable[[Any], bool]) -> _Rule:
    return _Rule(accepts, lambda v: v is None or test(v), str)


_SECONDS_ABOVE_0 = _Rule("a number of seconds above 0", _is_above_0, _read_number)

_RULES: dict[str, _Rule] = {
    "max_workers": _int_rule(1),
    "chunk_size": _int_rule(1, MAX_CHUNK_BYTES),
    "retry_times": _int_rule(0),
    "retry_delay": _Rule(
        "a number of seconds >= 0", lambda v: _is_number(v) and v >= 0, _read_number
    ),
    "timeout": _SECONDS_ABOVE_0,
    "progress_interval": _SECONDS_ABOVE_0,
    "verify_hash": _Rule("true or false", lambda v: type(v) is bool, _read_bool),
    "connections": _auto_rule(1, MAX_CONNECTIONS),
    "processes": _auto_rule(0, MAX_PROCESSES),
    "limit_rate": _Rule(
        "bytes per second above 0 (as text with k, M or G), or none for no limit",
        lambda v: v is None or _is_above_0(v),
        _read_rate,
    ),
    "on_exists": _choice_rule("reuse", "overwrite", "rename", "error"),
    "durability": _choice_rule("none", "publish", "checkpoint"),
    "io": _choice_rule("auto", "buffered", "direct"),
    "ca_file": _optional_rule("the path of an existing, readable file", _is_readable),
    "proxy": _optional_rule(
        "a URL that begins with http://, https://, socks4://, socks4a://, socks5:// "
        "or socks5h:// and names a host",
        _is_proxy,
    ),
    "user_agent": _optional_rule(
        "ASCII text that is not empty, without control characters", _is_header_value
    ),
    "allow_addresses": _choice_rule("all", "public"),
    "max_bytes": _Rule(
        "an integer >= 1 (as text with k, M or G), or none for no limit",
        lambda v: v is None or _is_int(v, 1),
        _read_size,
    ),
}


# What follows the host of a proxy, or what stands in its place, and is no port.
_AFTER_HOST = re.compile(
    r"^((?:[a-zA-Z0-9+.-]*://)?(?:\[[^\]]*\]|[^:\[]*)):(?!//|[0-9]{1,5}/?\Z).*",
    re.DOTALL,
)


def _shown(name: str, value: object) -> str:
    """Return a value for a message or repr, short and without secrets."""
    if name == "proxy" and value is not None:
        if not isinstance(value, str):
            return type(value).__name__
        # Up to the last @: a password may hold one.
        value = re.sub(r"^([a-zA-Z0-9+.-]*://)?.*@", r"\1***@", value, flags=re.DOTALL)
        # Without its host, as in http://user:password, only a port may be shown.
        value = _AFTER_HOST.sub(r"\1:***", value)
    text = repr(value)
    if name != "proxy" and "://" in text:
        from segdl._redaction import redact_text  # a URL in a wrong place

        text = redact_text(text)
    return text if len(text) <= 200 else text[:197] + "..."


def _problem(name: str, value: object) -> str | None:
    """Return what is wrong with a value, as the rest of "NAME ...", or None."""
    rule = _RULES[name]
    if rule.test(value):
        return None
    return f"must be {rule.accepts}, not {_shown(name, value)}"


def user_config_file(
    environ: Mapping[str, str], platform: str = sys.platform
) -> Path | None:
    """
    Return where a user's own configuration file is looked for.

    Args:
        environ: Environment variables.
        platform: As in `sys.platform`.

    Returns:
        The path, there or not; None when the environment names no home directory.
    """
    if platform == "win32":
        base = environ.get("APPDATA", "")
        return Path(base, "segdl", CONFIG_NAME) if base else None
    home = environ.get("HOME", "")
    if platform == "darwin":
        base = os.path.join(home, "Library", "Application Support") if home else ""
    else:
        base = environ.get("XDG_CONFIG_HOME", "")
        # A relative path in it is to be ignored (XDG Base Directory 0.8).
        if not os.path.isabs(base):
            base = os.path.join(home, ".config") if home else ""
    return Path(base, "segdl", CONFIG_NAME) if base else None


def load_config(
    path: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> EngineConfig:
    """
    Put a configuration together: argument > environment > file > default.

    Args:
        path: The file to read, which must exist. Without it: `segdl.toml` in `cwd`,
            else the one in the user's configuration directory, else none.
        environ: Environment variables, by default the process's. An empty one counts
            as not set.
        cwd: The current directory, by default the process's.
        overrides: Arguments that were given, by their names; they win.

    Returns:
        The checked configuration.

    Raises:
        ConfigError: The file or an environment variable is wrong; the message names
            file, line and key, or the variable.
        UsageError: An override is wrong.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    file = path or _find_file(environ, cwd)
    if file is not None:
        values.update(_read_file(file))
    values.update(_read_environ(environ))
    for name in overrides or {}:
        if name not in _RULES:
            raise UsageError(f"unknown argument {name!r}{_did_you_mean(name)}")
    return EngineConfig(**{**values, **(overrides or {})})


def _find_file(environ: Mapping[str, str], cwd: Path | None) -> Path | None:
    candidates = [user_config_file(environ)]
    with suppress(OSError):  # the current directory may be gone
        candidates.insert(0, (cwd or Path.cwd()) / CONFIG_NAME)
    for candidate in candidates:
        # Unlike Path.is_file, False where another user's directory is in the way.
        if candidate is not None and os.path.isfile(candidate):
            return candidate
    return None


def _read_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    values = {}
    for name, rule in _RULES.items():
        variable = _PREFIX + name.upper()
        if text := environ.get(variable, "").strip():
            values[name] = rule.read(text)
            if problem := _problem(name, values[name]):
                raise ConfigError(f"environment variable {variable} {problem}")
    return values


def _read_file(file: Path) -> dict[str, Any]:
    """Return the checked values of one file's table."""
    try:
        with file.open("rb") as opened:
            data = opened.read(_MAX_FILE_BYTES + 1)
        if len(data) > _MAX_FILE_BYTES:
            raise ConfigError(f"{file}: is larger than {_MAX_FILE_BYTES} bytes")
        text = data.decode("utf-8")
    except OSError as exc:
        raise ConfigError(f"{file}: cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{file}: is not UTF-8 (byte {exc.start})") from exc
    document = _parse_toml(file, text)
    for key in document:
        if key != _TABLE:
            raise ConfigError(_unknown_top_level(file, text, key, document[key]))
    table = document.get(_TABLE, {})
    if not isinstance(table, dict):
        place = _place(file, text, _TABLE)
        raise ConfigError(f"{place}: {_TABLE} must be a table: write [{_TABLE}]")
    for key, value in table.items():
        place = _place(file, text, key)
        if key not in _RULES:
            raise ConfigError(f"{place}: unknown key {key!r}{_did_you_mean(key)}")
        if key in ("limit_rate", "max_bytes") and isinstance(value, str):
            table[key] = value = _RULES[key].read(value)
        if problem := _problem(key, value):
            raise ConfigError(f"{place}: {key} {problem}")
    return table


def _parse_toml(file: Path, text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        document: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        # "Expected ']' at the end of a table declaration (at line 1, column 9)"
        # or "(at end of document)", where the key at fault is not known.
        lines = text.split("\n")
        found = re.search(r"at line ([0-9]+)", str(exc))
        number = int(found[1]) if found else len(lines)
        key = re.match(r"\s*([\w.-]+)\s*=", lines[number - 1]) if found else None
        about = f"{key[1]}: " if key else ""
        raise ConfigError(f"{file}:{number}: {about}not valid TOML: {exc}") from exc
    except RecursionError as exc:
        raise ConfigError(f"{file}: not valid TOML: nested too deeply") from exc
    except ValueError as exc:
        # Python's limit of digits, which tomllib leaves as it is.
        raise ConfigError(f"{file}: an integer has too many digits") from exc
    return document


def _unknown_top_level(file: Path, text: str, key: str, value: object) -> str:
    place = _place(file, text, key)
    if key in _RULES:
        return f"{place}: {key} belongs below a line [{_TABLE}]"
    kind = "table" if isinstance(value, dict) else "key"
    return f"{place}: unknown {kind} {key!r}; segdl reads the table [{_TABLE}] only"


def _place(file: Path, text: str, key: str) -> str:
    """
    Return "file:line" of a key.

    The standard parser keeps no line numbers, so the text is searched: for the key
    before an equals sign, or in a table's header, else (an inline table) anywhere.
    """
    word = re.escape(key)
    dotted = rf"(?:[\w\"'-]+[ \t]*\.[ \t]*)*[\"']?{word}[\"']?[ \t]*"
    for pattern in (
        rf"^[ \t]*{dotted}[=.]",
        rf"^[ \t]*\[+[ \t]*{dotted}[].]",
        rf"^[^#\n]*(?<![\w-]){word}(?![\w-])",
    ):
        if match := re.search(pattern, text, re.MULTILINE):
            return f"{file}:{text.count(chr(10), 0, match.start()) + 1}"
    return str(file)


def _did_you_mean(name: str) -> str:
    from difflib import get_close_matches

    known = [field.name for field in fields(EngineConfig)]
    close = get_close_matches(name.lower().replace("-", "_"), known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known are {', '.join(known)}"
