"""Starting, watching and stopping workers.

    Worker.start ──> python -I -S -c "..."   (or a thread, with processes=0)
       send()   ──command pipe──>  _worker.serve
       read()   <──event pipe────
       sentinel <── pidfd: readable when the process is dead

A worker is `sys.executable`, told to run `segdl._worker.main`, with two pipes and
nothing else of ours; the user's `__main__` is never run again, whatever the global
start method is, so no main guard is needed. Why not `multiprocessing`'s own
processes and queues: see docs/notes/processes.md (no resource tracker process, no
semaphore left in /dev/shm by kill -9, no ban inside daemonic processes, half the
start-up time).

`-I -S`: the worker's own standard library comes first on its path, the caller's
`sys.path` behind it, so a `queue.py` beside the user's script can't take the place
of the standard one.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

from segdl._fs import above_streams
from segdl._messages import Message, Quit, Reader, encode
from segdl._threads import blocked_signals, blocking, start_without_signals
from segdl.errors import WorkerError

_BOOTSTRAP = (
    "import sys, json; sys.path += json.loads(sys.argv[1]); "
    "from segdl._worker import main; main(sys.argv[2:])"
)
_KILL_SECONDS = 0.5


def can_spawn() -> bool:
    """Tell whether there is an interpreter to start workers with."""
    return bool(sys.executable) and os.access(sys.executable, os.X_OK)


class Worker:
    """
    One worker, from the parent's side. It belongs to one thread.

    Args:
        role: `_worker.TRANSFER` or `_worker.VERIFY`.
        in_process: Whether to run the loop on a thread of this process.

    Raises:
        WorkerError: It could not be started.
    """

    def __init__(self, role: str, *, in_process: bool) -> None:
        self.role = role
        self.lanes = 0  # how many the scheduler has put here
        self.busy = 0.0  # as it said last; see `_messages.Progress`
        self.silent_seconds = 0.0  # since it was heard of; the scheduler adds them up
        self.ailing: str | None = None  # what was wrong with it when it was ended
        self._unsent = bytearray()
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False
        self._thread: threading.Thread | None = None
        self._sentinel: int | None = None
        fds: list[int] = []
        try:
            # The worker's own streams take the first three numbers.
            fds += os.pipe()
            fds += os.pipe()
            for _ in range(4):
                fds.append(above_streams(fds.pop(0)))
            command_reader, self._command_fd, self._event_fd, event_writer = fds
            if in_process:
                self._start_thread(command_reader, event_writer)
            else:
                self._start_process(command_reader, event_writer)
                for fd in (command_reader, event_writer):
                    fds.remove(fd)  # first: its number may be another file's soon
                    os.close(fd)
        except BaseException as error:
            for fd in fds:
                os.close(fd)
            if isinstance(error, (OSError, RuntimeError)):
                raise not_started(error) from error
            raise
        os.set_blocking(self._command_fd, False)
        self._events = Reader(self._event_fd)

    @property
    def pid(self) -> int | None:
        """The process's id; None for a thread."""
        return None if self._process is None else self._process.pid

    @property
    def event_fd(self) -> int:
        """Readable when events have come, or the worker is gone."""
        return self._event_fd

    @property
    def command_fd(self) -> int:
        """To be watched for writing while `blocked`."""
        return self._command_fd

    @property
    def sentinel(self) -> int | None:
        """Readable when the process has ended; None where the system has no such."""
        return self._sentinel

    @property
    def blocked(self) -> bool:
        """Whether commands wait for room in the pipe."""
        return bool(self._unsent)

    def send(self, message: Message) -> None:
        """Send a command; never waits, and does nothing once the worker is dead."""
        self._unsent += encode(message)
        self.flush()

    def flush(self) -> None:
        """Write what the pipe has room for."""
        try:
            while self._unsent:
                del self._unsent[: os.write(self._command_fd, self._unsent)]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self._unsent.clear()

    def read(self) -> Iterator[Message]:
        """
        Give the events that have come, without waiting.

        Raises:
            EOFError: There will be no more.
        """
        for message in self._events.read():
            self.silent_seconds = 0.0
            yield message

    def exitcode(self) -> int | None:
        """Reap the process; None while it lives, or for a thread."""
        return None if self._process is None else self._process.poll()

    @property
    def alive(self) -> bool:
        """Whether the process or thread is still there."""
        if self._process is not None:
            return self._process.poll() is None
        return self._thread is not None and self._thread.is_alive()

    def quit(self) -> None:
        """Ask the worker to write what it holds and leave."""
        self.send(Quit())

    def join(self, timeout: float) -> bool:
        """Wait for the end; True when it has come."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
        elif self._thread is not None:
            self._thread.join(timeout)
        return not self.alive

    def kill(self) -> None:
        """End a process at once; a thread can only be asked."""
        if self._killed or self._process is None:
            return
        if self._process.poll() is None:
            self._killed = True
            self._process.kill()
            # One that hangs in the kernel (a dead disk) dies when that lets it go.
            self.join(_KILL_SECONDS)

    def close(self) -> None:
        """Free the descriptors; the worker leaves if it is still there."""
        for fd in (self._command_fd, self._event_fd, self._sentinel):
            if fd is not None and fd >= 0:
                os.close(fd)
        self._command_fd = self._event_fd = self._events.fd = -1
        self._sentinel = None

    def _start_thread(self, command_reader: int, event_writer: int) -> None:
        from segdl._worker import serve

        self._thread = threading.Thread(
            target=serve,
            args=(self.role, command_reader, event_writer),
            name=f"segdl-{self.role}",
            daemon=True,
        )
        start_without_signals(self._thread)

    def _start_process(self, command_reader: int, event_writer: int) -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", "-c", _BOOTSTRAP),
                json.dumps(_import_path()),
                *(self.role, str(os.getpid())),
                *(str(command_reader), str(event_writer)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(command_reader, event_writer),
            env={k: v for k, v in os.environ.items() if not _names_proxy(k)},
        )
        with contextlib.suppress(AttributeError, OSError):
            self._sentinel = os.pidfd_open(self._process.pid)


_early: Worker | None = None


def start_early() -> None:
    """
    Start a worker for transfers that the first engine of this process will take.

    The program does so before it loads the rest of itself: the two take about 0.1 s
    each, and go on at the same time. An error is no matter: the engine will meet it.
    """
    global _early
    if _early is None and can_spawn():
        # As on the engine's thread: Ctrl-C is the program's own.
        with (
            blocking(blocked_signals() | {signal.SIGINT}),
            contextlib.suppress(WorkerError),
        ):
            _early = Worker("transfer", in_process=False)


def take_early() -> Worker | None:
    """Give the worker that was started early, once; None where there is none."""
    global _early
    worker, _early = _early, None
    if worker is not None and not worker.alive:
        worker.close()
        return None
    return worker


def end_early() -> None:
    """End a worker that was started early and that no engine has taken."""
    worker = take_early()
    if worker is not None:
        worker.kill()
        worker.close()


def proxy_environment() -> dict[str, str]:
    """Give the variables that name proxies, which workers get over their pipe."""
    return {k: v for k, v in os.environ.items() if _names_proxy(k)}


def _names_proxy(variable: str) -> bool:
    return variable.lower().endswith("_proxy")


def _import_path() -> list[str]:
    """Give `sys.path` for a worker: absolute, without what can't be made so."""
    paths = []
    for path in sys.path:
        # The current directory may be gone; and Python passes over all but strings.
        with contextlib.suppress(OSError):
            if isinstance(path, str):
                paths.append(os.path.abspath(path))
    return paths


def not_started(error: OSError | RuntimeError) -> WorkerError:
    """Say why a worker, or a thread, could not be started, and what to do."""
    advice = "processes=0 does without worker processes"
    if isinstance(error, RuntimeError):  # "can't start new thread"
        advice = "lower max_workers, or raise the limit of processes (ulimit -u)"
    elif error.errno in (errno.EMFILE, errno.ENFILE):
        advice = "lower max_workers, or raise the limit of open files (ulimit -n)"
    reason = getattr(error, "strerror", None) or str(error)
    return WorkerError(f"no worker could be started: {reason}; {advice}")
