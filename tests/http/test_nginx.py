"""A real nginx as the origin: the honest server, with its limits and its habits."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from http_checks import (
    MIB,
    NAME,
    check_failed,
    check_whole,
    file_digest,
    names,
    recorded_bytes,
    until,
)
from nginx import Nginx, find_nginx

from segdl.errors import IncompleteTransfer, IntegrityError, TlsError
from segdl.testing import Blob

pytestmark = [
    pytest.mark.nginx,
    pytest.mark.skipif(find_nginx() is None, reason="there is no nginx program"),
]

SIZE = 20 * MIB + 7
BLOB = Blob(1, SIZE)
FIVE_GIB = 5 << 30


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give the directory that is served, with one file in it."""
    directory = tmp_path / "root"
    directory.mkdir()
    (directory / NAME).write_bytes(BLOB.read())
    return directory


@pytest.fixture
def start(root: Path) -> Iterator[Callable[..., Nginx]]:
    """Give a function that starts an nginx; what it was asked is checked after."""
    servers: list[Nginx] = []

    def run(**options: Any) -> Nginx:
        server = Nginx(root, **options)
        servers.append(server)
        server.start()
        return server

    try:
        yield run
        for server in servers:
            for request in server.requests():
                if request.status == 400:
                    continue  # it understood nothing
                assert request.method == "GET"
                assert re.fullmatch(r"bytes=\d+-\d+|", request.range)
    finally:
        for server in servers:
            server.stop()


def url(server: Nginx) -> str:
    """Give the URL of the file."""
    return f"{server.url}/{NAME}"


def settled(server: Nginx) -> None:
    """Wait until nginx has logged the last answer; it does so a moment later."""
    until(lambda: sum(r.sent_bytes for r in server.requests()) >= SIZE)


@pytest.mark.parametrize("processes", [0, "auto"])
def test_file_comes_over_several_connections(start, fetch, processes) -> None:
    """nginx' file is exact, by ranges alone, and sent about once."""
    server = start(server="limit_rate 16m;")
    check_whole(fetch(url(server), processes=processes), BLOB)
    settled(server)
    requests = server.requests()
    assert {r.status for r in requests} == {206}
    assert len({r.connection for r in requests}) in range(3, 8)


def test_09_slow_but_alive(start, fetch) -> None:
    """Lanes that are slow are no stalled lanes."""
    server = start(server="limit_rate 1m;")
    (Path(server.root) / NAME).write_bytes(Blob(1, 5 * MIB).read())
    check_whole(fetch(url(server), timeout=1), Blob(1, 5 * MIB))


@pytest.mark.parametrize("limit", [1, 2])
def test_43_connection_limit(start, fetch, limit) -> None:
    """An origin that answers 503 to one connection too many gets fewer."""
    server = start(
        http="limit_conn_zone $binary_remote_addr zone=a:1m;",
        server=f"limit_conn a {limit}; limit_rate 16m;",
    )
    check_whole(fetch(url(server), retry_times=10), BLOB)
    settled(server)
    assert 503 in {r.status for r in server.requests()}


def test_21_no_ranges(start, fetch) -> None:
    """With `max_ranges 0`, nginx answers 200 to a range: one stream."""
    server = start(server="max_ranges 0;")
    check_whole(fetch(url(server)), BLOB)
    settled(server)
    assert {r.status for r in server.requests()} == {200}
    assert len(server.requests()) <= 3


def test_35_gzip_is_not_asked_for(start, root, fetch) -> None:
    """What nginx would compress comes as it is."""
    text = Blob(1, 4 * MIB)
    (root / "a.txt").write_bytes(text.read())
    server = start(server="gzip on; gzip_types *; gzip_http_version 1.0;")
    check_whole(fetch(f"{server.url}/a.txt"), text)


