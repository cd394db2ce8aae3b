"""The modelled worker says what a worker says, when it says it."""

from __future__ import annotations

from segdl._messages import (
    Accept,
    Answered,
    Ended,
    Fetch,
    Kept,
    Message,
    PartRef,
    Pieces,
    Progress,
    Shrunk,
    Split,
    Stop,
)
from segdl._plan import MIB
from simulation.clock import BEGIN_SECONDS, Clock
from simulation.network import Network, Server, go_on
from simulation.worker import Worker

PART = PartRef("/a.bin.part", 1, 2, False, 4 * MIB)
# A MiB takes a second; a round trip 0.2 s.
SERVER = Server(size=64 * MIB, connection_rate=float(MIB), round_trip_seconds=0.2)


class Parent:
    """The test as the parent; what it is told, with seconds."""

    def __init__(self, server: Server = SERVER) -> None:
        self.clock = Clock()
        self.network = Network(server, self.clock, 1)
        self.told: list[tuple[float, Message]] = []
        self.worker = Worker(
            self.clock,
            self.network,
            lambda message: self.told.append((self.seconds, message)),
        )

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return round(self.clock.now - BEGIN_SECONDS, 6)

    def fetch(
        self,
        lane: int,
        begin: int,
        end: int,
        *,
        hold: bool = False,
        keep: bool = False,
    ) -> None:
        """Start a lane."""
        self.worker.take(
            Fetch(
                lane=lane,
                url="https://example.org/a.bin",
                headers={},
                begin=begin,
                end=end,
                ranged=True,
                follow=False,
                hold=hold,
                keep=keep,
                complete=None,
                had=None,
                validator=None,
                proof=False,
                if_range=None,
                part=None if hold else PART,
            )
        )

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        last = self.clock.now + seconds
        while go_on(self.clock, self.network, last):
            pass

    def all_of(self, kind: type[Message]) -> list[tuple[float, Message]]:
        """Give what was told of one kind."""
        return [(at, message) for at, message in self.told if type(message) is kind]

    def pieces(self) -> list[tuple[int, int]]:
        """Give offset and length of each record."""
        return [row[1:3] for _, m in self.all_of(Pieces) for row in m.pieces]  # type: ignore[attr-defined]  # they are Pieces

    def ended(self) -> list[tuple[float, int, str | None]]:
        """Give when each lane ended, which, and the class of its failure."""
        return [
            (at, m.lane, None if m.failure is None else m.failure["kind"])
            for at, m in self.told
            if isinstance(m, Ended)
        ]


def test_a_lane_from_its_request_to_its_end() -> None:
    """Handshake, round trip, body; records at the ends of pieces, then the end."""
    parent = Parent()
    parent.fetch(1, 3 * MIB, 9 * MIB)
    parent.wait(10.0)
    assert [at for at, _ in parent.all_of(Answered)] == [0.4]
    assert parent.pieces() == [(3 * MIB, MIB), (4 * MIB, 4 * MIB), (8 * MIB, MIB)]
    assert parent.ended() == [(6.4, 1, None)]


def test_a_held_lane_waits_for_its_acceptance() -> None:
    """No byte comes before Accept, and the first report comes 40 ms after it."""
    parent = Parent()
    parent.fetch(1, 0, 16 * MIB, hold=True)
    parent.wait(1.0)
    parent.told.clear()
    parent.worker.take(Accept(1, PART, 0, 4 * MIB))
    parent.wait(3.9)
    assert [at for at, _ in parent.all_of(Progress)][:3] == [1.04, 1.14, 1.24]
    parent.wait(1.0)
    assert parent.ended() == [(5.0, 1, None)]


def test_reports_tell_what_is_written() -> None:
    """Whole blocks are written, and a part of one after half a second without."""
    parent = Parent()
    parent.fetch(1, 0, 16 * MIB)
    parent.wait(2.45)
    rows = [m.lanes[0] for _, m in parent.all_of(Progress)]  # type: ignore[attr-defined]  # they are Progress
    position, received = rows[-1][1:]
    assert received == 2 * MIB
    assert all(written <= taken for _, written, taken in rows)
    assert len({written for _, written, _ in rows}) < len(rows) / 3
    assert position % 4096 == 0


def test_a_split_keeps_the_first_half() -> None:
    """The border is the next block's after the middle of what is left."""
    parent = Parent()
    parent.fetch(1, 0, 16 * MIB)
    parent.wait(2.4)  # 2 MiB
    parent.worker.take(Split(1, 0.5))
    assert parent.told[-1][1] == Shrunk(1, 9 * MIB)
    parent.wait(10.0)
    assert parent.ended() == [(9.4, 1, None)]
    assert sum(length for _, length in parent.pieces()) == 9 * MIB


