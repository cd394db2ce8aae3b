"""Rows 68 - 75 but 71: a manifest or a part that lies, links, names, secrets, SSRF."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zlib import crc32

import psutil
import pytest
from http_checks import MANIFEST, MIB, NAME, PART, file_digest, names, refetched, until
from world import World

from segdl import DownloadTask, _fs, _sockets
from segdl._fs import Directory
from segdl._manifest import load
from segdl.cli import main
from segdl.errors import AddressRefused, DestinationExists, StorageError
from segdl.testing import Origin

SIZE = 6 * MIB + 4321
OLD = b"somebody's"
SHA256 = "sha256:" + "ab" * 32


# --- what an earlier run left ---------------------------------------------------------


def leave_some(world: World, url: str, *, least: int = 2 * MIB) -> int:
    """Leave a download with so much recorded behind; give how much it is."""
    world.origin.total_rate = 12 * MIB
    engine = world.engine(connections=2)
    task = world.start(url, engine=engine)
    until(lambda: world.recorded() >= least or task.status != "downloading")
    assert task.status == "downloading", task.error
    engine.shutdown(wait=False)
    world.origin.total_rate = None
    return world.recorded()


def go_on(world: World, url: str) -> tuple[DownloadTask, int]:
    """Download to the end; give also how many requests there were before."""
    before = len(world.origin.log.settle())
    return world.fetch(url), before


def recorded_pieces(world: World) -> list[tuple[int, int]]:
    """Give begin and end of each piece that the manifest has."""
    with Directory.open(world.out, create=False) as directory:
        pieces = load(directory, MANIFEST).pieces
    return [(piece.offset, piece.offset + piece.length) for piece in pieces]


def records_of(data: bytes) -> list[Any]:
    """Read the records of a manifest."""
    return [json.loads(line[9:]) for line in data.splitlines()]


def framed(*records: Any) -> bytes:
    """Write records as lines with the right checksums."""
    texts = [json.dumps(each, separators=(",", ":")).encode() for each in records]
    return b"".join(b"%08x %s\n" % (crc32(text), text) for text in texts)


def seen(world: World) -> list[tuple[str, int, str]]:
    """Give the files there are: name, inode and content."""
    found = []
    for name in names(world.out):
        path = world.out / name
        status = path.lstat()
        small = path.is_file() and status.st_size < 100 * MIB
        content = file_digest(path) if small else str(status.st_size)
        found.append((name, status.st_ino, content))
    return found


# --- row 68 ---------------------------------------------------------------------------


def flip(data: bytes, at: int) -> bytes:
    """Change one bit."""
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def within(data: bytes, number: int) -> int:
    """Give a place within a piece's record."""
    starts = [at for at in range(len(data)) if data.startswith(b'{"t":"P"', at)]
    return starts[number] + 10


def with_format(data: bytes, number: int) -> bytes:
    """Give the manifest as another version of segdl would have begun it."""
    header, *others = records_of(data)
    return framed({**header, "format": number}, *others)


STARTS_OVER = "holds nothing, as after a power cut"

# What is done to the manifest's bytes, and why it can't be used then: None when it can.
DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str | None]] = {
    "torn": (lambda data: data[:-5], None),
    "garbage behind": (lambda data: data + bytes(range(256)) * 40, None),
    "zeros behind": (lambda data: data + bytes(9000), None),
    "10 GB behind": (lambda data: data, None),
    "bit of the last piece": (lambda data: flip(data, within(data, -1)), None),
    "bit of the second piece": (lambda data: flip(data, within(data, 1)), None),
    "zeros from the second piece": (
        lambda data: data[: within(data, 1)] + bytes(len(data) - within(data, 1)),
        None,
    ),
    "bit of the header": (lambda data: flip(data, 60), "a checksum is wrong"),
    "all zeros": (lambda data: bytes(len(data)), STARTS_OVER),
    "10 GB of zeros": (lambda _: b"", "cannot be used"),
    "empty": (lambda _: b"", STARTS_OVER),
    "empty, of another mode": (lambda _: b"", "is empty"),
    "zeros but for the end": (lambda data: bytes(len(data)) + b"\n", "cannot be used"),
    "of a later version": (lambda data: with_format(data, 2), "format 2"),
    "another program's": (lambda _: bytes(range(256)) * 9, "cannot be used"),
}


@pytest.mark.row("bytes of the manifest are cut, added, flipped or zeroed")
@pytest.mark.parametrize("how", DAMAGES)
def test_68_damaged_manifest(world: World, how: str) -> None:
    """
    Its good beginning is used; without one the part is neither used nor removed.

    But where a power cut left nothing of the manifest there is no record to lose: the
    reference's row 68 and section 5.4 let that start over, with a message.
    """
    url = world.url(SIZE)
    recorded = leave_some(world, url)
    path = world.out / MANIFEST
    change, reason = DAMAGES[how]
    path.write_bytes(change(path.read_bytes()))
    if how.startswith("10 GB"):
        os.truncate(path, 10 << 30)
    if how == "empty, of another mode":
        path.chmod(0o644)
    pieces = recorded_pieces(world) if reason is None else []
    before = seen(world)
    tracemalloc.start()
    try:
        task, skip = go_on(world, url)
        assert tracemalloc.get_traced_memory()[1] < 160 * MIB
    finally:
        tracemalloc.stop()
    requests = world.origin.log.settle()[skip:]
    if reason is None:
        world.whole(task)
        assert 0 < task.resumed_size <= recorded
        assert task.resumed_size == sum(end - begin for begin, end in pieces)
        assert [refetched(requests, *piece) for piece in pieces] == [0] * len(pieces)
    elif reason == STARTS_OVER:
        world.whole(task)
        assert task.resumed_size == 0
        (told,) = world.told("retry")
        assert reason in told["reason"]
        assert "starting over" in told["reason"]
    else:
        world.failed(task, DestinationExists, reason, "remove both")
        assert requests == ()
        assert seen(world) == before


