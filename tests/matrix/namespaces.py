"""Networks of a test's own, to break without harm; Linux, as root.

    Namespace ── held by descriptors, without a name: gone when they are closed
        call(f)   f on a thread inside; the threads and programs it starts stay inside
        run(...)  a program inside

    wired(etc)   client ──v0════v0── server       10.9.9.1, fd09::1    10.9.9.2, fd09::2
                   │
                 /etc/hosts, resolv.conf and nsswitch.conf of its own

A thread can be in another network than its process (setns(2)), so that engine, origin
and test are one process, and what the matrix checks is checked as everywhere.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

CLIENT, SERVER = "10.9.9.1", "10.9.9.2"
CLIENT6, SERVER6 = "fd09::1", "fd09::2"
# The client's address in another network, and that network.
MOVED, ELSEWHERE = "10.9.8.1", "10.9.8.0/24"

# sched.h; Python has names for them from 3.12 on.
_CLONE_FS, _CLONE_NEWNS, _CLONE_NEWNET = 0x200, 0x20000, 0x40000000
_PROGRAMS = ("ip", "tc", "ss", "mount")
_PROGRAM_SECONDS = 20.0
# What tests shape a network with; netem is rarely there.
_DISCIPLINES = ("htb default 10", "tbf rate 50mbit burst 16k limit 16k")

T = TypeVar("T")


@functools.cache
def missing() -> str:
    """Say why no network can be made here; "" when one can."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program in _PROGRAMS:
        if shutil.which(program) is None:
            return f"there is no {program} program (iproute2)"
    try:
        with wired({}) as network:
            for discipline in _DISCIPLINES:
                network.server.run(f"tc qdisc replace dev v0 root {discipline}")
        return ""
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no network namespace can be made: {error}"


class Namespace:
    """
    A network, and a view of the files, of its own.

    Args:
        etc: Files to see in place of those of /etc, by name.

    Raises:
        OSError: The system does not let us.
        subprocess.CalledProcessError: A program that sets it up fails.
    """

    def __init__(self, etc: Mapping[str, Path]) -> None:
        self._net = self._files = -1
        try:
            _on_a_thread(lambda: self._make(etc))
        except BaseException:
            self.close()
            raise

    def call(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """
        Call a function on a new thread inside, and wait for it.

        Threads and processes that it starts are inside too, and stay there.

        Raises:
            BaseException: What the function raises.
        """

        def inside() -> T:
            # A thread that shares its current directory can't change its files.
            _check(_libc().unshare(_CLONE_FS))
            _check(_libc().setns(self._files, _CLONE_NEWNS))
            _check(_libc().setns(self._net, _CLONE_NEWNET))
            return function(*args, **options)

        return _on_a_thread(inside)

    def run(self, line: str) -> str:
        """
        Run a program inside, and give what it writes.

        Args:
            line: Its words, separated by spaces.

        Raises:
            subprocess.CalledProcessError: It fails.
        """
        return self.call(_run, *line.split())

    @property
    def path(self) -> str:
        """A path by which `ip` finds the network, as long as it is open."""
        return f"/proc/{os.getpid()}/fd/{self._net}"

    def close(self) -> None:
        """Let it go; it ends when nothing is inside any more."""
        for fd in (self._net, self._files):
            if fd >= 0:
                os.close(fd)
        self._net = self._files = -1

    def _make(self, etc: Mapping[str, Path]) -> None:
        _check(_libc().unshare(_CLONE_NEWNET | _CLONE_NEWNS))
        _run("mount", "--make-rprivate", "/")
        for name, path in etc.items():
            _run("mount", "--bind", path, f"/etc/{name}")
        _run("ip", "link", "set", "lo", "up")
        self._net = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._files = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)


@dataclass(frozen=True)
class Network:
    """Two networks and the wire between them; both ends of it are called v0."""

    client: Namespace
    server: Namespace

    def leave(self) -> None:
        """Take the client's IPv4 address away; nobody tells its connections."""
        self.client.run(f"ip address del {CLIENT}/24 dev v0")

    def join(self) -> None:
        """Give the client an address in another network, and a way to the server."""
        self.client.run(f"ip address add {MOVED}/24 dev v0")
        # The metric: as long as the client has not left, the old way counts.
        self.client.run(f"ip route add 10.9.9.0/24 dev v0 src {MOVED} metric 9")

    def clients(self) -> set[str]:
        """Tell from which addresses there are connections to the server."""
        lines = self.server.run("ss -Htn state established").splitlines()
        return {line.split()[-1].rpartition(":")[0] for line in lines}


@contextmanager
def wired(etc: Mapping[str, Path]) -> Iterator[Network]:
    """
    Make a network, for the time of a with block.

    Args:
        etc: Files the client sees in place of those of /etc, by name.
    """
    with closing(Namespace(etc)) as client, closing(Namespace({})) as server:
        client.run(f"ip link add v0 type veth peer name v0 netns {server.path}")
        for side, addresses in (
            (client, (f"{CLIENT}/24", f"{CLIENT6}/64")),
            (server, (f"{SERVER}/24", f"{SERVER6}/64")),
        ):
            for address in addresses:
                # Without nodad an IPv6 address may not be used for a second.
                nodad = " nodad" if ":" in address else ""
                side.run(f"ip address add {address} dev v0{nodad}")
            side.run("ip link set v0 up")
        server.run(f"ip route add {ELSEWHERE} dev v0")
        yield Network(client, server)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _run(*words: str | Path) -> str:
    ended = subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=False,
        timeout=_PROGRAM_SECONDS,
        env={"PATH": os.environ["PATH"]},  # no secret, which proxies have
    )
    if ended.returncode:
        print(f"{words}: {ended.stderr}")  # pytest shows it with the failure
    ended.check_returncode()
    return ended.stdout


def _on_a_thread(function: Callable[[], T]) -> T:
    """Call on a thread that ends with the call, and with it what it entered."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
