"""Configuration: ranges, layers, and errors that say where and what."""

from __future__ import annotations

import math
import os
import pickle
import re
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segdl.config import (
    EngineConfig,
    load_config,
    parse_rate,
    parse_size,
    user_config_file,
)
from segdl.errors import ConfigError, UsageError

DEFAULTS = {
    "max_workers": 3,
    "chunk_size": 8192,
    "retry_times": 3,
    "retry_delay": 5,
    "timeout": 30,
    "progress_interval": 0.5,
    "verify_hash": True,
    "connections": "auto",
    "processes": "auto",
    "limit_rate": None,
    "on_exists": "reuse",
    "durability": "publish",
    "io": "auto",
    "ca_file": None,
    "proxy": None,
    "user_agent": None,
    "allow_addresses": "all",
    "max_bytes": None,
}


def load(
    tmp_path: Path, text: str | None = None, environ: Any = None, **overrides: Any
) -> EngineConfig:
    if text is not None:
        (tmp_path / "segdl.toml").write_text(text, encoding="utf-8")
    return load_config(environ=environ or {}, cwd=tmp_path, overrides=overrides)


def changed(config: EngineConfig) -> dict[str, Any]:
    return {
        k: getattr(config, k) for k, v in DEFAULTS.items() if getattr(config, k) != v
    }


def test_every_argument_has_the_contracts_default() -> None:
    """The names and defaults are exactly the contract's."""
    config = EngineConfig()
    assert {f.name: getattr(config, f.name) for f in fields(config)} == DEFAULTS


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_workers", 1),
        ("chunk_size", 1),
        ("chunk_size", 10 * 1024 * 1024),
        ("retry_times", 0),
        ("retry_delay", 0),
        ("retry_delay", 0.25),
        ("timeout", 0.1),
        ("progress_interval", 2),
        ("verify_hash", False),
        ("connections", 1),
        ("connections", 256),
        ("processes", 0),
        ("processes", 64),
        ("limit_rate", 1),
        ("limit_rate", 0.5),
        ("on_exists", "overwrite"),
        ("on_exists", "rename"),
        ("on_exists", "error"),
        ("durability", "none"),
        ("durability", "checkpoint"),
        ("io", "buffered"),
        ("io", "direct"),
        ("proxy", "http://proxy.example:3128"),
        ("proxy", "HTTPS://user:p%40ss@proxy.example:3128/"),
        ("proxy", "socks5h://[::1]:1080"),
        ("proxy", "socks4a://h"),
        ("user_agent", "tool/1.0 (+https://example.org)"),
        ("allow_addresses", "all"),
        ("allow_addresses", "public"),
        ("max_bytes", 1),
        ("max_bytes", 2**63 - 1),
        ("max_bytes", None),
    ],
)
def test_the_ends_of_every_range_are_accepted(name: str, value: Any) -> None:
    """Each argument takes the smallest and largest value, and every word."""
    assert getattr(EngineConfig(**{name: value}), name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("max_workers", v) for v in (0, -1, True, 1.0, "3", None)],
        *[("chunk_size", v) for v in (0, 10 * 1024 * 1024 + 1, 8192.0)],
        *[("retry_times", v) for v in (-1, False, 1.5)],
        *[("retry_delay", v) for v in (-0.1, math.nan, math.inf, True, "5")],
        *[("timeout", v) for v in (0, -1, math.nan, math.inf, True)],
        *[("progress_interval", v) for v in (0, -1, math.nan, None)],
        *[("verify_hash", v) for v in (1, 0, "true", None)],
        *[("connections", v) for v in (0, 257, "Auto", "4", True, None)],
        *[("processes", v) for v in (-1, 65, "0", False)],
        *[("limit_rate", v) for v in (0, -1, math.nan, math.inf, "1M", True)],
        *[("on_exists", v) for v in ("skip", "", None, 1, ["reuse"])],
        *[("durability", v) for v in ("full", True)],
        *[("io", v) for v in ("mmap", None)],
        *[("ca_file", v) for v in ("/no/such/file.pem", "", "/", 5)],
        *[
            ("proxy", v)
            for v in (
                "",
                "proxy.example:3128",
                "ftp://h",
                "http://",
                "http://h:port",
                "http://h/path",
                "http://h\r\nX: y",
                "http://h\n",
                "http://h\x00",
                5,
            )
        ],
        *[("user_agent", v) for v in ("", "  ", "a\r\nX: y", "a\x00", "ü", 5)],
        *[("allow_addresses", v) for v in ("private", "Public", "", True, None)],
        *[("max_bytes", v) for v in (0, -1, 1.0, math.inf, "1M", True)],
    ],
)
def test_other_types_and_ranges_are_refused_by_name(name: str, value: Any) -> None:
    """The error names the argument and says what is accepted."""
    with pytest.raises(UsageError, match=f"^{name} must be .+, not ") as caught:
        EngineConfig(**{name: value})
    assert not isinstance(caught.value, ConfigError)


