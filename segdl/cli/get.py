"""`segdl get`: download files.

URL... ─┐
        ├─> Entry ──> checked, all of them, before the first byte ──> engine
-i FILE ┘
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segdl import _urls
from segdl._digests import available, new_hasher, parse_checksum
from segdl._names import checked_name
from segdl.cli.arguments import (
    add_engine_options,
    add_output_options,
    checked_path,
    engine_config,
    header_fields,
)
from segdl.cli.input_file import Entry, read_entries
from segdl.cli.session import run_tasks
from segdl.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from segdl.cli.console import Console
    from segdl.engine import DownloadEngine
    from segdl.task import DownloadTask

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `segdl get`."""
    add = parser.add_argument
    add("urls", nargs="*", metavar="URL", help="http or https")
    add("-d", "--dir", default=".", help="directory to save in (the current one)")
    add("-o", "--output", metavar="NAME", help="name to save as (one URL only)")
    add("-i", "--input-file", metavar="FILE", help="more URLs; - for stdin")
    add(
        "-H",
        "--header",
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="request header; @FILE reads headers from a file",
    )
    add("--checksum", metavar="ALGO:HEX", help="expected digest (one URL only)")
    add(
        "--mirror",
        action="append",
        default=[],
        metavar="URL",
        help="another source of the same file (one URL only)",
    )
    add_engine_options(parser)
    add_output_options(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Download what is asked for; give the exit code."""
    config = engine_config(args)
    common = header_fields(args.header)
    downloads = [_download(entry, args.dir, common) for entry in _entries(args)]
    if config.on_exists != "rename":
        _refuse_duplicates(downloads)

    def submit(engine: DownloadEngine) -> Iterator[DownloadTask]:
        for each in downloads:
            yield engine.download(
                each.entry.url,
                each.directory,
                each.entry.name,
                each.headers,
                checksum=each.entry.checksum,
                mirrors=each.entry.mirrors,
            )

    return run_tasks(args, console, config, submit)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Download:
    """An entry that was checked, with what the command line adds to it."""

    entry: Entry
    directory: str
    headers: Mapping[str, str]


def _entries(args: argparse.Namespace) -> list[Entry]:
    """Put together what is asked for."""
    several = len(args.urls) > 1
    entries = [
        Entry(url=url, place=f"URL {number}" if several else "")
        for number, url in enumerate(args.urls, 1)
    ]
    for option, value in (
        ("--output", args.output),
        ("--checksum", args.checksum),
        ("--mirror", args.mirror or None),
    ):
        if value is not None and (len(entries) != 1 or args.input_file is not None):
            raise UsageError(f"{option} is about one file; give exactly one URL")
    if args.output is not None or args.checksum is not None or args.mirror:
        return [
            Entry(
                url=args.urls[0],
                name=args.output,
                checksum=args.checksum,
                mirrors=tuple(args.mirror),
            )
        ]
    if args.input_file is not None:
        entries += read_entries(args.input_file)
    elif not entries:
        raise UsageError("what is to be downloaded? give a URL, or -i FILE")
    return entries


def _download(entry: Entry, directory: str, common: Mapping[str, str]) -> _Download:
    """Check an entry as the engine would, but before any task runs."""
    where = f"{entry.place}: " if entry.place else ""
    try:
        for url in (entry.url, *entry.mirrors):
            _urls.validate_url(url)
        if entry.name is not None:
            checked_name(entry.name)
        if entry.checksum is not None:
            algorithm = parse_checksum(entry.checksum).algorithm
            if not available(algorithm):
                new_hasher(algorithm)  # raises, and names the package that is missing
        headers = _urls.validate_headers(_merged(common, entry.headers))
        chosen = directory if entry.directory is None else entry.directory
        chosen = os.path.abspath(checked_path(chosen))
    except UsageError as exc:
        raise UsageError(f"{where}{exc}") from exc
    return _Download(entry=entry, directory=chosen, headers=headers)


def _merged(
    common: Mapping[str, str], own: tuple[tuple[str, str], ...]
) -> dict[str, str]:
    """Add an entry's headers; they win over those for all."""
    names = {name.lower() for name, _ in own}
    kept = {name: value for name, value in common.items() if name.lower() not in names}
    return {**kept, **dict(own)}


def _refuse_duplicates(downloads: list[_Download]) -> None:
    """
    Refuse two entries that are certain to have the same destination.

    Others may turn out to, once the servers have named the files; the engine and the
    report see to those.
    """
    seen: set[tuple[str, str, str]] = set()
    for each in downloads:
        entry = each.entry
        name = entry.name
        key = (
            os.path.realpath(each.directory),
            "url" if name is None else "name",
            entry.url if name is None else name,
        )
        if key in seen:
            what = _urls.redact(entry.url) if name is None else repr(name)
            where = f"{entry.place}: " if entry.place else ""
            raise UsageError(
                f"{where}{what} is given twice for {each.directory}; leave one out, "
                "give them different names, or use --on-exists rename"
            )
        seen.add(key)
