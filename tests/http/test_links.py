"""Links that expire: made anew by the caller's function, or given anew by the user."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator

import pytest
from http_checks import (
    MIB,
    NAME,
    check_failed,
    check_whole,
    names,
    recorded_bytes,
    refetched,
    until,
)
from scripted import Asked, part, refusal

from segdl.errors import RangeMismatch, StatusError, TransferError, UsageError
from segdl.testing import Blob

SIZE = 20 * MIB + 77
RATE = 16 * MIB
# All four lanes are cut after 3 MB (a reset would drop what nobody has read yet), and
# then the link has expired.
EXPIRES = ["fin@byte3000000,4", "status=403@range5,*"]
# The options of an origin that tells nothing of versions.
SILENT = {"etag": "none", "lm": "none"}

OLD, NEW = Blob(1, 4 * MIB), Blob(2, 4 * MIB)
V1 = 'ETag: "v1"'
# It is no other tag, and proves nothing.
WEAK = 'ETag: W/"v1"'


class Links:
    """
    A function that gives a link after the other, and counts its calls.

    Args:
        links: What it gives; the last one again and again.
    """

    def __init__(self, *links: str) -> None:
        self._links = list(links)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        return self._links.pop(0) if len(self._links) > 1 else self._links[0]


def test_function_gives_the_url(origin, fetch) -> None:
    """It is called once, off the caller's thread, and the task then has the URL."""
    url = origin.blob_url(1, SIZE)
    links = Links(url)
    task = fetch(links)
    check_whole(task, origin.blob(1, SIZE))
    assert (links.calls, task.url) == (1, url)


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="no signal masks")
def test_function_blocks_no_signal_of_its_own(origin, fetch) -> None:
    """What it starts can be ended, and interrupted."""
    seen = []

    def link() -> str:
        seen.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        return origin.blob_url(1, MIB)

    check_whole(fetch(link), origin.blob(1, MIB))
    assert seen == [signal.pthread_sigmask(signal.SIG_BLOCK, ())]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_expired_link_is_made_anew_once_for_all_lanes(origin, fetch, status) -> None:
    """All lanes go on with one new link, from where they were."""
    origin.rate = RATE
    faults = [EXPIRES[0], f"status={status}@range5,*"]
    links = Links(
        origin.blob_url(1, SIZE, "first", f=faults),
        origin.blob_url(1, SIZE, "second"),
    )
    check_whole(fetch(links), origin.blob(1, SIZE))
    assert links.calls == 2
    # But for the rest of one that is slow, which may be asked for a second time.
    assert origin.log.served_twice() <= 2 * MIB


def test_link_that_leads_on_is_made_anew(origin, other_origin, fetch) -> None:
    """A new link is followed where it leads, like the first one."""
    origin.rate = other_origin.rate = RATE
    ends = other_origin.blob_url(1, SIZE, "first", f=EXPIRES)
    again = other_origin.blob_url(1, SIZE, "second")
    links = Links(
        origin.blob_url(1, SIZE, "a", f=[f"redirect={ends}@req1", "status=403@req2,*"]),
        origin.blob_url(1, SIZE, "b", f=f"redirect={again}"),
    )
    check_whole(fetch(links), origin.blob(1, SIZE))
    assert links.calls == 2


def test_new_link_to_another_file(origin, fetch) -> None:
    """What a new link has instead is fetched from its beginning, never mixed in."""
    origin.rate = RATE
    links = Links(
        origin.blob_url(1, SIZE, "first", f=EXPIRES), origin.blob_url(2, SIZE, "second")
    )
    check_whole(fetch(links), origin.blob(2, SIZE))


def test_new_link_that_proves_nothing(origin, fetch) -> None:
    """Without the same strong tag, a link to another path is one to another file."""
    origin.rate = RATE
    links = Links(
        origin.blob_url(1, SIZE, "first", f=EXPIRES, **SILENT),
        origin.blob_url(2, SIZE, "second", **SILENT),
    )
    check_whole(fetch(links), origin.blob(2, SIZE))


