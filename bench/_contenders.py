"""Who is measured: segdl with some options, an earlier segdl, and every peer.

The peers and their flags are `segdl._peers`'s; here is only what segdl is called with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench._processes import segdl_command
from segdl._peers import PEERS, Batch, Fetch, Invocation, Peer

SEGDL = "segdl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """
    A program with its options.

    Args:
        name: For tables.
        make: Gives its command for one file.
        many: Gives its command for many; None where it has none.
        is_peer: It is none of ours.
    """

    name: str
    make: Callable[[Fetch], Invocation]
    many: Callable[[Batch], Invocation] | None = None
    is_peer: bool = False


def segdl(
    *options: str, before: Path | None = None, title: str | None = None
) -> Contender:
    """
    Give segdl as a contender; its name is its command line without what it saves.

    Args:
        options: Of `segdl get`.
        before: Another checkout with its environment, None for this one.
        title: Its name instead.
    """
    name = title or " ".join([SEGDL, *options])

    def command(ca_file: str | None, directory: str) -> list[str]:
        get = segdl_command("get", "-q", "--no-progress", "-d", directory, *options)
        if before is not None:
            where = before.resolve()
            python = str(where / ".venv" / "bin" / "python")
            get = ["env", f"PYTHONPATH={where}", python, *get[1:]]
        return [*get, "--cacert", ca_file] if ca_file else get

    def make(fetch: Fetch) -> Invocation:
        get = command(fetch.ca_file, fetch.directory)
        return Invocation(command=(*get, "-o", fetch.name, fetch.url))

    def many(batch: Batch) -> Invocation:
        get = command(batch.ca_file, batch.directory)
        text = "".join(f"{url}\n" for url in batch.urls)
        return Invocation(command=(*get, "-i", "-"), text=text)

    return Contender(name=name, make=make, many=many)


def peers(wanted: Callable[[Peer], bool] = lambda _: True) -> list[Contender]:
    """
    Give the peers that are installed.

    Args:
        wanted: Tells which of them.
    """
    found = [(peer, peer.find()) for peer in PEERS if wanted(peer)]
    return [
        Contender(
            name=peer.name,
            make=partial(peer.make, path),
            many=None if peer.many is None else partial(peer.many, path),
            is_peer=True,
        )
        for peer, path in found
        if path is not None
    ]


def missing(wanted: Callable[[Peer], bool] = lambda _: True) -> list[str]:
    """Say which peers are not installed, and what would."""
    return [
        f"{peer.name} is not installed ({peer.source}), and left out"
        for peer in PEERS
        if wanted(peer) and peer.find() is None
    ]


def splits(peer: Peer) -> bool:
    """Tell whether a peer takes more than one connection for a file."""
    return peer.most_connections != 1
