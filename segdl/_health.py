"""Workers that hang, or take memory without end: told from the parent's side.

    worker ── any message, at least a Beat a second ──> silent_seconds = 0
    tick() ── adds the parent's waking time ──> 60 s of silence, or too much memory
                                                  └─> why the worker has to be ended

Only the parent's waking time counts: a laptop that slept, or a program that was
stopped, finds all its workers silent. A worker in the kernel's hands is left alone: it
waits for a disk that is slow, and could not be ended before that answers.
"""

from __future__ import annotations

from segdl._processes import Worker

# libcurl may wait for a name server that does not answer, two times 5 s and more for
# each that is configured, when a lane ends (curl_easy_cleanup joins the resolver).
_SILENT_SECONDS = 60.0
# A worker with 16 lanes over TLS takes 60 MiB; a lane's buffers are 1 MiB, and up to
# 10 MiB for libcurl's own with a large chunk_size.
_WORKER_BYTES = 512 << 20
_LANE_BYTES = 16 << 20
# Between two looks at the memory.
_LOOK_SECONDS = 1.0


class Health:
    """
    Looks after the workers of one scheduler.

    Args:
        now: Monotonic seconds.
    """

    def __init__(self, now: float) -> None:
        self._ticked = now
        self._looked = now

    def look(self, workers: list[Worker], now: float) -> list[Worker]:
        """
        Find the workers that have to be ended now; their `ailing` tells why.

        Args:
            workers: All there are.
            now: Monotonic seconds; this is called several times a second.
        """
        awake = min(now - self._ticked, _LOOK_SECONDS)
        self._ticked = now
        for worker in workers:
            worker.silent_seconds += awake
        if now - self._looked < _LOOK_SECONDS:
            return []
        self._looked = now
        well = [worker for worker in workers if worker.ailing is None]
        for worker in well:
            worker.ailing = _ailment(worker)
        return [worker for worker in well if worker.ailing is not None]


def _ailment(worker: Worker) -> str | None:
    """Tell what is wrong with a worker, None while nothing is."""
    if worker.pid is None:
        return None  # a thread can't be ended
    import psutil

    most = _WORKER_BYTES + worker.lanes * _LANE_BYTES
    try:
        process = psutil.Process(worker.pid)
        if worker.silent_seconds >= _SILENT_SECONDS:
            if process.status() == psutil.STATUS_DISK_SLEEP:
                return None
            return f"was silent for {_SILENT_SECONDS:g} s"
        taken = process.memory_info().rss
    except psutil.Error:
        return None  # it has just died
    return f"took {taken >> 20} MiB of memory" if taken > most else None