# --- row 69 ---------------------------------------------------------------------------


def without_part(world: World) -> None:
    (world.out / PART).unlink()


def without_manifest(world: World) -> None:
    (world.out / MANIFEST).unlink()


def never_written(world: World) -> None:
    without_manifest(world)
    os.truncate(world.out / PART, 0)
    os.truncate(world.out / PART, SIZE)


def part_of_another_file(world: World) -> None:
    """Put a file with another inode and other bytes in the part's place."""
    other = world.out / "other"
    other.touch(0o600)
    other.write_bytes(world.origin.blob(2, SIZE).read())
    other.replace(world.out / PART)


def manifest_of_another_file(world: World) -> None:
    """Have the manifest say that the part is another URL's, and another version."""
    header, *others = records_of((world.out / MANIFEST).read_bytes())
    header |= {"url_sha256": "cd" * 32, "url": "https://example.org/other.bin"}
    header["validator"]["etag"] = '"another"'
    (world.out / MANIFEST).write_bytes(framed(header, *others))


def format_of_before(world: World) -> None:
    path = world.out / MANIFEST
    path.write_bytes(with_format(path.read_bytes(), 0))


def copied(world: World) -> None:
    """Go on in a copy of the directory."""
    copy = world.out.with_name("copy")
    shutil.copytree(world.out, copy)
    world.out = copy


def copied_and_changed(world: World) -> None:
    """Go on in a copy of which one piece has become another."""
    copied(world)
    with (world.out / PART).open("r+b") as file:
        file.seek(recorded_pieces(world)[0][0] + 77)
        file.write(bytes(4000))
    world.damaged = True


# What is done, and what becomes of it: "all" is gone on with, "some" or "none" of what
# was recorded is used, or else words of the error.
ODD_PAIRS: dict[str, tuple[Callable[[World], None], str]] = {
    "manifest without a part": (without_part, "none"),
    "part without a manifest": (without_manifest, "no manifest"),
    "part that was never written": (never_written, "none"),
    "part of another file": (part_of_another_file, "none"),
    "manifest of another file": (manifest_of_another_file, "unfinished download of"),
    "manifest of an older format": (format_of_before, "cannot be used"),
    "copied directory": (copied, "all"),
    "copied and changed": (copied_and_changed, "some"),
}


@pytest.mark.row("part or manifest is removed, replaced or copied")
@pytest.mark.parametrize("how", ODD_PAIRS)
def test_69_part_and_manifest_do_not_belong_together(world: World, how: str) -> None:
    """Bytes are used after their checksums were compared; others' are left alone."""
    url = world.url(SIZE)
    recorded = leave_some(world, url)
    change, outcome = ODD_PAIRS[how]
    change(world)
    if how == "part of another file":
        world.damaged = True
    before = seen(world)
    pieces = recorded_pieces(world) if outcome in ("all", "some") else []
    task, skip = go_on(world, url)
    if outcome not in ("all", "some", "none"):
        world.failed(task, DestinationExists, outcome)
        after = seen(world)
        if how == "manifest of another file":
            # That somebody looked stands in it, as a run without pieces.
            assert world.recorded() == recorded
            after, before = after[:1], before[:1]
        assert after == before
        return
    world.whole(task)
    # Of what was recorded only the piece that had become another was sent again.
    requests = world.origin.log.settle()[skip:]
    sent = [refetched(requests, *piece) for piece in pieces]
    if outcome == "all":
        assert task.resumed_size == recorded
        assert sent == [0] * len(pieces)
    elif outcome == "some":
        begin, end = pieces[0]
        assert task.resumed_size == recorded - (end - begin)
        assert sent == [end - begin] + [0] * (len(pieces) - 1)
    else:
        assert task.resumed_size == 0


# --- row 70 ---------------------------------------------------------------------------


def piece_row(offset: Any, length: Any, xxh3: str = "0123456789abcdef") -> Any:
    """Give a piece's record."""
    return {"t": "P", "o": offset, "n": length, "x": xxh3}


# Records behind a good header, of a system that was restarted since.
BAD_RECORDS: dict[str, list[Any]] = {
    "outside": [piece_row(SIZE, MIB), piece_row(SIZE - 1, 2), piece_row(-MIB, MIB)],
    "beyond 2^63": [piece_row(2**63 - 1, MIB), piece_row(0, 2**64)],
    "overlaps": [piece_row(0, MIB), piece_row(MIB - 1, MIB), piece_row(0, SIZE)],
    "not numbers": [piece_row("0", 1), piece_row(0.0, 1), piece_row([], {})],
    "wrong checksums": [piece_row(at * MIB, MIB) for at in range(6)],
    "huge counts": [piece_row(at, 1) for at in range(0, 8_000, 2)],
    "a false checkpoint": [piece_row(0, MIB), {"t": "C", "n": 1}],
    "a checkpoint of nothing": [{"t": "C", "n": 10**9}],
    "restarts": [{"t": "X"}, {"t": "X"}],
    "nesting": [[[[[[]]]]], {"t": {"t": {"t": "P"}}}],
}
BAD_HEADERS: dict[str, tuple[dict[str, Any], str]] = {
    "a path as its name": ({"name": "../../victim"}, "cannot be used"),
    "an absolute name": ({"name": "/etc/passwd"}, "cannot be used"),
    "another name": ({"name": "other.bin"}, ""),
    "another size": ({"size": SIZE + MIB}, ""),
    "a huge size": ({"size": 2**63 - 1}, ""),
    "a negative size": ({"size": -1}, "cannot be used"),
    "pieces of one byte": ({"piece": 1}, ""),
    "pieces of nothing": ({"piece": 0}, "cannot be used"),
    "another validator": (
        {
            "validator": {
                "etag": '"x"\r\nX: y',
                "last_modified": None,
                "last_modified_strong": False,
            }
        },
        "cannot be used",
    ),
}


