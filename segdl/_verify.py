"""Digests of a growing file, and pieces read back: the verifier's loop.

    Hash, Advance ──> one job a file: reads the finished prefix as it grows ──> Hashed
    Check         ──> reads recorded pieces, compares their xxh3           ──> Checked

A digest needs the bytes in order while lanes write everywhere, so it runs behind the
prefix that is finished, in a process of its own: when the last piece arrives, little
is left to hash. Jobs take turns, a slice each, and commands are looked for in between.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import xxhash

from segdl._digests import Hasher, new_hasher
from segdl._fs import PartReader
from segdl._messages import (
    Advance,
    Check,
    Checked,
    Drop,
    Hash,
    Hashed,
    Message,
    failure_to_json,
)
from segdl.errors import SegdlError, StorageError

SLICE_BYTES = 4 << 20
_READ_BYTES = 1 << 20


class _HashJob:
    """The digests of one file."""

    def __init__(self, order: Hash) -> None:
        self.job = order.job
        self.prefix = 0
        self.last = False
        self.position = 0
        self.hashers: dict[str, Hasher] = {
            algorithm: new_hasher(algorithm) for algorithm in order.algorithms
        }
        self.reader = PartReader(order.path)

    @property
    def ready(self) -> bool:
        return self.last or self.position < self.prefix

    def step(self, buffer: memoryview) -> Message | None:
        """Hash a slice; give the digests when the last byte is in them."""
        stop = min(self.prefix, self.position + SLICE_BYTES)
        while self.position < stop:
            wanted = min(len(buffer), stop - self.position)
            count = self.reader.pread(buffer[:wanted], self.position)
            for hasher in self.hashers.values():
                hasher.update(buffer[:count])
            self.position += count
        if not self.last or self.position < self.prefix:
            return None
        digests = {name: h.hexdigest() for name, h in self.hashers.items()}
        return Hashed(self.job, digests, None)


class _CheckJob:
    """Pieces to compare with their checksums."""

    ready = True

    def __init__(self, order: Check) -> None:
        self.job = order.job
        self.reader = PartReader(order.path)
        self.reader.forget_cached()
        self.left = deque(order.pieces)
        self.bad: list[tuple[int, int]] = []

    def step(self, buffer: memoryview) -> Message | None:
        """
        Check one piece; give the result after the last one.

        One that can't be read is not there: written again, it gets another sector.
        """
        if self.left:
            offset, length, expected = self.left.popleft()
            try:
                right = self._xxh3(buffer, offset, length) == expected
            except StorageError:
                right = False
            if not right:
                self.bad.append((offset, length))
        return None if self.left else Checked(self.job, self.bad, None)

    def _xxh3(self, buffer: memoryview, offset: int, length: int) -> str:
        hasher = xxhash.xxh3_64()
        end = offset + length
        while offset < end:
            wanted = min(len(buffer), end - offset)
            count = self.reader.pread(buffer[:wanted], offset)
            hasher.update(buffer[:count])
            offset += count
        return hasher.hexdigest()


class Verifier:
    """
    All files one verifier is reading.

    Args:
        emit: Called with each message for the parent.
    """

    def __init__(self, emit: Callable[[Message], None]) -> None:
        self._emit = emit
        self._hashes: dict[int, _HashJob] = {}
        self._checks: dict[int, _CheckJob] = {}
        self._buffer = memoryview(bytearray(_READ_BYTES))

    @property
    def busy(self) -> bool:
        """Whether there is something to read now."""
        return bool(self._checks) or any(job.ready for job in self._hashes.values())

    def handle(self, message: Message) -> None:
        """Take a command."""
        if isinstance(message, Hash):
            try:
                _close(self._hashes.pop(message.job, None))
                self._hashes[message.job] = _HashJob(message)
            except SegdlError as error:
                self._emit(Hashed(message.job, {}, failure_to_json(error)))
        elif isinstance(message, Advance) and message.job in self._hashes:
            job = self._hashes[message.job]
            job.prefix, job.last = message.prefix, message.last
        elif isinstance(message, Check):
            try:
                _close(self._checks.pop(message.job, None))
                self._checks[message.job] = _CheckJob(message)
            except SegdlError as error:
                self._emit(Checked(message.job, [], failure_to_json(error)))
        elif isinstance(message, Drop):
            self.drop(message.job)

    def turn(self) -> None:
        """Do a slice of every job that has something to read."""
        for number, check in list(self._checks.items()):
            if self._step(check):
                del self._checks[number]
        for number, job in list(self._hashes.items()):
            if job.ready and self._step(job):
                del self._hashes[number]

    def drop(self, number: int) -> None:
        """Forget a job."""
        _close(self._hashes.pop(number, None))
        _close(self._checks.pop(number, None))

    def close(self) -> None:
        """Forget all jobs."""
        for number in [*self._hashes, *self._checks]:
            self.drop(number)

    def _step(self, job: _HashJob | _CheckJob) -> bool:
        """Do one slice; True when the job is over."""
        try:
            result = job.step(self._buffer)
        except SegdlError as error:
            row = failure_to_json(error)
            if isinstance(job, _HashJob):
                result = Hashed(job.job, {}, row)
            else:
                result = Checked(job.job, [], row)
        if result is None:
            return False
        job.reader.close()
        self._emit(result)
        return True


def _close(job: _HashJob | _CheckJob | None) -> None:
    if job is not None:
        job.reader.close()
