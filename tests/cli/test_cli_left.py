"""What an earlier run left: resume, inspect, clean; and verify."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from cli_program import UNFINISHED_SIZE as SIZE
from cli_program import Program, downloading

from segdl._fs import Directory, PartFile
from segdl._headers import Validator
from segdl._manifest._records import Header, header_line
from segdl._names import SafeName
from segdl.testing import Origin

SUFFIXES = ("", ".part", ".segdl")


@pytest.mark.parametrize("suffix", [None, *SUFFIXES])
def test_resume_goes_on(
    program: Program, segdl_origin: Origin, unfinished: Path, suffix: str | None
) -> None:
    """A directory, or any of the three names of a download, is enough to go on."""
    before = segdl_origin.log.settle()
    target = unfinished.parent if suffix is None else f"{unfinished}{suffix}"
    # One connection: several would split segments, and drop what is in flight.
    ran = program("resume", target, "--json", "-x", "1")
    assert ran.code == 0
    (resumed,) = ran.of("resumed")
    assert resumed["bytes"] > 0
    assert unfinished.read_bytes() == segdl_origin.blob(1, SIZE).read()
    assert os.listdir(unfinished.parent) == ["a.bin"]
    entries = segdl_origin.log.settle()[len(before) :]
    sent = sum(entry.sent_bytes for entry in entries)
    assert sent <= SIZE - resumed["bytes"]


def test_resume_of_a_file_that_is_larger_than_allowed(
    program: Program, segdl_origin: Origin, unfinished: Path
) -> None:
    """`resume` takes --max-bytes too; what is there stays."""
    ran = program("resume", unfinished, "--max-bytes", str(SIZE - 1))
    assert (ran.code, ran.out) == (3, "")
    assert f"has {SIZE} bytes, more than the {SIZE - 1} bytes of max_bytes" in ran.err
    assert program("resume", unfinished, "--max-bytes", str(SIZE)).code == 0
    assert unfinished.read_bytes() == segdl_origin.blob(1, SIZE).read()


def test_resume_prints_the_path(program: Program, unfinished: Path) -> None:
    """`resume` has the output of `get`."""
    ran = program("resume", unfinished)
    assert (ran.code, ran.out) == (0, f"{unfinished}\n")
    assert "was there already" in ran.err


def test_resume_of_an_empty_directory_has_nothing_to_do(
    program: Program, tmp_path: Path
) -> None:
    """Nothing unfinished is no failure."""
    ran = program("resume", tmp_path)
    assert (ran.code, ran.out) == (0, "")
    assert "nothing unfinished" in ran.err


@pytest.mark.parametrize("command", ["resume", "inspect"])
@pytest.mark.parametrize("name", ["missing", "missing.part", "missing/deeper", "whole"])
def test_a_name_without_a_manifest(
    program: Program, tmp_path: Path, command: str, name: str
) -> None:
    """A file that is complete, or not there, has no manifest to go on with."""
    (tmp_path / "whole").write_bytes(b"content")
    ran = program(command, name)
    assert (ran.code, ran.out) == (1, "")
    assert name in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("target", ["a.bin", "a.bin.segdl"])
def test_resume_with_a_new_link(
    program: Program, segdl_origin: Origin, tmp_path: Path, target: str
) -> None:
    """An old download goes on with a new link to the same file."""
    old = segdl_origin.blob_url(1, SIZE, "a.bin") + "?signature=old"
    with downloading(segdl_origin, tmp_path, old):
        pass
    before = len(segdl_origin.log.settle())
    new = segdl_origin.blob_url(1, SIZE, "other-name") + "?signature=new"
    ran = program("resume", target, "--url", new, "--json", "-x", "1")
    assert ran.code == 0
    (resumed,) = ran.of("resumed")
    assert resumed["bytes"] > 0
    assert (tmp_path / "a.bin").read_bytes() == segdl_origin.blob(1, SIZE).read()
    entries = segdl_origin.log.settle()[before:]
    assert {entry.query for entry in entries} == {"signature=new"}
    assert sum(entry.sent_bytes for entry in entries) <= SIZE - resumed["bytes"]


def test_resume_with_a_link_to_another_file(
    program: Program, segdl_origin: Origin, unfinished: Path
) -> None:
    """It is refused with the reason, and what is there stays."""
    before = Path(f"{unfinished}.segdl").read_bytes()
    ran = program("resume", unfinished, "--url", segdl_origin.blob_url(2, SIZE))
    assert ran.code == 5
    assert "the entity tag was" in ran.err
    left = Path(f"{unfinished}.segdl").read_bytes()
    assert left.startswith(before.splitlines(keepends=True)[0])


@pytest.mark.parametrize("targets", [["."], ["left/a.bin", "left/b.bin"]])
def test_new_link_is_for_one_file(
    program: Program, unfinished: Path, targets: list[str]
) -> None:
    """A link is of one file: with several, or a directory, it is refused."""
    shutil.copy(f"{unfinished}.segdl", unfinished.parent / "b.bin.segdl")
    ran = program("resume", *targets, "--url", "http://127.0.0.1/a")
    assert ran.code == 2
    assert "--url" in ran.err


@pytest.mark.parametrize("target", ["directory", "file"])
def test_resume_needs_a_url_that_had_a_query(
    program: Program, segdl_origin: Origin, tmp_path: Path, target: str
) -> None:
    """A query is never stored: the message asks for the URL, and nothing is lost."""
    url = segdl_origin.blob_url(1, SIZE, "a.bin", etag="strong")
    with downloading(segdl_origin, tmp_path, url):
        pass
    ran = program("resume", tmp_path if target == "directory" else "a.bin", "--json")
    assert ran.code == 2
    assert "query" in ran.err
    assert (tmp_path / "a.bin.segdl").exists()
    if target == "directory":
        assert [event["event"] for event in ran.events] == ["failed", "summary"]


@pytest.mark.parametrize(
    "targets",
    [
        ("left", "left/a.bin"),
        ("left/a.bin.part", "left"),
        ("left", "./left"),
        ("left", "link"),
        ("link/a.bin", "left"),
        ("left/a.bin", "left/a.bin.segdl", "link/a.bin.part"),
    ],
)
def test_resume_of_one_that_is_named_twice(
    program: Program, segdl_origin: Origin, unfinished: Path, targets: tuple[str, ...]
) -> None:
    """It goes on once, however often and by which way it is named."""
    (unfinished.parent.parent / "link").symlink_to("left")
    ran = program("resume", *targets, "--json")
    assert ran.code == 0
    assert len(ran.of("resumed")) == len(ran.of("completed")) == 1
    assert unfinished.read_bytes() == segdl_origin.blob(1, SIZE).read()


def test_resume_goes_on_after_a_damaged_manifest(
    program: Program, segdl_origin: Origin, unfinished: Path
) -> None:
    """It is told why that one can't go on, and it stays; the others go on."""
    left = {"0.bin.part": b"data", "0.bin.segdl": b"damaged\n"}
    for name, data in left.items():
        private(unfinished.with_name(name), data)
    ran = program("resume", unfinished.parent)
    assert (ran.code, ran.out) == (1, f"{unfinished}\n")
    assert "0.bin.segdl" in ran.err
    assert unfinished.read_bytes() == segdl_origin.blob(1, SIZE).read()
    for name, data in left.items():
        assert unfinished.with_name(name).read_bytes() == data


