"""Which names a server may choose, which a user may, and what stands beside them."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segdl._names import (
    FALLBACK_NAME,
    MAX_NAME_BYTES,
    checked_name,
    safe_name,
    sidecar_names,
)
from segdl.errors import UsageError

URL = "https://example.org/dir/url.bin?query=x.y#f"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        (URL, "url.bin"),
        ("http://h/a%20b.bin", "a b.bin"),
        ("http://h/%C3%A4.bin", "ä.bin"),
        ("http://h/ä.bin", "ä.bin"),
        ("http://h/%E4.bin", "ä.bin"),
        ("http://h/a%2520b", "a%20b"),
        ("http://h/a?x=/b.bin", "a"),
        ("http://h/x;v=1", "x;v=1"),
        ("http://h/a%2Fb.bin", "b.bin"),
        ("http://h/a%5Cb.bin", "b.bin"),
        ("http://h/..%2f..%2fetc%2fpasswd", "passwd"),
        ("http://h/100%", "100%"),
        ("http://h/%2e%2e", FALLBACK_NAME),
        ("http://h/a%2F", FALLBACK_NAME),
        ("http://h/dir/", FALLBACK_NAME),
        ("http://h/", FALLBACK_NAME),
        ("http://host.example", FALLBACK_NAME),
        ("http://host.example?x=/y", FALLBACK_NAME),
        ("", FALLBACK_NAME),
        ("garbage", FALLBACK_NAME),
    ],
)
def test_name_comes_from_the_last_segment_of_the_url(url: str, name: str) -> None:
    """The segment is decoded once, then cut at any separator."""
    assert safe_name(url, None) == name


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ("attachment; filename=a.bin", "a.bin"),
        ('attachment; filename="a b.bin"', "a b.bin"),
        ('ATTACHMENT;FILENAME="a.bin"', "a.bin"),
        ('inline ; filename = "a.bin" ; x=y', "a.bin"),
        ("attachment; filename=a b.bin ", "a b.bin"),
        ('filename="a.bin"', "a.bin"),
        ('attachment filename="a.bin"', "a.bin"),
        ("attachment; foo; filename=a.bin", "a.bin"),
        ('attachment; filename="a;b.bin"', "a;b.bin"),
        (r'attachment; filename="a\"b\\c.bin"', "c.bin"),
        (r'attachment; filename="a\"b.bin"', "a_b.bin"),
        ('attachment; x="; filename=evil.bin"; filename=good.bin', "good.bin"),
        ("attachment; filename=a.bin; filename=b.bin", "a.bin"),
        ('attachment; filename="open.bin', "open.bin"),
        ("attachment; filename*=UTF-8''%e2%82%ac%20x.bin", "€ x.bin"),
        ("attachment; filename*=utf-8'en'a.bin; filename=b.bin", "a.bin"),
        ("attachment; filename=b.bin; filename*=UTF-8''a.bin", "a.bin"),
        ("attachment; filename*=iso-8859-1''%E4.bin", "ä.bin"),
        ("attachment; filename*=\"UTF-8''a.bin\"", "a.bin"),
        ("attachment; filename*=UTF-8''%E4.bin; filename=b.bin", "b.bin"),
        ("attachment; filename*=koi8-r''a.bin; filename=b.bin", "b.bin"),
        ("attachment; filename*=a.bin; filename=b.bin", "b.bin"),
        ("attachment; filename*=UTF-8''..; filename=b.bin", "b.bin"),
        ('attachment; filename="\u00c3\u00a4.bin"', "ä.bin"),
        ('attachment; filename="\u00e4.bin"', "ä.bin"),
        ('attachment; filename="=?UTF-8?B?4oKs?=.bin"', "€.bin"),
        ('attachment; filename="=?utf-8?q?a_=E2=82=AC?="', "a €"),
        ('attachment; filename="=?no-such?q?a?="', "=_no-such_q_a_="),
        ('attachment; filename="a%20b.bin"', "a%20b.bin"),
    ],
)
def test_name_comes_from_content_disposition(disposition: str, name: str) -> None:
    """RFC 6266, and what servers send in its place; filename* before filename."""
    assert safe_name(URL, disposition) == name


@pytest.mark.parametrize(
    "disposition",
    [
        None,
        "",
        "attachment",
        "inline;",
        "attachment; filename=",
        'attachment; filename=""',
        "attachment; filename=..",
        'attachment; filename="a/"',
        'attachment; filename=" . . "',
        "attachment; filename*0=a; filename*1=b",
        "attachment; name=x",
        "filename",
        ";;;=;",
        '"',
        "attachment; " + "x" * 9000 + "; filename=a.bin",
    ],
)
def test_url_names_the_file_when_the_field_does_not(disposition: str | None) -> None:
    """A field without a usable name is as none."""
    assert safe_name(URL, disposition) == "url.bin"


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("../../etc/passwd", "passwd"),
        ("..\\..\\evil.dll", "evil.dll"),
        ("C:\\dir\\f.bin", "f.bin"),
        ("/etc/x", "x"),
        ("c:x", "c_x"),
        ("f.bin:stream", "f.bin_stream"),
        ('a<b>c|d?e*f"', "a_b_c_d_e_f_"),
        (".bashrc", "bashrc"),
        ("-rf", "rf"),
        ("~root", "root"),
        (" .-~ x", "x"),
        ("\u00a0x\u3000", "x"),
        ("a. . .", "a"),
        ("a\x00b\x1f\x7f\x85c", "abc"),
        ("a\r\nb", "ab"),
        ("ann\u202egpj.exe", "anngpj.exe"),
        ("\u2066a\u2069\u200e\u200f\u061c\u2028", "a"),
        ("a\u0308", "ä"),
        ("a\u200e\u0308", "ä"),
        ("CON", "_CON"),
        ("con.txt", "_con.txt"),
        ("NUL.tar.gz", "_NUL.tar.gz"),
        ("com1", "_com1"),
        ("COM\u00b9.x", "_COM\u00b9.x"),
        ("lpt0 .x", "_lpt0 .x"),
        ("CONIN$", "_CONIN$"),
        ("clock$.sys", "_clock$.sys"),
        (".CON", "_CON"),
        ("CONSOLE", "CONSOLE"),
        ("segdl.toml", "_segdl.toml"),
        ("SegDL.TOML", "_SegDL.TOML"),
        ("~.segdl.toml .", "_segdl.toml"),
        ("segdl.toml.bin", "segdl.toml.bin"),
        ("COM10", "COM10"),
        ("model", "model"),
    ],
)
def test_server_chosen_name_is_made_harmless(raw: str, name: str) -> None:
    """No path, no hidden file, no option, no device, no trick of display remains."""
    from urllib.parse import quote

    encoded = quote(raw, safe="")
    assert safe_name(URL, f"attachment; filename*=UTF-8''{encoded}") == name
    assert safe_name(f"http://h/{encoded}", None) == name


def test_lone_surrogates_are_dropped() -> None:
    """What no file system stores does not get into a name."""
    assert safe_name(URL, "attachment; filename=a\ud800b") == "ab"


@pytest.mark.parametrize(
    ("stem", "extension"),
    [
        ("a" * 300, ".bin"),
        ("a" * 300, "." + "b" * 31),
        ("ä" * 200, ".safetensors"),
        ("😀" * 100, ".x"),
    ],
)
def test_long_name_is_cut_on_a_code_point_and_keeps_its_extension(
    stem: str, extension: str
) -> None:
    """255 bytes of UTF-8 are used as far as whole characters allow."""
    name = safe_name(f"http://h/{stem}{extension}", None)
    assert name.endswith(extension)
    assert name.removesuffix(extension) == stem[: len(name) - len(extension)]
    assert MAX_NAME_BYTES - 4 < len(name.encode()) <= MAX_NAME_BYTES


def test_long_name_without_extension_is_cut() -> None:
    """A last dot far from the end starts no extension; the cut leaves no dot."""
    assert safe_name("http://h/" + "a" * 300, None) == "a" * 255
    assert safe_name("http://h/a." + "b" * 300, None) == "a." + "b" * 253
    assert safe_name(f"http://h/{'a' * 300}.{'b' * 32}", None) == "a" * 255
    assert safe_name("http://h/" + "a" * 250 + "." * 20 + "b" * 50, None) == "a" * 250


def test_cut_does_not_make_a_device() -> None:
    """Spaces behind CON that are cut away do not leave the device's name."""
    name = safe_name("http://h/CON" + "%20" * 300 + "x.txt", None)
    assert name.startswith("_CON ")
    assert name.endswith(".txt")
    assert len(name.encode()) <= MAX_NAME_BYTES


