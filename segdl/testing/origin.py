"""The origin: a listener, a thread for each connection, and what they share.

    listener thread ── accept ──> connection thread (one each, kept alive)
                                    head ─> log ─> latency ─> room? ─> plan ─> send
                                             │                  │
                                         RequestLog           Site: counts, faults that
                                                              happened, swaps

Threads and blocking sockets, since the faults are about bytes and moments on a wire,
and a thread that stalls stalls nobody else. `stop()` shuts every socket down, which
wakes all of them.
"""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import quote

from segdl.testing._respond import Responder
from segdl.testing._send import Cut, Pace, SharedBucket
from segdl.testing._site import Gate, Site
from segdl.testing._wire import Wire
from segdl.testing.content import Blob
from segdl.testing.faults import OPTION_NAMES, parse_options
from segdl.testing.log import RequestLog
from segdl.testing.tls import TlsFiles, server_context

if TYPE_CHECKING:
    import ssl

__all__ = ["Origin"]

_JOIN_SECONDS = 10.0


class Origin:
    """
    An HTTP/1.1 server of computed content that fails on request.

    `with Origin() as origin:` starts and stops it. Its URLs:

    | path | answer |
    |---|---|
    | `/b/SEED/SIZE[/NAME]` | a blob; see `segdl.testing.faults` for the query |
    | `/files/NAME` | a real file below `root` |
    | `/redirect?to=URL&status=302` | a redirect |
    | `/status/CODE?retry=X` | an error, with Retry-After |
    | `/login` | 200 and an HTML form, like a captive portal |

    `rate`, `total_rate`, `latency`, `max_connections` and `max_sockets` may be set
    while it runs.

    Args:
        host: Address to listen on.
        port: Port to listen on, 0 for a free one, which is kept over a restart.
        rate: Bytes per second of each connection, None for no limit.
        total_rate: Bytes per second of all connections together, None for no limit.
        latency: Seconds before each answer.
        max_connections: Requests served at the same time; more get 503. None for any.
        max_sockets: Connections that are open at the same time, idle ones too; more are
            refused, as by a port on which nothing listens. None for any.
        tls: Speak TLS with this certificate.
        root: Directory to serve below /files/.
        log: The request log, a new one when None.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        rate: float | None = None,
        total_rate: float | None = None,
        latency: float = 0.0,
        max_connections: int | None = None,
        max_sockets: int | None = None,
        tls: TlsFiles | None = None,
        root: Path | None = None,
        log: RequestLog | None = None,
    ) -> None:
        self.rate = rate
        self.total_rate = total_rate
        self.latency = latency
        self.max_connections = max_connections
        self.max_sockets = max_sockets
        self.root = root
        self.log = RequestLog() if log is None else log
        self.tls = tls
        self._host = host
        self._port = port
        self._context: ssl.SSLContext | None = None
        self._site = Site()
        self._gate = Gate()
        self._shared = SharedBucket()
        self._lock = threading.Lock()
        self._wires: dict[threading.Thread, Wire] = {}
        self._connections = 0
        self._stopping = threading.Event()
        self._listener: threading.Thread | None = None
        self._wake: socket.socket | None = None

    def __enter__(self) -> Origin:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The port, once started."""
        if self._port == 0:
            raise RuntimeError("the origin has no port before it is started")
        return self._port

    @property
    def url(self) -> str:
        """The base URL, without a slash at the end."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(  # noqa: S104 - compared, not bound
            self._host, self._host
        )
        scheme = "http" if self.tls is None else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def ca_file(self) -> str | None:
        """The certificate a client must trust, None without TLS."""
        return None if self.tls is None else self.tls.ca_file

    def blob(self, seed: int = 1, size: int = 1 << 20) -> Blob:
        """
        Give what `/b/SEED/SIZE` serves.

        Args:
            seed: Which content.
            size: Complete length in bytes.
        """
        return Blob(seed, size)

    def blob_url(
        self,
        seed: int = 1,
        size: int = 1 << 20,
        name: str | None = None,
        **params: str | float | list[str],
    ) -> str:
        """
        Give the URL of a blob.

        Args:
            seed: Which content.
            size: Complete length in bytes.
            name: Last segment of the path.
            params: Options as in `segdl.testing.faults`; `f` may be a list.

        Raises:
            ValueError: for an option or a fault there is not.
        """
        Blob(seed, size)
        unknown = sorted(set(params) - OPTION_NAMES)
        if unknown:
            raise ValueError(f"no such option: {', '.join(unknown)}")
        parts = [
            f"{key}={quote(str(value), safe='/:@,*=.')}"
            for key, values in params.items()
            for value in (values if isinstance(values, list) else [values])
        ]
        query = "&".join(parts)
        parse_options(query)
        path = f"/b/{seed}/{size}" + ("" if name is None else f"/{quote(name)}")
        return f"{self.url}{path}{'?' if query else ''}{query}"

    def file_url(self, name: str) -> str:
        """
        Give the URL of a file below `root`.

        Args:
            name: Its path relative to it, with slashes.
        """
        return f"{self.url}/files/{quote(name)}"

    def reset(self) -> None:
        """Clear the log, count requests from 1 again, forget faults and swaps."""
        self._site.reset()
        self.log.clear()

    def start(self) -> None:
        """
        Listen; with the port it had when it was started before.

        Raises:
            OSError: when the address cannot be listened on.
        """
        if self._listener is not None:
            raise RuntimeError("the origin runs already")
        if self.tls is not None:
            self._context = server_context(self.tls)
        server = self._bind()
        self._port = server.getsockname()[1]
        self._wake, woken = socket.socketpair()
        woken.setblocking(False)
        self._stopping = threading.Event()
        self._listener = threading.Thread(
            target=self._listen,
            args=(server, woken),
            name=f"segdl-origin-{self._port}",
            daemon=True,
        )
        self._listener.start()

    def stop(self) -> None:
        """
        Stop listening, cut every connection, and wait for all threads.

        Raises:
            RuntimeError: when a thread does not end, which is a bug.
        """
        listener, wake = self._listener, self._wake
        if listener is None or wake is None:
            return
        self._stopping.set()
        wake.close()
        listener.join(_JOIN_SECONDS)
        with self._lock:
            threads = list(self._wires)
            for wire in self._wires.values():
                wire.abort()
        for thread in threads:
            thread.join(_JOIN_SECONDS)
        self._listener = self._wake = None
        if listener.is_alive() or any(thread.is_alive() for thread in threads):
            raise RuntimeError("a thread of the origin does not end")

    def _bind(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        server = socket.create_server(
            (self._host, self._port), family=family, backlog=512
        )
        server.setblocking(False)
        return server

    def _listen(self, server: socket.socket, woken: socket.socket) -> None:
        with woken, selectors.DefaultSelector() as selector:
            selector.register(woken, selectors.EVENT_READ)
            selector.register(server, selectors.EVENT_READ)
            while not self._stopping.is_set():
                selector.select()
                with suppress(BlockingIOError):
                    woken.recv(4096)
                refusing = server.fileno() < 0
                if not refusing:
                    self._accept(server)
                if refusing is self._is_full():
                    continue
                if refusing:
                    # Its connections kept the port from being given to another.
                    server = self._bind()
                    selector.register(server, selectors.EVENT_READ)
                else:
                    selector.unregister(server)
                    server.close()
        server.close()

    def _accept(self, server: socket.socket) -> None:
        try:
            self._take(server.accept()[0])
        except BlockingIOError:
            pass  # woken, or the peer is gone again
        except OSError:
            self._stopping.wait(0.01)  # out of descriptors: no busy loop

    def _is_full(self) -> bool:
        with self._lock:
            return self.max_sockets is not None and len(self._wires) >= self.max_sockets

    def _take(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        wire = Wire(sock, self._context)
        self._connections += 1
        thread = threading.Thread(
            target=self._converse,
            args=(wire, self._connections),
            name=f"segdl-origin-{self._port}-{self._connections}",
            daemon=True,
        )
        with self._lock:
            self._wires[thread] = wire
        thread.start()

    def _converse(self, wire: Wire, number: int) -> None:
        """Serve a connection until either side ends it."""
        pace = Pace(lambda: (self.rate, self.total_rate), self._shared, self._stopping)
        responder = Responder(self, wire, number, pace, self._site, self._gate)
        try:
            # OSError: the peer went away, or sent no TLS. Cut: a fault, or stop().
            with suppress(OSError, Cut):
                wire.handshake()
                while (head := wire.read_head()) is not None:
                    if not responder.respond(head):
                        break
                wire.end_orderly()
            wire.linger()
        finally:
            # Under the lock, so that stop() never shuts a descriptor that was closed
            # and given to another file.
            with self._lock:
                del self._wires[threading.current_thread()]
                wire.close()
            if self.max_sockets is not None and self._wake is not None:
                with suppress(OSError):  # it stops
                    self._wake.send(b".")
