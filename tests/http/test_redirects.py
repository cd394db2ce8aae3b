"""Redirects that are followed, and what goes along; row 44 has those that are not."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from http_checks import MIB, check_failed, check_whole, names
from scripted import Asked, head, part

from segdl.errors import ConnectError, StatusError
from segdl.testing import Blob

SIZE = 12 * MIB
TOKEN = "Bearer canary-5f0c"
SECRETS = {"Authorization": TOKEN, "Cookie": "session=canary", "X-Api-Key": "canary"}


def redirect(origin, target: str, status: int = 302) -> str:
    """Give a URL of an origin that redirects."""
    return f"{origin.url}/redirect?status={status}&to={quote(target, safe='')}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_followed_with_its_range(origin, fetch, status) -> None:
    """Each kind of redirect leads to the file, and the range goes along."""
    url = redirect(origin, origin.blob_url(1, SIZE), status)
    check_whole(fetch(url), origin.blob(1, SIZE))
    first, second = origin.log.entries[:2]
    assert first.headers["range"] == second.headers["range"]


def test_redirect_is_resolved_once(origin, other_origin, fetch) -> None:
    """All lanes go to the effective URL: the first origin is asked only once."""
    other_origin.rate = 8 * MIB
    check_whole(
        fetch(redirect(origin, other_origin.blob_url(1, SIZE))), origin.blob(1, SIZE)
    )
    assert len(origin.log.entries) == 1
    assert len(other_origin.log.entries) >= 4


@pytest.mark.parametrize("hops", [1, 10])
def test_chain_of_redirects(origin, fetch, hops) -> None:
    """Up to ten redirects are followed, one after the other."""
    url = origin.blob_url(1, 1000)
    for _ in range(hops):
        url = redirect(origin, url)
    check_whole(fetch(url), origin.blob(1, 1000))


def test_redirect_to_nobody(origin, fetch, out) -> None:
    """A target that can't be reached is a failure (it was asked for again for ever)."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{taken.getsockname()[1]}"
        task = fetch(redirect(origin, f"http://{dead}/a"), retry_times=1)
    check_failed(task, ConnectError, dead)
    assert len(origin.log.entries) == 2
    assert names(out) == []


@pytest.mark.parametrize("location", ["/b/1/1000", "../../b/1/1000", "//{}/b/1/1000"])
def test_relative_location(origin, fetch, location) -> None:
    """Location may be relative to the URL that was asked (RFC 3986 s5.2)."""
    location = location.format(origin.url.partition("//")[2])
    task = fetch(redirect(origin, location))
    check_whole(task, origin.blob(1, 1000))


def test_redirect_from_http_to_https(origin, tls_origin, fetch) -> None:
    """A redirect to TLS is followed, with the certificate checked."""
    url = redirect(origin, tls_origin.blob_url(1, SIZE))
    check_whole(fetch(url, ca_file=tls_origin.ca_file), origin.blob(1, SIZE))


def test_secrets_stay_with_their_origin_over_a_redirect(origin, fetch) -> None:
    """A redirect within an origin keeps the user's headers, for every lane."""
    url = redirect(origin, origin.blob_url(1, SIZE))
    check_whole(fetch(url, headers=SECRETS), origin.blob(1, SIZE))
    for request in origin.log.entries:
        assert request.headers["authorization"] == TOKEN


def test_password_in_the_url_stays_with_its_origin(origin, other_origin, fetch) -> None:
    """Userinfo becomes a header for that origin, and is in no message or file."""
    url = redirect(origin, other_origin.blob_url(1, 1000))
    check_whole(
        fetch(url.replace("//", "//canary:canary-secret@", 1)), origin.blob(1, 1000)
    )
    first = origin.log.entries[0].headers
    assert first["authorization"] == "Basic Y2FuYXJ5OmNhbmFyeS1zZWNyZXQ="
    assert all("authorization" not in r.headers for r in other_origin.log.entries)


def test_secret_of_a_signed_url_is_in_no_error(origin, other_origin, fetch) -> None:
    """An error about the target of a redirect shows no query of it."""
    target = other_origin.blob_url(1, 1000, f="status=403")
    url = redirect(origin, f"{target}&X-Signature=canary")
    task = fetch(f"{url}&token=canary", headers=SECRETS, retry_times=0)
    check_failed(task, StatusError, "403")
    assert "canary" not in repr(task) + str(task.error)


def test_lane_that_is_redirected_later(origin, fetch) -> None:
    """An effective URL that begins to redirect is resolved again."""
    target = origin.blob_url(1, SIZE, "target", f="redirect=/b/1/12582912@range3")
    origin.rate = 8 * MIB
    check_whole(fetch(redirect(origin, target)), origin.blob(1, SIZE))


def test_url_that_begins_to_redirect(origin, fetch) -> None:
    """The URL given may begin to redirect while the file comes down."""
    origin.rate = 8 * MIB
    url = origin.blob_url(1, SIZE, "x", f=f"redirect=/b/1/{SIZE}@range3,*")
    check_whole(fetch(url), origin.blob(1, SIZE))


def test_redirect_whose_body_has_no_end(script, fetch, monkeypatch) -> None:
    """The body of a redirect is of no interest, and nothing waits long for it."""
    monkeypatch.setattr("segdl._exchange._MAX_IGNORED_SECONDS", 0.0)
    over = threading.Event()

    def answer(asked: Asked) -> Iterator[bytes]:
        if asked.number == 1:
            yield head("302 Found", "Location: /there", "Content-Length: 9999") + b"x"
            over.wait(20)
        else:
            yield part(asked, Blob(1, 1000).read())

    try:
        task = fetch(script(answer).url, timeout=60)
    finally:
        over.set()
    check_whole(task, Blob(1, 1000))