def test_the_message_shows_the_value_and_what_is_accepted() -> None:
    """A user can mend the call from the message alone."""
    with pytest.raises(UsageError) as caught:
        EngineConfig(connections=1000)
    expected = 'connections must be "auto" or an integer from 1 to 256, not 1000'
    assert str(caught.value) == expected


def test_a_long_value_is_shown_short() -> None:
    """A value of a megabyte does not become a message of a megabyte."""
    with pytest.raises(UsageError) as caught:
        EngineConfig(on_exists="x" * 1_000_000)  # type: ignore[arg-type]  # the point
    assert len(str(caught.value)) < 400


def test_a_configuration_is_a_value() -> None:
    """It cannot be changed, compares by content, and survives pickling."""
    config = EngineConfig(max_workers=7, proxy="http://u:secret@h:1")
    with pytest.raises(FrozenInstanceError):
        config.max_workers = 8  # type: ignore[misc]  # the point
    assert pickle.loads(pickle.dumps(config)) == config


def test_a_ca_file_is_kept_as_an_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later chdir does not change which file is meant; a Path is accepted."""
    (tmp_path / "ca.pem").write_text("pem")
    monkeypatch.chdir(tmp_path)
    expected = os.path.abspath("ca.pem")
    assert EngineConfig(ca_file="ca.pem").ca_file == expected
    assert EngineConfig(ca_file=tmp_path / "ca.pem").ca_file == expected  # type: ignore[arg-type]  # tolerated


@pytest.mark.parametrize(
    "proxy",
    [
        "http://user:s3cret@h:1",
        "http://user:s3cret@x@h:1",
        "user:s3cret@h",
        "ftp://user:s3cret@h",
        "http://user:s3cret",
        "user:s3cret",
        "http://user:s3cret:s3cret",
        "http://user:s3cret]x",
        "user:s3cret]x",
        "http://user:s3cret:1234",
        "socks5:user:s3cret:9",
        "http://user:s3cret@h\r\nX: y",
        "http://a\n:s3cret@h",
        b"http://user:s3cret@h",
    ],
)
def test_a_proxys_password_is_shown_nowhere(proxy: Any, tmp_path: Path) -> None:
    """Neither repr nor any error shows it, wherever the value came from."""
    assert "s3cret" not in _repr_or_error(lambda: EngineConfig(proxy=proxy))
    assert "s3cret" not in _repr_or_error(lambda: load(tmp_path, proxy=proxy))
    environ = {"SEGDL_PROXY": str(proxy)}
    assert "s3cret" not in _repr_or_error(lambda: load(tmp_path, None, environ))


def test_a_url_in_the_place_of_a_file_keeps_its_password() -> None:
    """What stands in a wrong place is no less a secret."""
    url = "https://user:s3cret@h/ca.pem?sig=s3cret"
    assert "s3cret" not in _repr_or_error(lambda: EngineConfig(ca_file=url))


def _repr_or_error(make: Callable[[], EngineConfig]) -> str:
    try:
        return repr(make())
    except UsageError as exc:
        return str(exc)


def test_the_repr_names_every_argument() -> None:
    """The repr shows what a call would take, the proxy's host included."""
    text = repr(EngineConfig(proxy="http://user:pw@h:1", max_workers=7))
    assert "max_workers=7" in text
    assert "proxy='http://***@h:1'" in text
    assert re.findall(r"(\w+)=", text) == list(DEFAULTS)


