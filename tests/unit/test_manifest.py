"""The manifest: what is recorded is read back, and nothing else ever is."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segdl import _fs, _manifest
from segdl._headers import EntityTag, Validator
from segdl._manifest import Header, Manifest, Piece, _load, _store
from segdl.errors import (
    DestinationBusy,
    DestinationExists,
    DiskFull,
    ManifestError,
    StorageError,
)

NAME = "a.bin.segdl"
SIZE = 1000
SUM = "0123456789abcdef"
NO_HOLE: Callable[[int, int], bool] = lambda _offset, _length: False  # noqa: E731  # a value with a type

# Each example costs about 0.2 ms; the default deadline trips over a busy machine.
quick = settings(
    max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def header(**changes: Any) -> Header:
    """Give a header of a file of 1000 bytes in pieces of 100."""
    plain = Header(
        name="a.bin",
        size=SIZE,
        piece=100,
        validator=Validator(etag=EntityTag("v1", weak=False)),
        url_sha256="ab" * 32,
        url="https://example.org/a.bin",
        digest="sha256:" + "cd" * 32,
        dev=1,
        ino=2,
        created=1700000000.5,
        nonce="00ff",
    )
    return replace(plain, **changes)


def piece(number: int, length: int = 100) -> Piece:
    """Give the piece of that number."""
    return Piece(number * 100, length, f"{number:016x}")


def line(record: object) -> bytes:
    """Frame a record as the manifest does."""
    text = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %s\n" % (crc32(text), text)


HEADER_LINE = _manifest._records.header_line(header())
RUN = {"t": "R", "boot": "b1", "pid": 7, "time": 1.5}


def row(offset: object, length: object, xxh3: object = SUM) -> dict[str, object]:
    """Give a piece record."""
    return {"t": "P", "o": offset, "n": length, "x": xxh3}


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[_fs.Directory]:
    """Give an open directory."""
    with _fs.Directory.open(tmp_path) as opened:
        yield opened


@pytest.fixture
def manifest(directory: _fs.Directory) -> Iterator[Manifest]:
    """Give a new manifest."""
    created = Manifest.create(directory, NAME, header(), durability="none")
    yield created
    created.close()


def reopened(old: Manifest, directory: _fs.Directory) -> Manifest:
    """Close a manifest and open it again."""
    old.close()
    return Manifest.open(directory, NAME, durability="none")


def content(directory: _fs.Directory) -> bytes:
    """Give the bytes of the manifest."""
    return Path(directory.path_of(NAME)).read_bytes()


def write(directory: _fs.Directory, data: bytes) -> None:
    """Put bytes in the place of the manifest."""
    _fs.replace_atomically(directory, NAME, data, sync=False)


# --- writing and reading back ------------------------------------------------------


@pytest.mark.parametrize("durability", ["none", "publish", "checkpoint"])
def test_created_manifest_is_read_back(
    directory: _fs.Directory, durability: str
) -> None:
    """A new manifest holds its header and run, no pieces, and is private."""
    Manifest.create(directory, NAME, header(), durability=durability).close()
    loaded = _manifest.load(directory, NAME)
    assert loaded.header == header()
    assert list(loaded.pieces) == []
    assert [(run.boot, run.pid, run.first) for run in loaded.runs] == [
        (_fs.boot_id(), os.getpid(), 0)
    ]
    assert not loaded.damaged
    assert os.stat(directory.path_of(NAME)).st_mode & 0o777 == 0o600
    assert directory.names() == [NAME]


@pytest.mark.parametrize(
    "changes",
    [
        {"size": None, "digest": None, "validator": Validator()},
        {"size": 0},
        {"size": 2**63 - 1, "piece": 2**40, "ino": 2**128 - 1},
        {"name": "größe \u65e5\u672c.bin", "url": ""},
        {"validator": Validator(etag=EntityTag("é\\", weak=True))},
    ],
)
def test_every_header_is_read_back(
    directory: _fs.Directory, changes: dict[str, Any]
) -> None:
    """What can be stored comes back equal."""
    made = Manifest.create(directory, NAME, header(**changes), durability="none")
    assert made.header == header(**changes)
    made.close()
    assert _manifest.load(directory, NAME).header == header(**changes)


def test_new_headers_differ_by_nonce() -> None:
    """Two manifests of one download can be told apart."""
    values = {
        name: getattr(header(), name)
        for name in Header.__dataclass_fields__
        if name not in ("created", "nonce")
    }
    assert Header(**values).nonce != Header(**values).nonce


def test_url_too_long_for_a_line_is_left_out(directory: _fs.Directory) -> None:
    """A very long URL costs its display, not the download."""
    long = header(url="https://example.org/" + "a" * 5000)
    made = Manifest.create(directory, NAME, long, durability="none")
    assert made.header == replace(long, url="")
    made.close()
    assert _manifest.load(directory, NAME).header == replace(long, url="")


@pytest.mark.parametrize(
    "changes",
    [
        {"validator": Validator(etag=EntityTag("x" * 5000, weak=False))},
        {"url": "https://example.org/\x1b[2J"},
        {"size": -1},
        {"name": "../a"},
    ],
)
def test_header_that_could_not_be_read_is_not_written(
    directory: _fs.Directory, changes: dict[str, Any]
) -> None:
    """A header that `load` would refuse is refused by `create`."""
    with pytest.raises(ManifestError):
        Manifest.create(directory, NAME, header(**changes), durability="none")
    assert directory.names() == []


def test_create_does_not_replace(directory: _fs.Directory) -> None:
    """A file that has the manifest's name is somebody's, and stays."""
    write(directory, b"mine")
    with pytest.raises(DestinationExists):
        Manifest.create(directory, NAME, header(), durability="none")
    assert content(directory) == b"mine"


def test_pieces_are_read_back_in_order(
    directory: _fs.Directory, manifest: Manifest
) -> None:
    """Pieces come back in the order of their records, numbered, partial ones too."""
    manifest.append_pieces([piece(3), piece(0)])
    manifest.append_pieces([piece(2, 50), Piece(250, 50, SUM)])
    again = reopened(manifest, directory)
    expected = [piece(3), piece(0), piece(2, 50), Piece(250, 50, SUM)]
    assert list(again.pieces()) == expected
    assert [p.record for p in again.pieces()] == [0, 1, 2, 3]
    assert again.recorded_bytes() == 300
    assert again.piece_count == 4
    again.close()


@pytest.mark.parametrize(
    "bad",
    [
        Piece(950, 51, SUM),
        Piece(1000, 1, SUM),
        Piece(-1, 2, SUM),
        Piece(900, 0, SUM),
        Piece(150, 10, SUM),
        Piece(50, 100, SUM),
        Piece(0, 1000, SUM),
        Piece(100, 100, SUM),
        Piece(500, 10, SUM),
    ],
)
def test_piece_that_would_end_the_log_is_not_recorded(
    directory: _fs.Directory, manifest: Manifest, bad: Piece
) -> None:
    """A piece outside of the file, or a second time, is refused, its batch with it."""
    manifest.append_pieces([piece(1)])
    before = content(directory)
    with pytest.raises(ValueError, match=r"is outside|recorded already"):
        manifest.append_pieces([piece(5), bad])
    assert content(directory) == before
    assert list(manifest.pieces()) == [piece(1)]
    manifest.append_pieces([piece(5)])
    assert list(manifest.pieces()) == [piece(1), piece(5)]


def test_full_disk_records_nothing_of_the_batch(
    directory: _fs.Directory, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed append leaves log and memory as they were; later it works again."""
    manifest.append_pieces([piece(1)])
    with monkeypatch.context() as broken:

        def fail(*_: object) -> int:
            raise OSError(28, "No space left on device")

        broken.setattr(os, "write", fail)
        with pytest.raises(DiskFull):
            manifest.append_pieces([piece(2)])
    manifest.append_pieces([piece(2)])
    again = reopened(manifest, directory)
    assert list(again.pieces()) == [piece(1), piece(2)]
    again.close()


