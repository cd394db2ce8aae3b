"""aria2's input format."""

from __future__ import annotations

import pytest

from segdl.cli.arguments import header_fields
from segdl.cli.input_file import Entry, parse_entries
from segdl.errors import UsageError


def test_each_line_is_a_download_and_indented_lines_belong_to_it() -> None:
    """URLs, mirrors, options, comments and empty lines are told apart."""
    lines = [
        "# a list\r",
        "https://a.example/f\thttps://b.example/f\r",
        "  out=f.iso",
        "\tdir=/srv",
        "  checksum=sha-256=00ff",
        "  header=Accept: text/html",
        "  header=X-Empty:",
        "  # nothing",
        "",
        "https://c.example/g",
    ]
    assert parse_entries(lines, "L") == [
        Entry(
            url="https://a.example/f",
            mirrors=("https://b.example/f",),
            name="f.iso",
            directory="/srv",
            checksum="sha-256=00ff",
            headers=(("Accept", "text/html"), ("X-Empty", "")),
            place="L:2",
        ),
        Entry(url="https://c.example/g", place="L:10"),
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["  out=a"], "L:1: an option before the first URL"),
        (["http://h/", "  split=5"], "L:2: unknown option 'split'"),
        (["http://h/", "  out"], "L:2: unknown option 'out'"),
        (["http://h/", "  out="], "L:2: out has no value"),
        (["http://h/", "  out=a", "  out=b"], "L:3: out is given twice"),
        (["http://h/", "  header=secret"], "L:2: a header is written 'Name: value'"),
        (["http://h/", "  header=A: 1", "  header=a: 2"], "L:3: the header a is given"),
    ],
)
def test_a_wrong_line_is_named(lines: list[str], message: str) -> None:
    """An error says file and line."""
    with pytest.raises(UsageError) as caught:
        parse_entries(lines, "L")
    assert str(caught.value).startswith(message)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {}),
        (["Accept: a/b"], {"Accept": "a/b"}),
        (["A:1", "B:  2 "], {"A": "1", "B": "2"}),
        (["X-Empty:"], {"X-Empty": ""}),
        (["Date: 1:2:3"], {"Date": "1:2:3"}),
    ],
)
def test_a_header_is_a_name_and_a_value(
    options: list[str], expected: dict[str, str]
) -> None:
    """A field is split at its first colon, and loses the space around the value."""
    assert header_fields(options) == expected


@pytest.mark.parametrize(
    "options",
    [
        ["s3cret"],
        [": s3cret"],
        ["A : s3cret"],
        ["A: s3cret\r\nB: x"],
        ["A: s3cret\n"],
        ["A: s3\0cret"],
        ["A: s3cret", "a: s3cret"],
        ["Range: bytes=0-s3cret"],
        ["@/does/not/exist"],
    ],
)
def test_a_wrong_header_is_refused_without_its_value(options: list[str]) -> None:
    """No message holds a value: it may be a token."""
    with pytest.raises(UsageError) as caught:
        header_fields(options)
    assert "s3cret" not in str(caught.value)
