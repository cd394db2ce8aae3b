"""A private nginx on loopback, as the origin that other programs are compared at.

    Nginx(directory, files) ── start ──> master + 2 workers, one port http, one https
                            ── stop ───> SIGTERM to the master, by its id

Everything it writes (configuration, pid, log, temporary files) is in `directory`.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from bench._processes import running, wait_until

_START_SECONDS = 10.0

_CONFIG = """\
worker_processes 2;
daemon off;
{user}pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
events {{ worker_connections 1024; }}
http {{
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    log_format ranges escape=json
        '{{"run":"$http_x_run","status":$status,"range":"$http_range",'
        '"content_range":"$sent_http_content_range","body":$body_bytes_sent}}';
    access_log {access_log};
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    limit_conn_zone $binary_remote_addr zone=client:1m;
    server {{
        listen 127.0.0.1:{http_port};
        listen 127.0.0.1:{https_port} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.3;
        root {files};
        {extra}
    }}
}}
"""


class NotInstalled(Exception):
    """A program that is needed is missing; the message names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """
    A self-signed certificate for 127.0.0.1 and localhost.

    Args:
        certificate: PEM file; also what a client has to trust.
        key: PEM file of the private key.
    """

    certificate: Path
    key: Path


def make_certificate(directory: Path) -> Certificate:
    """
    Make a certificate on the curve P-256, valid for a week.

    Args:
        directory: Where the two files go.

    Raises:
        NotInstalled: There is no openssl.
        RuntimeError: It failed.
    """
    made = Certificate(certificate=directory / "cert.pem", key=directory / "key.pem")
    if shutil.which("openssl") is None:
        raise NotInstalled("openssl is not installed; it makes the certificate")
    command = [
        *("openssl", "req", "-x509", "-newkey", "ec"),
        *("-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "7"),
        *("-subj", "/CN=localhost"),
        *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        *("-keyout", str(made.key), "-out", str(made.certificate)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"openssl made no certificate: {done.stderr.strip()}")
    return made


def find_nginx() -> str | None:
    """Give the path of nginx; it lives in /usr/sbin, not on every user's PATH."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class Nginx:
    """
    An nginx that serves a directory on two free ports, http and https.

    `with Nginx(...) as nginx:` starts and stops it.

    Args:
        directory: An existing one for its own files.
        files: The directory it serves.
        log_requests: Keep `access.log`, a JSON object a request.
        extra: Lines for the server block, such as "limit_rate 4m;".

    Raises:
        NotInstalled: nginx or openssl is missing.
        RuntimeError: nginx did not start.
    """

    def __init__(
        self,
        directory: Path,
        files: Path,
        *,
        log_requests: bool = False,
        extra: str = "",
    ) -> None:
        self.directory = directory
        self.files = files
        self.access_log = directory / "access.log"
        self.certificate = make_certificate(directory)
        self.http_port = 0
        self.https_port = 0
        self._log_requests = log_requests
        self._extra = extra
        self._stack = ExitStack()

    def __enter__(self) -> Nginx:
        self._start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def ca_file(self) -> str:
        """What a client has to trust."""
        return str(self.certificate.certificate)

    def url(self, name: str, scheme: str = "http") -> str:
        """
        Give the URL of a served file.

        Args:
            name: Its path below the served directory.
            scheme: "http" or "https".
        """
        port = self.http_port if scheme == "http" else self.https_port
        return f"{scheme}://127.0.0.1:{port}/{name}"

    def reload(self) -> None:
        """Have new workers take over, while the old ones finish what they are at."""
        self._process.send_signal(signal.SIGHUP)

    @property
    def pid(self) -> int:
        """Of the master."""
        return self._process.pid

    def _start(self) -> None:
        program = find_nginx()
        if program is None:
            raise NotInstalled("nginx is not installed; it is the origin")
        # A port can be taken between its choice and nginx's bind: then again.
        for _ in range(3):
            self.http_port, self.https_port = _free_ports(2)
            path = self.directory / "nginx.conf"
            path.write_text(self._config(), encoding="utf-8")
            command = [program, "-p", str(self.directory), "-c", str(path)]
            started = self._stack.enter_context(
                running(
                    command,
                    signal.SIGTERM,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
            answered = wait_until(
                lambda process=started: (
                    process.poll() is not None or _answers(self.http_port)
                ),
                _START_SECONDS,
            )
            if answered and started.poll() is None:
                self._process = started
                return
            self._stack.close()
        log = self.directory / "error.log"
        text = log.read_text(errors="replace") if log.exists() else "no error log"
        raise RuntimeError(f"nginx did not start: {text.strip()}")

    def _config(self) -> str:
        log = f"{self.access_log} ranges" if self._log_requests else "off"
        return _CONFIG.format(
            # Its workers would otherwise be "nobody", who may not read the files.
            user="user root;\n" if os.geteuid() == 0 else "",
            directory=self.directory,
            access_log=log,
            http_port=self.http_port,
            https_port=self.https_port,
            certificate=self.certificate.certificate,
            key=self.certificate.key,
            files=self.files,
            extra=self._extra,
        )


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _answers(port: int) -> bool:
    begin = time.monotonic()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return time.monotonic() - begin < 1.0
    except OSError:
        return False