@pytest.mark.row("records with right checksums and wrong values, drawn ones too")
@pytest.mark.parametrize("how", [*BAD_RECORDS, *BAD_HEADERS, "drawn"])
def test_70_hostile_manifest(world: World, how: str, draw: random.Random) -> None:
    """At worst the file is fetched again; nothing outside of it is read or written."""
    url = world.url(SIZE)
    leave_some(world, url, least=MIB)
    path = world.out / MANIFEST
    header, *_ = records_of(path.read_bytes())
    run = {"t": "R", "boot": "another", "pid": 1, "time": 1.5}
    # The part is what its maker says it is: nothing but holes and zeros.
    world.damaged = True
    os.truncate(world.out / PART, 0)
    os.truncate(world.out / PART, SIZE)
    victim = world.out.parent / "victim"
    victim.write_bytes(OLD)
    around = names(world.out.parent)
    words = ""
    if how in BAD_HEADERS:
        changes, words = BAD_HEADERS[how]
        path.write_bytes(framed(header | changes, run, piece_row(0, MIB)))
    elif how == "drawn":
        path.write_bytes(framed(header, run, *drawn_records(draw)))
    else:
        path.write_bytes(framed(header, run, *BAD_RECORDS[how]))
    task, _ = go_on(world, url)
    if words:
        world.failed(task, DestinationExists, words)
    else:
        world.whole(task)
        assert task.resumed_size == 0
    assert victim.read_bytes() == OLD
    assert names(world.out.parent) == around


def drawn_records(draw: random.Random) -> list[Any]:
    """Draw records that are nearly right."""
    numbers = [0, 1, -1, MIB, SIZE - MIB, SIZE - 1, SIZE, 2**63, 0.5, None, "1", True]
    values = [lambda: draw.choice(numbers), lambda: draw.randrange(SIZE)]
    return [
        draw.choice(
            [
                piece_row(draw.choice(values)(), draw.choice(values)()),
                {"t": "C", "n": draw.choice(numbers)},
                {"t": "R", "boot": "", "pid": draw.choice(numbers), "time": 0},
                draw.choice(numbers),
            ]
        )
        for _ in range(200)
    ]


# --- row 72 ---------------------------------------------------------------------------


class Victim:
    """A file of somebody, outside of the directory, that must stay as it is."""

    def __init__(self, world: World) -> None:
        world.out.mkdir(parents=True, exist_ok=True)
        self.path = world.out.parent / "victim"
        self.path.write_bytes(OLD)
        self.path.chmod(0o640)
        self._before = self._seen()

    def _seen(self) -> tuple[int, int, int]:
        status = self.path.stat()
        return status.st_ino, status.st_mode, status.st_mtime_ns

    def check(self) -> None:
        """Check that neither content, mode nor times have changed."""
        assert self.path.read_bytes() == OLD
        assert self._seen() == self._before


TEMPORARY = _fs.temporary_name(MANIFEST)


@pytest.mark.row("a link is planted where a file of the download would be")
@pytest.mark.parametrize("kind", ["symlink", "dangling", "hard"])
@pytest.mark.parametrize(
    ("name", "policy"),
    [
        (NAME, "reuse"),
        *((each, "overwrite") for each in (NAME, PART, MANIFEST, TEMPORARY)),
    ],
)
def test_72_link_in_place_of_a_file(
    world: World, name: str, kind: str, policy: str
) -> None:
    """What the link leads to is neither read, written nor made."""
    victim = Victim(world)
    planted = world.out / name
    elsewhere = world.out.parent / "made by segdl"
    if kind == "hard":
        os.link(victim.path, planted)
    else:
        planted.symlink_to(victim.path if kind == "symlink" else elsewhere)
    if name == NAME and kind != "dangling":
        world._before[planted] = OLD  # seen through the link
    task = world.fetch(world.url(SIZE), on_exists=policy)
    victim.check()
    assert not elsewhere.exists()
    if name == TEMPORARY or (name, kind, policy) == (NAME, "hard", "overwrite"):
        # A name of its own kind, or one that may be replaced: the name alone changed.
        assert task.status == "completed"
        assert victim.path.stat().st_nlink == 1
    else:
        assert isinstance(task.exception(0), StorageError)
        assert planted.is_symlink() or planted.samefile(victim.path)
    if name == MANIFEST and planted.is_symlink():
        planted.unlink()  # the world's own check would not follow it either


@pytest.mark.row("a hard link as NAME.part, with the mode of the file to replace")
def test_72_hard_link_that_looks_like_a_publish_cut_short(world: World) -> None:
    """A mode is taken back from a file without another name only."""
    victim = Victim(world)
    (world.out / NAME).write_bytes(OLD)
    (world.out / NAME).chmod(0o640)
    os.link(victim.path, world.out / PART)
    world._before[world.out / NAME] = OLD
    task = world.fetch(world.url(SIZE), on_exists="overwrite")
    victim.check()
    assert isinstance(task.exception(0), StorageError)
    assert (world.out / NAME).read_bytes() == OLD


@pytest.mark.row("the directory becomes a link to another one in mid-transfer")
@pytest.mark.parametrize("processes", [0, 1])
def test_72_directory_swapped_for_a_link(world: World, processes: int) -> None:
    """Nothing is written through the link: the download ends where it began."""
    world.origin.total_rate = 16 * MIB
    engine = world.engine(connections=2, processes=processes)
    task = world.start(world.url(SIZE), engine=engine)
    until(lambda: world.recorded() >= MIB or task.status != "downloading")
    moved, trap = world.out.parent / "moved", world.out.parent / "trap"
    trap.mkdir()
    world.out.rename(moved)
    world.out.symlink_to(trap)
    assert task.wait(20)
    engine.shutdown(wait=False)
    assert names(trap) == []
    world.out.unlink()
    moved.rename(world.out)
    if task.status == "completed":
        assert names(world.out) == [NAME]
    else:
        assert isinstance(task.exception(0), StorageError)
        assert names(world.out) == [PART, MANIFEST]


