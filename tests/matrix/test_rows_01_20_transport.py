"""Rows 1 - 20: connections that are refused, break, stall or lie.

origin, nginx, proxy   on loopback: most rows
Toxics                 a relay that harms what comes down (toxics.py): 7, 8, 17, 20
Network                two networks and a wire, as root (namespaces.py): 3, 10 - 15

A row whose variants need different things is a table of functions, `case`.
"""

from __future__ import annotations

import base64
import hashlib
import random
import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import namespaces
import pytest
import toxics
from http_checks import MANIFEST, MIB, NAME, PART, names, until
from namespaces import CLIENT, MOVED, SERVER, SERVER6, Network, wired
from nginx import Nginx, serving
from proxy import Proxy
from toxics import Toxics
from world import World

from segdl._fs import Directory
from segdl._manifest import load
from segdl.errors import (
    ConnectError,
    IncompleteTransfer,
    IntegrityError,
    ProtocolError,
    StallError,
    StatusError,
    TlsError,
)
from segdl.testing import Blob, Origin, Request, TlsFiles

SIZE = 20 * MIB + 4321
RATE = 24 * MIB
# What a socket may hold that its reader never gets, on both sides, generously.
SOCKET_BYTES = 8 * MIB
# Addresses on the wire that nobody has: what is sent there is lost without a word.
LOST, LOST6 = "10.9.9.3", "fd09::9"

Case = Callable[..., None]


def cases(*functions: Any) -> pytest.MarkDecorator:
    """Run a row for each of some functions; a mark may be put around one."""
    return pytest.mark.parametrize(
        "case",
        [
            each if hasattr(each, "values") else pytest.param(each, id=case_id(each))
            for each in functions
        ],
    )


def case_id(function: Case) -> str:
    """Give the words of a case's name."""
    return function.__name__.strip("_")


def as_root(function: Case) -> Any:
    """Mark a case that makes a network."""
    return pytest.param(function, id=case_id(function), marks=pytest.mark.root)


def with_nginx(function: Case) -> Any:
    """Mark a case that needs nginx."""
    return pytest.param(function, id=case_id(function), marks=pytest.mark.nginx)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Give a port on which nothing listens, and nothing else will meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def start_nginx(world: World, tmp_path: Path) -> Iterator[Callable[..., Nginx]]:
    """Give a function that starts an nginx with a blob, seed 1, of a size."""
    root = tmp_path / "root"
    root.mkdir()
    with serving(root) as serve:

        def start(size: int = SIZE, **options: Any) -> Nginx:
            blob = world.allow(Blob(1, size))
            if not (root / NAME).exists():  # a new time would be a new version
                (root / NAME).write_bytes(blob.read())
            return serve(**options)

        yield start


def url_of(world: World, server: Nginx) -> str:
    """Give the URL of the file that nginx has, with secrets in it."""
    return world.with_secrets(f"{server.url}/{NAME}")


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[tuple[Network, Path]]:
    """Give a network to break, and the directory of what the client has in /etc."""
    if reason := namespaces.missing():
        pytest.skip(reason)
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "hosts").write_text("127.0.0.1 localhost\n")
    (etc / "nsswitch.conf").write_text("hosts: files dns\n")
    # A server that does not answer is asked once, for a second.
    text = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"
    (etc / "resolv.conf").write_text(text)
    with wired({path.name: path for path in sorted(etc.iterdir())}) as network:
        yield network, etc


