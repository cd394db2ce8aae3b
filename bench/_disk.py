"""A disk whose power can be cut: ext4 on a loop device, shut down without its log.

    Disk() ── image without a name ──> /dev/loopN (clears itself) ──> mounted
    cut()     EXT4_IOC_SHUTDOWN, no log flush: what is not on the disk never will be
    revive()  umount, mount again: ext4 replays its journal

Everything is made in a mount namespace of this process (`in_own_namespace`), the loop
device clears itself when it is closed, and the image has no name: whatever ends the
process, the kernel takes all of it away. Needs root, and Linux.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

from bench._processes import wait_until

# linux/loop.h, fs/ext4/ext4.h
_LOOP_SET_FD = 0x4C00
_LOOP_SET_STATUS64 = 0x4C04
_LOOP_CTL_GET_FREE = 0x4C82
_LO_FLAGS_AUTOCLEAR = 4
_STATUS_BYTES, _STATUS_FLAGS_AT = 232, 52
_EXT4_IOC_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_INSIDE = "SEGDL_BENCH_INSIDE"
_UMOUNT_SECONDS = 20.0


def what_is_missing() -> str | None:
    """Say why no disk can be made here; None where one can."""
    if not sys.platform.startswith("linux"):
        return "needs Linux"
    if os.geteuid() != 0:
        return "needs root"
    for program in ("mkfs.ext4", "mount", "umount", "unshare"):
        if shutil.which(program) is None:
            return f"needs {program}"
    try:
        os.close(_free_loop_device()[0])
    except OSError as error:
        return f"needs a loop device: {error}"
    return None


def in_own_namespace(module: str, arguments: Sequence[str]) -> None:
    """
    Go on in a mount namespace of one's own; returns once that is so.

    Args:
        module: What is run again in it, as `python -m` takes it.
        arguments: Its command line.
    """
    if os.environ.pop(_INSIDE, None):
        return
    os.execvpe(
        "unshare",
        [
            *("unshare", "--mount", "--propagation", "private"),
            *(sys.executable, "-m", module, *arguments),
        ],
        os.environ | {_INSIDE: "1"},
    )


class Disk:
    """
    A mounted file system, until it is closed.

    Args:
        size: Of the image, in bytes.
        parent: A directory for the image (which has no name) and the mount point.

    Attributes:
        mount: Where it is mounted.
    """

    def __init__(self, size: int, parent: Path) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="segdl-disk-", dir=parent))
        self.mount = self._directory / "mnt"
        self.mount.mkdir()
        self._boot = self._directory / "boot_id"
        self._mounted: list[str] = []
        self._loop = -1
        try:
            self._make(size)
        except BaseException:
            self.close()
            raise

    def cut(self) -> None:
        """Cut the power: from now on writes fail, and nothing reaches the disk."""
        fd = os.open(self.mount, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _EXT4_IOC_SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def revive(self, *, new_boot: bool) -> None:
        """
        Mount it again; what used it must have ended.

        Args:
            new_boot: Give this system another boot id, as a power cut does. Otherwise
                it looks as if only the disk had gone away.
        """
        self._unmount(str(self.mount))
        self._mount(self._device, str(self.mount))
        if new_boot:
            self._boot.write_text(f"{uuid.uuid4()}\n")

    def empty(self) -> None:
        """Remove all files."""
        for path in self.mount.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def close(self) -> None:
        """Unmount and remove all of it; a second call does nothing."""
        for point in reversed(self._mounted.copy()):
            self._unmount(point)
        if self._loop >= 0:
            os.close(self._loop)
            self._loop = -1
        shutil.rmtree(self._directory, ignore_errors=True)

    def _make(self, size: int) -> None:
        with tempfile.TemporaryFile(dir=self._directory) as image:
            image.truncate(size)
            self._loop, self._device = _attach(image.fileno())
        subprocess.run(["mkfs.ext4", "-qF", self._device], check=True)
        self._mount(self._device, str(self.mount))
        self._boot.write_text(f"{uuid.uuid4()}\n")
        # Below this process alone, as it is in a mount namespace of its own.
        self._mount("--bind", str(self._boot), _BOOT_ID)

    def _mount(self, *arguments: str) -> None:
        subprocess.run(["mount", *arguments], check=True)
        self._mounted.append(arguments[-1])

    def _unmount(self, point: str) -> None:
        def unmounted() -> bool:
            done = subprocess.run(
                ["umount", point], check=False, stderr=subprocess.DEVNULL
            )
            return done.returncode == 0

        # Busy for as long as a process that was killed is being taken apart.
        if not wait_until(unmounted, _UMOUNT_SECONDS):
            subprocess.run(["umount", "--lazy", point], check=True)
        self._mounted.remove(point)


def _free_loop_device() -> tuple[int, str]:
    control = os.open("/dev/loop-control", os.O_RDWR)
    try:
        path = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
    finally:
        os.close(control)
    if not stat.S_ISBLK(os.stat(path).st_mode):
        raise OSError(errno.ENOTBLK, "not a block device", path)
    return os.open(path, os.O_RDWR | os.O_CLOEXEC), path


def _attach(image: int) -> tuple[int, str]:
    """Give a loop device over a file; it lasts for as long as it is open or mounted."""
    for _ in range(50):
        fd, path = _free_loop_device()
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, fd)
            try:
                fcntl.ioctl(fd, _LOOP_SET_FD, image)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                continue  # somebody else got it first
            status = bytearray(_STATUS_BYTES)
            struct.pack_into("I", status, _STATUS_FLAGS_AT, _LO_FLAGS_AUTOCLEAR)
            fcntl.ioctl(fd, _LOOP_SET_STATUS64, bytes(status))
            undo.pop_all()
        return fd, path
    raise OSError(errno.EBUSY, "no free loop device")
