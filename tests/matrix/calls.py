"""
Count a program's system calls that change files, and disturb one of them.

    python calls.py --below DIR --log FILE [--at SPEC --do WHAT] -- COMMAND...

    COMMAND, its threads, its workers ── seccomp: RET_TRACE ──> this tracer
        openat(O_CREAT), write, pwrite64, fdatasync, rename, ...     │
                                                    below DIR? count, log; at the
                                                    one in SPEC: kill, fail, cut

strace injects the same faults, but counts for each thread by itself; a program whose
helper threads live for one call each has no k-th fdatasync then. Here one count goes
over all threads of all processes. Only the calls in question stop the program, so it
runs at nearly its own speed.

SPEC is "process:call:file:nth", such as "worker:pwrite64:part:3"; "*" for any of the
first three. Processes are "program" and "worker" and "verifier"; files are "part",
"manifest", "temporary", "directory", and "final" for everything else.

WHAT: "kill" ends the process before the call is made; an errno's name fails the call;
"short" has it write half; "lost" does not make it, and claims success.

The log has a line a call, in order: process call file nth what-was-done.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import os
import platform
import signal
import struct
import sys
from collections import Counter
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

# Linux, x86-64: asm/unistd_64.h; a call's name, and where its file is named.
_BY_DESCRIPTOR = {
    1: "write",
    18: "pwrite64",
    20: "writev",
    74: "fsync",
    75: "fdatasync",
    77: "ftruncate",
    91: "fchmod",
    190: "fsetxattr",
    199: "fremovexattr",
    285: "fallocate",
    296: "pwritev",
}
# Not counted, unless SPEC's call is "pread": they change nothing, and are many.
_READS = {17: "pread", 295: "pread", 327: "pread"}  # pread64, preadv, preadv2
_BY_NAME = {257: "openat", 258: "mkdirat", 263: "unlinkat", 264: "renameat"}
_BY_NAME |= {265: "linkat", 316: "renameat2"}
_BY_PATH = {2: "open", 82: "rename", 83: "mkdir", 86: "link", 87: "unlink"}
NAMES = _BY_DESCRIPTOR | _READS | _BY_NAME | _BY_PATH
WRITES = frozenset({"write", "pwrite64"})
_OPENS = {257: 2, 2: 1}  # which argument holds the flags

_O_CREAT = 0o100
_AT_FDCWD = -100
_WALL = 0x40000000
_PATH_BYTES = 4096

# linux/ptrace.h
_CONT, _GETREGS, _SETREGS, _SEIZE, _LISTEN = 7, 12, 13, 0x4206, 0x4208
_OPTIONS = 0x02 | 0x04 | 0x08 | 0x10 | 0x80 | 0x100000
_EVENT_SECCOMP, _EVENT_STOP = 7, 128
_STOPS = {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}

# struct user_regs_struct, asm/user_64.h, as indexes of 8-byte words.
_RAX, _ORIG_RAX, _COUNT = 10, 15, 12
_ARGUMENTS = (14, 13, 12, 7, 9, 8)
_REGISTERS = ctypes.c_ulonglong * 27

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def why_not() -> str:
    """Say why calls can't be traced here; empty when they can."""
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64":
        return "only Linux on x86-64 has its system calls traced"
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    if scope.exists() and scope.read_text().strip() == "3":
        return "the kernel allows no tracing (yama ptrace_scope)"
    return ""


@dataclass(frozen=True)
class Spec:
    """Which call to disturb; the fields as in the module's docstring."""

    process: str
    call: str
    file: str
    nth: int

    @classmethod
    def parse(cls, text: str) -> Spec:
        """Read "process:call:file:nth"."""
        process, call, file, nth = text.split(":")
        return cls(process, call, file, int(nth))

    def admits(self, process: str, call: str, file: str) -> bool:
        """Tell whether a call is one of those counted for it."""
        pairs = ((self.process, process), (self.call, call), (self.file, file))
        return all(wanted in ("*", found) for wanted, found in pairs)


