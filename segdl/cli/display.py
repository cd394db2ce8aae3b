"""What the user sees while files come down, on stderr.

    update(tasks) ──┬─ on a terminal: a line a task, redrawn in place, and a total
                    └─ elsewhere: a line a task every ten seconds
    ended(task) ────── a line that stays

    model.safetensors  ━━━━━━━━━━━━━━──────  70%  85.2 MiB/s   0:18   3.5/5.0 GiB  16x

All calls come from the thread that waits. The lines of a terminal are never longer
than it is wide, since a wrapped line could not be redrawn.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypedDict

from segdl.cli.units import amount_text, bytes_text, rate_text, seconds_text
from segdl.task import COMPLETED, DOWNLOADING

if TYPE_CHECKING:
    from segdl.cli.console import Console
    from segdl.task import DownloadTask

__all__ = [
    "Bar",
    "Display",
    "NoDisplay",
    "choose_display",
    "name_of",
    "row",
    "shortened",
]

PLAIN_SECONDS = 10.0
_MIN_COLUMNS = 20
# A name and a bar share what the figures leave; below this there is no bar.
_BAR_FROM_COLUMNS = 26
_MAX_NAME_COLUMNS = 40
_MAX_BAR_COLUMNS = 40
# Done, to do, and what stands for the cut-out middle of a name.
_BAR, _ASCII_BAR = "━─…", "#-~"
_GREEN, _DIM, _RESET = "\x1b[32m", "\x1b[2m", "\x1b[0m"
_PHASES = {
    "queued": "waiting",
    "probing": "connecting",
    "verifying": "verifying",
    "publishing": "finishing",
}


class Display(Protocol):
    """How progress is shown."""

    def update(self, tasks: Sequence[DownloadTask]) -> None:
        """Show how the tasks that have not ended are getting on."""

    def ended(self, task: DownloadTask) -> None:
        """Show that a task completed."""

    def clear(self) -> None:
        """Take away what `update` drew, so that something else can be written."""


class NoDisplay:
    """Show nothing."""

    def update(self, tasks: Sequence[DownloadTask]) -> None:
        """Show nothing."""

    def ended(self, task: DownloadTask) -> None:
        """Show nothing."""

    def clear(self) -> None:
        """There is nothing to take away."""


def choose_display(console: Console, *, count: int) -> Display:
    """
    Choose how to show progress: a live one on a terminal that can move its cursor.

    Args:
        console: To show it on.
        count: Number of tasks.
    """
    terminal = console.terminal()
    if terminal is None or not _moves_cursor():
        return _PlainDisplay(console)
    return _LiveDisplay(console, terminal, count)


def name_of(task: DownloadTask) -> str:
    """Give what to call a task: its file's name, or the URL without secrets."""
    if task.file_path is not None:
        return os.path.basename(task.file_path)
    if task.filename is not None:
        return task.filename
    from segdl._urls import redact

    return redact(task.url)


def _short_name(task: DownloadTask) -> str:
    """Give what to call a task in a column: while its name is unknown, a guess."""
    if task.file_path is None and task.filename is None:
        from segdl._names import safe_name

        return safe_name(task.url, None)
    return name_of(task)


class _Endings:
    """When tasks began, for the line at the end of each."""

    def __init__(self) -> None:
        self._looked = time.monotonic()
        self._began: dict[str, float] = {}

    def look(self, active: Sequence[DownloadTask]) -> None:
        """Note which tasks are downloading now."""
        self._looked = time.monotonic()
        for task in active:
            self._began.setdefault(task.id, self._looked)

    def line(self, task: DownloadTask) -> str:
        # One that was never seen began after the last look.
        seconds = time.monotonic() - self._began.pop(task.id, self._looked)
        size, fetched = task.total_size, task.total_size - task.resumed_size
        if fetched <= 0 < size:
            text = f"{bytes_text(size)}, complete already"
        else:
            rate = rate_text(fetched / max(seconds, 0.001))
            text = f"{bytes_text(size)} in {seconds_text(seconds)}, {rate}"
            if task.resumed_size:
                text += f" ({bytes_text(task.resumed_size)} was there already)"
        if task.checksum is not None:
            text += f", {task.checksum.partition(':')[0]} verified"
        return f"{name_of(task)}: {text}"


