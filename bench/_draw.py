"""What a stress round downloads: tasks with sizes and faults, drawn from a seed.

A kind of trouble says which faults of the origin's grammar a URL gets, and what may
come of it:

    must complete   the fault passes, or segdl has a way around it
    may fail        with one of these errors; what completes must still be exact
    must fail       with one of these errors
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from urllib.parse import quote

from bench._content import MIB
from segdl.errors import (
    IntegrityError,
    ProtocolError,
    RepresentationChanged,
    SegdlError,
    StatusError,
    TransferError,
)
from segdl.testing import Blob

MAX_SIZE = 64 * MIB
# Few, so that the blocks they are made of stay in memory (1 MiB each).
_SEEDS = range(1, 9)

Errors = tuple[type[SegdlError], ...]
MUST_COMPLETE = "must complete"
MAY_FAIL = "may fail"
MUST_FAIL = "must fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """
    A kind of trouble.

    Args:
        query: Gives the query for (draw, size, times); times is at most the number of
            attempts that may fail.
        weight: How often it is drawn, beside the others.
        ending: `MUST_COMPLETE`, `MAY_FAIL` or `MUST_FAIL`.
        errors: What a failed task's error must be one of.
        checksum: The task always gets one: nothing else could tell.
        other: The bytes of `other_seed` are right as well, though never mixed.
    """

    query: Callable[[random.Random, int, int], str]
    weight: int = 1
    ending: str = MUST_COMPLETE
    errors: Errors = ()
    checksum: bool = False
    other: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """
    One download of a round.

    Args:
        name: To save as; no other task of the round has it.
        kind: The name of its `Kind`.
        target: Path and query of its URL.
        seed: Of its content.
        size: In bytes.
        priority: Of the task.
        checksum: Expected digest, None for none.
    """

    name: str
    kind: str
    target: str
    seed: int
    size: int
    priority: int
    checksum: str | None

    @property
    def rules(self) -> Kind:
        """What may come of it."""
        return KINDS[self.kind]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds whose content it may end with."""
        return (self.seed, other_seed(self.seed)) if self.rules.other else (self.seed,)


def other_seed(seed: int) -> int:
    """Give the content a file is replaced with."""
    return seed + len(_SEEDS)


def _at(draw: random.Random, size: int) -> str:
    return f"byte{draw.randrange(size + 1)}"


def _fixed(text: str) -> Callable[[random.Random, int, int], str]:
    return lambda _draw, _size, _times: text


def _counted(text: str) -> Callable[[random.Random, int, int], str]:
    return lambda _draw, _size, times: text.format(times=times)


def _pointed(kind: str) -> Callable[[random.Random, int, int], str]:
    return lambda draw, size, times: f"f={kind}@{_at(draw, size)},{times}"


def _once(kind: str) -> Callable[[random.Random, int, int], str]:
    # Each of these costs a whole `timeout`.
    return lambda draw, size, _times: f"f={kind}@{_at(draw, size)},1"


def _swap(draw: random.Random, size: int, _times: int) -> str:
    return f"f=swap={{other}}@{_at(draw, size)},1"