def test_forgotten_pieces_can_be_recorded_again(
    directory: _fs.Directory, manifest: Manifest
) -> None:
    """A piece that failed its verification is fetched and recorded once more."""
    manifest.append_pieces([piece(n) for n in range(4)])
    manifest.checkpoint(2)
    again = reopened(manifest, directory)
    assert again.loaded is not None
    again.append_pieces([piece(4)])
    again.forget([again.loaded.pieces[0], again.loaded.pieces[2]])
    assert again.loaded is None
    again.append_pieces([Piece(0, 100, SUM), Piece(200, 100, SUM)])
    again.close()
    loaded = _manifest.load(directory, NAME)
    assert list(loaded.pieces) == [
        *(piece(1), piece(3), piece(4)),
        *(Piece(0, 100, SUM), Piece(200, 100, SUM)),
    ]
    assert loaded.checkpointed == 1
    assert [run.first for run in loaded.runs] == [0, 2, 3]
    assert loaded.runs[-1].boot == ""
    assert not loaded.damaged


def test_forgetting_nothing_writes_nothing(
    directory: _fs.Directory, manifest: Manifest
) -> None:
    """After a resume without losses the log is not rewritten."""
    manifest.append_pieces([piece(1)])
    before = os.stat(directory.path_of(NAME)).st_ino
    manifest.forget([])
    assert os.stat(directory.path_of(NAME)).st_ino == before