class Tracer:
    """
    The tracer of one program.

    Args:
        below: Only what is in this directory counts, itself included.
        log: Where each call is noted.
        spec: Which call to disturb, None for none.
        what: How.
    """

    def __init__(self, below: str, log: str, spec: Spec | None, what: str) -> None:
        self._below = os.path.realpath(below)
        self._log = open(log, "w", encoding="utf-8")  # noqa: SIM115 - for life
        self._spec = spec
        self._what = what
        self._nth: Counter[tuple[str, str, str]] = Counter()
        self._matching = 0
        self._root = 0
        self._processes: dict[int, str] = {}

    def run(self, command: list[str]) -> int:
        """Run a program to the end of all its processes; give its exit code."""
        self._root = os.fork()
        if self._root == 0:
            _become(
                command, reads=self._spec is not None and self._spec.call == "pread"
            )
        os.waitpid(self._root, os.WUNTRACED)
        _ptrace(_SEIZE, self._root, 0, _OPTIONS)
        os.kill(self._root, signal.SIGCONT)
        code = 0
        while True:
            try:
                tid, status = os.waitpid(-1, _WALL)
            except ChildProcessError:
                return code
            if not os.WIFSTOPPED(status):
                if tid == self._root:
                    code = os.waitstatus_to_exitcode(status)
                continue
            # Killed meanwhile: its end is reported next.
            with contextlib.suppress(ProcessLookupError):
                self._stopped(tid, os.WSTOPSIG(status), status >> 16)

    def _stopped(self, tid: int, number: int, event: int) -> None:
        if event == _EVENT_SECCOMP:
            self._call(tid)
        elif event == _EVENT_STOP and number in _STOPS:
            _ptrace(_LISTEN, tid, 0, 0)
            return
        _ptrace(_CONT, tid, 0, 0 if event else number)

    def _call(self, tid: int) -> None:
        registers = _REGISTERS()
        _ptrace(_GETREGS, tid, 0, ctypes.addressof(registers))
        number = registers[_ORIG_RAX]
        path = self._path(tid, number, [registers[index] for index in _ARGUMENTS])
        if path != self._below and not path.startswith(self._below + "/"):
            return
        key = (self._process(tid), NAMES[number], self._file(path))
        self._nth[key] += 1
        done = ""
        if self._spec is not None and self._spec.admits(*key):
            self._matching += 1
            if self._matching == self._spec.nth:
                done = self._what
        self._log.write(" ".join([*key, str(self._nth[key]), done]).strip() + "\n")
        self._log.flush()
        if done == "kill":
            # One that is to die does not make the call (kernel/seccomp.c).
            os.kill(_group_of(tid), signal.SIGKILL)
        elif done == "short":
            registers[_COUNT] = max(1, registers[_COUNT] // 2)
            _ptrace(_SETREGS, tid, 0, ctypes.addressof(registers))
        elif done:
            result = -getattr(errno, done, 0)
            if done == "lost" and key[1] in WRITES:
                result = registers[_COUNT]
            registers[_ORIG_RAX] = 2**64 - 1
            registers[_RAX] = result % 2**64
            _ptrace(_SETREGS, tid, 0, ctypes.addressof(registers))

    def _path(self, tid: int, number: int, arguments: list[int]) -> str:
        """Give the path a call is about; the new one, of a rename."""
        if number in _BY_DESCRIPTOR or number in _READS:
            return _descriptor(tid, arguments[0])
        at = arguments[0]
        first = 0 if number in _BY_PATH else 1
        if NAMES[number] in ("renameat", "renameat2", "linkat"):
            at, first = arguments[2], 3
        elif NAMES[number] in ("rename", "link"):
            first = 1
        name = _text(tid, arguments[first])
        if name.startswith("/"):
            return os.path.normpath(name)
        if number in _BY_PATH or ctypes.c_int(at).value == _AT_FDCWD:
            base = os.readlink(f"/proc/{tid}/cwd")
        else:
            base = _descriptor(tid, at)
        return os.path.normpath(os.path.join(base, name))

    def _file(self, path: str) -> str:
        if path == self._below:
            return "directory"
        name = os.path.basename(path)
        suffixes = {".part": "part", ".segdl": "manifest", ".tmp": "temporary"}
        return suffixes.get(os.path.splitext(name)[1], "final")

    def _process(self, tid: int) -> str:
        group = _group_of(tid)
        if group == self._root:
            return "program"
        if group not in self._processes:
            words = Path(f"/proc/{group}/cmdline").read_bytes().split(b"\0")
            if b"verify" in words:
                self._processes[group] = "verifier"
            elif b"transfer" in words:
                self._processes[group] = "worker"
            else:
                return "other"  # forked, and not yet what it is to be
        return self._processes[group]


def _ptrace(request: int, tid: int, address: int, data: int) -> None:
    if _libc.ptrace(request, tid, address, data) < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"ptrace({request:#x}): {os.strerror(code)}")


