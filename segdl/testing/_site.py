"""What an origin remembers between requests: counts, faults that happened, swaps."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from segdl.testing.faults import Counts, Fault

__all__ = ["Gate", "Site"]

# A client may have the last byte of an answer, and ask again on another connection,
# before the thread that sent it has left; real servers know of it no sooner either.
_GRACE_SECONDS = 0.05


class Gate:
    """Counts the requests under way, and lets no more than a number of them in."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0

    def enter(self, limit: int | None) -> bool:
        """
        Enter, unless it is full and stays so for 50 ms; then nothing is counted.

        Args:
            limit: How many may be inside, None for any number.
        """
        with self._changed:
            has_room = limit is None or self._changed.wait_for(
                lambda: self._inside < limit, _GRACE_SECONDS
            )
            self._inside += has_room
            return has_room

    def leave(self) -> None:
        """Undo one `enter` that was True."""
        with self._changed:
            self._inside -= 1
            self._changed.notify()


@dataclass(slots=True)
class _Path:
    gate: Gate = field(default_factory=Gate)
    connections: dict[int, int] = field(default_factory=dict)
    requests: int = 0
    ranges: int = 0
    happened: dict[str, int] = field(default_factory=dict)
    swapped: Fault | None = None


class Site:
    """The memory of every path of an origin; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._paths: dict[str, _Path] = {}

    def reset(self) -> None:
        """Forget everything but who is inside a gate now."""
        with self._lock:
            self._paths = {k: _Path(gate=p.gate) for k, p in self._paths.items()}

    def gate(self, path: str) -> Gate:
        """Give the gate of a path."""
        with self._lock:
            return self._of(path).gate

    def count(self, path: str, connection: int, *, ranged: bool) -> Counts:
        """
        Count a request.

        Args:
            path: What it asks for.
            connection: Number of its connection.
            ranged: Whether it is a GET with a Range.

        Returns:
            Which one it is.
        """
        with self._lock:
            entry = self._of(path)
            entry.requests += 1
            entry.ranges += ranged
            known = entry.connections
            return Counts(
                connection=known.setdefault(connection, len(known) + 1),
                request=entry.requests,
                range=entry.ranges if ranged else 0,
            )

    def fire(self, path: str, fault: Fault) -> bool:
        """
        Count a fault as happened.

        Args:
            path: Where.
            fault: What.

        Returns:
            False, and nothing counted, when it has happened as often as it should.
        """
        with self._lock:
            happened = self._of(path).happened
            count = happened.get(fault.spec, 0)
            if fault.times is not None and count >= fault.times:
                return False
            happened[fault.spec] = count + 1
            return True

    def swap(self, path: str, fault: Fault) -> None:
        """Replace the file of a path, as a `swap` or `swapsame` says."""
        with self._lock:
            self._of(path).swapped = fault

    def swapped(self, path: str) -> Fault | None:
        """Give the last swap of a path, None before one."""
        with self._lock:
            return self._of(path).swapped

    def _of(self, path: str) -> _Path:
        return self._paths.setdefault(path, _Path())
