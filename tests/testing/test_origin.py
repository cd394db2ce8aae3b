"""The origin where it behaves: honest HTTP, the log, limits, starting and stopping."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from segdl.testing import Blob, Origin, Request, RequestLog

SIZE = 100_000


def test_get_gives_the_whole_blob_and_describes_it(origin, ask):
    """A plain GET is a 200 with length, strong validator and dates."""
    reply = ask(origin, origin.blob_url(3, SIZE, "x.bin"))
    assert reply.status == 200
    assert reply.body == Blob(3, SIZE).read()
    assert reply.fields["content-length"] == str(SIZE)
    assert reply.fields["etag"] == Blob(3, SIZE).etag
    assert reply.fields["accept-ranges"] == "bytes"
    assert reply.fields["last-modified"] == "Mon, 01 Jan 2024 00:00:03 GMT"
    assert reply.fields["date"].endswith(" GMT")
    assert reply.fields["content-type"] == "application/octet-stream"


def test_head_describes_without_a_body(origin, ask):
    """HEAD has the fields of GET, and a Range changes nothing (RFC 9110 14.2)."""
    reply = ask(origin, origin.blob_url(3, SIZE), "Range: bytes=0-9", method="HEAD")
    assert (reply.status, reply.body) == (200, b"")
    assert reply.fields["content-length"] == str(SIZE)


@pytest.mark.parametrize(
    ("value", "begin", "end"),
    [("0-0", 0, 1), ("10-19", 10, 20), ("99990-", 99990, SIZE), ("-7", 99993, SIZE)],
)
def test_range_gets_a_206_that_says_what_it_is(origin, ask, value, begin, end):
    """One range is answered with exactly its bytes and a Content-Range."""
    reply = ask(origin, origin.blob_url(3, SIZE), f"Range: bytes={value}")
    assert reply.status == 206
    assert reply.body == Blob(3, SIZE).read(begin, end)
    assert reply.fields["content-range"] == f"bytes {begin}-{end - 1}/{SIZE}"
    assert reply.fields["content-length"] == str(end - begin)
    assert reply.fields["etag"] == Blob(3, SIZE).etag


def test_range_beyond_the_end_gets_a_416_with_the_length(origin, ask):
    """An unsatisfiable range learns the complete length."""
    reply = ask(origin, origin.blob_url(3, SIZE), f"Range: bytes={SIZE}-")
    assert reply.status == 416
    assert reply.fields["content-range"] == f"bytes */{SIZE}"


def test_several_ranges_get_the_whole(origin, ask):
    """A server may ignore a set of ranges; this one does."""
    reply = ask(origin, origin.blob_url(3, 50), "Range: bytes=0-1,5-6")
    assert (reply.status, reply.body) == (200, Blob(3, 50).read())


@pytest.mark.parametrize(
    ("field", "status"),
    [
        (Blob(3, SIZE).etag, 206),
        ('"other"', 200),
        ("Mon, 01 Jan 2024 00:00:03 GMT", 206),
        ("Mon, 01 Jan 2024 00:00:04 GMT", 200),
    ],
)
def test_if_range_decides_between_206_and_200(origin, ask, field, status):
    """A validator that no longer holds gets the whole file."""
    reply = ask(
        origin, origin.blob_url(3, SIZE), "Range: bytes=5-9", f"If-Range: {field}"
    )
    assert reply.status == status
    assert len(reply.body) == {206: 5, 200: SIZE}[status]


def test_empty_file_has_no_satisfiable_range(origin, ask):
    """A blob of zero bytes is a 200 without body, and a 416 for a range."""
    url = origin.blob_url(1, 0)
    assert ask(origin, url).fields["content-length"] == "0"
    assert ask(origin, url, "Range: bytes=0-9").fields["content-range"] == "bytes */0"


def test_offsets_go_up_to_2_to_the_63(origin, ask):
    """The last bytes of the largest file are as near as its first."""
    size = 2**63 - 1
    reply = ask(origin, origin.blob_url(1, size), "Range: bytes=-10")
    assert reply.fields["content-range"] == f"bytes {size - 10}-{size - 1}/{size}"
    assert reply.body == Blob(1, size).read(size - 10)


def test_connection_is_kept_alive_and_closed_on_request(origin, dial):
    """Requests share a connection until one says close."""
    line = dial(origin)
    for begin in (0, 7, 20):
        line.send(origin.blob_url(1, 50), f"Range: bytes={begin}-{begin + 4}")
        assert b"206" in line.read_head()
        assert line.read(5) == Blob(1, 50).read(begin, begin + 5)
    line.send(origin.blob_url(1, 50), "Connection: close")
    assert line.read_to_end().fields["connection"] == "close"
    assert [entry.connection for entry in origin.log.settle()] == [1, 1, 1, 1]


def test_other_methods_get_405(origin, ask):
    """Only GET and HEAD are answered, and the answer says so."""
    reply = ask(origin, origin.blob_url(), "Content-Length: 0", method="DELETE")
    assert (reply.status, reply.fields["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/", 404),
        ("/b/1", 404),
        ("/b/x/5", 404),
        ("/b/1/99999999999999999999", 404),
        ("/files/x", 404),
        ("/b/1/5?f=nonsense", 400),
        ("/b/1/5?etag=nonsense", 400),
    ],
)
def test_what_is_not_there_is_an_error(origin, ask, target, status):
    """A mistyped URL never yields a file; a bad fault is named in the answer."""
    reply = ask(origin, target)
    assert reply.status == status
    if status == 400:
        assert b"nonsense" in reply.body


def test_noise_instead_of_a_request_gets_400(origin, dial):
    """What is no HTTP is answered and ended."""
    line = dial(origin)
    line.sock.sendall(b"hello\r\n\r\n")
    assert line.read_to_end().status == 400


def test_http_10_client_gets_no_chunks(origin, dial):
    """A chunked answer falls back to closing for a client of HTTP/1.0."""
    line = dial(origin)
    line.sock.sendall(b"GET /b/1/50?length=off HTTP/1.0\r\n\r\n")
    reply = line.read_to_end()
    assert "transfer-encoding" not in reply.fields
    assert reply.body == Blob(1, 50).read()


@pytest.mark.parametrize(
    ("params", "field", "value"),
    [
        ({"etag": "weak"}, "etag", 'W/"1-32"'),
        ({"etag": "none"}, "etag", None),
        ({"lm": "none"}, "last-modified", None),
        ({"lm": "Tue, 02 Jan 2024 00:00:00 GMT"}, "last-modified", "Tue, 02 Jan 2024 00:00:00 GMT"),  # noqa: E501 - a row of the table
        ({"date": "none"}, "date", None),
        ({"type": "text/plain"}, "content-type", "text/plain"),
        ({"disposition": "attachment; filename=\"a b\""}, "content-disposition", "attachment; filename=\"a b\""),  # noqa: E501 - a row of the table
        ({"ranges": "off"}, "accept-ranges", None),
        ({"length": "off"}, "content-length", None),
        ({"length": "off"}, "transfer-encoding", "chunked"),
        ({"headers": "X-A: 1|X-B: 2"}, "x-b", "2"),
        ({"f": "close"}, "connection", "close"),
    ],
)  # fmt: skip
def test_option_changes_its_field(origin, dial, params, field, value):
    """Each option of the URL shows in the head."""
    line = dial(origin)
    line.send(origin.blob_url(1, 50, **params), method="HEAD")
    head = line.read_head().decode("latin-1").split("\r\n")[1:-2]
    fields = {name.lower(): text for name, _, text in (h.partition(": ") for h in head)}
    assert fields.get(field) == value


def test_etag_can_differ_by_request_or_connection(origin, dial):
    """rotate changes with each request, per-conn with each connection."""
    tags: dict[str, list[str]] = {}
    for kind in ("rotate", "per-conn"):
        for line in (dial(origin), dial(origin)):
            for _ in range(2):
                line.send(origin.blob_url(1, 50, kind, etag=kind), method="HEAD")
                head = line.read_head().decode()
                tags.setdefault(kind, []).append(head.partition("ETag: ")[2][:12])
    assert len(set(tags["rotate"])) == 4
    first, again, second, _ = tags["per-conn"]
    assert first == again != second


def test_ranges_can_be_ignored_from_some_request_on(origin, ask):
    """ranges=first2 serves two ranges and then the whole file."""
    url = origin.blob_url(1, 50, ranges="first2")
    statuses = [ask(origin, url, "Range: bytes=0-4").status for _ in range(4)]
    assert statuses == [206, 206, 200, 200]


def test_chunked_body_is_whole(origin, ask):
    """length=off sends the same bytes in chunks."""
    reply = ask(origin, origin.blob_url(1, 3_000_000, length="off"))
    assert reply.unpacked == Blob(1, 3_000_000).read()


def test_repr_digest_is_that_of_the_whole_file(origin, ask):
    """RFC 9530: the digest of the representation, the same on a range."""
    url = origin.blob_url(1, SIZE, digest="sha-256")
    raw = base64.b64encode(bytes.fromhex(Blob(1, SIZE).digest("sha256"))).decode()
    for fields in ([], ["Range: bytes=0-9"]):
        assert ask(origin, url, *fields).fields["repr-digest"] == f"sha-256=:{raw}:"


def test_simple_pages(origin, ask):
    """Redirects, errors and the login page are there by themselves."""
    moved = ask(origin, "/redirect?to=/b/1/5%3Fa=b&status=307")
    assert (moved.status, moved.fields["location"]) == (307, "/b/1/5?a=b")
    busy = ask(origin, "/status/503?retry=7")
    assert (busy.status, busy.fields["retry-after"]) == (503, "7")
    login = ask(origin, "/login", "Range: bytes=0-4", method="POST")
    assert login.status == 200
    assert login.fields["content-type"].startswith("text/html")


def test_real_files_are_served_with_ranges_and_kept_inside(tmp_path, ask):
    """Files below the root are served, those beside it are not."""
    root = tmp_path / "root"
    root.mkdir()
    data = os.urandom(3_000_000)
    (root / "a b.bin").write_bytes(data)
    (tmp_path / "secret").write_text("no")
    with Origin(root=root) as origin:
        url = origin.file_url("a b.bin")
        assert ask(origin, url).body == data
        part = ask(origin, url, "Range: bytes=1000000-2999999")
        assert part.body == data[1_000_000:]
        assert part.fields["content-range"] == "bytes 1000000-2999999/3000000"
        assert ask(origin, "/files/../secret").status == 404
        assert ask(origin, "/files/%2e%2e/secret").status == 404
        origin.log.settle()
        assert origin.log.bytes_sent("/files/a%20b.bin") == 5_000_000


def test_proxy_form_of_a_target_is_understood(origin, dial):
    """The origin can be named as an HTTP proxy, and answers as the server."""
    line = dial(origin)
    line.send("http://elsewhere.test/b/1/5", "Connection: close")
    assert line.read_to_end().body == Blob(1, 5).read()


def test_log_holds_what_was_asked_without_the_faults(origin, ask):
    """An entry has the request as a real server would have seen it."""
    url = origin.blob_url(1, 50, "n", f="rst@byte4096", etag="weak") + "&token=t"
    ask(origin, url, "Range: bytes=5-9", "X-Own: 1", "X-Own: 2")
    (entry,) = origin.log.settle()
    assert (entry.method, entry.path) == ("GET", "/b/1/50/n")
    assert entry.query == "etag=weak&token=t"
    assert entry.headers["x-own"] == "1, 2"
    assert (entry.range, entry.status, entry.offset) == ((5, 10), 206, 5)
    assert (entry.sent_bytes, entry.complete, entry.connection) == (5, True, 1)
    assert entry.ended is not None
    assert entry.ended >= entry.began


def test_log_counts_runs_and_what_was_sent_twice(origin, ask):
    """served and served_twice are about absolute bytes, by path."""
    for value in ("0-9", "5-14", "5-9"):
        ask(origin, origin.blob_url(1, 50), f"Range: bytes={value}")
    ask(origin, origin.blob_url(2, 50), "Range: bytes=0-9")
    ask(origin, "/status/404")
    origin.log.settle()
    assert origin.log.ranges("/b/1/50") == [(0, 10), (5, 15), (5, 10)]
    assert origin.log.served("/b/1/50") == [(0, 10), (5, 15), (5, 10)]
    assert origin.log.served_twice("/b/1/50") == 10
    assert origin.log.served_twice() == 10
    assert origin.log.bytes_sent("/b/2/50") == 10
    origin.log.clear()
    assert origin.log.entries == ()


def test_log_waits_for_requests_and_says_what_it_saw(origin, dial):
    """wait_for returns once its condition holds, and fails with the requests."""
    seen: list[tuple[Request, ...]] = []
    waiter = threading.Thread(target=lambda: seen.append(origin.log.wait_for(1)))
    waiter.start()
    dial(origin).send(origin.blob_url(1, 50, f="hang"))
    waiter.join(20)
    assert [entry.path for entry in seen[0]] == ["/b/1/50"]
    with pytest.raises(TimeoutError, match="GET /b/1/50 0"):
        origin.log.settle(timeout=0.01)


def test_aborted_answer_is_logged_as_incomplete(origin, dial):
    """A client that leaves is no complete answer, and its bytes are counted."""
    line = dial(origin)
    line.send(origin.blob_url(1, 1 << 30))
    line.read_head()
    got = len(line.read(1 << 20))
    line.sock.close()
    (entry,) = origin.log.settle()
    assert not entry.complete
    assert got <= entry.sent_bytes < 1 << 30


def test_reset_makes_the_origin_as_new(origin, ask):
    """Counts, faults and swaps are forgotten."""
    url = origin.blob_url(1, 50, f=["status=500@req1", "swap=2@req2"])
    assert [ask(origin, url).status for _ in range(2)] == [500, 200]
    origin.reset()
    assert ask(origin, url).status == 500
    assert len(origin.log.settle()) == 1


@pytest.mark.parametrize("limit", ["origin", "url"])
def test_requests_above_the_limit_get_503_until_one_ends(limit, ask, dial):
    """max_connections and cap count answers under way."""
    with Origin(max_connections=1 if limit == "origin" else None) as origin:
        cap = {"cap": 1} if limit == "url" else {}
        url = origin.blob_url(1, 50, f="stall@byte10", **cap)
        line = dial(origin)
        line.send(url)
        line.read_head()
        assert ask(origin, url).status == 503
        assert ask(origin, f"{url}&over=rst").reset
        line.sock.close()
        origin.log.settle()
        assert ask(origin, url).status == 200


def test_connections_above_the_limit_are_refused_until_one_ends(ask, dial):
    """max_sockets counts open connections; the port refuses, and is kept."""
    with Origin(max_sockets=2) as origin:
        url = origin.blob_url(1, 50)
        lines = [dial(origin), dial(origin)]
        for line in lines:
            line.send(url)
            line.read_head()
        until_it(lambda: refuses(origin))
        lines[0].sock.close()
        until_it(lambda: not refuses(origin))
        lines[1].sock.close()
        until_it(lambda: not refuses(origin))
        origin.max_sockets = None
        assert ask(origin, url).status == 200


def refuses(origin: Origin) -> bool:
    """Tell whether the origin refuses a connection, not merely cuts it."""
    try:
        with socket.create_connection(("127.0.0.1", origin.port), timeout=10) as sock:
            sock.shutdown(socket.SHUT_WR)
            sock.recv(1)
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        pass  # it was in the queue when the port was closed
    return False


def until_it(holds) -> None:
    """Wait until something holds, or fail."""
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline


def test_throttled_answer_is_whole(ask):
    """Slices of any rate add up to the blob, with own, total and URL rates at once."""
    with Origin(rate=5e7, total_rate=4e7) as origin:
        reply = ask(origin, origin.blob_url(1, 3_000_000, rate="20M"))
        assert reply.body == Blob(1, 3_000_000).read()


def test_rates_can_be_changed_while_a_request_runs(dial):
    """A transfer that would take hours ends when the limit is lifted."""
    with Origin(rate=50_000) as origin:
        line = dial(origin)
        line.send(origin.blob_url(1, 1 << 26), "Connection: close")
        line.read_head()
        origin.rate = None
        assert len(line.read_to_end().raw) == 1 << 26


@pytest.mark.parametrize("fault", ["stall@byte10", "hang", "slow=1", "headerhang"])
def test_stop_ends_every_thread_and_connection(fault, dial):
    """Nothing outlives stop(), whatever its connections wait for."""
    before = set(threading.enumerate())
    origin = Origin(latency=0.0)
    origin.start()
    lines = [dial(origin) for _ in range(3)]
    for line in lines[:2]:
        line.send(origin.blob_url(1, 1 << 30, f=fault))
    origin.log.wait_for(2)
    port = origin.port
    origin.stop()
    assert set(threading.enumerate()) == before
    assert all(entry.ended is not None for entry in origin.log.entries)
    for line in lines:
        line.read_to_end()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=20)


def test_stop_ends_a_blocked_send_and_a_long_latency(dial):
    """A client that does not read, and a wait of an hour, hold nothing up."""
    with Origin() as origin:
        for params in ({}, {"latency": 3600}):
            dial(origin).send(origin.blob_url(1, 1 << 33, **params))
        origin.log.wait_for(2)
    assert [entry.complete for entry in origin.log.entries] == [False, False]


def test_origin_starts_again_on_its_port(ask):
    """A restarted origin is found where it was, with its log."""
    origin = Origin()
    with origin:
        url = origin.blob_url(1, 50)
        ask(origin, url)
    with origin:
        assert origin.blob_url(1, 50) == url
        assert ask(origin, url).status == 200
    assert len(origin.log.entries) == 2
    origin.stop()


def test_origin_without_a_port_says_so():
    """The port is unknown before the start; starting twice is an error."""
    origin = Origin()
    with pytest.raises(RuntimeError, match="before it is started"):
        _ = origin.url
    with origin, pytest.raises(RuntimeError, match="runs already"):
        origin.start()


@pytest.mark.parametrize(
    "params", [{"rnages": "off"}, {"f": "rts"}, {"etag": "no"}, {"seed": -1}]
)
def test_blob_url_refuses_what_would_be_ignored(origin, params):
    """A misspelt option fails where it was written."""
    with pytest.raises(ValueError, match=r"option|fault|seed"):
        origin.blob_url(**params)


def test_blob_url_survives_any_text(origin, ask):
    """Names and values with reserved characters arrive as they were given."""
    target = origin.blob_url(1, 5, "a/b ?#%ü", f="redirect=http://h/?a=1&b=2#c +@x")
    reply = ask(origin, target)
    assert reply.fields["location"] == "http://h/?a=1&b=2#c +@x"


def test_log_sink_gets_a_json_line_for_each_request(tmp_path, ask):
    """Another process can count what was served."""
    path = tmp_path / "log"
    with path.open("w") as sink, Origin(log=RequestLog(sink)) as origin:
        ask(origin, origin.blob_url(1, 50), "Range: bytes=5-9")
        ask(origin, origin.blob_url(1, 50, f="fin@byte7"))
        origin.log.settle()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(e["offset"], e["sent_bytes"], e["complete"]) for e in lines] == [
        (5, 5, True),
        (0, 7, False),
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command_serves_until_a_signal(tmp_path, number):
    """The first line has the URL; both signals end it with 0; the log is private."""
    log = tmp_path / "log"
    command = [sys.executable, "-m", "segdl.testing", "--rate", "100M", "--log", log]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as run:
        assert run.stdout is not None
        url = run.stdout.readline().split()[0]
        port = int(url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
            sock.sendall(b"GET /b/1/5 HTTP/1.1\r\nConnection: close\r\n\r\n")
            with sock.makefile("rb") as answer:
                assert answer.read().endswith(Blob(1, 5).read())
        run.send_signal(number)
        assert run.wait(20) == 0
    assert json.loads(log.read_text())["sent_bytes"] == 5
    assert log.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("arguments", "code"), [(["--rate", "x"], 2), (["--tls-cert", "x"], 2)]
)
def test_command_refuses_bad_arguments(arguments, code, capsys):
    """Usage errors are code 2 with a message."""
    from segdl.testing.__main__ import serve

    try:
        result = serve(arguments)
    except SystemExit as exit_:
        result = exit_.code
    assert result == code
    assert "error:" in capsys.readouterr().err


def test_command_says_when_the_port_is_taken(origin, capsys):
    """An address in use is code 1 with a message, not a traceback."""
    from segdl.testing.__main__ import serve

    assert serve(["--port", str(origin.port)]) == 1
    assert "error:" in capsys.readouterr().err