@pytest.mark.parametrize("target", ["left", "left/b.bin", "left/b.bin.part"])
def test_resume_of_a_renamed_pair(
    program: Program, segdl_origin: Origin, unfinished: Path, target: str
) -> None:
    """It is kept, and the message says which names it has to have."""
    pairs = [
        (Path(f"{unfinished}{suffix}"), unfinished.with_name(f"b.bin{suffix}"))
        for suffix in (".part", ".segdl")
    ]
    for own, other in pairs:
        own.rename(other)
    before = [other.read_bytes() for _, other in pairs]
    requests = len(segdl_origin.log.settle())
    ran = program("resume", target)
    assert (ran.code, ran.out) == (1, "")
    assert "rename it to a.bin.segdl" in ran.err
    assert [other.read_bytes() for _, other in pairs] == before
    assert len(os.listdir(unfinished.parent)) == 2
    assert len(segdl_origin.log.settle()) == requests
    for own, other in pairs:
        other.rename(own)
    assert program("resume", unfinished).code == 0
    assert unfinished.read_bytes() == segdl_origin.blob(1, SIZE).read()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_inspect_tells_the_facts(
    program: Program, segdl_origin: Origin, unfinished: Path, suffix: str
) -> None:
    """Name, URL, size and how much is done, under any of the three names."""
    ran = program("inspect", f"{unfinished}{suffix}", "--json")
    assert (ran.code, ran.err) == (0, "")
    facts = json.loads(ran.out)
    assert facts["name"] == "a.bin"
    assert facts["url"] == segdl_origin.blob_url(1, SIZE, "a.bin")
    assert facts["size"] == SIZE
    assert facts["done"] == sum(length for _, length in facts["pieces"])
    assert 0 < facts["progress"] < 1
    assert facts["part_exists"] is True


