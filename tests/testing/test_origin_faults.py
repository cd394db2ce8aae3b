"""Each fault of the origin, seen on the wire."""

from __future__ import annotations

import pytest

from segdl.testing import Blob, Origin
from segdl.testing.content import content
from segdl.testing.faults import KINDS

SIZE = 100_000
WHOLE = Blob(1, SIZE).read()
RANGE = "Range: bytes=1000-1999"
PART = WHOLE[1000:2000]
PATH = f"/b/1/{SIZE}"

#: Every test below says which kinds it covers; the last test compares.
COVERED: set[str] = set()


def covers(*kinds: str):
    COVERED.update(kinds)
    return lambda test: test


@covers("rst")
def test_rst_resets_after_the_bytes(origin, ask):
    """A located reset comes after exactly so many body bytes, once."""
    url = origin.blob_url(1, SIZE, f="rst@byte4096")
    reply = ask(origin, url)
    assert (reply.reset, reply.body) == (True, WHOLE[:4096])
    again = ask(origin, url)
    assert (again.reset, again.body) == (False, WHOLE)
    first, second = origin.log.settle()
    assert (first.sent_bytes, first.complete) == (4096, False)
    assert (second.sent_bytes, second.complete) == (SIZE, True)


@covers("fin")
def test_fin_ends_early_without_a_reset(origin, ask):
    """The connection is closed while Content-Length promises more."""
    reply = ask(origin, origin.blob_url(1, SIZE, f="fin@byte10"))
    assert reply.fields["content-length"] == str(SIZE)
    assert (reply.reset, reply.body) == (False, WHOLE[:10])


@pytest.mark.parametrize(("kind", "reset"), [("rst", True), ("fin", False)])
def test_cut_without_a_point_comes_before_any_byte(origin, ask, kind, reset):
    """rst and fin alone answer nothing, on every request."""
    for _ in range(2):
        reply = ask(origin, origin.blob_url(1, SIZE, f=kind))
        assert (reply.raw, reply.reset) == (b"", reset)


@pytest.mark.parametrize(("kind", "reset"), [("rst", True), ("fin", False)])
def test_cut_in_the_head_leaves_half_of_it(origin, ask, kind, reset):
    """@header ends the connection within the response head, once."""
    url = origin.blob_url(1, SIZE, f=f"{kind}@header")
    reply = ask(origin, url)
    assert reply.raw.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\n\r\n" not in reply.raw
    assert reply.reset is reset
    assert ask(origin, url).body == WHOLE


@covers("stall", "hang", "headerhang")
@pytest.mark.parametrize(
    ("fault", "body"),
    [
        ("stall@byte5000", WHOLE[:5000]),
        ("stall", b""),
        (f"stall@byte{SIZE}", WHOLE),
        (f"stall@at{SIZE}", WHOLE),
        ("stall@header", None),
        ("headerhang", None),
        ("hang", None),
    ],
)
def test_stall_keeps_the_connection_and_sends_no_more(origin, dial, fault, body):
    """Nothing follows the point until the client gives up."""
    line = dial(origin)
    line.send(origin.blob_url(1, SIZE, f=fault))
    if body is not None:
        line.read_head()
        assert line.read(len(body)) == body
    elif fault != "hang":
        assert line.read(12) == b"HTTP/1.1 200"
    else:
        origin.log.wait_for(1)
    assert origin.log.entries[0].ended is None
    line.sock.shutdown(1)
    rest = line.read_to_end()
    assert (rest.reset, b"\r\n\r\n" in rest.raw) == (False, False)
    (entry,) = origin.log.settle()
    assert (entry.sent_bytes, entry.complete) == (len(body or b""), False)


@covers("slow")
def test_slow_begins_at_its_point(origin, dial):
    """The bytes before the point come at once, those after it one by one."""
    line = dial(origin)
    line.send(origin.blob_url(1, SIZE, f="slow=1@byte5000"))
    line.read_head()
    assert line.read(5000) == WHOLE[:5000]
    assert origin.log.entries[0].sent_bytes <= 5001


