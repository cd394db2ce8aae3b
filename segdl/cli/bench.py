"""`segdl bench`: measure throughput, print a table.

no URL ──> the embedded origin, throttled per connection ──┐
      └──> the same, unthrottled ──────────────────────────┼──> table on stdout,
URL ───────────────────────────────────────────────────────┘    --json, --plot
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from segdl import _fs, bench
from segdl._urls import redact, validate_url
from segdl.bench import Result, Variant
from segdl.cli.exit_codes import OK
from segdl.cli.units import bytes_text, rate_text
from segdl.config import EngineConfig, parse_rate
from segdl.errors import StorageError, UsageError

if TYPE_CHECKING:
    from types import FrameType

    from segdl.cli.console import Console

__all__ = ["add_arguments", "require_space", "run", "table"]

MIB = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `segdl bench`."""
    add = parser.add_argument
    add("url", nargs="?", metavar="URL", help="to fetch; none: the embedded origin")
    add("--demo", action="store_true", help="show one plain stream, then segdl, live")
    add("--connections", default="auto", metavar="N,...", help="to sweep over")
    add("--processes", default="auto", metavar="N,...", help="to sweep over")
    peers = "also every other downloader that is installed; some show the URL to ps"
    add("--peers", action="store_true", help=peers)
    add("--size", metavar="BYTES", help="of the origin's file; k, M, G (256M)")
    add("--rate", metavar="RATE", help="of each connection; k, M, G (32M)")
    add("--latency", type=float, default=0.0, metavar="SECONDS", help="of each answer")
    add("--repeat", type=int, default=3, metavar="N", help="runs of each (3)")
    add("--dir", metavar="DIR", help="where a temporary directory is made")
    add("--json", metavar="FILE", help="write every measurement to a file")
    add("--plot", metavar="FILE.png", help="draw the rates (needs matplotlib)")
    add("-q", "--quiet", action="store_true", help="no notes while it runs")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scenario:
    """An origin, and what was measured on it."""

    title: str
    facts: dict[str, Any]
    results: list[Result]
    missing: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What is measured, and where; `missing` says which peers are not installed."""

    args: argparse.Namespace
    console: Console
    directory: str
    variants: Sequence[Variant]
    missing: list[str]


def run(args: argparse.Namespace, console: Console) -> int:
    """Measure; give the exit code."""
    variants, missing = _variants(args)
    size = int(_number("--size", args.size, 1024 * MIB if args.demo else 256 * MIB))
    rate = _number("--rate", args.rate, 32 * MIB)
    if args.repeat < 1 or not 0 <= args.latency < 3600:
        raise UsageError("--repeat is 1 or more, --latency 0 seconds or more")
    if args.plot is not None:
        _require_matplotlib()
    if args.url is not None:
        validate_url(args.url)
    with _terminable(), _directory(args.dir) as directory:
        if args.demo:
            from segdl.cli.demo import run_demo

            _refuse_with_demo(args)
            return run_demo(console, directory, size, rate, args.latency)
        plan = _Plan(
            args=args,
            console=console,
            directory=directory,
            variants=variants,
            missing=missing,
        )
        if args.url is not None:
            scenarios = [_foreign(plan)]
        else:
            require_space(directory, size)
            expected = bench.blob_digest(size)
            scenarios = [_embedded(plan, size, each, expected) for each in (rate, None)]
    if args.json is not None:
        _write_json(args.json, scenarios)
    if args.plot is not None:
        _plot(args.plot, scenarios)
    return OK


def _variants(args: argparse.Namespace) -> tuple[list[Variant], list[str]]:
    """
    Make the plain stream, segdl for each combination of the two sweeps, and the peers.

    Also say which peers are not installed.
    """
    connections = _sweep("--connections", args.connections)
    processes = _sweep("--processes", args.processes)
    variants = [bench.plain_variant()]
    for c in connections:
        for p in processes:
            name = "segdl"
            name += "" if c == "auto" else f" -x {c}"
            name += "" if p == "auto" else f" --processes {p}"
            EngineConfig(connections=c, processes=p)  # refuses what is out of range
            variants.append(Variant(name=name, connections=c, processes=p))
    peers, missing = bench.peer_variants() if args.peers else ([], [])
    return [*variants, *peers], missing


def _sweep(option: str, text: str) -> list[int | Literal["auto"]]:
    values: list[int | Literal["auto"]] = []
    for word in text.split(","):
        if word.strip() == "auto":
            values.append("auto")
        elif word.strip().isdecimal():
            values.append(int(word))
        else:
            raise UsageError(f"{option}: {word!r} is no number; write 1,4,16 or auto")
    return list(dict.fromkeys(values))


def _number(option: str, text: str | None, default: float) -> float:
    if text is None:
        return default
    try:
        return parse_rate(text)
    except UsageError as exc:
        raise UsageError(
            f"{option}: {text[:40]!r} is none; write a number such as 500k, 64M or 1G"
        ) from exc


def _refuse_with_demo(args: argparse.Namespace) -> None:
    for name in ("url", "json", "plot", "peers"):
        if getattr(args, name):
            raise UsageError(f"--demo goes without {name.upper()}")


@contextmanager
def _directory(parent: str | None) -> Iterator[str]:
    """Make a directory for the files, and remove it with all that is in it."""
    try:
        temporary = tempfile.TemporaryDirectory(prefix="segdl-bench-", dir=parent)
    except OSError as exc:
        raise _fs.storage_error(exc, f"make a directory in {parent}") from exc
    with temporary as path:
        yield path


def require_space(path: str, needed_bytes: int) -> None:
    """Refuse to begin what would fill the disk; the error says what to change."""
    with _fs.Directory.open(path, create=False) as directory:
        try:
            _fs.check_space(directory, needed_bytes)
        except StorageError as exc:
            raise type(exc)(
                f"{exc}; --dir chooses another place, --size another size"
            ) from exc


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the program as Ctrl-C does: with a clean-up."""

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's
        raise SystemExit(128 + number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _embedded(plan: _Plan, size: int, rate: float | None, expected: str) -> _Scenario:
    """Measure against the embedded origin."""
    latency = plan.args.latency
    limit = "unthrottled" if rate is None else f"{rate_text(rate)} per connection"
    title = f"embedded origin, {limit}, {bytes_text(size)}"
    if latency:
        title += f", {latency:g} s latency"
    facts = {"origin": "embedded", "rate": rate, "latency": latency, "size": size}
    with bench.origin_process(rate=rate, latency=latency) as base:
        return _scenario(plan, bench.blob_url(base, size), title, facts, expected)


def _foreign(plan: _Plan) -> _Scenario:
    """Measure against somebody's server; the first file says what is right."""
    title = redact(plan.args.url)
    return _scenario(plan, plan.args.url, title, {"origin": title}, None)


def _scenario(
    plan: _Plan, url: str, title: str, facts: dict[str, Any], expected: str | None
) -> _Scenario:
    args, console = plan.args, plan.console

    def started(variant: Variant, number: int) -> None:
        if not args.quiet:
            console.note(f"{title}: {variant.name}, run {number} of {args.repeat}")

    results = bench.compare(
        url,
        plan.directory,
        plan.variants,
        repeat=args.repeat,
        expected=expected,
        started=started,
    )
    how = "one run each" if args.repeat == 1 else f"medians of {args.repeat} runs"
    console.result(f"{title}; {how}")
    for line in table(results):
        console.result(line)
    for each in plan.missing:
        console.result(f"  not installed: {each}")
    console.result("")
    return _Scenario(title=title, facts=facts, results=results, missing=plan.missing)


def table(results: Sequence[Result]) -> list[str]:
    """
    Lay results out as lines.

    Args:
        results: The first one is what the others are compared with.
    """
    width = max(len(result.variant.name) for result in results)
    base = results[0].seconds
    lines = [
        f"  {'':<{width}}  {'seconds':>8}  {'rate':>12}  {'CPU s':>6}  {'factor':>6}"
        "  sha256"
    ]
    lines += [
        f"  {result.variant.name:<{width}}  {result.seconds:>8.2f}"
        f"  {rate_text(result.bytes_per_second):>12}  {result.cpu_seconds:>6.2f}"
        f"  {base / max(result.seconds, 1e-9):>5.1f}x  same"
        if result.failure is None
        else f"  {result.variant.name:<{width}}  failed: {result.failure}"
        for result in results
    ]
    return lines


def _write_json(path: str, scenarios: Sequence[_Scenario]) -> None:
    import json
    import platform

    from segdl._version import __version__

    document = {
        "segdl": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "scenarios": [
            {
                **scenario.facts,
                "title": scenario.title,
                "missing": scenario.missing,
                "results": [
                    _figures(result, scenario.results[0]) for result in scenario.results
                ],
            }
            for scenario in scenarios
        ],
    }
    try:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=2)
            file.write("\n")
    except OSError as exc:
        raise _fs.storage_error(exc, f"write {path}") from exc


