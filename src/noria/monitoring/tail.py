"""Following the prediction log: what was appended since the last look, and only that."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from noria.monitoring.segments import frames, segments

_PIECE_BYTES = 32 * 2**20


class Tail:
    """The frames of one kind of record, each given once, of the segments that were written to since an instant.

    Segments lie by their rows' event times, which may be any: when they were written is what tells. A frame that is not
    whole yet is given by a later look.
    """

    def __init__(self, root: Path, kind: str, since: datetime) -> None:
        self._folder, self._since = root / kind, since.timestamp()
        self._offsets: dict[Path, int] = {}

    def read(self) -> Iterator[bytes]:
        """The payloads of the frames that are new."""
        for segment in segments(self._folder):
            try:
                stat = segment.stat()
            except FileNotFoundError:
                continue
            if stat.st_mtime >= self._since and stat.st_size > self._offsets.get(segment, 0):
                yield from self._new_frames(segment)

    def _new_frames(self, segment: Path) -> Iterator[bytes]:
        offset = self._offsets.get(segment, 0)
        with segment.open("rb") as file:
            wanted = _PIECE_BYTES
            while True:
                file.seek(offset)
                content = file.read(wanted)
                taken = 0
                for taken, payload in frames(content):
                    self._offsets[segment] = offset + taken
                    yield payload
                if len(content) < wanted:
                    return
                offset += taken
                wanted = _PIECE_BYTES if taken else 2 * wanted  # a frame larger than the piece