@pytest.fixture
def far(
    wire: tuple[Network, Path],
    segdl_origin_factory: Callable[..., Origin],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    """Give a world whose origin is at the other end of the wire."""
    network, _ = wire
    first = network.server.call(segdl_origin_factory, host=SERVER)
    world = World(first, segdl_origin_factory(), tmp_path / "far", monkeypatch)
    monkeypatch.setenv("no_proxy", "*")
    inside = world.start
    monkeypatch.setattr(
        world, "start", lambda *a, **k: network.client.call(inside, *a, **k)
    )
    try:
        yield world
    finally:
        world.close()
    world.check()


def recorded_runs(world: World) -> list[tuple[int, int]]:
    """List the pieces that are recorded, half-open."""
    with Directory.open(world.out, create=False) as directory:
        pieces = load(directory, MANIFEST).pieces
    return [(piece.offset, piece.offset + piece.length) for piece in pieces]


def asked_again(
    runs: list[tuple[int, int]], ranges: Iterable[tuple[int, int] | None]
) -> int:
    """Count the bytes of runs that ranges ask for."""
    return sum(
        max(0, min(end, stop) - max(begin, start))
        for begin, end in runs
        for start, stop in filter(None, ranges)
    )


def cuts(world: World, sent_bytes: int) -> list[Request]:
    """List the answers that ended after so many body bytes, before they were whole."""
    return [
        entry
        for entry in world.origin.log.settle()
        if not entry.complete and entry.sent_bytes == sent_bytes
    ]


def gone_on_at(world: World, cut: Request) -> list[int]:
    """List where, in what a cut answer was to bring, later requests begin."""
    assert cut.range is not None
    begin, end = cut.range
    return [
        entry.range[0]
        for entry in world.origin.log.entries[cut.number :]
        if entry.range is not None and begin <= entry.range[0] < end
    ]


# --- 1 - 2: the origin is not there ---------------------------------------------------


@pytest.mark.row("a port on which nothing listens, for ever or for a moment")
@pytest.mark.parametrize(("processes", "comes"), [(0, False), (1, False), (0, True)])
def test_01_connection_refused(
    world: World, closed_port: int, processes: int, comes: bool
) -> None:
    """It is tried as often as said, at once, then an error that names host and port."""
    if comes:
        url = world.url(SIZE)
        world.origin.stop()
        task = world.start(url, retry_times=10_000, retry_delay=0.01)
        until(lambda: len(world.told("retry")) >= 3)
        world.origin.start()
        assert task.wait(20)
        world.whole(task)
        return
    url = world.with_secrets(f"http://127.0.0.1:{closed_port}/a")
    # Nothing waits for the time-out: that is longer than the test may take.
    task = world.fetch(url, retry_times=2, timeout=300, processes=processes)
    world.failed(task, ConnectError, f"127.0.0.1:{closed_port}")
    assert [each["attempt"] for each in world.told("retry")] == [1, 2]
    assert names(world.out) == []


def _origin_restarts(world: World, _: Any) -> None:
    world.origin.rate = 4 * MIB
    task = world.start(world.url(SIZE), retry_times=10_000, retry_delay=0.01)
    until(lambda: world.recorded() > 4 * MIB)
    world.origin.stop()
    until(lambda: world.told("retry"))
    runs, before = recorded_runs(world), len(world.origin.log.entries)
    world.origin.rate = None
    world.origin.start()
    assert task.wait(20)
    world.whole(task)
    after = world.origin.log.entries[before:]
    assert asked_again(runs, (entry.range for entry in after)) == 0
    assert world.origin.log.served_twice() < SOCKET_BYTES


def _origin_stays_away(world: World, _: Any) -> None:
    world.origin.rate = 4 * MIB
    task = world.start(world.url(SIZE), retry_times=1)
    until(lambda: world.recorded() > 4 * MIB)
    world.origin.stop()
    assert task.wait(20)
    world.failed(task, ConnectError, str(world.origin.port))
    assert names(world.out) == [PART, MANIFEST]
    runs, before = recorded_runs(world), len(world.origin.log.entries)
    world.origin.rate = None
    world.origin.start()
    assert task.resume()
    assert task.wait(20)
    world.whole(task)
    after = world.origin.log.entries[before:]
    assert asked_again(runs, (entry.range for entry in after)) == 0
    assert task.resumed_size == sum(end - begin for begin, end in runs)


def _nginx_restarts(world: World, request: pytest.FixtureRequest) -> None:
    start = request.getfixturevalue("start_nginx")
    server = start(server="limit_rate 4m;")
    url = url_of(world, server)
    task = world.start(url, retry_times=10_000, retry_delay=0.01)
    until(lambda: world.recorded() > 4 * MIB)
    server.stop()
    until(lambda: world.told("retry"))
    runs = recorded_runs(world)
    again = start(port=server.port)
    assert task.wait(20)
    world.whole(task)
    found = (re.fullmatch(r"bytes=(\d+)-(\d+)", r.range) for r in again.requests())
    ranges = [(int(each[1]), int(each[2]) + 1) for each in found if each]
    assert ranges
    assert asked_again(runs, ranges) == 0


@pytest.mark.row("the origin, or nginx, is stopped on the way, and started again")
@cases(_origin_restarts, with_nginx(_nginx_restarts), _origin_stays_away)
def test_02_origin_restarts(
    world: World, case: Case, request: pytest.FixtureRequest
) -> None:
    """It goes on, or stays resumable; nothing recorded is asked for again."""
    case(world, request)


# --- 3 - 6: the connection breaks -----------------------------------------------------


@pytest.mark.row("the origin resets its sockets (SO_LINGER 0), or `ss -K` kills ours")
@pytest.mark.parametrize(
    ("where", "processes"),
    [
        (["byte1,12"], 0),
        (["byte100000,12"], 2),
        (["byte1048576,12"], 0),
        (["byte524288,*"], 2),
        ("a random byte of each lane", 0),
        pytest.param("ss", 1, marks=pytest.mark.root),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else str(value),
)
def test_03_reset_in_the_body(
    world: World,
    where: list[str] | str,
    processes: int,
    draw: random.Random,
    request: pytest.FixtureRequest,
) -> None:
    """Every lane that is cut goes on at the exact byte; progress refills the budget."""
    if where == "ss":
        _sockets_are_killed(request, processes)
        return
    if isinstance(where, str):
        where = [f"req{n}.byte{draw.randrange(1, 4 * MIB)}" for n in range(1, 5)]
    world.origin.rate = RATE
    url = world.url(SIZE, f=[f"rst@{each}" for each in where])
    task = world.fetch(url, retry_times=1, processes=processes)
    world.whole(task)
    resets = [
        cut
        for each in where
        for cut in cuts(world, int(re.findall(r"byte(\d+)", each)[0]))
    ]
    assert len(resets) >= 4
    # What the receiver had not read yet is lost: it goes on there, or before.
    assert all(
        cut.offset <= min(gone_on_at(world, cut)) <= cut.offset + cut.sent_bytes
        for cut in resets
        if cut.offset is not None and gone_on_at(world, cut)
    )
    assert world.origin.log.served_twice() < SOCKET_BYTES


def _sockets_are_killed(request: pytest.FixtureRequest, processes: int) -> None:
    (network, _), far = (request.getfixturevalue(name) for name in ("wire", "far"))
    far.origin.total_rate = 8 * MIB
    task = far.start(far.url(SIZE), retry_times=1, processes=processes)
    connected = f"ss -Htn state established dst {SERVER}"
    for enough in (2, 6):
        until(lambda enough=enough: far.recorded() > enough * MIB)
        # What broke the first time writes what it has before it connects again.
        until(lambda: network.client.run(connected).count(SERVER) >= 4)
        killed = network.client.run(f"ss -K dst {SERVER}")
        assert killed.count(SERVER) >= 4
    far.origin.total_rate = None
    assert task.wait(20)
    far.whole(task)
    assert far.origin.log.served_twice() < SOCKET_BYTES


@pytest.mark.row("the origin closes after so many bytes, or before the first one")
@pytest.mark.parametrize(
    ("fault", "brings"),
    [
        ("fin@byte1,12", 1),
        ("fin@byte100000,12", 100_000),
        ("fin@byte1048576,12", 1_048_576),
        ("fin@range3.byte0,*", 0),
        ("fin@byte0,*", 0),
        ("fin@header,*", 0),
        ("fin", 0),
        ("rst", 0),
    ],
)
def test_04_connection_closed_early(world: World, fault: str, brings: int) -> None:
    """It goes on at the next byte; what brings none uses the budget up."""
    world.origin.rate = RATE
    task = world.fetch(world.url(SIZE, f=fault), retry_times=2)
    if brings:
        world.whole(task)
        closed = cuts(world, brings)
        assert len(closed) == 12
        for cut in closed:
            assert cut.offset is not None
            # A lane that had given away what lies beyond does not go on.
            assert min(gone_on_at(world, cut), default=0) in (0, cut.offset + brings)
        assert any(gone_on_at(world, cut) for cut in closed)
        return
    world.failed(task, IncompleteTransfer)
    assert [each["attempt"] for each in world.told("retry")][-2:] == [1, 2]
    # The head of the first answer is what a part is made for.
    headed = "byte" in fault
    assert names(world.out) == ([PART, MANIFEST] if headed else [])
    assert headed or len(world.origin.log.entries) == 3


def _range_is_cut(world: World, kind: str) -> None:
    world.origin.rate = RATE
    task = world.fetch(world.url(SIZE, f=["http10", f"{kind}@byte1000000,6"]))
    world.whole(task)
    assert len(cuts(world, 1_000_000)) == 6


def _file_without_length(world: World, _: str) -> None:
    task = world.fetch(world.url(SIZE, ranges="off", f="http10"))
    world.failed(task, ProtocolError, "closing the connection", "checksum")
    assert names(world.out) == []


def _file_without_length_but_a_checksum(world: World, _: str) -> None:
    checksum = f"sha256:{Blob(1, SIZE).digest()}"
    url = world.url(SIZE, ranges="off", f="http10")
    world.whole(world.fetch(url, checksum=checksum))


def _cut_file_without_length_but_a_checksum(world: World, kind: str) -> None:
    blob = Blob(1, SIZE)
    url = world.url(SIZE, ranges="off", f=["http10", f"{kind}@byte5000000"])
    task = world.fetch(url, checksum=f"sha256:{blob.digest()}")
    if kind == "rst":
        world.whole(task)  # no end in order: the stream begins again
        return
    world.failed(task, IntegrityError, "sha256", blob.digest())
    assert names(world.out) == [f"{NAME}.corrupt"]


def _cut_file_with_length(world: World, kind: str) -> None:
    url = world.url(SIZE, ranges="off", f=f"{kind}@byte5000000")
    task = world.fetch(url)
    world.whole(task)
    assert len(cuts(world, 5_000_000)) == 1
    assert len(world.told("retry")) == 1


@pytest.mark.row("the origin answers as HTTP/1.0 does, and closes or resets early")
@pytest.mark.parametrize(
    ("case", "kind"),
    [
        (_range_is_cut, "fin"),
        (_range_is_cut, "rst"),
        (_file_without_length, ""),
        (_file_without_length_but_a_checksum, ""),
        (_cut_file_without_length_but_a_checksum, "fin"),
        (_cut_file_without_length_but_a_checksum, "rst"),
        (_cut_file_with_length, "fin"),
        (_cut_file_with_length, "rst"),
    ],
    ids=lambda value: value if isinstance(value, str) else case_id(value),
)
def test_05_no_length_and_an_early_end(world: World, case: Case, kind: str) -> None:
    """Content-Range or a checksum tells a cut; where nothing does, it is an error."""
    case(world, kind)


@pytest.mark.row("the origin breaks the chunked framing, or leaves out the last chunk")
@pytest.mark.parametrize(
    ("options", "again"),
    [
        ({"f": "chunkbad@range1,4"}, 4),
        ({"f": "chunkbad@range1,4", "length": "off"}, 4),
        ({"f": "fin@byte1000000,3", "length": "off"}, 3),
        ({"f": "rst@byte1000000,3", "length": "off"}, 3),
        # The range is there, whatever follows.
        ({"f": f"fin@at{SIZE}", "length": "off"}, 0),
        # A stream without length and ranges: only its last chunk says that it is whole.
        ({"f": "fin@byte5000000", "length": "off", "ranges": "off"}, 1),
        ({"f": f"fin@at{SIZE}", "length": "off", "ranges": "off"}, 1),
        ({"f": "chunkbad", "length": "off", "ranges": "off"}, -1),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else "",
)
def test_06_broken_chunks(world: World, options: dict[str, str], again: int) -> None:
    """That answer is over, and the rest is asked for; a stream begins anew."""
    world.origin.rate = None if "ranges" in options else RATE
    task = world.fetch(world.url(SIZE, **options), retry_times=2)
    if again < 0:
        world.failed(task, IncompleteTransfer)
        assert names(world.out) == [PART, MANIFEST]
        return
    world.whole(task)
    broken = [e for e in world.origin.log.settle() if not e.complete]
    assert len(broken) >= max(1, again)
    assert bool(world.told("retry")) == (again > 0 and "ranges" in options)


# --- 7 - 9: the connection is slow, or still ------------------------------------------


def _stalls(fault: str) -> Case:
    def case(world: World) -> None:
        world.origin.rate = RATE
        task = world.fetch(world.url(SIZE, f=fault), timeout=0.5)
        world.whole(task)
        at = int(fault.partition("byte")[2] or 0)
        (stalled,) = cuts(world, at)
        # The rest is asked for again, maybe before the time-out, and then with what
        # waits for a block to be full; nothing waits on that connection.
        assert stalled.range is not None
        begin = stalled.range[0]
        assert begin <= min(gone_on_at(world, stalled)) <= begin + at
        assert world.origin.log.served_twice() < SOCKET_BYTES

    case.__name__ = fault
    return case


def _relay_falls_silent(world: World) -> None:
    world.origin.rate = RATE
    with Toxics(world.origin.port, toxics.mute(2, 700_000)) as relay:
        task = world.fetch(relay.through(world.url(SIZE)), timeout=0.5)
    world.whole(task)
    assert len(world.origin.log.entries) >= 5
    assert world.origin.log.served_twice() < SOCKET_BYTES


def _always_silent(world: World) -> None:
    task = world.fetch(world.url(SIZE, f="hang"), timeout=0.5, retry_times=0)
    world.failed(task, StallError, "too slow")
    assert len(world.origin.log.entries) == 1
    assert names(world.out) == []


def _stall_after_the_last_byte(world: World) -> None:
    # The connection neither closes nor says how long the body is.
    url = world.url(MIB, f=["http10", f"stall@at{MIB}"])
    world.whole(world.fetch(url, timeout=300))
    assert len(world.origin.log.entries) == 1


@pytest.mark.row("the origin, or a relay, sends nothing more and closes nothing")
@cases(
    _stalls("stall@req1.byte0"),
    _stalls("headerhang@req3"),
    _stalls("stall@req3.byte500000"),
    _relay_falls_silent,
    _always_silent,
    _stall_after_the_last_byte,
)
def test_07_stall(world: World, case: Case) -> None:
    """A silent lane is replaced after the time-out; a full one waits for no close."""
    case(world)


def _trickles(rate: str) -> Case:
    def case(world: World) -> None:
        world.origin.rate = RATE
        url = world.url(SIZE, f=f"slow={rate}@req3.byte500000")
        # From 512 bytes/s on it is not stalled, only far slower than the others.
        world.whole(world.fetch(url, timeout=1 if int(rate) < 512 else 60))
        sent = [e.sent_bytes for e in world.origin.log.entries if not e.complete]
        most = 500_000 + max(1000, 20 * int(rate))
        assert any(500_000 <= each <= most for each in sent)

    case.__name__ = f"{rate}_bytes_a_second"
    return case


def _slow_lane_gives_its_work_away(world: World) -> None:
    world.origin.rate = RATE
    world.whole(world.fetch(world.url(SIZE, f="slow=1M@req3")))
    assert min(each.sent_bytes for each in world.origin.log.settle()[:4]) < 2 * MIB


def _bytes_come_one_by_one(world: World) -> None:
    world.origin.rate = RATE
    with Toxics(world.origin.port, toxics.slicer(2, 500_000, 20_000)) as relay:
        world.whole(world.fetch(relay.through(world.url(SIZE)), timeout=300))
    assert world.told("retry") == []


@pytest.mark.row("the origin slows one answer down, or a relay cuts it into bytes")
@cases(
    _trickles("1"),
    _trickles("100"),
    _trickles("1000"),
    _trickles("20000"),
    _slow_lane_gives_its_work_away,
    _bytes_come_one_by_one,
)
def test_08_one_lane_trickles(world: World, case: Case) -> None:
    """It gives its work away, and is cut; all takes about as long as the others do."""
    case(world)


@pytest.mark.nginx
@pytest.mark.row("nginx gives each answer 20 kB/s, after most of it")
def test_09_all_lanes_are_slow(world: World, start_nginx: Callable[..., Nginx]) -> None:
    """Slow lanes that live are no stalled ones; the time left follows the speed."""
    size = 8 * MIB
    server = start_nginx(size, server="limit_rate_after 2000k; limit_rate 20k;")
    # nginx sends a second's worth, once a second.
    task = world.fetch(url_of(world, server), timeout=2)
    world.whole(task)
    assert world.told("retry") == []
    # A lane far slower than one that has ended may be replaced; none has stalled.
    assert len(server.requests()) <= 8
    slow = [each for each in world.told("progress") if each["downloaded"] < size]
    assert len(slow) > 10
    for each in slow:
        rest = each["total"] - each["downloaded"]
        if each["eta"] is not None:
            assert each["eta"] == pytest.approx(rest / each["speed"], abs=1.0)
    assert any(each["eta"] is not None for each in slow)


# --- 10 - 15: the network between, and the way there ----------------------------------


@pytest.mark.root
@pytest.mark.row("the rate of the wire is lowered and raised (tc htb)")
def test_10_rate_collapses_and_recovers(wire: tuple[Network, Path], far: World) -> None:
    """The speed that is told follows; what is above the stall limit is let go on."""
    server = wire[0].server

    def rate(value: str, verb: str = "change") -> None:
        line = "class {} dev v0 parent 1: classid 1:10 htb rate {} quantum 1514"
        server.run(f"tc {line.format(verb, value)}")

    server.run("tc qdisc add dev v0 root handle 1: htb default 10")
    rate("80mbit", "add")
    # The usual queue holds 12 s of the low rate: a lane at its end would stall indeed.
    server.run("tc qdisc add dev v0 parent 1:10 pfifo limit 100")
    task = far.start(far.url(64 * MIB), timeout=5)
    far.origin.log.wait_for(4)
    until(lambda: task.speed > 4 * MIB)
    before = len(far.origin.log.entries)
    rate("4mbit")
    until(lambda: task.speed < MIB)
    until(lambda: (task.eta or 0) > 30)
    rate("80mbit")
    until(lambda: task.speed > 4 * MIB)
    # Nothing was asked for again meanwhile: no lane was taken for a stalled one.
    assert len(far.origin.log.entries) == before == 4
    rate("10gbit")
    assert task.wait(20)
    far.whole(task)
    assert far.told("retry") == []


@pytest.mark.root
@pytest.mark.row("the wire drops what exceeds a queue of 16 kB (tc tbf)")
def test_11_packets_are_lost(wire: tuple[Network, Path], far: World) -> None:
    """The file is whole."""
    server = wire[0].server
    server.run("tc qdisc add dev v0 root tbf rate 50mbit burst 16k limit 16k")
    far.whole(far.fetch(far.url(3 * MIB)))
    shown = server.run("tc -s qdisc show dev v0")
    assert int(re.findall(r"dropped (\d+)", shown)[0]) > 100


ROW_12 = "a blackhole route, the wire's end is down, the client's address is another"


@pytest.mark.root
@pytest.mark.row(ROW_12)
@pytest.mark.parametrize(
    "way",
    ["blackhole", "down", "moved", pytest.param("silence", marks=pytest.mark.full)],
)
def test_12_network_goes_away_for_a_while(
    wire: tuple[Network, Path], far: World, way: str
) -> None:
    """What stalls is broken off, and goes on when the network is back."""
    client, server = wire[0].client, wire[0].server
    breaks, mends = {
        "blackhole": (
            lambda: client.run(f"ip route add blackhole {SERVER}/32"),
            lambda: client.run(f"ip route del blackhole {SERVER}/32"),
        ),
        "silence": (
            lambda: server.run(f"ip route add blackhole {CLIENT}/32"),
            lambda: server.run(f"ip route del blackhole {CLIENT}/32"),
        ),
        "down": (
            lambda: server.run("ip link set v0 down"),
            lambda: server.run("ip link set v0 up"),
        ),
        "moved": (wire[0].leave, wire[0].join),
    }[way]
    far.origin.total_rate = 8 * MIB
    url = far.url(SIZE)
    task = far.start(url, timeout=0.5, retry_times=10_000, retry_delay=0.01)
    until(lambda: far.recorded() > 4 * MIB)
    breaks()
    until(lambda: len(far.told("retry")) >= 2)
    runs, before = recorded_runs(far), len(far.origin.log.entries)
    far.origin.total_rate = None
    mends()
    assert task.wait(20)
    far.whole(task)
    after = far.origin.log.entries[before:]
    assert asked_again(runs, (entry.range for entry in after)) == 0
    assert (MOVED in wire[0].clients()) == (way == "moved")


@pytest.mark.root
@pytest.mark.row(ROW_12)
def test_12_client_moves_to_another_network(
    wire: tuple[Network, Path], far: World
) -> None:
    """Connections from the address that is gone are replaced; what came counts."""
    network, _ = wire
    far.origin.total_rate = 8 * MIB
    task = far.start(far.url(SIZE), timeout=0.5)
    until(lambda: far.recorded() > 4 * MIB)
    runs, old = recorded_runs(far), {e.connection for e in far.origin.log.entries}
    assert network.clients() == {CLIENT}
    network.join()
    network.leave()
    until(lambda: MOVED in network.clients())
    far.origin.total_rate = None
    assert task.wait(20)
    far.whole(task)
    after = [e for e in far.origin.log.entries if e.connection not in old]
    assert asked_again(runs, (entry.range for entry in after)) == 0
    # From the old address nothing came to its end any more.
    assert len(after) >= 4


@pytest.mark.root
@pytest.mark.row(ROW_12)
def test_12_client_moves_between_two_downloads(
    wire: tuple[Network, Path], far: World
) -> None:
    """One idle connection that is dead makes the others suspect: they cost nothing."""
    network, _ = wire
    engine = far.engine(timeout=1, retry_times=2, max_workers=6)
    # Six at the same time leave six connections behind, more than may fail.
    far.origin.rate = MIB // 16
    url = far.url(MIB // 4, seed=2)
    small = [far.start(url, engine=engine, filename=f"{n}.bin") for n in range(6)]
    far.origin.log.wait_for(6)
    far.origin.rate = None
    assert all(task.wait(20) for task in small)
    old = {entry.connection for entry in far.origin.log.settle()}
    assert len(old) == 6
    network.join()
    network.leave()
    far.out = far.out.with_name("next")
    task = far.start(far.url(SIZE), engine=engine)
    assert task.wait(20)
    far.whole(task, far.origin.blob(1, SIZE))
    # The second one, when the machine was too quick: ages are compared in seconds.
    assert 1 <= len(far.told("retry")) <= 2
    after = far.origin.log.entries[6:]
    assert {entry.connection for entry in after} & old == set()
    assert MOVED in network.clients()


def _full_backlog(world: World, _: Any) -> None:
    """Make connects to a listener whose queue is full, which drops them."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            url = world.with_secrets(f"http://127.0.0.1:{port}/a")
            task = world.fetch(url, timeout=0.3, retry_times=1)
    world.failed(task, ConnectError, f"127.0.0.1:{port}", "timed out")
    assert len(world.told("retry")) == 1
    assert names(world.out) == []


def _next_address(_: World, request: pytest.FixtureRequest) -> None:
    (network, etc), far = (request.getfixturevalue(name) for name in ("wire", "far"))
    lose(network.client, LOST)
    (etc / "hosts").write_text(f"{LOST} two.test\n{SERVER} two.test\n")
    url = far.url(SIZE).replace(SERVER, "two.test")
    far.whole(far.fetch(url, timeout=1, processes=1))
    assert far.told("retry") == []
    assert in_vain(network, far) >= 1


def _no_address(_: World, request: pytest.FixtureRequest) -> None:
    (network, _), far = (request.getfixturevalue(name) for name in ("wire", "far"))
    lose(network.client, LOST)
    url = far.url(SIZE).replace(SERVER, LOST)
    task = far.fetch(url, timeout=0.3, retry_times=1)
    far.failed(task, ConnectError, LOST, "timed out")
    assert len(far.told("retry")) == 1


def in_vain(network: Network, far: World) -> int:
    """Count the client's connects that did not reach the origin."""
    lines = network.client.run("grep ^Tcp: /proc/net/snmp").splitlines()
    counts = dict(zip(*(line.split() for line in lines), strict=True))
    reached = {entry.connection for entry in far.origin.log.entries}
    return int(counts["ActiveOpens"]) - len(reached)


def lose(client: namespaces.Namespace, address: str) -> None:
    """Have what is sent to an address lost: it goes to a device that is not there."""
    client.run(f"ip neighbour add {address} lladdr 02:00:00:00:00:09 dev v0")


@pytest.mark.row("a listener with a full backlog, or a route to nobody, drops SYNs")
@cases(_full_backlog, as_root(_no_address), as_root(_next_address))
def test_13_connects_are_dropped(
    world: World, case: Case, request: pytest.FixtureRequest
) -> None:
    """The time-out ends it, then the next address is tried, or an error tells where."""
    case(world, request)


@pytest.mark.root
@pytest.mark.row("a name with an IPv6 address that is lost, refused or unreachable")
@pytest.mark.parametrize(
    ("way", "processes"),
    [("lost", 0), ("lost", 1), ("refused", 0), ("unreachable", 0)],
)
def test_14_ipv6_is_broken(
    wire: tuple[Network, Path], far: World, way: str, processes: int
) -> None:
    """IPv4 is used soon (RFC 8305), long before the time-out."""
    network, etc = wire
    address = SERVER6 if way == "refused" else LOST6
    if way == "lost":
        lose(network.client, LOST6)
    elif way == "unreachable":
        network.client.run(f"ip route add unreachable {LOST6}/128")
    (etc / "hosts").write_text(f"{address} both.test\n{SERVER} both.test\n")
    url = far.url(SIZE).replace(SERVER, "both.test")
    far.whole(far.fetch(url, timeout=300, processes=processes))
    assert far.told("retry") == []
    if way != "unreachable":
        assert in_vain(network, far) >= 1


class Names:
    """
    A name server on port 53 of a network's loopback.

    Args:
        address: What `origin.test` has; no other name is known.
        failures: So many questions are answered with "server failure" first.

    Attributes:
        asked: How many questions there were.
    """

    def __init__(self, address: str, failures: int = 0) -> None:
        self._address = socket.inet_aton(address)
        self._failures = failures
        self.asked = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 53))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join(10)
        self._socket.close()

    def _run(self) -> None:
        while question := self._socket.recvfrom(512):
            data, sender = question
            if not data:
                return
            self.asked += 1
            self._socket.sendto(self._answer(data), sender)

    def _answer(self, data: bytes) -> bytes:
        """Answer a question (RFC 1035 s4.1)."""
        end = data.index(b"\0", 12) + 5
        name, kind = data[12 : end - 4], data[end - 4 : end - 2]
        known = name == b"\6origin\4test\0"
        code, answers = (0 if known else 3), 0
        if self.asked <= self._failures:
            code = 2
        elif known and kind == b"\0\1":
            answers = 1
        record = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + self._address
        head = data[:2] + bytes([0x81, 0x80 | code]) + b"\0\1\0" + bytes([answers])
        return head + b"\0\0\0\0" + data[12:end] + record * answers


def _name_server_fails_for_a_while(_: World, request: pytest.FixtureRequest) -> None:
    (network, _), far = (request.getfixturevalue(name) for name in ("wire", "far"))
    with closing(network.client.call(Names, SERVER, failures=6)):
        url = far.url(SIZE).replace(SERVER, "origin.test")
        task = far.fetch(url, retry_times=20, processes=1)
    far.whole(task)
    told = [each["reason"] for each in far.told("retry")]
    assert told
    assert all("origin.test" in each for each in told)


def _name_server_comes_later(_: World, request: pytest.FixtureRequest) -> None:
    (network, _), far = (request.getfixturevalue(name) for name in ("wire", "far"))
    url = far.url(SIZE).replace(SERVER, "origin.test")
    task = far.start(url, retry_times=10_000, processes=1)
    until(lambda: len(far.told("retry")) >= 2)
    with closing(network.client.call(Names, SERVER)):
        assert task.wait(20)
    far.whole(task)


def _name_is_unknown(_: World, request: pytest.FixtureRequest) -> None:
    (network, _), far = (request.getfixturevalue(name) for name in ("wire", "far"))
    with closing(network.client.call(Names, SERVER)) as server:
        url = far.url(SIZE).replace(SERVER, "other.test")
        task = far.fetch(url, retry_times=2, processes=1)
    far.failed(task, ConnectError, "other.test")
    assert len(far.told("retry")) == 2
    assert 1 <= server.asked <= 6  # for each attempt an A and an AAAA record
    assert names(far.out) == []


def _name_is_impossible(world: World, _: Any) -> None:
    """Take a name that no name server is asked for: a label of more than 63 letters."""
    host = f"{'a' * 64}.test"
    task = world.fetch(world.with_secrets(f"http://{host}/a"), retry_times=2)
    world.failed(task, ConnectError, host)
    assert len(world.told("retry")) == 2
    assert names(world.out) == []


@pytest.mark.row("a name server that fails, is late, or does not know the name")
@cases(
    as_root(_name_server_fails_for_a_while),
    as_root(_name_server_comes_later),
    as_root(_name_is_unknown),
    _name_is_impossible,
)
def test_15_name_lookup_fails(
    world: World,
    case: Case,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is tried again within the budget; the error names the host."""
    monkeypatch.setenv("no_proxy", "*")
    case(world, request)


# --- 16 - 17: TLS ---------------------------------------------------------------------

Certified = Callable[..., Origin]


@pytest.fixture
def certified(
    world: World, segdl_origin_factory: Callable[..., Origin], tmp_path: Path
) -> Certified:
    """Give a function that starts an origin with an authority of its own."""
    trustme = pytest.importorskip("trustme", reason="it makes the certificates")

    def start(*hosts: str, **options: Any) -> Origin:
        authority = trustme.CA()
        certificate = authority.issue_cert(*hosts, **options)
        directory = tmp_path / f"tls-{len(world.origins)}"
        directory.mkdir()
        files = {name: str(directory / f"{name}.pem") for name in ("ca", "crt", "key")}
        authority.cert_pem.write_to_path(files["ca"])
        certificate.private_key_pem.write_to_path(files["key"])
        for pem in certificate.cert_chain_pems:
            pem.write_to_path(files["crt"], append=True)
        world.origins.append(
            segdl_origin_factory(
                tls=TlsFiles(
                    cert_file=files["crt"], key_file=files["key"], ca_file=files["ca"]
                )
            )
        )
        return world.origins[-1]

    return start


def _unknown_authority(certified: Certified) -> tuple[Origin, str | None, str]:
    return certified("127.0.0.1"), None, "ca_file"


def _other_authority(certified: Certified) -> tuple[Origin, str | None, str]:
    return certified("127.0.0.1"), certified("127.0.0.1").ca_file, "certificate"


def _wrong_host(certified: Certified) -> tuple[Origin, str | None, str]:
    origin = certified("segdl.example")
    return origin, origin.ca_file, "127.0.0.1"


def _expired(certified: Certified) -> tuple[Origin, str | None, str]:
    now = datetime.now(timezone.utc)
    times = {"not_before": now - timedelta(2), "not_after": now - timedelta(1)}
    origin = certified("127.0.0.1", **times)
    return origin, origin.ca_file, "expired"


def _not_valid_yet(certified: Certified) -> tuple[Origin, str | None, str]:
    now = datetime.now(timezone.utc)
    times = {"not_before": now + timedelta(1), "not_after": now + timedelta(2)}
    origin = certified("127.0.0.1", **times)
    return origin, origin.ca_file, "not yet valid"


@pytest.mark.row("certificates made for it (trustme)")
@pytest.mark.parametrize(
    ("case", "processes"),
    [
        (_unknown_authority, 0),
        (_unknown_authority, 1),
        (_other_authority, 0),
        (_wrong_host, 0),
        (_wrong_host, 1),
        (_expired, 0),
        (_not_valid_yet, 0),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else case_id(value),
)
def test_16_certificate_that_proves_nothing(
    world: World, certified: Certified, case: Case, processes: int
) -> None:
    """A TlsError at once: nothing is asked, nothing is written, nothing tried again."""
    origin, ca_file, word = case(certified)
    url = world.with_secrets(origin.blob_url(1, SIZE))
    task = world.fetch(url, ca_file=ca_file, processes=processes)
    world.failed(task, TlsError, "127.0.0.1", word)
    assert origin.log.entries == ()
    assert world.told("retry") == []
    assert names(world.out) == []


def _tls_is_cut(fault: list[str]) -> Case:
    def case(world: World) -> None:
        url = world.url(SIZE, f=fault)
        world.whole(world.fetch(url, ca_file=world.origin.ca_file, retry_times=1))
        closed = cuts(world, 1_000_000)
        assert len(closed) == 5
        if "rst" not in fault[-1]:
            for cut in closed:
                at = (cut.offset or 0) + 1_000_000
                assert min(gone_on_at(world, cut), default=at) == at

    case.__name__ = "-".join(fault)
    return case


def _handshakes_are_reset(world: World) -> None:
    with Toxics(world.origin.port, resets=2) as relay:
        url = relay.through(world.url(SIZE))
        task = world.fetch(url, ca_file=world.origin.ca_file, retry_times=2)
    world.whole(task)
    assert len(world.told("retry")) == 2


def _every_handshake_is_reset(world: World) -> None:
    with Toxics(world.origin.port, resets=1000) as relay:
        url = relay.through(world.url(SIZE))
        task = world.fetch(url, ca_file=world.origin.ca_file, retry_times=2)
    world.failed(task, TlsError, str(relay.port))
    assert relay.connections == 3
    assert names(world.out) == []


@pytest.mark.row("the origin closes below TLS, or a relay resets the handshake")
@cases(
    _tls_is_cut(["fin@byte1000000,5"]),
    _tls_is_cut(["rst@byte1000000,5"]),
    # A truncation attack: only Content-Range tells it.
    _tls_is_cut(["http10", "fin@byte1000000,5"]),
    _tls_is_cut(["http10", "rst@byte1000000,5"]),
    _handshakes_are_reset,
    _every_handshake_is_reset,
)
def test_17_tls_is_cut(tls_world: World, case: Case) -> None:
    """An end without close_notify is a cut like others; a handshake is tried again."""
    tls_world.origin.rate = RATE
    case(tls_world)


# --- 18 - 19: those between -----------------------------------------------------------


def _reload(world: World, start_nginx: Callable[..., Nginx], **options: str) -> Nginx:
    server = start_nginx(server="limit_rate 4m;", **options)
    task = world.start(url_of(world, server), retry_times=0)
    until(lambda: world.recorded() > 3 * MIB)
    server.configure(server="")
    server.reload()
    assert task.wait(20)
    world.whole(task)
    return server


def _workers_finish(world: World, request: pytest.FixtureRequest) -> None:
    server = _reload(world, request.getfixturevalue("start_nginx"))
    assert {each.status for each in server.requests()} == {206}


def _workers_are_ended(world: World, request: pytest.FixtureRequest) -> None:
    """Have nginx cut, a moment later, what its old workers still send."""
    server = _reload(
        world,
        request.getfixturevalue("start_nginx"),
        main="worker_shutdown_timeout 100ms;",
    )
    assert len(server.requests()) >= 8  # four that were cut, and what followed


def _http2_is_offered(world: World, request: pytest.FixtureRequest) -> None:
    """Offer HTTP/2, and refuse what comes by another protocol than HTTP/1.1."""
    files = request.getfixturevalue("segdl_tls_files")
    server = request.getfixturevalue("start_nginx")(
        tls=files,
        listen="http2",
        server='if ($server_protocol != "HTTP/1.1") { return 505; }',
    )
    task = world.fetch(url_of(world, server), ca_file=files.ca_file)
    world.whole(task)
    until(lambda: len(server.requests()) >= 4)
    # A connection each: HTTP/2 would fold the lanes into one (and GOAWAY end all).
    assert len({each.connection for each in server.requests()}) >= 4


@pytest.mark.row("nginx is reloaded on the way, and ends its workers; it offers HTTP/2")
@cases(*map(with_nginx, (_workers_finish, _workers_are_ended, _http2_is_offered)))
def test_18_server_is_reloaded(
    world: World, case: Case, request: pytest.FixtureRequest
) -> None:
    """Nothing of it counts as a failure: there is no attempt to spare."""
    case(world, request)
    assert world.told("retry") == []


@pytest.fixture
def start_proxy() -> Iterator[Callable[..., Proxy]]:
    """Give a function that starts a proxy; it is stopped after the test."""
    proxies: list[Proxy] = []

    def start(password: str | None = None, port: int = 0) -> Proxy:
        proxies.append(Proxy(password, port))
        return proxies[-1]

    yield start
    for proxy in proxies:
        proxy.close()


@dataclass(frozen=True)
class Between:
    """
    What a case with a proxy works with.

    Attributes:
        world: Of the plain or of the TLS origin.
        start: Starts a proxy.
        patch: Sets the environment.
    """

    world: World
    start: Callable[..., Proxy]
    patch: pytest.MonkeyPatch

    @property
    def password(self) -> str:
        """Value of Proxy-Authorization with the secret of the environment."""
        user = f"proxy-user:{self.world.secrets.environment}"
        return "Basic " + base64.b64encode(user.encode()).decode()

    def address(self, proxy: Proxy, user: str = "") -> str:
        """Give the URL of a proxy, with the right password or another one."""
        user = user or f"proxy-user:{self.world.secrets.environment}"
        return f"http://{user}@{proxy.address}"

    def fetch(self, proxy: str | None, **options: Any) -> Any:
        """Download through a proxy."""
        world = self.world
        ca_file = world.origin.ca_file
        return world.fetch(world.url(SIZE), proxy=proxy, ca_file=ca_file, **options)


def _password_is_right(between: Between) -> None:
    proxy = between.start(between.password)
    between.world.whole(between.fetch(between.address(proxy)))
    for request in between.world.origin.log.entries:
        assert "proxy-authorization" not in request.headers
    if between.world.origin.tls is not None:
        # What is for the origin is in the tunnel.
        assert {command for command, _, _ in proxy.asked} == {"CONNECT"}
        assert not between.world.secrets.found_in(
            repr([(target, f.get("authorization")) for _, target, f in proxy.asked])
        )


def _password_is_in_the_environment(between: Between) -> None:
    proxy = between.start(between.password)
    for name in ("http_proxy", "https_proxy"):
        between.patch.setenv(name, between.address(proxy))
    between.world.whole(between.fetch(None, processes=1))
    assert proxy.asked
    for request in between.world.origin.log.entries:
        assert "proxy-authorization" not in request.headers


def _password_is_wrong(between: Between) -> None:
    proxy = between.start(between.password)
    task = between.fetch(between.address(proxy, "proxy-user:canary-wrong"))
    error = between.world.failed(task, StatusError, "407", "the proxy wants")
    assert isinstance(error, StatusError)
    assert error.status == 407
    assert "canary-wrong" not in str(error)
    assert len(proxy.asked) == 1
    assert between.world.origin.log.entries == ()
    assert names(between.world.out) == []


def _refuses(status: int, attempts: int) -> Case:
    def case(between: Between) -> None:
        proxy = between.start("nobody knows it")
        proxy.refusal = status
        task = between.fetch(f"http://{proxy.address}", retry_times=2)
        error = between.world.failed(task, StatusError, str(status))
        if between.world.origin.tls is not None:
            assert f"the proxy answered {status}" in str(error)
        assert len(proxy.asked) == attempts
        assert between.world.origin.log.entries == ()

    case.__name__ = f"refuses_with_{status}"
    return case


def _is_not_there(between: Between) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        secret = between.world.secrets.environment
        address = f"http://proxy-user:{secret}@127.0.0.1:{port}"
        task = between.fetch(address, retry_times=1)
    between.world.failed(task, ConnectError, "proxy")
    assert len(between.world.told("retry")) == 1
    assert names(between.world.out) == []


def _dies_on_the_way(between: Between) -> None:
    world, proxy = between.world, between.start(between.password)
    world.origin.rate = 4 * MIB
    task = world.start(
        world.url(SIZE),
        proxy=between.address(proxy),
        ca_file=world.origin.ca_file,
        retry_times=2,
    )
    until(lambda: world.recorded() > 4 * MIB)
    proxy.die()
    assert task.wait(20)
    world.failed(task, ConnectError, "proxy")
    runs, before = recorded_runs(world), len(world.origin.log.entries)
    # Another one in its place, and it goes on.
    again = between.start(between.password, proxy.server_port)
    world.origin.rate = None
    assert task.resume()
    assert task.wait(20)
    world.whole(task)
    assert again.asked
    after = world.origin.log.entries[before:]
    assert asked_again(runs, (entry.range for entry in after)) == 0


@pytest.mark.row("a proxy that wants a password, refuses, is not there, or dies")
@pytest.mark.parametrize("tls", [False, True], ids=["relay", "tunnel"])
@cases(
    _password_is_right,
    _password_is_in_the_environment,
    _password_is_wrong,
    _refuses(403, 1),
    _refuses(502, 3),
    _is_not_there,
    _dies_on_the_way,
)
def test_19_proxy(
    tls: bool,
    case: Case,
    request: pytest.FixtureRequest,
    start_proxy: Callable[..., Proxy],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error is about the proxy; its password is for it alone."""
    world = request.getfixturevalue("tls_world" if tls else "world")
    monkeypatch.delenv("no_proxy")
    case(Between(world, start_proxy, monkeypatch))


# --- 20: what comes is not what was sent ----------------------------------------------


@dataclass(frozen=True)
class Flipped(Blob):
    """
    A blob with one bit flipped.

    Args:
        at: Offset of the byte whose lowest bit it is.
    """

    at: int

    def read(self, begin: int = 0, end: int | None = None) -> bytes:
        """Give the bytes of [begin, end)."""
        data = bytearray(Blob.read(self, begin, end))
        if begin <= self.at < begin + len(data):
            data[self.at - begin] ^= 1
        return bytes(data)

    def digest(self, algorithm: str = "sha256") -> str:
        """Give the digest of the whole."""
        return hashlib.new(algorithm, self.read()).hexdigest()


FLIPPED_AT = 400_000


def _digest_is_given(world: World) -> None:
    digest = Blob(1, SIZE).digest()
    with Toxics(world.origin.port, toxics.flip(2, FLIPPED_AT)) as relay:
        url = relay.through(world.url(SIZE))
        _is_found(world, world.fetch(url, checksum=f"sha256:{digest}"))


def _digest_is_stated(world: World) -> None:
    with Toxics(world.origin.port, toxics.flip(2, FLIPPED_AT)) as relay:
        _is_found(world, world.fetch(relay.through(world.url(SIZE, digest="sha-256"))))


def _is_found(world: World, task: Any) -> None:
    """Check that nothing was published, and that what came was kept aside."""
    blob, aside = Blob(1, SIZE), f"{NAME}.corrupt"
    error = world.failed(task, IntegrityError, "sha256", blob.digest(), aside)
    assert isinstance(error, IntegrityError)
    assert (error.algorithm, error.expected) == ("sha256", blob.digest())
    assert names(world.out) == [aside]
    flipped = flipped_of(blob, (world.out / aside).read_bytes())
    assert error.actual == flipped.digest()


def _nothing_tells(world: World) -> None:
    """Show the limit that the README tells of: a file like any other, and wrong."""
    with Toxics(world.origin.port, toxics.flip(2, FLIPPED_AT)) as relay:
        task = world.fetch(relay.through(world.url(SIZE)))
    flipped = flipped_of(Blob(1, SIZE), Path(task.result(0)).read_bytes())
    world.whole(task, world.allow(flipped))


def flipped_of(blob: Blob, content: bytes) -> Flipped:
    """Find the byte that differs, the only one."""
    right = blob.read()
    low, high = 0, blob.size
    while high - low > 1:
        middle = (low + high) // 2
        if content[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle
    flipped = Flipped(blob.seed, blob.size, low)
    assert content == flipped.read()
    return flipped


def _tls_finds_it(world: World) -> None:
    with Toxics(world.origin.port, toxics.flip(2, FLIPPED_AT)) as relay:
        url = relay.through(world.url(SIZE))
        world.whole(world.fetch(url, ca_file=world.origin.ca_file))
    assert len(world.origin.log.entries) >= 5


@pytest.mark.row("a relay flips one bit of what comes down")
@cases(_digest_is_given, _digest_is_stated, _nothing_tells, _tls_finds_it)
def test_20_bit_is_flipped(case: Case, request: pytest.FixtureRequest) -> None:
    """A digest, or TLS, finds it, and it is not published; nothing else can tell."""
    tls = case is _tls_finds_it
    world = request.getfixturevalue("tls_world" if tls else "world")
    world.origin.rate = RATE
    case(world)
