"""What the figures were measured on, and with which programs."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

from bench._content import GIB, filesystem
from bench._processes import segdl_command
from bench._server import find_nginx
from segdl._peers import PEERS


def describe(directory: Path) -> dict[str, str]:
    """
    Say what this machine and the programs are.

    Args:
        directory: Where files are saved.
    """
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processors": f"{os.cpu_count()} ({_processor()})",
        "memory": f"{pages / GIB:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "file system": filesystem(directory),
        "load at the start": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "python": platform.python_version(),
        "segdl": _first_line(segdl_command("--version")),
        "nginx": _first_line([find_nginx() or "nginx", "-v"]),
        "openssl": _first_line(["openssl", "version"]),
        **{peer.name: peer.version() for peer in PEERS},
    }


def flags() -> dict[str, list[str]]:
    """Say what each peer is called with, and why."""
    return {peer.name: peer.lines() for peer in PEERS}


def _first_line(command: list[str]) -> str:
    if shutil.which(command[0]) is None:
        return "not installed"
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    lines = done.stdout.strip().splitlines()
    return lines[0] if done.returncode == 0 and lines else "unknown"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()
