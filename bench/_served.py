"""The servers of stress rounds: the origin that plays faults, and nginx.

    with faulty_origin(draw, certificate, directory) as server: ...
    with nginx(draw, certificate, directory) as server: ...

What they are like (TLS, rates, latency, connections) is drawn.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench._origin import origin
from bench._server import Nginx
from segdl.testing import TlsFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """
    The server of a round.

    Args:
        base: Its URL, without a slash at the end.
        pid: Its process, a child that is not segdl's.
        ca_file: What an engine has to trust, None without TLS.
        shown: In words, its kind first.
        files: The directory it serves; None for one that computes its content.
        reload: Has it begin anew with the next connection, where it can.
        retry_delay: In seconds, of an engine that is to get on with it.
    """

    base: str
    pid: int
    ca_file: str | None
    shown: str
    files: Path | None = None
    reload: Callable[[], None] | None = None
    retry_delay: float = 0.05


@contextlib.contextmanager
def faulty_origin(draw: random.Random, tls: TlsFiles, _: Path) -> Iterator[Served]:
    """Run the origin that plays faults."""
    secure = draw.random() < 0.4
    options = draw.choice([[], ["--rate", "8M"], ["--rate", "32M"]])
    options += draw.choice([[], [], ["--latency", "0.03"]])
    shown = " ".join(["origin", *(["TLS"] if secure else []), *options])
    if secure:
        options += ["--tls-cert", tls.cert_file, "--tls-key", tls.key_file]
    with origin(*options) as (base, pid):
        ca_file = tls.ca_file if secure else None
        yield Served(base=base, pid=pid, ca_file=ca_file, shown=shown)


@contextlib.contextmanager
def nginx(draw: random.Random, tls: TlsFiles, directory: Path) -> Iterator[Served]:
    """Run nginx, with files that are written when they are drawn."""
    scheme = draw.choice(["http", "https"])
    extra = draw.choice(["", "limit_rate 4m;", "limit_rate 16m;"])
    extra += draw.choice(["", "limit_conn client 3;", "limit_conn client 8;"])
    files = directory / "files"
    files.mkdir()
    with Nginx(
        files,
        workers=2,
        tls=tls if scheme == "https" else None,
        http="limit_conn_zone $binary_remote_addr zone=client:1m;",
        server=extra,
        access_log=False,
    ) as server:
        yield Served(
            base=server.url,
            pid=server.pid,
            ca_file=server.ca_file,
            shown=f"nginx {scheme} {extra}",
            files=files,
            reload=server.reload,
            # It counts a connection until it has noticed its end, which takes it
            # hundreds of milliseconds: so long others get a 503.
            retry_delay=0.5 if "limit_conn" in extra else 0.05,
        )
