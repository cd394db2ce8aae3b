"""The engine's own thread: workers, timers, and the jobs between them.

                     ┌──────────────────────────────┐
    post(call) ────> │ loop: select(pipes, pidfds)  │ <── events ── workers, verifier
    helper threads ─>│   jobs' on_ methods          │ ──> commands ─>
                     │   timers, tick()             │
                     └──────────────────────────────┘

Everything a job does happens here, with the engine's lock held, so that the methods
of the API, on other threads, see whole states. Nothing here waits for the network, nor
for the disk but to append to a manifest, and for the few calls that follow wrong bytes.

A worker that dies: its sentinel fires; what it had already sent is read and counts;
its lanes are lost, so the bytes they had not recorded are missing again; the next
lane starts a new worker. Too many deaths in a minute fail the jobs instead. One that
hangs, or takes too much memory, is made to die (`_health`).
"""

from __future__ import annotations

import contextlib
import heapq
import os
import random
import selectors
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from typing import Any, Protocol

from segdl._health import Health
from segdl._helpers import Helpers
from segdl._job import Job
from segdl._messages import (
    Answered,
    Checked,
    Configure,
    Crashed,
    Drop,
    Ended,
    Fetch,
    Hashed,
    Kept,
    Limit,
    Message,
    Pieces,
    Progress,
    Shrunk,
)
from segdl._origins import OriginLimits
from segdl._processes import (
    Worker,
    can_spawn,
    not_started,
    proxy_environment,
    take_early,
)
from segdl._saturation import Saturation, idle_seconds
from segdl._threads import start_without_signals
from segdl._urls import Origin, origin
from segdl._worker import TRANSFER, VERIFY
from segdl.config import EngineConfig
from segdl.errors import SegdlError, WorkerError

# A file below this is not worth a second process.
SECOND_WORKER_BYTES = 64 << 20
_TICK_SECONDS = 0.1
_MAX_DEATHS = 5
_DEATHS_SECONDS = 60.0
# A worker that hangs takes a minute to be found.
_AILING_SECONDS = 900.0
_QUIT_SECONDS = 0.5
# poll(2) takes no more than 24 days; a retry_delay may be longer.
_MOST_WAIT_SECONDS = 3600.0


class Owner(Protocol):
    """What the scheduler needs of the engine; called with the lock held."""

    def job_event(self, job: Job, kind: str, fields: dict[str, Any]) -> None: ...
    def job_ended(self, job: Job) -> None: ...
    def tick(self, now: float) -> None: ...


