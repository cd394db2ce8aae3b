"""Writing behind: whole blocks go to the disk on a thread, while the loop receives.

    loop ── submit(Block) ──> [at most DEPTH] ──> thread: pwrite
         <── on_done(Block) ── settle(), wait() ─────┘

A direct write of 1 MiB takes 0.7 ms, in which a loop that waits for it reads no socket:
4 GiB over TLS took 5.8 s so, and 4.5 s with the thread, as curl's 16 KiB calls and the
disk then work side by side. The thread touches nothing but the file; all else happens
on the loop's thread, which hears of a write when it asks. `DEPTH` bounds the memory,
and holds the loop back when the disk is slower than the network.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from segdl._fs import PartWriter, aligned_buffer
from segdl._threads import start_without_signals

BLOCK_BYTES = 1 << 20

# The loop waits for the disk so long before it looks at its commands again.
_WAIT_SECONDS = 0.05
_BEAT_SECONDS = 1.0

# Writes on their way at a time: one keeps the disk busy, the others bridge the moments
# in which the loop, or the disk, is slow.
DEPTH = 4


@dataclass(slots=True, eq=False)
class Block:
    """
    Bytes on their way to the file.

    Args:
        writer: The part file.
        buffer: Of `BLOCK_BYTES`; used again once this is done.
        offset: In the file, in bytes.
        length: How much of the buffer is written, in bytes.
        on_done: Called on the loop's thread, with the block.
        error: Why it could not be written, None when it is in the file.
    """

    writer: PartWriter
    buffer: memoryview
    offset: int
    length: int
    on_done: Callable[[Block], None]
    error: Exception | None = None

    def write(self) -> None:
        """Write it, and keep what goes wrong."""
        try:
            self.writer.pwrite(self.buffer[: self.length], self.offset)
            self.writer.start_writeback(self.offset, self.length)
        except Exception as error:
            self.error = error


class WriteBehind:
    """
    The thread that writes, and the buffers that go between it and the loop.

    Args:
        beat: Called every second while the loop waits.

    Attributes:
        congested: Whether `submit` has waited for long since the last `settle`.
    """

    def __init__(self, beat: Callable[[], None] = lambda: None) -> None:
        self._beat = beat
        self._free: list[memoryview] = []
        self._submitted: SimpleQueue[Block | None] = SimpleQueue()
        self._done: SimpleQueue[Block] = SimpleQueue()
        self.congested = False
        self._pending = 0
        self._waited_seconds = 0.0
        self._thread = threading.Thread(
            target=self._run, name="segdl-writer", daemon=True
        )
        start_without_signals(self._thread)

    def take_buffer(self) -> memoryview:
        """
        Give a buffer of `BLOCK_BYTES` that begins at a page border.

        Raises:
            StorageError: There is no memory for one.
        """
        # The one that was used last is the likeliest to be in the processor's cache.
        return self._free.pop() if self._free else aligned_buffer(BLOCK_BYTES)

    def give_buffer(self, buffer: memoryview) -> None:
        """Take a buffer back whose content nobody needs."""
        self._free.append(buffer)

    def submit(self, block: Block) -> None:
        """Have a block written, after those before; waits while `DEPTH` are pending."""
        if self._pending >= DEPTH:
            begin = time.monotonic()
            self.wait()
            self._waited_seconds += time.monotonic() - begin
            self.congested = self._waited_seconds > _WAIT_SECONDS
        self._pending += 1
        self._submitted.put(block)

    def settle(self) -> None:
        """Tell of the blocks that are done, without waiting."""
        self._waited_seconds, self.congested = 0.0, False
        while self._pending:
            try:
                block = self._done.get_nowait()
            except Empty:
                return
            self._settle(block)

    def wait(self) -> None:
        """Wait until a pending block is done, and tell of it."""
        while True:
            try:
                block = self._done.get(timeout=_BEAT_SECONDS)
            except Empty:
                self._beat()
            else:
                self._settle(block)
                return

    def close(self) -> None:
        """End the thread, after all blocks."""
        while self._pending:
            self.wait()
        self._submitted.put(None)
        self._thread.join()

    def _settle(self, block: Block) -> None:
        self._pending -= 1
        self._free.append(block.buffer)
        block.on_done(block)

    def _run(self) -> None:
        while (block := self._submitted.get()) is not None:
            block.write()
            self._done.put(block)
