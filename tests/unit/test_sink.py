"""The sink: gathered, aligned writes, and a record only of what is in the file."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segdl._fs import ALIGNMENT, PartWriter
from segdl._sink import Sink
from segdl._writebehind import BLOCK_BYTES, DEPTH, WriteBehind
from segdl.errors import StorageError

KIB = 1024
MIB = 1024 * KIB
SIZE = 6 * MIB
CONTENT = random.Random(1).randbytes(SIZE)
# The most that libcurl hands over at once.
CURL_BYTES = 16 * KIB

quick = settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


class Recorder(PartWriter):
    """A writer that keeps offset and length of each write, and of each write-back."""

    def __init__(self, path: Path, *, direct: bool = False) -> None:
        found = path.stat()
        super().__init__(str(path), (found.st_dev, found.st_ino), direct)
        self.writes: list[tuple[int, int]] = []
        self.writebacks: list[tuple[int, int]] = []
        self.failing: StorageError | None = None
        self.failed = threading.Event()
        self.held = threading.Lock()
        self.seconds = 0.0  # that each write takes longer

    def pwrite(self, view: memoryview, offset: int) -> None:
        if self.failing is not None:
            self.failed.set()
            raise self.failing
        with self.held:
            time.sleep(self.seconds)
            super().pwrite(view, offset)
        self.writes.append((offset, len(view)))

    def start_writeback(self, offset: int, length: int) -> None:
        super().start_writeback(offset, length)
        self.writebacks.append((offset, length))


class Lane:
    """A sink over a real file, with the records it has made."""

    def __init__(
        self,
        path: Path,
        begin: int,
        end: int | None,
        piece: int = MIB,
        *,
        direct: bool = False,
    ) -> None:
        self.path = path
        self.begin = begin
        path.write_bytes(bytes(SIZE))
        self.writer = Recorder(path, direct=direct)
        self.records: list[tuple[int, int, str]] = []
        self.behind = WriteBehind()
        self.sink = Sink(
            self.writer,
            begin,
            end,
            piece=piece,
            behind=self.behind,
            on_piece=self.on_piece,
        )

    def on_piece(self, offset: int, length: int, xxh3: str) -> None:
        """Keep a record; its bytes have to be in the file by now."""
        self.records.append((offset, length, xxh3))
        assert (
            self.file()[offset : offset + length] == (CONTENT[offset : offset + length])
        )

    def file(self) -> bytes:
        """Give what the file holds."""
        return self.path.read_bytes()

    def give(self, count: int) -> int:
        """Give the sink the next bytes, and say how many it took."""
        position = self.sink.position
        return self.sink.write(memoryview(CONTENT)[position : position + count])

    def give_all(self, count: int) -> None:
        """Give the sink bytes in libcurl's portions, all of which it takes."""
        while count:
            step = min(count, CURL_BYTES)
            assert self.give(step) == step
            count -= step

    def wait(self) -> None:
        """Wait until what is on its way is in the file."""
        while self.sink.pending:
            self.behind.wait()

    def close(self) -> None:
        """End the thread, and close the file."""
        self.behind.close()
        self.writer.close()

    def check_records(self, end: int) -> None:
        """Expect records, without a gap, of all bytes up to `end`."""
        position = self.begin
        for offset, length, xxh3 in self.records:
            assert offset == position
            assert length > 0
            position += length
            assert xxh3 == xxhash.xxh3_64_hexdigest(CONTENT[offset:position])
        assert position == end
        assert self.writer.writebacks == self.writer.writes

    def check_file(self, end: int) -> None:
        """Expect the lane's bytes up to `end` in the file, and no other."""
        expected = bytes(self.begin) + CONTENT[self.begin : end] + bytes(SIZE - end)
        assert self.file() == expected


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a part file."""
    return tmp_path / "a.bin.part"


@pytest.fixture
def lanes() -> Iterator[list[Lane]]:
    """Give a list whose lanes are closed at the end."""
    opened: list[Lane] = []
    yield opened
    for lane in opened:
        lane.close()


# --- the model ------------------------------------------------------------------------

# Each round of them brings much, too: bytes that come one by one take minutes.
chunks = st.lists(
    st.integers(1, CURL_BYTES) | st.just(CURL_BYTES) | st.just(4 * KIB), max_size=8
).map(lambda sizes: [*sizes, CURL_BYTES])


@quick
@given(
    begin=st.integers(0, 2 * MIB) | st.sampled_from([0, MIB, 4 * KIB, MIB - 1]),
    length=st.integers(1, 4 * MIB) | st.sampled_from([1, MIB, 4 * MIB]),
    piece=st.sampled_from([MIB, 2 * MIB, 4 * MIB]),
    sizes=chunks,
    splits=st.dictionaries(st.integers(0, 400), st.floats(0, 1), max_size=3),
)
def test_all_bytes_of_a_segment(
    path: Path,
    begin: int,
    length: int,
    piece: int,
    sizes: list[int],
    splits: dict[int, float],
) -> None:
    """However bytes come and ends move: they are in the file once, in whole blocks."""
    lane = Lane(path, begin, begin + length, piece)
    sink, end = lane.sink, begin + length
    for call, size in enumerate(cycle(sizes)):
        if call in splits:
            position, old = sink.position, end
            end = sink.split(splits[call])
            assert end == sink.end
            assert end == old or position < end < old
        left = end - sink.position
        assert lane.give(size) == min(size, left)
        if sink.full:
            break
    assert sink.position == end
    assert lane.give(CURL_BYTES) == 0
    assert sink.finish() == sink.written == end
    lane.close()

    lane.check_file(end)
    lane.check_records(end)
    borders = [offset for offset, _, _ in lane.records[1:]]
    assert all(border % piece == 0 for border in borders)
    writes = lane.writer.writes
    assert all(offset % BLOCK_BYTES == 0 for offset, _ in writes[1:])
    assert all((o + n) % BLOCK_BYTES == 0 for o, n in writes[:-1])
    assert all(n <= BLOCK_BYTES for _, n in writes)


@quick
@given(
    begin=st.integers(0, 2 * MIB),
    received=st.integers(0, 3 * MIB),
    sizes=chunks,
    flushes=st.sets(st.integers(0, 200), max_size=5),
)
def test_a_stop_in_the_middle(
    path: Path, begin: int, received: int, sizes: list[int], flushes: set[int]
) -> None:
    """What was taken before a stop is in the file and recorded, flushed or not."""
    lane = Lane(path, begin, SIZE, 2 * MIB)
    sink, end = lane.sink, begin + received
    for call, size in enumerate(cycle(sizes)):
        if call in flushes:
            sink.flush()
            lane.wait()
            assert sink.written == max(begin, sink.position & -ALIGNMENT)
        if sink.position == end:
            break
        lane.give(min(size, end - sink.position))
    assert sink.position == end
    assert not sink.full
    assert sink.finish() == end
    assert sink.finish() == end
    lane.close()
    lane.check_file(end)
    lane.check_records(end)
    # A disk that loses the second writing of a block leaves no hole.
    assert all(offset % ALIGNMENT == 0 for offset, _ in lane.writer.writes[1:])


# --- single cases ---------------------------------------------------------------------


def test_nothing_is_written_before_a_block_is_full(
    path: Path, lanes: list[Lane]
) -> None:
    """Bytes are gathered: libcurl's portions make one write a block."""
    lane = Lane(path, 0, SIZE)
    lanes.append(lane)
    lane.give_all(MIB - 1)
    assert (lane.writer.writes, lane.sink.written) == ([], 0)
    lane.give_all(1)
    assert lane.sink.written == 0  # not before it is asked
    lane.behind.wait()
    assert (lane.writer.writes, lane.sink.written) == ([(0, MIB)], MIB)