def test_a_split_keeps_its_share() -> None:
    """Of what is left, a quarter, to the next block's border."""
    parent = Parent()
    parent.fetch(1, 0, 16 * MIB)
    parent.wait(2.4)  # 2 MiB
    parent.worker.take(Split(1, 0.25))
    assert parent.told[-1][1] == Shrunk(1, 6 * MIB)


def test_a_lane_that_keeps_its_bytes() -> None:
    """They come without Accept, and are written from where that says."""
    parent = Parent()
    parent.fetch(1, 0, 2 * MIB, hold=True, keep=True)
    parent.wait(3.0)
    assert parent.all_of(Kept) == [(2.4, Kept(1))]
    assert parent.pieces() == []
    parent.worker.take(Accept(1, PART, MIB + 7, 2 * MIB))
    assert parent.ended() == [(3.0, 1, None)]
    assert parent.pieces() == [(MIB + 7, MIB - 7)]


def test_a_stop_of_a_lane_that_keeps_its_bytes() -> None:
    """Nothing of them is written; its connection can be used again."""
    parent = Parent()
    parent.fetch(1, 0, 2 * MIB, hold=True, keep=True)
    parent.wait(3.0)
    parent.worker.take(Stop(1))
    assert (parent.pieces(), len(parent.ended())) == ([], 1)
    parent.fetch(2, 0, MIB)
    assert parent.network.opened == 1


def test_a_split_of_too_little() -> None:
    """Where no border lies between, the end stays, and is told."""
    parent = Parent()
    parent.fetch(1, 0, 40_000)
    parent.wait(0.41)
    parent.worker.take(Split(1, 0.5))
    assert parent.told[-1][1] == Shrunk(1, 40_000)


def test_a_stop_records_what_came() -> None:
    """Told to stop, a lane ends in good order at once."""
    parent = Parent()
    parent.fetch(1, 0, 16 * MIB)
    parent.wait(1.9)
    parent.worker.take(Stop(1))
    assert parent.ended() == [(1.9, 1, None)]
    assert parent.pieces() == [(0, 3 * MIB // 2)]


def test_a_connection_is_used_again() -> None:
    """After a lane that had all it asked for, the next one needs no handshake."""
    parent = Parent()
    parent.fetch(1, 0, MIB)
    parent.wait(2.0)
    parent.fetch(2, MIB, 2 * MIB)
    parent.wait(2.0)
    assert parent.ended() == [(1.4, 1, None), (3.2, 2, None)]
    assert parent.network.opened == 1


def test_a_connection_that_was_cut_is_not_used_again() -> None:
    """After a split or a stop the origin would send on: a new connection it is."""
    parent = Parent()
    parent.fetch(1, 0, 4 * MIB)
    parent.wait(1.0)
    parent.worker.take(Split(1, 0.5))
    parent.wait(3.0)
    parent.fetch(2, 8 * MIB, 9 * MIB)
    parent.wait(0.5)
    parent.worker.take(Stop(2))
    parent.fetch(3, 8 * MIB, 9 * MIB)
    assert parent.network.opened == 3


def test_a_refused_lane() -> None:
    """A 503 ends a lane, and says what Retry-After says."""
    parent = Parent(
        Server(size=MIB, connection_rate=1e6, connections=1, retry_after_seconds=7.0)
    )
    parent.fetch(1, 0, MIB // 2)
    parent.fetch(2, MIB // 2, MIB)
    parent.wait(0.1)
    (_, ended), *more = parent.all_of(Ended)
    assert not more
    assert isinstance(ended, Ended)
    assert ended.failure is not None
    assert (ended.failure["status"], ended.failure["retry_after_seconds"]) == (503, 7.0)


def test_a_stall_ends_after_its_limit() -> None:
    """A body that stops is given up after 30 s, and what came is recorded."""
    parent = Parent(
        Server(size=MIB, connection_rate=1e6, stall_share=1.0, stall_after_bytes=0.0)
    )
    parent.fetch(1, 0, MIB)
    parent.wait(40.0)
    ((at, lane, kind),) = parent.ended()
    assert (lane, kind) == (1, "StallError")
    assert 30.0 <= at < 30.4
    assert parent.pieces() == [(0, 1)]


def test_a_reset_ends_a_lane() -> None:
    """A reset is a failure, and what came before it is recorded."""
    parent = Parent(
        Server(
            size=MIB, connection_rate=1e6, reset_share=1.0, reset_after_bytes=100_000.0
        )
    )
    parent.fetch(1, 0, MIB)
    parent.wait(5.0)
    assert [row[1:] for row in parent.ended()] == [(1, "IncompleteTransfer")]
    assert 0 < sum(length for _, length in parent.pieces()) < MIB