# parse_rate


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1.0),
        ("500000", 500000.0),
        ("1k", 1024.0),
        ("800K", 819200.0),
        ("1.5M", 1572864.0),
        (" 2m ", 2097152.0),
        ("1G", 1073741824.0),
        ("0.5", 0.5),
    ],
)
def test_rates_are_read_with_binary_suffixes(text: str, expected: float) -> None:
    """k, M and G are multiples of 1024 in either case, as in curl and aria2."""
    assert parse_rate(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "0", "0k", "-1", "+1", "1 k", "k", "1T", "1kk", "1e6", ".5", "5."),
        *("nan", "inf", "1_000", "٣", "1,5M", "9" * 400),
    ],
)
def test_what_is_no_rate_is_refused_with_examples(text: str) -> None:
    """Zero, signs, other suffixes and other digits are refused."""
    with pytest.raises(UsageError, match="is no rate: write bytes per second"):
        parse_rate(text)


@given(st.text(max_size=20))
def test_any_text_is_a_positive_rate_or_an_error(text: str) -> None:
    """No text gives a rate that is zero, negative or not finite."""
    try:
        rate = parse_rate(text)
    except UsageError:
        return
    assert 0 < rate < math.inf


# parse_size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1),
        ("500000", 500000),
        ("1k", 1024),
        ("800K", 819200),
        ("1.5M", 1572864),
        (" 2m ", 2097152),
        ("1G", 1073741824),
        ("1.3k", 1331),
        ("9007199254740993", 2**53 + 1),
    ],
)
def test_sizes_have_the_suffixes_of_rates(text: str, expected: int) -> None:
    """A size is a whole number of bytes, exact beyond what a float holds."""
    size = parse_size(text)
    assert (type(size), size) == (int, expected)


@pytest.mark.parametrize(
    "text",
    [
        *("", "0", "0k", "0.5", "-1", "+1", "1 k", "k", "1T", "1kk", "1e6", ".5", "5."),
        *("nan", "inf", "1_000", "٣", "1,5M", "9" * 41, "9" * 5000),
    ],
)
def test_what_is_no_size_is_refused_with_examples(text: str) -> None:
    """Less than one byte, signs, other suffixes and other digits are refused."""
    with pytest.raises(UsageError, match="is no size: write bytes, 1 or more"):
        parse_size(text)


# Layers


def test_without_any_layer_the_defaults_hold(tmp_path: Path) -> None:
    """No file, no variable, no argument: the defaults."""
    assert load(tmp_path) == EngineConfig()


def test_argument_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    """Each key comes from the first layer that names it."""
    config = load(
        tmp_path,
        "[downloader]\nmax_workers = 1\nretry_times = 1\ntimeout = 1\n",
        {"SEGDL_MAX_WORKERS": "2", "SEGDL_RETRY_TIMES": "2"},
        max_workers=4,
    )
    assert changed(config) == {"max_workers": 4, "retry_times": 2, "timeout": 1}


def test_an_argument_of_none_takes_a_limit_back(tmp_path: Path) -> None:
    """None given on purpose wins over the file, like any other argument."""
    text = '[downloader]\nlimit_rate = "1M"\n'
    assert load(tmp_path, text).limit_rate == 1048576.0
    assert load(tmp_path, text, limit_rate=None).limit_rate is None
    assert load(tmp_path, text, {"SEGDL_LIMIT_RATE": "none"}).limit_rate is None
    text = '[downloader]\nmax_bytes = "1.5M"\n'
    assert load(tmp_path, text).max_bytes == 1572864
    assert load(tmp_path, text, max_bytes=None).max_bytes is None
    assert load(tmp_path, text, {"SEGDL_MAX_BYTES": "none"}).max_bytes is None