#: Every kind by its name.
KINDS: dict[str, Kind] = {
    "none": Kind(query=_fixed(""), weight=12),
    "rst": Kind(query=_pointed("rst"), weight=4),
    "fin": Kind(query=_pointed("fin"), weight=4),
    "rst in the head": Kind(query=_counted("f=rst@header,{times}"), weight=2),
    "stall": Kind(query=_once("stall"), weight=2),
    "slow": Kind(query=_once("slow=2M"), weight=2),
    "hang": Kind(query=_fixed("f=hang@,1")),
    "headerhang": Kind(query=_fixed("f=headerhang@,1")),
    "garbage": Kind(query=_fixed("f=garbage@,1")),
    "interim": Kind(query=_fixed("f=interim=3")),
    "500": Kind(query=_counted("f=status=500@,{times}"), weight=2),
    "503": Kind(query=_counted("f=status=503:retry=0@,{times}"), weight=2),
    "429": Kind(query=_counted("f=status=429:retry=1@req3,{times}"), weight=2),
    "short": Kind(query=_fixed("f=short"), weight=2),
    "close": Kind(query=_fixed("f=close")),
    "longbody": Kind(query=_counted("f=longbody@,{times}")),
    "few at a time": Kind(query=_fixed("cap=2"), weight=2),
    "resets what is too many": Kind(query=_fixed("cap=2&over=rst")),
    "no ranges": Kind(query=_fixed("ranges=off"), weight=2),
    "chunked": Kind(query=_fixed("ranges=off&length=off")),
    "weak tag": Kind(query=_fixed("etag=weak")),
    "no validator": Kind(query=_fixed("etag=none&lm=none")),
    "digest": Kind(query=_fixed("digest=sha-256"), weight=2),
    "one wrong range": Kind(query=_counted("f=wrongfirst@,{times}")),
    "one 200": Kind(query=_fixed("f=full200@req2,1")),
    "corrupt": Kind(
        query=_once("corrupt"),
        weight=2,
        ending=MAY_FAIL,
        errors=(IntegrityError,),
        checksum=True,
    ),
    "replaced": Kind(
        query=_swap,
        weight=2,
        ending=MAY_FAIL,
        errors=(RepresentationChanged, IntegrityError, TransferError),
        other=True,
    ),
    "another tag each time": Kind(
        query=_fixed("etag=rotate"), ending=MAY_FAIL, errors=(RepresentationChanged,)
    ),
    "endless": Kind(
        query=_fixed("f=endless"), ending=MAY_FAIL, errors=(TransferError,)
    ),
    "wrong length": Kind(
        query=_fixed("f=wronglen"), ending=MAY_FAIL, errors=(TransferError,)
    ),
    "no Content-Range": Kind(
        query=_fixed("f=nocr"), ending=MAY_FAIL, errors=(TransferError,)
    ),
    "404": Kind(
        query=_fixed("f=status=404"), weight=2, ending=MUST_FAIL, errors=(StatusError,)
    ),
    "403": Kind(query=_fixed("f=status=403"), ending=MUST_FAIL, errors=(StatusError,)),
    "503 for ever": Kind(
        query=_fixed("f=status=503"), ending=MUST_FAIL, errors=(StatusError,)
    ),
    "compressed": Kind(
        query=_fixed("f=gzip"), ending=MAY_FAIL, errors=(ProtocolError,)
    ),
    "multipart": Kind(
        query=_fixed("f=multipart"), ending=MAY_FAIL, errors=(ProtocolError,)
    ),
    "wrong checksum": Kind(
        query=_fixed(""), ending=MUST_FAIL, errors=(IntegrityError,), checksum=True
    ),
}


def specs(draw: random.Random, retry_times: int) -> list[Spec]:
    """
    Draw the downloads of a round.

    Args:
        draw: What decides.
        retry_times: Of the engine; no passing fault happens more often.
    """
    names = list(KINDS)
    weights = [KINDS[name].weight for name in names]
    count = draw.randint(10, 60)
    kinds = draw.choices(names, weights, k=count)
    return [_spec(draw, number, kind, retry_times) for number, kind in enumerate(kinds)]


def plain_specs(draw: random.Random) -> list[Spec]:
    """Draw downloads without trouble, from a server that serves files."""
    found = []
    for number in range(draw.randint(10, 40)):
        spec = _spec(draw, number, "none", 1)
        target = f"/{spec.seed}-{spec.size}"
        found.append(replace(spec, target=target))
    return found


def _spec(draw: random.Random, number: int, kind: str, retry_times: int) -> Spec:
    rules = KINDS[kind]
    # Log-uniform: as many between 1 and 2 KiB as between 32 and 64 MiB.
    size = draw.choice([0, 1, int(MAX_SIZE ** draw.random())])
    if draw.random() < 0.9:
        size = int(MAX_SIZE ** draw.random())
    seed = draw.choice(_SEEDS)
    name = f"{number:02}-{quote(kind, safe=' ')}.bin".replace(" ", "-")
    query = rules.query(draw, size, draw.randint(1, retry_times))
    query = query.replace("{other}", str(other_seed(seed)))
    checksum = None
    if kind == "wrong checksum":
        checksum = "sha256:" + "0" * 64
    elif rules.checksum or (not rules.other and draw.random() < 0.4):
        checksum = f"sha256:{Blob(seed, size).digest('sha256')}"
    return Spec(
        name=name,
        kind=kind,
        # The number makes the path its own: the origin counts faults by path.
        target=f"/b/{seed}/{size}/{name}{'?' if query else ''}{query}",
        seed=seed,
        size=size,
        priority=draw.randint(-2, 2),
        checksum=checksum,
    )
