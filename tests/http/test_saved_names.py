"""Under which name a file is saved: the caller's, the answer's, the URL's."""

from __future__ import annotations

from pathlib import Path

import pytest
from http_checks import names

from segdl.errors import UsageError

SIZE = 1000


def save(fetch, out: Path, url: str, **options: object) -> list[str]:
    """Download a URL without a name, and list what is in the directory then."""
    task = fetch(url, filename=None, **options)
    assert (task.status, task.error) == ("completed", None)
    path = Path(task.result(0))
    assert path.parent == out
    assert task.file_path == str(path)
    assert path.stat().st_size == SIZE
    assert names(out) == [path.name]
    assert names(out.parent) == [out.name]
    return names(out)


@pytest.mark.parametrize(
    ("segment", "expected"),
    [
        ("a.bin", "a.bin"),
        ("a%20b.bin", "a b.bin"),
        ("%C3%BC.bin", "ü.bin"),
        ("a.bin?name=other.bin", "a.bin"),
        ("a.bin#other.bin", "a.bin"),
        ("..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("..%5C..%5Cevil.exe", "evil.exe"),
    ],
)
def test_name_of_the_url(origin, fetch, out, segment, expected) -> None:
    """Without anything else, the last segment of the path is the name."""
    assert save(fetch, out, f"{origin.blob_url(1, SIZE)}/{segment}") == [expected]


@pytest.mark.parametrize("name", ["segdl.toml", "SegDL.toml"])
def test_no_origin_leaves_a_configuration(origin, fetch, out, name) -> None:
    """What the next run would take for its settings is saved under another name."""
    said = origin.blob_url(1, SIZE, "a", disposition=f'attachment; filename="{name}"')
    assert save(fetch, out, said) == [f"_{name}"]
    (out / f"_{name}").unlink()
    assert save(fetch, out, f"{origin.blob_url(1, SIZE)}/{name}") == [f"_{name}"]


def test_own_name_wins(origin, fetch, out) -> None:
    """A name that was given is the name."""
    url = origin.blob_url(1, SIZE, "a", disposition='attachment; filename="b"')
    task = fetch(url, filename="mine.bin")
    assert task.file_path == str(out / "mine.bin")
    assert names(out) == ["mine.bin"]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\0b", "a" * 256])
def test_own_name_that_is_none(origin, engine, out, name) -> None:
    """A name given is not made safe but refused, before any request."""
    with pytest.raises(UsageError):
        engine.download(origin.blob_url(1, SIZE), out, name)
    assert origin.log.entries == ()


@pytest.mark.parametrize("name", ["a" * 251 + ".bin", "ü" * 125 + ".bin", "日" * 83])
def test_longest_name(origin, fetch, out, name) -> None:
    """A name of 255 bytes leaves no room for a suffix: part and manifest get a stem."""
    task = fetch(origin.blob_url(1, SIZE), filename=name)
    assert (task.status, task.error) == ("completed", None)
    assert names(out) == [name]


def test_long_name_of_the_url_is_cut(origin, fetch, out) -> None:
    """A longer one is cut to 255 bytes, and keeps its suffix."""
    url = f"{origin.blob_url(1, SIZE)}/{'a' * 400}.safetensors"
    (name,) = save(fetch, out, url)
    assert len(name.encode()) <= 255
    assert name.endswith(".safetensors")


def test_two_names_of_one_answer_meet(origin, make_engine, out) -> None:
    """Two URLs that answer with one name: the first keeps it."""
    engine = make_engine(max_workers=1)
    tasks = [
        engine.download(
            origin.blob_url(seed, SIZE + seed, disposition="attachment; filename=a"),
            out,
        )
        for seed in (1, 2)
    ]
    assert all(task.wait(10) for task in tasks)
    assert [task.status for task in tasks] == ["completed", "failed"]
    assert (out / "a").stat().st_size == SIZE + 1