def test_every_key_can_come_from_the_file(tmp_path: Path) -> None:
    """The table takes all engine arguments under their own names."""
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text("pem")
    values = {
        "max_workers": 4,
        "chunk_size": 65536,
        "retry_times": 0,
        "retry_delay": 1,
        "timeout": 10,
        "progress_interval": 0.25,
        "verify_hash": False,
        "connections": 8,
        "processes": 0,
        "limit_rate": 1000,
        "on_exists": "rename",
        "durability": "none",
        "io": "buffered",
        "ca_file": str(ca_file),
        "proxy": "http://h:1",
        "user_agent": "x",
        "allow_addresses": "public",
        "max_bytes": 1000,
    }
    lines = [f"{k} = {_toml(v)}" for k, v in values.items()]
    config = load(tmp_path, "\n".join(["[downloader]", *lines]))
    assert changed(config) == values


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}'" if isinstance(value, str) else str(value)


def test_every_key_can_come_from_the_environment(tmp_path: Path) -> None:
    """SEGDL_ and the upper-case name; numbers, words and rates are read as such."""
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text("pem")
    environ = {
        "SEGDL_MAX_WORKERS": "4",
        "SEGDL_CHUNK_SIZE": "65536",
        "SEGDL_RETRY_TIMES": "0",
        "SEGDL_RETRY_DELAY": "1.5",
        "SEGDL_TIMEOUT": "10",
        "SEGDL_PROGRESS_INTERVAL": ".25",
        "SEGDL_VERIFY_HASH": "off",
        "SEGDL_CONNECTIONS": "8",
        "SEGDL_PROCESSES": "0",
        "SEGDL_LIMIT_RATE": "1k",
        "SEGDL_ON_EXISTS": "rename",
        "SEGDL_DURABILITY": "none",
        "SEGDL_IO": "buffered",
        "SEGDL_CA_FILE": str(ca_file),
        "SEGDL_PROXY": "http://h:1",
        "SEGDL_USER_AGENT": "x",
        "SEGDL_ALLOW_ADDRESSES": "public",
        "SEGDL_MAX_BYTES": "2k",
    }
    assert changed(load(tmp_path, None, environ)) == {
        "max_workers": 4,
        "chunk_size": 65536,
        "retry_times": 0,
        "retry_delay": 1.5,
        "timeout": 10.0,
        "progress_interval": 0.25,
        "verify_hash": False,
        "connections": 8,
        "processes": 0,
        "limit_rate": 1024.0,
        "on_exists": "rename",
        "durability": "none",
        "io": "buffered",
        "ca_file": str(ca_file),
        "proxy": "http://h:1",
        "user_agent": "x",
        "allow_addresses": "public",
        "max_bytes": 2048,
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *[(word, True) for word in ("1", "true", "TRUE", "yes", "on", " On ")],
        *[(word, False) for word in ("0", "false", "False", "no", "off")],
    ],
)
def test_words_for_true_and_false(tmp_path: Path, text: str, expected: bool) -> None:
    """A switch in the environment takes the usual words in either case."""
    assert load(tmp_path, None, {"SEGDL_VERIFY_HASH": text}).verify_hash is expected


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("SEGDL_MAX_WORKERS", "abc"),
        ("SEGDL_MAX_WORKERS", "0"),
        ("SEGDL_MAX_WORKERS", "1_0"),
        ("SEGDL_MAX_WORKERS", "٣"),
        ("SEGDL_MAX_WORKERS", "9" * 5000),
        ("SEGDL_TIMEOUT", "nan"),
        ("SEGDL_TIMEOUT", "-1"),
        ("SEGDL_VERIFY_HASH", "maybe"),
        ("SEGDL_CONNECTIONS", "many"),
        ("SEGDL_LIMIT_RATE", "fast"),
        ("SEGDL_MAX_BYTES", "much"),
        ("SEGDL_MAX_BYTES", "0"),
        ("SEGDL_IO", "mmap"),
    ],
)
def test_a_bad_variable_is_named(tmp_path: Path, variable: str, text: str) -> None:
    """The error says which environment variable, and shows its text."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, None, {variable: text})
    assert str(caught.value).startswith(f"environment variable {variable} must be ")
    assert text[:40] in str(caught.value)


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    """SEGDL_PROXY= in front of a command takes nothing and breaks nothing."""
    assert load(tmp_path, None, {"SEGDL_PROXY": "", "SEGDL_TIMEOUT": " "}) == load(
        tmp_path
    )


def test_other_variables_are_left_alone(tmp_path: Path) -> None:
    """A variable that only begins like ours is no configuration."""
    assert load(tmp_path, None, {"SEGDL_WHATEVER": "1", "MAX_WORKERS": "9"}) == load(
        tmp_path
    )


def test_an_unknown_argument_is_refused(tmp_path: Path) -> None:
    """A mistyped override is named, with the name it is close to."""
    with pytest.raises(UsageError, match=r"'max_worker'; did you mean 'max_workers'\?"):
        load(tmp_path, max_worker=3)


# Which file


def test_a_given_file_is_the_only_one_read(tmp_path: Path) -> None:
    """--config replaces the files that would be found."""
    (tmp_path / "segdl.toml").write_text("[downloader]\nmax_workers = 1\n")
    other = tmp_path / "other.toml"
    other.write_text("[downloader]\nretry_times = 9\n")
    config = load_config(other, environ={}, cwd=tmp_path)
    assert changed(config) == {"retry_times": 9}


def test_a_given_file_must_exist(tmp_path: Path) -> None:
    """A mistyped --config is an error, not silence."""
    with pytest.raises(ConfigError, match=r"nope\.toml: cannot be read: No such file"):
        load_config(tmp_path / "nope.toml", environ={}, cwd=tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="the XDG directories are Linux's")
def test_the_current_directorys_file_hides_the_users(tmp_path: Path) -> None:
    """The user's file is read only where the current directory has none."""
    users = tmp_path / "config" / "segdl" / "segdl.toml"
    users.parent.mkdir(parents=True)
    users.write_text("[downloader]\nmax_workers = 9\n")
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    assert changed(load(tmp_path, None, environ)) == {"max_workers": 9}
    text = "[downloader]\nretry_times = 1\n"
    assert changed(load(tmp_path, text, environ)) == {"retry_times": 1}


