"""Where a download goes: its name, the rules for a taken one, what is there already.

    examine()  before anything is asked: opens the directory, looks at what is there
    prepare()  with the answer at hand: the final name is known
                 ├─ taken: a file is there that may be the wanted one, to be compared
                 ├─ found: an earlier run's pieces, which go with the answer
                 └─ neither: new files, or old ones for a new representation

Both wait for the disk, so they run on a helper thread; the store and what they find out
are then used on the scheduler's.
"""

from __future__ import annotations

from contextlib import suppress

from segdl._digests import new_hasher, parse_checksum
from segdl._existing import check_finished, check_flushed
from segdl._fs import PartFile
from segdl._headers import Validator
from segdl._left_names import name_left_by
from segdl._manifest import Header, url_digest
from segdl._messages import Answered
from segdl._names import SafeName, safe_name
from segdl._plan import piece_size
from segdl._redaction import hide_echo
from segdl._request import Request
from segdl._store import Found, Store
from segdl._urls import strip_secrets
from segdl.errors import DestinationBusy, DestinationExists


class Destination:
    """
    The files of one job.

    Args:
        request: Directory, name and URL.
        durability: As in `EngineConfig`.
        verified: Whether the caller's digest will be compared at the end, so that
            pieces may be combined which no strong validator holds together.

    Attributes:
        found: What an earlier run left and can be gone on with.
        owned: Whether part and manifest are of this URL, and not another's.
        taken: Whether the final name is, by a file that may be the wanted one.
    """

    def __init__(self, request: Request, durability: str, *, verified: bool) -> None:
        self.found: Found | None = None
        self.owned = False
        self.taken = False
        self._request = request
        self._durability = durability
        self._verified = verified
        self._url_sha256 = url_digest(request.identity)
        self._store: Store | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a store yet."""
        return self._store is not None

    @property
    def store(self) -> Store:
        """The store; there is one after `examine`."""
        assert self._store is not None
        return self._store

    @property
    def part(self) -> PartFile:
        """The part file; there is one after `prepare`, unless the name is taken."""
        assert self.store.part is not None
        return self.store.part

    @property
    def digests(self) -> list[tuple[str, str, str]]:
        """The earlier run's digest, which may be all that holds its pieces together."""
        found = self.found
        if self._verified or self.taken or not (found and found.header.digest):
            return []
        known = parse_checksum(found.header.digest)
        return [(known.algorithm, known.hex, "an earlier run")]

    @property
    def published_before(self) -> bool:
        """Whether an earlier run of this URL had finished all but the last step."""
        return self.store.published_url_sha256 == self._url_sha256

    def examine(self) -> None:
        """
        Open the directory, and look at what is there.

        Raises:
            DestinationBusy, DestinationExists, StorageError: The name is given, and
                can't be used.
        """
        store = self._store = Store(self._request.directory, self._durability)
        name = self._request.filename
        if name is not None:
            self.found = self._look(name)
            self.taken = self._is_taken()
        else:
            left = name_left_by(store.directory, self._url_sha256)
            guess = left or safe_name(self._request.urls[0], None)
            # What is wrong with a name that is only guessed does not matter yet.
            with suppress(DestinationBusy, DestinationExists):
                self.found = store.look(guess)
        self.owned = self._is_own(self.found)

    def prepare(
        self, answer: Answered, *, whole: bool, mirror: bool, conditional: bool
    ) -> None:
        """
        Have part and manifest for what was answered, unless the name is taken.

        Args:
            answer: Of the origin.
            whole: The origin has no ranges.
            mirror: It is another one than the first.
            conditional: If-Range was sent, so a 206 says that nothing changed.

        Raises:
            SizeLimitExceeded: The file is larger than is allowed.
            DestinationBusy, DestinationExists, DiskFull, StorageError: They can't be
                had.
        """
        store = self.store
        if self._request.filename is None:
            # What an earlier run of this URL left keeps the name it has.
            name = store.name
            if not self.owned:
                name = safe_name(self._request.urls[0], answer.disposition)
            if not self.owned or store.directory.exists(name):
                self.found = self._look(name)
        self.taken = self._is_taken()
        if self.taken or self.published_before:
            return
        self._request.check_size(answer.complete)
        try:
            self._prepare_files(answer, whole, mirror, conditional)
        except (DestinationBusy, DestinationExists):
            if self._request.on_exists != "rename":
                raise
            # Another download took the name meanwhile.
            self.found = self._look(store.name)
            self._prepare_files(answer, whole, mirror, conditional)

    def look_again(self) -> None:
        """Take up what this run has recorded."""
        self.store.settle()
        self.found = self.store.look(self.store.name)

    def resumable(self, found: Found) -> bool:
        """Tell whether pieces of an earlier run may be combined with new ones."""
        return bool(found.accepted or found.doubtful) and (
            found.header.validator.is_strong or self._verified
        )

    def _is_own(self, found: Found | None) -> bool:
        return found is not None and found.header.url_sha256 == self._url_sha256

    def _is_taken(self) -> bool:
        """Whether a file has the final name, and may be good enough."""
        store = self.store
        return self._request.on_exists == "reuse" and store.directory.exists(store.name)

    def _look(self, name: SafeName) -> Found | None:
        """Turn to the final name, by the rules for one that is taken."""
        store, policy = self.store, self._request.on_exists
        if policy == "rename":
            return store.look_free(name, self._url_sha256)
        found = store.look(name)
        if self.published_before or not store.directory.exists(name):
            return found
        if policy == "error":
            path = store.path
            store.release()
            raise DestinationExists(
                f"{path} exists; choose another name, or on_exists: reuse, overwrite "
                "or rename"
            )
        replace = self._request.on_exists == "overwrite"
        store.directory.check_replaceable(name, replace=replace)
        check_finished(store.directory, store.name, reuse=not replace)
        if self._durability == "none" and not (replace or self._verified):
            check_flushed(store.directory, store.name)
        return found

    def _prepare_files(
        self, answer: Answered, whole: bool, mirror: bool, conditional: bool
    ) -> None:
        """Create part and manifest, or take up those that fit."""
        store, size, found = self.store, answer.complete, self.found
        validator = Validator.from_json(answer.validator)
        digest = self._request.digest
        header = new_header(
            name=store.name,
            size=size,
            piece=piece_size(size or 0),
            validator=validator,
            url=self._request.urls[0],
            url_sha256=self._url_sha256,
            digest=None if digest is None else str(digest),
        )
        kept = None
        if (
            found is not None
            and not whole
            and found.header.size == size
            and self.resumable(found)
        ):
            kept = found
        if store.part is None:
            store.create(header)
        elif (
            kept is not None
            and self._is_of_the_file(kept)
            and self._fits(kept, validator, mirror=mirror, conditional=conditional)
        ):
            store.check_space(size or 0)
            known = kept.header.digest
            if known is not None and not self._verified:
                new_hasher(parse_checksum(known).algorithm)  # or say what it needs
            if not self._is_own(kept) or header.digest not in (None, known):
                store.adopt(header)
        elif found is not None and not self._is_own(found):
            raise DestinationExists(
                f"{store.part.path} is an unfinished download of "
                f"{found.header.url or 'another URL'}, and "
                f"{self._misfit(found, size, validator)}; go on with that one, remove "
                "it with `segdl clean`, or save under another name"
            )
        else:
            changed = found and found.header.validator.disagreement(validator)
            if kept and changed is None:
                store.dropped = (
                    "the origin tells no longer which version of the file it sends; "
                    "starting over"
                )
            elif (
                found
                and (found.accepted or found.doubtful)
                and found.header.size == size
                and not (kept or whole or changed)
            ):
                store.dropped = (
                    "the origin told nothing that proves the version (no strong ETag, "
                    "and no Last-Modified well before its Date), so what is there may "
                    "be of another one; starting over (a checksum would have kept it)"
                )
            self.found = None
            store.restart(header)
        self.owned = True

    def _is_of_the_file(self, found: Found) -> bool:
        """
        Whether an earlier run's URL and this one may lead to the same file.

        A validator tells versions of one resource apart, and says nothing of two
        (RFC 9110 s8.8.3): nginx gives equal tags to files of equal time and size.
        """
        request = self._request
        return (
            self._is_own(found)
            or self._verified
            or request.new_link
            or request.new_url is not None
            or self._is_link_of(found)
        )

    def _is_link_of(self, found: Found) -> bool:
        """Whether this URL and the earlier run's differ in their query at most."""
        return strip_secrets(self._request.urls[0]) == found.header.url

    def _fits(
        self, found: Found, validator: Validator, *, mirror: bool, conditional: bool
    ) -> bool:
        """Whether an earlier run's pieces belong to what the origin has now."""
        known = found.header.validator
        if self._verified:
            # The digest will tell; and mirrors have validators of their own.
            return mirror or known.disagreement(validator) is None
        # A 206 to If-Range may leave the date out, but not the tag (RFC 9110 s15.3.7).
        # Of another URL it may be said by a server that does not know If-Range.
        silent = validator == Validator() and known.etag is None
        own = self._is_own(found)
        return known.vouches_for(validator) or (conditional and silent and own)

    def _misfit(self, found: Found, size: int | None, validator: Validator) -> str:
        """Say why an earlier run's pieces are not taken up."""
        if found.header.size != size:
            return f"its length is {found.header.size}, not {size}"
        changed = found.header.validator.disagreement(validator)
        if changed is None and not self._is_of_the_file(found):
            return (
                "another URL is taken for another file (say that it is a new link to "
                "the same one with `segdl resume --url`, or give a checksum)"
            )
        if changed is None:
            return "nothing proves that this is the same file"
        return hide_echo(changed, self._request.urls[0], self._request.headers)


def new_header(
    *,
    name: SafeName,
    size: int | None,
    piece: int,
    validator: Validator,
    url: str,
    url_sha256: str,
    digest: str | None,
) -> Header:
    """Build a header whose part file is not made yet."""
    return Header(
        name=name,
        size=size,
        piece=piece,
        validator=validator,
        url_sha256=url_sha256,
        url=strip_secrets(url),
        digest=digest,
        dev=0,
        ino=0,
    )
