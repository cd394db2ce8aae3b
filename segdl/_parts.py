"""The part files of one worker: lanes that write to the same one share its descriptors.

Parts.open(PartRef) ──> Sink ──> PartWriter (one for each file)
Parts.close(Sink)   ──> the last one closes it
"""

from __future__ import annotations

from collections.abc import Callable

from segdl._fs import PartWriter
from segdl._messages import PartRef
from segdl._sink import Sink
from segdl._writebehind import WriteBehind


class Parts:
    """
    Open part files.

    Args:
        behind: Writes for all of them.
    """

    def __init__(self, behind: WriteBehind) -> None:
        self._behind = behind
        self._writers: dict[PartRef, tuple[PartWriter, int]] = {}

    def open(
        self,
        part: PartRef,
        begin: int,
        end: int | None,
        on_piece: Callable[[int, int, str], None],
    ) -> Sink:
        """
        Give a lane its place in a part file.

        Args:
            part: The file.
            begin: Offset of the lane's first byte.
            end: One past its last, None for all that comes.
            on_piece: As `Sink` takes it.

        Raises:
            StorageError: The file can't be opened, or there is no memory.
        """
        writer, users = self._writers.get(part, (None, 0))
        if writer is None:
            writer = PartWriter(part.path, (part.device, part.inode), part.direct)
        try:
            sink = Sink(
                writer,
                begin,
                end,
                piece=part.piece,
                behind=self._behind,
                on_piece=on_piece,
            )
        except Exception:
            if not users:
                writer.close()
            raise
        self._writers[part] = (writer, users + 1)
        return sink

    def close(self, sink: Sink, part: PartRef) -> None:
        """
        Take a place back that was finished.

        Raises:
            StorageError: The file system writes late, and could not.
        """
        self._behind.give_buffer(sink.buffer)
        writer, users = self._writers.pop(part)
        if users > 1:
            self._writers[part] = (writer, users - 1)
        else:
            writer.close()
