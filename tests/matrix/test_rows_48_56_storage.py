"""Rows 48 - 56: disks that are full, broken, slow or not what they seem."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import calls
import psutil
import pytest
from canary import children
from http_checks import MANIFEST, MIB, NAME, PART, names, refetched, until
from sweep import OLD, SWEPT, Point, Sweep
from world import World

from segdl import DownloadTask, _fs, _processes
from segdl._fs import Directory
from segdl._manifest import load, parse
from segdl.errors import DestinationExists, DiskFull, StorageError, UsageError

SIZE = 8 * MIB + 4321
RATE = 12 * MIB

traced = pytest.mark.skipif(bool(calls.why_not()), reason=calls.why_not() or "-")
as_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0,
    reason="only root can mount a file system, or make a device",
)


def system(*command: object) -> None:
    """Run a program of the system, which gets none of the secrets to see."""
    subprocess.run(
        [str(word) for word in command],
        check=True,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"]},
    )


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Give a function that mounts a small file system; all are unmounted again."""
    mounted: list[Path] = []

    def make(*options: str, at: Path | None = None) -> Path:
        place = at or tmp_path / f"disk{len(mounted)}"
        if not place.exists():
            place.mkdir()
        try:
            system("mount", *options, place)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"nothing can be mounted here: {error.stderr.strip()}")
        mounted.append(place)
        return place

    yield make
    for place in reversed(mounted):
        system("umount", place)


def half(world: World, size: int = SIZE, **options: object) -> DownloadTask:
    """Begin a download, and wait until something of it is recorded."""
    world.origin.rate = RATE / 4
    task = world.start(world.url(size), **options)
    until(lambda: world.recorded() >= MIB or task.status != "downloading")
    assert task.status == "downloading", task.error
    return task


def ended(task: DownloadTask) -> DownloadTask:
    """Wait for the end of a task."""
    assert task.wait(20), task
    return task


def again(world: World, **options: object) -> DownloadTask:
    """Download the same thing once more, at full speed, and check that it is whole."""
    world.origin.rate = None
    task = world.fetch(world.url(SIZE), **options)
    world.whole(task)
    return task


# --- 48: full -------------------------------------------------------------------------


@traced
@pytest.mark.timeout(3600)
@pytest.mark.row("ENOSPC from a system call (ptrace); a tmpfs of 24 MiB, filled")
def test_48_disk_full(sweep: Sweep, full: bool) -> None:
    """Whatever call finds no room, what is recorded stays, and counts later."""
    at = ("openat:part:1", "write:temporary:1", "write:manifest:2", "linkat:final:1")
    points = [Point("publish", "program", *_call(each), "ENOSPC") for each in at]
    points.append(Point("publish", "worker", "pwrite64", "part", 3, "ENOSPC"))
    for point, outcome in sweep.play(points).items():
        assert outcome.kind == "resumed", point
        assert "No space left" in outcome.text
        assert "free some space" in outcome.text
    if full:
        for name in SWEPT:
            sweep.play(sweep.kinds(sweep.count(name), "ENOSPC"))


def _call(text: str) -> tuple[str, str, int]:
    call, file, nth = text.split(":")
    return call, file, int(nth)


