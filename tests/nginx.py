"""A real nginx on a free port, for tests and benchmarks; standard library only.

    with Nginx(root) as nginx:                 root: the directory it serves
        fetch(f"{nginx.url}/file.bin")
        nginx.reload()                         new workers, old ones finish
        nginx.requests()                       what it was asked, from its access log

It runs in the foreground of its own directory, with one configuration file, and is
stopped by its process id; nothing of the system's nginx is touched.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

__all__ = ["Nginx", "NginxRequest", "find_nginx"]

_START_SECONDS = 10.0
_STOP_SECONDS = 10.0

_CONFIGURATION = """
daemon off;
master_process on;
worker_processes {workers};
pid {prefix}/nginx.pid;
error_log {prefix}/error.log warn;
{user}
{main}
events {{ worker_connections 512; }}
http {{
    log_format plain '$connection|$request_method|$uri|$http_range|$status|'
                     '$body_bytes_sent|$http_if_range|$http_authorization';
    access_log {access_log};
    client_body_temp_path {prefix}/body;
    proxy_temp_path {prefix}/proxy;
    fastcgi_temp_path {prefix}/fastcgi;
    uwsgi_temp_path {prefix}/uwsgi;
    scgi_temp_path {prefix}/scgi;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000;
    default_type application/octet-stream;
    {http}
    server {{
        listen 127.0.0.1:{port}{ssl} {listen};
        server_name localhost;
        {certificate}
        root {root};
        {server}
    }}
}}
"""


def find_nginx() -> str | None:
    """Find the nginx program; None where there is none."""
    # Debian keeps it in sbin, which is in few users' PATH.
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/sbin")


@dataclass(frozen=True)
class NginxRequest:
    """
    One line of the access log.

    Args:
        connection: Number of the connection.
        method: As received.
        path: Without the query.
        range: Value of the Range field, "" without one.
        status: Of the answer.
        sent_bytes: Body bytes sent.
        if_range: Value of the If-Range field, "" without one.
        authorization: Value of the Authorization field, "" without one.
    """

    connection: int
    method: str
    path: str
    range: str
    status: int
    sent_bytes: int
    if_range: str
    authorization: str


class Nginx:
    """
    An nginx that serves a directory on a port of 127.0.0.1.

    Args:
        root: The directory.
        port: 0 for a free one.
        workers: Worker processes.
        certificate: Certificate chain and private key, two PEM files: speaks TLS.
        main: Directives outside of all blocks, such as `worker_rlimit_nofile 64;`.
        http: Directives for the http block, such as `limit_conn_zone ...;`.
        server: Directives for the server block, such as `limit_rate 1m;`.
        listen: More parameters of `listen`, such as `http2`.
        access_log: Whether to keep a log of requests; a benchmark does without.

    Attributes:
        root: The directory, resolved.

    Raises:
        FileNotFoundError: There is no nginx program.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        port: int = 0,
        *,
        workers: int = 1,
        certificate: tuple[str, str] | None = None,
        main: str = "",
        http: str = "",
        server: str = "",
        listen: str = "",
        access_log: bool = True,
    ) -> None:
        program = find_nginx()
        if program is None:
            raise FileNotFoundError("there is no nginx program on this machine")
        self._program = program
        self.root = Path(root).resolve()
        self._workers = workers
        self._certificate = certificate
        self._main = main
        self._http = http
        self._server = server
        self._listen = listen
        self._access_log = access_log
        self._process: subprocess.Popen[bytes] | None = None
        self._prefix = ""
        self.port = port

    def __enter__(self) -> Nginx:
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
    def url(self) -> str:
        """The base URL, without a slash at the end."""
        scheme = "http" if self._certificate is None else "https"
        return f"{scheme}://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The master's process id, while it runs."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """
        Start it, and wait until it listens.

        Raises:
            RuntimeError: It ended at once, or does not listen; says why.
        """
        self._prefix = tempfile.mkdtemp(prefix="nginx-")
        self.port = self.port or _free_port()
        self.configure()
        with open(f"{self._prefix}/stderr.log", "wb") as stderr:
            self._process = subprocess.Popen(
                [self._program, "-p", self._prefix, "-c", f"{self._prefix}/nginx.conf"],
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                # Nothing of a test's environment, where secrets may be planted.
                env={"PATH": os.environ.get("PATH", os.defpath)},
                start_new_session=True,
            )
        try:
            self._wait_listening()
        except BaseException:
            self.stop()
            raise

    def configure(self, *, http: str | None = None, server: str | None = None) -> None:
        """
        Write the configuration; `reload` makes a running one take it.

        Args:
            http: Directives for the http block, None to keep them.
            server: Directives for the server block, None to keep them.
        """
        self._http = self._http if http is None else http
        self._server = self._server if server is None else server
        certificate = ""
        if self._certificate is not None:
            chain, key = self._certificate
            certificate = (
                f"ssl_certificate {chain}; ssl_certificate_key {key}; "
                "ssl_protocols TLSv1.2 TLSv1.3;"
            )
        log = f"{self._prefix}/access.log plain" if self._access_log else "off"
        # As root its workers would change to a user who can't read a private directory.
        user = "user root;" if os.geteuid() == 0 else ""
        text = _CONFIGURATION.format(
            workers=self._workers,
            prefix=self._prefix,
            user=user,
            access_log=log,
            main=self._main,
            listen=self._listen,
            http=self._http,
            port=self.port,
            ssl=" ssl" if certificate else "",
            certificate=certificate,
            root=self.root,
            server=self._server,
        )
        Path(self._prefix, "nginx.conf").write_text(text, encoding="utf-8")

    def reload(self) -> None:
        """Have it start new workers with the configuration; old ones finish."""
        os.kill(self.pid, signal.SIGHUP)

    def stop(self) -> None:
        """Stop it at once, and remove its directory; a second call does nothing."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._prefix:
            shutil.rmtree(self._prefix, ignore_errors=True)
            self._prefix = ""

    def requests(self) -> list[NginxRequest]:
        """Read what it was asked so far; an answer is logged when it is over."""
        path = Path(self._prefix, "access.log")
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        found = []
        for line in lines:
            connection, method, uri, wanted, status, sent, if_range, auth = line.split(
                "|", 7
            )
            found.append(
                NginxRequest(
                    connection=int(connection),
                    method=method,
                    path=uri,
                    range=_logged(wanted),
                    status=int(status),
                    sent_bytes=int(sent),
                    if_range=_logged(if_range),
                    authorization=_logged(auth),
                )
            )
        return found

    def errors(self) -> str:
        """Read its error log, and what it said before it had one."""
        names = ("stderr.log", "error.log")
        paths = [Path(self._prefix, name) for name in names]
        return "".join(path.read_text("utf-8") for path in paths if path.exists())

    def _wait_listening(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.01)
            else:
                return
        raise RuntimeError(f"nginx does not listen: {self.errors().strip()}")


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def _logged(value: str) -> str:
    """Undo nginx's dash for an empty value, and its escaping of quotes."""
    return "" if value == "-" else value.replace("\\x22", '"')