def test_inspect_draws_a_map(program: Program, unfinished: Path) -> None:
    """The map is as wide as the terminal, and has done and missing cells."""
    ran = program("inspect", unfinished, env={"COLUMNS": "41"})
    assert (ran.code, ran.err) == (0, "")
    text = ran.out.split("\n\n")[1]
    assert [len(line) for line in text.splitlines()] == [40]
    assert {"░", "█"} <= set(text) <= {"░", "▒", "█", "\n"}


def test_inspect_shows_any_time_a_manifest_may_have(
    program: Program, tmp_path: Path
) -> None:
    """One beyond the calendar is no reason to break off."""
    header = Header(
        name="a.bin",
        size=1,
        piece=1,
        validator=Validator(etag=None, last_modified=None, last_modified_strong=False),
        url_sha256="0" * 64,
        url="",
        digest=None,
        dev=1,
        ino=1,
        created=1e18,
    )
    manifest = tmp_path / "a.bin.segdl"
    manifest.write_bytes(header_line(header))
    manifest.chmod(0o600)
    ran = program("inspect", manifest)
    assert (ran.code, ran.err) == (0, "")
    assert "1e+18 s after 1970" in ran.out


def test_inspect_needs_a_good_manifest(program: Program, unfinished: Path) -> None:
    """A damaged header is told, with the path."""
    manifest = Path(f"{unfinished}.segdl")
    manifest.write_bytes(b"x" + manifest.read_bytes())
    ran = program("inspect", unfinished)
    assert (ran.code, ran.out) == (1, "")
    assert str(manifest) in ran.err


def test_clean_lists_and_removes_a_download(program: Program, unfinished: Path) -> None:
    """Without --yes nothing is touched; with it part and manifest are gone."""
    ran = program("clean", unfinished.parent)
    assert ran.code == 0
    assert "a.bin.part" in ran.out
    assert "--yes" in ran.err
    assert sorted(os.listdir(unfinished.parent)) == ["a.bin.part", "a.bin.segdl"]
    ran = program("clean", unfinished.parent, "--yes", "--json")
    assert (ran.code, ran.err) == (0, "")
    found = json.loads(ran.out)
    assert found["removed"] is True
    assert [orphan["names"] for orphan in found["orphans"]] == [
        ["a.bin.part", "a.bin.segdl"]
    ]
    assert os.listdir(unfinished.parent) == []


def test_clean_leaves_what_an_engine_is_at(
    program: Program, segdl_origin: Origin, tmp_path: Path
) -> None:
    """A locked part, its manifest and its temporary file are in use."""
    from segdl._fs import temporary_name

    url = segdl_origin.blob_url(1, SIZE, "a.bin")
    temporary = tmp_path / temporary_name("a.bin.segdl")
    with downloading(segdl_origin, tmp_path, url):
        private(temporary, b"half a manifest")
        ran = program("clean", tmp_path, "--yes")
        assert (ran.code, ran.out) == (0, "")
        assert (tmp_path / "a.bin.part").exists()
        assert (tmp_path / "a.bin.segdl").exists()
        assert temporary.exists()


def test_clean_removes_what_is_certainly_segdls(
    program: Program, unfinished: Path
) -> None:
    """A lone manifest, an empty private part, a temporary manifest."""
    directory = unfinished.parent
    Path(f"{unfinished}.part").unlink()
    private(directory / "b.part", b"")
    os.truncate(directory / "b.part", 1 << 20)
    private(directory / ".segdl-0123456789abcdef.tmp", b"half")
    ran = program("clean", directory, "--yes", "--json")
    assert sorted(orphan["kind"] for orphan in json.loads(ran.out)["orphans"]) == [
        "empty part",
        "manifest",
        "temporary",
    ]
    assert os.listdir(directory) == []


