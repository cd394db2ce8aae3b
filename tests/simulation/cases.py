"""Seeded cases: a family is one kind of server, its cases are drawn.

=========== ==================================================================
family      its servers
=========== ==================================================================
caps        a cap for each connection
total       a cap for all together, of a slow line up to a loopback
refusals    a cap for each, and 503 above 1 - 32 connections
stragglers  one connection in 3 - 20 gets 1 - 30 %
latency     round trips of 20 - 300 ms, with slow start, half of them with TLS
stalls      connections that stop to deliver, for good or for some seconds
changes     caps that fall or rise on the way
resets      connections that are reset on the way
mixed       all of these, each with a chance
small       the same for 1 - 16 MiB
=========== ==================================================================

Sizes are 1 MiB - 8 GiB; less where the ideal time would be more than half a minute, and
more where it would be less than half a second, but for the last family: there a round
trip is all, and ratios say little of the rest. Connections are "auto" in half of the
cases, else 1 - 64.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import inf

from segdl._plan import MIB
from simulation.desk import Case
from simulation.ideal import ideal_seconds
from simulation.network import Change, Server

_SMALLEST, _LARGEST = MIB, 8 << 30
_SHORTEST_SECONDS, _LONGEST_SECONDS = 0.5, 30.0


def cases(seed: int, each: int, families: tuple[str, ...] = ()) -> Iterator[Case]:
    """
    Draw cases.

    Args:
        seed: The same one gives the same cases; a family's do not depend on others.
        each: How many of each family.
        families: Their names; empty for all.
    """
    for family in families or FAMILIES:
        for number in range(each):
            yield draw(family, seed, number)


def draw(family: str, seed: int, number: int) -> Case:
    """
    Draw one case.

    Args:
        family: A name in `FAMILIES`.
        seed: Of all cases.
        number: Of the case in its family.
    """
    rng = random.Random(f"{family}-{seed}-{number}")
    connections = "auto" if rng.random() < 0.5 else round(_log(rng, 1, 64))
    server = FAMILIES[family](rng)
    case = Case(
        family=family,
        seed=rng.getrandbits(32),
        server=server,
        connections=connections,
    )
    return case if family == "small" else _sized(case)


def _sized(case: Case) -> Case:
    """Bring the ideal time between its bounds, as far as sizes allow."""
    for _ in range(8):  # round trips stay: it takes some steps
        seconds = ideal_seconds(case.server, case.ceiling)
        wanted = min(max(seconds, _SHORTEST_SECONDS), _LONGEST_SECONDS)
        if seconds == wanted:
            break
        size = round(case.server.size * wanted / seconds)
        size = min(max(size, _SMALLEST), _LARGEST)
        case = replace(case, server=replace(case.server, size=size))
    return case


def _log(rng: random.Random, low: float, high: float) -> float:
    """Draw a number whose logarithm is evenly spread."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _capped(rng: random.Random) -> Server:
    return Server(
        size=round(_log(rng, _SMALLEST, _LARGEST)),
        connection_rate=_log(rng, MIB / 4, 200 * MIB),
        round_trip_seconds=_log(rng, 0.0002, 0.05),
        tls=rng.random() < 0.5,
    )


def _total(rng: random.Random) -> Server:
    rate = _log(rng, MIB, 3000 * MIB)
    return replace(_capped(rng), connection_rate=inf, total_rate=rate)


def _refusing(rng: random.Random) -> Server:
    return _with_refusals(_capped(rng), rng)


def _with_refusals(server: Server, rng: random.Random) -> Server:
    return replace(
        server,
        connections=round(_log(rng, 1, 32)),
        retry_after_seconds=round(_log(rng, 1, 30)) if rng.random() < 0.3 else None,
    )


def _straggling(rng: random.Random) -> Server:
    return _with_stragglers(_capped(rng), rng)


def _with_stragglers(server: Server, rng: random.Random) -> Server:
    return replace(
        server,
        slow_share=1 / rng.uniform(3, 20),
        slow_factor=_log(rng, 0.01, 0.3),
    )


def _distant(rng: random.Random) -> Server:
    return _with_latency(_capped(rng) if rng.random() < 0.5 else _total(rng), rng)


def _with_latency(server: Server, rng: random.Random) -> Server:
    return replace(server, round_trip_seconds=rng.uniform(0.02, 0.3), slow_start=True)


def _stalling(rng: random.Random) -> Server:
    return _with_stalls(_capped(rng), rng)


def _with_stalls(server: Server, rng: random.Random) -> Server:
    return replace(
        server,
        stall_share=1 / rng.uniform(3, 30),
        stall_after_bytes=_log(rng, MIB / 4, 64 * MIB),
        stall_seconds=inf if rng.random() < 0.5 else rng.uniform(1, 20),
    )


def _changing(rng: random.Random) -> Server:
    return _with_changes(_capped(rng) if rng.random() < 0.5 else _total(rng), rng)


def _with_changes(server: Server, rng: random.Random) -> Server:
    at, changes = 0.0, []
    for _ in range(rng.randint(1, 4)):
        at += _log(rng, 0.3, 10)
        factor = _log(rng, 0.1, 4)
        changes.append(
            Change(
                at_seconds=at,
                connection_rate=server.connection_rate * factor,
                total_rate=server.total_rate * factor,
            )
        )
    return replace(server, changes=tuple(changes))


def _resetting(rng: random.Random) -> Server:
    return _with_resets(_capped(rng), rng)


def _with_resets(server: Server, rng: random.Random) -> Server:
    return replace(
        server,
        reset_share=rng.uniform(0.05, 0.6),
        reset_after_bytes=_log(rng, MIB, 64 * MIB),
    )


def _mixed(rng: random.Random) -> Server:
    server = _capped(rng)
    if rng.random() < 0.4:
        server = replace(server, total_rate=_log(rng, 1, 20) * server.connection_rate)
    for add in (
        _with_refusals,
        _with_stragglers,
        _with_latency,
        _with_stalls,
        _with_changes,
        _with_resets,
    ):
        if rng.random() < 0.4:
            server = add(server, rng)
    return server


def _small(rng: random.Random) -> Server:
    return replace(_mixed(rng), size=round(_log(rng, _SMALLEST, 16 * MIB)))


FAMILIES: dict[str, Callable[[random.Random], Server]] = {
    "caps": _capped,
    "total": _total,
    "refusals": _refusing,
    "stragglers": _straggling,
    "latency": _distant,
    "stalls": _stalling,
    "changes": _changing,
    "resets": _resetting,
    "mixed": _mixed,
    "small": _small,
}