@pytest.mark.row("links come and go in a loop while small files are downloaded")
def test_72_links_that_race(world: World) -> None:
    """However it is timed, what the link leads to stays as it is."""
    victim = Victim(world)
    over = threading.Event()

    def plant() -> None:
        turn = 0
        while not over.is_set():
            turn += 1
            planted = world.out / (NAME, PART, MANIFEST, TEMPORARY)[turn % 4]
            with contextlib.suppress(OSError):
                if turn % 3:
                    planted.symlink_to(victim.path)
                else:
                    os.link(victim.path, planted)
            over.wait(0.002)
            with contextlib.suppress(OSError):
                if planted.is_symlink() or planted.samefile(victim.path):
                    planted.unlink()

    planter = threading.Thread(target=plant)
    planter.start()
    try:
        engine = world.engine(on_exists="overwrite", retry_times=0)
        url = world.url(70_000)
        for _ in range(25):
            task = world.start(url, engine=engine)
            assert task.wait(20)
            assert task.status == "completed" or isinstance(
                task.exception(0), StorageError
            )
    finally:
        over.set()
        planter.join()
    engine.shutdown(wait=False)
    for path in world.out.iterdir():
        if path.is_symlink() or path.samefile(victim.path):
            path.unlink()
    victim.check()


@pytest.mark.row("the part is replaced by a file of the user's, and the task cancelled")
def test_72_file_in_place_of_the_part(world: World) -> None:
    """Only what segdl made is removed."""
    world.origin.total_rate = 8 * MIB
    engine = world.engine(connections=2)
    task = world.start(world.url(SIZE), engine=engine)
    until(lambda: world.recorded() >= MIB or task.status != "downloading")
    world.damaged = True
    (world.out / PART).unlink()
    (world.out / PART).write_bytes(OLD)
    assert task.cancel()
    assert task.wait(20)
    engine.shutdown(wait=False)
    assert (world.out / PART).read_bytes() == OLD
    assert names(world.out) == [PART]


# --- row 73 ---------------------------------------------------------------------------

# What a server says, and the name that is left of it: None for the URL's.
ATTACKS: list[tuple[str, str | None]] = [
    ("../../evil.bin", "evil.bin"),
    ("/etc/cron.d/evil.bin", "evil.bin"),
    ("..\\..\\evil.bin", "evil.bin"),
    ("C:\\evil.bin", "evil.bin"),
    ("C:evil.bin", "C_evil.bin"),
    ("evil.bin:stream", "evil.bin_stream"),
    ("..", None),
    (".", None),
    ("", None),
    ("...", None),
    ("evil/", None),
    (".bashrc", "bashrc"),
    ("-rf", "rf"),
    ("~root", "root"),
    ("CON", "_CON"),
    ("nul.txt", "_nul.txt"),
    ("COM1.bin", "_COM1.bin"),
    ("CONIN$", "_CONIN$"),
    ("evil.bin. . ", "evil.bin"),
    ("a\tb\x7fc.bin", "abc.bin"),
    ("a<b>|?*.bin", "a_b____.bin"),
    ("%2e%2e%2fevil.bin", "%2e%2e%2fevil.bin"),
    ("x" * 400 + ".bin", "x" * 251 + ".bin"),
    ("a.bin.part", "a.bin.part"),
    ("a.bin.segdl", "a.bin.segdl"),
]
WIDE_ATTACKS: list[tuple[str, str | None]] = [
    ("exe.\u202egpj.bin", "exe.gpj.bin"),
    ("\u2066\u200f\u2028evil.bin", "evil.bin"),
    ("日" * 200 + ".bin", "日" * 83 + ".bin"),
    ("e\u0301.bin", "\xe9.bin"),
    ("..\u2215evil", "\u2215evil"),
]


def _token(name: str) -> str:
    return f"attachment; filename={name}"


