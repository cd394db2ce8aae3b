"""`segdl get` against a real origin."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cli_program import Program

from segdl.testing import Origin

SIZE = 300_000
MIB = 1 << 20


def test_paths_go_to_stdout_and_the_rest_to_stderr(
    program: Program, segdl_origin: Origin, tmp_path: Path
) -> None:
    """A script reads the final paths, one a line, and nothing else."""
    ran = program(
        "get",
        segdl_origin.blob_url(1, SIZE, "a.bin"),
        segdl_origin.blob_url(2, SIZE, "b.bin"),
        "-d",
        "new/dir",
    )
    assert ran.code == 0
    paths = [tmp_path / "new" / "dir" / name for name in ("a.bin", "b.bin")]
    assert sorted(ran.out.splitlines()) == list(map(str, paths))
    assert [p.read_bytes() for p in paths] == [
        segdl_origin.blob(seed, SIZE).read() for seed in (1, 2)
    ]
    assert sorted(line.split(" ")[0] for line in ran.err.splitlines()) == [
        "a.bin:",
        "b.bin:",
    ]
    assert sorted(os.listdir(paths[0].parent)) == ["a.bin", "b.bin"]


def test_path_that_the_encoding_of_stdout_lacks(
    program: Program, segdl_origin: Origin, tmp_path: Path
) -> None:
    """It is written as the file system has it: a script can use it."""
    url = segdl_origin.blob_url(1, 10)
    ran = program("get", url, "-o", "ŝ.bin", env={"PYTHONIOENCODING": "ascii"})
    assert (ran.code, ran.out) == (0, f"{tmp_path / 'ŝ.bin'}\n")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are always UTF-8")
@pytest.mark.parametrize("policy", ["reuse", "rename", "overwrite", "error"])
def test_name_that_the_locale_lacks(
    program: Program, segdl_origin: Origin, tmp_path: Path, policy: str
) -> None:
    """The server's name can't be used then; the message says what to do."""
    url = segdl_origin.blob_url(
        1, 10, disposition="attachment; filename*=UTF-8''%C5%9D"
    )
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ran = program("get", url, "--on-exists", policy, env=locale)
    assert (ran.code, ran.out) == (5, "")
    assert "choose another one, or a locale of UTF-8" in ran.err
    assert "Traceback" not in ran.err
    assert os.listdir(tmp_path) == []


def test_options_may_stand_between_urls(program: Program, segdl_origin: Origin) -> None:
    """URLs and options come in any order."""
    urls = [segdl_origin.blob_url(1, 10, name) for name in ("a", "b")]
    ran = program("get", urls[0], "-q", "--no-progress", urls[1], "-d", "d")
    assert (ran.code, ran.out, ran.err) == (0, "", "")


def test_no_progress_leaves_the_paths(
    program: Program, segdl_origin: Origin, tmp_path: Path
) -> None:
    """--no-progress silences the display, not the result."""
    url = segdl_origin.blob_url(1, SIZE, "a.bin")
    ran = program("get", url, "--no-progress", "-o", "other.bin")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == f"{tmp_path / 'other.bin'}\n"


def test_quiet_still_tells_errors(program: Program, segdl_origin: Origin) -> None:
    """-q has no output but errors."""
    ran = program("get", "-q", f"{segdl_origin.url}/status/404")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith("segdl: ")
    assert "404" in ran.err


def test_json_is_a_line_an_event(program: Program, segdl_origin: Origin) -> None:
    """Each line has event, time, task, url; start comes first, the summary last."""
    url = segdl_origin.blob_url(1, SIZE, "a.bin", etag="strong")
    blob = segdl_origin.blob(1, SIZE)
    checksum = f"sha256:{blob.digest('sha256')}"
    ran = program("get", url, "--json", "--checksum", checksum)
    assert (ran.code, ran.err) == (0, "")
    # On a busy machine even this takes long enough to be told of.
    events = [event for event in ran.events if event["event"] != "progress"]
    assert [event["event"] for event in events] == ["start", "completed", "summary"]
    assert all({"event", "time", "task", "url"} <= event.keys() for event in events)
    assert {event["task"] for event in events[:-1]} == {events[0]["task"]}
    assert {event["url"] for event in events[:-1]} == {url.partition("?")[0] + "?..."}
    done = events[1]
    assert Path(done["path"]).read_bytes() == blob.read()
    assert (done["bytes"], done["checksum"]) == (SIZE, checksum)
    assert done["seconds"] > 0
    summary = events[2]
    assert (summary["completed"], summary["failed"], summary["bytes"]) == (1, 0, SIZE)
    assert summary["seconds"] > 0


def test_json_reports_progress(program: Program, segdl_origin: Origin) -> None:
    """Progress has downloaded, total, speed, eta and connections."""
    url = segdl_origin.blob_url(1, 4 * MIB, "a.bin", rate="6M")
    ran = program(
        "get", url, "--json", "-x", "1", env={"SEGDL_PROGRESS_INTERVAL": "0.05"}
    )
    assert ran.code == 0
    progress = ran.of("progress")
    assert progress
    assert all(
        event.keys() - {"event", "time", "task", "url"}
        == {"downloaded", "total", "speed", "eta", "connections"}
        for event in progress
    )
    done = [event["downloaded"] for event in progress]
    assert done == sorted(done)
    assert {event["total"] for event in progress} <= {0, 4 * MIB}
    assert max(event["connections"] for event in progress) == 1


def test_json_reports_a_retry(program: Program, segdl_origin: Origin) -> None:
    """A retry has reason, attempt and delay, and the download goes on."""
    url = segdl_origin.blob_url(1, SIZE, "a.bin", f="status=503@,1")
    ran = program("get", url, "--json", "--retry-delay", "0")
    assert ran.code == 0
    (retry,) = ran.of("retry")
    assert "503" in retry["reason"]
    assert retry["attempt"] == 1
    assert retry["delay"] >= 0


def test_a_retry_is_told(program: Program, segdl_origin: Origin) -> None:
    """Who looks at the terminal sees why nothing moves."""
    url = segdl_origin.blob_url(1, SIZE, "a.bin", f="status=503@,1")
    ran = program("get", url, "--retry-delay", "0")
    assert ran.code == 0
    assert "503" in ran.err.splitlines()[0]


def test_json_reports_a_failure(program: Program, segdl_origin: Origin) -> None:
    """A failure has code and error, and counts in the summary."""
    ran = program("get", f"{segdl_origin.url}/status/404", "--json")
    assert ran.code == 3
    (failed,) = ran.of("failed")
    assert failed["code"] == "StatusError"
    assert "404" in failed["error"]
    assert ran.events[-1]["failed"] == 1


def test_headers_are_sent(
    program: Program, segdl_origin: Origin, tmp_path: Path
) -> None:
    """-H sends a field, @FILE those of a file; none of them is repeated anywhere."""
    (tmp_path / "fields").write_text("Authorization: Bearer s3cret\r\n\r\nX-B: 2\n")
    url = segdl_origin.blob_url(1, SIZE, "a.bin")
    ran = program("get", url, "-H", "X-A: s3cret", "-H", "@fields")
    assert ran.code == 0
    headers = segdl_origin.log.entries[0].headers
    assert headers["authorization"] == "Bearer s3cret"
    assert (headers["x-a"], headers["x-b"]) == ("s3cret", "2")
    assert "s3cret" not in ran.out + ran.err


def test_credentials_of_a_url_are_used_and_not_told(
    program: Program, segdl_origin: Origin
) -> None:
    """user:password@ becomes Basic authentication, and is shown nowhere."""
    parts = urlsplit(segdl_origin.url)
    url = f"http://me:s3cret@{parts.netloc}/b/1/{SIZE}/a.bin?token=s3cret"
    ran = program("get", url, "--json")
    assert ran.code == 0
    authorization = segdl_origin.log.entries[0].headers["authorization"]
    assert authorization == "Basic bWU6czNjcmV0"
    assert "s3cret" not in ran.out + ran.err


def test_the_server_names_the_file(
    program: Program, segdl_origin: Origin, tmp_path: Path
) -> None:
    """Without -o the name is the one of Content-Disposition, made safe."""
    url = segdl_origin.blob_url(
        1, SIZE, "a.bin", disposition='attachment; filename="../../evil.bin"'
    )
    ran = program("get", url, "--no-progress")
    assert ran.out == f"{tmp_path / 'evil.bin'}\n"


def test_a_mirror_serves_when_the_url_does_not(
    program: Program, segdl_origin: Origin, tmp_path: Path
) -> None:
    """--mirror is another source of the same file."""
    mirror = segdl_origin.blob_url(1, SIZE, "m.bin")
    ran = program(
        "get", f"{segdl_origin.url}/status/404", "--mirror", mirror, "-o", "a.bin"
    )
    assert ran.code == 0
    assert (tmp_path / "a.bin").read_bytes() == segdl_origin.blob(1, SIZE).read()


@pytest.mark.parametrize("name", ["list", "-"])
def test_an_input_file_says_what_to_download(
    program: Program, segdl_origin: Origin, tmp_path: Path, name: str
) -> None:
    """A list, from a file or stdin, has names, directories, digests and headers."""
    blob = segdl_origin.blob(1, SIZE)
    text = (
        f"{segdl_origin.blob_url(1, SIZE)}\n  out=one\n  dir=sub\n"
        f"  checksum=sha-256={blob.digest('sha256')}\n  header=X-A: 2\n"
        f"{segdl_origin.url}/status/404\t{segdl_origin.blob_url(2, SIZE)}\n  out=two\n"
    )
    (tmp_path / "list").write_text(text)
    ran = program(
        "get", "-i", name, "-H", "x-a: 1", "--json", stdin=text if name == "-" else ""
    )
    assert ran.code == 0
    assert (tmp_path / "sub" / "one").read_bytes() == blob.read()
    assert (tmp_path / "two").read_bytes() == segdl_origin.blob(2, SIZE).read()
    checksums = {event["path"]: event["checksum"] for event in ran.of("completed")}
    assert checksums[str(tmp_path / "sub" / "one")] == (
        f"sha256:{blob.digest('sha256')}"
    )
    sent = {entry.path: entry.headers["x-a"] for entry in segdl_origin.log.entries}
    assert sent[f"/b/1/{SIZE}"] == "2"
    assert sent["/status/404"] == "1"


def test_jobs_and_connections_are_the_engines(
    program: Program, segdl_origin: Origin
) -> None:
    """-x 1 downloads over one connection, --limit-rate and --processes are taken."""
    url = segdl_origin.blob_url(1, 8 * MIB, "a.bin")
    ran = program(
        *("get", url, "-x", "1", "-j", "1", "--processes", "0", "--limit-rate", "1G"),
        *("--durability", "none", "--io", "buffered", "--timeout", "5.5"),
    )
    assert ran.code == 0
    assert len({entry.connection for entry in segdl_origin.log.entries}) == 1


@pytest.mark.parametrize("length", ["on", "off"])
def test_a_file_that_is_larger_than_allowed(
    program: Program, segdl_origin: Origin, tmp_path: Path, length: str
) -> None:
    """--max-bytes and SEGDL_MAX_BYTES bound a file; a larger one is a failure, 3."""
    ranges = "on" if length == "on" else "off"
    url = segdl_origin.blob_url(1, MIB, "a.bin", length=length, ranges=ranges)
    ran = program("get", url, "--max-bytes", "1023.5k")
    assert (ran.code, ran.out) == (3, "")
    assert "more than the 1048064 bytes of max_bytes; raise max_bytes" in ran.err
    assert not (tmp_path / "a.bin").exists()
    env = {"SEGDL_MAX_BYTES": "1023k"}
    assert program("get", url, env=env).code == 3
    assert program("get", url, "--max-bytes", "1M", env=env).code == 0


def test_a_configuration_file_is_taken(
    program: Program, segdl_origin: Origin, tmp_path: Path
) -> None:
    """--config names a file; an option wins over it."""
    (tmp_path / "my.toml").write_text('[downloader]\non_exists = "error"\n')
    (tmp_path / "a.bin").write_bytes(b"old")
    url = segdl_origin.blob_url(1, SIZE, "a.bin")
    assert program("get", url, "--config", "my.toml").code == 5
    ran = program("get", url, "--config", "my.toml", "--on-exists", "overwrite")
    assert ran.code == 0


@pytest.mark.parametrize(
    ("policy", "code", "content", "beside"),
    [
        ("reuse", 5, b"old", []),
        ("error", 5, b"old", []),
        ("overwrite", 0, None, []),
        ("rename", 0, b"old", ["a.1.bin"]),
    ],
)
@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
def test_a_destination_that_exists(
    program: Program,
    segdl_origin: Origin,
    tmp_path: Path,
    policy: str,
    code: int,
    content: bytes | None,
    beside: list[str],
    named: bool,
) -> None:
    """What is there is kept, replaced or left beside, as --on-exists says."""
    new = segdl_origin.blob(1, SIZE).read()
    (tmp_path / "a.bin").write_bytes(b"old")
    url = segdl_origin.blob_url(1, SIZE, "a.bin")
    extra = ("-o", "a.bin") if named else ()
    ran = program("get", url, "--on-exists", policy, *extra)
    assert ran.code == code
    assert (tmp_path / "a.bin").read_bytes() == (new if content is None else content)
    others = sorted(set(os.listdir(tmp_path)) - {"a.bin"})
    assert others == beside
    assert [(tmp_path / name).read_bytes() for name in others] == [new] * len(others)
    if code:
        assert ran.err.startswith("segdl: ")
        assert str(tmp_path / "a.bin") in ran.err
        assert "--on-exists" in ran.err or "on_exists" in ran.err


def test_a_complete_destination_is_reused(
    program: Program, segdl_origin: Origin, tmp_path: Path
) -> None:
    """The same call again has nothing to do, and says so with the same path."""
    url = segdl_origin.blob_url(1, SIZE, "a.bin")
    first = program("get", url)
    again = program("get", url)
    assert (again.code, again.out) == (0, first.out)
    assert "complete already" in again.err
    segdl_origin.log.settle()
    requests = len(segdl_origin.log.entries)
    checksum = f"sha256:{sha256(tmp_path / 'a.bin')}"
    named = program("get", url, "-o", "a.bin", "--checksum", checksum)
    assert (named.code, named.out) == (0, first.out)
    assert "sha256 verified" in named.err
    assert len(segdl_origin.log.entries) == requests


def test_two_urls_with_one_name_are_not_both_done(
    program: Program, segdl_origin: Origin
) -> None:
    """When servers give two files the same name, the exit code tells of the loss."""
    ran = program(
        "get",
        segdl_origin.blob_url(1, SIZE, "a.bin"),
        segdl_origin.blob_url(2, SIZE, "a.bin"),
        "-j",
        "1",
    )
    assert ran.code != 0
    assert len(ran.out.splitlines()) == 1


def test_two_urls_with_one_name_in_one_directory(
    program: Program, segdl_origin: Origin, tmp_path: Path
) -> None:
    """One that replaces the other's file is told, also where a link hides it."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    urls = [segdl_origin.blob_url(seed, SIZE, "a.bin") for seed in (1, 2)]
    entries = f"{urls[0]}\n  dir=real\n{urls[1]}\n  dir=link\n"
    options = ("-j", "1", "--on-exists", "overwrite")
    ran = program("get", "-i", "-", *options, stdin=entries)
    assert ran.code == 1
    assert len(ran.out.splitlines()) == 1
    assert "have the same destination" in ran.err


