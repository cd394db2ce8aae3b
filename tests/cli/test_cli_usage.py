"""What is wrong with a call is said before anything is downloaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_program import Program

URL = "http://127.0.0.1:9/file.bin"
COMMANDS = ("get", "resume", "inspect", "verify", "clean", "serve", "bench")


def test_help_lists_the_commands(inside: Program) -> None:
    """The overview goes to stdout and names every command."""
    ran = inside("--help")
    assert (ran.code, ran.err) == (0, "")
    assert [name for name in COMMANDS if f"  {name} " not in ran.out] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(inside: Program, command: str) -> None:
    """Each command shows its own usage."""
    ran = inside(command, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"usage: segdl {command} ")


def test_version_tells_what_matters(program: Program) -> None:
    """The versions of segdl, Python, libcurl, pycurl and TLS are told."""
    ran = program("--version")
    assert (ran.code, ran.err) == (0, "")
    names = [line.split()[0] for line in ran.out.splitlines()]
    assert names == ["segdl", "Python", "libcurl", "TLS"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "which command?"),
        (("gte",), "unknown command 'gte'; did you mean 'get'?"),
        ((URL,), f"unknown command '{URL}'; to download it: segdl get URL"),
        (("--frobnicate",), "unknown option '--frobnicate'"),
        (("get",), "what is to be downloaded? give a URL, or -i FILE"),
        (("get", URL, "--frobnicate"), "unrecognized arguments: --frobnicate"),
        (("get", URL, "--conn", "4"), "unrecognized arguments: --conn"),
        (("get", URL, "--on-exists", "ask"), "invalid choice: 'ask'"),
        (("get", URL, "-j", "0"), "--jobs must be an integer >= 1, not 0"),
        (("get", URL, "-j", "x"), "--jobs must be an integer >= 1, not 'x'"),
        (("get", URL, "-x", "257"), "--connections must be"),
        (("get", URL, "--processes", "-1"), "--processes must be"),
        (("get", URL, "--timeout", "0"), "--timeout must be"),
        (("get", URL, "--retry-times", "1.5"), "--retry-times must be"),
        (("get", URL, "--limit-rate", "fast"), "--limit-rate: 'fast' is no rate"),
        (("get", URL, "--max-bytes", "much"), "--max-bytes: 'much' is no size"),
        (("resume", ".", "--max-bytes", "0"), "--max-bytes: '0' is no size"),
        (("get", URL, "--cacert", "/none.pem"), "--cacert must be"),
        (("get", URL, "--proxy", "nonsense"), "begins with http://, https://, socks4"),
        (("get", "h/f"), "the URL has no scheme; put https:// in front"),
        (("get", "h:80/f"), "put http:// or https:// in front of a host name"),
        (("get", URL, URL + "2", "-o", "a"), "--output is about one file"),
        (("get", URL, URL + "2", "--checksum", "md5:"), "--checksum is about one file"),
        (("get", URL, "-i", "list", "--mirror", URL), "--mirror is about one file"),
        (("get", URL, URL), "http://127.0.0.1:9/file.bin is given twice"),
        (("get", "-i", "missing"), "cannot read the input file 'missing'"),
        (("get", URL, "--checksum", "sha256"), "not of the form ALGORITHM:HEX"),
        (("get", URL, "--checksum", "sha3:00"), "algorithm 'sha3' is not known"),
        (("get", URL, "--checksum", "md5:00"), "32 hexadecimal digits"),
        (("get", URL, "--checksum", "md5:" + "x" * 32), "is not hexadecimal"),
        (("get", URL, "-H", "token"), "a header is written 'Name: value'"),
        (("get", URL, "-H", "A: b\r\nC: d"), "header A holds a line end"),
        (("get", URL, "-H", "A: b\n"), "header A holds a line end"),
        (("get", URL, "-H", "A: b\0"), "header A holds a line end"),
        (("get", URL, "-H", "@none"), "cannot read the headers in 'none'"),
        (("get", URL, "-d", ""), "the path is empty"),
        (("get", URL, "--config", "none.toml"), "none.toml: cannot be read"),
        (("get", URL, "--config", "/dev/zero"), "larger than 1048576 bytes"),
        (("get", URL, "-H", "@/dev/zero"), "larger than 1048576 bytes"),
        (("get", "-i", "/dev/zero"), "larger than 67108864 bytes"),
        (("bench", "--repeat", "0"), "--repeat is 1 or more"),
        (("bench", "--connections", "1,x"), "--connections: 'x' is no number"),
        (("bench", "--size", "big"), "--size: 'big' is none"),
        (("bench", "--pears"), "unrecognized arguments: --pears"),
        (("bench", "ftp://h/f"), "ftp"),
        (("verify", "f"), "--checksum"),
        (("verify", "f", "--checksum", "sha3:00"), "algorithm 'sha3' is not known"),
        (("resume",), "DIR|FILE"),
        (("resume", ""), "the path is empty"),
        (("resume", ".", ""), "the path is empty"),
        (("inspect", ""), "the path is empty"),
        (("clean", ""), "the path is empty"),
        (("verify", "", "--checksum", "md5:" + "0" * 32), "the path is empty"),
        (("serve", "--port", "65536"), "'65536' is no port: 0 - 65535"),
        (("serve", "--port", "-1"), "'-1' is no port"),
        (("serve", "--port", "x"), "'x' is no port"),
    ],
)
def test_a_wrong_call_is_refused(
    inside: Program, arguments: tuple[str, ...], message: str
) -> None:
    """A mistake ends with 2, one line on stderr, nothing on stdout."""
    ran = inside(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert ran.err.count("\n") == 1
    assert ran.err.startswith("segdl")


@pytest.mark.parametrize(
    "arguments",
    [
        ("get", URL, "-o"),
        ("get", URL, "-d"),
        ("get", URL, "-x"),
        ("get", URL, "--timeout"),
        ("get", URL, "--limit-rate"),
        ("get", URL, "--cacert"),
        ("get", URL, "--config"),
        ("get", URL, "-H", "@{}"),
        ("get", "-i"),
        ("resume",),
        ("inspect",),
        ("clean",),
        ("verify", "--checksum", "md5:" + "0" * 32),
    ],
)
def test_a_url_in_a_wrong_place_keeps_its_secrets(
    inside: Program, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """A link that is given where a path or number is wanted is not repeated whole."""
    url = "http://me:s3cret-1@127.0.0.1:9/f?sig=s3cret-2"
    *words, last = arguments
    ran = inside(*words, *([last.format(url)] if "{}" in last else [last, url]))
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.count("\n") == 1
    assert "s3cret" not in ran.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "url",
    [
        "",
        " ",
        "example.org/file",
        "http://",
        "http:///file",
        "http://h:port/",
        "http://h:99999/",
        "http://h/\n",
        "http://[::1/",
        "file:///etc/passwd",
        "ftp://127.0.0.1/file",
        "data:,x",
        "s3cret://user:s3cret@h/?s3cret",
        "http://user:s3cret@h\\x/?token=s3cret",
    ],
)
def test_a_url_that_cannot_work_is_refused(inside: Program, url: str) -> None:
    """A URL is refused before any I/O, and its secrets are not repeated."""
    ran = inside("get", "http://127.0.0.1:9/first", url)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("segdl: URL 2: ")
    assert ran.err.count("\n") == 1
    assert "s3cret@" not in ran.err
    assert "token=s3cret" not in ran.err


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../up",
        "a/b",
        "a\\b",
        "a\0b",
        "a\nb",
        "n" * 256,
        "é" * 150,
        "NUL",
        "con.txt",
        "end.",
    ],
)
def test_a_name_that_cannot_be_stored_is_refused(inside: Program, name: str) -> None:
    """A name is never changed: it is taken, or refused with the reason."""
    ran = inside("get", URL, "-o", name)
    assert (ran.code, ran.out) == (2, "")
    assert "file name" in ran.err
    assert ran.err.count("\n") == 1


def test_a_mirror_with_a_password_is_refused(inside: Program) -> None:
    """No mirror gets credentials, so it can't have any; they are not repeated."""
    ran = inside("get", URL, "--mirror", "https://me:canary-5f0c@example.net/a.bin")
    assert (ran.code, ran.out) == (2, "")
    assert "the mirror https://example.net/a.bin has a user name" in ran.err
    assert "canary" not in ran.err


