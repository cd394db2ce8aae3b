"""`segdl resume`: go on with what an earlier run left."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from segdl._manifest import url_digest
from segdl._unfinished import check_named
from segdl.cli.arguments import (
    add_engine_options,
    add_output_options,
    engine_config,
    path_argument,
)
from segdl.cli.session import run_tasks
from segdl.cli.sidecar import Sidecar
from segdl.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from segdl.cli.console import Console
    from segdl.engine import DownloadEngine
    from segdl.task import DownloadTask

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `segdl resume`."""
    parser.add_argument(
        "paths",
        nargs="+",
        type=path_argument,
        metavar="DIR|FILE",
        help="a directory, or a download by its own name or its .part's or .segdl's",
    )
    parser.add_argument(
        "--url",
        help="a new link to the same file, for one whose old link has expired or had a "
        "query, which is never stored; goes with one FILE",
    )
    add_engine_options(parser)
    add_output_options(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Go on; give the exit code."""
    config = engine_config(args)
    # Looked at before anything starts: a wrong path refuses the whole call.
    places = _places(args.paths)
    if args.url is not None and [type(place) for place in places] != [Sidecar]:
        raise UsageError("--url is the new link of one download: name one FILE with it")

    def submit(engine: DownloadEngine) -> Iterator[DownloadTask]:
        for place in places:
            if isinstance(place, Sidecar):
                yield _resume_one(engine, place, args.url)
                continue
            found = engine.resume_unfinished(place)
            if not found and not args.quiet:
                console.note(f"nothing unfinished in {place}")
            yield from found

    return run_tasks(args, console, config, submit)


def _places(paths: list[str]) -> list[str | Sidecar]:
    """Find what is meant, each download once, however often it is named."""
    directories = [path for path in paths if os.path.isdir(path)]
    places: dict[str, str | Sidecar]
    places = {os.path.realpath(path): path for path in directories}
    for path in paths:
        if path in directories:
            continue
        sidecar = Sidecar.find(path)
        directory = os.path.realpath(sidecar.directory)
        if directory not in places:
            places[os.path.join(directory, sidecar.manifest)] = sidecar
    return list(places.values())


def _resume_one(
    engine: DownloadEngine, sidecar: Sidecar, url: str | None
) -> DownloadTask:
    header = sidecar.load().header
    check_named(header, sidecar.manifest)
    if url is None and url_digest(header.url) != header.url_sha256:
        raise UsageError(
            f"the URL of {header.name} had a query, which is never stored; give the "
            f"whole URL again: segdl resume {sidecar.directory}/{header.name} --url URL"
        )
    return engine.download(
        url or header.url,
        sidecar.directory,
        header.name,
        checksum=header.digest,
        new_link=url is not None,
    )
