"""What is asked of git: what it tracks and ignores, and what a revision holds."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from noria.errors import Conflict, InvalidInput, NotFound

_SPECIAL = re.compile(r"([\[\]!*#?])")


class Git:
    """The working tree at ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def tracked(self, path: Path) -> bool:
        """Whether git has ``path``, or something in it."""
        return bool(self._run("ls-files", "-z", "--", f":(literal){self._relative(path)}").stdout)

    def ignored(self, path: Path) -> bool:
        """Whether a .gitignore leaves ``path`` out."""
        return self._run("check-ignore", "--quiet", "--no-index", "--", self._relative(path)).returncode == 0

    def ignore(self, path: Path) -> Path | None:
        """Add ``path`` to the .gitignore beside it, as DVC does; that file, or None when it was ignored already."""
        if self.ignored(path):
            return None
        file = path.parent / ".gitignore"
        text = file.read_bytes() if file.exists() else b""
        line = "/" + _SPECIAL.sub(r"\\\1", path.name)
        with file.open("ab") as out:
            out.write(("" if text.endswith(b"\n") or not text else "\n").encode() + f"{line}\n".encode())
        return file

    def resolve(self, revision: str) -> str:
        """The commit that ``revision`` names. Raises NotFound."""
        found = self._run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        if found.returncode != 0:
            raise NotFound(f"git knows no revision {revision!r}", remedy="`git log` lists the commits.")
        return found.stdout.decode().strip()

    def files(self, commit: str) -> list[str]:
        """The paths of a commit's files, relative to the root."""
        listed = self._checked("ls-tree", "-r", "-z", "--name-only", "--full-tree", commit)
        return [name.decode(errors="surrogateescape") for name in listed.split(b"\0") if name]

    def read(self, commit: str, path: str) -> str:
        """The text of a file in a commit. Raises InvalidInput when it is not UTF-8."""
        try:
            return self._checked("show", f"{commit}:{path}").decode()
        except UnicodeDecodeError:
            raise InvalidInput(f"{path} is not UTF-8 text in {commit[:12]}", remedy="Restore it.") from None

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _checked(self, *arguments: str) -> bytes:
        done = self._run(*arguments)
        if done.returncode != 0:
            raise Conflict(
                f"git {arguments[0]} failed: {done.stderr.decode(errors='replace').strip()}",
                remedy="Mend the repository, then try again.",
            )
        return done.stdout

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(["git", *arguments], cwd=self.root, capture_output=True, check=False)


def find_git(folder: Path) -> Git | None:
    """The working tree that ``folder`` lies in, when there is one and the program git."""
    root = next((parent for parent in (folder, *folder.parents) if (parent / ".git").exists()), None)
    if root is None:
        return None
    git = Git(root)
    try:
        return git if _works(git) else None
    except FileNotFoundError:
        return None


def _works(git: Git) -> bool:
    done = git._run("rev-parse", "--show-toplevel")
    if done.returncode != 0 and b"dubious" in done.stderr:
        raise Conflict(
            f"git refuses the repository {git.root}: it belongs to somebody else",
            remedy=f"git config --global --add safe.directory {git.root}",
        )
    return done.returncode == 0