def test_a_wrong_configuration_names_file_line_and_key(
    inside: Program, tmp_path: Path
) -> None:
    """The segdl.toml here is read, and a key that is not known refused."""
    (tmp_path / "segdl.toml").write_text("[downloader]\nmax_wrokers = 3\n")
    ran = inside("get", URL)
    assert ran.code == 2
    assert "segdl.toml:2: unknown key 'max_wrokers'" in ran.err


def test_a_wrong_environment_is_named(
    inside: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable with a wrong value is named."""
    monkeypatch.setenv("SEGDL_MAX_WORKERS", "many")
    ran = inside("get", URL)
    assert ran.code == 2
    assert "SEGDL_MAX_WORKERS must be an integer" in ran.err


def test_a_wrong_line_of_a_list_is_named(inside: Program, tmp_path: Path) -> None:
    """Every entry of a list is checked before the first is downloaded."""
    (tmp_path / "list").write_text(f"{URL}\n  out=a\n{URL}2\n  checksum=md5:0\n")
    ran = inside("get", "-i", "list")
    assert ran.code == 2
    assert ran.err.startswith("segdl: list:3: a md5 digest has 32")


def test_the_same_name_twice_is_refused(inside: Program, tmp_path: Path) -> None:
    """Two entries that say the same destination are a mistake in the list."""
    (tmp_path / "list").write_text(f"{URL}\n  out=a\n{URL}2\n  out=a\n")
    ran = inside("get", "-i", "list")
    assert ran.code == 2
    assert ran.err.startswith("segdl: list:3: 'a' is given twice for ")


def test_the_same_name_in_one_directory_is_refused(
    inside: Program, tmp_path: Path
) -> None:
    """However it is reached: a link to the directory makes no second one of it."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "list").write_text(
        f"{URL}\n  dir=real\n  out=a\n{URL}2\n  dir=link\n  out=a\n"
    )
    ran = inside("get", "-i", "list")
    assert ran.code == 2
    assert ran.err.startswith("segdl: list:4: 'a' is given twice for ")


