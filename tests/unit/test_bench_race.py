"""The benchmark's pure parts: who runs when, ratios, limits, tables, ideal times."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from bench._contenders import Contender, segdl
from bench._content import MIB
from bench._course import Failed
from bench._ideal import ideal_seconds
from bench._processes import ROOT
from bench._publish import details, limits_table
from bench._race import Outcome, Run, cpu, loaded, race, synced, wall
from bench._report import Check, Results, Section, load, table
from bench._scenario import Limit, Scenario, section
from segdl._peers import Batch, Fetch, Invocation

FETCH = Fetch(url="http://a/b", directory="/saved", name="c")


def contender(name: str, *, is_peer: bool = True) -> Contender:
    return Contender(
        name=name, make=lambda _: Invocation(command=("true",)), is_peer=is_peer
    )


def outcome(walls: dict[str, list[float]], ours: Sequence[str] = ("we",)) -> Outcome:
    runs = {
        name: [Run(wall=each, cpu=2 * each) for each in values]
        for name, values in walls.items()
    }
    return Outcome(runs=runs, ours=list(ours))


def raced(walls: dict[str, float], rounds: int) -> tuple[list[str], Outcome]:
    """Race peers beside "we"; who takes 0 s fails. Give who ran, in order."""
    order: list[str] = []

    def lap(each: Contender, *, sampled: bool) -> Run:
        order.append(each.name)
        if not walls[each.name]:
            raise Failed("broken")
        return Run(wall=walls[each.name], cpu=1.0, pss_bytes=MIB if sampled else None)

    who = [contender(name, is_peer=name != "we") for name in walls]
    return order, race(who, rounds, lap, lambda _: None)


def test_contenders_take_turns() -> None:
    """A B C, B C A, C A B: none is always the first."""
    order, _ = raced({"we": 1.0, "a": 2.0, "b": 3.0}, 3)
    assert order == ["we", "a", "b", "a", "b", "we", "b", "we", "a"]


def test_slow_peers_leave_early_and_we_do_not() -> None:
    """All run once, four peers twice, two to the end, and we in every round."""
    walls = {"we": 99.0} | {f"peer{n}": float(n) for n in range(1, 10)}
    order, found = raced(walls, 5)
    counts = {name: order.count(name) for name in walls}
    assert counts["we"] == 5
    assert [counts[f"peer{n}"] for n in range(1, 10)] == [5, 5, 2, 2, 1, 1, 1, 1, 1]
    assert found.peers[:3] == ["peer1", "peer2", "peer3"]


def test_memory_is_sampled_in_the_first_round_alone() -> None:
    """Looking at it costs time."""
    _, found = raced({"we": 1.0, "a": 2.0}, 3)
    assert [run.pss_bytes for run in found.runs["a"]] == [MIB, None, None]


def test_a_failure_ends_a_peers_race_with_its_reason() -> None:
    """Its earlier figures count for nothing; ours failing makes the whole inexact."""
    order, found = raced({"we": 1.0, "a": 0.0, "b": 2.0}, 3)
    assert order.count("a") == 1
    assert (found.failures, found.exact) == ({"a": "broken"}, True)
    assert "a" not in found.peers
    _, found = raced({"we": 0.0, "b": 2.0}, 2)
    assert not found.exact


def test_ratios_are_medians_over_the_best_peer() -> None:
    """The least median of any peer, ours left out."""
    found = outcome({"we": [1.0, 2.0, 9.0], "a": [4.0, 4.0], "b": [8.0]})
    assert found.best(wall) == ("a", 4.0)
    assert found.ratio("we", wall) == 0.5
    assert found.ratio("b", cpu) == 2.0
    assert found.ratio("nobody", wall) is None
    assert outcome({"we": [1.0]}).ratio("we", wall) is None


def test_times_until_it_is_safe_and_read() -> None:
    """Each is the run and what came after; what was not timed is not known."""
    run = Run(wall=2.0, cpu=1.0, sync=0.5, read=1.5)
    assert (wall(run), cpu(run), synced(run), loaded(run)) == (2.0, 1.0, 2.5, 3.5)
    run = Run(wall=2.0, cpu=1.0)
    assert (synced(run), loaded(run)) == (None, None)


def test_limits_are_compared_with_what_they_name() -> None:
    """The best peer, a named one, or the ideal time; without it there is no check."""
    limits = [
        Limit(contender="we", most=0.5),
        Limit(contender="we", most=0.5, over="b"),
        Limit(contender="we", most=1.25, over="ideal"),
        Limit(contender="we", most=1.0, over="gone"),
    ]
    scenario = Scenario(
        title="t", size=MIB, contenders=(), rounds=1, limits=limits, ideal=2.0
    )
    laid = section(scenario, outcome({"we": [3.0], "a": [4.0], "b": [6.0]}))
    assert [check.value for check in laid.checks] == [0.75, 0.5, 1.5]
    assert [check.kept for check in laid.checks] == [False, True, False]
    assert laid.checks[0].name == "we / best peer (a), wall"


def test_a_table_has_all_that_ran_and_all_that_failed() -> None:
    """Ours first, then peers by their time, then failures; every row is as long."""
    found = outcome({"we": [3.0], "a": [6.0], "b": [4.0]})
    found.failures["c"] = "crashed"
    scenario = Scenario(title="t", size=MIB, contenders=(), rounds=1)
    laid = section(scenario, found)
    assert [row[0] for row in laid.rows] == ["we", "b", "a", "c"]
    assert {len(row) for row in laid.rows} == {len(laid.header)}
    assert "crashed" in laid.markdown()


def test_a_bar_in_a_cell_is_no_column() -> None:
    """Reasons of failures are other programs' words."""
    assert table(("x",), [("a|b",)])[-1] == "| a\\|b |"
    assert table(("x",), []) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((1024 * MIB, 10 * MIB, 16), 6.4),
        ((512 * MIB, 10 * MIB, 4), 12.8),
        ((256 * MIB, 5 * MIB, 16, 0.1), 3.4),
    ],
)
def test_ideal_times(arguments: tuple[int, int, int], expected: float) -> None:
    """Every connection busy to the end, after handshake and request."""
    assert ideal_seconds(*arguments) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "expected"), [((), "segdl"), (("-x", "64"), "segdl -x 64")]
)
def test_segdl_as_a_contender(options: tuple[str, ...], expected: str) -> None:
    """It is named by its options, and told where to save."""
    ours = segdl(*options)
    assert ours.name == expected
    told = [*options, "-o", "c", "http://a/b"]
    assert list(ours.make(FETCH).command[-len(told) :]) == told
    assert ours.many is not None
    made = ours.many(Batch(base="http://a", names=["1", "2"], directory="/saved"))
    assert made.text == "http://a/1\nhttp://a/2\n"