def test_bytes_beyond_the_end_are_left(path: Path, lanes: list[Lane]) -> None:
    """An answer that brings more than was asked for is cut at the segment's end."""
    lane = Lane(path, 100, 5000)
    lanes.append(lane)
    assert lane.give(16000) == 4900
    assert lane.sink.full
    lane.sink.finish()
    lane.check_file(5000)
    lane.check_records(5000)


def test_an_empty_segment_is_full(path: Path, lanes: list[Lane]) -> None:
    """A segment without a byte takes none, writes none and records none."""
    lane = Lane(path, 100, 100)
    lanes.append(lane)
    assert (lane.sink.full, lane.give(10), lane.sink.finish()) == (True, 0, 100)
    assert (lane.records, lane.writer.writes) == ([], [])


def test_an_unknown_end(path: Path, lanes: list[Lane]) -> None:
    """Without an end all bytes are taken, and there is nothing to split."""
    lane = Lane(path, 0, None)
    lanes.append(lane)
    lane.give_all(3 * MIB + 7)
    assert lane.sink.split(0.5) > 2**62
    assert not lane.sink.full
    assert lane.sink.finish() == 3 * MIB + 7
    lane.check_file(3 * MIB + 7)
    lane.check_records(3 * MIB + 7)


@pytest.mark.parametrize(
    ("received", "end", "after"),
    [
        (0, 6 * MIB, 3 * MIB),
        (10, 6 * MIB, 4 * MIB),  # the middle moves up to a block
        (0, MIB, 512 * KIB),  # no block's border left: a smaller one
        (0, 128 * KIB, 64 * KIB),
        (0, 64 * KIB, 64 * KIB),  # too little: unchanged
        (6 * MIB - 10, 6 * MIB, 6 * MIB),
    ],
)
def test_split(
    path: Path, lanes: list[Lane], received: int, end: int, after: int
) -> None:
    """A split keeps the first half, to an aligned border; too little stays whole."""
    lane = Lane(path, 0, end)
    lanes.append(lane)
    lane.give_all(received)
    assert lane.sink.split(0.5) == after
    assert lane.sink.end == after


