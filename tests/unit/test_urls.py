"""Which URLs and headers segdl takes, where it sends them, and what it shows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segdl._urls import (
    INVALID_URL,
    Origin,
    headers_for,
    origin,
    redact,
    redirect_target,
    split_userinfo,
    strip_secrets,
    validate_headers,
    validate_url,
)
from segdl.errors import RedirectRefused, UsageError

SECRET = "s3cr3t-Value"
PRESIGNED = (
    "https://bucket.s3.amazonaws.com/a%2Fb//c/../d;v=1"
    "?X-Amz-Credential=AK%2F2024&X-Amz-Signature=aF%2b+%7E&x=[1]&&empty="
)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org",
        "https://example.org:8443/a/b.bin",
        "HTTPS://Example.ORG/A",
        "http://example.org:/x",
        "http://127.0.0.1:80/x?y",
        "http://[::1]:8080/x",
        "http://[fe80::1%25eth0]/x",
        "http://user:p%40ss@example.org/x",
        "http://example.org?x=1",
        "http://my_host/x",
        PRESIGNED,
    ],
)
def test_good_url_is_passed_on_byte_for_byte(url: str) -> None:
    """A presigned URL is signed over its bytes, so not one of them changes."""
    assert validate_url(url) == url


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("http://h/ä?q=€#frag", "http://h/%C3%A4?q=%E2%82%AC"),
        ("http://h/%C3%A4/ä", "http://h/%C3%A4/%C3%A4"),
        ("http://bücher.example/x", "http://xn--bcher-kva.example/x"),
        ("http://h/x#", "http://h/x"),
        ("http://h/x?a#b?c", "http://h/x?a"),
        ("http://ü:ö@h/", "http://%C3%BC:%C3%B6@h/"),
    ],
)
def test_url_is_sent_in_ascii_without_fragment(url: str, sent: str) -> None:
    """Non-ASCII becomes percent-encoded UTF-8, or IDNA in the host."""
    assert validate_url(url) == sent


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "empty"),
        (None, "NoneType"),
        (b"http://h/", "bytes"),
        ("file:///etc/passwd", "copy a local file with cp"),
        ("FILE:/etc/passwd", "copy a local file with cp"),
        ("ftp://h/x", "curl"),
        ("gopher://h/x", "http and https"),
        ("javascript:alert(1)", "http and https"),
        ("example.org/x", "no scheme; put https://"),
        ("//example.org/x", "no scheme"),
        ("localhost:8080/x", "put http://"),
        ("http:/x", "no host"),
        ("http:///x", "no host"),
        ("http://?x", "no host"),
        ("http://:80/", "no host"),
        ("http://user@/x", "no host"),
        ("http://h:0/", "port"),
        ("http://h:65536/", "port"),
        ("http://h:8o/", "port"),
        ("http://h:-1/", "port"),
        ("http://h:٣/", "port"),
        ("http://h:1:2/", "port"),
        ("http://h/a b", "space; write %20"),
        (" http://h/", "space"),
        ("http://h/\r\nHost: x", "control"),
        ("http://h/\t", "control"),
        ("http://h/\0", "control"),
        ("http://h/\x7f", "control"),
        ("http://h/\x85", "control"),
        ("http://h\\@evil/", "backslash"),
        ("http://a@b@h/", "%40"),
        ("http://u%0d%0a:p@h/", "userinfo holds a control"),
        ("http://h%2eevil/", "host name"),
        ("http://.h/", "host name"),
        ("http://h<x>/", "host name"),
        ("http://[::1/", "host name"),
        ("http://[::1]x/", "no host"),
        ("http://[:::1]/", "IPv6"),
        ("http://evil.com\u2100.example/", "host name"),
        ("http://" + "ü" * 300 + "/", "host name"),
        ("http://h/\udcff", "not UTF-8"),
    ],
)
def test_bad_url_is_refused_with_the_reason(url: str, reason: str) -> None:
    """The error says what is wrong, before anything is sent."""
    with pytest.raises(UsageError, match=reason):
        validate_url(url)


@pytest.mark.parametrize(
    "url",
    [
        f"http://user:{SECRET}@h:x/",
        f"http://u:{SECRET}@a@h/",
        f"http://h /?token={SECRET}",
        f"ftp://user:{SECRET}@h/",
        f"http://user:{SECRET}/x@h/",
    ],
)
def test_url_error_shows_no_secret(url: str) -> None:
    """A refused URL's password and query stay out of the message."""
    with pytest.raises(UsageError) as caught:
        validate_url(url)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://H/x", Origin("http", "h", 80)),
        ("HTTPS://h:443/", Origin("https", "h", 443)),
        ("https://u:p@h:8443", Origin("https", "h", 8443)),
        ("http://h:/", Origin("http", "h", 80)),
        ("http://[FE80::1]:81/", Origin("http", "[fe80::1]", 81)),
        ("http://BÜCHER.example/", Origin("http", "xn--bcher-kva.example", 80)),
    ],
)
def test_origin_is_scheme_host_and_port(url: str, expected: Origin) -> None:
    """Two URLs of one origin compare equal, whatever their spelling."""
    assert origin(url) == expected


