"""Files in the making: written in a folder of their own, and moved to their place when they are whole."""
# ruff: noqa: PTH105, PTH108 - paths are strings here: for small files pathlib costs more than the disk

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

_ABANDONED_SECONDS = 3600
_numbers = itertools.count()


class Staging:
    """A folder for what is not whole yet; what a killed process left there is removed an hour later."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._prefix = f"{folder}/{os.getpid()}-{time.monotonic_ns()}-"
        self._made = False

    @contextlib.contextmanager
    def file(self) -> Iterator[str]:
        """A path that nobody else uses. What lies there goes to its place by ``settle``, or away when that fails."""
        if not self._made:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._clear()
            self._made = True
        path = f"{self._prefix}{next(_numbers)}"
        try:
            yield path
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            raise

    def settle(self, staged: str, target: str) -> None:
        """Let ``staged`` take the place of ``target``, at once for whoever looks at it; its folder is made."""
        try:
            os.replace(staged, target)
        except FileNotFoundError:
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            os.replace(staged, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._settle_elsewhere(Path(staged), Path(target))

    def _settle_elsewhere(self, staged: Path, target: Path) -> None:
        """``target`` lies in another file system: bring the file there under another name first."""
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{staged.name}.staged")
        try:
            shutil.copy2(staged, beside, follow_symlinks=False)
            beside.replace(target)
            staged.unlink()
        finally:
            beside.unlink(missing_ok=True)

    def _clear(self) -> None:
        for left in self._folder.iterdir():
            with contextlib.suppress(OSError):
                if time.time() - left.lstat().st_mtime > _ABANDONED_SECONDS:
                    left.unlink()
