"""What parent and worker say to each other survives the pipe, in any pieces."""

from __future__ import annotations

import dataclasses
import json
import pickle
import typing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segdl import _messages, errors
from segdl._messages import (
    Accept,
    Ended,
    Fetch,
    Limit,
    Lines,
    Message,
    PartRef,
    Pieces,
    Progress,
    Quit,
    Split,
    decode,
    encode,
    failure_from_json,
    failure_to_json,
)

KINDS = [
    kind
    for _, kind in sorted(vars(_messages).items())
    if isinstance(kind, type) and issubclass(kind, Message) and kind is not Message
]
PIPE_BUF_BYTES = 4096  # Linux; POSIX promises 512

# No lone surrogates: what crosses the pipe is UTF-8 paths, URLs and header fields.
texts = st.text(max_size=60)
numbers = st.integers(0, 2**63 - 1)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
    ),
    max_leaves=6,
)
parts = st.builds(
    PartRef,
    path=texts,
    device=numbers,
    inode=numbers,
    direct=st.booleans(),
    piece=numbers,
)

BY_TYPE: dict[Any, st.SearchStrategy[Any]] = {
    int: numbers,
    float: st.floats(0, 1e12),
    bool: st.booleans(),
    str: texts,
    int | None: st.none() | numbers,
    float | None: st.none() | st.floats(0, 1e12),
    str | None: st.none() | texts,
    PartRef: parts,
    PartRef | None: st.none() | parts,
    dict[str, str]: st.dictionaries(texts, texts, max_size=4),
    dict[str, Any]: st.dictionaries(texts, json_values, max_size=4),
    dict[str, Any] | None: st.none() | st.dictionaries(texts, json_values, max_size=4),
    list[str]: st.lists(texts, max_size=3),
    list[tuple[int, int]]: st.lists(st.lists(numbers, min_size=2, max_size=2)),
    list[tuple[int, int, int]]: st.lists(st.lists(numbers, min_size=3, max_size=3)),
    list[tuple[int, int, str]]: st.lists(st.tuples(numbers, numbers, texts).map(list)),
    list[tuple[str, str, str]]: st.lists(st.lists(texts, min_size=3, max_size=3)),
    list[tuple[int, int, int, str]]: st.lists(
        st.tuples(numbers, numbers, numbers, texts).map(list)
    ),
}


def messages_of(kind: type[Message]) -> st.SearchStrategy[Message]:
    hints = typing.get_type_hints(kind)
    fields = {f.name: BY_TYPE[hints[f.name]] for f in dataclasses.fields(kind)}
    return st.builds(kind, **fields)


messages = st.one_of(*map(messages_of, KINDS))

FETCH = Fetch(
    lane=7,
    url="https://example.org/model?sig=a%2Fb",
    headers={"Authorization": "Bearer é\n"},
    begin=0,
    end=2**40,
    ranged=True,
    follow=True,
    hold=False,
    keep=False,
    complete=2**41,
    had=None,
    validator={"etag": '"x"', "weak": False},
    proof=True,
    if_range='"x"',
    part=PartRef("/data/ü.part", 2**40, 2**60, True, 1 << 20),
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_message_survives_the_pipe(kind: type[Message]) -> None:
    """encode and decode are inverse for each kind, whatever its fields hold."""

    @settings(max_examples=25)
    @given(messages_of(kind))
    def survives(message: Message) -> None:
        line = encode(message)
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        assert line.isascii()
        assert decode(line) == message
        assert type(decode(line)) is kind

    survives()


def test_part_is_a_value_again() -> None:
    """Fetch and Accept give their part back as a PartRef, not as a list."""
    assert isinstance(decode(encode(FETCH)).part, PartRef)
    accept = Accept(1, PartRef("/p", 1, 2, False, 3), 0, None)
    assert isinstance(decode(encode(accept)).part, PartRef)
    assert decode(encode(dataclasses.replace(FETCH, part=None))).part is None


@settings(max_examples=60)
@given(st.lists(messages, max_size=8), st.data())
def test_lines_are_whole_however_the_stream_is_cut(
    sent: list[Message], data: st.DataObject
) -> None:
    """Reads may end anywhere, inside a character too: the messages are the same."""
    stream = b"".join(map(encode, sent))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12).map(sorted))
    lines, got = Lines(), []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += [decode(line) for line in lines.feed(stream[begin:end])]
    assert got == sent


@settings(max_examples=60)
@given(messages, messages, st.data())
def test_torn_last_line_gives_no_message(
    first: Message, torn: Message, data: st.DataObject
) -> None:
    """A worker killed in the middle of a line: what it had said before counts."""
    line = encode(torn)
    kept = data.draw(st.integers(0, len(line) - 1))
    lines = Lines()
    assert [decode(x) for x in lines.feed(encode(first) + line[:kept])] == [first]
    assert lines.feed(b"") == []


