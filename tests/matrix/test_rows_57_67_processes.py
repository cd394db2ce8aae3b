"""Rows 57 - 67: processes that die, hang, are interrupted, doubled or put to sleep."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import calls
import psutil
import pytest
from canary import Canary, children, end_of, until
from http_checks import MANIFEST, MIB, NAME, PART, file_digest, names
from sweep import SWEPT, Point, Sweep
from world import World

from bench import killnine
from segdl import DownloadTask, _health
from segdl import _processes as processes
from segdl.errors import DestinationBusy, StorageError, WorkerError
from segdl.testing import Blob

SIZE = 12 * MIB + 99
LANES = 4

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="looks for processes in /proc"
)
traced = pytest.mark.skipif(bool(calls.why_not()), reason=calls.why_not() or "-")

BEGIN = """
import os, sys, time
from segdl import DownloadEngine
engine = DownloadEngine(connections=4)
task = engine.download(os.environ["URL"], os.environ["OUT"], "file.bin")
print("begun", flush=True)
"""
WAIT = BEGIN + "task.wait()\n"
POLL = BEGIN + "while task.status == 'downloading':\n    time.sleep(0.05)\n"


@pytest.fixture
def canary(world: World) -> Canary:
    """Mark a program that downloads; the origin gives it a middle."""
    world.origin.total_rate = 12 * MIB
    return Canary(URL=world.url(SIZE), OUT=str(world.out))


def in_the_middle(world: World) -> None:
    """Wait until a program has something recorded, but not everything."""
    until(lambda: world.recorded() >= 2 * MIB)


def resumed(world: World) -> DownloadTask:
    """Finish what a program left: what is recorded is there, and is not sent again."""
    assert NAME not in names(world.out)
    kept = world.recorded()
    before = len(world.origin.log.settle())
    world.origin.total_rate = None
    task = world.fetch(world.url(SIZE), connections=LANES)
    world.whole(task)
    assert task.resumed_size == kept
    sent = sum(entry.sent_bytes for entry in world.origin.log.settle()[before:])
    # Lanes that are split have their sockets full of what others then fetch.
    assert sent <= SIZE - kept + LANES * 4 * MIB
    return task


def said(world: World, ended: Any) -> str:
    """Give what a program wrote to standard error; there is no secret in it."""
    return world.clean_text(ended.stderr, "standard error")


# --- 57 - 59: SIGKILL -----------------------------------------------------------------


@traced
@pytest.mark.timeout(3600)
@pytest.mark.row("SIGKILL at each system call of a worker that changes a file (ptrace)")
def test_57_worker_killed(sweep: Sweep, full: bool) -> None:
    """The program goes on by itself: another worker fetches what was not recorded."""
    for name in SWEPT if full else sweep.scenarios(*SWEPT):
        mine = [point for point in sweep.count(name) if point.process == "worker"]
        assert mine
        points = sweep.some(sweep.kinds(mine, "kill"), 2)
        for point, outcome in sweep.play(points).items():
            assert outcome.kind in ("went on", "not reached"), point
    if full:
        one_of_two = Point("two workers", "worker", "pwrite64", "part", 20, "kill")
        (outcome,) = sweep.play([one_of_two]).values()
        assert outcome.kind == "went on"


@pytest.mark.timeout(3600)
@pytest.mark.row("SIGKILL at random instants, then the same command (bench/killnine)")
def test_58_killed_at_random(
    tmp_path: Path, request: pytest.FixtureRequest, full: bool
) -> None:
    """No recorded byte is sent again, the file is exact, and nothing is left."""
    rounds = 60 if full else len(killnine.VICTIMS)
    seed = request.config.getoption("--seed")
    options = killnine.Options(
        rounds=rounds, seed=seed, size=16 * MIB + 7, rate="4M", connections=LANES
    )
    for number in range(1, rounds + 1):
        # An undisturbed round takes 1.5 s, more where the machine is busy.
        killnine.play(options, tmp_path, number, 1.5)


@traced
@pytest.mark.timeout(3600)
@pytest.mark.row("SIGKILL at each system call of the program that changes a file")
def test_59_program_killed(sweep: Sweep, full: bool) -> None:
    """Created, appended, checkpointed or published: the same command ends it well."""
    for name in SWEPT if full else sweep.scenarios(*SWEPT):
        mine = [point for point in sweep.count(name) if point.process == "program"]
        sweep.play(sweep.some(sweep.kinds(mine, "kill"), 2))
    steps = {
        Point("publish", "program", "renameat", "manifest", 1, "kill"): "resumed",
        Point("none", "program", "write", "manifest", 1, "kill"): "resumed",
        Point("checkpoint", "program", "fdatasync", "manifest", 1, "kill"): "resumed",
        Point("publish", "program", "unlinkat", "part", 1, "kill"): "published",
    }
    outcomes = sweep.play(list(steps))
    assert {point: each.kind for point, each in outcomes.items()} == steps


# --- 60: workers in trouble -----------------------------------------------------------

ROW_60 = "SIGSTOP; a leak; SIGKILL again and again; RLIMIT_AS of the workers"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Find workers that hang in 3 s instead of 60; they beat every second."""
    monkeypatch.setattr(_health, "_SILENT_SECONDS", 3.0)
    monkeypatch.setattr(_health, "_LOOK_SECONDS", 0.1)


