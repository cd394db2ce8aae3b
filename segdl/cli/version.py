"""What `segdl --version` prints."""

from __future__ import annotations

import platform
from importlib import import_module

from segdl._version import __version__

__all__ = ["version_text"]


def version_text() -> str:
    """Give the versions of segdl, Python, libcurl, pycurl and TLS, a line each."""
    lines = [
        f"segdl {__version__}",
        f"Python {platform.python_version()} ({platform.python_implementation()}, "
        f"{platform.system()} {platform.machine()})",
    ]
    try:
        # By its name: requests are made in workers alone, and this asks no more than
        # a version, in a process that ends with it.
        pycurl = import_module("pycurl")
    except ImportError as exc:
        return "\n".join([*lines, f"pycurl is not usable: {exc}"])
    info = pycurl.version_info()
    own = pycurl.version.split()[0].rpartition("/")[2].strip('"')
    lines += [f"libcurl {info[1]}, pycurl {own}", f"TLS {info[5] or 'none'}"]
    return "\n".join(lines)
