"""Connections that break, stall or lie (matrix rows 1 - 8, 17 and 20)."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

import pytest
from http_checks import (
    MIB,
    NAME,
    check_failed,
    check_whole,
    file_digest,
    names,
    peak,
    recorded_bytes,
    until,
)

from segdl.errors import (
    ConnectError,
    IncompleteTransfer,
    IntegrityError,
    ProtocolError,
    StallError,
)

SIZE = 20 * MIB + 4321
RATE = 24 * MIB


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Give a port on which nothing listens, and nothing else will meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_01_connection_refused(fetch, out, closed_port) -> None:
    """A refused connection is tried again as often as said, then an error."""
    task = fetch(f"http://127.0.0.1:{closed_port}/a", retry_times=2)
    check_failed(task, ConnectError, f"127.0.0.1:{closed_port}")
    assert names(out) == []


def test_01_name_that_does_not_resolve(fetch, out) -> None:
    """A host name that is not known is an error that names it (RFC 6761 .invalid)."""
    task = fetch("http://segdl.invalid/a", retry_times=0)
    check_failed(task, ConnectError, "segdl.invalid")
    assert names(out) == []


def test_01_first_connection_is_refused(origin, make_engine, out) -> None:
    """An origin that comes up a moment later is found."""
    url = origin.blob_url(1, 1000)
    origin.stop()
    engine = make_engine(retry_times=100, retry_delay=0.01)
    task = engine.download(url, out, NAME)
    retried = threading.Event()
    engine.register_event_callback(
        lambda event: retried.set() if event.kind == "retry" else None
    )
    assert retried.wait(10)
    origin.start()
    assert task.wait(10)
    check_whole(task, origin.blob(1, 1000))


def test_02_origin_restarts(origin, make_engine, out) -> None:
    """A restart of the origin costs what was in flight, nothing more."""
    origin.rate = 4 * MIB
    engine = make_engine(retry_times=50, retry_delay=0.02)
    task = engine.download(origin.blob_url(1, SIZE), out, NAME)
    until(lambda: task.downloaded_size > 5 * MIB)
    origin.stop()
    origin.rate = None
    origin.start()
    assert task.wait(10)
    check_whole(task, origin.blob(1, SIZE))
    assert origin.log.served_twice() < 5 * MIB


def test_02_origin_that_stays_away(origin, make_engine, out) -> None:
    """When the origin does not come back, what is there stays resumable."""
    origin.rate = 4 * MIB
    engine = make_engine(retry_times=1)
    task = engine.download(origin.blob_url(1, SIZE), out, NAME)
    until(lambda: task.downloaded_size > 5 * MIB)
    origin.stop()
    assert task.wait(10)
    check_failed(task, ConnectError)
    assert recorded_bytes(out, origin.blob(1, SIZE)) >= 4 * MIB


@pytest.mark.parametrize("kind", ["rst", "fin"])
@pytest.mark.parametrize("where", ["byte1", "byte100000", "byte1048576"])
@pytest.mark.parametrize("times", [2, 12])
def test_03_04_connection_ends_early(origin, fetch, kind, where, times) -> None:
    """Every lane that is cut goes on at the exact byte; progress refills the budget."""
    origin.rate = RATE
    url = origin.blob_url(1, SIZE, f=f"{kind}@{where},{times}")
    check_whole(fetch(url, retry_times=2), origin.blob(1, SIZE))


@pytest.mark.parametrize("processes", [0, 2])
def test_03_every_lane_is_reset_again_and_again(origin, fetch, processes) -> None:
    """Resets after every half MiB are no reason to give up, as long as bytes come."""
    origin.rate = RATE
    url = origin.blob_url(1, SIZE, f="rst@byte524288,*")
    task = fetch(url, retry_times=1, processes=processes)
    check_whole(task, origin.blob(1, SIZE))
    # A reset takes what the receiver's buffer still held.
    assert origin.log.served_twice() < 8 * MIB


@pytest.mark.parametrize("fault", ["rst", "fin", "rst@header,*", "fin@header,*"])
def test_04_connection_ends_without_a_byte(origin, fetch, out, fault) -> None:
    """No byte is no progress: the budget ends, and the error says what happened."""
    task = fetch(origin.blob_url(1, SIZE, f=fault), retry_times=2)
    check_failed(task, IncompleteTransfer)
    assert names(out) == []


def test_04_no_byte_after_the_first_lanes(origin, fetch, out) -> None:
    """Lanes that bring nothing use the budget up, although the head was right."""
    origin.rate = RATE
    url = origin.blob_url(1, SIZE, f="fin@range3.byte0,*")
    task = fetch(url, retry_times=2)
    check_failed(task, IncompleteTransfer)
    assert recorded_bytes(out, origin.blob(1, SIZE)) > 0


@pytest.mark.parametrize("kind", ["rst", "fin"])
def test_05_cut_of_a_range_without_content_length(origin, fetch, kind) -> None:
    """Content-Range tells how long a body is that only its end delimits."""
    origin.rate = RATE
    url = origin.blob_url(1, SIZE, f=["http10", f"{kind}@byte1000000,6"])
    check_whole(fetch(url), origin.blob(1, SIZE))


def test_05_whole_file_without_any_length(origin, fetch, out) -> None:
    """A 200 that the end of the connection ends may be cut: refused."""
    task = fetch(origin.blob_url(1, SIZE, ranges="off", f="http10"))
    check_failed(task, ProtocolError, "closing the connection", "checksum")
    assert names(out) == []


@pytest.mark.parametrize("cut", [False, True])
def test_05_whole_file_without_any_length_but_a_checksum(
    origin, fetch, out, cut
) -> None:
    """With a checksum such an answer is taken, and a cut is found."""
    faults = ["http10", *(["fin@byte5000000"] if cut else [])]
    url = origin.blob_url(1, SIZE, ranges="off", f=faults)
    task = fetch(url, checksum=f"sha256:{origin.blob(1, SIZE).digest()}")
    if cut:
        check_failed(task, IntegrityError, "sha256")
        assert names(out) == [f"{NAME}.corrupt"]
    else:
        check_whole(task, origin.blob(1, SIZE))


@pytest.mark.parametrize("options", [{}, {"length": "off"}])
def test_06_chunked_framing_breaks(origin, fetch, options) -> None:
    """A chunk that breaks the grammar ends that answer, and the rest is asked for."""
    url = origin.blob_url(1, SIZE, f="chunkbad@range1,4", **options)
    check_whole(fetch(url), origin.blob(1, SIZE))


@pytest.mark.parametrize("kind", ["rst", "fin"])
def test_06_last_chunk_is_missing(origin, fetch, kind) -> None:
    """A chunked range that ends before its last chunk is gone on with."""
    url = origin.blob_url(1, SIZE, length="off", f=f"{kind}@byte1000000,3")
    check_whole(fetch(url), origin.blob(1, SIZE))


def test_06_whole_file_whose_last_chunk_is_missing(origin, fetch) -> None:
    """A stream without length and ranges that breaks begins anew, from byte 0."""
    url = origin.blob_url(1, SIZE, ranges="off", length="off", f="fin@req4.byte5000000")
    check_whole(fetch(url), origin.blob(1, SIZE))


@pytest.mark.parametrize(
    "fault", ["hang@req1", "headerhang@req1", "stall@req1.byte0", "stall@req3.byte0"]
)
def test_07_stall_before_the_body(origin, fetch, fault) -> None:
    """A connection that falls silent is replaced after the time-out."""
    origin.rate = RATE
    task = fetch(origin.blob_url(1, SIZE, f=fault), timeout=1)
    check_whole(task, origin.blob(1, SIZE))


@pytest.mark.parametrize("fault", ["stall@req3.byte500000", "slow=100@req3.byte500000"])
def test_07_08_stall_or_trickle_in_the_body(origin, fetch, fault) -> None:
    """A lane that stalls, or trickles, goes on at its byte over a new connection."""
    origin.rate = RATE
    task = fetch(origin.blob_url(1, SIZE, f=fault), timeout=1)
    check_whole(task, origin.blob(1, SIZE))
    assert origin.log.served_twice() < 5 * MIB


@pytest.mark.parametrize("fault", ["hang", "headerhang", "stall"])
def test_07_origin_that_never_says_anything(origin, fetch, out, fault) -> None:
    """An origin that is always silent ends in a StallError."""
    task = fetch(origin.blob_url(1, SIZE, f=fault), timeout=1, retry_times=1)
    check_failed(task, StallError)
    assert [name for name in names(out) if name == NAME] == []


def test_07_stall_after_the_last_byte(origin, fetch) -> None:
    """A range is done when its last byte is there, not when the connection closes."""
    url = origin.blob_url(1, 3 * MIB, f=["http10", f"stall@at{3 * MIB}"])
    check_whole(fetch(url, timeout=60), origin.blob(1, 3 * MIB))


def test_08_slow_lane_gives_its_work_away(origin, fetch) -> None:
    """Of a lane far slower than the others, all but little is taken over."""
    origin.rate = RATE
    url = origin.blob_url(1, SIZE, f="slow=1M@req3")
    check_whole(fetch(url), origin.blob(1, SIZE))
    assert origin.log.entries[2].sent_bytes < 2 * MIB


@pytest.mark.parametrize("connections", [1, 2, 7])
def test_never_more_connections_than_said(origin, fetch, connections) -> None:
    """The number of connections is a limit."""
    origin.rate = 12 * MIB
    task = fetch(origin.blob_url(1, SIZE), connections=connections)
    check_whole(task, origin.blob(1, SIZE))
    assert peak(origin) <= connections


def test_20_corruption_is_found_by_a_checksum(origin, fetch, out) -> None:
    """One flipped bit, and nothing is published; what came is kept aside."""
    digest = origin.blob(1, SIZE).digest()
    url = origin.blob_url(1, SIZE, f="corrupt@at3000000")
    task = fetch(url, checksum=f"sha256:{digest}")
    error = check_failed(task, IntegrityError, "sha256", digest, f"{NAME}.corrupt")
    assert (error.algorithm, error.expected) == ("sha256", digest)
    assert error.actual == file_digest(out / f"{NAME}.corrupt")
    assert names(out) == [f"{NAME}.corrupt"]


def test_connection_close(origin, fetch) -> None:
    """An origin that closes after each answer is no failure."""
    url = origin.blob_url(1, SIZE, f="close")
    check_whole(fetch(url, retry_times=0), origin.blob(1, SIZE))


class Slammer:
    """Accepts connections and resets each at once, during the TLS handshake."""

    def __init__(self) -> None:
        self.count = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._server.accept()
                self.count += 1
                sock.recv(1)
                sock.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
                sock.close()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(5)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_17_reset_in_the_handshake_or_request(fetch, out, scheme) -> None:
    """A connection that is reset at once is tried again within the budget."""
    slammer = Slammer()
    try:
        task = fetch(f"{scheme}://127.0.0.1:{slammer.port}/a", retry_times=2)
    finally:
        slammer.close()
    assert task.status == "failed"
    assert slammer.count == 3
    assert names(out) == []


@pytest.mark.parametrize("kind", ["rst", "fin"])
def test_17_tls_connection_ends_early(tls_origin, fetch, kind) -> None:
    """TLS that ends without close_notify is a cut like others."""
    url = tls_origin.blob_url(1, SIZE, f=f"{kind}@byte1000000,5")
    task = fetch(url, ca_file=tls_origin.ca_file)
    check_whole(task, tls_origin.blob(1, SIZE))


@pytest.mark.parametrize("kind", ["rst", "fin"])
def test_17_tls_cut_of_a_range_without_length(tls_origin, fetch, kind) -> None:
    """A truncation attack on a body without length is found by Content-Range."""
    url = tls_origin.blob_url(1, SIZE, f=["http10", f"{kind}@byte1000000,5"])
    task = fetch(url, ca_file=tls_origin.ca_file)
    check_whole(task, tls_origin.blob(1, SIZE))