PIECES = st.sampled_from(
    [*'/\\.-~ :;="%?*', "..", "CON", "ä", "a\u0308", "😀", "\u202e", "\0", "filename"]
)


@given(
    st.lists(PIECES | st.text(max_size=4), max_size=20).map("".join),
    st.lists(PIECES | st.text(max_size=4), max_size=20).map("".join),
    st.integers(0, 300),
)
def test_every_safe_name_is_one_a_user_could_give(
    url: str, value: str, length: int
) -> None:
    """Whatever a server sends: a storable, visible, normalised name of one segment."""
    padding = "x" * length
    for disposition in (
        value,
        f"attachment; filename={value}{padding}{value}",
        f'attachment; filename="{value}{padding}{value}"',
        f"attachment; filename*=UTF-8''{value}{padding}",
        f"attachment; filename==?{value}?q?{padding}?=",
    ):
        name = safe_name(f"http://h/{url}{padding}", disposition)
        assert checked_name(name) == name
        assert name[0] not in ".-~ "
        assert unicodedata.is_normalized("NFC", name)
        assert not set(name) & set('/\\:<>"|?*')


@pytest.mark.parametrize(
    "name",
    [
        "a.bin",
        ".hidden",
        "-x",
        "~a",
        "a b",
        "a:b",
        "ä" * 127,
        "x" * 255,
        "CONSOLE",
        "…",
    ],
)
def test_user_chosen_name_is_kept(name: str) -> None:
    """What can be stored is taken unchanged."""
    assert checked_name(name) == name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "empty"),
        (".", "directory"),
        ("..", "directory"),
        ("a/b", "output_path"),
        ("/", "output_path"),
        ("a\\b", "output_path"),
        ("a\0b", "control"),
        ("a\n", "control"),
        ("a\x7f", "control"),
        ("a\x85", "control"),
        ("a\udcff", "Unicode"),
        ("x" * 256, "256 bytes"),
        ("ä" * 128, "256 bytes"),
        ("NUL", "device"),
        ("aux.txt", "device"),
        ("Com3.tar.gz", "device"),
        ("a.", "dot or space"),
        ("a ", "dot or space"),
        (None, "NoneType"),
        (b"a", "bytes"),
    ],
)
def test_user_chosen_name_is_refused_with_the_reason(name: str, reason: str) -> None:
    """A name is never changed behind the user's back: the error says what to do."""
    with pytest.raises(UsageError, match=reason):
        checked_name(name)


