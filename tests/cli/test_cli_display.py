"""The live display, laid out for any width, and numbers as people read them."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segdl import DownloadTask
from segdl.cli import display
from segdl.cli.bench import table
from segdl.cli.console import Console
from segdl.cli.display import row, shortened
from segdl.cli.inspect import DONE, MISSING, PARTLY, cells
from segdl.cli.units import amount_text, bytes_text, seconds_text

MIB = 1 << 20


def columns_of(text: str) -> int:
    """Count the columns a text takes on a terminal."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))


def test_a_row_tells_everything_where_there_is_room() -> None:
    """At 100 columns a row has name, bar, percent, rate, time, size, connections."""
    line = row(
        100,
        name="model.bin",
        done=35 * MIB,
        total=50 * MIB,
        speed="8.0 MiB/s",
        eta=75,
        connections=16,
        bar="#-~",
    )
    assert line.split() == [
        "model.bin",
        "#" * 16 + "-" * 8,
        "70%",
        "8.0",
        "MiB/s",
        "1:15",
        "35.0/50.0",
        "MiB",
        "16x",
    ]


@given(
    st.integers(1, 300),
    st.text(max_size=80),
    st.integers(0, 1 << 45),
    st.integers(0, 1 << 45),
    st.none() | st.integers(0, 1 << 30),
    st.integers(0, 256),
)
def test_a_row_is_never_wider_than_the_terminal(
    columns: int, name: str, done: int, total: int, eta: int | None, connections: int
) -> None:
    """A row fits, whatever it is about; it could not be redrawn otherwise."""
    line = row(
        columns,
        name=name,
        done=done,
        total=total,
        speed="1023.9 MiB/s",
        eta=eta,
        connections=connections,
    )
    assert columns_of(line) <= max(20, columns - 1)
    assert line.isprintable()


@pytest.mark.parametrize(
    ("text", "columns", "expected"),
    [
        ("model.bin", 9, "model.bin"),
        ("model.bin", 8, "mode…bin"),
        ("模型文件.bin", 8, "模型…bin"),
    ],
)
def test_a_name_is_cut_in_its_middle(text: str, columns: int, expected: str) -> None:
    """Both ends stay: the beginning says what it is, the end which one."""
    assert shortened(text, columns) == expected


@given(st.text(st.characters(categories=["L", "N"])), st.integers(1, 40))
def test_a_cut_name_fits(text: str, columns: int) -> None:
    """A cut name never takes more columns than it may."""
    assert columns_of(shortened(text, columns)) <= columns


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024 * 1024 - 1, "1.0 MiB"),
        (1536 * 1024, "1.5 MiB"),
        (5 << 30, "5.0 GiB"),
    ],
)
def test_bytes_have_a_unit(count: int, expected: str) -> None:
    """Numbers of bytes have binary units, and never show as 1024 of one."""
    assert bytes_text(count) == expected


def test_an_amount_has_the_unit_of_the_whole() -> None:
    """Part and whole are read side by side."""
    assert amount_text(512 << 20, 5 << 30) == "0.5/5.0 GiB"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.04, "0.0 s"),
        (9.97, "10 s"),
        (59.9, "1:00"),
        (75, "1:15"),
        (3723, "1:02:03"),
        (180_000, "2d 2h"),
    ],
)
def test_durations_are_short(seconds: float, expected: str) -> None:
    """A duration is rounded once, so no part of it reaches 60."""
    assert seconds_text(seconds) == expected


@pytest.mark.parametrize(
    ("ranges", "size", "count", "expected"),
    [
        ([], 10, 5, "░░░░░"),
        ([(0, 10)], 10, 5, "█████"),
        ([(0, 4), (6, 2)], 10, 5, "██░█░"),
        ([(1, 2)], 10, 5, "▒▒░░░"),
        ([(9, 1)], 10, 3, "░░▒"),
        ([(0, 1)], 1, 1, "█"),
    ],
)
def test_a_map_shows_done_partly_and_missing(
    ranges: list[tuple[int, int]], size: int, count: int, expected: str
) -> None:
    """A cell is full only when every byte of it is there."""
    assert cells(ranges, size, count) == expected


@given(st.data())
def test_a_map_never_lies(data: st.DataObject) -> None:
    """Each cell says what counting its bytes one by one says."""
    size = data.draw(st.integers(1, 60))
    count = data.draw(st.integers(1, size))
    held = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
    ranges = [(offset, 1) for offset, is_held in enumerate(held) if is_held]
    expected = ""
    for index in range(count):
        cell = held[index * size // count : (index + 1) * size // count]
        expected += DONE if all(cell) else PARTLY if any(cell) else MISSING
    assert cells(ranges, size, count) == expected


def test_a_table_compares_with_its_first_row() -> None:
    """The factor is the plain stream's time over that of each row."""
    from segdl.bench import Measurement, Result, Variant

    def result(name: str, *seconds: float) -> Result:
        runs = tuple(
            Measurement(seconds=s, cpu_seconds=0.5, bytes=MIB, sha256="")
            for s in seconds
        )
        return Result(variant=Variant(name=name), runs=runs)

    lines = table([result("plain", 4.0), result("segdl", 9.0, 1.0, 0.1)])
    assert [line.split() for line in lines[1:]] == [
        ["plain", "4.00", "256.0", "KiB/s", "0.50", "1.0x", "same"],
        ["segdl", "1.00", "1.0", "MiB/s", "0.50", "4.0x", "same"],
    ]


def test_off_a_terminal_there_is_a_line_every_ten_seconds_and_one_at_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log gets few lines; a task that waits for a slot gets none."""
    now = [100.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    shown = display.choose_display(Console(), count=2)
    task = DownloadTask("http://h/a.bin", ".", "a.bin")
    waiting = DownloadTask("http://h/b.bin", ".", "b.bin")
    task._set_status("downloading")
    task._phase = "transferring"
    task._downloaded, task._total, task._progress = 5 * MIB, 20 * MIB, 0.25
    task._speed, task._eta = float(MIB), 15
    for _ in range(250):
        shown.update([task, waiting])
        now[0] += 0.1
    task._set_status("completed")
    shown.ended(task)
    assert capsys.readouterr().err.splitlines() == [
        "a.bin: 5.0/20.0 MiB (25%), 1.0 MiB/s, 15 s left",
        "a.bin: 5.0/20.0 MiB (25%), 1.0 MiB/s, 15 s left",
        "a.bin: 20.0 MiB in 25 s, 819.2 KiB/s",
    ]
