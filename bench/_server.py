"""A real nginx on a free port of loopback: for benchmarks, long runs and tests.

    with Nginx(root) as nginx:                 root: the directory it serves
        fetch(f"{nginx.url}/file.bin")
        nginx.reload()                         new workers, old ones finish
    nginx.requests()                           what it was asked, from its access log

It runs in the foreground of a directory of its own, with one configuration file, and is
stopped by its process id; nothing of the system's nginx is touched.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench._processes import running, wait_until
from segdl.testing import TlsFiles

_START_SECONDS = 10.0
_START_TRIES = 3

_CONFIGURATION = """
daemon off;
master_process on;
worker_processes {workers};
pid {prefix}/nginx.pid;
error_log {prefix}/error.log warn;
{user}
{main}
events {{ worker_connections 1024; }}
http {{
    log_format fields escape=json '{fields}';
    access_log {access_log};
    client_body_temp_path {prefix}/body;
    proxy_temp_path {prefix}/proxy;
    fastcgi_temp_path {prefix}/fastcgi;
    uwsgi_temp_path {prefix}/uwsgi;
    scgi_temp_path {prefix}/scgi;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
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

# Fields of a NginxRequest, and nginx's names of them.
_FIELDS = {
    "connection": "$connection",
    "method": "$request_method",
    "path": "$uri",
    "range": "$http_range",
    "status": "$status",
    "sent_bytes": "$body_bytes_sent",
    "content_range": "$sent_http_content_range",
    "if_range": "$http_if_range",
    "authorization": "$http_authorization",
    "run": "$http_x_run",
}


class NotInstalled(Exception):
    """A program that is needed is missing; the message names it."""


def make_certificate(directory: Path) -> TlsFiles:
    """
    Make a self-signed certificate for 127.0.0.1 and localhost.

    It is on the curve P-256, and valid for a week.

    Args:
        directory: Where the two files go.

    Raises:
        NotInstalled: There is no openssl.
        RuntimeError: It failed.
    """
    certificate, key = str(directory / "cert.pem"), str(directory / "key.pem")
    if shutil.which("openssl") is None:
        raise NotInstalled("openssl is not installed; it makes the certificate")
    command = [
        *("openssl", "req", "-x509", "-newkey", "ec"),
        *("-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "7"),
        *("-subj", "/CN=localhost"),
        *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        *("-keyout", key, "-out", certificate),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"openssl made no certificate: {done.stderr.strip()}")
    return TlsFiles(cert_file=certificate, key_file=key, ca_file=certificate)


def find_nginx() -> str | None:
    """Find the nginx program; None where there is none."""
    # Debian keeps it in sbin, which is in few users' PATH.
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


@dataclass(frozen=True, slots=True, kw_only=True)
class NginxRequest:
    """
    One line of the access log; a field that was not sent is "".

    Args:
        connection: Number of the connection.
        method: As received.
        path: Without the query.
        range: Value of the Range field.
        status: Of the answer.
        sent_bytes: Body bytes sent.
        content_range: Value of the answer's Content-Range field.
        if_range: Value of the If-Range field.
        authorization: Value of the Authorization field.
        run: Value of the X-Run field, by which runs can name themselves.
    """

    connection: int
    method: str
    path: str
    range: str
    status: int
    sent_bytes: int
    content_range: str
    if_range: str
    authorization: str
    run: str


class Nginx:
    """
    An nginx that serves a directory, for the time of a with block.

    Args:
        root: The directory.
        port: 0 for a free one.
        workers: Worker processes.
        tls: Certificate and key: speaks TLS.
        main: Directives outside of all blocks, such as `worker_rlimit_nofile 64;`.
        http: Directives for the http block, such as `limit_conn_zone ...;`.
        server: Directives for the server block, such as `limit_rate 1m;`.
        listen: More parameters of `listen`, such as `http2`.
        access_log: Whether to keep a log of requests; a benchmark does without.

    Attributes:
        root: The directory, resolved.
        port: Of its last start.

    Raises:
        NotInstalled: There is no nginx program.
        RuntimeError: On entering: it ended at once, or does not listen; says why.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        port: int = 0,
        *,
        workers: int = 1,
        tls: TlsFiles | None = None,
        main: str = "",
        http: str = "",
        server: str = "",
        listen: str = "",
        access_log: bool = True,
    ) -> None:
        program = find_nginx()
        if program is None:
            raise NotInstalled("nginx is not installed; it is the origin")
        self._program = program
        self.root = Path(root).resolve()
        self.port = port
        self._workers = workers
        self._tls = tls
        self._main = main
        self._http = http
        self._server = server
        self._listen = listen
        self._access_log = access_log
        self._logged: list[NginxRequest] | None = None

    def __enter__(self) -> Nginx:
        fixed = self.port
        with ExitStack() as undo:
            prefix = undo.enter_context(tempfile.TemporaryDirectory(prefix="nginx-"))
            self._prefix = Path(prefix)
            undo.callback(self._keep_log)
            command = [self._program, "-p", prefix, "-c", f"{prefix}/nginx.conf"]
            said = undo.enter_context(open(f"{prefix}/stderr.log", "wb"))
            # A port can be taken between its choice and nginx's bind: then again.
            for _ in range(_START_TRIES):
                self.port = fixed or _free_port()
                self.configure()
                self._process = undo.enter_context(
                    running(
                        command,
                        stdout=said,
                        stderr=said,
                        # Nothing of a test's environment, where secrets may be planted.
                        env={"PATH": os.environ.get("PATH", os.defpath)},
                        start_new_session=True,
                    )
                )
                if self._listens():
                    self._undo = undo.pop_all()
                    return self
            raise RuntimeError(f"nginx does not listen: {self._errors()}")

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop it at once, and remove its directory; a second call does nothing."""
        self._undo.close()

    @property
    def url(self) -> str:
        """The base URL, without a slash at the end."""
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://127.0.0.1:{self.port}"

    @property
    def ca_file(self) -> str | None:
        """What a client has to trust; None without TLS."""
        return None if self._tls is None else self._tls.ca_file

    @property
    def pid(self) -> int:
        """The master's process id."""
        return self._process.pid

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
        if self._tls is not None:
            certificate = (
                f"ssl_certificate {self._tls.cert_file}; "
                f"ssl_certificate_key {self._tls.key_file}; "
                "ssl_protocols TLSv1.2 TLSv1.3;"
            )
        # As root its workers would change to a user who can't read a private directory.
        user = "user root;" if os.geteuid() == 0 else ""
        log = f"{self._prefix}/access.log fields" if self._access_log else "off"
        text = _CONFIGURATION.format(
            workers=self._workers,
            prefix=self._prefix,
            user=user,
            main=self._main,
            fields=json.dumps(_FIELDS),
            access_log=log,
            http=self._http,
            port=self.port,
            ssl=" ssl" if certificate else "",
            listen=self._listen,
            certificate=certificate,
            root=self.root,
            server=self._server,
        )
        (self._prefix / "nginx.conf").write_text(text, encoding="utf-8")

    def reload(self) -> None:
        """Have it start new workers with the configuration; old ones finish."""
        os.kill(self.pid, signal.SIGHUP)

    def requests(self) -> list[NginxRequest]:
        """
        Give what it was asked.

        While it runs: so far, and without answers that go on. Afterwards: all.
        """
        if self._logged is not None:
            return self._logged
        path = self._prefix / "access.log"
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        return [_request(line) for line in lines]

    def _errors(self) -> str:
        """Read its error log, and what it said before it had one."""
        paths = [self._prefix / name for name in ("stderr.log", "error.log")]
        texts = [path.read_text("utf-8") for path in paths if path.exists()]
        return "".join(texts).strip()

    def _listens(self) -> bool:
        """Wait until it listens; False when it has ended, or does not in time."""
        process = self._process
        over = wait_until(
            lambda: process.poll() is not None or _answers(self.port), _START_SECONDS
        )
        return over and process.poll() is None

    def _keep_log(self) -> None:
        self._logged = self.requests()


def _request(line: str) -> NginxRequest:
    fields = json.loads(line)
    numbers = {
        name: int(fields.pop(name)) for name in ("connection", "status", "sent_bytes")
    }
    return NginxRequest(**fields, **numbers)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True