def test_restart_forgets_the_pieces(
    directory: _fs.Directory, manifest: Manifest
) -> None:
    """After a restart only the new representation's pieces count."""
    manifest.append_pieces([piece(0), piece(9)])
    manifest.checkpoint(2)
    changed = header(size=300, validator=Validator(etag=EntityTag("v2", weak=False)))
    manifest.restart(changed)
    assert manifest.piece_count == 0
    manifest.append_pieces([piece(2)])
    manifest.close()
    loaded = _manifest.load(directory, NAME)
    assert loaded.header == changed
    assert list(loaded.pieces) == [piece(2)]
    assert loaded.checkpointed == 0
    assert [run.first for run in loaded.runs] == [0]


def test_restart_is_on_the_disk_before_new_bytes(
    directory: _fs.Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restart is flushed, so that a power cut does not bring old pieces back."""
    made = Manifest.create(directory, NAME, header(), durability="publish")
    flushed: list[bytes] = []
    monkeypatch.setattr(os, "fdatasync", lambda _: flushed.append(content(directory)))
    made.restart(header(nonce="01"))
    made.close()
    assert [data.count(b'{"t":"X"}') for data in flushed] == [1]


def test_torn_restart_did_not_happen(
    directory: _fs.Directory, manifest: Manifest
) -> None:
    """A restart whose header is torn leaves the old pieces: nothing was overwritten."""
    manifest.append_pieces([piece(0)])
    before = content(directory)
    manifest.restart(header(nonce="01"))
    whole = content(directory)
    border = whole.index(b"\n", whole.index(b'"X"') + 5) + 1
    for length in range(len(before), border):
        loaded = _manifest.parse(whole[:length])
        assert list(loaded.pieces) == [piece(0)]
        assert loaded.bytes_valid == len(before)
    assert list(_manifest.parse(whole[:border]).pieces) == []


def test_checkpoint_notices_a_second_writer(
    directory: _fs.Directory, manifest: Manifest
) -> None:
    """Where locks do not work, an engine that meets another's records stops."""
    manifest.append_pieces([piece(0)])
    manifest.checkpoint(1)
    other = Manifest.open(directory, NAME, durability="none")
    other.append_pieces([piece(1)])
    other.close()
    with pytest.raises(DestinationBusy, match="changed by another"):
        manifest.checkpoint(1)


def test_checkpoint_of_more_than_is_recorded_is_refused(manifest: Manifest) -> None:
    """A checkpoint cannot vouch for pieces that are not there."""
    manifest.append_pieces([piece(0)])
    for covered in (-1, 2):
        with pytest.raises(ValueError, match="cannot be covered"):
            manifest.checkpoint(covered)


def test_pieces_are_recorded_while_a_checkpoint_waits_for_the_disk(
    directory: _fs.Directory, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow flush on the helper thread does not hold up the scheduler."""
    flushing, recorded = threading.Event(), threading.Event()

    def slow(_fd: int) -> None:
        flushing.set()
        assert recorded.wait(30)

    manifest.append_pieces([piece(0)])
    monkeypatch.setattr(os, "fdatasync", slow)
    helper = threading.Thread(target=manifest.checkpoint, args=(1,))
    helper.start()
    assert flushing.wait(30)
    manifest.append_pieces([piece(1)])
    recorded.set()
    helper.join(30)
    manifest.checkpoint(2)
    again = reopened(manifest, directory)
    assert list(again.pieces()) == [piece(0), piece(1)]
    again.close()


def test_remove_leaves_nothing(directory: _fs.Directory, manifest: Manifest) -> None:
    """After a publish the manifest and what a crash left of it are gone."""
    Path(directory.path_of(_fs.temporary_name(NAME))).touch()
    manifest.append_pieces([piece(0)])
    manifest.remove()
    assert directory.names() == []
    manifest.remove()


def test_large_log_is_compacted_on_opening(
    directory: _fs.Directory, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening drops void records, and keeps order, runs and the checkpoint."""
    manifest.append_pieces([piece(9), piece(8)])
    for number in range(8):
        manifest.checkpoint(min(number, 2))
    first = reopened(manifest, directory)
    first.append_pieces([piece(1)])
    first.checkpoint(2)
    second = reopened(first, directory)
    second.close()
    before = _manifest.load(directory, NAME)
    monkeypatch.setattr(_store, "COMPACT_FROM_BYTES", 0)
    compacted = reopened(second, directory)
    compacted.close()
    after = _manifest.load(directory, NAME)
    assert after.bytes_valid < before.bytes_valid
    assert list(after.pieces) == list(before.pieces)
    assert (after.header, after.checkpointed) == (before.header, 2)
    assert [run.first for run in after.runs] == [0, 2, 3]


def test_65536_pieces_stay_below_4_mib() -> None:
    """The pieces of a very large file cost little memory."""
    import tracemalloc

    tracemalloc.start()
    table = _manifest.PieceTable(Piece(n << 23, 1 << 23, SUM) for n in range(65536))
    coverage = _store._Coverage(table)
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert used < 4 * 1024 * 1024
    assert not coverage.add(1 << 23, 1 << 24)


def test_find_lists_manifests_only(tmp_path: Path) -> None:
    """Directories, links, part files and temporary files are not manifests."""
    for name in ("b.segdl", "a.segdl", "a.part", _fs.temporary_name("a.segdl")):
        (tmp_path / name).touch()
    (tmp_path / "d.segdl").mkdir()
    (tmp_path / "l.segdl").symlink_to("a.segdl")
    assert _manifest.find_manifests(tmp_path) == ["a.segdl", "b.segdl"]
    with pytest.raises(StorageError):
        _manifest.find_manifests(tmp_path / "nowhere")


# --- damage ------------------------------------------------------------------------


def small_log(directory: _fs.Directory) -> bytes:
    """Give a log with every kind of record."""
    made = Manifest.create(directory, NAME, header(), durability="none")
    made.append_pieces([piece(7)])
    made.restart(header(nonce="01"))
    made.append_pieces([piece(0), piece(3, 40)])
    made.checkpoint(1)
    made.append_pieces([piece(4)])
    again = reopened(made, directory)
    again.append_pieces([piece(5)])
    again.close()
    return content(directory)


def prefix_states(data: bytes) -> list[_manifest.LoadedManifest]:
    """Give what each whole number of lines says, the header's line first."""
    ends = [at + 1 for at, byte in enumerate(data) if byte == 10]
    return [_manifest.parse(data[:end]) for end in ends]


def said(loaded: _manifest.LoadedManifest) -> tuple[object, ...]:
    """Give what a manifest claims, for comparison."""
    return loaded.header, list(loaded.pieces), loaded.checkpointed, loaded.runs


def test_log_torn_at_any_byte_is_its_whole_lines(directory: _fs.Directory) -> None:
    """Whatever a crash cuts off, exactly the records before the cut remain."""
    data = small_log(directory)
    states = prefix_states(data)
    for length in range(len(data)):
        whole = data[:length].count(b"\n")
        if whole == 0:
            with pytest.raises(ManifestError):
                _manifest.parse(data[:length])
            continue
        loaded = _manifest.parse(data[:length])
        assert said(loaded) == said(states[whole - 1])
        assert loaded.damaged == (loaded.bytes_valid < length)
        assert data[: loaded.bytes_valid].endswith(b"\n")


def test_torn_log_is_cut_and_goes_on(directory: _fs.Directory) -> None:
    """After a torn record the next one is readable: it does not continue the tear."""
    data = small_log(directory)
    write(directory, data[:-5])
    opened = Manifest.open(directory, NAME, durability="none")
    assert opened.loaded is not None
    assert opened.loaded.damaged
    opened.append_pieces([piece(6)])
    opened.close()
    loaded = _manifest.load(directory, NAME)
    assert list(loaded.pieces) == [piece(0), piece(3, 40), piece(4), piece(6)]
    assert not loaded.damaged


def test_flipped_bit_ends_the_log_at_its_line(directory: _fs.Directory) -> None:
    """A flipped bit is found by the checksum, wherever it is."""
    data = small_log(directory)
    states = prefix_states(data)
    for at in range(len(data)):
        for bit in (0x01, 0x20):
            bad = bytearray(data)
            bad[at] ^= bit
            before = data[:at].count(b"\n")
            if before == 0:
                with pytest.raises(ManifestError):
                    _manifest.parse(bytes(bad))
            else:
                loaded = _manifest.parse(bytes(bad))
                assert said(loaded) == said(states[before - 1])
                assert loaded.damaged


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\n", "checksum"),
        (b"garbage\n", "checksum"),
        (bytes(10_000_000), "no end"),
        (b"\n" * 10_000, "checksum"),
        (HEADER_LINE[:-1], "no end"),
        (line([1, 2]), "no object"),
        (line(row(0, 1)), "does not begin with a header"),
        (line({"t": "X"}) + HEADER_LINE, "does not begin with a header"),
        (line({"t": "H", "format": 2, "new": 1}), "has format 2.*later segdl"),
        (line({"t": "H", "format": True}), "outside of its range"),
        (line({"t": "H", "format": 1}), "other fields"),
    ],
)
def test_file_without_a_header_is_refused_with_the_reason(
    directory: _fs.Directory, data: bytes, reason: str
) -> None:
    """What does not begin with a header of this format is left alone."""
    write(directory, data)
    with pytest.raises(ManifestError, match=f"(?s)cannot be used.*{reason}"):
        Manifest.open(directory, NAME)
    assert content(directory) == data


