"""Listening sockets: bound, or refused with a clear word."""

from __future__ import annotations

import contextlib
import resource
import socket
import stat
from collections.abc import Iterable
from pathlib import Path

from noria.errors import Unavailable

_ALL_READ = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH


def allow_many_connections() -> None:
    """Let this process open as many files as the system permits it: a connection is one, and most are given 1024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # macOS permits fewer than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A listening socket; ``shared`` lets other sockets have the same port, connections being spread over them.

    Raises Unavailable when the address is taken or not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise Unavailable(
            f"cannot listen on {host}:{port}: {error.strerror}",
            remedy="Choose another with --port, or end the process that has it.",
        ) from error
    return listener


def bind_unix(path: Path) -> socket.socket:
    """A listening Unix socket; one that nobody answers at any more is replaced. Raises Unavailable.

    To ask takes the right to write to it: whoever the umask lets read it gets that, such as a proxy with its own user.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_dead(path)
        listener.bind(str(path))
        mode = path.stat().st_mode
        path.chmod(stat.S_IMODE(mode) | (mode & _ALL_READ) >> 1)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise Unavailable(
            f"cannot listen on {path}: {error.strerror or error}",
            remedy="Choose another path, or end the process that has it.",
        ) from error
    return listener


def unix_paths(listeners: Iterable[socket.socket]) -> set[Path]:
    """The files of those that are Unix sockets."""
    return {Path(one.getsockname()) for one in listeners if one.family == socket.AF_UNIX}


def remove_unix(paths: Iterable[Path]) -> None:
    """Remove the files of Unix sockets that were closed; one that another process has bound anew is left alone."""
    for path in paths:
        with contextlib.suppress(OSError):  # what stays is replaced by the next to bind it
            _remove_dead(path)


def _remove_dead(path: Path) -> None:
    if path.exists() and stat.S_ISSOCK(path.stat().st_mode) and not _answers(path):
        path.unlink()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
