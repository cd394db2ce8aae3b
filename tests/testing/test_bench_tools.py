"""What the benchmark measures with: programs, the page cache, races on real servers."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from bench._cache import cached_bytes, unwritten_bytes, watching_unwritten
from bench._contenders import Contender
from bench._content import MIB, make_file, same, warm
from bench._measure import measure
from bench._processes import environment
from bench._scenario import Limit, Scenario, run
from bench._server import Nginx
from bench._settings import Settings
from bench.floor import compiled, floor_command
from segdl._peers import URLLIB, Fetch, Invocation

SIZE = 3 * MIB + 777


def test_a_program_is_fed_watched_and_heard(tmp_path: Path) -> None:
    """Its input, its environment, what it says last, its code, and its memory."""
    code = "import os, sys; print(input(), os.environ['ONE']); sys.exit(3)"
    usage = measure(
        [sys.executable, "-c", code],
        tmp_path,
        text="given\n",
        variables={"ONE": "1"},
        limit_seconds=60,
        sample_seconds=0.001,
    )
    assert (usage.exit_code, usage.output, usage.killed) == (3, "given 1\n", False)
    assert usage.peak_pss_bytes > 0
    assert usage.processes == 1
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    """With what it started."""
    code = "import os, time; os.fork(); time.sleep(600)"
    usage = measure([sys.executable, "-c", code], tmp_path, limit_seconds=0.2)
    assert usage.killed
    assert usage.exit_code < 0


def test_what_was_just_read_is_in_the_page_cache(tmp_path: Path) -> None:
    """All pages of it; nothing of an empty file."""
    path, empty = tmp_path / "a", tmp_path / "empty"
    make_file(path, SIZE)
    empty.touch()
    warm(path)
    assert cached_bytes(path) >= SIZE
    assert cached_bytes(empty) == 0


def test_unwritten_memory_is_seen() -> None:
    """The most of it that there was while somebody looked."""
    with watching_unwritten() as seen:
        assert unwritten_bytes() >= 0
    assert seen.most_bytes >= 0


@pytest.mark.nginx
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize("mode", ["buffered", "direct"])
@pytest.mark.parametrize("connections", [2, 5])
def test_the_floor_saves_what_was_served(
    tmp_path: Path, mode: str, connections: int
) -> None:
    """A floor with wrong bytes would be none; the last block is no whole page."""
    files = tmp_path / "files"
    files.mkdir()
    make_file(files / "a.bin", SIZE)
    with Nginx(files) as nginx:
        fetch = Fetch(url=f"{nginx.url}/a.bin", directory=str(tmp_path), name="b.bin")
        made = floor_command(compiled(tmp_path), SIZE, connections, mode, fetch)
        usage = measure(made.command, tmp_path)
    if mode == "direct" and "Invalid argument" in usage.output:
        pytest.skip("this file system has no direct writes")
    assert (usage.exit_code, usage.output) == (0, "")
    assert same(files / "a.bin", tmp_path / "b.bin")


@pytest.mark.nginx
def test_a_scenario_from_its_server_to_its_table(tmp_path: Path) -> None:
    """Ours beside a peer, a peer that saves nothing, and a limit; nothing is left."""
    ours = Contender(name="ours", make=lambda fetch: URLLIB.make(sys.executable, fetch))
    peer = Contender(name="peer", make=ours.make, is_peer=True)
    lazy = Contender(
        name="lazy", make=lambda _: Invocation(command=("true",)), is_peer=True
    )
    settings = Settings(size=SIZE, repeat=2, quick=True, directory=tmp_path)
    section, outcome = run(
        settings,
        Scenario(
            title="it",
            size=SIZE,
            contenders=[ours, peer, lazy],
            rounds=2,
            limits=[Limit(contender="ours", most=1e9)],
            round_trip=0.01,
            afterwards=True,
        ),
    )
    shown = [(row[0], row[1]) for row in section.rows]
    assert shown == [("ours", "2"), ("peer", "2"), ("lazy", "0")]
    assert outcome.failures == {"lazy": "saved no file"}
    assert section.exact
    assert [check.kept for check in section.checks] == [True]
    assert [path.name for path in tmp_path.iterdir()] == ["files"]


def test_programs_run_as_if_nobody_had_set_anything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No proxies, no settings, and Python with the bytecode it was installed with."""
    names = ("https_proxy", "SEGDL_TIMEOUT", "PYTHONDONTWRITEBYTECODE")
    for name in names:
        monkeypatch.setenv(name, "1")
    assert not set(names) & set(environment(ONE="1"))
    assert environment(ONE="1")["ONE"] == "1"