def test_origin_prints_as_a_url() -> None:
    """An origin in a message reads as the URL it stands for."""
    assert str(origin("https://H")) == "https://h:443"


@pytest.mark.parametrize(
    ("url", "bare", "userinfo"),
    [
        ("http://h/x?y=a@b", "http://h/x?y=a@b", None),
        ("http://u:p@h:81/x?y", "http://h:81/x?y", "u:p"),
        ("http://u%40x:p%3A%2F@h/", "http://h/", "u@x:p:/"),
        ("http://u:p:q@h/", "http://h/", "u:p:q"),
        ("http://token@h/", "http://h/", "token:"),
        ("http://:p@h/", "http://h/", ":p"),
        ("http://@h/", "http://h/", None),
    ],
)
def test_userinfo_is_split_off(url: str, bare: str, userinfo: str | None) -> None:
    """Credentials leave the URL, decoded as libcurl's USERPWD takes them."""
    assert split_userinfo(url) == (bare, userinfo)


@pytest.mark.parametrize(
    ("url", "redacted", "stored"),
    [
        ("http://h/a/b", "http://h/a/b", "http://h/a/b"),
        (f"http://u:{SECRET}@h:8/x", "http://h:8/x", "http://h:8/x"),
        (f"http://h/x?t={SECRET}#f", "http://h/x?...", "http://h/x"),
        (f"http://h/x#{SECRET}", "http://h/x", "http://h/x"),
        ("http://h/x?", "http://h/x?...", "http://h/x"),
        (f"socks5://u:{SECRET}@h:1080", "socks5://h:1080", "socks5://h:1080"),
        ("http://h/ä", "http://h/%C3%A4", "http://h/%C3%A4"),
        (f"http://u:{SECRET}/x@h/", INVALID_URL, INVALID_URL),
        (f"http:{SECRET}", INVALID_URL, INVALID_URL),
        (SECRET, INVALID_URL, INVALID_URL),
        ("http://h/\x1b[31m", INVALID_URL, INVALID_URL),
        ("http://h/\udcff", "http://h/?", "http://h/?"),
        ("", INVALID_URL, INVALID_URL),
        (None, INVALID_URL, INVALID_URL),
        (b"http://h/", INVALID_URL, INVALID_URL),
    ],
)
def test_shown_and_stored_urls_hold_no_secret(
    url: str, redacted: str, stored: str
) -> None:
    """Neither userinfo nor query nor fragment reaches a message or the disk."""
    assert redact(url) == redacted
    assert strip_secrets(url) == stored


@given(st.text(max_size=60) | st.from_regex(r"https?://[ -~]{0,40}", fullmatch=True))
def test_redact_never_raises_and_is_idempotent(text: str) -> None:
    """Whatever comes in, what comes out is safe to redact again and to print."""
    once = redact(text)
    assert redact(once) in (once, INVALID_URL)
    assert once.isascii()


@given(
    st.text(alphabet="ab0-._~%!$&'()*+,;=\"<>^`{|}", max_size=8),
    st.sampled_from(["http", "https", "ftp", "HTTP"]),
)
def test_password_never_survives_redaction(junk: str, scheme: str) -> None:
    """Odd characters beside a password do not bring it into a message."""
    password = f"{junk}{SECRET}{junk}"
    assert SECRET not in redact(f"{scheme}://user:{password}@host/x")


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://other:8443/x?sig=a%2f", "https://other:8443/x?sig=a%2f"),
        ("https://other/a/../b", "https://other/a/../b"),
        ("HTTPS://other/x", "HTTPS://other/x"),
        ("//other/x", "https://other/x"),
        ("/x/y?z", "https://h:1/x/y?z"),
        ("/x/./y/../z", "https://h:1/x/z"),
        ("c?d", "https://h:1/a/c?d"),
        ("./c", "https://h:1/a/c"),
        ("../c", "https://h:1/c"),
        ("../../../c", "https://h:1/c"),
        ("..", "https://h:1/"),
        (".", "https://h:1/a/"),
        ("?n=1", "https://h:1/a/b?n=1"),
        ("#frag", "https://h:1/a/b?q"),
        ("/x#frag", "https://h:1/x"),
        (" /x\t", "https://h:1/x"),
        ("/a b", "https://h:1/a%20b"),
        ("/\u00c3\u00a4", "https://h:1/%C3%A4"),
        ("/\u00e4", "https://h:1/%E4"),
        ("/€", "https://h:1/%E2%82%AC"),
    ],
)
def test_location_is_resolved(location: str, target: str) -> None:
    """Location may be relative (RFC 3986 s5.2); an absolute one is kept byte-exact."""
    assert redirect_target("https://h:1/a/b?q", location) == target