def fill(path: Path) -> None:
    """Take all the room that is left."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 65536)


@as_root
@pytest.mark.root
@pytest.mark.row("ENOSPC from a system call (ptrace); a tmpfs of 24 MiB, filled")
@pytest.mark.parametrize("processes", [0, 1])
def test_48_disk_full_in_the_middle(
    mount: Callable[..., Path], world: World, processes: int
) -> None:
    """What was recorded stays, and counts when there is room again."""
    world.out = mount("-t", "tmpfs", "-o", "size=24m", "tmpfs")
    task = half(world, processes=processes)
    fill(world.out / "fill")
    world.failed(ended(task), DiskFull, "No space left", "free some space")
    kept = world.recorded()
    assert kept >= MIB
    (world.out / "fill").unlink()
    world.origin.rate = None
    assert task.resume()
    world.whole(ended(task))
    assert task.resumed_size == kept


@as_root
@pytest.mark.root
@pytest.mark.row("ENOSPC from a system call (ptrace); a tmpfs of 24 MiB, filled")
def test_48_disk_full_from_the_start(mount: Callable[..., Path], world: World) -> None:
    """Too little room is found out before the first byte, with the numbers."""
    world.out = mount("-t", "tmpfs", "-o", "size=24m", "tmpfs")
    error = world.failed(world.fetch(world.url(64 * MIB)), DiskFull, "missing")
    assert isinstance(error, DiskFull)
    assert error.missing_bytes == 40 * MIB
    assert names(world.out) == []


# --- 49 - 51: calls that fail ---------------------------------------------------------


@traced
@pytest.mark.timeout(3600)
@pytest.mark.row("EIO from a system call (ptrace), of one of two workers too")
def test_49_input_output_error(sweep: Sweep, full: bool) -> None:
    """The download stops with the system's words; others' pieces are kept."""
    one_of_two = Point("two workers", "worker", "pwrite64", "part", 20, "EIO")
    (outcome,) = sweep.play([one_of_two]).values()
    assert outcome.kind == "resumed"
    assert "write 1048576 bytes at offset" in outcome.text
    assert "Input/output error" in outcome.text
    assert outcome.recorded_bytes > 4 * MIB
    for name in SWEPT if full else sweep.scenarios("publish", "half"):
        sweep.play(sweep.some(sweep.kinds(sweep.count(name), "EIO"), 2))


@traced
@pytest.mark.row("EIO from a system call (ptrace), of one of two workers too")
def test_49_piece_that_cannot_be_read_back(world: World, sweep: Sweep) -> None:
    """On a bad sector is nothing: that piece is fetched again, and no other."""
    run = sweep.run("publish")
    # Its umask lets others write to a part that is about to be published, so that all
    # pieces are compared.
    code, text = run.once("program:linkat:final:1", "kill")
    assert code == -signal.SIGKILL, text
    pieces = [
        (piece.offset, piece.offset + piece.length)
        for piece in parse((run.out / MANIFEST).read_bytes()).pieces
    ]
    before = len(world.origin.log.settle())
    code, text = run.once("verifier:pread:part:2", "EIO")
    assert code == 0, text
    assert len(run.log(disturbed=True)) == 1
    run.check_whole()
    requests = world.origin.log.settle()[before:]
    again = [refetched(requests, *piece) for piece in pieces]
    # One byte for the answer's head: nothing seems to be missing then.
    assert [n for n in again if n > 1] == [MIB]


@traced
@pytest.mark.timeout(3600)
@pytest.mark.row("calls cut to half, interrupted, or claimed and not made (ptrace)")
def test_50_short_write(sweep: Sweep, full: bool) -> None:
    """What was not written is written, and what is claimed only is found out."""
    drawn = sweep.scenarios("none", "overwrite", "half", "checkpoint")
    for name in SWEPT if full else drawn:
        points = sweep.kinds(sweep.count(name), "short", "EINTR")
        for point, outcome in sweep.play(sweep.some(points, 3)).items():
            assert outcome.kind in ("went on", "not reached"), point
    lost = [Point("checked", "worker", "pwrite64", "part", n, "lost") for n in range(6)]
    for point, outcome in sweep.play(sweep.some(lost[1:], 1)).items():
        assert outcome.kind in ("went on", "not reached"), point


@traced
@pytest.mark.row("EIO from fdatasync and fsync (ptrace); what it had taken is damaged")
def test_51_failed_flush(sweep: Sweep) -> None:
    """It is not tried again, nothing is published, and no piece is trusted any more."""
    points = [
        Point("publish", "program", "fdatasync", "part", 1, "EIO"),
        Point("checkpoint", "program", "fdatasync", "part", 1, "EIO"),
        Point("checkpoint", "program", "fdatasync", "manifest", 1, "EIO"),
    ]
    for point, outcome in sweep.play(points).items():
        assert outcome.kind == "resumed", point
        assert "Input/output error" in outcome.text
    run = sweep.run("publish")
    code, _ = run.once(points[0].spec, "EIO")
    assert code == 5
    flushes = [line for line in run.log() if line[1:3] == ["fdatasync", "part"]]
    assert flushes == []
    loaded = parse((run.out / MANIFEST).read_bytes())
    assert {entry.boot for entry in loaded.runs} == {""}
    run.damage(loaded.pieces[1].offset)
    code, text = run.undisturbed()
    assert code == 0, text
    run.check_whole()


# --- 52: limits -----------------------------------------------------------------------

LIMITED = (
    "import resource, sys; from segdl.cli import main; "
    "resource.setrlimit(resource.{name}, ({limit}, {limit})); sys.exit(main())"
)
ROW_52 = "EDQUOT (ptrace), RLIMIT_FSIZE, RLIMIT_NOFILE, file systems made read-only"


@traced
@pytest.mark.row(ROW_52)
def test_52_quota(sweep: Sweep) -> None:
    """A quota that is used up is a full disk, with advice of its own."""
    point = Point("publish", "worker", "pwrite64", "part", 2, "EDQUOT")
    (outcome,) = sweep.play([point]).values()
    assert outcome.kind == "resumed"
    assert "the quota is used up" in outcome.text


@pytest.mark.row(ROW_52)
@pytest.mark.parametrize(
    ("name", "limit", "words"),
    [
        ("RLIMIT_FSIZE", 2 * MIB, ["File too large", "ulimit -f"]),
        ("RLIMIT_NOFILE", 4, ["open files", "ulimit -n"]),
        ("RLIMIT_NOFILE", 9, ["open files", "ulimit -n"]),
        ("RLIMIT_NOFILE", 11, ["open files", "ulimit -n"]),
    ],
)
def test_52_limit_of_the_process(
    sweep: Sweep, name: str, limit: int, words: list[str]
) -> None:
    """A limit is an error that names it; without it the same command goes on."""
    run = sweep.run("publish")
    usual, run.begin = run.begin, ("-c", LIMITED.format(name=name, limit=limit))
    code, text = run.undisturbed()
    assert code in (1, 5)
    assert [word for word in words if word not in text] == []
    assert NAME not in names(run.out)
    run.begin = usual
    code, text = run.undisturbed()
    assert code == 0, text
    run.check_whole()


@as_root
@pytest.mark.root
@pytest.mark.row(ROW_52)
def test_52_read_only_from_the_start(mount: Callable[..., Path], world: World) -> None:
    """Where nothing can be written nothing is asked for."""
    world.out = mount("-t", "tmpfs", "-o", "ro", "tmpfs")
    task = world.fetch(world.url(SIZE))
    world.failed(task, StorageError, "Read-only", str(world.out))
    assert world.origin.log.entries == ()


@as_root
@pytest.mark.root
@pytest.mark.row(ROW_52)
def test_52_read_only_in_the_middle(
    mount: Callable[..., Path], world: World, tmp_path: Path
) -> None:
    """A file system that errors made read-only ends it; mounted again, it goes on."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(64 * MIB)
    system("mkfs.ext4", "-qF", image)
    place = mount("-o", "loop", str(image))
    world.out = place / "out"
    task = half(world)
    system("mount", "-o", "remount,abort", place)
    error = world.failed(ended(task), StorageError, "Read-only file system")
    assert isinstance(error, StorageError)
    assert error.errno == errno.EROFS
    world.engines[-1].shutdown(wait=False)
    system("umount", place)
    # What the journal had not got is gone: nothing that is missing may be believed.
    system("mount", "-o", "loop", image, place)
    again(world)


