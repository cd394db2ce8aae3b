"""From a request head to its answer: routes, options, and the file that is selected."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from segdl.testing._answer import (
    Answer,
    Representation,
    login_page,
    page,
    plan,
    spoil,
)
from segdl.testing._files import RealFile, find_file
from segdl.testing._http import (
    REASONS,
    RequestHead,
    http_date,
    parse_head,
    parse_range,
)
from segdl.testing._send import Cut, Pace, Sender
from segdl.testing._site import Gate, Site
from segdl.testing._wire import Wire
from segdl.testing.content import Blob
from segdl.testing.faults import (
    Counts,
    Fault,
    Options,
    parse_options,
    split_query,
    strip_faults,
)
from segdl.testing.log import Record, RequestLog

__all__ = ["Responder", "Settings"]

# 2024-01-01; a blob's modification date is its seed later, so that a swap changes it.
_EPOCH = 1_704_067_200


class Settings(Protocol):
    """What can be set of an origin while it runs."""

    latency: float
    max_connections: int | None
    root: Path | None
    log: RequestLog


class _Refused(Exception):
    """There is no such file; the answer says so."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


class Responder:
    """
    Answers the requests of one connection.

    Args:
        settings: The origin's.
        wire: The connection.
        number: Of the connection, from 1.
        pace: Of the connection.
        site: The origin's memory.
        gate: Of all requests of the origin.
    """

    def __init__(
        self,
        settings: Settings,
        wire: Wire,
        number: int,
        pace: Pace,
        site: Site,
        gate: Gate,
    ) -> None:
        self._settings = settings
        self._wire = wire
        self._number = number
        self._pace = pace
        self._site = site
        self._gate = gate

    def respond(self, head: bytes) -> bool:
        """
        Answer one request.

        Args:
            head: Everything before the empty line.

        Returns:
            Whether the connection may serve another one.

        Raises:
            Cut: when a fault ended the connection.
            OSError: when the peer did.
        """
        try:
            request = parse_head(head)
        except ValueError as error:
            answer = page(400, f"{error}\n")
            request = RequestHead(
                method="", path="", query="", version="HTTP/1.0", headers={}
            )
            return self._respond(request, lambda *_: answer)
        return self._respond(request, self._decide)

    def _respond(
        self,
        request: RequestHead,
        decide: Callable[[RequestHead, Record, ExitStack], Answer],
    ) -> bool:
        record = Record(
            self._number,
            request.method,
            request.path,
            strip_faults(request.query),
            request.headers,
        )
        log = self._settings.log
        log.begin(record)
        complete = False
        try:
            with ExitStack() as stack:
                answer = decide(request, record, stack)
                if request.version == "HTTP/1.0" and answer.chunked:
                    answer.unframe()
                answer.close = answer.close or not request.keeps_alive
                sender = Sender(
                    self._wire,
                    self._pace,
                    record,
                    lambda fault: self._site.fire(request.path, fault),
                    lambda fault: self._site.swap(request.path, fault),
                )
                sender.send(answer, with_body=request.method != "HEAD")
                complete = True
        finally:
            log.finish(record, complete=complete)
        return not answer.close

    def _decide(self, request: RequestHead, record: Record, stack: ExitStack) -> Answer:
        try:
            options = parse_options(request.query)
        except ValueError as error:
            return page(400, f"{error}\n")
        self._pace.own_rate = options.rate
        latency = self._settings.latency
        if options.latency is not None:
            latency = options.latency
        if latency:
            self._pace.sleep(latency)
        if not self._enter(request.path, options, stack):
            return self._turn_away(options)
        counts = self._site.count(
            request.path,
            self._number,
            ranged=request.method == "GET" and "range" in request.headers,
        )

        def fire(fault: Fault) -> bool:
            return self._site.fire(request.path, fault)

        simple = self._simple(request)
        if simple is not None:
            return spoil(simple, request, options, counts, fire)
        try:
            representation = self._select(request, options, counts, stack)
        except _Refused as refusal:
            return refusal.answer
        wanted = parse_range(request.headers.get("range"), representation.size)
        if request.method == "GET" and wanted is not None and wanted[0] < wanted[1]:
            record.range = wanted
        return plan(request, representation, options, counts, fire)

    def _enter(self, path: str, options: Options, stack: ExitStack) -> bool:
        for gate, limit in (
            (self._gate, self._settings.max_connections),
            (self._site.gate(path), options.cap),
        ):
            if not gate.enter(limit):
                return False
            stack.callback(gate.leave)
        return True

    def _turn_away(self, options: Options) -> Answer:
        if options.over == "rst":
            self._wire.set_reset()
            raise Cut
        return page(503, "too many requests at the same time\n")

    def _simple(self, request: RequestHead) -> Answer | None:
        """Answer what is no file, or with a method files do not have."""
        path = request.path
        if path == "/login" or path.startswith("/login/"):
            return login_page()
        if request.method not in {"GET", "HEAD"}:
            return page(405, "GET and HEAD only\n", ("Allow", "GET, HEAD"))
        values = dict(split_query(request.query))
        if path == "/redirect" and "to" in values:
            status = _number(values.get("status", "302"))
            return page(status or 302, "elsewhere\n", ("Location", values["to"]))
        if path.startswith("/status/"):
            status = _number(path[len("/status/") :])
            if status is not None and 200 <= status <= 599:
                retry = values.get("retry")
                fields = () if retry is None else (("Retry-After", retry),)
                return page(status, f"{REASONS.get(status, 'Status')}\n", *fields)
        return None

    def _select(
        self, request: RequestHead, options: Options, counts: Counts, stack: ExitStack
    ) -> Representation:
        _, kind, *rest = [*request.path.split("/"), ""]
        if kind == "b" and len(rest) >= 2:
            return self._select_blob(request.path, rest, options, counts)
        root = self._settings.root
        if kind == "files" and root is not None:
            path = find_file(root, request.path[len("/files/") :])
            if path is not None:
                return _select_file(path, options, counts, stack)
        raise _Refused(page(404, "no such file; a blob is /b/SEED/SIZE\n"))

    def _select_blob(
        self, path: str, parts: list[str], options: Options, counts: Counts
    ) -> Representation:
        seed, size = _number(parts[0]), _number(parts[1])
        if seed is None or size is None:
            raise _Refused(page(404, "a blob is /b/SEED/SIZE, two numbers\n"))
        for fault in options.faults:
            where = fault.where
            unplaced = where.byte is None and where.at is None
            due = fault.kind in {"swap", "swapsame"} and unplaced
            if due and where.admits(counts) and self._site.fire(path, fault):
                self._site.swap(path, fault)
        try:
            stated = served = Blob(seed, size)
            swap = self._site.swapped(path)
            if swap is not None:
                served = Blob(
                    swap.number or 0, size if swap.size is None else swap.size
                )
                stated = stated if swap.kind == "swapsame" else served
        except ValueError as error:
            raise _Refused(page(404, f"{error}\n")) from None
        return Representation(
            source=served,
            size=served.size,
            etag=_etag(stated.etag, options.etag, counts),
            last_modified=_last_modified(
                options, http_date(_EPOCH + stated.seed % 10_000_000)
            ),
            digest=stated.digest,
        )


def _select_file(
    path: Path, options: Options, counts: Counts, stack: ExitStack
) -> Representation:
    file = RealFile(path)
    stack.callback(file.close)
    return Representation(
        source=file,
        size=file.size,
        etag=_etag(file.etag, options.etag, counts),
        last_modified=_last_modified(options, http_date(file.modified)),
    )


def _etag(tag: str, kind: str, counts: Counts) -> str | None:
    return {
        "strong": tag,
        "weak": f"W/{tag}",
        "none": None,
        "rotate": f'{tag[:-1]}-r{counts.request}"',
        "per-conn": f'{tag[:-1]}-c{counts.connection}"',
    }[kind]


def _last_modified(options: Options, date: str) -> str | None:
    stated = options.last_modified
    return {"auto": date, "none": None}.get(stated, stated)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 21 else None
