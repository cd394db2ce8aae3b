"""The pytest plugin, as another project's tests would use it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

TESTS = """
import http.client, ssl, threading, urllib.request


def test_origin_runs_and_its_log_is_empty(segdl_origin):
    assert segdl_origin.log.entries == ()
    with urllib.request.urlopen(segdl_origin.blob_url(1, 50)) as reply:
        assert reply.read() == segdl_origin.blob(1, 50).read()


def test_each_test_has_its_own(segdl_origin):
    assert segdl_origin.log.entries == ()


def test_factory_starts_several(segdl_origin_factory):
    first, second = segdl_origin_factory(), segdl_origin_factory(rate=1e6)
    assert first.port != second.port
    assert second.rate == 1e6


def test_all_are_stopped():
    assert threading.active_count() == 1


def test_tls(segdl_origin_tls):
    context = ssl.create_default_context(cafile=segdl_origin_tls.ca_file)
    url = segdl_origin_tls.blob_url(1, 3_000_000)
    assert url.startswith("https://127.0.0.1:")
    with urllib.request.urlopen(url, context=context) as reply:
        assert reply.read() == segdl_origin_tls.blob(1, 3_000_000).read()
"""


def run_pytest(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (directory / "test_other.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "segdl.testing.pytest_plugin"]
    # Autoloading is off, for the plugin may be installed or not.
    environment = os.environ | {
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.run(
        [
            *command,
            "-W",
            "error",
            "-p",
            "no:cacheprovider",
            "-rs",
            "--basetemp",
            "base",
            *arguments,
        ],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_fixtures_work_in_another_project(tmp_path):
    """Origins start fresh for each test, with TLS too, and leave no thread."""
    run = run_pytest(tmp_path)
    assert run.returncode == 0, run.stdout
    assert "5 passed" in run.stdout


def test_tls_is_skipped_with_the_reason_without_trustme(tmp_path):
    """trustme is wanted, not needed."""
    # A module of None in sys.modules cannot be imported.
    (tmp_path / "conftest.py").write_text("import sys\nsys.modules['trustme'] = None\n")
    run = run_pytest(tmp_path, "-k", "tls")
    assert "1 skipped" in run.stdout
    assert "trustme is not installed" in run.stdout


@pytest.mark.parametrize(
    "module", ["pycurl", "psutil", "ssl", "segdl.testing.log", "segdl.testing.origin"]
)
def test_plugin_loads_nothing_until_a_fixture_is_used(module):
    """Every pytest run imports the plugin; none should pay for it."""
    code = (
        "import sys, pytest; before = set(sys.modules)\n"
        "import segdl.testing.pytest_plugin\n"
        f"print({module!r} in set(sys.modules) - before)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert (run.stdout, run.stderr) == ("False\n", "")