class _PlainDisplay:
    """Lines that need no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._endings = _Endings()
        self._next = time.monotonic() + PLAIN_SECONDS

    def update(self, tasks: Sequence[DownloadTask]) -> None:
        now = time.monotonic()
        due = now >= self._next
        if due:
            self._next = now + PLAIN_SECONDS
        active = [task for task in tasks if task.status == DOWNLOADING]
        self._endings.look(active)
        for task in active if due else ():
            self._console.note(plain_line(task))

    def ended(self, task: DownloadTask) -> None:
        self._console.note(self._endings.line(task))

    def clear(self) -> None:
        """Lines stay."""


def plain_line(task: DownloadTask) -> str:
    """Give the line that a log gets every ten seconds."""
    parts = [bytes_text(task.downloaded_size)]
    if task.total_size:
        amount = amount_text(task.downloaded_size, task.total_size)
        parts = [f"{amount} ({task.progress:.0%})"]
    if task.phase in _PHASES:
        parts.append(_PHASES[task.phase])
    else:
        parts.append(rate_text(task.speed))
        if task.eta is not None:
            parts.append(f"{seconds_text(task.eta)} left")
    return f"{_short_name(task)}: {', '.join(parts)}"


class _LiveDisplay:
    """Lines that are redrawn in place."""

    def __init__(self, console: Console, terminal: int, count: int) -> None:
        self._console = console
        self._terminal = terminal
        self._count = count
        self._endings = _Endings()
        self._drawn = 0
        self._done_bytes = 0
        self._style = _style(console)

    def update(self, tasks: Sequence[DownloadTask]) -> None:
        active = [task for task in tasks if task.status == DOWNLOADING]
        self._endings.look(active)
        columns, lines = _terminal_size(self._terminal)
        room = max(1, lines - 2)
        rows = [self._task_row(task, columns) for task in active[:room]]
        if self._count > 1:
            rows.append(self._total_row(tasks, active, columns))
        self._draw(rows)

    def ended(self, task: DownloadTask) -> None:
        if task.status == COMPLETED:
            self._done_bytes += task.total_size
        self.clear()
        self._console.note(self._endings.line(task))

    def clear(self) -> None:
        if self._drawn:
            self._console.paint(f"{self._home()}\x1b[J")
            self._drawn = 0

    def _draw(self, rows: list[str]) -> None:
        # Each line is overwritten before its rest is erased: nothing flickers.
        text = "\x1b[K\n".join(rows)
        self._console.paint(f"{self._home()}{text}\x1b[K\x1b[J")
        self._drawn = max(1, len(rows))

    def _home(self) -> str:
        """Move to the first column of the first line that was drawn."""
        return "\r" + (f"\x1b[{self._drawn - 1}A" if self._drawn > 1 else "")

    def _task_row(self, task: DownloadTask, columns: int) -> str:
        phase = _PHASES.get(task.phase)
        return row(
            columns,
            name=_short_name(task),
            done=task.downloaded_size,
            total=task.total_size,
            speed=phase or rate_text(task.speed),
            eta=None if phase else task.eta,
            connections=task.connections,
            **self._style,
        )

    def _total_row(
        self,
        tasks: Sequence[DownloadTask],
        active: Sequence[DownloadTask],
        columns: int,
    ) -> str:
        done = self._done_bytes + sum(task.downloaded_size for task in tasks)
        known = all(task.total_size for task in tasks)
        total = self._done_bytes + sum(task.total_size for task in tasks)
        speed = sum(task.speed for task in active)
        left = int((total - done) / speed) if known and speed > 0 else None
        ended = self._count - len(tasks)
        return row(
            columns,
            name=f"{ended} of {self._count} done",
            done=done,
            total=total if known else 0,
            speed=rate_text(speed),
            eta=left,
            connections=sum(task.connections for task in active),
            **self._style,
        )


class Bar:
    """
    One line that is redrawn, on a terminal; nothing elsewhere.

    Args:
        console: To show it on.
        name: What to call it.
        size: Bytes of the whole.
    """

    def __init__(self, console: Console, name: str, size: int) -> None:
        self.name = name
        self._console = console
        self._size = size
        self._terminal = console.terminal() if _moves_cursor() else None
        self._style = _style(console)
        self._began = time.monotonic()

    def draw(self, done: int, connections: int = 0) -> None:
        """Show how many bytes there are, and how many connections."""
        if self._terminal is None:
            return
        rate = done / max(time.monotonic() - self._began, 0.001)
        line = row(
            _terminal_size(self._terminal)[0],
            name=self.name,
            done=done,
            total=self._size,
            speed=rate_text(rate),
            eta=int((self._size - done) / rate) if rate else None,
            connections=connections,
            **self._style,
        )
        self._console.paint(f"\r{line}\x1b[K")

    def clear(self) -> None:
        """Take the line away."""
        if self._terminal is not None:
            self._console.paint("\r\x1b[K")


class _Style(TypedDict):
    """How a bar is drawn, as arguments of `row`."""

    bar: str
    color: bool


def _style(console: Console) -> _Style:
    # NO_COLOR: no-color.org; whatever it is set to, as long as it is not empty.
    bar = _BAR if console.can_show(_BAR) else _ASCII_BAR
    return {"bar": bar, "color": not os.environ.get("NO_COLOR")}


def _moves_cursor() -> bool:
    """Tell whether a terminal here understands control sequences."""
    return os.name != "nt" and os.environ.get("TERM") != "dumb"


def _terminal_size(terminal: int) -> tuple[int, int]:
    """Give columns and lines."""
    try:
        size = os.get_terminal_size(terminal)
    except OSError:
        return 80, 24
    # A serial console reports 0 by 0.
    return (size.columns or 80), (size.lines or 24)


def row(
    columns: int,
    *,
    name: str,
    done: int,
    total: int,
    speed: str,
    eta: int | None,
    connections: int,
    bar: str = _BAR,
    color: bool = False,
) -> str:
    """
    Lay out one line of the live display.

    Args:
        columns: Width of the terminal; the line is shorter.
        name: Cut in its middle where there is too little room.
        done: Bytes.
        total: Bytes, 0 while unknown.
        speed: A rate, or what is being done instead.
        eta: Seconds left, None while unknown.
        connections: That are open.
        bar: The characters for done, to do, and left out.
        color: Whether to colour the bar.
    """
    room = max(_MIN_COLUMNS, columns - 1)
    share = min(1.0, done / total) if total else None
    # From the most to the least important; what does not fit is left out.
    figures = [
        "" if share is None else f"{int(share * 100)}%",
        speed,
        "" if eta is None else _clock(eta),
        amount_text(done, total) if total else bytes_text(done),
        f"{connections}x" if connections else "",
    ]
    widths = [4, 12, 8, 17, 4]
    while len(figures) > 2 and room - sum(widths) - len(widths) < _BAR_FROM_COLUMNS:
        figures.pop()
        widths.pop()
    tail = "".join(f" {f:>{w}}" for f, w in zip(figures, widths, strict=True))
    rest = room - len(tail)
    if rest < _BAR_FROM_COLUMNS:
        return _padded(name, rest, bar[2]) + tail
    name_columns = min(_MAX_NAME_COLUMNS, rest // 2)
    bar_columns = min(_MAX_BAR_COLUMNS, rest - name_columns - 1)
    drawn = _bar(share, bar_columns, bar, color=color)
    return f"{_padded(name, name_columns, bar[2])} {drawn}{tail}"


def _bar(share: float | None, columns: int, bar: str, *, color: bool) -> str:
    full = int((share or 0.0) * columns)
    done, rest = bar[0] * full, bar[1] * (columns - full)
    return f"{_GREEN}{done}{_DIM}{rest}{_RESET}" if color else done + rest


def _clock(seconds: int) -> str:
    """Give a time left in a form that keeps its width while it counts down."""
    hours, rest = divmod(seconds, 3600)
    if hours >= 100:
        return f"{hours // 24}d"
    if hours:
        return f"{hours}:{rest // 60:02}:{rest % 60:02}"
    return f"{rest // 60}:{rest % 60:02}"


def shortened(text: str, columns: int, ellipsis: str = _BAR[2]) -> str:
    """
    Cut the middle out of a text that is too wide.

    Args:
        text: Its end is kept, as it tells the files of a set apart.
        columns: Of the terminal; a CJK character takes two.
        ellipsis: One column, in place of the middle.
    """
    if _columns(text) <= columns:
        return text
    head, tail = "", ""
    left = columns - 1  # for the ellipsis
    front, back = 0, len(text) - 1
    while front <= back:
        from_front = _columns(head) <= _columns(tail)
        character = text[front] if from_front else text[back]
        left -= _columns(character)
        if left < 0:
            break
        if from_front:
            head, front = head + character, front + 1
        else:
            tail, back = character + tail, back - 1
    return f"{head}{ellipsis}{tail}"


def _padded(text: str, columns: int, ellipsis: str) -> str:
    text = "".join(c if c.isprintable() else " " for c in text)
    cut = shortened(text, columns, ellipsis)
    return cut + " " * (columns - _columns(cut))


def _columns(text: str) -> int:
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(
        0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text
    )
