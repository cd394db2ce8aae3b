"""The other downloaders: what each is called with, and what is said of it."""

from __future__ import annotations

import json
import sys

import pytest

from segdl import _peers
from segdl._peers import PEERS, URLLIB, Batch, Fetch, Peer

ALL = (*PEERS, URLLIB)
URL = "http://127.0.0.1:8080/dir/a.bin"
FETCH = Fetch(url=URL, directory="/saved", name="b.bin", connections=12)
BATCH = Batch(
    base="http://127.0.0.1/dir", names=["1", "2"], directory="/saved", connections=12
)


def name_of(peer: Peer) -> str:
    return peer.name


@pytest.mark.parametrize("peer", ALL, ids=name_of)
def test_every_flag_has_its_reason(peer: Peer) -> None:
    """The report prints both."""
    assert peer.flags
    for line in peer.lines():
        flag, _, why = line.partition(": ")
        assert flag
        assert why
    assert peer.source
    assert (peer.program is None) != (peer.package is None)


@pytest.mark.parametrize("peer", ALL, ids=name_of)
def test_one_file(peer: Peer) -> None:
    """URL, directory and name are all told, in arguments or in the input."""
    made = peer.make("/bin/found", FETCH)
    told = " ".join([*made.command, made.text])
    assert made.command[0] == "/bin/found"
    assert "/saved" in told
    assert "b.bin" in told
    assert "127.0.0.1:8080/dir" in told
    assert "a.bin" in told
    if peer.most_connections != 1:
        assert "12" in told


@pytest.mark.parametrize("peer", ALL, ids=name_of)
def test_a_certificate_is_told(peer: Peer) -> None:
    """As an option, in the environment, or (axel) by looking at none."""
    fetch = Fetch(url=URL, directory="/saved", name="b", ca_file="/some/ca.pem")
    plain, made = peer.make("found", FETCH), peer.make("found", fetch)
    told = " ".join([*made.command, made.text, *made.variables.values()])
    assert "/some/ca.pem" in told or "-k" in made.command
    assert not plain.variables
    assert "-k" not in plain.command


@pytest.mark.parametrize(
    "peer", [peer for peer in ALL if peer.many is not None], ids=name_of
)
def test_many_files(peer: Peer) -> None:
    """Each of them is in the input, none in the arguments."""
    assert peer.many is not None
    made = peer.many("found", BATCH)
    assert "/saved" in " ".join([*made.command, made.text])
    assert "12" in " ".join([*made.command, made.text])
    for name in BATCH.names:
        assert name in made.text


@pytest.mark.parametrize(
    ("name", "expected"), [("aria2c", "-x16"), ("aria2-next", "-x64")]
)
def test_a_peer_is_not_asked_for_more_than_it_takes(name: str, expected: str) -> None:
    """aria2c refuses more than 16 connections to a server."""
    fetch = Fetch(url=URL, directory="/saved", name="b", connections=64)
    assert expected in _peers.by_name(name).make("found", fetch).command


def test_a_query_is_kept_from_a_remote_that_would_lose_it() -> None:
    """rclone's http remote takes paths alone; then it is told the URL."""
    rclone = _peers.by_name("rclone")
    fetch = Fetch(url=f"{URL}?v=1", directory="/saved", name="b")
    assert f"{URL}?v=1" in rclone.make("found", fetch).command
    assert "copyurl" not in rclone.make("found", FETCH).command


def test_what_curl_reads_cannot_add_options() -> None:
    """A quote in a URL stays in the URL."""
    fetch = Fetch(url='http://a/"\noutput = "x', directory="/saved", name="b")
    made = _peers.by_name("curl").make("found", fetch)
    assert made.text.startswith('url = "http://a/\\"')


def test_a_package_reads_its_request_as_json() -> None:
    """No URL is part of a program, and none is an argument."""
    made = _peers.by_name("parfive").make(sys.executable, FETCH)
    assert json.loads(made.text) == [URL, "/saved", "b.bin", 12]
    assert URL not in " ".join(made.command)


def test_what_is_missing_says_what_would_install_it() -> None:
    """A program that is nowhere, and a package that can't be imported."""
    for program, package in (("no-such-program", None), (None, "no_such_package")):
        peer = Peer(
            name="gone",
            make=URLLIB.make,
            flags=URLLIB.flags,
            source="pip install gone",
            program=program,
            package=package,
        )
        assert peer.find() is None
        assert peer.version() == "not installed (pip install gone)"


def test_versions() -> None:
    """A package's own; that of Python for what is part of it."""
    assert URLLIB.find() == sys.executable
    assert URLLIB.version().endswith(f"of Python {sys.version.split()[0]}")


def test_names_are_unique() -> None:
    """Tables and ratios go by them."""
    assert len({peer.name for peer in ALL}) == len(ALL)
    with pytest.raises(KeyError):
        _peers.by_name("nobody")
