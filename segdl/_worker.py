"""A worker: reads commands from one pipe, writes events to another, one loop.

    command pipe ──> Reader ──> Transfers.turn() or Verifier.turn() ──> event pipe

`main` is a worker process; `serve` is the same loop, for the thread that takes its
place with `processes=0`. A process also

- keeps out of Ctrl-C: SIGINT is blocked from its first moment, the parent stops it;
- leaves at once when its parent is gone: the command pipe ends, or `os.getppid()`
  changes. The pipe alone may be late: a process that the user's program forked holds
  it open as long as it lives. PR_SET_PDEATHSIG would follow the thread that started
  the worker, not the process. What is lost is at most a piece a lane, and the
  parent, who alone writes the manifest, is gone already;
- says at least every second that it is not stuck (`Beat`), also while it waits for the
  disk: the parent ends a worker that it does not hear of (`_health`).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
import traceback
from typing import TYPE_CHECKING

from segdl._messages import (
    Accept,
    Beat,
    Configure,
    Crashed,
    Fetch,
    Limit,
    Message,
    Pieces,
    Quit,
    Reader,
    Split,
    Stop,
    encode,
)

if TYPE_CHECKING:
    from segdl._transfer import Transfers

_PARENT_CHECK_SECONDS = 0.5
# Also how often a worker that has nothing to do says that it is there.
_TURN_SECONDS = 1.0

TRANSFER = "transfer"
VERIFY = "verify"


class ParentGoneError(Exception):
    """The other end of the event pipe is closed."""


class Events:
    """
    The writing end of the event pipe; writes wait while the parent is busy.

    Pieces wait for what is said next, mostly the end of their lane, for the rest of the
    turn at most: the parent wakes up once for both.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._told = 0.0
        self._kept = b""

    def beat(self) -> None:
        """
        Begin a turn: say what waits, or that the worker is not stuck.

        Raises:
            ParentGoneError: Nobody reads any more.
        """
        self.flush()
        if time.monotonic() - self._told >= _TURN_SECONDS:
            self.emit(Beat())

    def emit(self, message: Message) -> None:
        """
        Send an event.

        Raises:
            ParentGoneError: Nobody reads any more.
        """
        if isinstance(message, Pieces):
            self._kept += encode(message)
        else:
            self._write(encode(message))

    def flush(self) -> None:
        """
        Send what waits.

        Raises:
            ParentGoneError: Nobody reads any more.
        """
        if self._kept:
            self._write(b"")

    def _write(self, line: bytes) -> None:
        self._told = time.monotonic()
        data = memoryview(self._kept + line)
        self._kept = b""
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except BrokenPipeError as error:
            raise ParentGoneError from error


def serve(role: str, command_fd: int, event_fd: int) -> None:
    """
    Serve commands until `Quit`, or until the parent is gone; then close both pipes.

    Args:
        role: `TRANSFER` or `VERIFY`.
        command_fd: Where commands are read.
        event_fd: Where events are written.
    """
    events = Events(event_fd)
    try:
        if role == VERIFY:
            _verify(Reader(command_fd), events)
        else:
            _transfer(Reader(command_fd), events)
    except (ParentGoneError, EOFError):
        pass
    except Exception:
        with contextlib.suppress(ParentGoneError):
            events.emit(Crashed(traceback.format_exc()))
    finally:
        with contextlib.suppress(ParentGoneError):
            events.flush()
        os.close(command_fd)
        os.close(event_fd)


def main(arguments: list[str]) -> None:
    """
    Run a worker process.

    Args:
        arguments: role, parent's process id, command descriptor, event descriptor.
    """
    role, parent, command_fd, event_fd = arguments
    if hasattr(signal, "pthread_sigmask"):
        # The engine's thread, which started this, blocks everything.
        signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGINT})
    watchdog = threading.Thread(
        target=_leave_with_parent, args=(int(parent),), daemon=True
    )
    watchdog.start()
    serve(role, int(command_fd), int(event_fd))
    # Nothing is buffered in Python, and libcurl's clean-up would only cost time.
    os._exit(0)


def _leave_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_SECONDS)
    os._exit(0)


def _transfer(commands: Reader, events: Events) -> None:
    from segdl._transfer import Transfers

    transfers = Transfers(events.emit, events.beat)
    try:
        transfers.watch(commands.fd)
        while True:
            events.beat()
            if not transfers.turn(_TURN_SECONDS):
                continue
            for message in commands.read():
                if isinstance(message, Quit):
                    return
                _command(transfers, message)
    finally:
        transfers.close()


def _command(transfers: Transfers, message: Message) -> None:
    if isinstance(message, Fetch):
        transfers.fetch(message)
    elif isinstance(message, Accept):
        transfers.accept(message)
    elif isinstance(message, Split):
        transfers.split(message)
    elif isinstance(message, Stop):
        transfers.stop(message.lane)
    elif isinstance(message, Limit):
        transfers.limit(message.bytes_per_second)
    elif isinstance(message, Configure):
        os.environ.update(message.environment)  # libcurl looks there
        transfers.configure(message)


def _verify(commands: Reader, events: Events) -> None:
    from segdl._verify import Verifier

    verifier = Verifier(events.emit)
    try:
        while True:
            events.beat()
            if not verifier.busy:
                select.select([commands.fd], [], [], _TURN_SECONDS)
            for message in commands.read():
                if isinstance(message, Quit):
                    return
                verifier.handle(message)
            verifier.turn()
    finally:
        verifier.close()