def _figures(result: Result, base: Result) -> dict[str, Any]:
    from dataclasses import asdict

    figures = {
        **asdict(result.variant),
        "failure": result.failure,
        "runs": [asdict(each) for each in result.runs],
    }
    if result.failure is not None:
        return figures
    return figures | {
        "seconds": result.seconds,
        "cpu_seconds": result.cpu_seconds,
        "bytes_per_second": result.bytes_per_second,
        "factor": base.seconds / result.seconds,
    }


def _require_matplotlib() -> None:
    """Say so before minutes of measuring when there is nothing to draw with."""
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise UsageError("--plot needs another package: pip install matplotlib")


def _plot(path: str, scenarios: Sequence[_Scenario]) -> None:
    from importlib import import_module

    matplotlib: Any = import_module("matplotlib")
    matplotlib.use("Agg")  # needs no display
    pyplot: Any = import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(
        len(scenarios), 1, figsize=(9, 3.2 * len(scenarios)), squeeze=False
    )
    for axis, scenario in zip(axes[:, 0], scenarios, strict=True):
        measured = [each for each in scenario.results if each.failure is None]
        names = [result.variant.name for result in measured]
        rates = [result.bytes_per_second / MIB for result in measured]
        axis.barh(names[::-1], rates[::-1])
        axis.set_title(scenario.title, fontsize=10)
        axis.set_xlabel("MiB/s")
    figure.tight_layout()
    try:
        figure.savefig(path)
    except OSError as exc:
        raise _fs.storage_error(exc, f"write {path}") from exc