@pytest.mark.parametrize("processes", [0, "auto"])
def test_tls_with_a_private_authority(start, fetch, segdl_tls_files, processes) -> None:
    """TLS by nginx, with its authority as ca_file."""
    files = segdl_tls_files
    server = start(certificate=(files.cert_file, files.key_file))
    task = fetch(url(server), ca_file=files.ca_file, processes=processes)
    check_whole(task, BLOB)


def test_16_unknown_authority(start, fetch, segdl_tls_files, out) -> None:
    """Without it, the certificate is refused."""
    server = start(certificate=(segdl_tls_files.cert_file, segdl_tls_files.key_file))
    check_failed(fetch(url(server)), TlsError, "ca_file")
    assert names(out) == []


def test_16_tls_that_is_none(start, fetch) -> None:
    """https to a port that speaks plain HTTP is an error of the handshake."""
    server = start()
    task = fetch(url(server).replace("http:", "https:"), retry_times=1)
    check_failed(task, TlsError)


def test_http_to_a_tls_port(start, fetch, segdl_tls_files) -> None:
    """Plain HTTP to a TLS port is a refusal by status 400."""
    server = start(certificate=(segdl_tls_files.cert_file, segdl_tls_files.key_file))
    task = fetch(url(server).replace("https:", "http:"))
    assert task.status == "failed"
    assert "400" in str(task.error)


def test_18_graceful_reload(start, make_engine, out) -> None:
    """A reload on the way costs nothing: old workers finish, new ones go on."""
    server = start(server="limit_rate 4m;")
    task = make_engine().download(url(server), out, NAME)
    until(lambda: task.downloaded_size > 3 * MIB)
    server.configure(server="")
    server.reload()
    assert task.wait(12)
    check_whole(task, BLOB)


def test_02_restart(start, make_engine, out) -> None:
    """A restart on the way costs what was in flight."""
    server = start(server="limit_rate 4m;")
    port = server.port
    task = make_engine(retry_times=50).download(url(server), out, NAME)
    until(lambda: task.downloaded_size > 3 * MIB)
    server.stop()
    again = start(port=port)
    assert task.wait(12)
    check_whole(task, BLOB)
    assert sum(r.sent_bytes for r in again.requests()) < SIZE


def replace(path: Path, blob: Blob, *, modified: float | None = None) -> None:
    """Put another file in a file's place, at once."""
    fresh = path.with_suffix(".fresh")
    fresh.write_bytes(blob.read())
    if modified is not None:
        os.utime(fresh, (modified, modified))
    os.replace(fresh, path)


