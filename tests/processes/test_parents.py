"""What becomes of workers, files and exit codes when the program itself ends badly."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from canary import Canary, end_of, until

from segdl import DownloadEngine
from segdl.testing import Origin

MIB = 1 << 20
SEED, SIZE = 5, 24 * MIB + 99
LANES = 4
# What a lane has in hand when it is cut off: a piece (1 MiB), its receive buffers,
# and what the sockets hold on both ends.
IN_FLIGHT = LANES * 4 * MIB

MakeEngine = Callable[..., DownloadEngine]

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="scans /proc"
)

BEGIN = """
import os, sys, time
from segdl import DownloadEngine
engine = DownloadEngine(connections=4)
task = engine.download(os.environ["URL"], os.environ["DIRECTORY"], "file")
"""
MIDDLE = "while task.downloaded_size < 8 << 20:\n    time.sleep(0.01)\n"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "downloads"


@pytest.fixture
def canary(origin: Origin, directory: Path) -> Canary:
    return Canary(URL=origin.blob_url(SEED, SIZE), DIRECTORY=str(directory))


@pytest.fixture
def quick(origin: Origin) -> Origin:
    """Give the origin without a limit, for programs that nobody disturbs."""
    origin.total_rate = None
    return origin


@pytest.fixture
def check_resumable(
    origin: Origin, make_engine: MakeEngine, directory: Path
) -> Callable[[], None]:
    """Give a function that finishes what a program left, and looks at what it cost."""

    def check(recorded: int = MIB) -> None:
        assert not (directory / "file").exists()
        origin.log.settle()
        origin.total_rate = None
        engine = make_engine(connections=LANES)
        task = engine.download(origin.blob_url(SEED, SIZE), directory, "file")
        path = Path(task.result(timeout=60))
        assert path.read_bytes() == origin.blob(SEED, SIZE).read()
        assert task.resumed_size >= recorded
        assert os.listdir(directory) == ["file"]
        assert origin.log.served_twice() <= IN_FLIGHT

    return check


def sent(origin: Origin, size: int) -> None:
    until(lambda: origin.log.bytes_sent() >= size)


FORKED_CHILD = (
    "import json\n"
    + BEGIN
    + MIDDLE
    + """
from segdl.errors import UsageError
def tell(call):
    try:
        return repr(call())
    except UsageError as error:
        return 'UsageError'
child = os.fork()
if child == 0:
    print(json.dumps({
        "download": tell(lambda: engine.download("http://x/", "d")),
        "pause": tell(task.pause),
        "resume": tell(task.resume),
        "cancel": tell(task.cancel),
        "shutdown": tell(engine.shutdown),
    }), flush=True)
    sys.exit(0)
_, status = os.waitpid(child, 0)
task.result()
engine.shutdown()
print(json.dumps({"child": os.waitstatus_to_exitcode(status), "task": task.status}))
"""
)


def test_forked_child_can_not_use_the_engine_and_the_parent_goes_on(
    canary: Canary, origin: Origin, directory: Path
) -> None:
    """After os.fork() every call in the child is a UsageError; its exit is harmless."""
    ended = canary.run([sys.executable, "-W", "ignore", "-c", FORKED_CHILD])
    assert (ended.returncode, ended.stderr) == (0, "")
    child, parent = ended.stdout.splitlines()
    assert child == (
        '{"download": "UsageError", "pause": "UsageError", "resume": "UsageError", '
        '"cancel": "UsageError", "shutdown": "None"}'
    )
    assert parent == '{"child": 0, "task": "completed"}'
    assert (directory / "file").read_bytes() == origin.blob(SEED, SIZE).read()
    assert origin.log.served_twice() <= IN_FLIGHT


FORK_FIRST = """
import os, sys
from segdl import DownloadEngine
engine = DownloadEngine()
if os.fork() == 0:
    engine = DownloadEngine()
    engine.download(os.environ["URL"], os.environ["DIRECTORY"], "child").result()
    sys.exit(0)
