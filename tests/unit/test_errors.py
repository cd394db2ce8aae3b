"""The error tree: drawn as it is, and every error survives travelling."""

from __future__ import annotations

import copy
import errno
import inspect
import pickle
import re
from typing import Any

import pytest

from segdl import errors
from segdl.errors import SegdlError

CLASSES = [getattr(errors, name) for name in errors.__all__]

# A value for every field an error may take; a new field needs one here.
FIELDS: dict[str, Any] = {
    "status": 503,
    "retry_after_seconds": 2.5,
    "algorithm": "sha256",
    "expected": "aa",
    "actual": "bb",
    "errno": errno.ENOSPC,
    "missing_bytes": 4096,
    "exitcode": -9,
}

MESSAGE = "asked for bytes 0-9, origin sent 0-4/10"


def fields_of(cls: type[SegdlError]) -> dict[str, Any]:
    parameters = inspect.signature(cls).parameters.values()
    names = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    return {name: FIELDS[name] for name in names}


def make(cls: type[SegdlError]) -> SegdlError:
    return cls(MESSAGE, **fields_of(cls))


def drawn() -> dict[str, tuple[str, str | None]]:
    """Return each class in the docstring's drawing: its parent there, its note."""
    found: dict[str, tuple[str, str | None]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ([ │]*)[├└]─ (\w+)(?: \((\w+)\))?", line)
        if match:
            depth = len(match[1]) // 3 + 1
            path[depth:] = [match[2]]
            found[match[2]] = (path[depth - 1], match[3])
        elif not path and (root := re.match(r"    (\w+)$", line)):
            path = [root[1]]
    return found


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_errors_survive_pickling(cls: type[SegdlError], protocol: int) -> None:
    """Type, message and every field arrive, with each protocol."""
    error = make(cls)
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is cls
    assert str(again) == MESSAGE
    assert {name: getattr(again, name) for name in fields_of(cls)} == fields_of(cls)
    assert vars(again) == vars(error)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy])
def test_errors_survive_copying(cls: type[SegdlError], copier: Any) -> None:
    """A copy has the type, message and fields of the original."""
    again = copier(make(cls))
    assert type(again) is cls
    assert str(again) == MESSAGE
    assert {name: getattr(again, name) for name in fields_of(cls)} == fields_of(cls)


@pytest.mark.parametrize("cls", CLASSES)
def test_the_text_is_the_message(cls: type[SegdlError]) -> None:
    """str() is the message alone, without an errno or a tuple around it."""
    error = make(cls)
    assert (str(error), error.message) == (MESSAGE, MESSAGE)
    assert str(cls(MESSAGE)) == MESSAGE


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_says_what_it_means(cls: type[SegdlError]) -> None:
    """Each class has a docstring of its own that names each of its fields."""
    doc = cls.__dict__.get("__doc__") or ""
    assert len(doc.strip()) > 20
    own = inspect.signature(cls.__init__).parameters if "__init__" in vars(cls) else {}
    fields = [name for name in own if name not in ("self", "message", "errno")]
    assert [name for name in fields if f"{name}:" not in doc] == []


def test_all_lists_every_class_of_the_tree() -> None:
    """No error of the module is missing in __all__, and nothing else is in it."""
    defined = [
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, BaseException)
    ]
    assert sorted(errors.__all__) == sorted(defined)
    assert errors.__all__ == sorted(errors.__all__)


def test_the_drawing_names_every_class() -> None:
    """The tree in the module's docstring is complete, and holds no class too many."""
    assert sorted(["SegdlError", *drawn()]) == sorted(errors.__all__)


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if cls is not SegdlError])
def test_the_drawing_shows_each_class_below_its_base(cls: type[SegdlError]) -> None:
    """A class stands below its base; another base stands in parentheses."""
    parent, note = drawn()[cls.__name__]
    bases = tuple(base.__name__ for base in cls.__bases__)
    assert parent in [base.__name__ for base in cls.__mro__[1:]]
    assert bases == (parent,) if note is None else bases in [(parent, note), (note,)]


def test_storage_errors_are_os_errors_with_their_number() -> None:
    """Code that catches OSError and looks at errno works with segdl's."""
    error = errors.DiskFull("no room", errno=errno.ENOSPC, missing_bytes=1)
    assert isinstance(error, OSError)
    assert (error.errno, error.missing_bytes) == (errno.ENOSPC, 1)


def test_usage_errors_are_value_errors() -> None:
    """Code that catches ValueError for a bad argument works with segdl's."""
    assert issubclass(errors.ConfigError, ValueError)