@pytest.mark.parametrize(
    ("platform", "environ", "expected"),
    [
        ("linux", {"HOME": "/h"}, "/h/.config/segdl/segdl.toml"),
        ("linux", {"HOME": "/h", "XDG_CONFIG_HOME": "/x"}, "/x/segdl/segdl.toml"),
        (
            "linux",
            {"HOME": "/h", "XDG_CONFIG_HOME": "rel"},
            "/h/.config/segdl/segdl.toml",
        ),
        ("linux", {}, None),
        (
            "darwin",
            {"HOME": "/h", "XDG_CONFIG_HOME": "/x"},
            "/h/Library/Application Support/segdl/segdl.toml",
        ),
        ("darwin", {}, None),
        ("win32", {"APPDATA": "/a", "HOME": "/h"}, "/a/segdl/segdl.toml"),
        ("win32", {}, None),
    ],
)
def test_the_users_configuration_directory(
    platform: str, environ: dict[str, str], expected: str | None
) -> None:
    """Each platform's own place; None where the environment names no home."""
    path = user_config_file(environ, platform)
    assert path == (Path(expected) if expected else None)


# Errors in the file


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (
            "[downloader]\n\nmax_worker = 3\n",
            3,
            "unknown key 'max_worker'; did you mean 'max_workers'?",
        ),
        (
            "[downloader]\nzzz = 3\n",
            2,
            "unknown key 'zzz'; known are max_workers, chunk_size,",
        ),
        ("# max_workers\n\n[downloader]\nmax_workers = '3'", 4, "max_workers must be"),
        ("[downloader]\nmax_workers = 0\n", 2, "an integer >= 1, not 0"),
        ("[downloader]\nmax_workers = true\n", 2, "an integer >= 1, not True"),
        ("[downloader]\nverify_hash = 1\n", 2, "verify_hash must be true or false"),
        ("[downloader]\ntimeout = nan\n", 2, "timeout must be a number of seconds"),
        ("[downloader]\n'timeout' = 0\n", 2, "timeout must be"),
        ("[downloader]\ntimeout = 1979-05-27\n", 2, "timeout must be"),
        ("[downloader]\nlimit_rate = 'x'\n", 2, "limit_rate must be"),
        ("[downloader]\nmax_bytes = '0'\n", 2, "max_bytes must be"),
        ("[downloader]\nmax_bytes = 1.5\n", 2, "max_bytes must be"),
        ("\ndownloader.timeout = 0\n", 2, "timeout must be"),
        ("\ndownloader = { timeout = 0 }\n", 2, "timeout must be"),
        ("[downloader]\n[downloader.timeout]\n", 2, "timeout must be"),
        ("\ndownloader = 3\n", 2, "downloader must be a table: write [downloader]"),
        ("\n[[downloader]]\n", 2, "downloader must be a table"),
        ("\n\n[segdl]\nx = 1\n", 3, "unknown table 'segdl'"),
        ("\nx = 1\n", 2, "unknown key 'x'; segdl reads the table [downloader] only"),
        ("max_workers = 1\n", 1, "max_workers belongs below a line [downloader]"),
        ("[downloader]\nmax_workers = \n", 2, "max_workers: not valid TOML"),
        ("[downloader]\nio = 'auto\nx = 1", 3, ": not valid TOML: Expected"),
        ("\n[downloader\n", 2, "not valid TOML"),
        ("[downloader]\ntimeout = 1\ntimeout = 2\n", 3, "not valid TOML"),
    ],
)
def test_the_error_names_file_line_and_key(
    tmp_path: Path, text: str, line: int, words: str
) -> None:
    """An editor can jump to the line, and the key is in the message."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'segdl.toml'}:{line}: ")
    assert words in str(caught.value)


def test_a_password_in_the_file_is_not_in_the_error(tmp_path: Path) -> None:
    """The message about a bad proxy hides what stands before the @."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "[downloader]\nproxy = 'user:s3cret@h'\n")
    assert "s3cret" not in str(caught.value)


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    """TOML is UTF-8; the error says where it stops being so."""
    (tmp_path / "segdl.toml").write_bytes(b"[downloader]\n# \xff\n")
    with pytest.raises(ConfigError, match=r"segdl\.toml: is not UTF-8 \(byte 15\)"):
        load(tmp_path)


