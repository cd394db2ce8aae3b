"""An engine, its tasks, and what the user is told, from start to exit code.

submit(engine) ──> tasks ──> watch: ten times a second
                               ended?  ──> path, line, or error
                               going?  ──> Display.update
                               signal? ──> shutdown(wait=False), how to resume
                   events ──> EventWriter (--json)
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from itertools import takewhile
from typing import TYPE_CHECKING

from segdl._processes import end_early
from segdl.cli.display import NoDisplay, choose_display, name_of
from segdl.cli.exit_codes import OTHER, combined, exit_code
from segdl.cli.signals import Stop, caught
from segdl.engine import DownloadEngine
from segdl.errors import SegdlError
from segdl.task import COMPLETED, FAILED, FINAL

if TYPE_CHECKING:
    import argparse

    from segdl.cli.console import Console
    from segdl.cli.display import Display
    from segdl.cli.events import EventWriter
    from segdl.config import EngineConfig
    from segdl.progress import TaskEvent
    from segdl.task import DownloadTask

__all__ = ["run_tasks"]

_POLL_SECONDS = 0.1
# A dead disk must not keep the program from its end.
_LOOK_SECONDS = 1.0


def run_tasks(
    args: argparse.Namespace,
    console: Console,
    config: EngineConfig,
    submit: Callable[[DownloadEngine], Iterator[DownloadTask]],
) -> int:
    """
    Run an engine until all tasks have ended, or a signal comes.

    Args:
        args: With the options of `add_output_options`.
        console: For the output.
        config: Of the engine.
        submit: Gives the engine its work task by task, until a signal comes.

    Returns:
        The exit code.
    """
    events: EventWriter | None = None
    if config.processes == 0:
        end_early()
    with caught() as stop:
        engine = DownloadEngine(config=config)
        try:
            if args.json:
                from segdl.cli.events import EventWriter

                events = EventWriter(console)
                engine.register_event_callback(events.write)
            tasks = list(takewhile(lambda _: stop.number is None, submit(engine)))
            report = _report(args, console, engine, len(tasks))
            report.watch(tasks, stop)
        except BaseException:
            engine.shutdown(wait=False)
            raise
        engine.shutdown(wait=stop.number is None)
        if events is not None:
            events.summary(tasks)
        return report.finish(tasks, stop)


def _report(
    args: argparse.Namespace, console: Console, engine: DownloadEngine, count: int
) -> _Report:
    """Choose what is told, and where."""
    quiet = args.quiet or args.json
    display: Display = NoDisplay()
    if not quiet and not args.no_progress:
        display = choose_display(console, count=count)
    report = _Report(console, engine, display, paths=not quiet)
    if not quiet:
        engine.register_event_callback(report.hear, "retry")
    return report


class _Report:
    """What the user is told while tasks run and when they end."""

    def __init__(
        self, console: Console, engine: DownloadEngine, display: Display, *, paths: bool
    ) -> None:
        self._console = console
        self._engine = engine
        self._display = display
        self._paths = paths
        self._codes: list[int] = []
        self._retries: deque[str] = deque()
        self._saved: dict[str, DownloadTask] = {}

    def hear(self, event: TaskEvent) -> None:
        """Take an event, on the engine's callback thread."""
        task = self._engine.get_task(event.task_id)
        name = event.url if task is None else name_of(task)
        delay = event.fields["delay"]
        when = f"; again in {delay:.1f} s" if delay else ""
        self._retries.append(f"{name}: {event.fields['reason']}{when}")

    def watch(self, tasks: list[DownloadTask], stop: Stop) -> None:
        """Wait until all tasks have ended, or a signal came."""
        waiting = tasks
        try:
            while waiting and stop.number is None:
                ended = [task for task in waiting if task.status in FINAL]
                if ended:
                    gone = set(ended)
                    waiting = [task for task in waiting if task not in gone]
                    self._tell(ended)
                    continue
                self._tell(())
                self._display.update(waiting)
                self._engine.wait(waiting, _POLL_SECONDS)
        finally:
            self._display.clear()

    def finish(self, tasks: list[DownloadTask], stop: Stop) -> int:
        """Say how to go on, and give the exit code."""
        unfinished = [task for task in tasks if task.status not in FINAL]
        if stop.number is not None:
            kept = _kept(unfinished)
            self._console.error(f"stopped by {stop.name}{_how_to_go_on(kept)}")
            return 128 + stop.number
        kept = _kept([task for task in tasks if task.status == FAILED])
        if kept:
            self._console.error(f"not finished{_how_to_go_on(kept)}")
        return combined(self._codes)

    def _tell(self, ended: list[DownloadTask] | tuple[()]) -> None:
        while self._retries:
            self._display.clear()
            self._console.note(self._retries.popleft())
        for task in ended:
            error = task.exception(0)
            if error is None:
                self._completed(task)
            else:
                self._failed(task, str(error), exit_code(error))

    def _completed(self, task: DownloadTask) -> None:
        path = task.result(0)
        other = self._saved.setdefault(os.path.realpath(path), task)
        if other is not task and (
            task.checksum is None or task.checksum != other.checksum
        ):
            self._failed(
                task,
                "two downloads of this call have the same destination, so one of them "
                "is not kept; give them names, or use --on-exists rename",
                OTHER,
            )
            return
        self._display.ended(task)
        if self._paths:
            self._console.result(path)

    def _failed(self, task: DownloadTask, message: str, code: int) -> None:
        self._codes.append(code)
        self._display.clear()
        self._console.error(f"{name_of(task)}: {message}")


def _kept(tasks: list[DownloadTask]) -> list[DownloadTask]:
    """Choose the tasks that can be gone on with, as far as the disk answers in time."""
    found: list[DownloadTask] = []
    look = threading.Thread(
        target=lambda: found.extend(filter(_is_kept, tasks)), daemon=True
    )
    look.start()
    look.join(_LOOK_SECONDS)
    return list(found)


def _is_kept(task: DownloadTask) -> bool:
    """Tell whether a part file of the task is there, and can be gone on with."""
    from segdl.cli.sidecar import Sidecar

    if task.status == COMPLETED or not task.file_path or not task.downloaded_size:
        return False
    if task._streamed:
        return False
    try:
        sidecar = Sidecar.find(task.file_path)
        header = sidecar.load().header
    except SegdlError:
        return False
    # Without a strong validator only a digest can hold the pieces of two runs together.
    return os.path.exists(os.path.join(sidecar.directory, sidecar.part)) and (
        header.validator.is_strong or header.digest is not None
    )


def _how_to_go_on(kept: list[DownloadTask]) -> str:
    if not kept:
        return ""
    received = sum(task.downloaded_size for task in kept)
    from segdl.cli.units import bytes_text

    return (
        f"; {bytes_text(received)} are kept, and the same command goes on from there "
        "(`segdl clean` removes them)"
    )
