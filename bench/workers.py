"""What a worker costs: segdl's own start against multiprocessing's spawn.

Each starts a worker, has it try one request to a closed port, and waits for the event
that says so: the whole of start-up, import of libcurl, command and event.

    python -m bench.workers [--repeat 20]
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from multiprocessing import resource_tracker
from pathlib import Path

import psutil

from segdl._messages import Configure, Ended, Fetch, Message
from segdl._processes import Worker
from segdl._worker import TRANSFER

OPTIONS = Configure(5.0, 8192, None, None, "segdl-bench")
FETCH = Fetch(
    1, "http://127.0.0.1:1/", {}, 0, 9, True, False, True, None, None, None, None
)


def own() -> None:
    """Start, use and end one of segdl's workers."""
    worker = Worker(TRANSFER, in_process=False)
    worker.send(OPTIONS)
    worker.send(FETCH)
    os.set_blocking(worker.event_fd, True)
    assert isinstance(next(worker.read()), Ended)
    worker.quit()
    worker.join(5)
    worker.close()


def _spawned(queue: multiprocessing.Queue[str]) -> None:
    from segdl._transfer import Transfers

    def emit(message: Message) -> None:
        if isinstance(message, Ended):
            queue.put("ended")
            done.append(True)

    done: list[bool] = []
    transfers = Transfers(emit)
    transfers.configure(OPTIONS)
    transfers.fetch(FETCH)
    while not done:
        transfers.turn(1.0)


def spawn() -> None:
    """Start, use and end a process and a queue of multiprocessing."""
    context = multiprocessing.get_context("spawn")
    queue: multiprocessing.Queue[str] = context.Queue()
    process = context.Process(target=_spawned, args=(queue,))
    process.start()
    assert queue.get(timeout=10) == "ended"
    process.join()
    process.close()
    queue.close()
    queue.join_thread()


def semaphores() -> set[str]:
    """List what multiprocessing has in shared memory."""
    return {p.name for p in Path("/dev/shm").glob("sem.mp-*")}


def left_by_kill() -> int:
    """Count the semaphores left when a spawning program's whole group is killed."""
    before = semaphores()
    code = (
        "import multiprocessing as m, time\n"
        "if __name__ == '__main__':\n"
        "    c = m.get_context('spawn'); q = c.Queue(); print('up', flush=True)\n"
        "    time.sleep(60)\n"
    )
    program = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True
    )
    assert program.stdout is not None
    program.stdout.readline()
    children = psutil.Process(program.pid).children(recursive=True)
    for pid in [program.pid, *(child.pid for child in children)]:
        os.kill(pid, 9)
    program.wait()
    program.stdout.close()
    left = semaphores() - before
    for name in left:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"/dev/shm/{name}")
    return len(left)


def main() -> None:
    """Measure in alternation and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=20)
    repeat = parser.parse_args().repeat
    times: dict[str, list[float]] = {"own": [], "spawn": []}
    # Warm the file cache, and start multiprocessing's tracker.
    own()
    spawn()
    for _ in range(repeat):
        for name, run in (("own", own), ("spawn", spawn)):
            began = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - began)
    for name, values in times.items():
        print(f"{name}: median {statistics.median(values) * 1000:.0f} ms", end=", ")
        print(f"min {min(values) * 1000:.0f}, max {max(values) * 1000:.0f}")
    tracker = resource_tracker._resource_tracker._pid  # type: ignore[attr-defined]
    memory = psutil.Process(tracker).memory_full_info()
    print(f"resource tracker: {memory.pss / 2**20:.1f} MiB (PSS), one more process")
    print(f"semaphores left after kill -9 of the group: {left_by_kill()}")


if __name__ == "__main__":
    main()