def test_an_empty_file_and_an_empty_table_say_nothing(tmp_path: Path) -> None:
    """A file with comments alone is no error."""
    assert load(tmp_path, "# nothing yet\n") == EngineConfig()
    assert load(tmp_path, "[downloader]\n") == EngineConfig()


@given(text=st.text(alphabet="[]downlaer.timu = \n'\"#0{}", max_size=60))
def test_any_text_is_a_configuration_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    """No file content raises anything but ConfigError."""
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_bytes(text.encode())
    try:
        outcome = repr(load_config(file, environ={}, cwd=file.parent))
    except ConfigError as exc:
        outcome = str(exc)
    assert outcome.startswith(("EngineConfig(", f"{file}:"))


def test_a_configuration_directory_that_can_not_be_looked_at(tmp_path: Path) -> None:
    """Such as another user's, whose HOME a `sudo -u` kept: it counts as missing."""
    environ = {"XDG_CONFIG_HOME": str(tmp_path / ("a" * 300)), "HOME": "/" + "a" * 300}
    assert load_config(environ=environ, cwd=tmp_path) == EngineConfig()


@pytest.mark.parametrize("digits", [400, 5000])
def test_an_integer_beyond_all_floats(digits: int, tmp_path: Path) -> None:
    """It is refused like another wrong value, by Python's own limit or by ours."""
    file = tmp_path / "segdl.toml"
    file.write_text(f"[downloader]\ntimeout = {'9' * digits}\n")
    with pytest.raises(ConfigError, match=r"segdl\.toml"):
        load_config(file, environ={})


def test_an_argument_beyond_all_floats() -> None:
    """The same holds for an argument."""
    with pytest.raises(UsageError, match="timeout"):
        EngineConfig(timeout=10**400)
