"""Against another HTTP implementation: werkzeug's conditional ranges, by a handler."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterator

import pytest
from http_checks import MIB, NAME, check_failed, check_whole, names, until
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from segdl.errors import StatusError
from segdl.testing import Blob

SIZE = 5 * MIB + 11
BLOB = Blob(1, SIZE)
CONTENT = BLOB.read()
DATE = "Mon, 01 Jan 2024 00:00:01 GMT"


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    """Give a server of its own port, threaded, checked and stopped after the test."""
    with HTTPServer(threaded=True) as running:
        yield running
        running.check()


def conditional(request: Request) -> Response:
    """Answer as werkzeug does: 206, 304, 412 or 416 as the request's fields demand."""
    response = Response(io.BytesIO(CONTENT), direct_passthrough=True)
    response.content_type = "application/octet-stream"
    response.set_etag(hashlib.md5(CONTENT).hexdigest())
    return response.make_conditional(request, accept_ranges=True, complete_length=SIZE)


def test_ranges_by_another_implementation(server, fetch) -> None:
    """Several lanes put a file together from werkzeug's 206 answers."""
    server.expect_request("/f").respond_with_handler(conditional)
    check_whole(fetch(server.url_for("/f")), BLOB)
    log = server.log
    assert {response.status_code for _, response in log} == {206}
    assert all(request.headers["Accept-Encoding"] == "identity" for request, _ in log)


def test_user_headers_arrive_with_every_request(server, fetch) -> None:
    """The user's headers are on all lanes, word for word."""
    headers = {
        "Authorization": "Bearer a b c==",
        "X-Empty": "",
        "X-Latin": "ü",
        "User-Agent": "mine/1",
        "Cookie": "a=1; b=2",
    }
    server.expect_request("/f").respond_with_handler(conditional)
    check_whole(fetch(server.url_for("/f"), headers=headers), BLOB)
    for request, _ in server.log:
        for name, value in headers.items():
            assert request.headers[name] == value
        assert request.headers.getlist("User-Agent") == ["mine/1"]


def test_query_is_sent_as_it_was_given(server, fetch) -> None:
    """A signed URL arrives byte for byte, odd escapes included."""
    query = "X-Sig=a%2fb%2Fc+d&empty=&z=1;2&%c3%bc=%7E~!*'()"
    server.expect_request("/a b").respond_with_handler(conditional)
    url = f"{server.url_for('/')}a%20b?{query}"
    check_whole(fetch(url), BLOB)
    request, _ = server.log[0]
    assert request.environ["REQUEST_URI"].endswith(f"/a%20b?{query}")


def test_resume_by_another_implementation(server, make_engine, out) -> None:
    """werkzeug honours our If-Range, and sends the rest only."""
    go_on = threading.Event()

    def halting(request: Request) -> Response:
        response = conditional(request)
        begin, stop = response.content_range.start, response.content_range.stop
        assert begin is not None
        assert stop is not None

        def body() -> Iterator[bytes]:
            half = begin + (stop - begin) // 2
            yield CONTENT[begin:half]
            assert go_on.wait(10)
            yield CONTENT[half:stop]

        response.response = body()
        return response

    server.expect_request("/f").respond_with_handler(halting)
    engine = make_engine(connections=1)
    task = engine.download(server.url_for("/f"), out, NAME)
    until(lambda: task.downloaded_size > SIZE // 3)
    engine.shutdown(wait=False)
    go_on.set()
    task = make_engine(connections=1).download(server.url_for("/f"), out, NAME)
    assert task.wait(10)
    check_whole(task, BLOB)
    assert task.resumed_size > SIZE // 3
    conditions = [
        r.headers["If-Range"] for r, _ in server.log if "If-Range" in r.headers
    ]
    assert conditions == [f'"{hashlib.md5(CONTENT).hexdigest()}"']


def test_date_alone_as_validator(server, fetch) -> None:
    """Without an entity tag, werkzeug's dates serve as well."""

    def dated(request: Request) -> Response:
        response = Response(io.BytesIO(CONTENT), direct_passthrough=True)
        response.headers["Last-Modified"] = DATE
        return response.make_conditional(
            request, accept_ranges=True, complete_length=SIZE
        )

    server.expect_request("/f").respond_with_handler(dated)
    check_whole(fetch(server.url_for("/f")), BLOB)


def test_handler_without_ranges(server, fetch) -> None:
    """A plain handler that knows no ranges answers 200: one stream."""
    server.expect_request("/f").respond_with_data(CONTENT)
    check_whole(fetch(server.url_for("/f")), BLOB)
    assert {response.status_code for _, response in server.log} == {200}


def test_digest_stated_with_a_redirect(server, fetch) -> None:
    """A hub's X-Linked-Etag on its redirect is the file's sha256, and is verified."""
    digest = BLOB.digest()
    server.expect_request("/resolve").respond_with_data(
        "",
        status=302,
        headers={
            "Location": "/blob",
            "X-Linked-Etag": f'"{digest}"',
            "X-Linked-Size": str(SIZE),
            "ETag": '"hub"',
        },
    )
    server.expect_request("/blob").respond_with_handler(conditional)
    task = fetch(server.url_for("/resolve"))
    check_whole(task, BLOB)
    assert task.checksum == f"sha256:{digest}"


def test_wrong_digest_stated_with_a_redirect(server, fetch, out) -> None:
    """The hub's word counts: other bytes than its sha256 are not published."""
    digest = Blob(2, SIZE).digest()
    server.expect_request("/resolve").respond_with_data(
        "", status=307, headers={"Location": "/blob", "X-Linked-Etag": f'"{digest}"'}
    )
    server.expect_request("/blob").respond_with_handler(conditional)
    task = fetch(server.url_for("/resolve"))
    assert task.status == "failed"
    assert digest in str(task.error)
    assert "X-Linked-Etag" in str(task.error)
    assert names(out) == [f"{NAME}.corrupt"]


def test_head_that_lies_is_never_asked(server, fetch) -> None:
    """A server whose HEAD is refused or wrong does not matter."""
    server.expect_request("/f", method="GET").respond_with_handler(conditional)
    check_whole(fetch(server.url_for("/f")), BLOB)
    assert {request.method for request, _ in server.log} == {"GET"}


def test_unknown_path(server, fetch) -> None:
    """What the server does not know is an error by status."""
    task = fetch(server.url_for("/nothing"), retry_times=0)
    check_failed(task, StatusError, "500")
    server.clear()
