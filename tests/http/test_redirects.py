"""Where redirects may lead, and what goes along (row 44 of the matrix)."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from http_checks import MIB, check_failed, check_whole, names

from segdl.errors import RedirectRefused, RepresentationChanged, StatusError

SIZE = 12 * MIB
TOKEN = "Bearer canary-5f0c"
SECRETS = {"Authorization": TOKEN, "Cookie": "session=canary", "X-Api-Key": "canary"}


def redirect(origin, target: str, status: int = 302) -> str:
    """Give a URL of an origin that redirects."""
    return f"{origin.url}/redirect?status={status}&to={quote(target, safe='')}"


def leaked(origin) -> list[str]:
    """List the fields in which an origin saw a secret."""
    return [
        name
        for request in origin.log.entries
        for name, value in request.headers.items()
        if "canary" in value
    ]


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


@pytest.mark.parametrize("location", ["/b/1/1000", "../../b/1/1000", "//{}/b/1/1000"])
def test_relative_location(origin, fetch, location) -> None:
    """Location may be relative to the URL that was asked (RFC 3986 s5.2)."""
    location = location.format(origin.url.partition("//")[2])
    task = fetch(redirect(origin, location))
    check_whole(task, origin.blob(1, 1000))


@pytest.mark.parametrize("hops", [11, 20])
def test_44_too_many_redirects(origin, fetch, out, hops) -> None:
    """The eleventh redirect is refused, without a retry."""
    url = origin.blob_url(1, 1000)
    for _ in range(hops):
        url = redirect(origin, url)
    check_failed(fetch(url), RedirectRefused, "more than 10 redirects")
    assert len(origin.log.entries) == 11
    assert names(out) == []


def test_44_redirect_to_itself(origin, fetch) -> None:
    """A loop ends after ten rounds: a fragment leads to the URL it stands in."""
    check_failed(
        fetch(redirect(origin, "#x")), RedirectRefused, "more than 10 redirects"
    )
    assert len(origin.log.entries) == 11


@pytest.mark.parametrize(
    "target",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/a",
        "gopher://127.0.0.1:1/a",
        "javascript:alert(1)",
        "http://",
        "http://127.0.0.1:99999/",
        "http:///etc/passwd",
    ],
)
def test_44_redirect_to_what_is_not_fetched(origin, fetch, out, target) -> None:
    """A redirect to another scheme, or to nothing, is refused at once."""
    task = fetch(redirect(origin, target))
    check_failed(task, RedirectRefused, "what segdl does not fetch")
    assert len(origin.log.entries) == 1
    assert names(out) == []


def test_44_redirect_from_https_to_http(origin, tls_origin, fetch) -> None:
    """A redirect may not take the protection of TLS away."""
    url = redirect(tls_origin, origin.blob_url(1, 1000))
    task = fetch(url, ca_file=tls_origin.ca_file)
    check_failed(task, RedirectRefused, "from https to plain http")
    assert origin.log.entries == ()


def test_redirect_from_http_to_https(origin, tls_origin, fetch) -> None:
    """A redirect to TLS is followed, with the certificate checked."""
    url = redirect(origin, tls_origin.blob_url(1, SIZE))
    check_whole(fetch(url, ca_file=tls_origin.ca_file), origin.blob(1, SIZE))


def test_44_no_secret_goes_to_another_origin(origin, other_origin, fetch) -> None:
    """Another port is another origin: it sees none of the user's headers but three."""
    headers = SECRETS | {"Accept": "a/b", "Accept-Language": "de", "User-Agent": "me"}
    url = redirect(origin, other_origin.blob_url(1, SIZE))
    check_whole(fetch(url, headers=headers), origin.blob(1, SIZE))
    assert leaked(origin) == ["authorization", "cookie", "x-api-key"]
    assert leaked(other_origin) == []
    for request in other_origin.log.entries:
        assert request.headers["accept"] == "a/b"
        assert request.headers["accept-language"] == "de"
        assert request.headers["user-agent"] == "me"


def test_secrets_stay_with_their_origin_over_a_redirect(origin, fetch) -> None:
    """A redirect within an origin keeps the user's headers, for every lane."""
    url = redirect(origin, origin.blob_url(1, SIZE))
    check_whole(fetch(url, headers=SECRETS), origin.blob(1, SIZE))
    for request in origin.log.entries:
        assert request.headers["authorization"] == TOKEN


def test_44_secrets_do_not_come_back_after_a_detour(
    origin, other_origin, fetch
) -> None:
    """What another origin redirects back to us gets no credentials either."""
    back = redirect(other_origin, origin.blob_url(1, 1000))
    check_whole(fetch(redirect(origin, back), headers=SECRETS), origin.blob(1, 1000))
    assert leaked(other_origin) == []


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


@pytest.mark.parametrize("status", [401, 403, 404, 410, 400])
def test_42_expired_link_is_resolved_again(origin, other_origin, fetch, status) -> None:
    """A signed link that expires on the way sends us back to the URL given, once."""
    other_origin.rate = 8 * MIB
    target = other_origin.blob_url(1, SIZE, f=f"status={status}@range3,2")
    check_whole(fetch(redirect(origin, target)), origin.blob(1, SIZE))
    assert len(origin.log.entries) == 2


def test_42_link_that_stays_expired(origin, other_origin, fetch) -> None:
    """If the fresh link is refused too, the task fails with its status."""
    other_origin.rate = 8 * MIB
    target = other_origin.blob_url(1, SIZE, f="status=403@range3,*")
    check_failed(fetch(redirect(origin, target)), StatusError, "403", "fresh link")
    assert len(origin.log.entries) == 2


def test_44_other_node_with_the_same_file(
    origin, other_origin, segdl_origin_factory, fetch
) -> None:
    """A fresh link may lead to another node, if it has the same version."""
    third = segdl_origin_factory(rate=8 * MIB)
    other_origin.rate = 8 * MIB
    one = other_origin.blob_url(1, SIZE, f="status=403@range3,*")
    two = third.blob_url(1, SIZE)
    url = origin.blob_url(9, 9, f=[f"redirect={one}@req1", f"redirect={two}@req2,*"])
    check_whole(fetch(url), origin.blob(1, SIZE))
    assert third.log.entries


def test_44_other_node_with_another_file(
    origin, other_origin, segdl_origin_factory, fetch
) -> None:
    """A node with another version makes the task start over, never mix."""
    third = segdl_origin_factory(rate=8 * MIB)
    other_origin.rate = 8 * MIB
    one = other_origin.blob_url(1, SIZE, f="status=403@range3,*")
    two = third.blob_url(2, SIZE)
    url = origin.blob_url(9, 9, f=[f"redirect={one}@req1", f"redirect={two}@req2,*"])
    task = fetch(url)
    if task.status == "completed":
        check_whole(task, origin.blob(2, SIZE))
    else:
        check_failed(task, RepresentationChanged)


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