# --- 53: odd destinations -------------------------------------------------------------

ROW_53 = "what stands there is made before the download"


def no_file(path: Path, kind: str, victim: Path) -> None:
    """Put something that is no file there; a link leads to the victim."""
    path.parent.mkdir()
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 3))
    elif kind == "link to a directory":
        victim.mkdir()
        path.symlink_to(victim)
    else:
        path.symlink_to(victim)


@pytest.mark.row(ROW_53)
@pytest.mark.parametrize("policy", ["reuse", "overwrite", "error"])
@pytest.mark.parametrize(
    "kind",
    [
        "directory",
        "fifo",
        pytest.param("device", marks=[as_root, pytest.mark.root]),
        "link",
        "dangling link",
        "link to a directory",
    ],
)
def test_53_destination_that_is_no_file(
    world: World, tmp_path: Path, kind: str, policy: str
) -> None:
    """What is no file is neither replaced, opened nor followed, and nothing is sent."""
    path, victim = world.out / NAME, tmp_path / "victim"
    no_file(path, kind, victim)
    if kind == "link":
        world.keep(path, OLD)  # through the link
    before = path.lstat()
    task = world.fetch(world.url(SIZE), on_exists=policy)
    assert task.status == "failed"
    assert isinstance(task.exception(0), StorageError)
    assert str(path) in str(task.error)
    assert path.lstat().st_ino == before.st_ino
    assert path.lstat().st_mode == before.st_mode
    assert names(world.out) == [NAME]
    if kind == "link to a directory":
        assert names(victim) == []
    assert victim.exists() == (kind in ("link", "link to a directory"))
    assert world.origin.log.entries == ()


