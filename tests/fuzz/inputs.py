"""Inputs for the targets: what they begin with, mangled."""

from __future__ import annotations

from hypothesis import strategies as st

_TOKENS = (b"", b"\n", b"\r\n", b"\0", b"\xff", b"%0A", b"-1", b"9" * 20, b'"')
_Edit = tuple[int, int, bytes]


def _mangled(data: bytes, other: bytes, edits: list[_Edit]) -> bytes:
    """Replace parts of an input: by its own, by another one's, by anything."""
    for place, kind, put in edits:
        begin = place % (len(data) + 1)
        end = begin + kind % 7
        if kind % 4 == 0:
            put = data[begin : begin + 40] * 2
        elif kind % 4 == 1:
            put = other[place % (len(other) + 1) :][:40]
        elif kind % 4 == 2:
            put = _TOKENS[place % len(_TOKENS)]
        data = data[:begin] + put + data[end:]
    return data


def inputs(seeds: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """
    Give any bytes, most of them near to what the target's parser takes.

    Args:
        seeds: Of the target.
    """
    edit = st.tuples(st.integers(0, 65535), st.integers(0, 27), st.binary(max_size=6))
    seed = st.sampled_from(seeds)
    near = st.builds(_mangled, seed, seed, st.lists(edit, max_size=4))
    return near | near | st.binary(max_size=60)