def test_a_small_call_loads_nothing_heavy() -> None:
    """What costs time at the start is left for the commands that need it."""
    heavy = ["asyncio", "rich", "urllib.request", "pycurl", "psutil", "tempfile"]
    code = (
        "import sys; from segdl.cli import main; main(['get']); "
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    "call",
    [
        ("get", "http://127.0.0.1:9/f"),
        ("get", "http://127.0.0.1:9/f", "-d", "x"),
        ("resume", "."),
        ("inspect", "f"),
        ("clean", "."),
        ("verify", "f", "--checksum", "md5:" + "0" * 32),
    ],
)
def test_a_current_directory_that_is_gone(
    call: tuple[str, ...], inside: Program, tmp_path: Path
) -> None:
    """A relative path is refused, and says why."""
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    ran = inside(*call)
    assert ran.code == 2, ran.err
    assert "current directory is gone" in ran.err
    assert "absolute path" in ran.err


def test_an_absolute_path_needs_no_current_directory(
    inside: Program, tmp_path: Path
) -> None:
    """Its configuration file is missed by nobody."""
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    assert inside("clean", tmp_path).code == 0
    call = ("get", "-d", tmp_path, "http://127.0.0.1:9/f", "--retry-times", "0")
    assert inside(*call).code == 3


def test_a_list_from_a_closed_stdin(
    inside: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a daemon has it."""
    monkeypatch.setattr(sys, "stdin", None)
    ran = inside("get", "-i", "-")
    assert ran.code == 2
    assert "stdin is closed" in ran.err