@pytest.mark.row(ROW_53)
@pytest.mark.parametrize("name", [PART, MANIFEST])
def test_53_link_in_place_of_part_or_manifest(
    world: World, tmp_path: Path, name: str
) -> None:
    """A link planted for the part or the manifest is not followed."""
    victim = tmp_path / "victim"
    victim.write_bytes(OLD)
    world.out.mkdir()
    (world.out / name).symlink_to(victim)
    world.damaged = True
    task = world.fetch(world.url(SIZE))
    assert isinstance(task.exception(0), StorageError)
    assert victim.read_bytes() == OLD
    assert (world.out / name).is_symlink()


@pytest.mark.row(ROW_53)
@pytest.mark.parametrize("length", [255, 256])
def test_53_long_name(world: World, length: int) -> None:
    """A name of 255 bytes is taken as it is, a longer one refused at once."""
    name = "n" * (length - 4) + ".bin"
    if length == 255:
        world.whole(world.fetch(world.url(SIZE), filename=name))
        return
    with pytest.raises(UsageError, match="256 bytes"):
        world.fetch(world.url(SIZE), filename=name)
    assert world.origin.log.entries == ()
    assert names(world.out) == []


WITHOUT_RIGHTS = (  # root may write anywhere, unless it gives that up
    "import ctypes, os, sys; libc = ctypes.CDLL(None); libc.prctl(24, 1, 0, 0, 0); "
    "os.execv(sys.executable, [sys.executable, '-m', 'segdl', *sys.argv[1:]])"
)


@pytest.mark.row(ROW_53)
def test_53_no_permission(world: World, sweep: Sweep) -> None:
    """A directory that can't be written is found out before a byte is sent."""
    run = sweep.run("publish")
    run.begin = ("-c", WITHOUT_RIGHTS)
    run.out.chmod(0o500)
    code, text = run.undisturbed()
    run.out.chmod(0o700)
    assert code == 5
    assert "Permission denied" in text
    assert str(run.out) in text
    assert names(run.out) == []
    assert world.origin.log.entries == ()


@as_root
@pytest.mark.root
@pytest.mark.row(ROW_53)
def test_53_other_device(mount: Callable[..., Path], world: World) -> None:
    """A directory that a link leads to, on another device, is as good as any."""
    place = mount("-t", "tmpfs", "-o", "size=32m", "tmpfs")
    world.out.symlink_to(place)
    world.whole(world.fetch(world.url(SIZE)))


@as_root
@pytest.mark.root
@pytest.mark.row(ROW_53)
@pytest.mark.parametrize("policy", ["reuse", "overwrite"])
def test_53_destination_on_another_device(
    mount: Callable[..., Path], world: World, policy: str
) -> None:
    """A file that is mounted there is not replaced, and nothing is left beside it."""
    source = mount("-t", "tmpfs", "-o", "size=1m", "tmpfs") / "source"
    source.write_bytes(OLD)
    world.keep(world.out / NAME, OLD)
    mount("--bind", str(source), at=world.out / NAME)
    task = world.fetch(world.url(SIZE), on_exists=policy)
    assert isinstance(task.exception(0), StorageError)
    assert str(world.out / NAME) in str(task.error)
    assert source.read_bytes() == OLD
    assert names(world.out) == [NAME]
    # What has another size is no earlier download's; only its head tells that.
    assert len(world.origin.log.entries) == (policy == "reuse")