@covers("corrupt")
@pytest.mark.parametrize(
    ("fault", "position"),
    [("corrupt", 1500), ("corrupt@byte3", 1003), ("corrupt@at1999", 1999)],
)
def test_corrupt_flips_one_bit(origin, ask, fault, position):
    """One bit of one byte differs; everything else is right."""
    body = ask(origin, origin.blob_url(1, SIZE, f=fault), RANGE).body
    wrong = [i for i in range(1000) if body[i] != PART[i]]
    assert wrong == [position - 1000]
    assert (body[wrong[0]] ^ PART[wrong[0]]).bit_count() == 1
    assert len(body) == 1000


def test_at_waits_for_the_response_that_reaches_the_offset(origin, ask):
    """at names a place of the file: other ranges are left alone."""
    url = origin.blob_url(1, SIZE, f="fin@at1500")
    assert ask(origin, url, "Range: bytes=0-1499").body == WHOLE[:1500]
    assert ask(origin, url, "Range: bytes=1501-1600").body == WHOLE[1501:1601]
    assert ask(origin, url, RANGE).body == PART[:500]
    assert ask(origin, url, RANGE).body == PART


@covers("chunkbad")
def test_chunkbad_breaks_the_framing(origin, ask):
    """After half of the body comes a line that is no chunk size, then the end."""
    reply = ask(origin, origin.blob_url(1, SIZE, f="chunkbad"))
    assert reply.fields["transfer-encoding"] == "chunked"
    assert "content-length" not in reply.fields
    assert reply.body.endswith(b"\r\nnot a size\r\n")
    assert WHOLE[SIZE // 2 - 10 : SIZE // 2] in reply.body
    assert WHOLE[SIZE // 2 : SIZE // 2 + 10] not in reply.body


@covers("swap")
@pytest.mark.parametrize("size", [None, 500])
def test_swap_replaces_the_file_for_good(origin, ask, size):
    """From the second request on there is another file with other validators."""
    extra = "" if size is None else f":size={size}"
    url = origin.blob_url(1, SIZE, f=f"swap=2{extra}@req2")
    other = Blob(2, size or SIZE)
    before, *after = (ask(origin, url) for _ in range(3))
    assert (before.body, before.fields["etag"]) == (WHOLE, Blob(1, SIZE).etag)
    for reply in after:
        assert reply.body == other.read()
        assert reply.fields["etag"] == other.etag
        assert reply.fields["last-modified"] != before.fields["last-modified"]


def test_swap_at_an_offset_lets_the_running_answer_finish(origin, ask):
    """Like a file replaced by rename: an open one keeps its content."""
    url = origin.blob_url(1, SIZE, f="swap=2@at1500")
    assert ask(origin, url, "Range: bytes=0-9").body == WHOLE[:10]
    assert ask(origin, url, RANGE).body == PART
    assert ask(origin, url, RANGE).body == content(2, 1000, 2000)


@covers("swapsame")
def test_swapsame_cannot_be_seen_in_the_head(origin, ask):
    """Other bytes under the same head, digest field included."""
    url = origin.blob_url(1, SIZE, f="swapsame=2@range2", digest="sha-256", date="none")
    before, after = (ask(origin, url, RANGE) for _ in range(2))
    assert before.head == after.head
    assert (before.body, after.body) == (PART, content(2, 1000, 2000))


@covers("garbage")
def test_garbage_is_no_http(origin, ask):
    """The answer cannot be taken for a status line."""
    reply = ask(origin, origin.blob_url(1, SIZE, f="garbage"))
    assert reply.raw
    assert b"HTTP/" not in reply.raw


@covers("hdrflood")
def test_hdrflood_sends_so_many_header_bytes(origin, ask):
    """The head is as large as was asked for, and ends after that."""
    reply = ask(origin, origin.blob_url(1, SIZE, f="hdrflood=1000000"))
    assert len("\r\n".join(reply.head)) > 1_000_000
    assert (reply.status, reply.body) == (200, WHOLE)


@covers("hdrlines", "hdrline")
def test_heads_of_many_lines_or_of_a_long_one(origin, ask):
    """A head may have very many fields, or one with a very long value."""
    reply = ask(origin, origin.blob_url(1, SIZE, f="hdrlines=25000"))
    assert reply.head.count("X: y") == 25_000
    assert (reply.status, reply.body) == (200, WHOLE)
    reply = ask(origin, origin.blob_url(1, SIZE, f="hdrline=200000"))
    assert reply.fields["x-flood"] == "f" * 200_000
    assert (reply.status, reply.body) == (200, WHOLE)


@covers("http09")
def test_http09_has_no_head(origin, ask):
    """The body comes at once, and its end is that of the connection."""
    reply = ask(origin, origin.blob_url(1, SIZE, f="http09"))
    assert reply.raw == WHOLE


@covers("interim")
def test_interim_answers_come_before_the_real_one(origin, ask):
    """A number of 1xx heads precede the answer."""
    reply = ask(origin, origin.blob_url(1, SIZE, f="interim=3"))
    heads = reply.raw.split(b"\r\n\r\n", 4)
    assert heads[:3] == [b"HTTP/1.1 103 Early Hints"] * 3
    assert heads[3].startswith(b"HTTP/1.1 200 OK")
    assert heads[4] == WHOLE


@covers("status")
def test_status_is_an_error_so_many_times(origin, ask):
    """The 2nd and 3rd request fail with the status and Retry-After, others do not."""
    url = origin.blob_url(1, SIZE, f="status=503:retry=7@req2,2")
    replies = [ask(origin, url) for _ in range(4)]
    assert [reply.status for reply in replies] == [200, 503, 503, 200]
    assert replies[1].fields["retry-after"] == "7"
    assert "etag" not in replies[1].fields
    assert origin.log.served(PATH) == [(0, SIZE)] * 2


@covers("redirect", "html")
def test_other_answers_replace_the_file(origin, ask):
    """A redirect, or a login page with 200 to a range."""
    moved = ask(origin, origin.blob_url(1, SIZE, f="redirect=http://h.test/x"))
    assert (moved.status, moved.fields["location"]) == (302, "http://h.test/x")
    login = ask(origin, origin.blob_url(1, SIZE, f="html"), RANGE)
    assert (login.status, login.body[:9]) == (200, b"<!DOCTYPE")
    assert login.fields["content-type"].startswith("text/html")
    assert "content-range" not in login.fields


@covers(
    *("short", "long", "longbody", "wrongfirst", "wronglen", "nocr", "badcr", "full200")
)
@pytest.mark.parametrize(
    ("fault", "status", "content_range", "begin", "end"),
    [
        ("short", 206, f"bytes 1000-1499/{SIZE}", 1000, 1500),
        ("short=1", 206, f"bytes 1000-1998/{SIZE}", 1000, 1999),
        ("long=10", 206, f"bytes 1000-2009/{SIZE}", 1000, 2010),
        ("longbody=10", 206, f"bytes 1000-1999/{SIZE}", 1000, 2010),
        ("wrongfirst", 206, f"bytes 1001-1999/{SIZE}", 1001, 2000),
        ("wrongfirst=5000", 206, f"bytes 0-1999/{SIZE}", 0, 2000),
        ("wronglen=3", 206, f"bytes 1000-1999/{SIZE + 3}", 1000, 2000),
        ("nocr", 206, None, 1000, 2000),
        ("badcr=bytes 5-1/9", 206, "bytes 5-1/9", 1000, 2000),
        ("badcr=bytes {first}-{last}/*", 206, "bytes 1000-1999/*", 1000, 2000),
        ("badcr=x {complete}", 206, f"x {SIZE}", 1000, 2000),
        ("full200", 200, None, 0, SIZE),
    ],
)
def test_wrong_range(origin, ask, fault, status, content_range, begin, end):
    """A range is answered with another one, or described wrongly."""
    reply = ask(origin, origin.blob_url(1, SIZE, f=fault), RANGE)
    assert reply.status == status
    assert reply.fields.get("content-range") == content_range
    assert reply.fields["content-length"] == str(end - begin)
    assert reply.body == WHOLE[begin:end]
    assert origin.log.served(PATH) == [(begin, end)]
    assert origin.log.ranges(PATH) == [(1000, 2000)]


def test_wronglen_of_a_200_promises_more_than_comes(origin, ask):
    """Content-Length is too large and the connection ends."""
    reply = ask(origin, origin.blob_url(1, SIZE, f="wronglen=5"))
    assert reply.fields["content-length"] == str(SIZE + 5)
    assert reply.body == WHOLE


def test_fault_that_cannot_happen_is_not_used_up(origin, ask):
    """A fault of ranges waits for a range."""
    url = origin.blob_url(1, SIZE, f="nocr@req1")
    assert ask(origin, url).body == WHOLE
    assert "content-range" not in ask(origin, url, RANGE).fields
    assert "content-range" in ask(origin, url, RANGE).fields


@covers("nolast416")
def test_416_without_a_length(origin, ask):
    """The complete length is missing where clients look for it."""
    url = origin.blob_url(1, SIZE, f="nolast416")
    reply = ask(origin, url, f"Range: bytes={SIZE}-")
    assert reply.status == 416
    assert "content-range" not in reply.fields


@covers("unsatisfied")
@pytest.mark.parametrize(("fault", "length"), [("", SIZE), ("=7", 7)])
def test_range_that_is_called_unsatisfied(origin, ask, fault, length):
    """A range that is there gets 416, and the right length or another one."""
    reply = ask(origin, origin.blob_url(1, SIZE, f=f"unsatisfied{fault}"), RANGE)
    assert (reply.status, reply.fields["content-range"]) == (416, f"bytes */{length}")


@covers("endless")
def test_endless_goes_on_after_the_range(origin, dial):
    """The head is right, without a length; the body does not stop."""
    line = dial(origin)
    line.send(origin.blob_url(1, SIZE, f="endless"), RANGE)
    head = line.read_head().decode()
    assert f"Content-Range: bytes 1000-1999/{SIZE}\r\n" in head
    assert "Content-Length" not in head
    assert line.read(5_000_000) == content(1, 1000, 5_001_000)


@covers("multipart")
def test_multipart_wraps_one_range(origin, ask):
    """The body has a boundary, the Content-Range is inside, the length is right."""
    reply = ask(origin, origin.blob_url(1, SIZE, f="multipart"), RANGE)
    boundary = reply.fields["content-type"].partition("boundary=")[2]
    assert reply.fields["content-type"].startswith("multipart/byteranges;")
    assert "content-range" not in reply.fields
    assert int(reply.fields["content-length"]) == len(reply.body)
    head, _, rest = reply.body.partition(b"\r\n\r\n")
    assert f"bytes 1000-1999/{SIZE}".encode() in head
    assert rest == PART + f"\r\n--{boundary}--\r\n".encode()


@covers("gzip")
@pytest.mark.parametrize(
    ("fields", "body"), [([], Blob(1, 3_000_000).read()), ([RANGE], PART)]
)
def test_gzip_codes_the_body_unasked(origin, ask, fields, body):
    """The content unpacks to the bytes that were asked for."""
    reply = ask(origin, origin.blob_url(1, 3_000_000, f="gzip"), *fields)
    assert reply.fields["content-encoding"] == "gzip"
    assert reply.unpacked == body
    assert origin.log.served() == []


@covers("clte")
def test_clte_sends_both_framings(origin, ask):
    """Content-Length and chunks together, which RFC 9112 section 6.3 forbids."""
    reply = ask(origin, origin.blob_url(1, SIZE, f="clte"), RANGE)
    assert reply.fields["content-length"] == "1000"
    assert reply.fields["transfer-encoding"] == "chunked"
    assert reply.unpacked == PART


@covers("ignoreif")
def test_ignoreif_answers_200_to_a_validator_that_holds(origin, ask):
    """If-Range gets the whole file with the same tag; a plain range still works."""
    url = origin.blob_url(1, SIZE, f="ignoreif")
    etag = Blob(1, SIZE).etag
    reply = ask(origin, url, RANGE, f"If-Range: {etag}")
    assert (reply.status, reply.body) == (200, WHOLE)
    assert reply.fields["etag"] == etag
    assert ask(origin, url, RANGE).body == PART


@covers("http10", "close")
def test_http10_ends_a_body_by_closing(origin, dial):
    """No length, no chunks, the older version; close states the end."""
    line = dial(origin)
    line.send(origin.blob_url(1, SIZE, f="http10"), RANGE)
    reply = line.read_to_end()
    assert reply.head[0] == "HTTP/1.0 206 Partial Content"
    assert "content-length" not in reply.fields
    assert reply.body == PART
    line = dial(origin)
    line.send(origin.blob_url(1, SIZE, f="close"))
    assert line.read_to_end().body == WHOLE


def test_fault_can_wait_for_a_connection(origin, dial):
    """conn2 spares the first connection however often it asks."""
    url = origin.blob_url(1, SIZE, f="status=500@conn2")
    statuses = []
    for line in (first := dial(origin), first, dial(origin), first):
        line.send(url, RANGE)
        statuses.append(line.read_head()[9:12])
        line.read(1000 if statuses[-1] == b"206" else len("Internal Server Error\n"))
    assert statuses == [b"206", b"206", b"500", b"206"]


def test_fault_for_ever_happens_from_its_point_on(origin, ask):
    """`,*` makes a signed URL expire at the third request."""
    url = origin.blob_url(1, SIZE, f="status=403@req3,*")
    assert [ask(origin, url).status for _ in range(5)] == [200, 200, 403, 403, 403]


def test_several_faults_share_a_url(origin, ask):
    """Each keeps its own count."""
    url = origin.blob_url(1, SIZE, f=["status=500@req1", "short=1@range2", "fin@req3"])
    assert ask(origin, url, RANGE).status == 500
    assert len(ask(origin, url, RANGE).body) == 999
    assert ask(origin, url, RANGE).raw == b""
    assert ask(origin, url, RANGE).body == PART


def test_faults_of_two_paths_are_counted_apart(origin, ask):
    """The name in the path gives a test its own counts."""
    for name in ("a", "b"):
        url = origin.blob_url(1, SIZE, name, f="status=500@req1")
        assert [ask(origin, url).status for _ in range(2)] == [500, 200]


def test_raw_header_lines_are_sent_as_they_are(origin, ask):
    """NUL, folding and a second Content-Range can be put into a head."""
    url = origin.blob_url(
        1, SIZE, headers="X-Nul: a\0b|X-Fold: a|  b|Content-Range: bytes 0-0/1"
    )
    head = ask(origin, url, RANGE).raw.partition(b"\r\n\r\n")[0]
    assert b"\r\nX-Nul: a\0b\r\nX-Fold: a\r\n  b\r\n" in head
    assert head.count(b"Content-Range:") == 2


def test_faults_happen_to_real_files_too(tmp_path, ask):
    """A file below the root takes the same query."""
    (tmp_path / "f").write_bytes(WHOLE)
    with Origin(root=tmp_path) as origin:
        reply = ask(origin, origin.file_url("f") + "?f=rst@byte4096&etag=none")
        assert (reply.reset, reply.body) == (True, WHOLE[:4096])
        assert "etag" not in reply.fields
        longer = ask(origin, origin.file_url("f") + "?f=long=5")
        assert longer.body == WHOLE + bytes(5)


def test_throttle_does_not_move_a_fault(ask):
    """With slices of any size the point is exact."""
    with Origin(rate=3e6) as origin:
        reply = ask(origin, origin.blob_url(1, SIZE, f="fin@byte70001"))
        assert reply.body == WHOLE[:70001]


def test_every_fault_has_a_test():
    """A new kind needs a test on the wire."""
    assert set(KINDS) == COVERED