def header_line(**changes: object) -> bytes:
    """Give a header's line with raw fields changed."""
    record = json.loads(HEADER_LINE[9:])
    return line({**record, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        *({"size": value} for value in (-1, 2**63, 1.0, "1", True, [])),
        *({"piece": value} for value in (0, -1, None, 2**63)),
        *({"name": value} for value in ("", "..", "a/b", "a\0", "x" * 256, None, 7)),
        *({"url": value} for value in (None, "http://a/\n", "\u202e")),
        *({"digest": value} for value in ("", "sha256", "sha256:", "a b:00", "x:G0")),
        *({"url_sha256": value} for value in ("ab", "AB" * 32, None)),
        *({"nonce": value} for value in ("", "x", "0" * 65, None)),
        *({"created": value} for value in (-1, "now", None, True, 1e300)),
        *({"dev": value} for value in (-1, 2**64, 1.5, None)),
        *({"ino": value} for value in (-1, 2**128)),
        *({"validator": value} for value in (None, {}, {"etag": 1}, [])),
        {"extra": 1},
    ],
)
def test_header_with_a_bad_field_is_refused(changes: dict[str, object]) -> None:
    """Each field of a header is checked for type and range."""
    with pytest.raises(ManifestError):
        _manifest.parse(header_line(**changes))