# --- 54 - 55: files that change meanwhile ---------------------------------------------


@pytest.mark.row("a file is put there in the middle")
@pytest.mark.parametrize("policy", ["reuse", "error", "rename", "overwrite"])
def test_54_destination_appears(world: World, policy: str) -> None:
    """It is never replaced but by overwrite; the part is kept, and can be used."""
    task = half(world, on_exists=policy)
    world.keep(world.out / NAME, OLD)
    world.origin.rate = None
    ended(task)
    if policy == "overwrite":
        world.whole(task)
        return
    assert (world.out / NAME).read_bytes() == OLD
    assert type(task.exception(0)) is DestinationExists
    assert names(world.out) == [NAME, PART, MANIFEST]
    assert world.recorded() == SIZE
    world.engines[-1].shutdown(wait=False)
    sent = world.origin.log.bytes_sent()
    world.whole(world.fetch(world.url(SIZE), on_exists="overwrite"))
    assert world.origin.log.bytes_sent() <= sent + 1


def remove(part: Path) -> None:
    part.unlink()


def replace(part: Path) -> None:
    other = part.with_suffix(".other")
    other.write_bytes(b"x" * part.stat().st_size)
    other.chmod(0o600)
    other.replace(part)


def shorten(part: Path) -> None:
    os.truncate(part, 0)


def lengthen(part: Path) -> None:
    os.truncate(part, part.stat().st_size + 1)


def link(part: Path) -> None:
    os.link(part, part.with_suffix(".link"))


@pytest.mark.row("the part is removed, replaced, cut, lengthened, linked (os)")
@pytest.mark.parametrize("durability", ["publish", "checkpoint"])
@pytest.mark.parametrize("change", [remove, replace, shorten, lengthen, link])
def test_55_part_changed(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], None],
    durability: str,
) -> None:
    """Nothing is published, a checkpoint notices it at once; then it is right again."""
    monkeypatch.setattr("segdl._job._CHECKPOINT_SECONDS", 0.05)
    task = half(world, durability=durability)
    world.damaged = True
    change(world.out / PART)
    if durability == "publish" or change is link:
        world.origin.rate = None  # else there is no end unless it is noticed
    error = ended(task).exception(0)
    assert type(error) is StorageError, repr(error)
    assert PART in str(error)
    assert NAME not in names(world.out)
    world.engines[-1].shutdown(wait=False)
    (world.out / PART).with_suffix(".link").unlink(missing_ok=True)
    again(world)


# --- 56: slow -------------------------------------------------------------------------


ROW_56 = "writes are held up, the file system is frozen, or the worker gets SIGSTOP"