@pytest.mark.parametrize(
    ("kept", "after"),
    [
        (0.02, MIB),  # to the next block's border
        (0.25, 2 * MIB),
        (0.7, 5 * MIB),
        (0.9, 5568 * KIB),  # a block's border would leave nothing: a smaller one
        (0.999, 6 * MIB),
        (1.0, 6 * MIB),
    ],
)
def test_split_keeps_a_share(
    path: Path, lanes: list[Lane], kept: float, after: int
) -> None:
    """Of what is left, a split keeps that share at least, to the next border."""
    lane = Lane(path, 0, 6 * MIB)
    lanes.append(lane)
    lane.give_all(8 * KIB)
    assert lane.sink.split(kept) == after


def test_bytes_that_are_put_into_the_room(path: Path, lanes: list[Lane]) -> None:
    """What is read right into the buffer is written and recorded as what is given."""
    lane = Lane(path, 10, 3 * MIB + 5)
    lanes.append(lane)
    sink = lane.sink
    while not sink.full:
        room = sink.room()
        assert 0 < len(room) <= BLOCK_BYTES
        count = min(len(room), 300 * KIB + 1)
        room[:count] = CONTENT[sink.position : sink.position + count]
        sink.took(count)
    assert len(sink.room()) == 0
    assert sink.finish() == 3 * MIB + 5
    lane.check_file(3 * MIB + 5)
    lane.check_records(3 * MIB + 5)


def test_split_inside_of_the_block_being_filled(path: Path, lanes: list[Lane]) -> None:
    """A new end within the present block ends the next write."""
    lane = Lane(path, 0, MIB)
    lanes.append(lane)
    lane.give_all(100 * KIB)
    end = lane.sink.split(0.5)
    assert end == 576 * KIB
    assert lane.give(MIB) == end - 100 * KIB
    assert lane.sink.full
    lane.sink.finish()
    lane.check_file(end)
    lane.check_records(end)


def test_a_failed_write_is_not_recorded(path: Path, lanes: list[Lane]) -> None:
    """A piece whose write failed has no record; the lane hears of it later."""
    lane = Lane(path, 0, SIZE)
    lanes.append(lane)
    lane.give_all(MIB + 10)
    lane.behind.wait()
    lane.writer.failing = StorageError("the disk is gone")
    lane.give_all(MIB)
    lane.behind.wait()
    with pytest.raises(StorageError, match="gone"):
        lane.give_all(MIB)
    with pytest.raises(StorageError, match="gone"):
        lane.sink.flush()
    with pytest.raises(StorageError, match="gone"):
        lane.sink.finish()
    assert [(o, n) for o, n, _ in lane.records] == [(0, MIB)]
    assert lane.sink.written == MIB