@pytest.mark.parametrize(
    "record",
    [
        *(row(offset, 1) for offset in (-1, 1000, True, 1.0, "0", None, 2**64, [])),
        *(row(0, length) for length in (0, -1, 1001, True, 1.0, None, 2**64)),
        row(2**63, 2**63),
        row(999, 2),
        *(row(0, 1, xxh3) for xxh3 in ("", SUM.upper(), SUM + "0", "0" * 15 + "g", 1)),
        {**row(0, 1), "y": 1},
        {"t": "P"},
        row(500, 100),
        row(599, 1),
        row(450, 51),
        row(0, 1000),
        *({"t": "C", "n": covered} for covered in (-1, 2, True, None, 1.0)),
        {"t": "C"},
        {**RUN, "pid": -1},
        {**RUN, "boot": "x" * 65},
        {**RUN, "boot": None},
        {**RUN, "time": -1},
        {**RUN, "time": True},
        {"t": "R"},
        {"t": "X", "y": 1},
        {"t": "H"},
        {"t": "Z"},
        {"t": []},
        {},
        [],
        None,
        "P",
        1,
    ],
)
def test_bad_record_ends_the_trusted_part(record: object) -> None:
    """A record of wrong type, range or kind, or that overlaps, ends the log there."""
    good = HEADER_LINE + line(RUN) + line(row(500, 100))
    loaded = _manifest.parse(good + line(record) + line(row(700, 100)))
    assert list(loaded.pieces) == [Piece(500, 100, SUM)]
    assert loaded.bytes_valid == len(good)
    assert loaded.damaged


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 4000,
        b'{"t":' * 700,
        b'{"t":"P","o":' + b"9" * 4000 + b',"n":1,"x":"0123456789abcdef"}',
        b'{"t":"P","o":NaN,"n":1,"x":"0123456789abcdef"}',
        b'{"t":"R","boot":"","pid":1,"time":1e999}',
        b'{"t":"R","boot":"","pid":1,"time":Infinity}',
        b'{"t":"R","boot":"\xff","pid":1,"time":1}',
        '{"t":"C","n":1}'.encode("utf-16"),
        b'{"t":"C","n":1' + b" " * 5000 + b"}",
        b"",
    ],
)
def test_hostile_json_ends_the_trusted_part(text: bytes) -> None:
    """Deep nesting, huge numbers, other encodings and long lines are no records."""
    good = HEADER_LINE + line(row(500, 100))
    loaded = _manifest.parse(good + b"%08x %s\n" % (crc32(text), text))
    assert list(loaded.pieces) == [Piece(500, 100, SUM)]
    assert loaded.checkpointed == 0
    assert loaded.bytes_valid == len(good)