def test_new_link_that_says_nothing(origin, fetch, out) -> None:
    """What is there, of a version that is known, is not given up for it."""
    origin.rate = RATE
    links = Links(
        origin.blob_url(1, SIZE, "first", f=EXPIRES),
        origin.blob_url(2, SIZE, "second", **SILENT),
    )
    task = fetch(links, retry_times=1, retry_delay=0.01)
    check_failed(task, RangeMismatch, "which version")
    assert recorded_bytes(out, origin.blob(1, SIZE)) > 0


def test_new_link_that_is_refused_too(origin, fetch, out) -> None:
    """A second refusal in a row ends it; the message says how to go on."""
    origin.rate = RATE
    links = Links(
        origin.blob_url(1, SIZE, "first", f=EXPIRES),
        origin.blob_url(1, SIZE, "second", f="status=403"),
    )
    task = fetch(links)
    check_failed(task, StatusError, "403", "segdl resume", "--url")
    assert links.calls == 2
    assert recorded_bytes(out, origin.blob(1, SIZE)) > 0


def test_expired_link_of_a_version_that_no_one_knows(origin, fetch) -> None:
    """No new link could go on with what is there, so none is advised."""
    origin.rate = RATE
    task = fetch(origin.blob_url(1, SIZE, f=EXPIRES, **SILENT), connections=4)
    assert "segdl resume" not in str(check_failed(task, StatusError, "403"))
    assert task.downloaded_size


def test_first_link_that_is_refused(origin, fetch) -> None:
    """A fresh link that is refused says nothing about time: no other is asked for."""
    links = Links(origin.blob_url(1, SIZE, f="status=403"))
    check_failed(fetch(links), StatusError, "403")
    assert links.calls == 1


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda: 1 / 0, ["ZeroDivisionError"]),
        (sys.exit, ["SystemExit"]),
        (lambda: None, ["NoneType"]),
        (lambda: "ftp://example.org/a", ["http"]),
        (lambda: "", ["URL"]),
    ],
)
def test_function_that_fails(fetch, out, function, words) -> None:
    """The task fails and says why; the reason is its cause."""
    check_failed(fetch(function), UsageError, *words)
    assert names(out) == []


def test_what_a_function_raises_is_not_shown(fetch) -> None:
    """Its text may hold a secret, so that only its type is told."""

    def function() -> str:
        raise RuntimeError("canary")

    error = check_failed(fetch(function), UsageError, "RuntimeError")
    assert "canary" not in str(error)
    assert isinstance(error.__cause__, RuntimeError)


@pytest.mark.parametrize("url", [5, None, b"http://127.0.0.1/a", ["x"]])
def test_url_of_another_type(make_engine, out, url) -> None:
    """What is neither a string nor a function is refused at once."""
    with pytest.raises(UsageError):
        make_engine().download(url, out)


def test_request_that_libcurl_refuses(fetch, out) -> None:
    """It fails its own task; the worker, which others share, goes on."""
    # setopt takes 8,000,000 bytes (CURL_MAX_INPUT_LENGTH); its error ended the worker,
    # and that of the next one, until there were too many deaths.
    proxy = f"http://name:{'a' * 8_000_000}@127.0.0.1:1"
    task = fetch("http://127.0.0.1:1/a.bin", proxy=proxy)
    check_failed(task, TransferError, "libcurl refused")
    assert names(out) == []


def test_link_of_enormous_length(make_engine, out) -> None:
    """It is refused at once, and the message does not hold it."""
    link = f"http://127.0.0.1:1/{'a' * 100_000}"
    with pytest.raises(UsageError, match="100019 characters") as caught:
        make_engine().download(link, out)
    assert len(str(caught.value)) < 200


def test_function_that_hangs_holds_nothing_up(origin, make_engine, out) -> None:
    """Other tasks go on, and a cancel ends the task at once."""
    release = threading.Event()
    asked = threading.Event()

    def function() -> str:
        asked.set()
        release.wait(30)
        return origin.blob_url(1, 1000)

    engine = make_engine()
    try:
        slow = engine.download(function, out, "slow")
        assert asked.wait(10)
        other = engine.download(origin.blob_url(1, 1000), out / "other", NAME)
        assert other.wait(10)
        check_whole(other, origin.blob(1, 1000))
        assert slow.cancel()
        assert slow.status == "cancelled"
    finally:
        release.set()


