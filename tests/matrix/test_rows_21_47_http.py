"""Rows 21 - 47: origins whose HTTP is wrong, odd, or unwilling.

    origin ── its log: what was asked, what was sent
    disk   ── nothing, recorded pieces that are right, or the whole file
    user   ── status, class and words of the error, events

The smallest lane is 2 MiB and the first request asks for 16 MiB, so files of 20 MiB are
fetched over several lanes. A row whose variants have little in common lists them as
functions before it; what is common to all of them is checked by `World.check`.
"""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from canary import children
from http_checks import (
    MANIFEST,
    MIB,
    NAME,
    PART,
    names,
    peak,
    until,
)
from nginx import Nginx, serving
from world import World

from segdl import DownloadTask
from segdl.errors import (
    DestinationExists,
    DiskFull,
    IntegrityError,
    ProtocolError,
    RangeMismatch,
    RedirectRefused,
    RepresentationChanged,
    SizeLimitExceeded,
    StatusError,
)
from segdl.testing import Blob, Origin

# Four lanes get 3 MiB each: [0, 3), [3, 6), [6, 9) and [9, 12] MiB.
SIZE = 12 * MIB + 4321
# One lane asks twice: for the first 16 MiB, and for the rest.
LONG = 20 * MIB + 4321
FIRST = 16 * MIB
# Each of four lanes stalls once, half a piece before its end; and so does one lane.
STALLS = [f"stall@at{place * MIB - MIB // 2}" for place in (3, 6, 9, 12)]
STALL = STALLS[-1]
RATE = 24 * MIB
# What may be sent twice: the pieces in flight, and what was on its way to four lanes.
AGAIN = 6 * MIB
FIVE_GIB = 5 << 30

Serve = Callable[..., Nginx]
Case = Callable[..., None]
More = Callable[..., Origin]
Place = Callable[[World, int, int], str]


def nginx(*values: Any) -> Any:
    """Mark a variant that needs nginx."""
    return pytest.param(*values, marks=pytest.mark.nginx)


def variants(*cases: Any) -> Any:
    """Make functions the variants of a row, named as they are but for the row."""

    def variant(case: Any) -> Any:
        marks = getattr(case, "marks", ())
        function = case.values[0] if marks else case
        name = re.sub(r"^_\d\d_", "", function.__name__)
        return pytest.param(function, marks=marks, id=name.replace("_", " "))

    return pytest.mark.parametrize("case", [variant(case) for case in cases])


def play(case: Case, request: pytest.FixtureRequest) -> None:
    """Call a variant with the fixtures that it names."""
    wanted = inspect.signature(case).parameters
    case(**{name: request.getfixturevalue(name) for name in wanted})


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Give a function that has nginx serve a directory; its log is checked after."""
    root = tmp_path / "root"
    root.mkdir()
    with serving(root) as start:

        def run(content: Blob | None = None, **options: Any) -> Nginx:
            if content is not None:
                put(root / NAME, content)
            return start(**options)

        yield run


def put(path: Path, blob: Blob, *, modified: float | None = None) -> None:
    """Put a file into another one's place, at once."""
    fresh = path.with_suffix(".fresh")
    fresh.write_bytes(blob.read())
    if modified is not None:
        os.utime(fresh, (modified, modified))
    os.replace(fresh, path)


def at(world: World, server: Nginx, name: str = NAME) -> str:
    """Give the URL of nginx' file, with the secrets in it."""
    return world.with_secrets(f"{server.url}/{name}")


def redirect(origin: Origin, target: str, status: int = 302) -> str:
    """Give a URL of an origin that redirects."""
    return f"{origin.url}/redirect?status={status}&to={quote(target, safe='')}"


