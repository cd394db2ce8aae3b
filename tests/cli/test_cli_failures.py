"""Failures of network, origin and disk: one line, and the exit code of their kind."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from pathlib import Path

import pytest
from cli_program import Program
from scripted import Script, refusal

from segdl.testing import Origin

SIZE = 300_000
ONCE = ("--retry-times", "0")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, 3),
        (401, 6),
        (403, 6),
        (404, 3),
        (407, 6),
        (410, 3),
        (416, 3),
        (429, 3),
        (500, 3),
        (503, 3),
    ],
)
def test_a_status_that_is_no_success(
    program: Program, segdl_origin: Origin, tmp_path: Path, status: int, code: int
) -> None:
    """The status is told, and nothing is left on the disk."""
    ran = program("get", f"{segdl_origin.url}/status/{status}", *ONCE)
    assert (ran.code, ran.out) == (code, "")
    assert str(status) in ran.err
    assert ran.err.count("\n") == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("how", [["--json"], ["--no-progress"], ["-q"]])
def test_an_origin_that_echoes(program: Program, how: list[str]) -> None:
    """Nothing the program writes repeats a password, a token or a signed query."""
    secrets = ["canary-4711", "canary-5f0c", "canary-0815"]
    with closing(Script(lambda _: refusal(f"503 no {' '.join(secrets)}"))) as origin:
        url = origin.url.replace("//", f"//me:{secrets[0]}@") + f"?sig={secrets[1]}"
        ran = program(
            *("get", url, *how, "--header", f"X-Key: {secrets[2]}"),
            *("--retry-times", "1", "--retry-delay", "0"),
        )
    assert ran.code == 3
    assert "503 no *** *** ***" in ran.err
    assert "canary" not in ran.out + ran.err


def test_a_refused_connection(program: Program, tmp_path: Path) -> None:
    """Nobody listens: a network failure."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    ran = program("get", f"http://127.0.0.1:{port}/a.bin", *ONCE)
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith("segdl: ")
    assert os.listdir(tmp_path) == []


def test_an_unknown_host(program: Program) -> None:
    """A name that does not exist (RFC 6761 s6.4): a network failure."""
    ran = program("get", "http://segdl.invalid/a.bin", *ONCE, "--timeout", "5")
    assert (ran.code, ran.out) == (3, "")
    assert "segdl.invalid" in ran.err


def test_different_failures_give_1(program: Program, segdl_origin: Origin) -> None:
    """Several kinds at once are no single kind; each has its line."""
    ran = program(
        "get",
        f"{segdl_origin.url}/status/401",
        f"{segdl_origin.url}/status/404",
        segdl_origin.blob_url(1, SIZE, "a.bin"),
        *ONCE,
    )
    assert ran.code == 1
    assert len(ran.out.splitlines()) == 1
    lines = [line for line in ran.err.splitlines() if line.startswith("segdl: ")]
    assert len(lines) == 2


def test_a_login_page_where_ranges_were_promised(
    program: Program, segdl_origin: Origin, tmp_path: Path
) -> None:
    """A page that takes the file's place in mid-download never gets its name."""
    blob = segdl_origin.blob(1, 40 << 20)
    url = segdl_origin.blob_url(
        1, 40 << 20, "a.bin", f=["rst@byte1048576", "html@req2,*"]
    )
    ran = program("get", url, "-x", "1", "--retry-delay", "0", "--retry-times", "1")
    assert ran.code in (3, 4)
    assert not (tmp_path / "a.bin").exists()
    assert blob.size == 40 << 20


def test_a_wrong_checksum(
    program: Program, segdl_origin: Origin, tmp_path: Path
) -> None:
    """4, with both digests; the name does not appear."""
    blob = segdl_origin.blob(1, SIZE)
    url = segdl_origin.blob_url(1, SIZE, "a.bin")
    ran = program("get", url, "--checksum", "sha256:" + "0" * 64, *ONCE)
    assert (ran.code, ran.out) == (4, "")
    assert "0" * 64 in ran.err
    assert blob.digest("sha256") in ran.err
    assert not (tmp_path / "a.bin").exists()


@pytest.mark.parametrize("inner", ["", "/below"])
def test_a_directory_that_is_a_file(
    program: Program, segdl_origin: Origin, tmp_path: Path, inner: str
) -> None:
    """A file where the directory should be is told, and not touched."""
    (tmp_path / "taken").write_bytes(b"mine")
    ran = program("get", segdl_origin.blob_url(1, SIZE, "a"), "-d", f"taken{inner}")
    assert (ran.code, ran.out) == (5, "")
    assert "taken" in ran.err
    assert (tmp_path / "taken").read_bytes() == b"mine"


def test_a_directory_that_cannot_be_made(
    program: Program, segdl_origin: Origin
) -> None:
    """Even root can't make a directory in /proc."""
    ran = program("get", segdl_origin.blob_url(1, SIZE, "a"), "-d", "/proc/segdl")
    assert (ran.code, ran.out) == (5, "")
    assert "/proc/segdl" in ran.err


def test_a_directory_has_the_name_of_the_file(
    program: Program, segdl_origin: Origin, tmp_path: Path
) -> None:
    """A directory is never replaced by a file."""
    (tmp_path / "a.bin").mkdir()
    url = segdl_origin.blob_url(1, SIZE, "a.bin")
    ran = program("get", url, "-o", "a.bin", "--on-exists", "overwrite")
    assert ran.code == 5
    assert (tmp_path / "a.bin").is_dir()