def test_link_of_a_later_run_goes_on(origin, make_engine, out) -> None:
    """Another engine, another link: what an earlier run left is gone on with."""
    origin.rate = 4 * MIB
    engine = make_engine()
    task = engine.download(lambda: origin.blob_url(1, SIZE, "first"), out, NAME)
    until(lambda: task.downloaded_size > 6 * MIB)
    engine.shutdown(wait=False)
    left = recorded_bytes(out, origin.blob(1, SIZE))
    before = len(origin.log.settle())
    origin.rate = None
    task = make_engine().download(lambda: origin.blob_url(1, SIZE, "second"), out, NAME)
    assert task.wait(10)
    check_whole(task, origin.blob(1, SIZE))
    assert task.resumed_size == left
    assert sum(r.sent_bytes for r in origin.log.settle()[before:]) < SIZE - left + MIB


def test_paused_task_asks_for_its_link_again(origin, make_engine, out) -> None:
    """A pause may be longer than a link is good for."""
    origin.rate = 4 * MIB
    links = Links(origin.blob_url(1, SIZE, "first"), origin.blob_url(1, SIZE, "second"))
    task = make_engine().download(links, out, NAME)
    until(lambda: task.downloaded_size > 3 * MIB)
    assert task.pause()
    origin.rate = None
    assert task.resume()
    assert task.wait(10)
    check_whole(task, origin.blob(1, SIZE))
    assert links.calls == 2
    assert refetched(origin.log.entries, 0, MIB) == MIB


def test_late_answer_of_an_old_link(script, fetch) -> None:
    """It proves nothing of the new one, which leads elsewhere."""
    asked_anew = threading.Event()

    def before(asked: Asked) -> Iterator[bytes]:
        if asked.number > 2:
            yield refusal("403 Forbidden")
            return
        data = part(asked, OLD.read(), V1, most=OLD.size)
        if asked.number == 1:
            yield data[: MIB + 1000]
        else:
            asked_anew.wait(10)
            yield data[:-MIB]

    def after(asked: Asked) -> Iterator[bytes]:
        if asked.number == 1:
            asked_anew.set()
            until(lambda: len(old.asked) > 2)
            threading.Event().wait(0.3)  # for the old one's answer to be taken
        yield part(asked, NEW.read(), WEAK)

    old, new = script(before), script(after)
    check_whole(fetch(Links(old.url, new.url + "/other"), connections=2), NEW)


def test_link_that_leads_elsewhere_later(script, fetch) -> None:
    """Where it led to something with a strong tag, the next one has to prove itself."""

    def before(asked: Asked) -> bytes:
        if asked.number > 2:
            return refusal("403 Forbidden")
        return part(asked, OLD.read(), V1)

    def lead(asked: Asked) -> bytes:
        target = old.url if asked.number == 1 else new.url + "/other"
        return refusal("302 Found", f"Location: {target}")

    old, new = script(before), script(lambda asked: part(asked, NEW.read(), WEAK))
    check_whole(fetch(script(lead).url, connections=1), NEW)


def test_late_refusal_by_the_same_link(script, fetch) -> None:
    """A link that was found out again is not refused by what was asked before that."""
    again = threading.Event()

    def answer(asked: Asked) -> Iterator[bytes]:
        data = part(asked, OLD.read(), V1, most=OLD.size)
        if asked.number == 1:
            yield data[: MIB + 1000]
        elif asked.number == 2:
            again.wait(10)
            yield refusal("410 Gone")
        elif asked.number == 3:
            yield refusal("410 Gone")
        else:
            body = data.index(b"\r\n\r\n") + 4
            yield data[:body]
            if asked.number == 4:
                threading.Event().wait(0.1)  # for the head to be taken
                again.set()
                threading.Event().wait(0.3)  # and then the refusal
            yield data[body:]

    target = script(answer)
    lead = script(lambda _: refusal("302 Found", f"Location: {target.url}"))
    check_whole(fetch(lead.url, connections=2), OLD)
