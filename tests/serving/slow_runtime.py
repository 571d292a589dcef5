"""A runtime that another package brings: its models load, and answer, once a pipe each says so."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import IO

import pytest

from noria.optimize.bundle import Bundle, write_bundle
from noria.rollout.routes import Variant
from noria.store.blobs import folder_digest

_PACKAGE = """
from pathlib import Path

class Held:
    inline, concurrency = False, 1

    def __init__(self, folder, bundle):
        self.answers = bundle.options["answers"]
        Path(bundle.options["loads"]).read_bytes()

    def score(self, rows):
        Path(self.answers).read_bytes()
        return rows.numbers.sum(axis=1)

    def unload(self):
        pass
"""


class HeldModels:
    """Models of that runtime. Opening a pipe waits for whoever reads it, and reading for who has it open."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._root, self._pipes = root, list[Path]()
        metadata = root / "site/held-1.0.dist-info"
        metadata.mkdir(parents=True)
        (root / "site/held.py").write_text(_PACKAGE)
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: held\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text("[noria.runtimes]\nheld = held:Held\n")
        monkeypatch.syspath_prepend(str(root / "site"))

    def add(self, version: int, *waits_at: str) -> Variant:
        """A version that waits at ``loads``, ``answers``, or both."""
        source = f"models/held/{version}"
        folder = self._root / "artifacts" / source
        folder.mkdir(parents=True)
        options = dict.fromkeys(("loads", "answers"), "/dev/null")
        for name in waits_at:
            options[name] = str(self._root / f"{name}-{version}")
            os.mkfifo(options[name])
            self._pipes.append(Path(options[name]))
        write_bundle(folder, Bundle("regression", ("a",), runtime="held", options=options))
        return Variant("champion", "held", version, source, folder_digest(folder), 100.0)

    def let_go(self) -> None:
        """Let everybody go on who waits at a pipe, or will: a test that failed must not keep a process from ending."""
        for pipe in self._pipes:
            held = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
            pipe.unlink()
            pipe.touch()
            os.close(held)

    async def reached(self, version: int, step: str) -> IO[bytes]:
        """What holds a model that waits at a step, once it does; it goes on when that is closed."""
        return await asyncio.to_thread((self._root / f"{step}-{version}").open, "wb")