def test_overlap_ends_the_log_before_runs_checkpoints_and_restarts() -> None:
    """Nothing after an overlapping record counts, not even a restart."""
    good = HEADER_LINE + line(RUN) + line(row(500, 100)) + line(row(0, 100))
    tail = line(row(550, 1)) + line({**RUN, "pid": 8}) + line({"t": "C", "n": 3})
    restart = line({"t": "X"}) + header_line(nonce="01") + line(row(1, 1))
    for data in (good + tail, good + tail + restart):
        loaded = _manifest.parse(data)
        assert said(loaded) == said(_manifest.parse(good))
        assert loaded.bytes_valid == len(good)


def test_large_file_is_read_up_to_the_cap(
    directory: _fs.Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of any size costs a bounded amount of memory."""
    good = HEADER_LINE + line(row(500, 100))
    write(directory, good + line(row(0, 100)) + bytes(1000))
    monkeypatch.setattr(_load, "MAX_FILE_BYTES", len(good) + 10)
    loaded = _manifest.load(directory, NAME)
    assert list(loaded.pieces) == [Piece(500, 100, SUM)]
    assert loaded.bytes_valid == len(good)


# --- what has to be verified -------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "hole", "boot", "expected"),
    [
        (0, False, "other", False),  # under the checkpoint
        (0, True, "b2", True),  # a hole beats everything
        (1, False, "b1", False),  # written in a run of this boot
        (1, False, "b2", True),
        (2, False, "b2", False),
        (2, False, "b1", True),
        (3, False, "b2", False),
        (3, True, "b2", True),
        (2, False, "", True),  # unknown is not equal to unknown
        (4, False, "", True),
        (-1, False, "b1", True),  # not of this log
    ],
)
def test_what_is_trusted_without_reading(
    record: int, hole: bool, boot: str, expected: bool
) -> None:
    """A hole means verify; else a checkpoint or this boot's run means accept."""
    loaded = _manifest.parse(
        _manifest._records.header_line(header(size=5 * 4096))
        + line({**RUN, "boot": "b1"})
        + line(row(0 * 4096, 4096))
        + line({"t": "C", "n": 1})
        + line(row(1 * 4096, 4096))
        + line({**RUN, "boot": "b9"})
        + line({**RUN, "boot": "b2"})
        + line(row(2 * 4096, 4096))
        + line(row(3 * 4096, 4096))
        + line({**RUN, "boot": ""})
        + line(row(4 * 4096, 4096))
    )
    asked: list[tuple[int, int]] = []

    def has_hole(offset: int, length: int) -> bool:
        asked.append((offset, length))
        return hole

    subject = replace(loaded.pieces[max(record, 0)], record=record)
    needed = _manifest.needs_verification(subject, loaded, has_hole, boot)
    assert needed == expected
    assert asked == [(subject.offset, subject.length)]


@pytest.mark.parametrize(
    ("offset", "length", "covered", "expected"),
    [
        (8192, 4096, 0, False),
        (8192, 4097, 0, True),  # another piece has the rest of its last block
        (8193, 4095, 0, True),
        (0, 1000, 0, True),
        (16384, 3616, 0, False),  # up to the end of the file
        (8193, 4095, 1, False),  # under the checkpoint
    ],
)
def test_shared_blocks_are_verified(
    offset: int, length: int, covered: int, expected: bool
) -> None:
    """A block two pieces have a part of may have lost one, and not be a hole."""
    loaded = _manifest.parse(
        _manifest._records.header_line(header(size=20_000))
        + line({**RUN, "boot": "b1"})
        + line(row(offset, length))
        + (line({"t": "C", "n": covered}) if covered else b"")
    )
    (piece,) = loaded.pieces
    needed = _manifest.needs_verification(piece, loaded, lambda *_: False, "b1")
    assert needed == expected


def test_pieces_before_any_run_are_verified() -> None:
    """A piece nobody signed for is trusted by its checksum alone."""
    loaded = _manifest.parse(HEADER_LINE + line(row(0, 100)) + line(RUN))
    assert _manifest.needs_verification(loaded.pieces[0], loaded, NO_HOLE, "b1")


# --- properties --------------------------------------------------------------------


@quick
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_an_error_or_a_manifest(data: bytes, framed: bool) -> None:
    """No content makes reading raise anything but ManifestError."""
    with pytest.raises(ManifestError):
        _manifest.parse(data)
    tail = b"%08x %s\n" % (crc32(data), data) if framed else data
    loaded = _manifest.parse(HEADER_LINE + tail)
    assert list(loaded.pieces) == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from("tonxbpidH"), inner, max_size=4)
    ),
    max_leaves=8,
)
records = st.one_of(
    json_values,
    st.builds(row, st.integers(-10, 1010), st.integers(-10, 1010)),
    st.builds(row, json_values, json_values, json_values),
    st.builds(lambda n: {"t": "C", "n": n}, st.integers(-1, 5)),
    st.just({"t": "X"}),
    st.just(RUN),
)