def test_location_resolves_against_a_base_without_path() -> None:
    """A relative Location of http://host begins at the root."""
    assert redirect_target("http://h", "x") == "http://h/x"
    assert redirect_target("http://h", "https://h/x") == "https://h/x"


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("http://h:1/x", "from https to plain http"),
        ("HTTP://h:1/x", "from https to plain http"),
        ("file:///etc/passwd", "'file'"),
        ("ftp://h/x", "'ftp'"),
        ("data:text/plain,x", "'data'"),
        ("https:///x", "no host"),
        ("https:x", "no host"),
        ("///x", "no host"),
        ("/a\r\nSet-Cookie: x", "control"),
        ("/a\u00c2\u0085", "control"),
        ("https://h\\@evil/", "backslash"),
        ("https://h:99999/", "port"),
        ("", "empty"),
    ],
)
def test_bad_location_is_refused(location: str, reason: str) -> None:
    """A redirect to where segdl does not go ends with the reason."""
    with pytest.raises(RedirectRefused, match=reason):
        redirect_target("https://h:1/a", location)


def test_redirect_error_shows_no_secret() -> None:
    """Signed URLs at both ends of a refused redirect stay out of the message."""
    base, location = f"https://u:{SECRET}@h/?t={SECRET}", f"http://h/?t={SECRET}"
    with pytest.raises(RedirectRefused) as caught:
        redirect_target(base, location)
    assert SECRET not in str(caught.value)


@given(st.text(max_size=40))
def test_redirect_yields_an_acceptable_url_or_is_refused(location: str) -> None:
    """No Location, however odd, gives a URL that validate_url would not pass on."""
    try:
        target = redirect_target("https://h/a/b", location)
    except RedirectRefused:
        return
    assert validate_url(target) == target
    assert origin(target).scheme == "https"


@pytest.mark.parametrize(
    "target", ["https://h/x", "https://H:443/y", "https://u:p@h/other?z"]
)
def test_headers_all_go_to_the_same_origin(target: str) -> None:
    """Within one origin nothing is held back."""
    headers = {"Authorization": SECRET, "X-Mine": "1"}
    assert headers_for(headers, origin("https://h"), origin(target)) == headers


@pytest.mark.parametrize(
    "target", ["http://h:443/x", "https://h:444/x", "https://h.example/x"]
)
def test_headers_of_the_user_do_not_cross_origins(target: str) -> None:
    """Another scheme, host or port sees only what identifies nobody."""
    headers = {
        "Authorization": SECRET,
        "Cookie": SECRET,
        "X-Api-Key": SECRET,
        "Host": "h",
        "user-agent": "me",
        "ACCEPT": "*/*",
        "Accept-Language": "de",
    }
    assert headers_for(headers, origin("https://h"), origin(target)) == {
        "user-agent": "me",
        "ACCEPT": "*/*",
        "Accept-Language": "de",
    }


def test_good_headers_are_copied() -> None:
    """Valid headers pass unchanged but for space around a value."""
    given_headers = {"X-A": "b\tc ", "Host": "h", "Empty": "", "L": "ÿ"}
    assert validate_headers(given_headers) == {
        "X-A": "b\tc",
        "Host": "h",
        "Empty": "",
        "L": "ÿ",
    }
    assert validate_headers(None) == {}


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"X": f"{SECRET}\r\nEvil: 1"}, "header X .*line end"),
        ({"X": f"{SECRET}\n"}, "header X .*line end"),
        ({"X": f"{SECRET}\0"}, "header X .*control"),
        ({"X": f"{SECRET}\x7f"}, "header X .*DEL"),
        ({"X": f"{SECRET}€"}, "header X .*latin-1"),
        ({"X": SECRET.encode()}, "header X is bytes"),
        ({f"X: {SECRET}": ""}, "begins 'X'"),
        ({f"X {SECRET}": ""}, "begins 'X'"),
        ({"": SECRET}, "begins ''"),
        ({"Ä": SECRET}, "begins ''"),
        ({1: SECRET}, "int"),
        ({"range": SECRET}, "segdl sets the header range itself"),
        ({"If-Range": SECRET}, "If-Range"),
        ({"Content-Length": SECRET}, "Content-Length"),
        ({"Transfer-Encoding": SECRET}, "Transfer-Encoding"),
        ({"Accept-Encoding": SECRET}, "Accept-Encoding"),
        ({"Connection": SECRET}, "Connection"),
        ({"A": SECRET, "a": SECRET}, "a is given twice"),
        ([("A", SECRET)], "give a dict"),
    ],
)
def test_bad_headers_are_refused_without_their_value(
    headers: dict[str, str], reason: str
) -> None:
    """The error names the header, and never shows what may be a token."""
    with pytest.raises(UsageError, match=reason) as caught:
        validate_headers(headers)
    assert SECRET not in str(caught.value)
