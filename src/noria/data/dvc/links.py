"""How a file of the cache gets into the workspace, and back: reflink, hard link, symbolic link or copy."""
# ruff: noqa: PTH108, PTH123, PTH211 - paths are strings here: for small files pathlib costs more than the disk

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Sequence
from enum import StrEnum

from noria.errors import Unavailable

_FICLONE = 0x40049409  # ioctl of btrfs, XFS, bcachefs, ...: share the blocks until one side writes
_UNSUPPORTED = {errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EXDEV, errno.EPERM, errno.ENOSYS, errno.EMLINK}


class LinkKind(StrEnum):
    """The kinds that DVC's ``cache.type`` names. Through a hard or symbolic link a file is read-only."""

    REFLINK = "reflink"
    HARDLINK = "hardlink"
    SYMLINK = "symlink"
    COPY = "copy"

    @property
    def shares(self) -> bool:
        """Whether writing to the one side would change the other."""
        return self in (LinkKind.HARDLINK, LinkKind.SYMLINK)


def link(source: str, target: str, kinds: Sequence[LinkKind]) -> LinkKind:
    """Make ``target``, which does not exist, by the first of ``kinds`` that the file system can; tells which.

    Raises Unavailable when it can none of them.
    """
    for kind in kinds:
        try:
            _MAKERS[kind](source, target)
        except OSError as error:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(target)
            if error.errno not in _UNSUPPORTED:
                raise
        else:
            return kind
    raise Unavailable(
        f"{source} cannot be linked to {target}: their file systems do none of {', '.join(kinds)}",
        remedy="Let cache.type in .dvc/config end with copy.",
    )


def _reflink(source: str, target: str) -> None:
    with open(source, "rb", buffering=0) as given, open(target, "xb", buffering=0) as made:
        fcntl.ioctl(made.fileno(), _FICLONE, given.fileno())


def _hardlink(source: str, target: str) -> None:
    os.link(os.path.realpath(source), target)


def _symlink(source: str, target: str) -> None:
    os.symlink(os.path.realpath(source), target)


_MAKERS: dict[LinkKind, Callable[[str, str], object]] = {
    LinkKind.REFLINK: _reflink,
    LinkKind.HARDLINK: _hardlink,
    LinkKind.SYMLINK: _symlink,
    LinkKind.COPY: shutil.copyfile,
}