def test_two_urls_with_one_name_are_both_kept_by_rename(
    program: Program, segdl_origin: Origin
) -> None:
    """--on-exists rename keeps two files apart that come down at the same time."""
    segdl_origin.rate = MIB
    urls = [segdl_origin.blob_url(seed, SIZE, "a.bin") for seed in (1, 2)]
    ran = program("get", *urls, "--on-exists", "rename", "--no-progress")
    assert (ran.code, ran.err) == (0, "")
    contents = [Path(line).read_bytes() for line in ran.out.splitlines()]
    expected = [segdl_origin.blob(seed, SIZE).read() for seed in (1, 2)]
    assert sorted(contents) == sorted(expected)


def test_a_reader_that_goes_away_ends_in_no_traceback(
    segdl_origin: Origin, tmp_path: Path
) -> None:
    """With stdout closed the files come down; 1 tells that their paths were lost."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "segdl", "get", "--no-progress", "--json"),
                segdl_origin.blob_url(1, SIZE, "a.bin"),
            ],
            cwd=tmp_path,
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=60,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")
    assert sha256(tmp_path / "a.bin") == segdl_origin.blob(1, SIZE).digest("sha256")


def test_a_full_stdout_is_told(segdl_origin: Origin, tmp_path: Path) -> None:
    """A result that can't be written is a failure, with a reason and no traceback."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "segdl", "get", "--no-progress"),
                segdl_origin.blob_url(1, SIZE, "a.bin"),
            ],
            cwd=tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
        )
    assert done.returncode == 1
    assert done.stderr.startswith(b"segdl: cannot write to stdout: ")
    assert done.stderr.count(b"\n") == 1


def sha256(path: Path) -> str:
    """Hash a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
