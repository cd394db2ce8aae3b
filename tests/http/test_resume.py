"""What a second run keeps of the first, and when it must not (row 64)."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from http_checks import (
    MANIFEST,
    MIB,
    NAME,
    PART,
    check_failed,
    check_whole,
    file_digest,
    names,
    recorded_bytes,
    refetched,
    umask,
    until,
)
from scripted import Asked, page, part, refusal

from segdl import DownloadEngine, DownloadTask, _destination
from segdl._fs import PartWriter
from segdl.errors import (
    ConnectError,
    DestinationExists,
    RangeMismatch,
    RepresentationChanged,
    StatusError,
    StorageError,
    UsageError,
)
from segdl.testing import Blob, Origin

SIZE = 24 * MIB + 321
RATE = 12 * MIB
# What may be sent twice: the pieces in flight, and what was on its way to four lanes.
AGAIN = 6 * MIB
# For what has to come in the middle, however busy the machine is.
SLOW = 2 * MIB


def half(engine: DownloadEngine, url: str, out: Path, **options: Any) -> DownloadTask:
    """Start a download and wait until about half of it is there."""
    task = engine.download(url, out, NAME, **options)
    until(lambda: task.downloaded_size > SIZE // 2 or task.status == "failed")
    assert task.status == "downloading", task.error
    return task


def leave_half(make_engine, url: str, out: Path, **options: Any) -> int:
    """Leave about half of a download behind, as an engine that was shut down does."""
    engine = make_engine()
    task = half(engine, url, out, **options)
    engine.shutdown(wait=False)
    assert task.status == "paused"
    assert names(out) == [PART, MANIFEST]
    return task.downloaded_size


def first_range(origin: Origin, skip: int) -> tuple[int, dict[str, str]]:
    """Give where the first request after so many began, and its fields."""
    request = origin.log.entries[skip]
    begin = int(request.headers["range"].removeprefix("bytes=").partition("-")[0])
    return begin, request.headers


@pytest.mark.parametrize("processes", [0, 2])
def test_pause_and_resume(origin, make_engine, out, processes) -> None:
    """A task that was paused goes on where it was."""
    origin.rate = RATE
    engine = make_engine(processes=processes)
    task = half(engine, origin.blob_url(1, SIZE), out)
    assert task.pause()
    assert (task.status, task.speed, task.connections) == ("paused", 0.0, 0)
    before = task.downloaded_size
    assert task.resume()
    assert task.wait(10)
    check_whole(task, origin.blob(1, SIZE))
    assert task.resumed_size >= before - AGAIN
    assert origin.log.served_twice() < AGAIN


def test_pause_and_resume_many_times(origin, make_engine, out) -> None:
    """However often it is paused, at whatever moment, the file is right."""
    origin.rate = RATE
    task = make_engine().download(origin.blob_url(1, SIZE), out, NAME)
    for step in range(1, 8):
        until(lambda step=step: task.downloaded_size >= step * 2 * MIB)
        assert task.pause()
        assert task.resume()
    assert task.wait(10)
    check_whole(task, origin.blob(1, SIZE))


@pytest.mark.parametrize("processes", [0, 2])
def test_shutdown_and_new_engine(origin, make_engine, out, processes) -> None:
    """Another engine goes on with what one left; If-Range carries the entity tag."""
    origin.rate = RATE
    url = origin.blob_url(1, SIZE)
    engine = make_engine(processes=processes)
    half(engine, url, out)
    engine.shutdown(wait=False)
    recorded = recorded_bytes(out, origin.blob(1, SIZE))
    assert recorded > SIZE // 2 - AGAIN
    skip = len(origin.log.settle())
    task = make_engine(processes=processes).download(url, out, NAME)
    assert task.wait(10)
    check_whole(task, origin.blob(1, SIZE))
    assert task.resumed_size == recorded
    begin, fields = first_range(origin, skip)
    assert begin > 0
    assert fields["if-range"] == origin.blob(1, SIZE).etag
    second_run = origin.log.entries[skip:]
    assert sum(r.sent_bytes for r in second_run) < SIZE - recorded + AGAIN


def test_name_taken_from_the_answer_is_found_again(origin, make_engine, out) -> None:
    """Without a name, the second run finds what the first saved by the answer's."""
    origin.rate = RATE
    url = origin.blob_url(1, SIZE, "a", disposition='attachment; filename="b.bin"')
    engine = make_engine()
    task = engine.download(url, out)
    until(lambda: task.downloaded_size > SIZE // 2)
    engine.shutdown(wait=False)
    recorded = recorded_bytes(out, origin.blob(1, SIZE), "b.bin")
    task = make_engine().download(url, out)
    assert task.wait(10)
    check_whole(task, origin.blob(1, SIZE))
    assert task.file_path == str(out / "b.bin")
    assert task.resumed_size == recorded


def test_failure_and_resume(origin, make_engine, out) -> None:
    """A task that failed for the network goes on when it is asked to."""
    origin.rate = RATE
    task = half(make_engine(retry_times=1), origin.blob_url(1, SIZE), out)
    origin.stop()
    assert task.wait(10)
    check_failed(task, ConnectError)
    recorded = recorded_bytes(out, origin.blob(1, SIZE))
    origin.start()
    assert task.resume()
    assert task.wait(10)
    check_whole(task, origin.blob(1, SIZE))
    assert task.resumed_size == recorded
    assert origin.log.served_twice() < AGAIN


@pytest.mark.parametrize("replaced", [True, False])
@pytest.mark.parametrize("processes", [0, 2])
def test_directory_that_is_moved(origin, make_engine, out, processes, replaced) -> None:
    """Nothing is published there, nor where it was; it is resumed where it is now."""
    origin.rate = SLOW
    url, moved = origin.blob_url(1, SIZE), out.with_name("moved")
    task = half(make_engine(processes=processes), url, out)
    out.rename(moved)
    if replaced:
        out.mkdir()
    assert task.wait(10)
    check_failed(task, StorageError, str(out))
    assert names(out) == []
    assert names(moved) == [PART, MANIFEST]
    origin.rate = None
    task = make_engine().download(url, moved, NAME)
    assert task.wait(10)
    check_whole(task, origin.blob(1, SIZE))
    assert task.resumed_size > SIZE // 2 - AGAIN
    assert origin.log.served_twice() < SIZE // 2


@pytest.mark.parametrize("on_exists", ["error", "reuse", "overwrite"])
def test_part_that_is_renamed(origin, make_engine, out, on_exists) -> None:
    """Under the final name it is not the file; under its own it is gone on with."""
    origin.rate = SLOW
    url = origin.blob_url(1, SIZE)
    leave_half(make_engine, url, out)
    origin.rate = None
    (out / PART).rename(out / NAME)
    task = make_engine().download(url, out, NAME, on_exists=on_exists)
    assert task.wait(10)
    error = task.exception(0)
    assert type(error) is DestinationExists
    assert "not finished" in str(error)
    assert names(out) == [NAME, MANIFEST]
    (out / NAME).rename(out / PART)
    recorded = recorded_bytes(out, origin.blob(1, SIZE))
    task = make_engine().download(url, out, NAME, on_exists=on_exists)
    assert task.wait(10)
    check_whole(task, origin.blob(1, SIZE))
    assert task.resumed_size == recorded


@pytest.fixture
def file_origin(tmp_path, segdl_origin_factory):
    """Give an origin of a real file, its path, and a function that replaces it."""
    root = tmp_path / "root"
    root.mkdir()
    path = root / NAME

    def replace(seed: int, size: int) -> Blob:
        fresh = root / "fresh"
        fresh.write_bytes(Blob(seed, size).read())
        os.replace(fresh, path)
        return Blob(seed, size)

    replace(1, SIZE)
    return segdl_origin_factory(root=root, rate=RATE), replace


@pytest.mark.parametrize(
    ("size", "options"),
    [
        (SIZE, ""),
        (0, ""),
        (SIZE, "?f=ignoreif"),
    ],
)
def test_changed_between_the_runs(file_origin, make_engine, out, size, options) -> None:
    """A file that changed meanwhile is begun anew; no old byte is in it."""
    origin, replace = file_origin
    url = origin.file_url(NAME) + options
    leave_half(make_engine, url, out)
    fresh = replace(2, size)
    task = make_engine().download(url, out, NAME)
    assert task.wait(10)
    if size:
        check_whole(task, fresh)
    else:
        assert (task.status, task.total_size) == ("completed", 0)
    assert task.resumed_size == 0


def test_changed_while_paused(file_origin, make_engine, out) -> None:
    """The same within one engine."""
    origin, replace = file_origin
    task = half(make_engine(), origin.file_url(NAME), out)
    task.pause()
    fresh = replace(2, SIZE + 1)
    task.resume()
    assert task.wait(10)
    check_whole(task, fresh)


def test_changed_but_a_checksum_wants_the_old_one(
    file_origin, make_engine, out
) -> None:
    """With a checksum of the old version, the new one is never published."""
    origin, replace = file_origin
    checksum = f"sha256:{Blob(1, SIZE).digest()}"
    leave_half(make_engine, origin.file_url(NAME), out, checksum=checksum)
    replace(2, SIZE)
    task = make_engine().download(origin.file_url(NAME), out, NAME, checksum=checksum)
    assert task.wait(10)
    assert task.status == "failed"
    assert NAME not in names(out)


def test_digest_that_can_not_be_computed_any_more(
    origin, make_engine, out, monkeypatch
) -> None:
    """It may be all that holds the pieces together, so they are kept, and not used."""
    origin.rate = RATE
    url = origin.blob_url(1, SIZE)
    digest = f"sha256:{origin.blob(1, SIZE).digest('sha256')}"
    leave_half(make_engine, url, out, checksum=digest)
    there = recorded_bytes(out, origin.blob(1, SIZE))

    def missing(algorithm: str) -> None:
        raise UsageError(f"{algorithm} needs a package")

    with monkeypatch.context() as patch:
        patch.setattr(_destination, "new_hasher", missing)
        task = make_engine().download(url, out, NAME)
        assert task.wait(10)
    check_failed(task, UsageError, "needs a package")
    assert recorded_bytes(out, origin.blob(1, SIZE)) == there


def test_other_url_of_the_same_name(origin, make_engine, out) -> None:
    """Another file's unfinished download is not taken over, nor thrown away."""
    origin.rate = RATE
    leave_half(make_engine, origin.blob_url(1, SIZE), out)
    before = recorded_bytes(out, origin.blob(1, SIZE))
    task = make_engine().download(origin.blob_url(2, SIZE), out, NAME)
    assert task.wait(10)
    check_failed(task, DestinationExists, "unfinished download", f"/b/1/{SIZE}")
    assert recorded_bytes(out, origin.blob(1, SIZE)) == before


def test_damaged_piece_is_fetched_again(origin, make_engine, out) -> None:
    """With a checksum, a byte that went bad on the disk costs its piece alone."""
    origin.rate = RATE
    url = origin.blob_url(1, SIZE)
    checksum = f"sha256:{origin.blob(1, SIZE).digest()}"
    leave_half(make_engine, url, out, checksum=checksum)
    with (out / PART).open("r+b") as file:
        file.seek(12_345)
        byte = file.read(1)
        file.seek(12_345)
        file.write(bytes([byte[0] ^ 1]))
    skip = len(origin.log.settle())
    task = make_engine().download(url, out, NAME, checksum=checksum)
    assert task.wait(10)
    check_whole(task, origin.blob(1, SIZE))
    assert task.checksum == checksum
    assert 0 < refetched(origin.log.entries[skip:], 0, MIB) <= MIB


@pytest.mark.parametrize("connections", [1, 4])
def test_pause_on_a_slow_disk_loses_nothing(
    origin, make_engine, out, monkeypatch, connections
) -> None:
    """What has come is written before the task rests, however slow the disk is."""
    pwrite = PartWriter.pwrite

    def slow(self: PartWriter, view: memoryview, offset: int) -> None:
        time.sleep(0.1)
        pwrite(self, view, offset)

    monkeypatch.setattr(PartWriter, "pwrite", slow)
    # Less than the disk takes: otherwise the sockets hold most of the file.
    origin.total_rate = 8 * MIB
    engine = make_engine(connections=connections)
    url = origin.blob_url(1, SIZE)
    task = engine.download(url, out, NAME)
    until(lambda: task.downloaded_size > 4 * MIB)
    assert task.pause()
    monkeypatch.undo()
    assert task.resume()
    assert task.wait(15)
    check_whole(task, origin.blob(1, SIZE))
    assert task.resumed_size > 4 * MIB
    # Only what the sockets and libcurl held is sent again.
    assert origin.log.served_twice() <= connections * 4 * MIB


def test_cancel_removes_part_and_manifest(origin, make_engine, out) -> None:
    """What is cancelled leaves nothing, and says so once."""
    origin.rate = RATE
    task = half(make_engine(), origin.blob_url(1, SIZE), out)
    assert task.cancel()
    assert task.status == "cancelled"
    until(lambda: names(out) == [])
    assert not task.cancel()


@pytest.mark.parametrize("same", [True, False])
def test_cancel_of_a_pending_task(origin, make_engine, out, same) -> None:
    """It removes what the task would have gone on with, and no other download's."""
    origin.rate = RATE
    leave_half(make_engine, origin.blob_url(1, SIZE), out)
    engine = make_engine(max_workers=1)
    first = engine.download(origin.blob_url(2, SIZE), out, "first.bin")
    second = engine.download(origin.blob_url(1 if same else 3, SIZE), out, NAME)
    assert second.cancel()
    assert (PART in names(out)) is not same
    assert first.cancel()
    until(lambda: names(out) == ([] if same else [PART, MANIFEST]))


def test_resume_unfinished(origin, make_engine, out) -> None:
    """What earlier runs left in a directory goes on, without being told its URLs."""
    origin.rate = SLOW
    engine = make_engine()
    urls = {
        f"{seed}.bin": origin.blob_url(seed, SIZE, f"{seed}.bin") for seed in (1, 2)
    }
    # A URL's query may be a secret, and is never stored.
    urls["3.bin"] = origin.blob_url(3, SIZE, "3.bin", etag="strong")
    begun = [engine.download(url, out) for url in urls.values()]
    until(lambda: all(task.downloaded_size > SIZE // 4 for task in begun))
    engine.shutdown(wait=False)
    origin.rate = RATE
    found = make_engine().resume_unfinished(out)
    assert [task.filename for task in found] == ["1.bin", "2.bin", "3.bin"]
    assert all(task.wait(15) for task in found)
    assert [task.status for task in found] == ["completed", "completed", "failed"]
    for seed, task in zip((1, 2), found, strict=False):
        assert file_digest(task.result(0)) == origin.blob(seed, SIZE).digest()
        assert task.resumed_size > SIZE // 4 - AGAIN
    error = found[2].exception(0)
    assert isinstance(error, UsageError)
    assert "3.bin" in str(error)
    task = make_engine().download(urls["3.bin"], out)
    assert task.wait(10)
    assert (task.status, task.resumed_size > 0) == ("completed", True)
    assert names(out) == ["1.bin", "2.bin", "3.bin"]


def test_resume_unfinished_goes_on_after_one_that_can_not(
    origin, make_engine, out, monkeypatch
) -> None:
    """A digest that can't be computed here fails its task, and no other."""
    origin.rate = SLOW
    engine = make_engine()
    digest = f"sha512:{origin.blob(1, SIZE).digest('sha512')}"
    begun = [
        engine.download(origin.blob_url(seed, SIZE, f"{seed}.bin"), out, checksum=given)
        for seed, given in ((1, digest), (2, None))
    ]
    until(lambda: all(task.downloaded_size > SIZE // 4 for task in begun))
    engine.shutdown(wait=False)
    origin.rate = RATE

    def refuse(checksum: str) -> None:
        raise UsageError(f"{checksum} can't be computed; install segdl[more]")

    monkeypatch.setattr("segdl._request._computable", refuse)
    found = make_engine().resume_unfinished(out)
    assert all(task.wait(15) for task in found)
    assert [task.status for task in found] == ["failed", "completed"]
    assert "install" in str(found[0].error)
    assert not found[0].resume()
    assert names(out) == ["1.bin.part", "1.bin.segdl", "2.bin"]


def test_resume_unfinished_of_an_empty_directory(make_engine, tmp_path) -> None:
    """Where nothing was left, nothing is to do."""
    assert make_engine().resume_unfinished(tmp_path) == []


def test_published_mode_follows_the_umask(origin, fetch) -> None:
    """The finished file has the mode that other programs' files have."""
    old = os.umask(0o027)
    try:
        task = fetch(origin.blob_url(1, 1000))
        assert Path(task.result(0)).stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(old)
    assert umask() == old


# --- answers that do not say which version they are of --------------------------------

SMALL = 4 * MIB
OLD, NEW = Blob(1, SMALL), Blob(2, SMALL)
V1, V2 = 'ETag: "v1"', 'ETag: "v2"'
DATE = "Date: Mon, 06 Jan 2025 00:00:00 GMT"
MONDAY = "Last-Modified: Mon, 01 Jan 2024 00:00:01 GMT"
TUESDAY = "Last-Modified: Tue, 02 Jan 2024 00:00:01 GMT"


def begun(*lines: str, rest=None):
    """Give a script that brings 2 MiB of the old version, then what `rest` says."""

    def answer(asked: Asked) -> bytes:
        if asked.number <= 2:
            return part(asked, OLD.read(), *lines)
        if asked.number == 3:
            return refusal("404 Not Found")
        return rest(asked)

    return answer


def go_on(script, fetch, out: Path, answer) -> DownloadTask:
    """Download until the origin refuses, and once more, over one connection."""
    url = script(answer).url
    assert fetch(url, connections=1).status == "failed"
    assert recorded_bytes(out, OLD) == 2 * MIB
    return fetch(url, connections=1)


@pytest.mark.parametrize("first", ["", 'ETag: W/"v1"'])
@pytest.mark.parametrize("later", [V2, ""])
def test_answer_without_the_tag_proves_nothing(
    script, fetch, out, first, later
) -> None:
    """A 206 to If-Range states the tag; from one that does not, nothing is taken up."""

    def rest(asked: Asked) -> bytes:
        line = first if asked.number == 4 else later
        return part(asked, NEW.read(), *filter(None, [line]))

    task = go_on(script, fetch, out, begun(V1, rest=rest))
    check_whole(task, NEW)
    assert task.resumed_size == 0


def test_date_that_a_later_answer_tells(script, fetch, out) -> None:
    """What a silent 206 to If-Range left out is still known when others differ."""

    def rest(asked: Asked) -> bytes:
        silent = asked.number == 4
        content = OLD if silent else NEW
        lines = [DATE] if silent else [DATE, TUESDAY]
        return part(asked, content.read(), *lines, most=MIB // 2)

    task = go_on(script, fetch, out, begun(DATE, MONDAY, rest=rest))
    check_whole(task, NEW)


def test_error_page_in_place_of_the_rest(script, fetch, out) -> None:
    """A page that says nothing of a version does not replace what is there."""
    answer = begun(V1, rest=lambda _: page(b'{"error": "please log in"}'))
    check_failed(go_on(script, fetch, out, answer), RangeMismatch, "of 26 bytes")
    assert recorded_bytes(out, OLD) == 2 * MIB


def test_answers_that_leave_the_tag_out(script, fetch) -> None:
    """Of one that had a tag, nothing without one is taken; another backend may help."""

    def answer(asked: Asked) -> bytes:
        if asked.number % 2:
            return part(asked, OLD.read(), V1)
        return part(asked, NEW.read())

    check_whole(fetch(script(answer).url, connections=1, retry_delay=0.01), OLD)


@pytest.mark.parametrize(("line", "dated"), [(V1, []), (MONDAY, [DATE])])
def test_no_other_answer_tells_a_version(script, fetch, out, line, dated) -> None:
    """What is recorded stays; a checksum makes up for what the origin leaves out."""

    def answer(asked: Asked) -> bytes:
        lines = [line, *dated] if asked.number == 1 else []
        return part(asked, OLD.read(), *lines)

    url = script(answer).url
    task = fetch(url, connections=1, retry_times=2, retry_delay=0.01)
    check_failed(task, RangeMismatch, "which version", "give a checksum")
    assert recorded_bytes(out, OLD) == MIB
    given = f"sha256:{OLD.digest('sha256')}"
    check_whole(fetch(url, connections=1, checksum=given), OLD)


def test_tags_that_only_later_answers_tell(script, fetch) -> None:
    """Answers with two tags are never combined, though the first one had none."""

    def answer(asked: Asked) -> bytes:
        if asked.number == 1:
            return part(asked, OLD.read())
        old = asked.number % 2
        return part(asked, (OLD if old else NEW).read(), V1 if old else V2)

    task = fetch(script(answer).url, connections=1)
    check_failed(task, RepresentationChanged, "v1", "v2")


@pytest.mark.parametrize(("before", "after"), [([V1], [V2]), ([MONDAY], [TUESDAY])])
def test_change_whose_fresh_answers_say_nothing(script, fetch, before, after) -> None:
    """Starting over without a validator takes up nothing of what had one."""

    def answer(asked: Asked) -> bytes:
        if asked.number <= 2:
            return part(asked, OLD.read(), DATE, *before)
        return part(asked, NEW.read(), DATE, *(after if asked.number == 3 else []))

    check_whole(fetch(script(answer).url, connections=1), NEW)


@pytest.mark.parametrize("line", ["X-None: 0", 'ETag: W/"v1"', MONDAY])
def test_new_link_that_proves_nothing(script, make_engine, fetch, out, line) -> None:
    """Without the same strong tag a new link is refused, and what is there is kept."""
    begin = script(begun(V1))
    assert fetch(begin.url + "?sig=1", connections=1).status == "failed"
    link = script(lambda asked: part(asked, NEW.read(), DATE, line))
    task = make_engine().download(link.url + "?sig=2", out, NAME, new_link=True)
    assert task.wait(10)
    check_failed(task, DestinationExists, "nothing proves")
    assert recorded_bytes(out, OLD) == 2 * MIB


def test_tag_of_a_new_link_that_echoes(script, make_engine, fetch, out) -> None:
    """The message about another tag does not repeat the request's secret in it."""
    begin = script(begun(V1))
    assert fetch(begin.url, connections=1).status == "failed"
    link = script(lambda asked: part(asked, NEW.read(), 'ETag: "of-canary-5f0c"'))
    task = make_engine().download(
        link.url + "?x", out, NAME, {"X-Key": "canary-5f0c"}, new_link=True
    )
    assert task.wait(10)
    error = check_failed(task, DestinationExists, "the entity tag was", "of-***")
    assert "canary" not in str(error)


@pytest.mark.parametrize("new_link", [False, True])
def test_link_that_says_nothing(script, make_engine, fetch, out, new_link) -> None:
    """Only the very link may leave the date out of a 206 to If-Range."""
    begin = script(begun(DATE, MONDAY))
    assert fetch(begin.url + "?sig=1", connections=1).status == "failed"
    link = script(begin.answer) if new_link else begin
    link.answer = lambda asked: part(asked, NEW.read(), DATE)
    task = make_engine().download(link.url + "?sig=2", out, NAME, new_link=new_link)
    assert task.wait(10)
    check_failed(task, DestinationExists, "nothing proves")
    assert recorded_bytes(out, OLD) == 2 * MIB


def test_name_that_only_the_answer_tells(script, make_engine, out) -> None:
    """What is there under it was not asked for with If-Range."""
    named = 'Content-Disposition: attachment; filename="other.bin"'
    origin = script(begun(DATE, MONDAY, named))
    engine = make_engine(connections=1)
    assert engine.download(origin.url + "?sig=1", out).wait(10)
    origin.answer = lambda asked: part(asked, NEW.read(), DATE, named)
    task = engine.download(origin.url + "?sig=2", out)
    assert task.wait(10)
    check_failed(task, DestinationExists, "nothing proves")
    assert recorded_bytes(out, OLD, "other.bin") == 2 * MIB


@pytest.mark.parametrize("line", ["X-None: 0", 'ETag: W/"v1"', MONDAY])
def test_start_over_for_want_of_a_validator(
    script, fetch, make_engine, out, line
) -> None:
    """Whoever loses what was there is told why."""
    begin = script(begun(line, rest=lambda asked: part(asked, OLD.read(), line)))
    assert fetch(begin.url, connections=1).status == "failed"
    engine, reasons = make_engine(), []
    engine.register_event_callback(lambda event: reasons.append(event.fields))
    task = engine.download(begin.url, out, NAME)
    assert task.wait(10)
    check_whole(task, OLD)
    until(lambda: "'reason': 'the origin told nothing that proves" in str(reasons))


def test_refusal_of_the_rest_says_what_to_do(script, fetch, out) -> None:
    """A 416 that tells no length may mean that the file is another one."""
    answer = begun(V1, rest=lambda _: refusal("416 Range Not Satisfiable"))
    check_failed(go_on(script, fetch, out, answer), StatusError, "416", "segdl clean")
    assert recorded_bytes(out, OLD) == 2 * MIB