@pytest.mark.parametrize("size", [SIZE, SIZE + MIB, SIZE // 2])
def test_30_31_replaced_on_the_way(start, root, make_engine, out, size) -> None:
    """A file that is replaced on the way comes down anew, as one version."""
    os.utime(root / NAME, (10**9, 10**9))
    server = start(server="limit_rate 8m;")
    task = make_engine().download(url(server), out, NAME)
    until(lambda: task.downloaded_size > 3 * MIB)
    replace(root / NAME, Blob(2, size))
    assert task.wait(12)
    # nginx goes on with the file it has open; whichever came, it is one version.
    assert file_digest(task.result(0)) in (Blob(2, size).digest(), BLOB.digest())


def test_32_replaced_without_a_trace(start, root, make_engine, out) -> None:
    """Same size and same time give the same tag: only a digest finds it."""
    os.utime(root / NAME, (10**9, 10**9))
    server = start(server="limit_rate 8m;")
    engine = make_engine()
    checksum = f"sha256:{BLOB.digest()}"
    task = engine.download(url(server), out, NAME, checksum=checksum)
    until(lambda: task.downloaded_size > 3 * MIB)
    task.pause()
    replace(root / NAME, Blob(2, SIZE), modified=10**9)
    task.resume()
    assert task.wait(12)
    check_failed(task, IntegrityError, "sha256", BLOB.digest())


def test_resume_sends_what_is_missing(start, make_engine, out) -> None:
    """A second run asks for what the first has not recorded, with nginx' own tag."""
    server = start(server="limit_rate 8m;")
    engine = make_engine()
    task = engine.download(url(server), out, NAME)
    until(lambda: task.downloaded_size > SIZE // 2)
    engine.shutdown(wait=False)
    recorded = recorded_bytes(out, BLOB)
    first = len(server.requests())
    server.configure(server="")
    server.reload()
    task = make_engine().download(url(server), out, NAME)
    assert task.wait(12)
    check_whole(task, BLOB)
    assert task.resumed_size == recorded
    tags = [r.if_range for r in server.requests()[first:] if r.if_range]
    assert tags
    assert re.fullmatch(r'"[0-9a-f]+-[0-9a-f]+"', tags[0])


def test_401_and_its_cure(start, fetch, tmp_path) -> None:
    """A refusal names the token; with the right password the file comes."""
    password = tmp_path / "htpasswd"
    password.write_text("me:{PLAIN}secret\n")
    server = start(
        server=f'auth_basic "files"; auth_basic_user_file {password};',
    )
    task = fetch(url(server))
    assert task.status == "failed"
    assert "401" in str(task.error)
    task = fetch(url(server).replace("//", "//me:secret@"))
    check_whole(task, BLOB)
    manifests = [name for name in names(tmp_path / "out") if name != NAME]
    assert manifests == []


def test_44_redirect_with_a_long_body(start, root, fetch) -> None:
    """A redirect's body does not matter, however long it is."""
    (root / "page.html").write_bytes(b"x" * MIB)
    server = start(
        server="""
        error_page 404 =302 /page.html;
        location = /page.html { add_header Location /file.bin always; }
        """
    )
    check_whole(fetch(f"{server.url}/none"), BLOB)
    assert 302 in {r.status for r in server.requests()}


def test_proxied_and_sliced(start, root, fetch) -> None:
    """A caching proxy in front, which fetches by slices, is an origin like others."""
    behind = start()
    server = start(
        http=f"proxy_cache_path {root}/cache keys_zone=c:1m;",
        server=f"""
        location / {{
            slice 1m;
            proxy_cache c;
            proxy_cache_key $uri$slice_range;
            proxy_set_header Range $slice_range;
            proxy_cache_valid 200 206 1h;
            proxy_http_version 1.1;
            proxy_pass {behind.url};
        }}
        """,
    )
    check_whole(fetch(url(server)), BLOB)


def test_38_five_gib(start, root, fetch) -> None:
    """A sparse file beyond 32-bit offsets is exact, to the byte."""
    if shutil.disk_usage(root).free < 12 << 30:
        pytest.skip("less than 12 GiB are free")
    marks = {
        0: b"the first bytes",
        (1 << 31) - 5: b"around 2 GiB",
        (1 << 32) - 5: b"around 4 GiB",
        FIVE_GIB - 20: b"the last bytes of it",
    }
    with (root / NAME).open("wb") as file:
        file.truncate(FIVE_GIB)
        for offset, text in marks.items():
            file.seek(offset)
            file.write(text)
    server = start()
    task = fetch(url(server), processes="auto", wait=60)
    assert (task.status, task.error) == ("completed", None)
    path = Path(task.result(0))
    assert path.stat().st_size == FIVE_GIB
    windows = [0, (1 << 31) - MIB, (1 << 32) - MIB, FIVE_GIB - 2 * MIB]
    with path.open("rb") as got, (root / NAME).open("rb") as sent:
        for begin in windows:
            got.seek(begin)
            sent.seek(begin)
            data = got.read(2 * MIB)
            assert (
                hashlib.sha256(data).digest()
                == hashlib.sha256(sent.read(2 * MIB)).digest()
            )
    path.unlink()


def test_server_that_says_nothing(start, fetch) -> None:
    """A server that closes without a word is no success."""
    server = start(server="return 444;")
    task = fetch(url(server), retry_times=1)
    assert task.status == "failed"
    assert isinstance(task.exception(0), IncompleteTransfer)
