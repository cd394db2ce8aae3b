"""What every row of the matrix runs in, and what must hold after each.

    secrets ──> headers, userinfo, query, environment
                    │
    World.fetch ── engine ──> origin          (the secrets are meant for it)
        │            │  └───> other origins   (they must never see one)
        │         workers <── watched: command line, environment
        └─ check() ── I1 I2 I4 I5 I7 I8 I9 I10

I6 (nothing is left) holds for every test of the project: see tests/conftest.py. I3 (no
write outside the assigned range) shows as a wrong byte in a recorded piece, or in the
published file.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pickle
import secrets
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from http_checks import NAME, check_failed, check_requests, check_whole, file_digest

from segdl import DownloadEngine, DownloadTask
from segdl._fs import Directory
from segdl._manifest import load
from segdl.errors import ManifestError, SegdlError
from segdl.progress import TaskEvent
from segdl.testing import Blob, Origin

MIB = 1 << 20
_TASK_OPTIONS = frozenset({"checksum", "mirrors", "on_exists", "filename", "priority"})
_SMALL_BYTES = 4 * MIB


@dataclass(frozen=True)
class Secrets:
    """
    What must not be found where it was not meant for.

    Attributes:
        header: In the Authorization field.
        userinfo: The password in the URL.
        query: The signature in the URL's query.
        environment: The password of a proxy that the environment names.
    """

    header: str = field(default_factory=lambda: f"canary-h-{secrets.token_hex(8)}")
    userinfo: str = field(default_factory=lambda: f"canary-u-{secrets.token_hex(8)}")
    query: str = field(default_factory=lambda: f"canary-q-{secrets.token_hex(8)}")
    environment: str = field(default_factory=lambda: f"canary-e-{secrets.token_hex(8)}")

    def found_in(self, text: str) -> list[str]:
        """Name the secrets that a text holds."""
        return [name for name, value in vars(self).items() if value in text]


class World:
    """
    An origin, another one, a directory, and engines that are watched.

    Args:
        origin: The secrets are meant for it.
        other: They are not meant for it.
        out: The directory to save in; made when the first download is.
        patch: Sets environment variables for the time of the test.

    Attributes:
        origin, other, out: As given.
        secrets: Of this test.
        engines: Those that were made, the oldest first.
        tasks: Those that `start` and `fetch` made.
        events: What the engines told, in order.
        trusted: More origins that may see the secrets, such as the same one's proxy.
        damaged: Set by a row that damages the part itself, so that I2 can't hold.
        most_requests: I8, over all origins.
        most_bytes: I8, body bytes over all origins; None to leave it to the row.
    """

    def __init__(self, origin: Origin, other: Origin, out: Path, patch: Any) -> None:
        self.origin, self.other, self.out = origin, other, out
        self.secrets = Secrets()
        self.engines: list[DownloadEngine] = []
        self.tasks: list[DownloadTask] = []
        self.events: list[TaskEvent] = []
        self.trusted: list[Origin] = []
        self.origins = [origin, other]
        self.damaged = False
        self.most_requests = 400
        self.most_bytes: int | None = None
        self._blobs: list[Blob] = []
        self._before: dict[Path, bytes] = {}
        self._log = _Lines()
        self._workers = _Workers()
        password = self.secrets.environment
        for name in ("http_proxy", "https_proxy"):
            patch.setenv(name, f"http://proxy-user:{password}@127.0.0.1:9")
        patch.setenv("no_proxy", "127.0.0.1,localhost,::1")
        root = logging.getLogger()
        root.addHandler(self._log)
        self._level = logging.getLogger("segdl").level
        logging.getLogger("segdl").setLevel(logging.DEBUG)

    # --- doing ------------------------------------------------------------------------

    def url(
        self, size: int, *, seed: int = 1, origin: Origin | None = None, **options: Any
    ) -> str:
        """
        Give the URL of a blob, with secrets in it, and allow the blob's bytes.

        Args:
            size: Bytes.
            seed: Of the content.
            origin: Of the URL; None for the world's first.
            options: As `Origin.blob_url` takes them: etag, f, rate and so on.
        """
        at = origin or self.origin
        self.allow(at.blob(seed, size))
        plain = at.blob_url(seed, size, **options)
        return self.with_secrets(plain) if at is self.origin else plain

    def with_secrets(self, url: str) -> str:
        """Put a password and a signature into a URL."""
        scheme, _, rest = url.partition("://")
        joint = "&" if "?" in rest else "?"
        user = f"canary-user:{self.secrets.userinfo}@"
        return f"{scheme}://{user}{rest}{joint}signature={self.secrets.query}"

    def allow(self, blob: Blob) -> Blob:
        """Let a blob's bytes be published."""
        if blob not in self._blobs:
            self._blobs.append(blob)
        return blob

    def keep(self, path: Path, content: bytes) -> None:
        """Put a file there that must be intact afterwards, unless replaced whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self._before[path] = content

    def engine(self, **options: Any) -> DownloadEngine:
        """
        Make an engine with the matrix' settings.

        Args:
            options: Those of `DownloadEngine` that are to be others.
        """
        settings = {
            "connections": 4,
            "retry_times": 3,
            "retry_delay": 0.02,
            "timeout": 10,
            "progress_interval": 0.02,
            "processes": 0,
        }
        engine = DownloadEngine(**(settings | options))
        engine.register_event_callback(self.events.append)
        self.engines.append(engine)
        self._workers.watch()
        return engine

    def start(
        self, url: str, *, engine: DownloadEngine | None = None, **options: Any
    ) -> DownloadTask:
        """
        Begin a download.

        Args:
            url: As `url` gives it.
            engine: None for a new one.
            options: Of `DownloadEngine`, when a new one is made, and of `download`.
        """
        arguments = {k: v for k, v in options.items() if k in _TASK_OPTIONS}
        settings = {k: v for k, v in options.items() if k not in _TASK_OPTIONS}
        token = f"Bearer {self.secrets.header}"
        task = (engine or self.engine(**settings)).download(
            url,
            self.out,
            **({"filename": NAME, "headers": {"Authorization": token}} | arguments),
        )
        self.tasks.append(task)
        return task

    def fetch(self, url: str, *, wait: float = 20.0, **options: Any) -> DownloadTask:
        """
        Download to the end, well or ill, and shut the engine down.

        Args:
            url: As `url` gives it.
            wait: Deadline in seconds.
            options: As `start` takes them.
        """
        task = self.start(url, **options)
        ended = task.wait(wait)
        if "engine" not in options:
            self.engines[-1].shutdown(wait=False)
        assert ended, f"{task!r} {task.phase} after {wait} s"
        return task

    # --- seeing -----------------------------------------------------------------------

    def whole(self, task: DownloadTask, blob: Blob | None = None) -> None:
        """Check that a task completed with a blob's bytes: None for the first one's."""
        check_whole(task, blob or self._blobs[0])

    def failed(
        self, task: DownloadTask, kind: type[SegdlError], *words: str
    ) -> BaseException:
        """Check that a task failed with an error of exactly this class, with words."""
        return check_failed(task, kind, *words)

    def told(self, kind: str) -> list[dict[str, Any]]:
        """Give the fields of the events of a kind, in order."""
        return [dict(event.fields) for event in self.events if event.kind == kind]

    def recorded(self, name: str = NAME) -> int:
        """Count the bytes that a download left recorded; each is compared."""
        manifest = self.out / f"{name}.segdl"
        return self._recorded(manifest) if manifest.exists() else 0

    def clean_text(self, text: str, what: str) -> str:
        """Check that a text holds no secret, and give it."""
        assert not self.secrets.found_in(text), f"{what} holds a secret"
        return text

    # --- the end ----------------------------------------------------------------------

    def close(self) -> None:
        """Stop what runs."""
        for engine in self.engines:
            engine.shutdown(wait=False)
        self._workers.stop()
        logging.getLogger().removeHandler(self._log)
        logging.getLogger("segdl").setLevel(self._level)

    def check(self) -> None:
        """Check the invariants."""
        self._check_published()
        self._check_progress()
        self._check_secrets()
        self._check_requests()

    def _check_published(self) -> None:
        """I1, I2, I4 and I9: nothing but a whole file, or what was there before."""
        for task in self.tasks:
            path = Path(task.file_path or self.out / (task.filename or NAME))
            if task.status == "completed":
                assert self._is_allowed(path), f"I1: {path} is none of the blobs"
            elif path.is_file() and not self._is_allowed(path):
                assert path in self._before, f"I4: {path} is there, and is not whole"
        for path, content in self._before.items():
            intact = path.is_file() and path.read_bytes() == content
            assert intact or self._is_allowed(path), f"I9: {path} was damaged"
        if not self.damaged and self.out.is_dir():
            for manifest in self.out.glob("*.segdl"):
                self._recorded(manifest)

    def _is_allowed(self, path: Path) -> bool:
        size = path.stat().st_size if path.is_file() else -1
        found = [blob for blob in self._blobs if blob.size == size]
        return bool(found) and file_digest(path) in {b.digest() for b in found}

    def _recorded(self, manifest: Path) -> int:
        with Directory.open(manifest.parent, create=False) as directory:
            try:
                pieces = load(directory, manifest.name).pieces
            except ManifestError:
                return 0
        part = manifest.with_suffix(".part")
        assert manifest.stat().st_mode & 0o077 == 0, "the manifest is not private"
        if not part.is_file():
            return 0
        assert part.stat().st_mode & 0o077 == 0, "the part is not private"
        with part.open("rb") as file:
            for blob in self._blobs:
                for piece in pieces:
                    file.seek(piece.offset)
                    end = piece.offset + piece.length
                    if file.read(piece.length) != blob.read(piece.offset, end):
                        break
                else:
                    return sum(piece.length for piece in pieces)
        raise AssertionError(f"I2: the pieces {manifest} has are no blob's")

    def _check_progress(self) -> None:
        """
        I5: progress grows, and ends at the total.

        It may fall once after a "retry", which may begin anew: not at once, since the
        lanes of the old beginning write what they hold before they end.
        """
        reached: dict[str, int] = {}
        may_fall: set[str] = set()
        for event in self.events:
            task_id = event.task_id
            if event.kind in ("start", "retry", "resumed"):
                may_fall.add(task_id)
            if event.kind != "progress":
                continue
            now, total = event.fields["downloaded"], event.fields["total"]
            if now < reached.get(task_id, 0):
                assert task_id in may_fall, "I5: progress went back"
                may_fall.discard(task_id)
            assert not total or now <= total, "I5: more than everything"
            reached[task_id] = now
        for task in self.tasks:
            if task.status == "completed":
                assert (task.progress, task.downloaded_size) == (1.0, task.total_size)

    def _check_secrets(self) -> None:
        """I7: every secret is only where it was meant for."""
        self.clean_text("\n".join(self._log.lines), "the log")
        events = json.dumps([event.to_json() for event in self.events])
        self.clean_text(events, "an event")
        for task in self.tasks:
            self.clean_text(repr(task) + str(task.error), "a task")
            error = task.exception(0) if task.status == "failed" else None
            if error is not None:
                self.clean_text("".join(traceback.format_exception(error)), "an error")
                self.clean_text(repr(pickle.dumps(error)), "a pickled error")
                self.clean_text(repr(vars(error)), "an error's attributes")
        for path in sorted(self.out.rglob("*")) if self.out.is_dir() else []:
            self.clean_text(str(path), "a name")
            if path.is_file() and path.stat().st_size < _SMALL_BYTES:
                self.clean_text(path.read_bytes().decode("latin-1"), str(path))
        for what in self._workers.seen:
            self.clean_text(what, "a worker's command line or environment")
        for origin in self.origins:
            if origin is not self.origin and origin not in self.trusted:
                for request in origin.log.entries:
                    self.clean_text(repr(request), "a request to another origin")
        for request in self.origin.log.entries:
            assert self.secrets.environment not in repr(request)

    def _check_requests(self) -> None:
        """I8 and I10: requests are legal, and neither they nor the bytes too many."""
        for origin in self.origins:
            check_requests(origin)
        entries = [entry for origin in self.origins for entry in origin.log.entries]
        assert len(entries) <= self.most_requests, f"I8: {len(entries)} requests"
        sent = sum(entry.sent_bytes for entry in entries)
        assert self.most_bytes is None or sent <= self.most_bytes, f"I8: {sent} bytes"


class _Lines(logging.Handler):
    """Keep every line that is logged, with its traceback."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


class _Workers:
    """Look at the children of this process again and again, while engines run."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self._thread: threading.Thread | None = None
        self._over = threading.Event()

    def watch(self) -> None:
        """Begin, unless that was done."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.05):
            for pid in _children():
                for name in ("cmdline", "environ"):
                    with contextlib.suppress(OSError):
                        text = Path(f"/proc/{pid}/{name}").read_bytes()
                        self.seen.add(text.decode("latin-1"))


def _children() -> Iterator[str]:
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):
            yield from Path(f"/proc/self/task/{task}/children").read_text().split()