class Scheduler:
    """
    The thread, and the `Crew` of all jobs.

    Args:
        config: The engine's settings.
        owner: The engine.
        lock: The engine's.
        user_agent: What requests say they are from.

    Raises:
        WorkerError: There is no descriptor, or no thread, left for it.
    """

    def __init__(
        self,
        config: EngineConfig,
        owner: Owner,
        lock: threading.RLock,
        user_agent: str,
    ) -> None:
        self._config = config
        self._owner = owner
        self._lock = lock
        self._user_agent = user_agent
        self._in_process = config.processes == 0 or not can_spawn()
        self._workers: list[Worker] = []
        self._wanted = _first_processes(config.processes)
        self._saturation = Saturation(idle_seconds)
        self._verifier: Worker | None = None
        self._lanes: dict[int, tuple[Job, Worker]] = {}
        self._jobs: dict[int, Job] = {}
        self._origins: dict[Origin, OriginLimits] = {}
        self._numbers = count(1)
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._calls: deque[Callable[[], None]] = deque()
        self._deaths: list[float] = []  # until when each counts
        self._health = Health(time.monotonic())
        self._given_up: set[Worker] = set()
        self._limit_rate = config.limit_rate
        self._shares: dict[int, float | None] = {}
        self._stopping = False
        self._helpers = Helpers("segdl-disk")
        # How many are at work for each job; and whether they have anybody to tell.
        self._helping: Counter[Job] = Counter()
        self._ended = False
        self._wake_lock = threading.RLock()
        self._woken = False
        self._thread = threading.Thread(
            target=self._run, name="segdl-engine", daemon=True
        )
        with ExitStack() as undo:
            try:
                self._selector = selectors.DefaultSelector()
                undo.callback(self._selector.close)
                self._wake_reader, self._wake_writer = os.pipe()
                for fd in (self._wake_reader, self._wake_writer):
                    undo.callback(os.close, fd)
                    os.set_blocking(fd, False)
                self._selector.register(self._wake_reader, selectors.EVENT_READ, None)
                start_without_signals(self._thread)
                undo.pop_all()
            except BaseException as error:
                if self._thread.is_alive():
                    # A signal handler raised, once signals were let in again: the
                    # thread has the descriptors, and frees them.
                    undo.pop_all()
                    self.stop(0)
                elif isinstance(error, (OSError, RuntimeError)):
                    raise not_started(error) from error
                raise

    # --- for the engine, on any thread ------------------------------------------------

    def post(self, call: Callable[[], None]) -> None:
        """Have something called on the scheduler's thread, soon."""
        with self._wake_lock:
            self._calls.append(call)
            # Its own thread looks before it waits.
            own = threading.current_thread() is self._thread
            if self._wake_writer >= 0 and not (self._woken or own):
                self._woken = True
                os.write(self._wake_writer, b"\0")

    def start(self, job: Job) -> None:
        """Start a job."""

        def start() -> None:
            self._jobs[job.number] = job
            self._for_job(job, job.start)
            # Now, so that it starts while the job looks at the disk.
            self._failing(job, lambda: self._worker_for(None))

        self.post(start)

    def set_limit(self, bytes_per_second: float | None) -> None:
        """Set the rate limit over all workers."""
        self._limit_rate = bytes_per_second
        self.post(self._share_limit)

    def stop(self, timeout: float) -> None:
        """Stop the workers and the thread; jobs should have ended before."""
        self._stopping = True
        self.post(lambda: None)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    # --- the crew of a job ------------------------------------------------------------

    def now(self) -> float:
        return time.monotonic()

    def random(self) -> float:
        return random.random()

    def lane_number(self) -> int:
        return next(self._numbers)

    def limits(self, url: str) -> OriginLimits:
        return self._origins.setdefault(origin(url), OriginLimits())

    def fetch(self, job: Job, fetch: Fetch, size: int | None) -> None:
        worker = self._failing(job, lambda: self._worker_for(size))
        if worker is None:
            # Nobody else will tell of its end, for which the failing job waits.
            lost = WorkerError("there is no worker for the lane")
            self.post(lambda: self._for_job(job, job.lanes.on_lost, fetch.lane, lost))
            return
        self._lanes[fetch.lane] = (job, worker)
        worker.lanes += 1
        self._send(worker, fetch)
        self._share_limit()

    def send(self, lane: int, message: Message) -> None:
        held = self._lanes.get(lane)
        if held is not None:
            self._send(held[1], message)

    def give_up(self, lane: int) -> None:
        held = self._lanes.get(lane)
        if held is not None:
            self._given_up.add(held[1])
            held[1].kill()

    def verify(self, job: Job, message: Message) -> None:
        if self._verifier is None and not isinstance(message, Drop):
            self._verifier = self._failing(job, lambda: self._start_worker(VERIFY))
        if self._verifier is not None:
            self._send(self._verifier, message)

    def offload(
        self,
        job: Job,
        work: Callable[[], Any],
        done: Callable[[Any, SegdlError | None], None],
    ) -> None:
        def run() -> None:
            result, error = None, None
            try:
                result = work()
            except SegdlError as exc:
                error = exc
            except Exception as exc:
                error = _unexpected(exc)
                _log_unexpected("a job's work on the disk", exc)
            self.post(lambda: self._for_job(job, done, result, error))
            self._helped(job)

        with self._wake_lock:
            self._helping[job] += 1
        try:
            self._helpers.run(run)
        except RuntimeError as exc:
            refused = not_started(exc)
            self.post(lambda: self._for_job(job, done, None, refused))
            self._helped(job)

    def _helped(self, job: Job) -> None:
        """A helper thread is done; the last one lets go, once nobody else can."""
        with self._wake_lock:
            self._helping[job] -= 1
            if self._helping[job]:
                return
            del self._helping[job]
            ended = self._ended
        if ended:
            job.abandon()

    def call_later(self, job: Job, seconds: float, call: Callable[[], None]) -> None:
        moment = time.monotonic() + seconds
        entry = (moment, next(self._numbers), lambda: self._for_job(job, call))
        heapq.heappush(self._timers, entry)

    def event(self, job: Job, kind: str, fields: dict[str, Any]) -> None:
        self._owner.job_event(job, kind, fields)

    def ended(self, job: Job) -> None:
        self._jobs.pop(job.number, None)
        self._owner.job_ended(job)

    # --- the loop ---------------------------------------------------------------------

    def _run(self) -> None:
        next_tick = 0.0
        while not self._stopping:
            ready = self._selector.select(self._wait_seconds(next_tick))
            with self._lock:
                for key, _ in ready:
                    self._guarded(self._ready, key.fileobj, key.data)
                while self._calls:
                    self._guarded(self._calls.popleft())
                now = time.monotonic()
                while self._timers and self._timers[0][0] <= now:
                    self._guarded(heapq.heappop(self._timers)[2])
                if now >= next_tick:
                    next_tick = now + _TICK_SECONDS
                    self._tick(now)
        self._close()

    def _tick(self, now: float) -> None:
        for job in list(self._jobs.values()):
            self._for_job(job, job.lanes.fill)
        self._guarded(self._grow, now)
        self._guarded(self._owner.tick, now)
        for worker in self._health.look(self._all_workers(), now):
            worker.kill()

    def _wait_seconds(self, next_tick: float) -> float | None:
        """How long nothing will happen by itself; None while there is no job."""
        if self._calls:
            return 0.0
        moments = [entry[0] for entry in self._timers[:1]]
        if self._jobs:
            moments.append(next_tick)
        if not moments:
            return None
        return min(_MOST_WAIT_SECONDS, max(0.0, min(moments) - time.monotonic()))

    def _ready(self, fileobj: object, worker: Worker | None) -> None:
        if worker is None:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_reader, 4096)
            # Afterwards: else the byte of a later post may be gone, and it believed in.
            self._woken = False
        elif worker.event_fd < 0:
            return  # it died a moment ago
        elif fileobj == worker.command_fd:
            worker.flush()
            self._watch_commands(worker)
        else:
            self._read(worker, dead=fileobj == worker.sentinel)

    def _read(self, worker: Worker, *, dead: bool) -> None:
        """Take a worker's events; notice its death, after what it had said."""
        try:
            for message in worker.read():
                self._guarded(self._handle, worker, message)
        except EOFError:
            self._lost(worker)
            return
        # Where there is a sentinel it alone tells: to ask each time costs a call.
        if (dead or worker.sentinel is None) and not worker.alive:
            with contextlib.suppress(EOFError):
                for message in worker.read():
                    self._guarded(self._handle, worker, message)
            self._lost(worker)

    def _handle(self, worker: Worker, message: Message) -> None:
        if isinstance(message, Pieces):
            by_job: dict[int, list[tuple[int, int, int, str]]] = {}
            for piece in message.pieces:
                if piece[0] in self._lanes:
                    job = self._lanes[piece[0]][0]
                    by_job.setdefault(job.number, []).append(piece)
            for number, pieces in by_job.items():
                # A job that gave its lanes up may have ended before they did.
                if number in self._jobs:
                    job = self._jobs[number]
                    self._for_job(job, job.lanes.on_pieces, pieces)
        elif isinstance(message, Progress):
            worker.busy = message.busy
            for lane, position, received in message.lanes:
                if lane in self._lanes:
                    self._lanes[lane][0].lanes.on_progress(lane, position, received)
        elif isinstance(message, Crashed):
            _log_crash(message.trace)
        elif isinstance(message, (Hashed, Checked)):
            owner = self._jobs.get(message.job)
            if owner is not None and isinstance(message, Hashed):
                self._for_job(owner, owner.verdicts.on_hashed, message)
            elif owner is not None and isinstance(message, Checked):
                self._for_job(owner, owner.verdicts.on_checked, message)
        elif isinstance(message, (Answered, Shrunk, Kept, Ended)):
            self._handle_lane(worker, message)

    def _handle_lane(
        self, worker: Worker, message: Answered | Shrunk | Kept | Ended
    ) -> None:
        held = self._lanes.get(message.lane)
        if held is None:
            return
        job = held[0]
        if isinstance(message, Answered):
            self._for_job(job, job.lanes.on_answered, message)
        elif isinstance(message, Shrunk):
            self._for_job(job, job.lanes.on_shrunk, message.lane, message.end)
        elif isinstance(message, Kept):
            self._for_job(job, job.lanes.on_kept, message.lane)
        else:
            del self._lanes[message.lane]
            worker.lanes -= 1
            if worker.pid is None:
                self._given_up.discard(worker)  # a thread, which was only slow
            self._for_job(job, job.lanes.on_ended, message)
            self._share_limit()

    def _guarded(self, call: Callable[..., None], *arguments: Any) -> None:
        """Call; an exception nobody expected must not end the thread."""
        try:
            call(*arguments)
        except Exception as exc:
            _log_unexpected("the scheduler", exc)

    def _for_job(self, job: Job, call: Callable[..., None], *arguments: Any) -> None:
        """Call; what nobody expected fails this job, instead of leaving it stuck."""
        try:
            call(*arguments)
        except SegdlError as error:
            job.fail(error)
        except Exception as exc:
            _log_unexpected("a job", exc)
            job.fail(_unexpected(exc))

    # --- workers ----------------------------------------------------------------------

    def _failing(self, job: Job, start: Callable[[], Worker]) -> Worker | None:
        """Start or find a worker; when that can't be done the job fails."""
        try:
            return start()
        except WorkerError as error:
            # Not at once: the job is in the middle of something.
            self.post(lambda error=error: job.fail(error))  # type: ignore[misc]
            return None

    def _worker_for(self, size: int | None) -> Worker:
        """The worker with the fewest lanes; a new one where that is worth it."""
        wanted = 1
        if not self._in_process and size is not None and size >= SECOND_WORKER_BYTES:
            wanted = self._wanted
        able = self._able()
        if len(able) < wanted:
            now = time.monotonic()
            self._deaths = [until for until in self._deaths if until > now]
            if len(self._deaths) <= _MAX_DEATHS:
                able.append(self._start_worker(TRANSFER))
                self._workers.append(able[-1])
            elif not able:
                raise self._too_many_deaths()
        return min(able, key=lambda worker: worker.lanes)

    def _grow(self, now: float) -> None:
        """Have one more worker where the number is left open and all are saturated."""
        if self._in_process or isinstance(self._config.processes, int):
            return
        able = [worker for worker in self._able() if worker.lanes]
        busy = [worker.busy for worker in able]
        if len(able) < self._wanted or self._wanted >= (os.cpu_count() or 1):
            return
        if not self._saturation.look(busy, now):
            return
        self._wanted += 1
        # Half the lanes of each move: the next ones go where there are fewest.
        for number in list(self._lanes)[::2]:
            self._lanes[number][0].lanes.move(number)

    def _able(self) -> list[Worker]:
        """The workers for transfers, without those that were killed."""
        # One that hangs in the kernel (a dead disk) stays there all the same.
        return [
            worker
            for worker in self._workers
            if worker.ailing is None and worker not in self._given_up
        ]

    def _all_workers(self) -> list[Worker]:
        return [*self._workers, *([self._verifier] if self._verifier else [])]

    def _start_worker(self, role: str) -> Worker:
        early = role == TRANSFER and not self._in_process
        worker = take_early() if early else None
        worker = worker or Worker(role, in_process=self._in_process)
        self._selector.register(worker.event_fd, selectors.EVENT_READ, worker)
        if worker.sentinel is not None:
            self._selector.register(worker.sentinel, selectors.EVENT_READ, worker)
        if role == TRANSFER:
            config = self._config
            self._send(
                worker,
                Configure(
                    timeout=config.timeout,
                    chunk_size=config.chunk_size,
                    ca_file=config.ca_file,
                    proxy=config.proxy,
                    user_agent=config.user_agent or self._user_agent,
                    environment={} if self._in_process else proxy_environment(),
                    allow_addresses=config.allow_addresses,
                ),
            )
        return worker

    def _send(self, worker: Worker, message: Message) -> None:
        worker.send(message)
        self._watch_commands(worker)

    def _watch_commands(self, worker: Worker) -> None:
        """Watch the command pipe for room, only while commands wait for it."""
        watched = worker.command_fd in self._selector.get_map()
        if worker.blocked and not watched:
            self._selector.register(worker.command_fd, selectors.EVENT_WRITE, worker)
        elif watched and not worker.blocked:
            self._selector.unregister(worker.command_fd)

    def _lost(self, worker: Worker) -> None:
        """A worker is dead: give its lanes back."""
        self._forget(worker)
        if worker in self._given_up:
            self._given_up.discard(worker)
        else:
            counts = _AILING_SECONDS if worker.ailing else _DEATHS_SECONDS
            self._deaths.append(time.monotonic() + counts)
        code = worker.exitcode()
        end = "ended unexpectedly"
        if worker.ailing is not None:
            end = f"{worker.ailing}, and was ended"
        error = WorkerError(
            f"a {worker.role} worker {end} (exit code {code})", exitcode=code
        )
        if worker is self._verifier:
            self._verifier = None
            for job in list(self._jobs.values()):
                self._for_job(job, job.verdicts.on_lost, error)
            return
        self._workers.remove(worker)
        lost = {n: job for n, (job, owner) in self._lanes.items() if owner is worker}
        # All of them first: what follows the end of one may concern another.
        for lane in lost:
            del self._lanes[lane]
        for lane, job in lost.items():
            self._for_job(job, job.lanes.on_lost, lane, error)

    def _forget(self, worker: Worker) -> None:
        """Stop watching a worker that is dead, and free its descriptors."""
        for fd in (worker.event_fd, worker.command_fd, worker.sentinel):
            if fd is not None and fd in self._selector.get_map():
                self._selector.unregister(fd)
        self._shares.pop(id(worker), None)
        worker.kill()
        worker.close()

    def _too_many_deaths(self) -> WorkerError:
        advice = "see the log for what they said"
        if not self._in_process:
            advice += ", or do without them with processes=0"
        return WorkerError(
            f"workers ended unexpectedly {len(self._deaths)} times in short order; "
            + advice
        )

    def _share_limit(self) -> None:
        """Give each worker its share of the rate limit, by its lanes."""
        if self._limit_rate is None and not self._shares:
            return
        able = self._able()
        lanes = sum(worker.lanes for worker in able)
        if self._limit_rate is not None and not lanes:
            return  # a bucket that is kept knows what was taken in advance
        for worker in able:
            share = None
            if self._limit_rate is not None:
                share = max(1.0, self._limit_rate * worker.lanes / lanes)
            if self._shares.get(id(worker)) != share:
                self._shares[id(worker)] = share
                self._send(worker, Limit(share))

    def _close(self) -> None:
        """Stop all workers, kill those that do not leave, and free everything."""
        workers = self._all_workers()
        for worker in workers:
            worker.quit()
        deadline = time.monotonic() + _QUIT_SECONDS
        for worker in workers:
            worker.join(max(0.0, deadline - time.monotonic()))
            self._forget(worker)
        self._helpers.close(_QUIT_SECONDS)
        self._selector.close()
        with self._wake_lock:
            os.close(self._wake_reader)
            os.close(self._wake_writer)
            self._wake_writer = -1
            self._ended = True
            idle = [j for j in self._jobs.values() if not self._helping[j]]
        # What a job still waits for was posted too late for this loop, or never is.
        for job in idle:
            job.abandon()


def _first_processes(wanted: int | str) -> int:
    return 1 if isinstance(wanted, str) else max(1, wanted)


def _unexpected(cause: Exception) -> WorkerError:
    error = WorkerError(f"unexpected {type(cause).__name__}: {cause}")
    error.__cause__ = cause
    return error


def _log_unexpected(where: str, error: BaseException) -> None:
    import logging

    logging.getLogger("segdl").error("unexpected error in %s", where, exc_info=error)


def _log_crash(trace: str) -> None:
    import logging

    logging.getLogger("segdl").error("a worker crashed:\n%s", trace)
