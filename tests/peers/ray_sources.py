"""Sources that misbehave in the workers of Ray, which import this module."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from noria.features import FileSource


@dataclass(frozen=True, kw_only=True)
class Dying(FileSource):
    """A file whose readers are killed, so many of them; whoever made the source may read it."""

    kills: int
    owner_process: int = field(default_factory=os.getpid)

    def scan(self, folder: Path) -> pl.LazyFrame:
        if os.getpid() != self.owner_process and len(list(folder.glob("killed-*"))) < self.kills:
            (folder / f"killed-{os.getpid()}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().scan(folder)


@dataclass(frozen=True, kw_only=True)
class Held(FileSource):
    """A file beside something that no other process can be given."""

    held: object = field(default_factory=lambda: (one for one in ()))
