"""The manifest through calls and damage in any order, beside a model of its lines."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from test_manifest import NAME, header, piece

from segdl import _fs, _manifest
from segdl._manifest import Manifest, Piece

shares = st.integers(0, 9999)

State = tuple[dict[int, Piece], int]


class ManifestMachine(RuleBasedStateMachine):
    """
    A log beside what each beginning of it says.

    `states` has, for each place where the log may be cut, what is recorded up to
    there: the pieces by number, and how many of them a checkpoint covers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp())
        self.directory = _fs.Directory.open(self.path)
        self.log: Manifest | None = None
        self.states: list[tuple[int, State]] = []

    @property
    def now(self) -> State:
        """What is recorded."""
        return self.states[-1][1]

    @property
    def file(self) -> Path:
        """The log."""
        return self.path / NAME

    def size(self) -> int:
        """Its length in bytes."""
        return self.file.stat().st_size

    def opened(self) -> Manifest:
        """The manifest, opened again where it was closed."""
        if self.log is None:
            self.log = Manifest.open(self.directory, NAME, durability="none")
            self.states.append((self.size(), self.now))  # a run's record
        return self.log

    def close(self) -> None:
        """Let go of the file."""
        if self.log is not None:
            self.log.close()
            self.log = None

    @initialize()
    def create(self) -> None:
        """Begin with a header."""
        made = Manifest.create(self.directory, NAME, header(), durability="none")
        self.log = made
        first = len(_manifest._records.header_line(header()))
        self.states = [(first, ({}, 0)), (self.size(), ({}, 0))]

    # --- calls ------------------------------------------------------------------------

    @rule(numbers=st.sets(st.integers(0, 9), min_size=1, max_size=4))
    def append(self, numbers: set[int]) -> None:
        """Pieces are recorded, a line each, in one write."""
        log = self.opened()
        pieces, covered = self.now
        fresh = [piece(n) for n in sorted(numbers - pieces.keys())]
        at = self.states[-1][0]
        log.append_pieces(fresh)
        for each in fresh:
            at += len(_manifest._records.piece_line(each))
            pieces = {**pieces, each.offset // 100: each}
            self.states.append((at, (pieces, covered)))
        assert at == self.size()

    @rule(count=st.integers(0, 10))
    def checkpoint(self, count: int) -> None:
        """So many first pieces are on the disk."""
        log = self.opened()
        pieces, covered = self.now
        count = min(count, len(pieces))
        log.checkpoint(count)
        self.states.append((self.size(), (pieces, max(covered, count))))

    @rule()
    def restart(self) -> None:
        """All is forgotten, from the new header on."""
        log = self.opened()
        begin = self.states[-1][0]
        changed = header(nonce=f"{len(self.states):04x}")
        log.restart(changed)
        lines = self.file.read_bytes()[begin:].splitlines(keepends=True)
        self.states.append((begin + sum(map(len, lines[:2])), ({}, 0)))
        self.states.append((self.size(), ({}, 0)))

    @rule(numbers=st.sets(st.integers(0, 9), max_size=3))
    def forget(self, numbers: set[int]) -> None:
        """Pieces that proved wrong are dropped; the log is written anew."""
        log = self.opened()
        pieces, covered = self.now
        gone = [p for n, p in pieces.items() if n in numbers]
        log.forget([p for p in log.pieces() if p.offset // 100 in numbers])
        if gone:
            still = sum(n not in numbers for n in list(pieces)[:covered])
            kept = {n: p for n, p in pieces.items() if n not in numbers}
            self.rewritten((kept, still))

    @rule()
    def compact(self) -> None:
        """The log is written anew, and says the same."""
        self.opened().compact()
        self.rewritten(self.now)

    def rewritten(self, state: State) -> None:
        """Note the states of a log that was written in one go."""
        data = self.file.read_bytes()
        self.states = []
        pieces: dict[int, Piece] = {}
        wanted = list(state[0].values())
        at = covered = 0
        for line in data.splitlines(keepends=True):
            at += len(line)
            if b'"t":"P"' in line:
                found = wanted[len(pieces)]
                pieces = {**pieces, found.offset // 100: found}
            if b'"t":"C"' in line:
                covered = state[1]
            self.states.append((at, (pieces, covered)))
        assert self.now == state

    # --- damage -----------------------------------------------------------------------

    def damaged(self, at: int) -> None:
        """Keep what the lines before a place say."""
        self.states = [(end, state) for end, state in self.states if end <= at]

    def place(self, share: int) -> int:
        """Give a place behind the header; the length depends on the time of day."""
        self.close()
        first = self.states[0][0]
        return first + share * (self.size() - first) // 10_000

    @precondition(lambda self: self.size() > self.states[0][0])
    @rule(share=shares)
    def tear(self, share: int) -> None:
        """The end is cut off, at any byte."""
        at = self.place(share)
        os.truncate(self.file, at)
        self.damaged(at)

    @precondition(lambda self: self.size() > self.states[0][0])
    @rule(share=shares, bit=st.integers(0, 7))
    def flip(self, share: int, bit: int) -> None:
        """A bit flips, at any byte."""
        self.opened()  # cut to what is good: a second flip could mend the first
        at = self.place(share)
        content = bytearray(self.file.read_bytes())
        content[at] ^= 1 << bit
        self.file.write_bytes(content)
        self.damaged(at)

    @precondition(lambda self: self.size() > self.states[0][0])
    @rule(share=shares, more=st.integers(0, 5000))
    def zero(self, share: int, more: int) -> None:
        """From any byte on there are zeros, as after a power cut."""
        at = self.place(share)
        end = self.size()
        os.truncate(self.file, at)
        os.truncate(self.file, end + more)
        self.damaged(at)

    @rule(garbage=st.binary(min_size=1, max_size=60))
    def add(self, garbage: bytes) -> None:
        """Something follows that is no record."""
        self.close()
        with self.file.open("ab") as file:
            file.write(garbage)

    @rule()
    def reopen(self) -> None:
        """An engine comes back."""
        self.close()
        self.opened()

    # --- what must hold ---------------------------------------------------------------

    @invariant()
    def says_what_the_model_says(self) -> None:
        """What is read is what was recorded before the damage, no more and no less."""
        if not self.states:
            return
        pieces, covered = self.now
        loaded = _manifest.load(self.directory, NAME)
        assert list(loaded.pieces) == list(pieces.values())
        assert loaded.checkpointed == covered
        assert loaded.bytes_valid == self.states[-1][0]
        if self.log is not None:
            assert list(self.log.pieces()) == list(pieces.values())

    def teardown(self) -> None:
        """Remove all."""
        self.close()
        self.directory.close()
        shutil.rmtree(self.path)


TestManifestMachine = ManifestMachine.TestCase
TestManifestMachine.settings = settings(max_examples=40, stateful_step_count=25)