def test_one_byte_at_a_time() -> None:
    """The smallest reads there are give the same messages."""
    lines, got = Lines(), []
    for byte in encode(FETCH) + encode(Quit()) + encode(Split(3, 0.25)):
        got += lines.feed(bytes([byte]))
    assert [decode(line) for line in got] == [FETCH, Quit(), Split(3, 0.25)]


def test_very_long_line_in_small_reads() -> None:
    """A line far above a pipe's capacity, in reads of 4 KiB, is put together."""
    message = Pieces([(n, n << 20, 1 << 20, "0123456789abcdef") for n in range(20_000)])
    stream, lines, got = encode(message), Lines(), []
    for begin in range(0, len(stream), 4096):
        got += lines.feed(stream[begin : begin + 4096])
    assert len(got) == 1
    assert decode(got[0]) == Pieces([list(p) for p in message.pieces])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[]",
        b'["Nothing"]',
        b'["Message"]',
        b'["Quit",1]',
        b'["Split"]',
        b'["Split",1]',
        b'["Split",1,2,3]',
        b'"Quit"',
        b"null",
        b"[[]]",
        b'["Quit"',
        b"\xff\xfe",
        b'["Fetch",1]',
    ],
)
def test_line_that_is_no_message_is_refused(line: bytes) -> None:
    """Anything else on the pipe is a ValueError, never a half-made message."""
    with pytest.raises(ValueError, match=r".*"):
        decode(line)


def test_decoding_never_runs_what_it_reads() -> None:
    """A pickle on the pipe is only a bad line."""
    with pytest.raises(ValueError, match=r".*"):
        decode(pickle.dumps(print))


def test_messages_are_values() -> None:
    """They compare by their fields, and can't be changed."""
    assert Split(1, 0.5) == Split(1, 0.5)
    assert Split(1, 0.5) != Split(1, 0.25)
    assert Limit(None) != Limit(1.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Split(1, 0.5).lane = 2  # type: ignore[misc]


def test_every_message_is_known_to_the_codec() -> None:
    """A kind that is declared and not listed could be sent and not be read."""
    assert {kind.__name__ for kind in KINDS} == set(_messages._TYPES)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_field_is_plain_data(kind: type[Message]) -> None:
    """Only what JSON has crosses the boundary: nothing of the user's."""
    for hint in typing.get_type_hints(kind).values():
        assert hint in BY_TYPE, f"{kind.__name__}: {hint}"


def test_frequent_messages_are_small() -> None:
    """What a lane says often stays below PIPE_BUF: a write of it is atomic."""
    progress = Progress([(2**31, 2**60, 2**60)] * 16)
    pieces = Pieces([(2**31, 2**60, 2**30, "f" * 16)] * 16)
    for message in (progress, pieces, Ended(2**31, 2**60, 2**60, None)):
        assert len(encode(message)) <= PIPE_BUF_BYTES


def test_drawing_names_every_message() -> None:
    """The drawing in the module's docstring shows each kind."""
    assert _messages.__doc__ is not None
    for kind in KINDS:
        assert kind.__name__ in _messages.__doc__


# --- failures -------------------------------------------------------------------------


FAILURES = [
    errors.StatusError("asked, got 503", status=503, retry_after_seconds=2.5),
    errors.StatusError("asked, got 404", status=404),
    errors.DiskFull("no room", errno=28, missing_bytes=2**40),
    errors.StorageError("read-only", errno=30),
    errors.StorageError("no number"),
    *(
        getattr(errors, name)("it failed")
        for name in errors.__all__
        if name not in ("StatusError", "DiskFull", "StorageError")
    ),
]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_error_survives_the_pipe(error: errors.SegdlError) -> None:
    """Class, message and fields are the same on the other side, through JSON."""
    row = json.loads(json.dumps(failure_to_json(error)))
    again = failure_from_json(row)
    assert type(again) is type(error)
    assert str(again) == str(error)
    for name in ("status", "retry_after_seconds", "errno", "missing_bytes"):
        assert getattr(again, name, None) == getattr(error, name, None)


def test_code_of_libcurl_comes_along() -> None:
    """The number decides whether an attempt is worth another."""
    row = failure_to_json(errors.ConnectError("refused"), 7)
    assert row == {"kind": "ConnectError", "message": "refused", "code": 7}
    assert failure_from_json(row).code == 7  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"kind": "KeyboardInterrupt", "message": "x"},
        {"kind": "os.system", "message": "x"},
        {"kind": "__doc__", "message": "x"},
    ],
)
def test_unknown_kind_of_failure_becomes_a_worker_error(row: dict[str, Any]) -> None:
    """A worker can't choose a class outside of the tree."""
    assert type(failure_from_json(row)) is errors.WorkerError
