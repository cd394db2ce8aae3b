"""The program `segdl`: one small module a command, imported when it is called.

    argv ──> main ──> COMMAND.add_arguments ──> COMMAND.run ──> exit code
                                                 │
                 stdout: results alone <─────────┼─> stderr: everything else
                 (paths, events, tables)         │   (display, notes, errors)
                                              exit_codes

Only the parser of the chosen command is built, and only its module is loaded: a small
download is over in less time than a large parser takes.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol, cast

from segdl.cli.console import Console
from segdl.cli.exit_codes import INTERRUPTED, OK, OTHER, USAGE, exit_code
from segdl.errors import SegdlError, UsageError

if TYPE_CHECKING:
    import argparse

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "get": "download files",
    "resume": "go on with what an earlier run left",
    "inspect": "show how far an unfinished download is",
    "verify": "compare a file with a digest",
    "clean": "list, or remove, orphaned partial files",
    "serve": "run the embedded test origin",
    "bench": "measure throughput",
}


# Those that need a worker at once.
_TRANSFERRING = ("get", "resume")


class _Command(Protocol):
    """A module of this package that is a command."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...
    def run(self, args: argparse.Namespace, console: Console) -> int: ...


def main(argv: list[str] | None = None) -> int:
    """
    Run the program.

    Args:
        argv: The arguments, None for those of the process.

    Returns:
        The exit code; `segdl.cli.exit_codes` has their meanings.
    """
    console = Console()
    try:
        code = _run(sys.argv[1:] if argv is None else argv, console)
    except SegdlError as error:
        console.error(_text_of(error))
        code = exit_code(error)
    except KeyboardInterrupt:
        console.error("interrupted")
        code = INTERRUPTED
    except SystemExit as end:
        # argparse leaves so, after --help and after a usage error.
        code = end.code if isinstance(end.code, int) else OK
    _end_worker()
    console.close()
    return OTHER if code == OK and console.lost else code


def _text_of(error: SegdlError) -> str:
    """Give a message; what was given wrongly may be a URL that stands elsewhere."""
    if not isinstance(error, UsageError):
        return str(error)
    from segdl._redaction import redact_text

    return redact_text(str(error))


def _run(argv: list[str], console: Console) -> int:
    name = argv[0] if argv else ""
    if name in COMMANDS:
        from importlib import import_module

        if name in _TRANSFERRING and not {"-h", "--help"}.intersection(argv):
            _start_worker()

        from segdl.cli.arguments import Parser

        command = cast("_Command", import_module(f"segdl.cli.{name}"))
        parser = Parser(
            prog=f"segdl {name}",
            description=f"{COMMANDS[name][0].upper()}{COMMANDS[name][1:]}.",
        )
        command.add_arguments(parser)
        return command.run(parser.parse_intermixed_args(argv[1:]), console)
    if name in ("-h", "--help", "help"):
        console.result(_overview())
        return OK
    if name in ("-V", "--version"):
        from segdl.cli.version import version_text

        console.result(version_text())
        return OK
    if not name:
        console.error("which command? `segdl --help` lists them")
    else:
        console.error(f"unknown {_kind(name)}{_did_you_mean(name)}")
    return USAGE


def _start_worker() -> None:
    from segdl._processes import start_early

    start_early()


def _end_worker() -> None:
    processes = sys.modules.get("segdl._processes")
    if processes is not None:
        processes.end_early()


def _overview() -> str:
    lines = [
        "usage: segdl COMMAND ...",
        "",
        "Very large files from HTTP to disk: segmented, resumable, verified.",
        "",
        *(f"  {name:<9}{summary}" for name, summary in COMMANDS.items()),
        "",
        "`segdl COMMAND --help` shows the options of one; `segdl --version` the",
        "versions of everything that matters.",
    ]
    return "\n".join(lines)


def _kind(name: str) -> str:
    return "option" if name.startswith("-") else "command"


def _did_you_mean(name: str) -> str:
    if "://" in name:
        from segdl._urls import redact

        return f" {redact(name)!r}; to download it: segdl get URL"
    from difflib import get_close_matches

    close = get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "`segdl --help` lists them"
    # With an @ it may be a URL without its scheme, and so hold a password.
    shown = "" if "@" in name else f" {name.partition('=')[0][:80]!r}"
    return f"{shown}; {hint}"
