"""The two streams of the program: results on stdout, everything else on stderr.

A reader that goes away (`segdl get ... | head -1`) ends neither the downloads nor in a
traceback: what can't be written any more is dropped, and the exit code says so.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from errno import EPIPE
from io import UnsupportedOperation
from typing import TextIO

__all__ = ["Console"]


class Console:
    """
    Write to stdout and stderr, on any thread.

    Attributes:
        lost: Whether a result could not be written.
    """

    def __init__(self) -> None:
        self.lost = False
        self._lock = threading.Lock()
        self._out: TextIO | None = sys.stdout
        self._err: TextIO | None = sys.stderr
        # A path is bytes: those that are no UTF-8 leave as they came.
        reconfigure = getattr(self._out, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="surrogateescape")

    def result(self, line: str) -> None:
        """Write a line to stdout, at once."""
        with self._lock:
            if self._out is None:
                self.lost = True
                return
            try:
                self._write(self._out, f"{line}\n")
                self._out.flush()
            except (OSError, ValueError) as exc:  # ValueError: closed
                self._lose(exc)

    @staticmethod
    def _write(out: TextIO, text: str) -> None:
        """Write text; what stdout's encoding does not have, as file names have it."""
        try:
            out.write(text)
        except UnicodeEncodeError:
            out.flush()
            out.buffer.write(os.fsencode(text))

    def error(self, text: str) -> None:
        """Write one line, `segdl: TEXT`, to stderr."""
        self.note(f"segdl: {text}")

    def note(self, text: str) -> None:
        """Write one line to stderr; what would move the cursor is replaced."""
        if not text.isprintable():
            text = "".join(c if c.isprintable() else " " for c in text)
        self.paint(f"{text}\n")

    def paint(self, text: str) -> None:
        """Write text with control sequences to stderr, as it is."""
        with self._lock:
            if self._err is None:
                return
            try:
                self._err.write(text)
                self._err.flush()
            except (OSError, ValueError):
                self._err = None  # nobody reads it: nothing to tell, and nobody to

    def terminal(self) -> int | None:
        """Give the descriptor of stderr when it is a terminal, None otherwise."""
        try:
            if self._err is not None and self._err.isatty():
                return self._err.fileno()
        except (OSError, ValueError, UnsupportedOperation):
            pass
        return None

    def can_show(self, text: str) -> bool:
        """Tell whether stderr's encoding has these characters."""
        try:
            text.encode(getattr(self._err, "encoding", None) or "ascii")
        except (UnicodeEncodeError, LookupError):
            return False
        return True

    def close(self) -> None:
        """Flush, so that the interpreter finds nothing left to fail with."""
        with self._lock:
            if self._out is not None:
                try:
                    self._out.flush()
                except (OSError, ValueError) as exc:
                    self._lose(exc)

    def _lose(self, error: Exception) -> None:
        """Go on without stdout."""
        out, self._out = self._out, None
        self.lost = True
        if isinstance(error, OSError) and error.errno != EPIPE and self._err:
            with suppress(OSError, ValueError):
                reason = error.strerror or error
                self._err.write(f"segdl: cannot write to stdout: {reason}\n")
        # What is buffered would be written once more as the interpreter ends.
        with suppress(OSError, ValueError, AttributeError):
            assert out is not None
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, out.fileno())
            os.close(null)
