"""A real nginx as the origin: the honest server, with its limits and its habits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from http_checks import (
    MIB,
    NAME,
    check_failed,
    check_whole,
    names,
    recorded_bytes,
    until,
)
from nginx import Nginx, serving

from segdl.errors import IncompleteTransfer, TlsError
from segdl.testing import Blob

pytestmark = pytest.mark.nginx

SIZE = 20 * MIB + 7
BLOB = Blob(1, SIZE)


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
    with serving(root) as start:
        yield start


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


@pytest.mark.parametrize("processes", [0, "auto"])
def test_tls_with_a_private_authority(start, fetch, segdl_tls_files, processes) -> None:
    """TLS by nginx, with its authority as ca_file."""
    server = start(tls=segdl_tls_files)
    task = fetch(url(server), ca_file=server.ca_file, processes=processes)
    check_whole(task, BLOB)


def test_tls_that_is_none(root, fetch) -> None:
    """https to a port that speaks plain HTTP is an error of the handshake."""
    with Nginx(root) as server:
        task = fetch(url(server).replace("http:", "https:"), retry_times=1)
    check_failed(task, TlsError)
    assert {r.method for r in server.requests()} == {""}  # it understood nothing


def test_http_to_a_tls_port(start, fetch, segdl_tls_files) -> None:
    """Plain HTTP to a TLS port is a refusal by status 400."""
    server = start(tls=segdl_tls_files)
    task = fetch(url(server).replace("https:", "http:"))
    assert task.status == "failed"
    assert "400" in str(task.error)


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


def test_page_for_missing_files(start, make_engine, root, out) -> None:
    """A site that shows its start page for a file that is gone does not replace it."""
    (root / "index.html").write_text("<html>welcome</html>")
    server = start(server="limit_rate 4m; location / { try_files $uri /index.html; }")
    engine = make_engine(connections=1, retry_times=1)
    task = engine.download(url(server), out, NAME)
    until(lambda: task.total_size)
    (root / NAME).rename(root / "elsewhere")
    assert task.wait(20)
    assert task.status == "failed"
    assert "HTML page instead of the file" in task.error
    assert recorded_bytes(out, BLOB) > 0


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


def test_redirect_with_a_long_body(start, root, fetch) -> None:
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


def test_server_that_says_nothing(start, fetch) -> None:
    """A server that closes without a word is no success."""
    server = start(server="return 444;")
    task = fetch(url(server), retry_times=1)
    assert task.status == "failed"
    assert isinstance(task.exception(0), IncompleteTransfer)
