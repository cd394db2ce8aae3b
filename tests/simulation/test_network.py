"""The modelled server: shares, slow start, refusals, stalls, resets, changes."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulation.clock import BEGIN_SECONDS, Clock
from simulation.ideal import ideal_seconds
from simulation.network import (
    INITIAL_WINDOW_BYTES,
    Change,
    Connection,
    Network,
    Server,
    go_on,
    max_min,
)

RATES = st.floats(0, 1e9)


class Client:
    """Connections without lanes, and when each body ended."""

    def __init__(self, server: Server, seed: int = 1) -> None:
        self.clock = Clock()
        self.network = Network(server, self.clock, seed)
        self.endings: dict[Connection, tuple[str, float]] = {}

    def get(self, count: int, connection: Connection | None = None) -> Connection:
        """Have a body delivered, at once."""
        found = connection or self.network.open()

        def over(how: str) -> None:
            self.endings[found] = how, round(self.clock.now - BEGIN_SECONDS, 6)

        self.network.start(found, count, over)
        return found

    def wait(self, seconds: float = inf) -> None:
        """Let time pass; without a number, until nothing more happens."""
        last = self.clock.now + seconds
        while go_on(self.clock, self.network, last):
            pass


# --- shares ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "total", "rates"),
    [
        ([], 10.0, []),
        ([1.0, 2.0], 10.0, [1.0, 2.0]),
        ([9.0, 9.0], 10.0, [5.0, 5.0]),
        ([1.0, 9.0, 9.0], 9.0, [1.0, 4.0, 4.0]),
        ([9.0, 1.0, 3.0, 0.0], 8.0, [4.0, 1.0, 3.0, 0.0]),
        ([inf, inf, 1.0], 5.0, [2.0, 2.0, 1.0]),
        ([inf], 5.0, [5.0]),
    ],
)
def test_who_wants_less_leaves_it_to_the_others(
    limits: list[float], total: float, rates: list[float]
) -> None:
    """A connection that can't use its share leaves the rest of it to those that can."""
    assert rates == max_min(limits, total)


@given(st.lists(RATES, min_size=1), RATES)
def test_shares_are_max_min_fair(limits: list[float], total: float) -> None:
    """All is given or all are content, and who is not content has the most."""
    rates = max_min(limits, total)
    given_away = sum(rates)
    assert given_away == pytest.approx(min(total, sum(limits)), abs=1e-3)
    for limit, rate in zip(limits, rates, strict=True):
        assert rate <= limit
        assert rate == limit or rate >= max(rates) - 1e-6


def test_the_rest_is_shared_when_one_ends() -> None:
    """A connection that ends leaves its share to the others from that moment on."""
    client = Client(Server(size=1, total_rate=1000.0))
    short, long = client.get(500), client.get(1500)
    client.wait()
    assert client.endings == {short: ("end", 1.0), long: ("end", 2.0)}


def test_a_body_that_is_cut_ends_earlier() -> None:
    """What was cut off is not delivered."""
    client = Client(Server(size=1, connection_rate=100.0))
    connection = client.get(1000)
    client.wait(2.0)
    assert client.network.received(connection) == 200
    client.network.cut(connection, 300)
    client.wait()
    assert client.endings == {connection: ("end", 3.0)}
    assert client.network.received(connection) == 300


# --- connections ----------------------------------------------------------------------


def test_slow_start_doubles_each_round_trip() -> None:
    """Each round trip brings a window, twice as large as the last one."""
    server = Server(
        size=1, connection_rate=1e9, round_trip_seconds=0.1, slow_start=True
    )
    client = Client(server)
    connection = client.get(100 * INITIAL_WINDOW_BYTES)
    for trips, windows in [(1, 1), (2, 3), (3, 7), (4, 15)]:
        client.wait(BEGIN_SECONDS + trips * 0.1 - client.clock.now)
        received = client.network.received(connection)
        assert received == pytest.approx(windows * INITIAL_WINDOW_BYTES, abs=2)


def test_slow_start_ends_at_the_cap() -> None:
    """The window limits nothing once it holds more than the cap brings."""
    server = Server(
        size=1, connection_rate=292_000.0, round_trip_seconds=0.1, slow_start=True
    )
    client = Client(server)
    # 14,600 bytes, and then 29,200 in each round trip.
    connection = client.get(14_600 + 9 * 29_200)
    client.wait()
    assert client.endings == {connection: ("end", 1.0)}


def test_one_more_than_the_server_has_is_refused() -> None:
    """A connection counts until the server sees its close, half a round trip later."""
    client = Client(Server(size=1, connections=1, round_trip_seconds=0.2))
    first, second = client.network.open(), client.network.open()
    assert client.network.admit(first)
    assert client.network.admit(first)
    assert not client.network.admit(second)
    client.network.close(first)
    assert not client.network.admit(second)
    client.wait(0.1)
    assert client.network.admit(second)
    assert (client.network.refused, client.network.most) == (2, 2)


def test_some_connections_are_stragglers() -> None:
    """A share of the connections gets a part of the cap, and no more."""
    server = Server(size=1, connection_rate=100.0, slow_share=0.25, slow_factor=0.1)
    client = Client(server)
    factors = [client.network.open().factor for _ in range(1000)]
    assert set(factors) == {1.0, 0.1}
    assert 200 < factors.count(0.1) < 300


