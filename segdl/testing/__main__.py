"""Run the origin by itself: `python -m segdl.testing`, and `segdl serve`.

    $ python -m segdl.testing --port 8080 --rate 4M
    http://127.0.0.1:8080 (for example http://127.0.0.1:8080/b/1/1073741824/demo.bin)

The first line of the output begins with the base URL, so that a program that started
it can read the port. It serves until SIGINT or SIGTERM.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import TextIO

from segdl.testing.log import RequestLog
from segdl.testing.origin import Origin
from segdl.testing.throttle import parse_rate
from segdl.testing.tls import TlsFiles

__all__ = ["add_arguments", "run", "serve"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Add the options of the origin to a parser.

    Args:
        parser: Of `python -m segdl.testing`, or of a subcommand.
    """
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    add("--port", type=_port, default=0, help="port to listen on (a free one)")
    add("--rate", type=_rate, help="bytes/s of each connection; k, M, G")
    add("--total-rate", type=_rate, help="bytes/s of all connections together")
    add("--latency", type=float, default=0.0, help="seconds before each answer")
    add("--max-connections", type=int, help="requests at a time; more get 503")
    add("--root", type=Path, help="directory to serve below /files/")
    add("--log", type=Path, help="file that gets each request as a JSON line")
    add("--tls-cert", metavar="FILE", help="speak TLS: certificate chain, PEM")
    add("--tls-key", metavar="FILE", help="its private key, PEM")


def run(args: argparse.Namespace) -> int:
    """
    Serve until SIGINT or SIGTERM; to be called on the main thread.

    Args:
        args: What a parser with `add_arguments` gave.

    Returns:
        The exit code.
    """
    if (args.tls_cert is None) != (args.tls_key is None):
        print("error: --tls-cert and --tls-key go together", file=sys.stderr)
        return 2
    tls = None
    if args.tls_cert is not None:
        tls = TlsFiles(cert_file=args.tls_cert, key_file=args.tls_key)
    with ExitStack() as stack:
        try:
            origin = Origin(
                host=args.host,
                port=args.port,
                rate=args.rate,
                total_rate=args.total_rate,
                latency=args.latency,
                max_connections=args.max_connections,
                tls=tls,
                root=args.root,
                log=RequestLog(_open_log(args.log, stack)),
            )
            stack.enter_context(origin)
        except OSError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        example = origin.blob_url(1, 1 << 30, "demo.bin")
        print(f"{origin.url} (for example {example})", flush=True)
        _wait_for_signal()
    return 0


def serve(argv: Sequence[str] | None = None) -> int:
    """
    Run the origin with a command line.

    Args:
        argv: The arguments, None for those of the process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="python -m segdl.testing",
        description="Serve computed content that fails on request.",
    )
    add_arguments(parser)
    return run(parser.parse_args(argv))


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) < 1 << 16):
        raise argparse.ArgumentTypeError(f"{text!r} is no port: 0 - 65535")
    return int(text)


def _rate(text: str) -> float:
    try:
        return parse_rate(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _open_log(path: Path | None, stack: ExitStack) -> TextIO | None:
    if path is None:
        return None
    # For its owner alone: it holds the header fields of every request.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    return stack.enter_context(open(descriptor, "a", encoding="utf-8"))


def _wait_for_signal() -> None:
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's
        stopped.set()

    before = {each: signal.signal(each, stop) for each in _SIGNALS}
    try:
        # In steps: on Windows a wait without a timeout is not ended by a signal.
        while not stopped.wait(1.0):
            pass
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


if __name__ == "__main__":
    raise SystemExit(serve())
