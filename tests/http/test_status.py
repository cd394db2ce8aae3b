"""Statuses that are no success, beyond rows 41 and 42 of the matrix."""

from __future__ import annotations

import pytest
from http_checks import (
    MIB,
    check_failed,
    check_whole,
    names,
)
from scripted import head, refusal

from segdl.errors import StatusError, TransferError

SIZE = 20 * MIB + 5
RATE = 24 * MIB


@pytest.mark.parametrize("status", [408, 425, 429, 503, 520, 524])
def test_status_that_passes(origin, fetch, status) -> None:
    """What passes by itself is asked again, within the budget."""
    task = fetch(origin.blob_url(1, SIZE, f=f"status={status}@req1,3"))
    check_whole(task, origin.blob(1, SIZE))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 407, 410, 451, 501, 505])
def test_status_that_is_final(origin, fetch, out, status) -> None:
    """A refusal is asked once."""
    task = fetch(origin.blob_url(1, SIZE, f=f"status={status}"))
    error = check_failed(task, StatusError, str(status))
    assert error.status == status
    assert len(origin.log.entries) == 1
    assert names(out) == []


@pytest.mark.parametrize("status", [204, 205, 304, 299])
def test_success_that_is_no_answer(origin, fetch, status) -> None:
    """Other successes than 200 and 206 bring no file."""
    task = fetch(origin.blob_url(1, SIZE, f=f"status={status}"), retry_times=0)
    check_failed(task, StatusError, str(status))


@pytest.mark.parametrize("status", [429, 503])
def test_failures_between_successes(origin, fetch, status) -> None:
    """Lanes that fail now and then cost time, not the task: progress refills."""
    origin.rate = RATE
    faults = [
        "rst@byte1048576,*",
        *(f"status={status}@req{n}" for n in range(4, 24, 4)),
    ]
    task = fetch(origin.blob_url(1, SIZE, f=faults), retry_times=2)
    check_whole(task, origin.blob(1, SIZE))


def test_message_of_a_refusal_says_what_to_do(origin, fetch) -> None:
    """401 speaks of a token, and holds none."""
    task = fetch(
        origin.blob_url(1, SIZE, f="status=401") + "&sig=canary",
        headers={"Authorization": "Bearer canary"},
    )
    error = check_failed(task, StatusError, "token or password")
    assert "canary" not in str(error)


def test_change_found_by_the_412_of_an_origin(origin, fetch) -> None:
    """A 412 is read as a change: the file is looked at again, and goes on."""
    task = fetch(origin.blob_url(1, SIZE, f="status=412@range3"))
    check_whole(task, origin.blob(1, SIZE))


@pytest.mark.parametrize(
    "answer",
    [
        refusal("403 bad token {secret}"),
        refusal("503 bad token {secret}"),
        refusal("500 GET /file.bin?sig={secret} failed"),
        head("206 Part", "Content-Range: bytes={secret}"),
        head("206 Part", "Content-Encoding: {secret}"),
        refusal("302 Found", "Location: {secret}:elsewhere"),
    ],
)
@pytest.mark.parametrize("where", ["header", "query", "user"])
def test_echo_of_a_secret(script, make_engine, out, answer, where) -> None:
    """What an origin repeats of a request's secrets is in no error and no event."""
    secret = "canary-5f0c"
    origin = script(lambda _: answer.replace(b"{secret}", secret.encode()))
    url, headers = origin.url, {}
    if where == "header":
        headers = {"Authorization": f"Bearer {secret}"}
    elif where == "query":
        url += f"?sig={secret}"
    else:
        url = url.replace("//", f"//me:{secret}@")
    engine = make_engine(retry_times=1)
    events = []
    engine.register_event_callback(lambda event: events.append(repr(event)))
    task = engine.download(url, out, "a", headers)
    assert task.wait(10)
    engine.shutdown(wait=False)
    assert isinstance(task.exception(0), TransferError)
    assert "canary" not in "".join([str(task.error), repr(task.exception(0)), *events])
    assert "***" in str(task.error)
