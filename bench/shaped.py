"""Servers with limits: a rate for each connection, slow ones, a cap, a distance.

nginx's `limit_rate` lets a connection's first second through at once, at every request:
many small requests are served faster than its rate says. The limits hold for everybody,
so ratios are fair; against the ideal time, which leaves this out, a run may look too
fast.
"""

from __future__ import annotations

from dataclasses import replace

from bench._contenders import missing, peers, segdl, splits
from bench._content import MIB, show_size
from bench._ideal import ideal_seconds
from bench._report import Section
from bench._scenario import Limit, Scenario, run
from bench._settings import Settings
from segdl._peers import PEERS, Peer

_SEGDL = segdl()
_USUAL = 16
_MANY = 64
_CAP = 4
_ROUND_TRIP = 0.1
# Who needs more than so many times the ideal time, and than so long, is stopped.
_PATIENCE = 2.5
_PATIENCE_SECONDS = 12.0
_QUICK_PATIENCE_SECONDS = 5.0
_ALONE = "left out, as one connection takes the whole size at its rate: " + ", ".join(
    peer.name for peer in PEERS if not splits(peer)
)
_BURST = (
    "nginx lets what a connection may have in its first second through at once, at "
    "every request; the ideal time leaves that out"
)


def run_per_connection(settings: Settings) -> Section:
    """Measure with 10 MiB/s for each connection."""
    size, rate = _scaled(settings, 1024), 10
    return _run(
        settings,
        Scenario(
            title=f"per_connection: {show_size(size)}, {rate} MiB/s a connection",
            size=size,
            contenders=[_SEGDL, *peers(splits)],
            connections=_USUAL,
            rounds=settings.repeat,
            limits=[Limit(contender=_SEGDL.name, most=0.60, over="aria2c")],
            server=f"limit_rate {rate}m;",
            ideal=ideal_seconds(size, rate * MIB, _USUAL),
            notes=[_ideal_note(_USUAL, rate), _ALONE, *missing(splits)],
        ),
    )


def run_many_connections(settings: Settings) -> Section:
    """Measure with 10 MiB/s for each of 64 connections."""
    size, rate = _scaled(settings, 1024), 10
    ours = segdl("-x", str(_MANY))
    return _run(
        settings,
        Scenario(
            title=f"many_connections: {show_size(size)}, {rate} MiB/s a connection, "
            f"{_MANY} connections",
            size=size,
            contenders=[ours, *peers(_takes_many)],
            connections=_MANY,
            rounds=settings.repeat,
            limits=[Limit(contender=ours.name, most=0.95, over="aria2-next")],
            server=f"limit_rate {rate}m;",
            ideal=ideal_seconds(size, rate * MIB, _MANY),
            notes=[
                _ideal_note(_MANY, rate),
                "left out, as it takes 16 at most: aria2c",
                *missing(_takes_many),
            ],
        ),
    )


def _takes_many(peer: Peer) -> bool:
    return peer.most_connections is None or peer.most_connections >= _MANY


def run_slow_ones(settings: Settings) -> Section:
    """Measure with one connection in five next to useless."""
    size, rate = _scaled(settings, 1024), 20
    return _run(
        settings,
        Scenario(
            title=f"slow_ones: {show_size(size)}, {rate} MiB/s a connection, one in "
            "five 0.4 MiB/s",
            size=size,
            contenders=[_SEGDL, *peers(splits)],
            connections=_USUAL,
            rounds=settings.repeat,
            limits=[
                Limit(contender=_SEGDL.name, most=0.70),
                Limit(contender=_SEGDL.name, most=1.25, over="ideal"),
            ],
            # nginx numbers connections one by one, over all its workers.
            http=f"map $connection $speed {{ ~[05]$ 410k; default {rate}m; }}",
            server="limit_rate $speed;",
            ideal=ideal_seconds(size, rate * MIB, _USUAL),
            notes=[
                _ideal_note(_USUAL, rate) + ", as if none of them were slow",
                _ALONE,
                *missing(splits),
            ],
        ),
    )


def run_capped(settings: Settings) -> Section:
    """Measure with 503 for whoever opens more than four connections."""
    size, rate = _scaled(settings, 512), 10
    return _run(
        settings,
        Scenario(
            title=f"capped: {show_size(size)}, {rate} MiB/s a connection, 503 above "
            f"{_CAP} connections",
            size=size,
            contenders=[_SEGDL, *peers(splits)],
            connections=_USUAL,
            rounds=settings.repeat,
            limits=[Limit(contender=_SEGDL.name, most=1.03)],
            http="limit_conn_zone $binary_remote_addr zone=client:1m;",
            server=f"limit_rate {rate}m; limit_conn client {_CAP};",
            ideal=ideal_seconds(size, rate * MIB, _CAP),
            notes=[_ideal_note(_CAP, rate), _ALONE, *missing(splits)],
        ),
    )


def run_far(settings: Settings) -> Section:
    """Measure with 100 ms to the server and back."""
    size, rate = _scaled(settings, 256), 5
    return _run(
        settings,
        Scenario(
            title=f"far: {show_size(size)}, {_ROUND_TRIP * 1000:.0f} ms round trip, "
            f"{rate} MiB/s a connection",
            size=size,
            contenders=[_SEGDL, *peers(splits)],
            connections=_USUAL,
            rounds=settings.repeat,
            limits=[Limit(contender=_SEGDL.name, most=0.70)],
            server=f"limit_rate {rate}m;",
            round_trip=_ROUND_TRIP,
            ideal=ideal_seconds(size, rate * MIB, _USUAL, _ROUND_TRIP),
            notes=[
                _ideal_note(_USUAL, rate) + ", after two round trips",
                "the distance is a relay's (bench/delay.py): handshake, slow start and "
                "a window of 6 MiB, no loss",
                _ALONE,
                *missing(splits),
            ],
        ),
    )


def _run(settings: Settings, scenario: Scenario) -> Section:
    least = _QUICK_PATIENCE_SECONDS if settings.quick else _PATIENCE_SECONDS
    limit = max(least, _PATIENCE * (scenario.ideal or 0.0))
    section, _ = run(settings, replace(scenario, limit_seconds=limit))
    section.notes.append(_BURST)
    return section


def _scaled(settings: Settings, mebibytes: int) -> int:
    return mebibytes * MIB // (4 if settings.quick else 1)


def _ideal_note(connections: int, rate: int) -> str:
    return f"ideal: {connections} connections, each at {rate} MiB/s until the end"