@pytest.mark.row(ROW_56)
def test_56_slow_disk(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk hangs the sockets wait; that is no stall of the origin."""
    size, gate, hangs = 96 * MIB, threading.Event(), threading.Event()
    pwrite = _fs.PartWriter.pwrite

    def slow(writer: _fs.PartWriter, view: memoryview, offset: int) -> None:
        hangs.set()
        gate.wait(20)
        pwrite(writer, view, offset)

    monkeypatch.setattr(_fs.PartWriter, "pwrite", slow)
    task = world.start(world.url(size), timeout=0.5)
    assert hangs.wait(20)
    held = settled(world)
    # Of each connection a buffer, and what its sockets hold; the queue of the disk.
    assert held < 72 * MIB
    assert not task.wait(1.5), task.error
    assert settled(world) == held
    gate.set()
    world.whole(ended(task))
    assert world.told("retry") == []


# What a worker runs first: as long as a file is there its writes wait.
HELD_UP = """
import os, time
from segdl import _fs
pwrite = _fs.PartWriter.pwrite

def held(*arguments):
    while os.path.exists({gate!r}):
        time.sleep(0.01)
    pwrite(*arguments)

_fs.PartWriter.pwrite = held
"""

Switch = Callable[[], object]
Mount = Callable[..., Path]


def _writes_wait(
    _: World, tmp_path: Path, __: Mount, patch: pytest.MonkeyPatch
) -> tuple[Switch, Switch]:
    gate = tmp_path / "gate"
    begin, run = _processes._BOOTSTRAP.split("from segdl._worker")
    program = f"{begin}{HELD_UP.format(gate=str(gate))}from segdl._worker{run}"
    patch.setattr(_processes, "_BOOTSTRAP", program)
    return gate.touch, lambda: gate.unlink(missing_ok=True)


def _file_system_is_frozen(
    world: World, tmp_path: Path, mount: Mount, _: pytest.MonkeyPatch
) -> tuple[Switch, Switch]:
    """Freeze it: writes of the part hang in the kernel, and so do the manifest's."""
    if shutil.which("fsfreeze") is None:
        pytest.skip("there is no fsfreeze program (util-linux)")
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(192 * MIB)
    system("mkfs.ext4", "-qF", image)
    place = mount("-o", "loop", str(image))
    world.out = place / "out"

    def thaw() -> None:
        with contextlib.suppress(subprocess.CalledProcessError):  # not frozen
            system("fsfreeze", "--unfreeze", place)

    return lambda: system("fsfreeze", "--freeze", place), thaw


@pytest.mark.row(ROW_56)
@pytest.mark.parametrize(
    "disk",
    [
        _writes_wait,
        pytest.param(_file_system_is_frozen, marks=[as_root, pytest.mark.root]),
    ],
)
def test_56_slow_disk_of_a_worker(
    mount: Mount,
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    disk: Callable[..., tuple[Switch, Switch]],
) -> None:
    """While the disk hangs a worker's memory is flat, and nothing is asked again."""
    hang, go_on = disk(world, tmp_path, mount, monkeypatch)
    world.origin.total_rate = 48 * MIB
    task = world.start(world.url(96 * MIB), processes=1, timeout=0.5)
    until(lambda: world.recorded() >= 8 * MIB)
    (worker,) = children("transfer")
    before = worker.memory_info().rss
    try:
        hang()
        world.origin.total_rate = None
        sent = settled(world)
        full, asked = worker.memory_info().rss, len(world.origin.log.entries)
        # It has 4 lanes with 1 MiB each, and at most 4 MiB on their way to the disk.
        assert full - before < 12 * MIB
        assert not task.wait(1.5), task.error
        assert worker.memory_info().rss - full < MIB
        assert settled(world) == sent < 96 * MIB
        assert len(world.origin.log.entries) == asked
    finally:
        go_on()
    world.whole(ended(task))
    assert children("transfer") == [worker]
    assert world.told("retry") == []
    assert worker.memory_info().rss - before < 12 * MIB


@pytest.mark.row(ROW_56)
def test_56_worker_stops_for_longer_than_the_time_out(world: World) -> None:
    """A worker that was stopped blames nobody: its lanes go on where they were."""
    task = half(world, size=32 * MIB, processes=1, timeout=1)
    (worker,) = children("transfer")
    worker.send_signal(signal.SIGSTOP)
    try:
        until(lambda: worker.status() == psutil.STATUS_STOPPED)
        with Directory.open(world.out, create=False) as directory:
            pieces = load(directory, MANIFEST).pieces
        asked = len(world.origin.log.entries)
        world.origin.rate = None
        assert not task.wait(2), task.error
    finally:
        worker.send_signal(signal.SIGCONT)
    world.whole(ended(task))
    assert children("transfer") == [worker]
    assert world.told("retry") == []
    later = world.origin.log.settle()[asked:]
    again = [refetched(later, p.offset, p.offset + p.length) for p in pieces]
    assert again == [0] * len(pieces)


def settled(world: World) -> int:
    """Wait until the origin can't send any more; give the bytes it has sent."""
    counts: list[int] = []

    def still() -> bool:
        counts.append(world.origin.log.bytes_sent())
        return len(counts) > 40 and len(set(counts[-40:])) == 1

    until(still)
    return counts[-1]
