"""The stress run's share of every test run: some rounds of a seeded draw."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SECONDS = float(os.environ.get("SEGDL_STRESS_SECONDS", "100"))
SEED = os.environ.get("SEGDL_STRESS_SEED", "1")

# The round that is under way when the time is over is finished, and no wait of a round
# is longer than four minutes.
LAST_ROUND_SECONDS = 300.0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.timeout(SECONDS + LAST_ROUND_SECONDS + 30)
def test_nothing_breaks_in_random_rounds(tmp_path: Path) -> None:
    """Every file of every round is exact, every failure fits, nothing is left."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bench.stress", "--seed", SEED),
            *("--minutes", str(SECONDS / 60), "--dir", str(tmp_path)),
        ],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS + LAST_ROUND_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1].startswith("stress: ")
    assert list(tmp_path.iterdir()) == []
