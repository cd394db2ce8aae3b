"""Requests on libcurl: one multi handle, its lanes, and the loop that drives them.

    commands ──> Transfers ── Exchange ── easy handle ──sockets──> origin
                    │            (a lane)
    events  <───────┘

This is the only module that imports pycurl. A lane goes through

    request ─> head ─┬─ redirect: request again ─> ...
                     ├─ refused by check_answer ─> Ended(failure)
                     └─ Answered ─> (held until Accept) ─> body ─> Ended

A held lane makes libcurl pause at the first body byte, so the bytes of the first,
useful request wait in the socket while the parent prepares the file.
"""

from __future__ import annotations

import math
import random
import selectors
import time
from collections.abc import Callable

import pycurl

from segdl import _retry
from segdl._answers import status_error
from segdl._bucket import Bucket
from segdl._bypass import Bypass
from segdl._exchange import Exchange
from segdl._fs import occupy_streams, release_streams
from segdl._headers import Head, HeadParser
from segdl._messages import (
    Accept,
    Answered,
    Configure,
    Ended,
    Fetch,
    Kept,
    Message,
    PartRef,
    Pieces,
    Progress,
    Shrunk,
    Split,
    failure_to_json,
)
from segdl._parts import Parts
from segdl._redaction import hide_echo, redact_text
from segdl._tls import TLS13_CIPHERS, authorities, has_aes
from segdl._urls import headers_for, origin, redact
from segdl._writebehind import WriteBehind
from segdl.errors import AddressRefused, SegdlError, StallError, TransferError

# 512 KiB a recv: 16 - 64 KiB need several times the system calls, more gains nothing.
# libcurl >= 8.7 has one such buffer for the whole multi handle.
_RECEIVE_BUFFER_BYTES = 512 * 1024
_MAX_RECEIVE_BUFFER_BYTES = 10 * 1024 * 1024  # libcurl's own limit

# 23 days: milliseconds that a C long of 32 bits holds.
_MOST_SECONDS = 2_000_000
# A connection below this for `timeout` seconds is stalled, or dribbles.
_LOW_SPEED_BYTES_PER_SECOND = 512

_PROGRESS_SECONDS = 0.1
# The first report comes sooner: how many lanes are opened depends on it (_ramp.py).
_FIRST_PROGRESS_SECONDS = 0.04
# Pieces wait this long for others, so that a fast transfer sends few messages.
_PIECES_SECONDS = 0.02
_MAX_PIECES_A_MESSAGE = 64
_THROTTLE_SECONDS = 0.01

# curl.h: pycurl has no name for it, and takes any option by its number.
_SUPPRESS_CONNECT_HEADERS = 265

# What the selector has beside a descriptor of the worker's own. Beside a socket it has
# the lane that reads it itself, or None for libcurl.
_FOREIGN = "foreign"

# libcurl uses no connection again that was idle for longer (CURLOPT_MAXAGE_CONN).
_MAX_IDLE_SECONDS = 118