def _quoted(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'attachment; filename="{escaped}"'


def _extended(name: str) -> str:
    return f"attachment; filename*=UTF-8''{quote(name, safe='')}"


def _both(name: str) -> str:
    return f"attachment; filename=\"plain.bin\"; filename*=UTF-8''{quote(name)}"


def _encoded_word(name: str) -> str:
    return f'inline; filename="=?UTF-8?B?{base64.b64encode(name.encode()).decode()}?="'


FORMS = {
    "quoted": (_quoted, ATTACKS),
    "token": (_token, [row for row in ATTACKS if not set(row[0]) & set(" \t<>")]),
    "filename*": (_extended, ATTACKS + WIDE_ATTACKS),
    "RFC 2047": (_encoded_word, [row for row in ATTACKS + WIDE_ATTACKS if row[0]]),
    "raw UTF-8": (_quoted, WIDE_ATTACKS),
}


@pytest.mark.row("Content-Disposition in each of its forms, and names in the URL")
@pytest.mark.parametrize("form", [*FORMS, "both", "two fields", "URL", "redirect"])
def test_73_name_that_attacks(world: World, form: str) -> None:
    """The file has a name of one safe component, in its directory."""
    plain, size = "plain-name.bin", 700
    url = world.origin.blob_url
    world.allow(world.origin.blob(1, size))
    wanted: list[tuple[str, str]] = []
    if form in FORMS:
        write, attacks = FORMS[form]
        for attack, expected in attacks:
            field = write(attack).encode().decode("latin-1")
            said = quote(field, safe="", encoding="latin-1")
            address = f"{url(1, size, plain)}?disposition={said}"
            wanted.append((address, expected or plain))
    elif form == "both":
        field = quote(_both("../evil.bin"), safe="")
        wanted.append((f"{url(1, size, plain)}?disposition={field}", "evil.bin"))
    elif form == "two fields":
        other = quote("Content-Disposition: attachment; filename=../b", safe="")
        field = quote(_token("../a"), safe="")
        address = f"{url(1, size, plain)}?disposition={field}&headers={other}"
        wanted.append((address, "a"))
    elif form == "URL":
        for attack, expected in ATTACKS + WIDE_ATTACKS:
            last = quote(attack, safe="")
            if attack not in ("", ".", "..", "evil/"):
                wanted.append((f"{url(1, size)}/{last}", expected or "download"))
    else:
        target = f"/b/1/{size}/.evil"
        wanted.append((url(1, size, plain, f=f"redirect={target}"), plain))
    world.most_requests = 4 * len(wanted)
    engine = world.engine(max_workers=8)
    above = names(world.out.parent)
    tasks = [
        engine.download(world.with_secrets(address), world.out / str(number))
        for number, (address, _) in enumerate(wanted)
    ]
    world.tasks += tasks
    assert engine.wait(tasks, 30)
    engine.shutdown(wait=False)
    for number, (task, (address, expected)) in enumerate(
        zip(tasks, wanted, strict=True)
    ):
        assert (task.status, task.error) == ("completed", None), address
        assert names(world.out / str(number)) == [expected], address
        assert task.file_path == str(world.out / str(number) / expected)
    assert sorted(names(world.out), key=int) == [str(n) for n in range(len(wanted))]
    assert names(world.out.parent) == sorted([*above, world.out.name])


# --- row 74 ---------------------------------------------------------------------------


class Tunnel:
    """A proxy that makes tunnels, wants a password, and notes what it is asked."""

    def __init__(self, password: str) -> None:
        self.heads: list[str] = []
        self._wanted = base64.b64encode(f"me:{password}".encode()).decode()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._socket.accept()[0]
                self._threads.append(
                    threading.Thread(target=self._serve, args=[client])
                )
                self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.recv(1)
            self.heads.append(head.decode("latin-1"))
            if f"Basic {self._wanted}" not in self.heads[-1]:
                client.sendall(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")
                return
            host, _, port = head.split()[1].decode().partition(":")
            with socket.create_connection((host, int(port)), timeout=10) as origin:
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                self._relay(client, origin)

    def _relay(self, client: socket.socket, origin: socket.socket) -> None:
        other = {client: origin, origin: client}
        while True:
            for ready in select.select([client, origin], [], [], 10)[0]:
                data = ready.recv(1 << 16)
                if not data:
                    return
                other[ready].sendall(data)

    def close(self) -> None:
        """Stop, once the tunnels are closed."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join(10)


class Shell:
    """
    Runs the command with secrets around it, and checks all that it shows.

    Args:
        world: Its secrets are looked for; `more` has others.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.more = [f"canary-x-{number}-{os.urandom(4).hex()}" for number in range(3)]
        self.given = world.out.parent / "given"
        self.given.mkdir()
        world.out.mkdir()

    def clean(self, text: str, what: str) -> str:
        """Check that a text holds no secret, and give it."""
        assert not [each for each in self.more if each in text], what
        return self.world.clean_text(text, what)

    def run(
        self,
        *words: str | Path,
        during: Callable[[subprocess.Popen[str]], object] = lambda _: None,
        **environment: str,
    ) -> tuple[int, str, str]:
        """Run `segdl` in the directory, with its workers watched; how it ended."""
        process = subprocess.Popen(
            [sys.executable, "-m", "segdl", *map(str, words)],
            cwd=self.world.out,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        watching = threading.Thread(target=self._watch, args=[process])
        watching.start()
        try:
            during(process)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
            watching.join()
        self.check(out, err)
        return process.returncode, out, err

    def check(self, out: str, err: str) -> None:
        """Check what was shown, and the files that are there."""
        self.clean(out, "stdout")
        self.clean(err, "stderr")
        for seen in self.children:
            self.clean(seen, "a child's command line or environment")
        for path in self.world.out.rglob("*"):
            self.clean(str(path), "a name")
            if path.is_file() and path.stat().st_size < 4 * MIB:
                self.clean(path.read_bytes().decode("latin-1"), str(path))

    def _watch(self, process: subprocess.Popen[str]) -> None:
        self.children: set[str] = set()
        pause = threading.Event()
        while process.poll() is None:
            with contextlib.suppress(psutil.Error):
                parent = psutil.Process(process.pid)
                for child in parent.children(recursive=True):
                    words = child.cmdline()
                    # Until it has become another program, it has its parent's.
                    if words != parent.cmdline():
                        self.children.add(repr(words) + repr(child.environ()))
            pause.wait(0.03)


ONCE = ("--retry-times", "0")


@pytest.fixture
def shell(world: World) -> Shell:
    """Give what runs the command in the world."""
    return Shell(world)


def secret_url(shell: Shell, path: str) -> str:
    """Give a URL of the first origin, with secrets."""
    return shell.world.with_secrets(f"{shell.world.origin.url}{path}")


def secret_header(shell: Shell) -> str:
    """Give a header field with a secret."""
    return f"Authorization: Bearer {shell.world.secrets.header}"


def completes(shell: Shell) -> int:
    url = shell.world.url(SIZE)
    digest = f"sha256:{shell.world.origin.blob(1, SIZE).digest()}"
    words = ("get", url, "-o", NAME, "-H", secret_header(shell), "--json")
    code, out, _ = shell.run(*words, "--checksum", digest, "--processes", "2")
    assert '"completed"' in out
    seen = repr(shell.world.origin.log.entries)
    assert shell.world.secrets.header in seen
    assert shell.world.secrets.query in seen
    assert shell.children, "no worker was seen"
    return code


def is_redirected(shell: Shell) -> int:
    """A header from a file, a redirect with a signature of its own, and a mirror."""
    world = shell.world
    file = shell.given / "headers"
    file.write_text(secret_header(shell) + "\r\nCookie: " + shell.more[0] + "\n")
    blob = world.allow(world.origin.blob(1, SIZE))
    signed = f"{world.other.blob_url(1, SIZE)}?X-Amz-Signature={shell.more[1]}"
    to = quote(signed, safe="")
    url = world.with_secrets(f"{world.origin.url}/redirect?to={to}")
    missing = world.with_secrets(f"{world.origin.url}/status/404")
    mirror = f"{world.other.blob_url(1, SIZE)}?token={shell.more[2]}"
    code, *_ = shell.run("get", url, "-o", NAME, "-H", f"@{file}")
    words = ("get", missing, "-o", "b", "-H", f"@{file}", "--mirror", mirror, "--json")
    code += shell.run(*words)[0]
    for name in (NAME, "b"):
        assert file_digest(world.out / name) == blob.digest()
    elsewhere = repr(world.other.log.entries)
    assert shell.more[1] in elsewhere
    assert shell.more[2] in elsewhere
    assert shell.more[0] not in elsewhere
    return code


def reads_a_list(shell: Shell) -> int:
    file = shell.given / "list"
    file.write_text(
        f"{shell.world.url(1000)}\n  out={NAME}\n  header={secret_header(shell)}\n"
        f"{secret_url(shell, '/status/404')}\n  header=Cookie: {shell.more[0]}\n"
    )
    code, _, err = shell.run("get", "-i", file, *ONCE)
    assert "404" in err
    return code


def fails_in_two_ways(shell: Shell) -> int:
    urls = [secret_url(shell, f"/status/{status}") for status in (401, 404)]
    return shell.run("get", *urls, "-H", secret_header(shell), *ONCE, "--json")[0]


def finds_nobody(shell: Shell) -> int:
    """Neither an origin, nor a proxy, that the command line or the environment name."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{taken.getsockname()[1]}"
        proxy = f"http://me:{shell.more[0]}@{dead}"
        url = f"http://u:{shell.more[1]}@{dead}/a?sig={shell.more[2]}"
        codes = [shell.run("get", url, *ONCE)[0]]
        url = shell.world.url(1000)
        words = ("get", url, "-H", secret_header(shell), *ONCE)
        codes.append(shell.run(*words, "--proxy", proxy, "--json", no_proxy="")[0])
        codes.append(shell.run(*words, http_proxy=proxy, no_proxy="")[0])
    assert len(set(codes)) == 1
    return codes[0]


def gets_other_content(shell: Shell) -> int:
    words = ("get", shell.world.url(SIZE), "-o", NAME, "-H", secret_header(shell))
    code, _, err = shell.run(*words, "--checksum", SHA256)
    assert f"{NAME}.corrupt" in err
    (shell.world.out / f"{NAME}.corrupt").unlink()
    return code


def cannot_write(shell: Shell) -> int:
    (shell.world.out / "taken").write_bytes(OLD)
    return shell.run("get", shell.world.url(1000), "-d", "taken", *ONCE, "--json")[0]


def is_refused(shell: Shell) -> int:
    url = secret_url(shell, "/status/403")
    return shell.run("get", url, "-H", secret_header(shell), *ONCE)[0]


def is_interrupted(shell: Shell) -> int:
    """What is left, and what the other commands say of it, is clean too."""
    world = shell.world
    world.origin.total_rate = 8 * MIB
    url = world.url(SIZE)

    def interrupt(process: subprocess.Popen[str]) -> None:
        until(lambda: world.recorded() or process.poll() is not None)
        process.send_signal(signal.SIGINT)

    words = ("get", url, "-o", NAME, "-H", secret_header(shell))
    code, _, err = shell.run(*words, "-x", "2", during=interrupt)
    assert "stopped by SIGINT" in err
    assert names(world.out) == [PART, MANIFEST]
    for command in (["inspect", NAME], ["resume", "."], ["clean", ".", "--json"]):
        assert shell.run(*command)[0] in (0, 1, 2)
    return code


def loses_workers(shell: Shell, most: int) -> int:
    """Workers are killed while they transfer."""
    world = shell.world
    world.origin.total_rate = 6 * MIB

    def kill(process: subprocess.Popen[str]) -> None:
        pause = threading.Event()
        killed: set[int] = set()
        while process.poll() is None and len(killed) < most:
            with contextlib.suppress(psutil.Error):
                for child in psutil.Process(process.pid).children():
                    if len(world.origin.log.entries) > len(killed) < most:
                        child.kill()
                        killed.add(child.pid)
            pause.wait(0.01)

    words = ("get", world.url(SIZE), "-o", NAME, "-H", secret_header(shell))
    return shell.run(*words, "--processes", "1", *ONCE, "-x", "2", during=kill)[0]


# What is done, and the exit code that it must give.
ENDS: dict[str, tuple[Callable[[Shell], int], int]] = {
    "completes": (completes, 0),
    "redirect and mirror": (is_redirected, 0),
    "list": (reads_a_list, 3),
    "two failures": (fails_in_two_ways, 1),
    "worker that dies": (lambda shell: loses_workers(shell, 1), 0),
    "workers that die": (lambda shell: loses_workers(shell, 1000), 1),
    "nobody there": (finds_nobody, 3),
    "other content": (gets_other_content, 4),
    "no directory": (cannot_write, 5),
    "refused": (is_refused, 6),
    "interrupted": (is_interrupted, 130),
}


@pytest.mark.row("canaries wherever the command takes a secret, looked for everywhere")
@pytest.mark.parametrize(
    "how",
    [
        pytest.param(how, marks=pytest.mark.full if how == "workers that die" else [])
        for how in ENDS
    ],
)
def test_74_secrets_of_the_command(shell: Shell, how: str) -> None:
    """However it ends, no secret is shown, stored, or in a child's environment."""
    run, code = ENDS[how]
    assert run(shell) == code


# Calls that can't work; {s} stands for a secret.
WRONG_CALLS: dict[str, list[str]] = {
    "no command": ["https://me:{s}@h.example/a?sig={s}"],
    "no command, no scheme": ["me:{s}@h.example/a?sig={s}"],
    "no command, an option": ["--token={s}"],
    "no scheme": ["get", "me:{s}@h.example/a?sig={s}"],
    "other scheme": ["get", "ftp://me:{s}@h.example/a?sig={s}"],
    "space": ["get", "https://me:{s}@h.example/a b?sig={s}"],
    "two @": ["get", "https://me:{s}@{s}@h.example/"],
    "bad port": ["get", "https://me:{s}/x@h.example/"],
    "twice": ["get", "https://me:{s}@h/a?sig={s}", "https://me:{s}@h/a?sig={s}"],
    "unknown option": ["get", "https://h/a", "--token={s}"],
    "misspelt option": ["get", "https://h/a", "--headers=Authorization: Bearer {s}"],
    "misspelt option, apart": ["get", "https://h/a", "--headers", "Cookie: a={s}"],
    "value of a flag": ["get", "https://h/a", "--json=https://me:{s}@h/?sig={s}"],
    "header without a name": ["get", "https://h/a", "-H", "Bearer {s}"],
    "header with a space": ["get", "https://h/a", "-H", "My Token {s}: x"],
    "header with a line end": ["get", "https://h/a", "-H", "Cookie: {s}\nX: {s}"],
    "header twice": ["get", "https://h/a", "-H", "Cookie: {s}", "-H", "cookie: {s}"],
    "header beyond latin-1": ["get", "https://h/a", "-H", "Cookie: {s}\u20ac"],
    "proxy": ["get", "https://h/a", "--proxy", "htp://me:{s}@proxy"],
    "proxy with a port": ["get", "https://h/a", "--proxy", "http://me:{s}@proxy:x"],
    "list without a URL": ["get", "-i", "list"],
    "mirror": ["get", "https://h/a", "--mirror", "ftp://me:{s}@h/?sig={s}"],
}


@pytest.mark.row("a call that can't work, with canaries in it")
@pytest.mark.parametrize("how", WRONG_CALLS)
def test_74_secrets_of_a_wrong_call(
    shell: Shell,
    how: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The message says what is wrong, and does not show what may be a secret."""
    monkeypatch.chdir(shell.world.out)
    secret, *_ = shell.more
    if how == "list without a URL":
        shell.given.joinpath("list").write_text(f"  header=Cookie: {secret}\n")
        monkeypatch.chdir(shell.given)
    shell.children = set()
    code = main([word.replace("{s}", secret) for word in WRONG_CALLS[how]])
    shown = capsys.readouterr()
    assert code == 2
    assert shown.err.startswith("segdl")
    shell.check(shown.out, shown.err)


@pytest.mark.row("wrong settings, with canaries in them")
@pytest.mark.parametrize("where", ["file", "TOML", "environment", "list"])
def test_74_secrets_of_wrong_settings(
    shell: Shell,
    where: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The place of the mistake is named, and the secret at it is not."""
    proxy = f"htp://me:{shell.more[0]}@proxy"
    file = shell.given / "segdl.toml"
    words = ["get", "https://h.example/a", "--config", str(file)]
    file.write_text("")
    if where == "file":
        file.write_text(f'[downloader]\nproxy = "{proxy}"\n')
    elif where == "TOML":
        file.write_text(f"[downloader]\nproxy = {proxy}\n")
    elif where == "environment":
        monkeypatch.setenv("SEGDL_PROXY", proxy)
    else:
        file.with_name("list").write_text(f"https://me:{shell.more[0]}@h/ b?{proxy}\n")
        words = ["get", "-i", str(file.with_name("list"))]
    shell.children = set()
    assert main(words) == 2
    shown = capsys.readouterr()
    shell.check(shown.out, shown.err)


@pytest.mark.row("a tunnel through a proxy that wants a password")
def test_74_secrets_beside_a_tunnel(tls_world: World) -> None:
    """The origin's secrets stay within the tunnel, the proxy's password outside."""
    shell = Shell(tls_world)
    url = tls_world.url(SIZE)
    words = ("get", url, "-o", NAME, "-H", secret_header(shell), "--json")
    ca_file = ("--cacert", tls_world.origin.ca_file or "")
    with contextlib.closing(Tunnel(shell.more[0])) as tunnel:
        wrong = f"http://me:{shell.more[1]}@{tunnel.address}"
        ran = shell.run(*words, *ca_file, *ONCE, "--proxy", wrong, no_proxy="")
        assert ran[0] == 6
        right = f"http://me:{shell.more[0]}@{tunnel.address}"
        ran = shell.run(*words, *ca_file, *ONCE, https_proxy=right, no_proxy="")
        assert ran[0] == 0
    assert tunnel.heads
    for head in tunnel.heads:
        tls_world.clean_text(head, "what the proxy was asked")
    assert tls_world.secrets.header in repr(tls_world.origin.log.entries)
    for entry in tls_world.origin.log.entries:
        assert not [each for each in shell.more if each in repr(entry)]


# --- row 75 ---------------------------------------------------------------------------


@pytest.mark.row("URLs and redirects to loopback, with allow_addresses='public'")
@pytest.mark.parametrize(
    ("host", "processes"),
    [
        *(("127.0.0.1", 1), ("localhost", 0), ("0x7f.1", 0), ("2130706433", 0)),
        *(("017700000001", 0), ("[::1]", 0), ("[::ffff:127.0.0.1]", 0), ("0", 0)),
    ],
)
def test_75_private_address(world: World, host: str, processes: int) -> None:
    """It is refused before a connection is made, and not asked again."""
    port = world.origin.port
    url = world.with_secrets(f"http://{host}:{port}/b/1/1000")
    task = world.fetch(url, allow_addresses="public", processes=processes)
    world.failed(task, AddressRefused, "is no public address", "allow_addresses")
    assert world.told("retry") == []
    assert world.origin.log.settle() == ()
    assert names(world.out) == []


@pytest.mark.row("the same, of a proxy")
@pytest.mark.parametrize("scheme", ["http", "socks5h"])
def test_75_proxy_on_a_private_address(world: World, scheme: str) -> None:
    """Of a proxy its own address counts, so that a private one is refused."""
    proxy = f"{scheme}://me:{world.secrets.header}@127.0.0.1:{world.other.port}"
    url = "http://origin.example/a"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "")
        task = world.fetch(url, allow_addresses="public", proxy=proxy)
    world.failed(task, AddressRefused, "a proxy's address counts too")
    assert world.other.log.settle() == ()


@pytest.mark.row("the command with --allow-addresses public")
def test_75_private_address_for_the_command(shell: Shell) -> None:
    """The command refuses it alike: a failure of the network."""
    words = ("get", shell.world.url(1000), "--allow-addresses", "public")
    code, out, err = shell.run(*words)
    assert (code, out) == (3, "")
    assert "127.0.0.1 is no public address" in err
    assert shell.world.origin.log.settle() == ()


@pytest.mark.row("a redirect from what counts as public to loopback")
@pytest.mark.parametrize("mirror", [False, True])
def test_75_redirect_to_a_private_address(
    world: World, monkeypatch: pytest.MonkeyPatch, mirror: bool
) -> None:
    """A redirect inwards is refused like a URL, and a mirror takes over."""
    public = Origin(host="127.0.0.2")
    monkeypatch.setattr(_sockets, "is_public", lambda address: address == "127.0.0.2")
    monkeypatch.setenv("no_proxy", "127.0.0.1,127.0.0.2")
    with public:
        inside = quote(world.other.blob_url(1, 1000), safe="")
        url = f"{public.url}/redirect?to={inside}"
        blob = world.allow(public.blob(1, 1000))
        mirrors = [public.blob_url(1, 1000)] if mirror else []
        task = world.fetch(url, allow_addresses="public", mirrors=mirrors)
        assert world.other.log.settle() == ()
        assert public.log.settle()[0].path == "/redirect"
    if mirror:
        world.whole(task, blob)
    else:
        world.failed(task, AddressRefused, "127.0.0.1 is no public address")


# Runs where 8.8.8.8 is this machine, and names are what /etc/hosts says.
IN_A_NAMESPACE = """
import json, subprocess, sys
from pathlib import Path
from segdl import DownloadEngine
from segdl.testing import Origin

work = Path(sys.argv[1])
(work / "hosts").write_text("8.8.8.8 rebind.test public.test\\n")
for command in (
    "ip link set lo up",
    "ip address add 8.8.8.8/32 dev lo",
    f"mount --bind {work}/hosts /etc/hosts",
):
    subprocess.run(command.split(), check=True)

SIZE = 64 << 20
public = Origin(host="8.8.8.8", rate=4 << 20)
with public, Origin(host="127.0.0.1", port=public.port) as private:
    def get(name, url, mirrors=(), **options):
        settings = {"retry_times": 1, "retry_delay": 0.02, **options}
        with DownloadEngine(allow_addresses="public", **settings) as engine:
            task = engine.download(url, work / "out", name, mirrors=mirrors)
            if name == "rebind":
                while not public.log.entries:
                    task.wait(0.01)
                (work / "hosts").write_text("127.0.0.1 rebind.test\\n")
            task.wait(30)
            error = task.exception(0)
            engine.shutdown(wait=False)
        seen = (len(public.log.settle()), len(private.log.settle()))
        public.log.clear()
        private.log.clear()
        return [task.status, type(error).__name__, str(error), *seen]

    at = f":{public.port}"
    inside = f"http://127.0.0.1{at}/b/1/1000"
    there = f"http://public.test{at}/b/1/1000"
    print(json.dumps({
        "public": get("a", there, processes=0),
        "literal": get("b", public.blob_url(1, 1000), processes=0),
        "redirect": get("c", f"http://public.test{at}/redirect?to={inside}"),
        "mirror": get("d", inside, [there], processes=0),
        "rebind": get("rebind", f"http://rebind.test{at}/b/1/{SIZE}", processes=2,
                      connections=8),
    }))
"""


@pytest.mark.row("a network namespace with a public address, whose name changes")
@pytest.mark.root
@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("ip"),
    reason="needs root, unshare and ip to make a network namespace",
)
def test_75_name_that_leads_elsewhere(tmp_path: Path) -> None:
    """Public addresses are allowed; redirects and names that turn inwards are not."""
    ended = subprocess.run(
        ["unshare", "-n", "-m", sys.executable, "-c", IN_A_NAMESPACE, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    outcomes = json.loads(ended.stdout)
    for name in ("public", "literal", "mirror"):
        assert outcomes[name][:2] == ["completed", "NoneType"], name
    for name in ("redirect", "rebind"):
        assert outcomes[name][:2] == ["failed", "AddressRefused"], name
        assert "127.0.0.1 is no public address" in outcomes[name][2]
        assert outcomes[name][3] > 0
    assert [outcome[4] for outcome in outcomes.values()] == [0] * 5
    assert names(tmp_path / "out")[:3] == ["a", "b", "d"]