def results(checks: Sequence[Check], mark: str = "today") -> Results:
    return Results(
        machine={"processors": "2"},
        flags={"a": ["-x: why"]},
        marks={"http": mark},
        sections={
            "http": Section(title="a | b", header=["x"], rows=[["1"]], checks=[*checks])
        },
    )


def test_results_are_kept_and_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was saved is what is loaded; later results replace earlier ones."""
    monkeypatch.setattr("bench._report.RESULTS", tmp_path)
    from bench._report import save

    saved = results([Check(name="we / a, wall", value=0.5, limit=0.6)])
    assert load(save(saved, None)) == saved
    merged = saved.with_later(results([], mark="tomorrow"))
    assert merged.marks == {"http": "tomorrow"}
    assert merged.sections["http"].checks == []


def test_the_document_says_which_limits_are_kept() -> None:
    """A row each, and the number of them."""
    text = limits_table(
        results(
            [
                Check(name="we / a, wall", value=0.5, limit=0.6),
                Check(name="memory", value=90.0, limit=80.0, unit="MiB"),
            ]
        )
    )
    assert text.startswith("1 of 2 are kept.")
    assert "| http | memory | 90 MiB | 80 MiB | **no** | today |" in text
    assert details(results([])).startswith("### a | b")


def test_the_plot_is_drawn(tmp_path: Path) -> None:
    """With what there is; curves that were not measured stay empty."""
    pytest.importorskip("matplotlib")
    drawn = results([Check(name="we / a, wall", value=0.5, limit=0.6)])
    points = {"1": {"cpu_seconds_a_gib": 1.0, "pss_bytes": 1.0}}
    drawn.sections["growth"] = Section(title="growth", data={"size": points})
    saved, path = tmp_path / "saved.json", tmp_path / "plot.png"
    saved.write_text(json.dumps(asdict(drawn)))
    # In a process of its own: matplotlib keeps its fonts open.
    code = (
        "import sys; from pathlib import Path; from bench._publish import draw; "
        "from bench._report import load; draw(load(Path(sys.argv[1])), sys.argv[2])"
    )
    command = [sys.executable, "-c", code, str(saved), str(path)]
    subprocess.run(command, cwd=ROOT, check=True)
    assert path.read_bytes().startswith(b"\x89PNG")