def test_nothing_after_a_failed_write_is_recorded(
    path: Path, lanes: list[Lane]
) -> None:
    """The disk works again: what came after the hole does not count as written."""
    lane = Lane(path, 0, SIZE)
    lanes.append(lane)
    lane.writer.failing = StorageError("the disk is gone")
    lane.give_all(MIB)
    lane.writer.failed.wait()
    lane.writer.failing = None
    lane.give_all(2 * MIB)  # sent on its way before anyone asked for the first one
    with pytest.raises(StorageError, match="gone"):
        lane.sink.finish()
    assert lane.writer.writes == [(MIB, MIB), (2 * MIB, MIB)]
    assert (lane.records, lane.sink.written) == ([], 0)


def test_a_full_disk_fails_what_is_on_its_way(path: Path, lanes: list[Lane]) -> None:
    """With all writes failing nothing waits for ever."""
    lane = Lane(path, 0, None)
    lanes.append(lane)
    lane.writer.failing = StorageError("no room")
    with pytest.raises(StorageError, match="no room"):
        lane.give_all(2 * DEPTH * MIB)
    with pytest.raises(StorageError, match="no room"):
        lane.sink.finish()
    assert lane.records == []


def test_without_memory_no_buffer_is_shared(
    path: Path, lanes: list[Lane], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block that can't be followed by another is not sent: its buffer stays ours."""
    lane = Lane(path, 0, SIZE)
    lanes.append(lane)

    def refuse(_: int) -> memoryview:
        raise StorageError("no memory")

    monkeypatch.setattr("segdl._writebehind.aligned_buffer", refuse)
    with pytest.raises(StorageError, match="no memory"):
        lane.give_all(MIB)
    with pytest.raises(StorageError, match="no memory"):
        lane.sink.finish()
    lane.behind.give_buffer(lane.sink.buffer)
    assert lane.writer.writes == []
    assert lane.behind.take_buffer() is lane.sink.buffer
    with pytest.raises(StorageError, match="no memory"):
        lane.behind.take_buffer()


def test_a_slow_disk_is_told(path: Path, lanes: list[Lane]) -> None:
    """After a long wait the loop is to look at its commands, until it has settled."""
    lane = Lane(path, 0, None)
    lanes.append(lane)
    lane.writer.seconds = 0.3
    lane.give_all(DEPTH * MIB)
    assert not lane.behind.congested
    lane.give_all(MIB)
    lane.writer.seconds = 0.0
    assert lane.behind.congested
    lane.behind.settle()
    assert not lane.behind.congested
    assert lane.sink.finish() == (DEPTH + 1) * MIB


def test_the_loop_goes_on_while_the_disk_is_slow(path: Path, lanes: list[Lane]) -> None:
    """So many blocks wait for the disk, and no more: then the loop waits too."""
    lane = Lane(path, 0, None)
    lanes.append(lane)
    with lane.writer.held:
        lane.give_all(DEPTH * MIB)
        assert lane.sink.position == DEPTH * MIB
        assert lane.sink.written == 0
        late = threading.Thread(target=lane.give_all, args=(MIB,))
        late.start()
        late.join(0.1)
        assert late.is_alive()
    late.join()
    assert lane.sink.finish() == (DEPTH + 1) * MIB
    lane.check_records((DEPTH + 1) * MIB)


def test_direct_or_not_the_bytes_are_the_same(path: Path, lanes: list[Lane]) -> None:
    """Direct writing, and its fallback where the file system has none, lose nothing."""
    lane = Lane(path, 4 * KIB, 3 * MIB + 100, direct=True)
    lanes.append(lane)
    lane.give_all(3 * MIB + 100 - 4 * KIB)
    assert lane.sink.full
    lane.sink.finish()
    lane.check_file(3 * MIB + 100)
    lane.check_records(3 * MIB + 100)