def _become(command: list[str], *, reads: bool) -> None:
    """Wait to be seized, ask for the calls to be traced, and run the program."""
    try:
        os.kill(os.getpid(), signal.SIGSTOP)
        _libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS, else it takes root
        program = _filter(set(NAMES) if reads else NAMES.keys() - _READS.keys())
        address = ctypes.create_string_buffer(program, len(program))
        header = ctypes.create_string_buffer(
            struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(address))
        )
        # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
        if _libc.prctl(22, 2, ctypes.c_void_p(ctypes.addressof(header)), 0, 0) < 0:
            raise OSError(ctypes.get_errno(), "no seccomp filter")
        os.execvp(command[0], command)
    except BaseException as error:
        os.write(2, f"{error!r}\n".encode())
    os._exit(127)


def _filter(traced: Set[int]) -> bytes:
    """Compile the filter: linux/filter.h, struct seccomp_data."""
    allow, trace = 0x7FFF0000, 0x7FF00000

    def word(code: int, yes: int, no: int, k: int) -> bytes:
        return struct.pack("HBBI", code, yes, no, k)

    load, equal, has, give = 0x20, 0x15, 0x45, 0x06
    lines = [word(load, 0, 0, 0)]
    for number in sorted(traced):
        if number in _OPENS:
            # Of files that are opened only those that may be made.
            lines += [
                word(equal, 0, 4, number),
                word(load, 0, 0, 16 + 8 * _OPENS[number]),
                word(has, 0, 1, _O_CREAT),
                word(give, 0, 0, trace),
                word(give, 0, 0, allow),
            ]
        else:
            lines += [word(equal, 0, 1, number), word(give, 0, 0, trace)]
    return b"".join([*lines, word(give, 0, 0, allow)])


def _descriptor(tid: int, fd: int) -> str:
    """Give what a descriptor is open on; empty when it is none."""
    try:
        return os.readlink(f"/proc/{tid}/fd/{ctypes.c_int(fd).value}")
    except OSError:
        return ""


def _text(tid: int, address: int) -> str:
    with open(f"/proc/{tid}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        try:
            data = memory.read(_PATH_BYTES)
        except OSError:  # the end of the mapping is nearer
            memory.seek(address)
            data = memory.read(_PATH_BYTES - address % _PATH_BYTES)
    return os.fsdecode(data.partition(b"\0")[0])


def _group_of(tid: int) -> int:
    """Give the process a thread belongs to."""
    for line in Path(f"/proc/{tid}/status").read_text().splitlines():
        if line.startswith("Tgid:"):
            return int(line.split()[1])
    raise ProcessLookupError(errno.ESRCH, "no such thread")


def main() -> int:
    """Run with the command line's arguments."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--below", required=True)
    parser.add_argument("--log", required=True)
    parser.add_argument("--at", type=Spec.parse)
    parser.add_argument("--do", default="kill")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    code = Tracer(args.below, args.log, args.at, args.do).run(args.command)
    if code < 0:  # end as the program did
        signal.signal(-code, signal.SIG_DFL) if code not in (-9, -19) else None
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    sys.exit(main())