@quick
@given(st.lists(records, max_size=12))
def test_hostile_records_stay_inside_of_the_file(rows: list[object]) -> None:
    """With right checksums too, pieces lie inside, apart, and under no false count."""
    data = HEADER_LINE + b"".join(map(line, rows))
    loaded = _manifest.parse(data)
    end = 0
    for found in sorted(loaded.pieces, key=lambda p: p.offset):
        assert end <= found.offset
        assert found.length > 0
        end = found.offset + found.length
    assert end <= SIZE
    assert 0 <= loaded.checkpointed <= len(loaded.pieces)
    assert said(_manifest.parse(data[: loaded.bytes_valid])) == said(loaded)


@quick
@given(st.data())
def test_mutated_log_says_a_prefix_of_the_truth(
    directory: _fs.Directory, data: st.DataObject
) -> None:
    """However a log is mangled, what is still read is a state it once had."""
    path = Path(directory.path_of("truth"))
    if not path.exists():
        path.write_bytes(small_log(directory))
    truth = path.read_bytes()
    states = [said(state) for state in prefix_states(truth)]
    begin = data.draw(st.integers(0, len(truth)))
    end = data.draw(st.integers(begin, min(len(truth), begin + 40)))
    mangled = truth[:begin] + data.draw(st.binary(max_size=40)) + truth[end:]
    try:
        loaded = _manifest.parse(mangled)
    except ManifestError:
        return
    assert said(loaded) in states