def test_clean_keeps_what_may_be_somebody_elses(
    program: Program, unfinished: Path
) -> None:
    """Data without our manifest, foreign files of our suffixes, links, copies."""
    directory = unfinished.parent
    private(directory / "browser.part", b"data")
    (directory / "empty.part").write_bytes(b"")  # open to others: a browser's
    private(directory / "notes.segdl", b"not a manifest\n")
    private(directory / "notes.part", b"data")
    shutil.copy(f"{unfinished}.segdl", directory / "copy.segdl")  # of another name
    (directory / "link.part").symlink_to("browser.part")
    (directory / ".segdl-nothex.tmp").write_bytes(b"")
    before = set(os.listdir(directory))
    ran = program("clean", directory, "--yes")
    assert ran.code == 0
    assert before - set(os.listdir(directory)) == {"a.bin.part", "a.bin.segdl"}


def test_clean_keeps_data_that_is_said_to_take_no_room(
    inside: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that says 0 blocks to everything makes no part an empty one."""
    monkeypatch.setattr(PartFile, "blocks", lambda _self: 0)
    private(tmp_path / "a.part", b"data")
    ran = inside("clean", tmp_path, "--yes")
    assert (ran.code, ran.out) == (0, "")
    assert (tmp_path / "a.part").read_bytes() == b"data"


def test_clean_keeps_the_manifest_of_an_engine_that_begins(
    inside: Program, unfinished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that came after the look for it makes the manifest no lone one."""
    monkeypatch.setattr(Directory, "exists", lambda *_: False)
    ran = inside("clean", unfinished.parent, "--yes")
    assert (ran.code, ran.out) == (0, "")
    assert sorted(os.listdir(unfinished.parent)) == ["a.bin.part", "a.bin.segdl"]


def test_clean_needs_a_directory(program: Program, tmp_path: Path) -> None:
    """A file, or nothing, is no directory to look into."""
    (tmp_path / "file").write_bytes(b"")
    for name in ("file", "missing"):
        ran = program("clean", name)
        assert (ran.code, ran.out) == (5, "")


def test_a_long_name_is_found_by_its_shortened_sidecars(
    program: Program, segdl_origin: Origin, tmp_path: Path
) -> None:
    """A name too long for a suffix is inspected under its own name too."""
    from segdl._names import sidecar_names

    name = "n" * 250 + ".bin"
    url = segdl_origin.blob_url(1, SIZE, name)
    with downloading(segdl_origin, tmp_path, url):
        pass
    part, manifest = sidecar_names(SafeName(name))
    assert sorted(os.listdir(tmp_path)) == sorted([part, manifest])
    for target in (name, part, manifest):
        ran = program("inspect", target, "--json")
        assert json.loads(ran.out)["name"] == name


@pytest.mark.parametrize("algorithm", ["sha256", "md5", "sha512"])
def test_verify_accepts_the_right_digest(
    program: Program, tmp_path: Path, algorithm: str
) -> None:
    """The file may be a link, and be read in several steps."""
    data = os.urandom((2 << 20) + 17)
    (tmp_path / "real").write_bytes(data)
    (tmp_path / "link").symlink_to("real")
    digest = hashlib.new(algorithm, data).hexdigest().upper()
    ran = program("verify", "link", "--checksum", f"{algorithm}:{digest}")
    assert (ran.code, ran.out, ran.err) == (0, f"link: {algorithm} OK\n", "")


def test_verify_refuses_another_digest(program: Program, tmp_path: Path) -> None:
    """4, and both digests."""
    (tmp_path / "a").write_bytes(b"content")
    ran = program("verify", "a", "--checksum", "md5:" + "0" * 32)
    assert (ran.code, ran.out) == (4, "")
    assert hashlib.md5(b"content").hexdigest() in ran.err


@pytest.mark.parametrize("name", ["missing", ".", "/dev/null"])
def test_verify_needs_a_file(program: Program, name: str) -> None:
    """What can't be read is a failure of the disk."""
    ran = program("verify", name, "--checksum", "md5:" + "0" * 32)
    assert (ran.code, ran.out) == (5, "")
    assert ran.err.count("\n") == 1


def private(path: Path, data: bytes) -> None:
    """Write a file that is open to its owner alone."""
    path.touch(0o600)
    path.write_bytes(data)