def most(world: World, url: str, **options: Any) -> DownloadTask:
    """Start a download whose lanes stall, and wait until most of it has come."""
    task = world.start(url, **options)
    places = {int(fault.partition("@at")[2]) for fault in STALLS}

    def stalled() -> bool:
        # A stall that did not happen now would happen to the next run.
        ends = [
            (request.offset or 0) + request.sent_bytes
            for request in world.origin.log.entries
            if request.ended is None
        ]
        return sum(end in places for end in ends) == url.count("stall@")

    until(lambda: stalled() and task.downloaded_size > SIZE // 2)
    assert task.status == "downloading", task.error
    return task


def leave_most(world: World, url: str, **options: Any) -> int:
    """Leave what came before the stalls, as an engine does that is shut down."""
    most(world, url, **options)
    world.engines[-1].shutdown(wait=False)
    assert names(world.out) == [PART, MANIFEST]
    recorded = world.recorded()
    assert recorded > SIZE // 2
    return recorded


def retried(world: World) -> list[str]:
    """Give the reasons of the retries that were told."""
    return [str(event["reason"]) for event in world.told("retry")]


def statuses(world: World) -> list[int]:
    """Give the statuses of all answers of the first origin, in order."""
    return [request.status for request in world.origin.log.settle()]


def began_at(world: World, number: int) -> int:
    """Give the first byte that a request asked for; 0 is the first request."""
    wanted = world.origin.log.entries[number].headers["range"]
    return int(wanted.removeprefix("bytes=").partition("-")[0])


# --- 21, 22: the whole file instead of a range ----------------------------------------


def _21_nginx(world: World, serve: Serve) -> None:
    """nginx with `max_ranges 0` answers 200 without saying that it has no ranges."""
    blob = world.allow(Blob(1, SIZE))
    server = serve(blob, server="max_ranges 0;")
    world.whole(world.fetch(at(world, server)))
    until(lambda: sum(r.sent_bytes for r in server.requests()) >= SIZE)
    assert [r.status for r in server.requests()] == [200] * 3
    assert all(r.range == f"bytes=0-{FIRST - 1}" for r in server.requests())


def _21_accept_ranges_missing(world: World) -> None:
    """The range is asked for twice more, as a cache may have it then."""
    world.origin.rate = 40 * MIB
    world.whole(world.fetch(world.url(SIZE, ranges="off")))
    assert statuses(world) == [200] * 3
    assert peak(world.origin) == 1


def _21_accept_ranges_none(world: World) -> None:
    """An origin that says so is not asked again."""
    world.origin.rate = 40 * MIB
    world.whole(
        world.fetch(world.url(SIZE, ranges="off", headers="Accept-Ranges: none"))
    )
    assert statuses(world) == [200]


def _21_on_a_miss_only(world: World) -> None:
    """A cache that answers 200 on a miss gives the range when asked again."""
    world.whole(world.fetch(world.url(SIZE, f="full200@req1,2")))
    assert statuses(world)[:3] == [200, 200, 206]
    assert set(statuses(world)[2:]) == {206}


def _21_stopped_half_way(world: World) -> None:
    """Nothing of a stream is resumed: the second run begins at byte 0."""
    world.origin.rate = 40 * MIB
    url = world.url(SIZE, ranges="off", headers="Accept-Ranges: none", f=STALL)
    most(world, url)
    world.engines[-1].shutdown(wait=False)
    skip = len(world.origin.log.settle())
    task = world.fetch(url)
    world.whole(task)
    assert task.resumed_size == 0
    assert world.told("resumed") == []
    assert world.origin.log.entries[-1].offset == 0
    assert len(world.origin.log.entries) - skip <= 2
    assert peak(world.origin) == 1


@pytest.mark.row("nginx with max_ranges 0; origin that answers 200 to ranges")
@variants(
    nginx(_21_nginx),
    _21_accept_ranges_missing,
    _21_accept_ranges_none,
    _21_on_a_miss_only,
    _21_stopped_half_way,
)
def test_21_whole_file_to_every_range(
    request: pytest.FixtureRequest, case: Case
) -> None:
    """It comes in one stream over one connection, from byte 0, and is not resumed."""
    play(case, request)


@pytest.mark.row("origin that answers 200 from the Nth range or connection on")
@pytest.mark.parametrize("fault", ["full200@conn3", "full200@range3,2", "first2"])
def test_22_whole_file_to_some_ranges(world: World, fault: str) -> None:
    """It is never written at a range's offset; that range is asked for again."""
    world.origin.rate = RATE
    for_ever = fault == "first2"
    options = {"ranges": fault} if for_ever else {"f": fault}
    task = world.fetch(world.url(SIZE, **options))
    if for_ever:
        world.failed(task, RangeMismatch, "the origin sent the whole file (200)")
        assert names(world.out) == [PART, MANIFEST]
        world.recorded()
    else:
        world.whole(task)
        assert 200 in statuses(world)
        assert any("whole file (200)" in reason for reason in retried(world))


# --- 23 - 28: ranges that are not what was asked for ----------------------------------


@pytest.mark.row("origin whose 206 begins later")
@pytest.mark.parametrize("by", [1, 4096, MIB])
@pytest.mark.parametrize("times", [2, "*"])
def test_23_range_that_begins_elsewhere(
    world: World, by: int, times: int | str
) -> None:
    """The answer is dropped before its first byte, and both ranges are named."""
    world.origin.rate = RATE
    if times == "*":
        task = world.fetch(world.url(SIZE, f=f"wrongfirst={by}"), retry_times=2)
        asked = f"asked for bytes 0-{FIRST - 1}, origin sent 'bytes {by}-"
        world.failed(task, RangeMismatch, asked)
        assert names(world.out) == []
        assert len(world.origin.log.settle()) == 3
    else:
        task = world.fetch(world.url(SIZE, f=f"wrongfirst={by}@range2,{times}"))
        world.whole(task)
        assert any("origin sent 'bytes" in reason for reason in retried(world))


def _24_last_position(world: World) -> None:
    """What comes beyond our end is cut off, though its first byte is a wrong one."""
    # A byte is flipped after the end of each lane's share, so also in the first
    # answer, of which 3 MiB are used. Written there, it would spoil what the next lane
    # has brought long before.
    world.origin.rate = RATE
    faults = [f"long=9999@range2.at{at_mib * MIB},*" for at_mib in (4, 7)]
    faults.append(f"corrupt@byte{3 * MIB + 5000},*")
    world.whole(world.fetch(world.url(SIZE, f=faults)))
    shares = {begin for begin, _ in world.origin.log.ranges()}
    assert shares >= {0, 3 * MIB, 6 * MIB, 9 * MIB}


def _24_last_position_of_some(world: World) -> None:
    """The same for several lanes in a row."""
    world.whole(world.fetch(world.url(SIZE, f="long=100000@range2,3")))


def _24_body(world: World) -> None:
    """A body that contradicts its Content-Range is refused, and asked for again."""
    world.origin.rate = RATE
    world.whole(world.fetch(world.url(SIZE, f="longbody@range2,2")))
    assert any("Content-Length says" in reason for reason in retried(world))


def _24_body_always(world: World) -> None:
    """Lengths that never fit are an error that names both."""
    task = world.fetch(world.url(LONG, f="longbody=7"), retry_times=1)
    world.failed(task, RangeMismatch, f"names {FIRST} bytes", f"{FIRST + 7}")
    assert names(world.out) == []
    assert len(world.origin.log.entries) == 2


@pytest.mark.row("origin whose Content-Range, or body, goes on")
@variants(_24_last_position, _24_last_position_of_some, _24_body, _24_body_always)
def test_24_range_longer_than_asked(request: pytest.FixtureRequest, case: Case) -> None:
    """It is cut at our end, or refused for its head."""
    play(case, request)


@pytest.mark.row("origin whose 206 holds less")
@pytest.mark.parametrize("fault", ["short@,*", "short=1@,5", "short=3000000@,5"])
@pytest.mark.parametrize("processes", [0, 1])
def test_25_range_shorter_than_asked(world: World, fault: str, processes: int) -> None:
    """What came is taken, the rest is asked for, and that is no failure."""
    world.origin.rate = 40 * MIB
    world.most_bytes = 2 * SIZE
    task = world.fetch(world.url(SIZE, f=fault), retry_times=0, processes=processes)
    world.whole(task)
    assert world.told("retry") == []


CONTENT_RANGES = {
    "last before first": ("bytes {last}-{first}/{complete}", "before the first"),
    "last at complete": ("bytes {first}-{last}/{last}", "not inside the complete"),
    "negative": ("bytes -{first}-{last}/{complete}", "decimal digits"),
    "plus": ("bytes +{first}-{last}/{complete}", "decimal digits"),
    "plus complete": ("bytes {first}-{last}/+{complete}", "decimal digits"),
    "hex": ("bytes 0x0-0xff/{complete}", "decimal digits"),
    "2^64": ("bytes {first}-{last}/18446744073709551616", "larger than"),
    "2^64 last": ("bytes {first}-18446744073709551616/{complete}", "larger than"),
    "colon": ("bytes: {first}-{last}/{complete}", "unknown range unit"),
    "other unit": ("lines {first}-{last}/{complete}", "unknown range unit"),
    "star complete": ("bytes {first}-{last}/*", "no complete length"),
    "star range": ("bytes */{complete}", "names no bytes"),
    "no complete": ("bytes {first}-{last}", "no '/'"),
    "no unit": ("{first}-{last}/{complete}", "no space"),
    "empty": ("", ""),
    "two fields": (None, "this one has 2"),
}


@pytest.mark.row("origin with a table of Content-Range fields")
@pytest.mark.parametrize(
    ("form", "lanes"),
    [
        *((form, "all") for form in CONTENT_RANGES),
        *((form, "third") for form in ("last before first", "star complete", "empty")),
    ],
)
def test_26_content_range_out_of_grammar(world: World, form: str, lanes: str) -> None:
    """It is read by the letter: that answer is refused, and the exact reason told."""
    text, why = CONTENT_RANGES[form]
    if lanes == "all":
        spoilt = (
            {"headers": f"Content-Range: bytes 0-99/{SIZE}"}
            if text is None
            else {"f": f"badcr={text}"}
        )
        task = world.fetch(world.url(SIZE, **spoilt), retry_times=0)
        world.failed(task, RangeMismatch, why)
        assert names(world.out) == []
        assert len(world.origin.log.settle()) == 1
        return
    world.origin.rate = RATE
    world.whole(world.fetch(world.url(SIZE, f=f"badcr={text}@range3")))
    # Once the length is known, a 206 need not repeat it (RFC 9110 s14.4).
    refused = form != "star complete"
    assert any(why in reason for reason in retried(world)) is refused
    assert len(world.origin.log.entries) < 12


@pytest.mark.row("origin that leaves Content-Range out")
@pytest.mark.parametrize("where", ["", "@range3,2"])
def test_27_range_without_content_range(world: World, where: str) -> None:
    """A 206 that does not say what it holds is refused before its first byte."""
    _refused_form(world, f"nocr{where}", "this one has 0", always=not where)


@pytest.mark.row("origin that answers multipart/byteranges")
@pytest.mark.parametrize("where", ["", "@range2,2"])
def test_28_range_in_several_parts(world: World, where: str) -> None:
    """Parts that nobody asked for are refused before their first byte."""
    _refused_form(world, f"multipart{where}", "a multipart body", always=not where)


def _refused_form(world: World, fault: str, why: str, *, always: bool) -> None:
    world.origin.rate = RATE
    task = world.fetch(world.url(SIZE, f=fault), retry_times=1 if always else 3)
    if always:
        world.failed(task, RangeMismatch, why)
        assert names(world.out) == []
        assert len(world.origin.log.settle()) == 2
    else:
        world.whole(task)
    assert any(why in reason for reason in retried(world))


# --- 29 - 33: files that change, or seem to -------------------------------------------


@pytest.mark.row("origin whose 206 tells another complete length")
@pytest.mark.parametrize("times", [1, "*"])
def test_29_complete_length_differs_between_lanes(
    world: World, times: int | str
) -> None:
    """The task starts over once; lengths that differ again are an error."""
    world.origin.rate = RATE
    task = world.fetch(world.url(SIZE, f=f"wronglen=5@range2,{times}"))
    if times == "*":
        words = ("the remote file has", "bytes now, it had", f"{SIZE}", f"{SIZE + 5}")
        world.failed(task, RepresentationChanged, *words)
        world.recorded()
    else:
        world.whole(task)
    over = [reason for reason in retried(world) if "starting over" in reason]
    assert len(over) == 1
    assert len(world.origin.log.entries) <= 12


Swap = Callable[..., DownloadTask]


@pytest.fixture
def swap(world: World, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Swap:
    """Give a function that replaces nginx' file on the way; the task ends after it."""

    def run(fresh: Blob, modified: float, **options: Any) -> DownloadTask:
        # One lane that asks at least twice, the first time for 4 MiB. nginx sends what
        # is due in the first second at once, the other 2 MiB in the next one.
        monkeypatch.setattr("segdl._lanes.FIRST_BYTES", 4 * MIB)
        blob = world.allow(Blob(1, SIZE))
        server = serve(blob, server="limit_rate 2m;")
        put(server.root / NAME, blob, modified=10**9)
        task = world.start(at(world, server), connections=1, **options)
        until(lambda: task.downloaded_size > 0)
        assert len(server.requests()) == 0, "it came too fast"
        put(server.root / NAME, fresh, modified=modified)
        server.configure(server="")
        server.reload()
        assert task.wait(20)
        return task

    return run


@pytest.mark.row("file swapped under nginx, and by the origin")
@pytest.mark.parametrize("size", [SIZE // 2, SIZE + 3 * MIB])
@pytest.mark.parametrize("how", [nginx("nginx"), "fourth range", "worker"])
def test_30_replaced_by_another_size(
    world: World, request: pytest.FixtureRequest, size: int, how: str
) -> None:
    """The task starts over once, and one version is published."""
    if how == "nginx":
        task = request.getfixturevalue("swap")(Blob(2, size), 10**9 + 60)
    else:
        world.origin.rate = RATE
        url = world.url(SIZE, f=f"swap=2:size={size}@range4")
        task = world.fetch(url, processes=int(how == "worker"))
    world.whole(task, world.allow(Blob(2, size)))
    (reason,) = [each for each in retried(world) if "starting over" in each]
    assert f"has {size} bytes now, it had {SIZE}" in reason


def _31_nginx(world: World, swap: Swap) -> None:
    """nginx' tag is made of time and size."""
    world.whole(swap(Blob(2, SIZE), 10**9 + 60), world.allow(Blob(2, SIZE)))
    (reason,) = retried(world)
    assert "the entity tag was" in reason


def _31_second_range(world: World) -> None:
    """Found by the second request."""
    _31_swapped(world, "swap=2@range2")


def _31_fourth_range(world: World) -> None:
    """Found by the fourth one."""
    _31_swapped(world, "swap=2@range4")


def _31_date_only(world: World) -> None:
    """Without an entity tag, Last-Modified tells it."""
    _31_swapped(world, "swap=2@range3", etag="none")


def _31_weak_tag(world: World) -> None:
    """A weak tag that differs is another version too."""
    _31_swapped(world, "swap=2@range3", etag="weak")


def _31_swapped(world: World, fault: str, **options: str) -> None:
    fresh = world.allow(Blob(2, SIZE))
    world.origin.rate = RATE
    world.whole(world.fetch(world.url(SIZE, f=fault, **options)), fresh)
    assert len([r for r in retried(world) if "starting over" in r]) == 1


def _31_twice(world: World) -> None:
    """One that changes again during the second try is an error."""
    # One lane: the third request is the first one of the second try.
    world.allow(Blob(2, LONG))
    world.allow(Blob(3, LONG))
    url = world.url(LONG, f=["swap=2@range2", "swap=3@range4"])
    task = world.fetch(url, connections=1)
    world.failed(task, RepresentationChanged, "the entity tag was")
    assert [began_at(world, number) for number in range(4)] == [0, FIRST] * 2
    assert world.recorded() == FIRST


@pytest.mark.row("file swapped under nginx, and by the origin")
@variants(
    nginx(_31_nginx),
    _31_second_range,
    _31_fourth_range,
    _31_date_only,
    _31_weak_tag,
    _31_twice,
)
def test_31_replaced_by_the_same_size(
    request: pytest.FixtureRequest, case: Case
) -> None:
    """The validator tells: the task starts over once, and versions are not mixed."""
    play(case, request)


@pytest.mark.row("file written and its time put back, under nginx and by the origin")
@pytest.mark.parametrize("how", [nginx("nginx"), "given", "stated"])
def test_32_replaced_without_a_trace(
    world: World, request: pytest.FixtureRequest, how: str
) -> None:
    """HTTP can't tell; a digest does, and what was received is kept aside."""
    digest = Blob(1, SIZE).digest()
    checksum = None if how == "stated" else f"sha256:{digest}"
    if how == "nginx":
        swap = request.getfixturevalue("swap")
        task = swap(Blob(2, SIZE), 10**9, checksum=checksum)
    else:
        world.origin.rate = RATE
        options = {"digest": "sha-256"} if how == "stated" else {}
        url = world.url(SIZE, f="swapsame=2@range3", **options)
        task = world.fetch(url, checksum=checksum)
    world.failed(task, IntegrityError, "sha256", digest, f"{NAME}.corrupt")
    assert names(world.out) == [f"{NAME}.corrupt"]


def _33_each_request(world: World) -> None:
    """Backends, or tokens, that give a tag to each request."""
    _33_never_agrees(world, "rotate")


def _33_each_connection(world: World) -> None:
    """Backends behind a balancer of connections."""
    _33_never_agrees(world, "per-conn")


def _33_never_agrees(world: World, kind: str) -> None:
    world.origin.rate = RATE
    task = world.fetch(world.url(SIZE, etag=kind))
    world.failed(task, RepresentationChanged, "the entity tag was")
    assert len([r for r in retried(world) if "starting over" in r]) == 1
    assert len(world.origin.log.entries) <= 12
    world.recorded()


def _33_each_connection_of_one_lane(world: World) -> None:
    """Over a single connection such an origin is of one mind."""
    world.whole(world.fetch(world.url(SIZE, etag="per-conn"), connections=1))


def _33_weak(world: World) -> None:
    """A weak tag: lanes of one run share the file, a second run does not."""
    _33_second_run(world, from_zero=True, etag="weak")


def _33_weak_and_checksum(world: World) -> None:
    """A checksum vouches for what is combined."""
    _33_second_run(world, from_zero=False, etag="weak")


def _33_none(world: World) -> None:
    """No validator at all is treated like a weak one."""
    _33_second_run(world, from_zero=True, etag="none", lm="none")


def _33_none_and_checksum(world: World) -> None:
    """The same with a checksum."""
    _33_second_run(world, from_zero=False, etag="none", lm="none")


def _33_second_run(world: World, *, from_zero: bool, **options: str) -> None:
    url = world.url(SIZE, f=STALLS, **options)
    checksum = None if from_zero else f"sha256:{Blob(1, SIZE).digest()}"
    recorded = leave_most(world, url, checksum=checksum)
    first = world.origin.log.settle()
    assert len({request.connection for request in first}) > 1
    task = world.fetch(url, checksum=checksum)
    world.whole(task)
    assert task.resumed_size == (0 if from_zero else recorded)
    assert (began_at(world, len(first)) == 0) is from_zero
    assert all("if-range" not in r.headers for r in world.origin.log.entries)


def _33_strong_date(world: World) -> None:
    """Without a tag, a date long past may go into If-Range (RFC 9110 s13.1.5)."""
    url = world.url(SIZE, f=STALLS, etag="none")
    recorded = leave_most(world, url)
    skip = len(world.origin.log.settle())
    task = world.fetch(url)
    world.whole(task)
    assert task.resumed_size == recorded
    assert world.origin.log.entries[skip].headers["if-range"].endswith(" GMT")


@pytest.mark.row("origin with weak tags, none, or others each time")
@variants(
    _33_each_request,
    _33_each_connection,
    _33_each_connection_of_one_lane,
    _33_weak,
    _33_weak_and_checksum,
    _33_none,
    _33_none_and_checksum,
    _33_strong_date,
)
def test_33_validator_weak_missing_or_changing(
    request: pytest.FixtureRequest, case: Case
) -> None:
    """Nothing is combined on a weak word: within a run only, or with a digest."""
    play(case, request)


# --- 34 - 37: what is asked for, and answered otherwise -------------------------------


@pytest.mark.row("origin that answers 200 to If-Range, though nothing changed")
@pytest.mark.parametrize("processes", [0, 1])
def test_34_if_range_not_understood(world: World, processes: int) -> None:
    """It is asked once more without If-Range, and the download goes on."""
    url = world.url(SIZE, f=["ignoreif", *STALLS])
    recorded = leave_most(world, url, processes=processes)
    skip = len(world.origin.log.settle())
    task = world.fetch(url, processes=processes)
    world.whole(task)
    assert task.resumed_size == recorded
    second_run = world.origin.log.settle()[skip:]
    assert [r.status for r in second_run[:2]] == [200, 206]
    assert ["if-range" in r.headers for r in second_run].count(True) == 1
    # The refused answer brings what the socket took, nothing more.
    assert sum(r.sent_bytes for r in second_run[1:]) < SIZE - recorded + AGAIN


@pytest.mark.row("origin that codes though identity is asked; nginx with gzip on")
@pytest.mark.parametrize("how", ["206", "200", "third", nginx("nginx")])
def test_35_content_coding(world: World, serve: Serve, how: str) -> None:
    """Identity is asked for; coded content is refused before its first byte."""
    if how == "nginx":
        blob = world.allow(Blob(1, 4 * MIB))
        server = serve(blob, server="gzip on; gzip_types *; gzip_http_version 1.0;")
        world.whole(world.fetch(at(world, server)))
    elif how == "third":
        _refused_once(world, "gzip@range3", "gzip-coded")
    else:
        _refused_always(world, "gzip", how, "gzip-coded content though identity")


@pytest.mark.row("origin with both framings")
@pytest.mark.parametrize("how", ["206", "200", "third"])
def test_36_content_length_and_chunked(world: World, how: str) -> None:
    """Two lengths can't both be right: refused before the first byte."""
    why = "both Transfer-Encoding and Content-Length"
    if how == "third":
        _refused_once(world, "clte@range3", why)
    else:
        _refused_always(world, "clte", how, why)


def _refused_once(world: World, fault: str, why: str) -> None:
    world.origin.rate = RATE
    world.whole(world.fetch(world.url(SIZE, f=fault)))
    assert [why in reason for reason in retried(world)] == [True]


def _refused_always(world: World, fault: str, status: str, why: str) -> None:
    url = world.url(SIZE, ranges="off" if status == "200" else "on", f=fault)
    world.failed(world.fetch(url, retry_times=1), ProtocolError, why)
    assert names(world.out) == []
    assert statuses(world) == [int(status)] * 2


@pytest.fixture
def changing(tmp_path: Path) -> Callable[[World, int, int], str]:
    """Give a function that puts a file at the origin's place, and gives its URL."""
    root = tmp_path / "files"
    root.mkdir()

    def place(world: World, seed: int, size: int) -> str:
        world.origin.root = root
        put(root / NAME, world.allow(Blob(seed, size)))
        return world.with_secrets(world.origin.file_url(NAME))

    return place


def _37_other_length(world: World, changing: Place) -> None:
    """The file was cut short, and the origin does not heed If-Range."""
    _37_changed(world, changing, MIB, "ignoreif")


def _37_other_length_no_validator(world: World, changing: Place) -> None:
    """Cut short, where only a checksum lets the download go on."""
    url = f"{changing(world, 1, SIZE)}&etag=none&lm=none&f={'&f='.join(STALLS)}"
    checksum = f"sha256:{Blob(1, SIZE).digest()}"
    leave_most(world, url, checksum=checksum)
    skip = len(world.origin.log.settle())
    changing(world, 2, MIB)
    task = world.fetch(url, checksum=checksum)
    world.failed(task, IntegrityError, checksum.partition(":")[2])
    second_run = world.origin.log.settle()[skip:]
    assert [r.status for r in second_run[:2]] == [416, 206]
    assert "if-range" not in second_run[0].headers


def _37_empty_now(world: World, changing: Place) -> None:
    """The file has no bytes any more."""
    _37_changed(world, changing, 0, "ignoreif")


def _37_shorter_by_if_range(world: World, changing: Place) -> None:
    """If-Range gets the new file as a 200: no 416 is needed."""
    _37_changed(world, changing, MIB)


def _37_longer(world: World, changing: Place) -> None:
    """The same for a longer one."""
    _37_changed(world, changing, SIZE + MIB)


def _37_no_length_then_no_file(world: World, changing: Place) -> None:
    """A 416 without a length does not hide the change."""
    _37_changed(world, changing, MIB, "ignoreif", "nolast416")


def _37_changed(world: World, changing: Place, size: int, *faults: str) -> None:
    url = f"{changing(world, 1, SIZE)}&f={'&f='.join([*STALLS, *faults])}"
    leave_most(world, url)
    changing(world, 2, size)
    task = world.fetch(url)
    if size:
        world.whole(task, Blob(2, size))
    else:
        assert (task.status, task.total_size) == ("completed", 0)
    assert task.resumed_size == 0
    assert world.told("resumed") == []


def _37_same_length(world: World) -> None:
    """A 416 that contradicts itself: the range lies inside of the length it states."""
    _37_refused(world, "unsatisfied@req2")


def _37_no_length(world: World) -> None:
    """A 416 that says nothing."""
    _37_refused(world, "status=416@req2")


def _37_refused(world: World, fault: str) -> None:
    # One lane: the second request is the resume's.
    url = world.url(SIZE, f=[STALL, fault])
    recorded = leave_most(world, url, connections=1)
    task = world.start(url)
    assert task.wait(20)
    world.failed(task, StatusError, "416", "outside of the file")
    assert world.recorded() == recorded
    assert task.resume()
    assert task.wait(20)
    world.whole(task)
    assert task.resumed_size == recorded


def _37_nothing_missing(world: World) -> None:
    """One byte shows that the file is still the same one; then it is published."""
    url = world.url(SIZE)
    world.origin.total_rate = MIB
    task = world.start(url)
    until(lambda: task.downloaded_size > 0)
    world.keep(world.out / NAME, b"another file")
    world.origin.total_rate = None
    assert task.wait(20)
    assert isinstance(task.exception(0), DestinationExists)
    assert world.recorded() == SIZE
    skip = len(world.origin.log.settle())
    task = world.fetch(url, on_exists="overwrite")
    world.whole(task)
    assert task.resumed_size == SIZE
    (request,) = world.origin.log.settle()[skip:]
    assert request.range == (SIZE - 1, SIZE)


@pytest.mark.row("origin's file truncated between two runs; 416 with a length or none")
@variants(
    _37_other_length,
    _37_other_length_no_validator,
    _37_empty_now,
    _37_shorter_by_if_range,
    _37_longer,
    _37_no_length_then_no_file,
    _37_same_length,
    _37_no_length,
    _37_nothing_missing,
)
def test_37_range_not_satisfiable_at_resume(
    request: pytest.FixtureRequest, case: Case
) -> None:
    """Another length is another file; no length, or the same one, costs nothing."""
    play(case, request)


# --- 38 - 40: lengths -----------------------------------------------------------------

SIZES = {
    "1": 1,
    "2": 2,
    "page-1": 4095,
    "page+1": 4097,
    "piece-1": MIB - 1,
    "piece": MIB,
    "piece+1": MIB + 1,
    "lane-1": 2 * MIB - 1,
    "lanes+1": 4 * MIB + 1,
    "first-1": FIRST - 1,
    "first": FIRST,
    "first+1": FIRST + 1,
    "many": 40 * MIB + 3,
}
SPARSE = {"2^31": 1 << 31, "2^32+1": (1 << 32) + 1, "5 GiB": FIVE_GIB}


def _38_empty(world: World, **options: Any) -> None:
    """An empty file: 416 with `bytes */0`, or a 200 without a body."""
    digest = world.allow(Blob(1, 0)).digest()
    task = world.fetch(world.url(0, **options), checksum=f"sha256:{digest}")
    assert (task.status, task.error, task.progress) == ("completed", None, 1.0)
    assert task.checksum == f"sha256:{digest}"
    assert names(world.out) == [NAME]
    assert (world.out / NAME).stat().st_size == 0


def _38_sparse(world: World, server: Nginx, size: int) -> None:
    """A file beyond 31 or 32 bits, compared where offsets could wrap."""
    marks = {
        0: b"the first bytes",
        (1 << 31) - 5: b"around 2 GiB",
        (1 << 32) - 5: b"around 4 GiB",
        size - 20: b"the last bytes of it",
    }
    place = server.root / NAME
    with place.open("wb") as file:
        for offset, text in marks.items():
            if offset < size:
                file.seek(offset)
                file.write(text[: size - offset])
        file.truncate(size)
    # World compares with a blob, by sha256 in 1 MiB steps; a window is enough here.
    task = world.engine(processes="auto").download(at(world, server), world.out, NAME)
    assert task.wait(100)
    assert (task.status, task.error) == ("completed", None)
    path = Path(task.result(0))
    assert path.stat().st_size == task.total_size == size
    with path.open("rb") as got, place.open("rb") as sent:
        for offset in marks:
            if offset < size:
                for file in (got, sent):
                    file.seek(max(0, offset - MIB))
                assert got.read(2 * MIB) == sent.read(2 * MIB)
    for request in server.requests():
        first, _, last = request.range.removeprefix("bytes=").partition("-")
        assert int(first) <= int(last)
    path.unlink()


@pytest.mark.row("origin's blobs; sparse files under nginx")
@pytest.mark.parametrize(
    "size",
    [
        "0 by 416",
        "0 by 200",
        "0 chunked",
        *SIZES,
        *(pytest.param(s, marks=[pytest.mark.nginx, pytest.mark.full]) for s in SPARSE),
    ],
)
def test_38_odd_and_large_sizes(world: World, serve: Serve, size: str) -> None:
    """Every byte is there, and no empty range is asked for."""
    if size in SPARSE:
        _38_sparse(world, serve(), SPARSE[size])
        return
    if size in SIZES:
        world.whole(world.fetch(world.url(SIZES[size])))
        assert set(statuses(world)) == {206}
    else:
        options = {"by 416": {}, "by 200": {"ranges": "off"}}
        _38_empty(world, **options.get(size[2:], {"length": "off"}))
    for request in world.origin.log.entries:
        first, _, last = request.headers["range"].removeprefix("bytes=").partition("-")
        assert int(first) <= int(last)


@pytest.fixture
def small_disk(world: World) -> Iterator[int]:
    """Let the world save on a small file system; give its size in bytes."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    world.out.mkdir()
    # World looks at the environment of every child, and has put a secret into ours.
    clean = {"PATH": os.environ.get("PATH", os.defpath)}
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(world.out)],
        capture_output=True,
        text=True,
        env=clean,
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield 24 * MIB
    subprocess.run(["umount", str(world.out)], check=True, env=clean)


def _39_size(size: int) -> Case:
    def case(world: World) -> None:
        """One stream; the size is known at its end."""
        world.whole(world.fetch(world.url(size, ranges="off", length="off")))
        assert peak(world.origin) <= 1

    case.__name__ = f"of {size} bytes"
    return case


def _39_nothing_is_promised(world: World) -> None:
    """There is no progress and no ETA, but bytes are counted."""
    world.origin.rate = 8 * MIB
    task = world.start(world.url(8 * MIB, ranges="off", length="off"))
    until(lambda: task.downloaded_size > MIB)
    assert (task.total_size, task.progress, task.eta) == (0, 0.0, None)
    world.origin.rate = None
    assert task.wait(20)
    world.whole(task)
    told = world.told("progress")
    assert told
    assert all(each["eta"] is None for each in told if not each["total"])


def _39_range_in_chunks(world: World) -> None:
    """A 206 in chunks has its length in Content-Range: several lanes."""
    world.origin.rate = RATE
    world.whole(world.fetch(world.url(SIZE, length="off")))
    assert len({r.connection for r in world.origin.log.settle()}) > 1


def _39_endless(world: World, small_disk: int) -> None:
    """A stream without end is bounded by the disk, and nothing is published."""
    url = world.url(1 << 40, ranges="off", length="off", headers="Accept-Ranges: none")
    task = world.fetch(url)
    world.failed(task, DiskFull, "No space left")
    assert NAME not in names(world.out)
    assert world.origin.log.bytes_sent() < small_disk + 32 * MIB


def _39_stopped(world: World, processes: int) -> None:
    """A stream without end is cut one byte after max_bytes, and not asked for again."""
    world.origin.rate = 64 * MIB
    most = 4 * MIB
    url = world.url(1 << 40, ranges="off", length="off", headers="Accept-Ranges: none")
    task = world.fetch(url, max_bytes=most, processes=processes)
    words = f"sent {most + 1} bytes, more than the {most} bytes of max_bytes"
    world.failed(task, SizeLimitExceeded, words, "--max-bytes")
    assert NAME not in names(world.out)
    assert (world.out / PART).stat().st_size == most + 1
    assert len(world.origin.log.settle()) == 1
    # What was on its way when it was cut: a few socket buffers.
    assert most < world.origin.log.bytes_sent() < most + 16 * MIB
    assert world.told("retry") == []


def _39_stopped_in_a_thread(world: World) -> None:
    _39_stopped(world, 0)


def _39_stopped_in_a_process(world: World) -> None:
    _39_stopped(world, 1)


def _39_max_bytes_and_not_more(world: World) -> None:
    """A stream, or a file, that ends where max_bytes does is whole."""
    world.whole(world.fetch(world.url(SIZE, ranges="off"), max_bytes=SIZE))
    (world.out / NAME).unlink()
    url = world.url(SIZE, ranges="off", length="off")
    world.whole(world.fetch(url, max_bytes=SIZE))


def _39_known_length(world: World) -> None:
    """A length beyond max_bytes fails before room for it is looked for."""
    for options in ({}, {"ranges": "off", "headers": "Accept-Ranges: none"}):
        world.origin.reset()
        url = world.url(1 << 50, **options)
        mirror = world.url(1 << 50, origin=world.other)
        task = world.fetch(url, max_bytes=SIZE, mirrors=[mirror])
        words = f"has {1 << 50} bytes, more than the {SIZE} bytes of max_bytes"
        world.failed(task, SizeLimitExceeded, words, "--max-bytes")
        assert names(world.out) == []
        assert len(world.origin.log.settle()) == 1
        assert not world.other.log.entries


def _39_known_length_at_a_resume(world: World) -> None:
    """What is recorded stays for a run that allows more."""
    world.origin.rate = 40 * MIB
    url = world.url(SIZE, f=STALLS)
    recorded = leave_most(world, url)
    task = world.fetch(url, max_bytes=SIZE - 1)
    world.failed(task, SizeLimitExceeded, f"has {SIZE} bytes", f"{SIZE - 1} bytes of")
    assert names(world.out) == [PART, MANIFEST]
    assert world.recorded() == recorded
    task = world.fetch(url, max_bytes=SIZE)
    world.whole(task)
    assert task.resumed_size == recorded


@pytest.mark.row("origin that answers 200 in chunks")
@variants(
    _39_size(1),
    _39_size(MIB),
    _39_size(SIZE),
    _39_nothing_is_promised,
    _39_range_in_chunks,
    pytest.param(_39_endless, marks=pytest.mark.root),
    _39_stopped_in_a_thread,
    _39_stopped_in_a_process,
    _39_max_bytes_and_not_more,
    _39_known_length,
    _39_known_length_at_a_resume,
)
def test_39_unknown_length(request: pytest.FixtureRequest, case: Case) -> None:
    """One stream without ETA; max_bytes bounds it, else the disk; size at its end."""
    play(case, request)


@pytest.mark.row("nginx that refuses HEAD, or answers it otherwise than GET")
@pytest.mark.parametrize(
    "head",
    [nginx("return 405;"), nginx("return 403;"), nginx("rewrite ^ /other break;")],
)
def test_40_head_refused_or_disagreeing(world: World, serve: Serve, head: str) -> None:
    """HEAD is never asked: a useful range from byte 0 is the first request."""
    server = serve(
        world.allow(Blob(1, SIZE)),
        server=f"location / {{ if ($request_method = HEAD) {{ {head} }} }}",
    )
    (server.root / "other").write_bytes(b"another length")
    world.whole(world.fetch(at(world, server)))
    until(lambda: sum(r.sent_bytes for r in server.requests()) >= SIZE)
    assert {r.method for r in server.requests()} == {"GET"}
    assert f"bytes=0-{FIRST - 1}" in {r.range for r in server.requests()}


# --- 41 - 43: origins that are busy, or refuse ----------------------------------------


def _41_seconds(status: int) -> Case:
    def case(world: World) -> None:
        """What is asked for is waited, whatever retry_delay says."""
        url = world.url(1000, f=f"status={status}:retry=1@req1")
        world.whole(world.fetch(url, retry_delay=0))
        first, second = world.origin.log.entries
        assert second.began - first.began >= 1.0
        (told,) = world.told("retry")
        assert 1.0 <= told["delay"] <= 1.1
        assert str(status) in told["reason"]

    case.__name__ = f"{status} with seconds"
    return case


def _41_waits(value: Callable[[], str], least: float, most: float, name: str) -> Case:
    def case(world: World) -> None:
        """A long wait is told, capped, and ends with the task."""
        url = world.url(1000, f=f"status=503:retry={value()}@req1")
        task = world.start(url)
        until(lambda: world.told("retry"))
        (told,) = world.told("retry")
        assert least <= told["delay"] <= most
        assert task.status == "downloading"
        assert task.cancel()
        assert task.wait(10)
        assert task.status == "cancelled"
        assert names(world.out) == []
        assert len(world.origin.log.entries) == 1

    case.__name__ = name
    return case


def _41_nothing(value: str, name: str) -> Case:
    def case(world: World) -> None:
        """What asks for nothing, or is no Retry-After, delays nothing more."""
        url = world.url(1000, f=f"status=503:retry={value}@req1")
        world.whole(world.fetch(url))
        (told,) = world.told("retry")
        assert told["delay"] <= 0.02

    case.__name__ = name
    return case


def _41_fewer_lanes(world: World) -> None:
    """A 429 to the lanes that are too many leaves the file to those that live."""
    world.origin.rate = RATE
    world.most_bytes = 2 * SIZE
    world.whole(world.fetch(world.url(SIZE, f="status=429@req2,6")))
    refused = [r for r in world.origin.log.entries if r.status == 429]
    assert 0 < len(refused) <= 6


def _41_nginx(world: World, serve: Serve) -> None:
    """nginx' limit_conn answers 503 without Retry-After."""
    world.origin.rate = RATE / 4
    server, url = _limited(world, serve, 2)
    world.whole(world.fetch(url, retry_times=10))
    refused = [r for r in server.requests() if r.status == 503]
    assert 0 < len(refused) < 20


def _limited(world: World, serve: Serve, limit: int) -> tuple[Nginx, str]:
    """Put nginx with a limit_conn before the origin, whose pace is smoother."""
    server = serve(
        http="limit_conn_zone $binary_remote_addr zone=a:1m;",
        server=f"""
        location / {{
            limit_conn a {limit};
            proxy_http_version 1.1;
            proxy_buffering off;
            proxy_pass {world.origin.url};
        }}
        """,
    )
    world.allow(Blob(1, SIZE))
    return server, world.with_secrets(f"{server.url}/b/1/{SIZE}")


@pytest.mark.row("origin's 429 and 503 with Retry-After; nginx' limit_conn")
@variants(
    _41_seconds(429),
    _41_seconds(503),
    _41_waits(
        lambda: formatdate(time.time() + 3600, usegmt=True), 3500, 3970, "a date"
    ),
    _41_waits(lambda: "36000", 60, 35_999, "10 h"),
    _41_nothing("0", "0 s"),
    _41_nothing("Wed, 21 Oct 2015 07:28:00 GMT", "a date that is past"),
    _41_nothing("-7", "negative"),
    _41_nothing("soon", "garbage"),
    _41_nothing("1.5", "a fraction"),
    _41_nothing("", "empty"),
    _41_fewer_lanes,
    nginx(_41_nginx),
)
def test_41_retry_after(request: pytest.FixtureRequest, case: Case) -> None:
    """It is waited for, up to a cap, and fewer lanes are used."""
    play(case, request)


def _42_passes(status: int) -> Case:
    def case(world: World) -> None:
        """What passes by itself is asked again, within the budget."""
        world.whole(world.fetch(world.url(SIZE, f=f"status={status}@req1,3")))
        assert [str(status) in reason for reason in retried(world)] == [True] * 3

    case.__name__ = f"{status} three times"
    return case


def _42_passes_too_late(world: World) -> None:
    """One failure more than the budget ends the task."""
    task = world.fetch(world.url(SIZE, f="status=500@req1,4"))
    error = world.failed(task, StatusError, "500")
    assert getattr(error, "status", 0) == 500
    assert statuses(world) == [500] * 4
    assert names(world.out) == []


def _42_now_and_then(world: World) -> None:
    """Lanes that fail now and then cost time, not the task: progress refills."""
    world.origin.rate = RATE
    faults = ["rst@byte1048576,*"]
    faults += [f"status=502@req{number}" for number in range(4, 16, 4)]
    world.whole(world.fetch(world.url(SIZE, f=faults), retry_times=2))


def _42_half_way(status: int) -> Case:
    def case(world: World) -> None:
        """A file that vanishes on the way fails the task; it stays resumable."""
        # One lane: the second request is for what comes after 16 MiB.
        url = world.url(LONG, f=f"status={status}@range2,*")
        task = world.fetch(url, connections=1)
        world.failed(task, StatusError, str(status))
        assert names(world.out) == [PART, MANIFEST]
        assert world.recorded() == FIRST
        assert statuses(world) == [206, status]

    case.__name__ = f"{status} half-way"
    return case


def _42_expired(status: int) -> Case:
    def case(world: World) -> None:
        """A link that expires sends us back to the URL given, once."""
        world.other.rate = RATE
        target = world.url(
            SIZE, origin=world.other, f=f"status={status}@range2,2", etag="strong"
        )
        task = world.fetch(world.with_secrets(redirect(world.origin, target)))
        world.whole(task)
        assert len(world.origin.log.entries) == 2
        assert status in {r.status for r in world.other.log.entries}

    case.__name__ = f"{status} after the link expired"
    return case


def _42_stays_expired(world: World) -> None:
    """If the fresh link is refused too, the task fails with its status."""
    world.other.rate = RATE
    target = world.url(SIZE, origin=world.other, f="status=403@range2,*")
    task = world.fetch(world.with_secrets(redirect(world.origin, target)))
    world.failed(task, StatusError, "403", "fresh link")
    assert len(world.origin.log.entries) == 2
    assert len(world.other.log.entries) < 12
    assert names(world.out) == [PART, MANIFEST]


@pytest.mark.row("origin's counted statuses; a redirect whose target expires")
@variants(
    *(_42_passes(status) for status in (500, 502, 504)),
    _42_passes_too_late,
    _42_now_and_then,
    *(_42_half_way(status) for status in (403, 404, 410)),
    *(_42_expired(status) for status in (400, 401, 403, 404, 410)),
    _42_stays_expired,
)
def test_42_statuses_that_pass_or_are_final(
    request: pytest.FixtureRequest, case: Case
) -> None:
    """What passes is asked again; what does not is final, but for an expired link."""
    play(case, request)


@pytest.mark.row("origin that bears four; nginx' limit_conn; the port refuses")
@pytest.mark.parametrize(
    ("over", "cap"),
    [
        *((over, cap) for over in ("503", "rst", "refused") for cap in (1, 4)),
        nginx("nginx", 4),
    ],
)
def test_43_one_connection_too_many(
    world: World, serve: Serve, over: str, cap: int
) -> None:
    """The task makes do with those it gets, and does not ask without end."""
    world.most_requests = 40
    # Slow enough for all lanes to be there at the same time.
    world.origin.rate = RATE if cap == 1 else RATE / 4
    if over == "nginx":
        server, url = _limited(world, serve, cap)
        world.whole(world.fetch(url, connections=8))
        refused = [r for r in server.requests() if r.status == 503]
    else:
        options: dict[str, Any] = {"cap": cap, "over": over}
        if over == "refused":
            world.origin.max_sockets, options = cap, {}
        task = world.fetch(world.url(SIZE, **options), connections=8)
        world.whole(task)
        refused = [r for r in world.origin.log.settle() if r.status != 206]
        assert peak(world.origin) <= cap
    assert len(refused) < 25
    assert bool(refused) is (over != "refused")


# --- 44: redirects --------------------------------------------------------------------


def _44_loop(world: World) -> None:
    """A loop ends after ten rounds: a fragment leads to the URL it stands in."""
    task = world.fetch(world.with_secrets(redirect(world.origin, "#x")))
    _44_refused(world, task, 11, "more than 10 redirects")


def _44_hops(hops: int) -> Case:
    def case(world: World) -> None:
        """Ten redirects are followed, the eleventh is refused without a retry."""
        url = world.url(1000)
        for _ in range(hops):
            url = redirect(world.origin, url)
        task = world.fetch(url)
        if hops <= 10:
            world.whole(task)
        else:
            _44_refused(world, task, 11, "more than 10 redirects")

    case.__name__ = f"{hops} hops"
    return case


def _44_to(target: str) -> Case:
    def case(world: World) -> None:
        """Another scheme, or nothing, is refused at once."""
        task = world.fetch(world.with_secrets(redirect(world.origin, target)))
        _44_refused(world, task, 1, "what segdl does not fetch")

    case.__name__ = f"to {target}"
    return case


def _44_refused(world: World, task: DownloadTask, requests: int, words: str) -> None:
    world.failed(task, RedirectRefused, words)
    assert len(world.origin.log.entries) == requests
    assert world.told("retry") == []
    assert names(world.out) == []


def _44_from_https_to_http(world: World, more: More) -> None:
    """A redirect may not take the protection of TLS away."""
    tls = more(tls=True)
    world.trusted.append(tls)
    url = world.with_secrets(redirect(tls, world.url(1000)))
    task = world.fetch(url, ca_file=tls.ca_file)
    world.failed(task, RedirectRefused, "from https to plain http")
    assert world.origin.log.entries == ()


def _44_token_to_another_port(world: World) -> None:
    """Another port is another origin: it gets three of the user's fields."""
    target = world.url(SIZE, origin=world.other)
    secret = f"session={world.secrets.header}"
    world.other.rate = RATE
    engine = world.engine()
    task = engine.download(
        world.with_secrets(redirect(world.origin, target)),
        world.out,
        NAME,
        headers={
            "Authorization": f"Bearer {world.secrets.header}",
            "Cookie": secret,
            "X-Api-Key": world.secrets.header,
            "Accept": "a/b",
            "Accept-Language": "de",
            "User-Agent": "me",
        },
    )
    world.tasks.append(task)
    assert task.wait(20)
    world.whole(task)
    (request,) = world.origin.log.entries
    assert request.headers["cookie"] == secret
    for request in world.other.log.entries:
        assert not {"authorization", "cookie", "x-api-key"} & set(request.headers)
        assert request.headers["accept"] == "a/b"
        assert request.headers["accept-language"] == "de"
        assert request.headers["user-agent"] == "me"


def _44_token_after_a_detour(world: World) -> None:
    """What another origin sends back to us gets no credentials either."""
    world.allow(Blob(1, 1000))
    back = redirect(world.other, world.origin.blob_url(1, 1000))
    world.whole(world.fetch(world.with_secrets(redirect(world.origin, back))))
    first, last = world.origin.log.entries
    assert "authorization" in first.headers
    assert "authorization" not in last.headers


def _44_node(seed: int) -> Case:
    def case(world: World, more: More) -> None:
        """Each request for the link is sent to another node."""
        nodes = [world.other, more()]
        world.allow(Blob(1, SIZE))
        for node in nodes:
            node.rate = RATE
        one = nodes[0].blob_url(1, SIZE, f="status=403@range2,*")
        two = nodes[1].blob_url(seed, SIZE)
        faults = [f"redirect={one}@req1", f"redirect={two}@req2,*"]
        url = world.with_secrets(world.origin.blob_url(9, 9, f=faults))
        world.whole(world.fetch(url), world.allow(Blob(seed, SIZE)))
        assert nodes[1].log.entries
        changed = [r for r in retried(world) if "starting over" in r]
        assert len(changed) == int(seed != 1)

    case.__name__ = f"node with {'the same file' if seed == 1 else 'another file'}"
    return case


def _44_nodes_all_lanes(world: World, more: More) -> None:
    """The link is resolved once, so all lanes ask one node."""
    world.other.rate = RATE
    one = world.url(SIZE, origin=world.other)
    two = more().blob_url(2, SIZE)
    faults = [f"redirect={one}@req1", f"redirect={two}@req2,*"]
    world.whole(world.fetch(world.with_secrets(world.origin.blob_url(9, 9, f=faults))))
    assert len(world.origin.log.entries) == 1
    assert len(world.other.log.entries) >= 4


@pytest.fixture
def more(
    world: World, segdl_origin_factory: Callable[..., Origin], segdl_tls_files: Any
) -> Callable[..., Origin]:
    """Give a function that starts another origin, which the world watches too."""

    def start(*, tls: bool = False) -> Origin:
        origin = segdl_origin_factory(tls=segdl_tls_files if tls else None)
        world.origins.append(origin)
        return origin

    return start


@pytest.mark.row("origin that redirects: in a loop, elsewhere, to other nodes")
@variants(
    _44_loop,
    *(_44_hops(hops) for hops in (10, 11, 20)),
    *(
        _44_to(target)
        for target in (
            "file:///etc/passwd",
            "ftp://127.0.0.1/a",
            "gopher://127.0.0.1:1/a",
            "javascript:alert(1)",
            "http://",
            "http://127.0.0.1:99999/",
            "http:///etc/passwd",
        )
    ),
    _44_from_https_to_http,
    _44_token_to_another_port,
    _44_token_after_a_detour,
    _44_nodes_all_lanes,
    _44_node(1),
    _44_node(2),
)
def test_44_redirects(request: pytest.FixtureRequest, case: Case) -> None:
    """A redirect leads to the same file over HTTP, without the user's secrets."""
    play(case, request)


# --- 45 - 47: answers that are none ---------------------------------------------------

FLOODS = {
    "1 GiB of fields": ("hdrflood", "larger than"),
    "100,000 fields": ("hdrlines", "more than 1000 lines"),
    "a field of 1 GiB": ("hdrline", "a line of the response head is larger"),
    "early hints for ever": ("interim=100000", "more than 1000 lines"),
    "HTTP/0.9": ("http09", "status line"),
    "no HTTP": ("garbage", "status line"),
}
FIELDS = {
    "NUL": ("X: a\0b", "NUL"),
    "CR": ("X: a\rb", ""),
    "no colon": ("no colon here", ""),
    "no name": (": no name", "no header field"),
}
HARMLESS = {
    "obs-fold": "X: a|  folded: b",
    "empty": "X:",
    "no ASCII": "X-ü: ü",
    "space": "X : a",
}


def _memory(pid: int) -> tuple[int, int]:
    """Give the memory of a process, and the most it had: bytes."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = [re.search(rf"{name}:\s+(\d+) kB", text) for name in ("VmRSS", "VmHWM")]
    now, most = (int(each[1]) * 1024 for each in found if each)
    return now, most


@pytest.mark.row("origin with heads that never end, or break the grammar")
@pytest.mark.parametrize("head", [*FLOODS, *FIELDS, *HARMLESS, "5 early hints"])
def test_45_head_that_is_none(world: World, head: str) -> None:
    """It is an error after bounded reading; a worker's memory stays flat."""
    if head in FIELDS:
        lines, words = FIELDS[head]
        task = world.fetch(world.url(SIZE, headers=lines), retry_times=0)
        world.failed(task, ProtocolError, words)
        assert names(world.out) == []
        return
    if head not in FLOODS:
        options = (
            {"headers": HARMLESS[head]} if head in HARMLESS else {"f": "interim=5"}
        )
        world.whole(world.fetch(world.url(SIZE, **options)))
        return
    fault, words = FLOODS[head]
    engine = world.engine(processes=1, retry_times=1)
    warm = world.fetch(world.url(SIZE), engine=engine, filename="warm.bin")
    assert warm.status == "completed", warm.error
    (worker,) = children("transfer")
    Path(f"/proc/{worker.pid}/clear_refs").write_text("5")  # the most: from now on
    before, _ = _memory(worker.pid)
    world.origin.reset()
    task = world.fetch(world.url(SIZE, f=fault), engine=engine)
    _, most = _memory(worker.pid)
    assert most - before < 50 * 10**6
    world.failed(task, ProtocolError, words)
    assert len(world.origin.log.entries) == 2
    assert names(world.out) == ["warm.bin"]


@pytest.mark.row("origin whose body never ends")
@pytest.mark.parametrize("size", [1000, MIB, SIZE, "no range"])
def test_46_endless_body(world: World, size: int | str) -> None:
    """The connection is cut where our range ends."""
    if size == "no range":
        task = world.fetch(world.url(SIZE, ranges="off", f="endless"))
        words = ("closing the connection", "checksum")
        world.failed(task, ProtocolError, *words)
        assert names(world.out) == []
        return
    # What was on its way when it was cut: a few socket buffers a lane.
    world.most_bytes = int(size) + 80 * MIB
    world.whole(world.fetch(world.url(int(size), f="endless")))
    assert world.told("retry") == []


def _47_on_the_way(world: World) -> None:
    """A page in place of a range is no part of the file, and no new version."""
    world.origin.rate = RATE
    task = world.fetch(world.url(SIZE, f="html@range2,*"), retry_times=1)
    world.failed(task, RangeMismatch, "HTML page instead of the file", "login")
    assert names(world.out) == [PART, MANIFEST]
    world.recorded()


def _47_for_a_moment(world: World) -> None:
    """Once logged in, the file goes on."""
    world.origin.rate = RATE
    world.whole(world.fetch(world.url(SIZE, f="html@range2,3")))
    assert any("HTML page" in reason for reason in retried(world))


def _47_at_resume(world: World) -> None:
    """It costs nothing of what an earlier run brought."""
    # One lane: the second request is the resume's.
    url = world.url(SIZE, f=[STALL, "html@req2,2"])
    recorded = leave_most(world, url, connections=1)
    task = world.start(url, retry_times=1)
    assert task.wait(20)
    world.failed(task, RangeMismatch, "HTML page instead of the file")
    assert world.recorded() == recorded
    assert task.resume()
    assert task.wait(20)
    world.whole(task)
    assert task.resumed_size == recorded


def _47_from_the_start(world: World) -> None:
    """With a checksum, the page is never taken for the file."""
    checksum = f"sha256:{Blob(1, SIZE).digest()}"
    task = world.fetch(world.url(SIZE, f="html"), checksum=checksum)
    world.failed(task, IntegrityError, "sha256")
    assert NAME not in names(world.out)


@pytest.mark.row("origin that answers 200 text/html to everything")
@variants(_47_on_the_way, _47_for_a_moment, _47_at_resume, _47_from_the_start)
def test_47_captive_portal(request: pytest.FixtureRequest, case: Case) -> None:
    """A login page never becomes a part of the file; with a digest, nor the file."""
    play(case, request)