def test_sidecars_carry_the_name() -> None:
    """While a file comes down, its two working files stand beside it."""
    assert sidecar_names(checked_name("a.bin")) == ("a.bin.part", "a.bin.segdl")
    longest = "x" * 249
    assert sidecar_names(checked_name(longest)) == (
        f"{longest}.part",
        f"{longest}.segdl",
    )


@pytest.mark.parametrize("name", ["x" * 250, "x" * 255, "ä" * 127, "😀" * 63])
def test_sidecars_of_a_long_name_fit_too(name: str) -> None:
    """The stem is cut on a code point, and both files share it."""
    part, manifest = sidecar_names(checked_name(name))
    assert part.removesuffix(".part") == manifest.removesuffix(".segdl")
    assert len(part.encode()) <= len(manifest.encode()) <= MAX_NAME_BYTES
    assert len(manifest.encode()) > MAX_NAME_BYTES - 4
    assert manifest.startswith(name[:50])
    assert re.search(r"-[0-9a-f]{8}\.segdl\Z", manifest)


def test_sidecars_of_long_names_do_not_meet() -> None:
    """Names that differ only in what is cut off have different working files."""
    one, other = checked_name("x" * 254 + "a"), checked_name("x" * 254 + "b")
    assert not set(sidecar_names(one)) & set(sidecar_names(other))