def test_a_stall_is_over_after_its_time() -> None:
    """A connection that stalls for some seconds goes on where it stopped."""
    server = Server(
        size=1,
        connection_rate=100.0,
        stall_share=1.0,
        stall_after_bytes=0.0,  # after the first one
        stall_seconds=5.0,
    )
    client = Client(server)
    connection = client.get(201)
    client.wait()
    assert client.endings == {connection: ("end", 7.01)}


def test_a_stall_for_good() -> None:
    """A connection may stop to deliver and stay open."""
    server = Server(size=1, connection_rate=100.0, stall_share=1.0)
    client = Client(server)
    connection = client.get(500)
    client.wait()
    assert (client.network.received(connection), client.endings) == (1, {})


def test_a_reset() -> None:
    """A connection that is reset is closed, and what came before counts."""
    server = Server(
        size=1, connection_rate=1000.0, reset_share=1.0, reset_after_bytes=100.0
    )
    client = Client(server)
    connection = client.get(10_000)
    client.wait()
    how, seconds = client.endings[connection]
    assert how == "reset"
    assert client.network.received(connection) == int(seconds * 1000)
    assert connection.closed


def test_caps_change() -> None:
    """New caps hold from their moment on."""
    changes = (
        Change(at_seconds=1.0, connection_rate=10.0, total_rate=inf),
        Change(at_seconds=2.0, connection_rate=inf, total_rate=50.0),
    )
    client = Client(Server(size=1, connection_rate=100.0, changes=changes))
    connection = client.get(210)
    client.wait()
    assert client.endings == {connection: ("end", 4.0)}


def test_a_seed_repeats_everything() -> None:
    """The same seed gives the same fates, another one others."""
    server = Server(
        size=1,
        slow_share=0.5,
        slow_factor=0.5,
        stall_share=0.5,
        stall_after_bytes=1e6,
        reset_share=0.5,
        reset_after_bytes=1e6,
    )

    def fates(seed: int) -> list[tuple[float, float, float]]:
        network = Client(server, seed).network
        connections = [network.open() for _ in range(20)]
        return [(c.factor, c.stall_at, c.reset_at) for c in connections]

    assert fates(1) == fates(1)
    assert fates(1) != fates(2)


# --- the ideal time -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "connections", "seconds"),
    [
        (Server(size=1000, connection_rate=10.0), 4, 25.0),
        (Server(size=1000, connection_rate=10.0, total_rate=20.0), 4, 50.0),
        (Server(size=1000, connection_rate=10.0, connections=2), 4, 50.0),
        (Server(size=1000, total_rate=10.0, round_trip_seconds=0.5), 4, 101.0),
        (
            Server(size=1000, total_rate=10.0, round_trip_seconds=0.5, tls=True),
            *(4, 101.5),
        ),
        (
            Server(
                size=1000,
                connection_rate=100.0,
                changes=(Change(at_seconds=2.0, connection_rate=5.0, total_rate=inf),),
            ),
            *(2, 62.0),
        ),
        # 2 windows, 4 and then 8 of them, of which two connections have 6 left.
        (
            Server(
                size=12 * INITIAL_WINDOW_BYTES,
                total_rate=1e9,
                round_trip_seconds=1.0,
                slow_start=True,
            ),
            *(2, 2 + 2 + 6 / 8),
        ),
    ],
)
def test_the_ideal_time(server: Server, connections: int, seconds: float) -> None:
    """Round trips, then all connections at their caps until the file is there."""
    assert ideal_seconds(server, connections) == pytest.approx(seconds)


def test_the_ideal_client_meets_nothing_bad() -> None:
    """Stragglers, stalls and resets are not for the ideal client."""
    good = Server(size=1000, connection_rate=10.0)
    bad = Server(
        size=1000,
        connection_rate=10.0,
        slow_share=0.5,
        slow_factor=0.1,
        stall_share=0.5,
        reset_share=0.5,
    )
    assert ideal_seconds(good, 3) == ideal_seconds(bad, 3)


@given(
    st.integers(1, 10_000_000),
    st.floats(1e4, 1e7),
    st.floats(1e4, 1e7),
    st.floats(0.001, 0.3),
    st.integers(1, 8),
)
def test_the_ideal_is_what_the_network_brings(
    size: int, connection_rate: float, total_rate: float, trip: float, count: int
) -> None:
    """Equal shares on all connections at once take the ideal time, and no less."""
    server = Server(
        size=size * count,
        connection_rate=connection_rate,
        total_rate=total_rate,
        round_trip_seconds=trip,
        slow_start=True,
        changes=(
            Change(at_seconds=1.0, connection_rate=2e5, total_rate=1e6),
            Change(at_seconds=3.0, connection_rate=9e6, total_rate=9e6),
        ),
    )
    client = Client(server)
    client.wait(2 * trip)
    for _ in range(count):
        client.get(size)
    client.wait()
    last = max(seconds for _, seconds in client.endings.values())
    assert last == pytest.approx(ideal_seconds(server, count), rel=1e-4, abs=1e-5)
