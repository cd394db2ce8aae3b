"""`segdl bench` and `segdl serve`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from cli_program import Program

from segdl import _peers, bench
from segdl.errors import IntegrityError, SegdlError
from segdl.testing import Origin

MIB = 1 << 20


def test_bench_prints_a_table_and_writes_json(program: Program, tmp_path: Path) -> None:
    """Both scenarios, one plain stream beside each variant, and nothing left behind."""
    place = tmp_path / "place"
    place.mkdir()
    ran = program(
        *("bench", "--size", "2M", "--rate", "8M", "--repeat", "1", "-q"),
        *("--connections", "1,2", "--processes", "1", "--json", "out.json"),
        *("--dir", "place"),
    )
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.count("one stream") == 2
    document = json.loads((tmp_path / "out.json").read_text())
    assert [scenario["rate"] for scenario in document["scenarios"]] == [8 * MIB, None]
    expected = bench.blob_digest(2 * MIB)
    for scenario in document["scenarios"]:
        results = scenario["results"]
        assert [result["plain"] for result in results] == [True, False, False]
        assert [result["connections"] for result in results[1:]] == [1, 2]
        for result in results:
            assert [run["sha256"] for run in result["runs"]] == [expected]
            assert result["seconds"] > 0
    assert os.listdir(place) == []


def test_bench_measures_another_server(program: Program, segdl_origin: Origin) -> None:
    """A URL is fetched instead; its query is not shown."""
    url = segdl_origin.blob_url(1, MIB, "a.bin", etag="strong")
    ran = program("bench", url, "--repeat", "2", "-q")
    assert (ran.code, ran.err) == (0, "")
    assert "?..." in ran.out
    assert "etag" not in ran.out
    assert "medians of 2 runs" in ran.out


def test_bench_tells_a_failure(program: Program, segdl_origin: Origin) -> None:
    """A server that refuses ends the measurement, with the tool's own reason."""
    ran = program("bench", f"{segdl_origin.url}/status/404?token=s3cret", "-q")
    assert (ran.code, ran.out) == (1, "")
    assert "404" in ran.err
    assert "s3cret" not in ran.err


def test_a_wrong_file_is_no_measurement(segdl_origin: Origin, tmp_path: Path) -> None:
    """Every file is compared; speed without the right bytes counts for nothing."""
    variants = [bench.plain_variant()]
    url = segdl_origin.blob_url(2, MIB)
    with pytest.raises(IntegrityError):
        bench.compare(url, str(tmp_path), variants, expected=bench.blob_digest(MIB))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("tool", ["curl", "urllib"])
def test_a_plain_stream_is_one_connection(
    segdl_origin: Origin, tmp_path: Path, tool: str
) -> None:
    """curl or urllib: one request, without ranges, the whole file."""
    if _peers.by_name(tool).find() is None:
        pytest.skip(f"{tool} is not installed")
    seen: list[int] = []
    url = segdl_origin.blob_url(1, MIB, rate="4M")
    path = str(tmp_path / "a")
    measured = bench.peer_stream(tool, url, path, lambda done, _: seen.append(done))
    assert measured.sha256 == segdl_origin.blob(1, MIB).digest("sha256")
    (entry,) = segdl_origin.log.entries
    assert (entry.status, entry.range) == (200, None)
    assert seen == sorted(seen)
    with pytest.raises(SegdlError):
        bench.peer_stream(tool, f"{segdl_origin.url}/status/404", str(tmp_path / "b"))


def test_the_plain_stream_needs_no_curl(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own urllib takes its place."""
    monkeypatch.setenv("PATH", "")
    assert bench.plain_variant().peer == "urllib"


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside curl: urllib under another name, one that lies, and one that is gone."""
    lying = "open(json.loads(sys.stdin.readline())[0], 'w').write('lies')"

    def lie(found: str, fetch: _peers.Fetch) -> _peers.Invocation:
        command = (found, "-c", f"import json, sys; {lying}")
        return _peers.Invocation(command=command, text=json.dumps([fetch.path]))

    flags = (_peers.Flag(text="-n {n}", why="to be fast"),)
    peers = (
        _peers.CURL,
        replace(_peers.URLLIB, name="true"),
        _peers.Peer(
            name="false", make=lie, flags=flags, source="make false", package="json"
        ),
        _peers.Peer(
            name="gone", make=lie, flags=flags, source="buy gone", program="no-such"
        ),
    )
    monkeypatch.setattr(_peers, "PEERS", peers)


@pytest.mark.usefixtures("fakes")
def test_peers_are_measured_beside(inside: Program, tmp_path: Path) -> None:
    """A right one has figures, a wrong one its reason, a missing one a name."""
    ran = inside(
        *("bench", "--peers", "--size", "1M", "--rate", "8M", "--repeat", "1", "-q"),
        *("--json", str(tmp_path / "out.json"), "--dir", str(tmp_path)),
    )
    assert ran.code == 0
    assert ran.out.count("not installed: gone (buy gone)") == 2
    document = json.loads((tmp_path / "out.json").read_text())
    for scenario in document["scenarios"]:
        assert scenario["missing"] == ["gone (buy gone)"]
        results = {result["name"]: result for result in scenario["results"]}
        assert results["true"]["runs"][0]["sha256"] == bench.blob_digest(MIB)
        assert results["false"]["runs"] == []
        assert "the origin's is" in results["false"]["failure"]
    assert os.listdir(tmp_path) == ["out.json"]


def test_the_demo_shows_both_and_proves_both(program: Program) -> None:
    """Two rates, a factor, and the one digest of three files."""
    ran = program("bench", "--demo", "--size", "4M", "--rate", "8M")
    assert (ran.code, ran.err) == (0, "")
    assert "one stream" in ran.out
    assert "times as fast" in ran.out
    assert bench.blob_digest(4 * MIB) in ran.out


@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize(
    ("number", "code", "message"),
    [
        (signal.SIGINT, 130, "segdl: interrupted\n"),
        (signal.SIGTERM, 143, ""),
        (signal.SIGHUP, 129, ""),
    ],
)
def test_an_interrupted_bench_leaves_nothing(
    tmp_path: Path, number: int, code: int, message: str
) -> None:
    """The origin and the files go with it."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "segdl", "bench", "--rate", "1M", "--size", "64M"),
            *("--dir", str(tmp_path)),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        assert "run 1 of 3" in process.stderr.readline()
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, err) == (code, message)
    assert os.listdir(tmp_path) == []


def test_plot_needs_matplotlib_before_it_measures(
    inside: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be drawn is not measured."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    ran = inside("bench", "--plot", "a.png")
    assert (ran.code, ran.out) == (2, "")
    assert "pip install matplotlib" in ran.err


def test_a_directory_that_cannot_be_used_is_told(inside: Program) -> None:
    """--dir must exist."""
    ran = inside("bench", "--dir", os.path.join(tempfile.gettempdir(), "no", "where"))
    assert (ran.code, ran.out) == (5, "")


def test_serve_answers_until_it_is_stopped(tmp_path: Path) -> None:
    """The first line begins with the URL; SIGTERM ends it with 0."""
    process = subprocess.Popen(
        [sys.executable, "-m", "segdl", "serve", "--rate", "1M"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[0]
        with urllib.request.urlopen(f"{url}/b/1/10") as answer:
            assert len(answer.read()) == 10
        process.terminate()
        process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