engine.download(os.environ["URL"], os.environ["DIRECTORY"], "parent").result()
assert os.wait()[1] == 0
"""


def test_parent_and_child_each_use_an_engine_of_their_own(
    canary: Canary, quick: Origin, directory: Path
) -> None:
    """A process forked from one that has an engine makes a new one, and downloads."""
    ended = canary.run([sys.executable, "-W", "ignore", "-c", FORK_FIRST])
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    for name in ("child", "parent"):
        assert (directory / name).read_bytes() == quick.blob(SEED, SIZE).read()


# --- Ctrl-C ---------------------------------------------------------------------------


ELSEWHERE = """
import os, signal, threading, time
from segdl import DownloadEngine
engine = DownloadEngine()
task = engine.download(os.environ["URL"], os.environ["DIRECTORY"], "file")
other = threading.Thread(target=time.sleep, args=(60,), daemon=True)
other.start()
def interrupt():
    # Long enough for the main thread to wait by then; if it does not, no harm.
    time.sleep(0.3)
    signal.pthread_kill(other.ident, signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
"""


@pytest.mark.parametrize(
    "wait",
    ["task.wait()", "task.result()", "engine.wait()", "engine.shutdown()"],
)
def test_interrupt_that_another_thread_took_ends_the_wait(
    wait: str, canary: Canary, origin: Origin
) -> None:
    """
    No wait is without an end for Ctrl-C.

    Any thread may take a signal of the process; the main thread then sleeps on, and
    sees it only when it comes back to Python by itself.
    """
    canary.environment["URL"] = origin.blob_url(SEED, SIZE, f="hang")
    ended = canary.run([sys.executable, "-c", ELSEWHERE + wait])
    assert ended.returncode in (-signal.SIGINT, 130)
    assert ended.stderr.splitlines()[-1] == "KeyboardInterrupt"


CAUGHT = (
    BEGIN
    + """
print("begun", flush=True)
try:
    task.wait()
except KeyboardInterrupt:
    print(task.status, flush=True)
print(task.result() == os.path.join(os.environ["DIRECTORY"], "file"))
engine.shutdown()
"""
)


def test_program_that_catches_the_interrupt_goes_on(
    canary: Canary, origin: Origin, directory: Path
) -> None:
    """There is no handler of ours: who catches KeyboardInterrupt keeps the engine."""
    with canary.start([sys.executable, "-c", CAUGHT]) as process:
        sent(origin, 4 * MIB)
        os.killpg(process.pid, signal.SIGINT)
        ended = end_of(process)
        canary.check_nothing_left()
    assert ended.stdout.splitlines() == ["begun", "downloading", "True"]
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (directory / "file").read_bytes() == origin.blob(SEED, SIZE).read()


# --- programs that end without a shutdown ---------------------------------------------


@pytest.mark.parametrize(
    ("last", "code", "stderr"),
    [
        ("", 0, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit(7)", 7, ""),
        ("raise SystemExit('bye')", 1, "bye\n"),
        ("del engine, task", 0, ""),
    ],
)
def test_unfinished_engine_ends_with_the_interpreter(
    last: str,
    code: int,
    stderr: str,
    canary: Canary,
    check_resumable: Callable[[], None],
) -> None:
    """An engine nobody shut down: no hang, no orphan, no noise, and resumable."""
    ended = canary.run([sys.executable, "-c", BEGIN + MIDDLE + last])
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "", stderr)
    check_resumable()


@pytest.mark.parametrize("processes", ["'auto'", "0"])
def test_idle_engine_ends_with_the_interpreter(processes: str, canary: Canary) -> None:
    """An engine that has finished everything, and was not shut down, ends too."""
    program = BEGIN.replace("connections=4", f"processes={processes}")
    ended = canary.run([sys.executable, "-c", program + "task.result()"])
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_engine_made_as_the_interpreter_ends_is_refused(canary: Canary) -> None:
    """What a destructor begins then fails at once; before 3.12 it hung."""
    program = """
import os
from segdl import DownloadEngine
class Late:
    def __del__(self):
        engine = DownloadEngine()
        engine.register_completion_callback(print)
        task = engine.download(os.environ["URL"], os.environ["DIRECTORY"], "file")
        os.write(1, f"{task.status}: {task.error}".encode())
late = Late()
"""
    ended = canary.run([sys.executable, "-c", program])
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("failed: no worker could be started")


def test_error_in_the_program_shows_its_own_traceback_only(
    canary: Canary, check_resumable: Callable[[], None]
) -> None:
    """A bug of the user's ends the program with that bug's traceback."""
    ended = canary.run([sys.executable, "-c", BEGIN + MIDDLE + "1 / 0"])
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("ZeroDivisionError")
    assert ended.stderr.count("Traceback") == 1
    check_resumable()


# --- surroundings ---------------------------------------------------------------------


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_program_without_standard_streams_downloads(
    closed: str, canary: Canary, quick: Origin, directory: Path, tmp_path: Path
) -> None:
    """A daemon has descriptors 0, 1, 2 closed, so that pipes may get these numbers."""
    script = tmp_path / "script.py"
    script.write_text(BEGIN + "task.result(30)\nengine.shutdown()\n")
    shell = ["sh", "-c", f'"$0" "$1" {closed}', sys.executable, script]
    ended = canary.run(shell)
    assert ended.returncode == 0
    assert (directory / "file").read_bytes() == quick.blob(SEED, SIZE).read()


@pytest.mark.parametrize("begin", [["-c"], ["-"]], ids=["-c", "stdin"])
def test_program_whose_current_directory_is_gone_downloads(
    begin: list[str], canary: Canary, quick: Origin, directory: Path, tmp_path: Path
) -> None:
    """The current directory was deleted, and the "" in sys.path resolves no more."""
    gone = tmp_path / "gone"
    gone.mkdir()
    text = f"import os; os.rmdir({str(gone)!r})\n" + BEGIN + "task.result(30)\n"
    script = tmp_path / "script.py"
    script.write_text(text)
    if begin == ["-c"]:
        ended = canary.run([sys.executable, "-c", text], cwd=gone)
    else:
        ended = canary.run([sys.executable, "-"], stdin=script, cwd=gone)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (directory / "file").read_bytes() == quick.blob(SEED, SIZE).read()


def test_relative_directory_is_that_of_the_call(
    canary: Canary, quick: Origin, tmp_path: Path
) -> None:
    """A chdir after download() moves nothing."""
    program = (
        "import os\nfrom segdl import DownloadEngine\n"
        "with DownloadEngine() as engine:\n"
        "    task = engine.download(os.environ['URL'], 'here', 'file')\n"
        "    os.chdir('/')\n"
        "print(task.file_path)\n"
    )
    ended = canary.run([sys.executable, "-c", program], cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.strip() == str(tmp_path / "here/file")
    assert (tmp_path / "here/file").read_bytes() == quick.blob(SEED, SIZE).read()


def test_import_starts_nothing(canary: Canary) -> None:
    """Importing segdl, or making an engine, starts no process and no thread."""
    program = (
        "import subprocess, threading, segdl\n"
        "engine = segdl.DownloadEngine()\n"
        "print(threading.active_count(), subprocess._active)\n"
        "engine.shutdown()\n"
    )
    ended = canary.run([sys.executable, "-c", program])
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "1 []\n", "")


@pytest.mark.parametrize("flags", [["-I"], ["-OO"], ["-X", "dev"]])
def test_flags_of_the_interpreter_change_nothing(
    flags: list[str], canary: Canary, quick: Origin, directory: Path
) -> None:
    """Isolated, optimised, in development mode: the workers find segdl."""
    path = f"import sys; sys.path.insert(0, {canary.environment['PYTHONPATH']!r})\n"
    program = path + BEGIN + "task.result(30)\nengine.shutdown()\n"
    ended = canary.run([sys.executable, *flags, "-c", program])
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert (directory / "file").read_bytes() == quick.blob(SEED, SIZE).read()


WITH_BLOCK = """
import os, time
from segdl import DownloadEngine
with DownloadEngine(connections=4) as engine:
    task = engine.download(os.environ["URL"], os.environ["DIRECTORY"], "file")
    task.wait()
"""


def test_interrupt_in_a_with_block_stops_instead_of_waiting(
    canary: Canary, origin: Origin, check_resumable: Callable[[], None]
) -> None:
    """Leaving the block by an exception stops, it does not finish the download."""
    with canary.start([sys.executable, "-c", WITH_BLOCK]) as process:
        sent(origin, 8 * MIB)
        os.killpg(process.pid, signal.SIGINT)
        ended = end_of(process)
        canary.check_nothing_left()
    assert ended.returncode in (-signal.SIGINT, 130)
    check_resumable()


@pytest.mark.parametrize("processes", ["auto", "0"])
def test_streams_that_are_closed_while_the_engine_runs(
    processes: str, origin: Origin, tmp_path: Path
) -> None:
    """
    As a program does that becomes a daemon, and goes on to print.

    It reaches neither the part, nor the manifest, nor the pipes of the next worker.
    """
    program = """
import os, signal, sys
from segdl import DownloadEngine
url, directory = os.environ["URL"], os.environ["DIRECTORY"]
processes = os.environ["PROCESSES"]
engine = DownloadEngine(
    processes="auto" if processes == "auto" else 0, retry_delay=0.05
)
engine.download(url, directory, "first").result(timeout=20)
kept = os.dup(1)
for fd in (0, 1, 2):
    os.close(fd)
for worker in engine._scheduler._workers:
    if worker.pid is not None:
        os.kill(worker.pid, signal.SIGKILL)
task = engine.download(url, directory, "second")
while task.downloaded_size < 1 << 20 and task.status == "downloading":
    pass
for stream in (sys.stdout, sys.stderr):
    try:
        stream.write("hello"); stream.flush()
    except OSError:
        pass
task.wait(30)
os.write(kept, str(task.error or task.status).encode())
engine.shutdown()
os._exit(0)
"""
    canary = Canary(
        URL=origin.blob_url(1, 4 * MIB), DIRECTORY=str(tmp_path), PROCESSES=processes
    )
    ended = canary.run([sys.executable, "-c", program])
    assert ended.stdout == "completed", ended.stderr
    assert (tmp_path / "second").read_bytes() == origin.blob(1, 4 * MIB).read()
