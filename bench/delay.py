"""`python -m bench.delay PORT`: a relay on loopback that makes a server far away.

    client <── half a round trip ── [ window ] <── server     each direction by itself
                                        ^
        bytes on their way, at most; grows by what has arrived, as a TCP sender's does

Loopback has no distance, and Linux's netem needs a module that many kernels lack. A
connection costs what a real one does: its handshake a round trip, its first bytes the
slow start (RFC 6928: 10 segments, doubled with each round trip), and later at most
WINDOW_BYTES a round trip, which is what Linux lets a socket receive by default
(tcp_rmem). There is no loss and no limit of its own. It prints its port, and ends with
SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from urllib.parse import urlsplit, urlunsplit

from bench._course import Course
from bench._processes import ROOT, environment, running

WINDOW_BYTES = 6 << 20
_FIRST_WINDOW_BYTES = 10 * 1460
_CHUNK_BYTES = 256 << 10


@contextlib.contextmanager
def far(course: Course, round_trip: float) -> Iterator[Course]:
    """
    Move a course's server away for the time of a with block.

    Args:
        course: The near one.
        round_trip: In seconds.
    """
    parts = urlsplit(course.url)
    command = [sys.executable, "-m", "bench.delay", str(parts.port)]
    with running(
        [*command, "--round-trip", str(round_trip)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        moved = parts._replace(netloc=f"{parts.hostname}:{port}")
        yield replace(course, url=urlunsplit(moved))


class Relay:
    """
    Passes connections on, later.

    Args:
        port: Of the server, on loopback.
        round_trip: In seconds.
    """

    def __init__(self, port: int, round_trip: float) -> None:
        self._port = port
        self._round_trip = round_trip
        self._connections: set[asyncio.Task[None]] = set()

    async def serve(self, listener: socket.socket) -> None:
        """
        Accept connections until it is cancelled; closes what is open then.

        Args:
            listener: It listens, and does not block.
        """
        loop = asyncio.get_running_loop()
        try:
            while True:
                client, _ = await loop.sock_accept(listener)
                task = asyncio.ensure_future(self._pass_on(client))
                self._connections.add(task)
                task.add_done_callback(self._connections.discard)
        finally:
            for task in self._connections:
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    async def _pass_on(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with client, socket.socket() as server:
            for each in (client, server):
                each.setblocking(False)
            # The kernel has answered the client's handshake already, so what it took
            # over the distance is waited for here.
            await asyncio.sleep(self._round_trip)
            with contextlib.suppress(OSError):
                await loop.sock_connect(server, ("127.0.0.1", self._port))
                for each in (client, server):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                ways = [
                    asyncio.ensure_future(Way(one, other, self._round_trip).run())
                    for one, other in ((client, server), (server, client))
                ]
                try:
                    await asyncio.gather(*ways)
                finally:
                    for way in ways:
                        way.cancel()


class Way:
    """
    One direction of a connection.

    Args:
        source: Where bytes come from.
        target: Where they go.
        round_trip: In seconds.
    """

    def __init__(
        self, source: socket.socket, target: socket.socket, round_trip: float
    ) -> None:
        self._source = source
        self._target = target
        self._one_way = round_trip / 2
        self._window = _FIRST_WINDOW_BYTES
        self._on_their_way = 0
        # When they are due, and which; no bytes are the end.
        self._queue: deque[tuple[float, bytes]] = deque()
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Pass on until the source ends; OSError when either side breaks."""
        reader = asyncio.ensure_future(self._read())
        try:
            await self._write()
            await reader
        finally:
            reader.cancel()

    @property
    def room_bytes(self) -> int:
        """How many more may be on their way now."""
        return self._window - self._on_their_way

    def sent(self, count: int) -> None:
        """Take note of bytes that are on their way."""
        self._on_their_way += count

    def acknowledge(self, count: int) -> None:
        """Take note of bytes that have arrived, as the sender hears of them."""
        self._on_their_way -= count
        self._window = min(self._window + count, WINDOW_BYTES)
        self._changed.set()

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        data = b"-"
        while data:
            while self.room_bytes <= 0:
                await self._change()
            try:
                count = min(self.room_bytes, _CHUNK_BYTES)
                data = await loop.sock_recv(self._source, count)
            except OSError:
                data = b""
            self.sent(len(data))
            self._queue.append((loop.time() + self._one_way, data))
            self._changed.set()

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while not self._queue:
                await self._change()
            due, data = self._queue.popleft()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not data:
                self._target.shutdown(socket.SHUT_WR)
                return
            await loop.sock_sendall(self._target, data)
            loop.call_later(self._one_way, self.acknowledge, len(data))

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


async def _main(port: int, round_trip: float) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(256)
        listener.setblocking(False)
        print(listener.getsockname()[1], flush=True)
        task = asyncio.ensure_future(Relay(port, round_trip).serve(listener))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run a relay.

    Args:
        argv: The arguments, None for those of the process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m bench.delay")
    parser.add_argument("port", type=int, help="of the server on loopback")
    parser.add_argument("--round-trip", type=float, default=0.1, metavar="SECONDS")
    args = parser.parse_args(argv)
    asyncio.run(_main(args.port, args.round_trip))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