class Transfers:
    """
    All lanes of one worker, on one multi handle.

    Args:
        emit: Called with each message for the parent; may block.
        beat: Called every second while the loop waits for the disk.
    """

    def __init__(
        self,
        emit: Callable[[Message], None],
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._emit = emit
        self._options = Configure(30.0, 8192, None, None, "segdl")
        self._lanes: dict[int, Exchange] = {}
        self._by_curl: dict[pycurl.Curl, Exchange] = {}
        self._pieces: list[tuple[int, int, int, str]] = []
        self._pieces_sent = 0.0
        self._progress_sent = 0.0
        self._used_seconds = 0.0
        self._timer: float | None = None
        self._silent_since = -math.inf
        self._streams: list[int] = []
        self._bucket: Bucket | None = None
        self._full: list[Exchange] = []
        self._selector = selectors.DefaultSelector()
        self._bypass = Bypass(self._selector)
        # Another TLS library than OpenSSL would refuse the option.
        self._prefer_aes128 = has_aes() and "OpenSSL" in pycurl.version
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_socket)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._on_timer)
        self._multi.setopt(pycurl.M_MAXCONNECTS, 256)
        self._behind = WriteBehind(beat)  # the last one: it starts a thread
        self._parts = Parts(self._behind)

    # --- commands ---------------------------------------------------------------------

    def configure(self, options: Configure) -> None:
        """Set what holds for all requests from now on."""
        self._options = options

    def fetch(self, fetch: Fetch) -> None:
        """Start a lane."""
        lane = Exchange(self, fetch)
        self._lanes[fetch.lane] = lane
        try:
            if fetch.part is not None:
                self._open_sink(lane, fetch.part, fetch.begin, fetch.end)
            self._request(lane)
        except SegdlError as error:
            lane.failure = error
            self._end(lane)

    def accept(self, accept: Accept) -> None:
        """Let a held lane write."""
        lane = self._lanes.get(accept.lane)
        if lane is None:
            return
        try:
            self._open_sink(lane, accept.part, accept.begin, accept.end)
            if lane.kept:
                lane.write_kept()
        except SegdlError as error:
            lane.failure = error
            self._end(lane)
            return
        lane.held = False
        early = _FIRST_PROGRESS_SECONDS - _PROGRESS_SECONDS
        self._progress_sent = time.monotonic() + early
        if lane.over is not None:
            self._finished(lane, lane.over, "")
        elif lane.full:
            self._end(lane)
        else:
            self._resume(lane)

    def split(self, split: Split) -> None:
        """Take a part of what is left from a lane."""
        lane = self._lanes.get(split.lane)
        if lane is not None and lane.sink is not None and not lane.full:
            self._emit(Shrunk(split.lane, lane.sink.split(split.kept)))

    def stop(self, number: int) -> None:
        """End a lane in good order."""
        lane = self._lanes.get(number)
        if lane is not None:
            self._end(lane)

    def limit(self, bytes_per_second: float | None) -> None:
        """Set the rate limit over all lanes, None for none."""
        if bytes_per_second is None:
            self._bucket = None
            for lane in list(self._lanes.values()):
                if lane.takes:
                    self._resume(lane)
        elif self._bucket is None:
            self._bucket = Bucket(bytes_per_second, time.monotonic())
        else:
            self._bucket.bytes_per_second = bytes_per_second

    def close(self) -> None:
        """
        Write and record what the lanes hold, and free everything.

        No lane is told of as ended: the end of a stream without a length would mean
        that it is complete.
        """
        try:
            for lane in list(self._lanes.values()):
                self._release_curl(lane)
                self._close_sink(lane)
        finally:
            self._behind.close()
            self._multi.close()
            self._selector.close()
            release_streams(self._streams)
        self._send_pieces(time.monotonic())

    def watch(self, fd: int) -> None:
        """Let `turn` tell when a foreign descriptor is readable."""
        self._selector.register(fd, selectors.EVENT_READ, _FOREIGN)

    # --- the loop ---------------------------------------------------------------------

    def turn(self, longest_seconds: float) -> list[int]:
        """
        Wait for sockets, timers and foreign descriptors, and serve the former.

        Args:
            longest_seconds: The longest wait.

        Returns:
            The foreign descriptors that are readable, such as the command pipe.
        """
        foreign = []
        for key, mask in self._selector.select(self._wait_seconds(longest_seconds)):
            if key.data is not None:
                if key.data is _FOREIGN:
                    foreign.append(key.fd)
                else:
                    self._receive(key.data)
                continue
            bits = 0
            if mask & selectors.EVENT_READ:
                bits |= pycurl.CSELECT_IN
            if mask & selectors.EVENT_WRITE:
                bits |= pycurl.CSELECT_OUT
            self._multi.socket_action(key.fd, bits)
            if self._full:
                self._end_full()
        now = time.monotonic()
        if self._timer is not None and now >= self._timer:
            self._timer = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
            self._end_full()
        self._collect()
        congested = self._behind.congested
        self._behind.settle()
        if congested or (self._bucket is not None and self._bucket.ready(now)):
            self._resume_paused()
        self._bypass.begin()
        if self._pieces and now - self._pieces_sent >= _PIECES_SECONDS:
            self._send_pieces(now)
        if now - self._progress_sent >= _PROGRESS_SECONDS:
            self._send_progress(now)
        return foreign

    def _wait_seconds(self, longest: float) -> float:
        if self._behind.congested:
            return 0.0  # lanes wait for their turn
        now = time.monotonic()
        if self._timer is not None:
            longest = min(longest, self._timer - now)
        if self._pieces:
            longest = min(longest, self._pieces_sent + _PIECES_SECONDS - now)
        if self._lanes:
            longest = min(longest, self._progress_sent + _PROGRESS_SECONDS - now)
            if self._bucket is not None:
                longest = min(longest, _THROTTLE_SECONDS)
        return max(0.0, longest)

    def _collect(self) -> None:
        """Take the transfers that libcurl has finished."""
        while True:
            queued, good, bad = self._multi.info_read()
            for curl in good:
                self._finished(self._by_curl[curl], 0, "")
            for curl, code, text in bad:
                self._finished(self._by_curl[curl], code, text)
            if not queued:
                return

    def _end_full(self) -> None:
        """End lanes that have all they want while their origin sends on."""
        while self._full:
            lane = self._full.pop()
            if self._lanes.get(lane.fetch.lane) is lane:
                self._end(lane)

    def _resume_paused(self) -> None:
        """Let lanes go on that rate limit or disk held up."""
        lanes = list(self._lanes.values())
        # In another order each time: the first ones take all there is.
        for lane in random.sample(lanes, len(lanes)):
            if lane.waiting and lane.takes:
                self._resume(lane)

    @property
    def limited(self) -> bool:
        """Whether `allow` has to be asked before bytes are taken."""
        return self._bucket is not None or self._behind.congested

    def is_full(self, lane: Exchange) -> None:
        """End a lane soon: not here, inside of libcurl's call."""
        self._full.append(lane)

    def allow(self, count: int) -> bool:
        """Ask the rate limit, and the disk, for bytes."""
        if self._behind.congested:
            return False  # commands first; `turn` lets the lane go on
        if self._bucket is not None:
            if not self._bucket.ready(time.monotonic()):
                return False
            self._bucket.take(count)
        return True

    # --- libcurl ----------------------------------------------------------------------

    def _on_socket(
        self, what: int, fd: int, _multi: pycurl.CurlMulti, _data: object
    ) -> None:
        """Watch a socket as libcurl asks."""
        if what == pycurl.POLL_REMOVE:
            if fd in self._selector.get_map():
                self._selector.unregister(fd)
            return
        events = 0
        if what in (pycurl.POLL_IN, pycurl.POLL_INOUT):
            events |= selectors.EVENT_READ
        if what in (pycurl.POLL_OUT, pycurl.POLL_INOUT):
            events |= selectors.EVENT_WRITE
        if fd in self._selector.get_map():
            self._selector.modify(fd, events)
        else:
            self._selector.register(fd, events)

    def _on_timer(self, milliseconds: int) -> None:
        self._timer = (
            None if milliseconds < 0 else time.monotonic() + milliseconds / 1000
        )

    def _request(self, lane: Exchange) -> None:
        """Send a lane's request, the first one or one after a redirect."""
        lane.parser = HeadParser()
        lane.ignored = 0
        lane.refused, lane.allowed = None, False
        # Else a program that prints into what it has closed would do so to the origin.
        self._streams += occupy_streams()
        curl = pycurl.Curl()
        lane.curl = curl
        try:
            self._set_up(curl, lane)
            self._multi.add_handle(curl)
        except pycurl.error as error:
            # A password of 8 MB, say: an exception that nobody takes ends the worker.
            raise TransferError(f"libcurl refused the request: {error}") from error
        self._by_curl[curl] = lane

    def _set_up(self, curl: pycurl.Curl, lane: Exchange) -> None:
        options = self._options
        curl.setopt(pycurl.URL, lane.url)
        curl.setopt(pycurl.HTTPHEADER, lane.request_fields())
        curl.setopt(pycurl.USERAGENT, options.user_agent)
        # HTTP/2 would fold the lanes of this multi handle into one TCP connection.
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        curl.setopt(pycurl.PATH_AS_IS, 1)  # presigned URLs are byte-exact
        curl.setopt(pycurl.FOLLOWLOCATION, 0)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.SSL_VERIFYPEER, 1)
        curl.setopt(pycurl.SSL_VERIFYHOST, 2)
        if self._prefer_aes128:
            curl.setopt(pycurl.TLS13_CIPHERS, TLS13_CIPHERS)
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(_SUPPRESS_CONNECT_HEADERS, 1)
        curl.setopt(pycurl.BUFFERSIZE, self._receive_buffer())
        timeout = min(options.timeout, _MOST_SECONDS)
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, max(1, int(timeout * 1000)))
        curl.setopt(pycurl.LOW_SPEED_LIMIT, self._low_speed())
        curl.setopt(pycurl.LOW_SPEED_TIME, max(1, math.ceil(timeout)))
        # Where one connection went silent the idle ones may be dead as well: the
        # machine has another address, say. Each would cost an attempt, of `timeout`.
        silent_seconds = time.monotonic() - self._silent_since
        if silent_seconds < _MAX_IDLE_SECONDS:
            # Some versions compare whole seconds, and 0 would mean no limit.
            curl.setopt(pycurl.MAXAGE_CONN, max(1, int(silent_seconds) - 1))
        ca_file = authorities(options.ca_file)
        if ca_file is not None:
            curl.setopt(pycurl.CAINFO, ca_file)
        if options.proxy is not None:
            curl.setopt(pycurl.PROXY, options.proxy)
        if options.allow_addresses == "public":
            from segdl._sockets import close_in_programs, open_public

            curl.setopt(
                pycurl.OPENSOCKETFUNCTION,
                lambda _, to: open_public(lane, to) or pycurl.SOCKET_BAD,
            )
            curl.setopt(pycurl.SOCKOPTFUNCTION, close_in_programs)
        curl.setopt(pycurl.HEADERFUNCTION, lane.on_header)
        curl.setopt(pycurl.WRITEFUNCTION, lane.on_body, use_memoryview=True)

    def _receive_buffer(self) -> int:
        wanted = max(_RECEIVE_BUFFER_BYTES, self._options.chunk_size)
        return min(wanted, _MAX_RECEIVE_BUFFER_BYTES)

    def _low_speed(self) -> int:
        """The stall limit, below what a rate limit leaves to each lane."""
        if self._bucket is None:
            return _LOW_SPEED_BYTES_PER_SECOND
        share = self._bucket.bytes_per_second / max(1, len(self._lanes))
        return max(1, min(_LOW_SPEED_BYTES_PER_SECOND, int(share / 4)))

    def _resume(self, lane: Exchange) -> None:
        """Let libcurl go on with a lane; it may hand over bytes at once."""
        if not lane.waiting or lane.curl is None:
            return
        lane.waiting = False
        if lane.socket is not None:
            self._bypass.go_on(lane)
            return
        try:
            lane.curl.pause(pycurl.PAUSE_CONT)
        except pycurl.error as error:
            self._finished(lane, *error.args)
        self._end_full()

    def _receive(self, lane: Exchange) -> None:
        """Let a lane read its socket."""
        if lane.socket is None:
            return  # it ended a moment ago
        try:
            more = lane.receive()
        except SegdlError as error:
            lane.failure = error
            more = False
        if not more:
            self._end(lane)
        elif lane.waiting:
            self._bypass.hold(lane)

    # --- the ends of a lane -----------------------------------------------------------

    def answered(self, lane: Exchange) -> None:
        """Tell the parent about an answer that passed every check."""
        answer = lane.answer
        assert answer is not None
        self._bypass.answered(lane)
        self._emit(
            Answered(
                lane.fetch.lane,
                lane.url,
                answer.ranges,
                answer.complete,
                answer.validator.to_json(),
                answer.disposition,
                [(d.algorithm, d.hex, d.source) for d in answer.digests],
                answer.accepts_ranges,
                answer.framed,
            )
        )

    def _finished(self, lane: Exchange, code: int, text: str) -> None:
        """Go on after libcurl has finished a request: redirect, wait, or end."""
        try:
            # Its head says all; whether its body came to the end does not matter.
            target = None if lane.failure is not None else lane.redirect()
            if target is not None:
                self._follow(lane, target)
                return
        except SegdlError as error:
            lane.failure = error
        if lane.failure is None and code != 0 and not lane.full:
            lane.failure = self._curl_failure(lane, code, text)
        if lane.failure is None and lane.held and lane.answer is not None:
            if not lane.fetch.keep:
                lane.over = code
                return
            if lane.full:
                lane.over = 0
                self._emit(Kept(lane.fetch.lane))
                return
            lane.failure = lane.shortfall()
        if lane.failure is None:
            lane.failure = lane.shortfall()
        self._end(lane)

    def _follow(self, lane: Exchange, target: str) -> None:
        """Request a redirect's target, without what belongs to the old origin."""
        self._release_curl(lane)
        lane.headers = headers_for(lane.headers, origin(lane.url), origin(target))
        lane.url = target
        lane.followed = len(lane.heads)
        self._request(lane)

    def _curl_failure(self, lane: Exchange, code: int, text: str) -> SegdlError:
        assert lane.curl is not None
        if code == pycurl.E_OPERATION_TIMEDOUT:
            self._went_silent()
        refusal = lane.curl.getinfo(pycurl.HTTP_CONNECTCODE)
        if refusal >= 300 and not lane.headed:
            # libcurl makes a connection that failed of it, and keeps its head.
            return status_error(Head(refusal, "", ()), by_proxy=True)
        if code == pycurl.E_COULDNT_CONNECT and lane.refused and not lane.allowed:
            return AddressRefused(
                f"{redact(lane.url)}: {lane.refused} is no public address, and "
                'allow_addresses is "public" (a proxy\'s address counts too)'
            )
        # A connection that is used again took no time: there the request tells.
        signs = (pycurl.CONNECT_TIME, pycurl.REQUEST_SIZE)
        connected = any(map(lane.curl.getinfo, signs)) or lane.headed
        return _retry.curl_error(
            code,
            f"{redact(lane.url)}: {redact_text(text)}",
            connected=connected,
            proxied=self._options.proxy is not None,
        )

    def _went_silent(self) -> None:
        """Note that a connection has been silent for `timeout`."""
        self._silent_since = time.monotonic() - self._options.timeout

    def _end(self, lane: Exchange) -> None:
        """Close a lane, write what it holds, and tell the parent."""
        self._release_curl(lane)
        self._lanes.pop(lane.fetch.lane, None)
        position = self._close_sink(lane)
        self._send_pieces(time.monotonic())
        failure = lane.failure
        row = None
        if failure is not None:
            for url in {lane.fetch.url, lane.url}:
                failure.message = hide_echo(failure.message, url, lane.fetch.headers)
            row = failure_to_json(failure, getattr(failure, "code", None))
        self._emit(Ended(lane.fetch.lane, position, lane.received, row))

    def _release_curl(self, lane: Exchange) -> None:
        curl, lane.curl = lane.curl, None
        self._bypass.end(lane)
        if curl is not None:
            lane.waiting = False
            if self._by_curl.pop(curl, None) is not None:
                self._multi.remove_handle(curl)
            curl.close()

    # --- files ------------------------------------------------------------------------

    def _open_sink(
        self, lane: Exchange, part: PartRef, begin: int, end: int | None
    ) -> None:
        """Give a lane its place in the part file."""
        number = lane.fetch.lane
        lane.sink = self._parts.open(
            part,
            begin,
            end,
            lambda *piece: self._pieces.append((number, *piece)),
        )
        lane.part = part

    def _close_sink(self, lane: Exchange) -> int:
        """Have a lane's bytes written and recorded; give the position after them."""
        if lane.sink is None or lane.part is None:
            return lane.fetch.begin
        try:
            try:
                return lane.sink.finish()
            finally:
                self._parts.close(lane.sink, lane.part)
        except SegdlError as error:
            lane.failure = error
            return lane.sink.written

    # --- reports ----------------------------------------------------------------------

    def _send_pieces(self, now: float) -> None:
        self._pieces_sent = now
        while self._pieces:
            self._emit(Pieces(self._pieces[:_MAX_PIECES_A_MESSAGE]))
            del self._pieces[:_MAX_PIECES_A_MESSAGE]

    def _end_stalled(self, now: float) -> None:
        """
        End lanes whose body has all but stopped for `timeout` seconds.

        libcurl's own low speed limit sees that 5 s later (8.x): the speed it compares
        is a mean over 5 s. It stays for what comes before the body.
        """
        # A turn that took longer waited for the disk, or the process was stopped.
        seconds = min(now - self._progress_sent, 2 * _PROGRESS_SECONDS)
        timeout = self._options.timeout
        for lane in list(self._lanes.values()):
            if lane.quiet(seconds, self._low_speed() * timeout) >= timeout:
                lane.failure = StallError(
                    f"{redact(lane.url)}: next to nothing came for {timeout:g} s"
                )
                self._went_silent()
                self._end(lane)

    def _send_progress(self, now: float) -> None:
        self._end_stalled(now)
        seconds, self._progress_sent = now - self._progress_sent, now
        rows = []
        received = 0
        for lane in list(self._lanes.values()):
            try:
                state = (lane.written(), lane.received)
            except SegdlError as error:
                lane.failure = error
                self._end(lane)
                continue
            if state != lane.reported:
                received += lane.received - max(0, lane.reported[1])
                lane.reported = state
                rows.append((lane.fetch.lane, *state))
        if rows:
            used, self._used_seconds = self._used_seconds, time.thread_time()
            busy = (self._used_seconds - used) / max(seconds, 1e-3)
            self._emit(Progress(rows, round(min(busy, 1.0), 2)))
        self._bypass.judge(self._lanes.values(), received / max(seconds, 1e-3))
