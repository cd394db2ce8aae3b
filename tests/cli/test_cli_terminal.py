"""What a terminal shows, while files come down and afterwards."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from segdl.testing import Origin

MIB = 1 << 20
COLUMNS = 72

_TOKEN = re.compile(r"\x1b\[([0-9;]*)([A-Za-z])|\r|\n|[^\x1b\r\n]+")


class Screen:
    """The part of a terminal that the live display relies on."""

    def __init__(self) -> None:
        self.lines = [""]
        self.row = self.column = 0

    def feed(self, text: str) -> None:
        """Take output."""
        for token in _TOKEN.finditer(text):
            if token[0] == "\r":
                self.column = 0
            elif token[0] == "\n":
                self.row += 1
                if self.row == len(self.lines):
                    self.lines.append("")
            elif token[2] is None:
                self._write(token[0])
            else:
                self._control(token[1], token[2])

    def _write(self, text: str) -> None:
        line = self.lines[self.row].ljust(self.column)
        end = self.column + len(text)
        self.lines[self.row] = line[: self.column] + text + line[end:]
        self.column = end

    def _control(self, number: str, kind: str) -> None:
        if kind == "A":
            self.row -= int(number)
            assert self.row >= 0
        elif kind in "JK":
            self.lines[self.row] = self.lines[self.row][: self.column]
            if kind == "J":
                del self.lines[self.row + 1 :]
        else:
            assert kind == "m", f"unexpected control sequence {number}{kind}"


def on_terminal(
    directory: Path, *arguments: str, env: dict[str, str] | None = None
) -> tuple[int, str, str]:
    """Run the program with stderr on a terminal; give code, stdout, drawing."""
    main, terminal = pty.openpty()
    size = struct.pack("HHHH", 24, COLUMNS, 0, 0)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)
    environ = {**os.environ, "TERM": "xterm", "PYTHONIOENCODING": "utf-8"}
    for name in ("NO_COLOR", "COLUMNS"):
        environ.pop(name, None)
    process = subprocess.Popen(
        [sys.executable, "-m", "segdl", *arguments],
        cwd=directory,
        env={**environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=terminal,
    )
    os.close(terminal)
    drawn = b""
    try:
        while data := _read(main):
            drawn += data
        assert process.stdout is not None
        out = process.stdout.read().decode()
        process.wait(30)
    finally:
        process.kill()
        process.communicate()
        os.close(main)
    return process.returncode, out, drawn.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # EIO: Linux's end of file, once nobody has the terminal open
        return b""


def test_the_display_is_redrawn_in_place_and_leaves_a_line_a_file(
    segdl_origin: Origin, tmp_path: Path
) -> None:
    """A bar a file and a total are drawn; at the end one line a file stays."""
    urls = [
        segdl_origin.blob_url(seed, 3 * MIB, f"{name}.bin", rate="4M")
        for seed, name in ((1, "a"), (2, "long-" * 30))
    ]
    code, out, drawn = on_terminal(tmp_path, "get", *urls, "-x", "1")
    assert code == 0
    assert len(out.splitlines()) == 2
    screen = Screen()
    screen.feed(drawn)
    assert "━" in drawn
    assert "%" in drawn
    assert "\x1b[32m" in drawn
    assert "0 of 2 done" in drawn
    rows = re.findall(r"[^\r\n]*━[^\r\n]*", re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", drawn))
    assert max(map(len, rows)) < COLUMNS
    left = [line.split(": ")[0] for line in screen.lines if line]
    assert sorted(left) == ["a.bin", "long-" * 30 + ".bin"]


def test_no_color_is_respected(segdl_origin: Origin, tmp_path: Path) -> None:
    """NO_COLOR leaves the bar and takes its colours."""
    url = segdl_origin.blob_url(1, 4 * MIB, "a.bin", rate="1M")
    code, _, drawn = on_terminal(tmp_path, "get", url, env={"NO_COLOR": "1"})
    assert code == 0
    assert "━" in drawn
    assert re.findall(r"\x1b\[[0-9;]*m", drawn) == []


@pytest.mark.parametrize(
    ("options", "env"),
    [
        ((), {"TERM": "dumb"}),
        (("--no-progress",), {}),
        (("--json",), {}),
        (("-q",), {}),
    ],
)
def test_no_bar_where_none_is_wanted(
    segdl_origin: Origin, tmp_path: Path, options: tuple[str, ...], env: dict[str, str]
) -> None:
    """Without a capable terminal, or when told so, nothing moves the cursor."""
    url = segdl_origin.blob_url(1, 2 * MIB, "a.bin", rate="4M")
    code, _, drawn = on_terminal(tmp_path, "get", url, *options, env=env)
    assert code == 0
    assert "\x1b" not in drawn


def test_characters_the_terminal_lacks_are_not_used(
    segdl_origin: Origin, tmp_path: Path
) -> None:
    """On an ASCII terminal the bar is made of ASCII."""
    url = segdl_origin.blob_url(1, 2 * MIB, "a.bin", rate="4M")
    env = {"PYTHONIOENCODING": "ascii"}
    code, _, drawn = on_terminal(tmp_path, "get", url, env=env)
    assert code == 0
    assert drawn.isascii()
    assert "--" in drawn


def test_a_failure_stays_below_no_half_drawn_bar(
    segdl_origin: Origin, tmp_path: Path
) -> None:
    """An error stands on a line of its own."""
    code, _, drawn = on_terminal(
        tmp_path, "get", f"{segdl_origin.url}/status/404", "--retry-times", "0"
    )
    assert code == 3
    screen = Screen()
    screen.feed(drawn)
    (line,) = (line for line in screen.lines if line)
    assert line.startswith("segdl: ")


def test_hashing_shows_a_bar_and_takes_it_away(tmp_path: Path) -> None:
    """`segdl verify` leaves nothing on the terminal but an error."""
    (tmp_path / "a").write_bytes(b"")
    digest = "md5:d41d8cd98f00b204e9800998ecf8427e"
    code, out, drawn = on_terminal(tmp_path, "verify", "a", "--checksum", digest)
    assert (code, out) == (0, "a: md5 OK\n")
    screen = Screen()
    screen.feed(drawn)
    assert [line for line in screen.lines if line] == []