@pytest.mark.row(ROW_60)
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("role", ["transfer", "verify"])
def test_60_worker_hangs(world: World, role: str) -> None:
    """One that says nothing is ended and replaced, and its work done again."""
    world.origin.total_rate = 8 * MIB
    checksum = f"sha256:{Blob(1, SIZE).digest()}"
    task = world.start(world.url(SIZE), processes=1, checksum=checksum)
    in_the_middle(world)
    (stopped,) = children(role)
    os.kill(stopped.pid, signal.SIGSTOP)
    until(lambda: not psutil.pid_exists(stopped.pid))
    assert task.wait(20)
    world.whole(task)


@pytest.mark.row(ROW_60)
@pytest.mark.usefixtures("impatient")
def test_60_every_worker_hangs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """When each new one hangs as well, that has an end."""
    monkeypatch.setattr(_health, "_SILENT_SECONDS", 0.3)
    stops = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"
    usual = processes._BOOTSTRAP
    monkeypatch.setattr(processes, "_BOOTSTRAP", f"{stops};{usual}")
    world.failed(world.fetch(world.url(SIZE), processes=1), WorkerError, "processes=0")


@pytest.mark.row(ROW_60)
def test_60_worker_leaks_memory(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One that takes ever more is ended and replaced."""
    monkeypatch.setattr(_health, "_WORKER_BYTES", 150 * MIB)
    mark = tmp_path / "leaked"
    # The mark first: the leak is ended at any moment.
    leaks = (
        f"import os; second = os.path.exists({str(mark)!r}); "
        f"open({str(mark)!r}, 'w').close(); leak = second or b'x' * (400 << 20)"
    )
    usual = processes._BOOTSTRAP
    monkeypatch.setattr(processes, "_BOOTSTRAP", f"{leaks};{usual}")
    world.origin.total_rate = 8 * MIB
    task = world.start(world.url(SIZE), processes=1, connections=4)
    until(lambda: bool(children("transfer")))
    (first,) = children("transfer")
    until(lambda: not psutil.pid_exists(first.pid))
    assert mark.exists()
    assert task.wait(20)
    world.whole(task)


@pytest.mark.row(ROW_60)
def test_60_workers_killed_again_and_again(world: World) -> None:
    """Whatever kills workers as they come has an end; what was recorded stays."""
    world.origin.total_rate = 12 * MIB
    task = world.start(world.url(SIZE), processes=1)
    in_the_middle(world)

    def over() -> bool:
        for worker in children("transfer"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)
        return task.wait(timeout=0)

    until(over)
    world.failed(task, WorkerError, "processes=0")
    world.engines[-1].shutdown(wait=False)
    assert world.recorded() >= 2 * MIB
    resumed(world)


@pytest.mark.row(ROW_60)
@pytest.mark.parametrize("limit", [30 * MIB, 60 * MIB, 180 * MIB])
def test_60_worker_out_of_memory(
    world: World, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """Little memory makes it slow, or an error of its own, never a wrong file."""
    usual = processes._BOOTSTRAP
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({limit},) * 2)"
    monkeypatch.setattr(processes, "_BOOTSTRAP", f"{limited};{usual}")
    world.origin.total_rate = 24 * MIB
    task = world.fetch(world.url(SIZE), processes=1, connections=8)
    monkeypatch.setattr(processes, "_BOOTSTRAP", usual)
    if task.status == "completed":
        world.whole(task)
        return
    error = task.exception(0)
    assert isinstance(error, (WorkerError, StorageError)), repr(error)
    assert "memory" in str(error) or "worker" in str(error)
    resumed(world)


# --- 61 - 63: signals, and what becomes of workers ------------------------------------

PUBLISHING = "import os; flush = os.fdatasync\n" + (
    "def slow(fd):\n"
    "    if os.readlink(f'/proc/self/fd/{fd}').endswith('.part'):\n"
    "        print('publishing', flush=True)\n"
    "        time.sleep(1)\n"
    "    flush(fd)\n"
    "os.fdatasync = slow\n"
)


@pytest.mark.row("SIGINT to the process group, once and five times in a row")
@pytest.mark.parametrize(
    ("moment", "program"),
    [
        ("spawn", WAIT),
        ("spawn", POLL),
        ("probe", WAIT),
        ("transfer", POLL),
        ("transfer", BEGIN + "engine.shutdown()\n"),
        ("five times", WAIT),
        ("publish", PUBLISHING + WAIT),
    ],
)
def test_61_interrupt(world: World, canary: Canary, moment: str, program: str) -> None:
    """It ends in KeyboardInterrupt, leaves no worker, and the rest goes on later."""
    if moment == "probe":
        canary.environment["URL"] = world.url(SIZE, f="hang")
    with canary.start([sys.executable, "-c", program]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        if moment == "probe":
            world.origin.log.wait_for(1)
        elif moment == "publish":
            assert process.stdout.readline() == "publishing\n"
        elif moment != "spawn":
            in_the_middle(world)
        for _ in range(5 if moment == "five times" else 1):
            os.killpg(process.pid, signal.SIGINT)
        ended = end_of(process)
        canary.check_nothing_left()
    assert ended.returncode in (-signal.SIGINT, 130)
    text = said(world, ended)
    if moment != "five times":  # another one ends the printing of the first
        assert text.splitlines()[-1] == "KeyboardInterrupt"
        assert text.count("Traceback") == 1
    if NAME in names(world.out):
        assert moment == "publish"  # it was too late to stop
        assert file_digest(world.out / NAME) == world.origin.blob(1, SIZE).digest()
    else:
        resumed(world)


@pytest.mark.row("SIGINT to the process group, once and five times in a row")
def test_61_interrupt_of_the_command(world: World, canary: Canary) -> None:
    """`segdl get` exits with 130, and says that the same command goes on."""
    command = [sys.executable, "-m", "segdl", "get", "-d", world.out, "-o", NAME]
    with canary.start([*command, world.url(SIZE)]) as process:
        in_the_middle(world)
        os.killpg(process.pid, signal.SIGINT)
        ended = end_of(process)
        canary.check_nothing_left()
    assert ended.returncode == 130
    assert "the same command goes on" in said(world, ended).splitlines()[-1]
    assert "Traceback" not in ended.stderr
    resumed(world)


@pytest.mark.usefixtures("default_signals")
@pytest.mark.row("SIGTERM and SIGHUP to the program alone; its terminal is closed")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_62_command_ended(world: World, canary: Canary, number: signal.Signals) -> None:
    """`segdl get` stops in good order, and says that the same command goes on."""
    command = [sys.executable, "-m", "segdl", "get", "-d", world.out, "-o", NAME]
    with canary.start([*command, world.url(SIZE)]) as process:
        in_the_middle(world)
        process.send_signal(number)
        ended = end_of(process)
        canary.check_nothing_left()
    assert ended.returncode == 128 + number
    assert "the same command goes on" in said(world, ended).splitlines()[-1]
    assert names(world.out) == [PART, MANIFEST]
    resumed(world)


@pytest.mark.usefixtures("default_signals")
@pytest.mark.row("SIGTERM and SIGHUP to the program alone; its terminal is closed")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_62_program_ended(world: World, canary: Canary, number: signal.Signals) -> None:
    """Python has no handler for it: the program dies, and the workers leave."""
    with canary.start([sys.executable, "-c", WAIT]) as process:
        in_the_middle(world)
        assert canary.workers()
        process.send_signal(number)
        ended = end_of(process)
        canary.check_nothing_left()
    assert (ended.returncode, said(world, ended)) == (-number, "")
    resumed(world)


TERMINAL = (
    "import fcntl, os, sys, termios; os.setsid(); "
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.executable, "
    "[sys.executable, '-m', 'segdl', *sys.argv[1:]])"
)


@pytest.mark.usefixtures("default_signals")
@pytest.mark.row("SIGTERM and SIGHUP to the program alone; its terminal is closed")
def test_62_terminal_closed(world: World, canary: Canary) -> None:
    """Workers and program are gone with the terminal; the rest goes on later."""
    command = [sys.executable, "-c", TERMINAL, "get", "-d", str(world.out)]
    ours, its = pty.openpty()
    try:
        process = subprocess.Popen(
            [*command, "-o", NAME, world.url(SIZE)],
            stdin=its,
            stdout=its,
            stderr=its,
            env=canary.environment,
        )
    finally:
        os.close(its)
    try:
        in_the_middle(world)
        assert canary.workers()
        text = os.read(ours, 1 << 20).decode(errors="replace")
    finally:
        os.close(ours)  # hangs up
        process.wait(30)
    assert process.returncode in (129, -signal.SIGHUP)
    world.clean_text(text, "what is on the terminal")
    canary.check_nothing_left()
    resumed(world)


FORKED_SIBLING = (
    BEGIN
    + """
while task.downloaded_size < 4 << 20:
    time.sleep(0.01)
child = os.fork()
if child == 0:
    time.sleep(60)
    os._exit(0)
print(child, flush=True)
task.wait()
"""
)


@pytest.mark.row("SIGKILL of the program, whose forked child holds its pipes (os.fork)")
def test_63_forked_sibling_lives(world: World, canary: Canary) -> None:
    """The workers leave all the same, by the parent they no longer have."""
    command = [sys.executable, "-W", "ignore", "-c", FORKED_SIBLING]
    with canary.start(command) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        sibling = int(process.stdout.readline())
        until(canary.workers)
        in_the_middle(world)
        process.kill()
        process.wait()
        until(lambda: not canary.workers(), describe=canary.alive)
        assert list(canary.alive()) == [sibling]
        os.kill(sibling, signal.SIGKILL)
        canary.check_nothing_left()
    resumed(world)


# --- 64: two at the same destination --------------------------------------------------

ROW_64 = "started twice: one engine, two, two processes; flock that always succeeds"

OTHER_PROCESS = """
import os
from segdl import DownloadEngine
with DownloadEngine(processes=0) as engine:
    task = engine.download(os.environ["URL"], os.environ["OUT"], "file.bin")
    task.wait(20)
    print(type(task.exception(0)).__name__, task.error, sep=": ")
"""


@pytest.mark.row(ROW_64)
@pytest.mark.parametrize("engines", [1, 2])
def test_64_destination_taken_in_this_process(world: World, engines: int) -> None:
    """The second one fails at once, and the first one ends well."""
    world.origin.total_rate = 12 * MIB
    first = world.start(world.url(SIZE))
    in_the_middle(world)
    engine = world.engines[0] if engines == 1 else None
    second = world.start(world.url(SIZE), engine=engine)
    assert second.wait(20)
    world.failed(second, DestinationBusy, NAME)
    world.origin.total_rate = None
    assert first.wait(20)
    world.whole(first)


@pytest.mark.row(ROW_64)
def test_64_destination_taken_by_a_process(world: World) -> None:
    """The lock holds between processes too."""
    world.origin.total_rate = 2 * MIB
    first = world.start(world.url(SIZE))
    in_the_middle(world)
    other = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS],
        # It is watched like a worker, so the secrets stay out of its environment.
        env={"URL": world.origin.blob_url(1, SIZE), "OUT": str(world.out)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert other.stdout.startswith("DestinationBusy: "), other
    world.origin.total_rate = None
    assert first.wait(20)
    world.whole(first)


@pytest.mark.row(ROW_64)
@pytest.mark.parametrize("durability", ["publish", "checkpoint"])
def test_64_broken_lock(
    world: World, monkeypatch: pytest.MonkeyPatch, durability: str
) -> None:
    """Neither publishes a wrong file; the next checkpoint notices, and says so."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    monkeypatch.setattr("segdl._job._CHECKPOINT_SECONDS", 0.05)
    world.origin.total_rate = 12 * MIB
    world.most_bytes = 3 * SIZE
    first = world.start(world.url(SIZE), durability=durability)
    in_the_middle(world)
    second = world.start(world.url(SIZE), durability=durability)
    tasks = [first, second]
    assert all(task.wait(30) for task in tasks), tasks
    failed = [task.exception(0) for task in tasks if task.status == "failed"]
    assert all(isinstance(error, StorageError) for error in failed), failed
    if durability == "checkpoint":
        assert DestinationBusy in map(type, failed)
    for engine in world.engines:
        engine.shutdown(wait=False)
    if "completed" not in [task.status for task in tasks]:
        tasks.append(world.fetch(world.url(SIZE)))
        world.whole(tasks[-1])
    assert file_digest(world.out / NAME) == world.origin.blob(1, SIZE).digest()


# --- 65: callbacks --------------------------------------------------------------------


@pytest.mark.row("a callback of each kind raises; another one waits")
@pytest.mark.parametrize("kind", ["progress", "completion", "event"])
def test_65_callback_raises(
    world: World, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """It is logged with its traceback; the download and other callbacks go on."""
    world.origin.total_rate = 24 * MIB
    engine = world.engine()
    called: list[str] = []

    def broken(_: object) -> None:
        called.append("broken")
        raise ValueError("a bug of the user's")

    register = getattr(engine, f"register_{kind}_callback")
    register(broken)
    register(lambda _: called.append("next"))
    task = world.fetch(world.url(SIZE), engine=engine)
    engine.shutdown()
    world.whole(task)
    assert called == ["broken", "next"] * (len(called) // 2)
    records = [record for record in caplog.records if record.exc_info is not None]
    assert len(records) == len(called) // 2 > 0
    assert all("broken" in record.getMessage() for record in records)


@pytest.mark.row("a callback of each kind raises; another one waits")
@pytest.mark.parametrize("kind", ["progress", "completion", "event"])
def test_65_callback_blocks(world: World, kind: str) -> None:
    """While it waits the downloads go on; only other callbacks are late."""
    world.origin.total_rate = 24 * MIB
    engine = world.engine(max_workers=1)
    release, entered = threading.Event(), threading.Event()
    calls_made: list[str] = []

    def slow(_: object) -> None:
        calls_made.append(kind)
        entered.set()
        release.wait(60)

    getattr(engine, f"register_{kind}_callback")(slow)
    first = world.fetch(world.url(SIZE), engine=engine)
    world.whole(first)
    second = world.start(world.url(SIZE, seed=2), engine=engine, filename="second")
    assert second.wait(20)
    assert entered.wait(20)
    assert len(calls_made) == 1
    release.set()
    engine.shutdown()
    # Of progress at most one report of each task waits.
    assert kind != "progress" or len(calls_made) <= 3
    assert [first.status, second.status] == ["completed"] * 2


# --- 66 - 67: time --------------------------------------------------------------------


@pytest.mark.row("time.time jumps a day, both ways; time namespaces (unshare -T)")
@pytest.mark.parametrize("jump", [-86400.0, 86400.0])
def test_66_clock_jumps(
    world: World, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    """Speed, time left and retries go by the monotonic clock."""
    world.origin.total_rate = 6 * MIB
    clock, offset = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: clock() + offset[0])
    seen: list[tuple[float, int | None]] = []
    engine = world.engine(progress_interval=0.02)
    engine.register_progress_callback(lambda t: seen.append((t.speed, t.eta)))
    url = world.url(SIZE, f=[f"rst@at{6 * MIB},1", f"rst@at{8 * MIB},1"])
    task = world.start(url, engine=engine)
    in_the_middle(world)
    offset[0] = jump
    reached = len(seen)
    assert task.wait(30)
    world.whole(task)
    speeds = [speed for speed, _ in seen[reached:]]
    times = [eta for _, eta in seen[reached:] if eta is not None]
    assert speeds
    assert max(speeds) < 30 * MIB
    assert all(0 <= eta < 600 for eta in times)
    assert world.told("completed")[0]["seconds"] < 600


@pytest.mark.row("time.time jumps a day, both ways; time namespaces (unshare -T)")
def test_66_clock_of_the_origin(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A date to come back at is one of the origin's clock, a day ahead of ours."""
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + 86400)
    date = formatdate(time.time() + 1, usegmt=True)
    task = world.fetch(world.url(SIZE, f=f"status=503:retry={date}@req1,1"))
    world.whole(task)
    (retry,) = world.told("retry")
    assert 0 <= retry["delay"] < 2


@pytest.mark.row("time.time jumps a day, both ways; time namespaces (unshare -T)")
def test_66_other_monotonic_clock(world: World, canary: Canary) -> None:
    """A monotonic clock that begins elsewhere is as good, for a resume too."""
    unshare = ["unshare", "-T", "--monotonic", "864000", "--boottime", "864000"]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("no time namespace can be made here (it needs root)")
    command = [sys.executable, "-m", "segdl", "get", "-q", "-d", world.out, "-o", NAME]
    with canary.start([*unshare, *command, world.url(SIZE)]) as process:
        in_the_middle(world)
        os.killpg(process.pid, signal.SIGKILL)
        end_of(process)
        canary.check_nothing_left()
    resumed(world)


SUSPENDED = """
import os
from segdl import DownloadEngine
with DownloadEngine(connections=4, retry_times=1, retry_delay=0.1, timeout=1) as engine:
    tasks = [
        engine.download(url, os.environ["OUT"], f"{number}.bin")
        for number, url in enumerate(os.environ["URLS"].split())
    ]
    print("begun", flush=True)
for task in tasks:
    print(task.status, task.error, flush=True)
"""


@pytest.mark.row("SIGSTOP of the process group; the origin drops what it had; SIGCONT")
@pytest.mark.parametrize("dropped", [True, False])
def test_67_suspended(world: World, dropped: bool) -> None:
    """However many connections are stale then, no task fails, little is sent again."""
    world.origin.total_rate = 24 * MIB
    urls = [world.url(SIZE, seed=seed) for seed in range(3)]
    canary = Canary(URLS=" ".join(urls), OUT=str(world.out))
    with canary.start([sys.executable, "-c", SUSPENDED]) as process:
        until(lambda: all(world.recorded(f"{n}.bin") >= MIB for n in range(3)))
        os.killpg(process.pid, signal.SIGSTOP)
        if dropped:
            world.origin.stop()
            world.origin.start()
        # The time that passes is the fault: more than the stall limit of a second.
        threading.Event().wait(1.5)
        os.killpg(process.pid, signal.SIGCONT)
        ended = end_of(process)
        canary.check_nothing_left()
    assert said(world, ended) == ""
    assert ended.stdout.splitlines() == ["begun", *["completed None"] * 3]
    assert names(world.out) == ["0.bin", "1.bin", "2.bin"]
    for seed in range(3):
        digest = file_digest(world.out / f"{seed}.bin")
        assert digest == world.origin.blob(seed, SIZE).digest()
    assert world.origin.log.served_twice() <= 3 * LANES * 4 * MIB
