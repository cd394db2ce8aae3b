"""The relay that makes a server far away: it is late, whole, and leaves nothing."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from bench.delay import WINDOW_BYTES, Relay, Way

_ROUND_TRIP = 0.05


def listening() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    listener.setblocking(False)
    return listener


@asynccontextmanager
async def relayed(answer: bytes) -> AsyncIterator[int]:
    """Run a server that answers 4 bytes, and a relay to it; give its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(4)
        writer.write(answer)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with listening() as listener:
        relay = asyncio.ensure_future(Relay(port, _ROUND_TRIP).serve(listener))
        try:
            yield listener.getsockname()[1]
        finally:
            relay.cancel()
            await asyncio.gather(relay, return_exceptions=True)
            server.close()
            await server.wait_closed()


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 30))


def test_what_comes_back_is_whole_and_late() -> None:
    """Handshake and request each take a round trip; no byte is lost or changed."""
    answer = os.urandom(3 << 20)

    async def fetch() -> None:
        async with relayed(answer) as port:
            loop = asyncio.get_running_loop()
            began = loop.time()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"give")
            assert await reader.readexactly(1) == answer[:1]
            assert loop.time() - began >= 2 * _ROUND_TRIP - 0.001
            assert await reader.read(-1) == answer[1:]
            writer.close()
            await writer.wait_closed()

    run(fetch())


def test_a_client_that_leaves_takes_its_connection_with_it() -> None:
    """The server is not kept sending to nobody; the relay takes the next one."""

    async def leave() -> None:
        async with relayed(bytes(4 << 20)) as port:
            for _ in range(2):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"give")
                await reader.readexactly(1)
                writer.transport.abort()

    run(leave())


def test_no_more_is_on_its_way_than_the_window() -> None:
    """It begins with ten segments, grows by what arrived, and has an end."""

    async def look() -> None:
        with socket.socket() as one, socket.socket() as other:
            way = Way(one, other, _ROUND_TRIP)
            assert way.room_bytes == 14600
            way.sent(10000)
            assert way.room_bytes == 4600
            way.acknowledge(10000)
            assert way.room_bytes == 24600
            for _ in range(10):
                way.sent(WINDOW_BYTES)
                way.acknowledge(WINDOW_BYTES)
            assert way.room_bytes == WINDOW_BYTES

    run(look())
