"""What `.dvcignore` leaves out: patterns as in `.gitignore`, read in every folder from the root down."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from noria.errors import InvalidInput

IGNORE_FILE = ".dvcignore"
_ALWAYS = (".hg/", ".git/", ".git", ".dvc/")


@dataclass(frozen=True, slots=True)
class _Pattern:
    """``expression`` matches what a path has after ``start`` characters, those of the pattern's folder."""

    start: int
    expression: re.Pattern[str]
    keeps: bool
    folders_only: bool


class Ignores:
    """The patterns that hold in a project. Paths are relative to its root, POSIX; the root itself is ""."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._of_folder: dict[str, tuple[_Pattern, ...]] = {}

    def match(self, path: str, *, is_folder: bool) -> bool:
        """Whether the last pattern that speaks of ``path``, or of a folder it is in, leaves it out."""
        folder, _, name = path.rpartition("/")
        above = bool(folder) and self.match(folder, is_folder=True)
        return above or self.leaves_out(folder, name, is_folder=is_folder)

    def leaves_out(self, folder: str, name: str, *, is_folder: bool) -> bool:
        """As ``match``, for a name in a folder that is known not to be left out."""
        path = f"{folder}/{name}" if folder else name
        slashed = f"{path}/" if is_folder else path
        for pattern in reversed(self._patterns(folder)):
            if is_folder or not pattern.folders_only:
                expression, start = pattern.expression, pattern.start
                if expression.fullmatch(path, start) or (is_folder and expression.fullmatch(slashed, start)):
                    return not pattern.keeps
        return False

    def _patterns(self, folder: str) -> tuple[_Pattern, ...]:
        if folder not in self._of_folder:
            above = self._patterns(folder.rpartition("/")[0]) if folder else tuple(_parsed(_ALWAYS, 0))
            self._of_folder[folder] = (*above, *self._read(folder))
        return self._of_folder[folder]

    def _read(self, folder: str) -> Iterator[_Pattern]:
        file = self._root / folder / IGNORE_FILE
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return
        except UnicodeDecodeError:
            raise InvalidInput(f"{file} is not UTF-8 text", remedy="Write its patterns in UTF-8.") from None
        yield from _parsed([line.strip() for line in lines], len(folder) + 1 if folder else 0)


def _parsed(lines: Iterable[str], start: int) -> Iterator[_Pattern]:
    for line in lines:
        if line and not line.startswith("#"):
            keeps = line.startswith("!")
            text = line[1:] if keeps else line
            if body := text.rstrip("/"):
                yield _Pattern(start, re.compile(_expression(body), re.DOTALL), keeps, text.endswith("/"))


def _expression(body: str) -> str:
    """The regular expression of a pattern; one without a slash before its end holds at any depth."""
    anchored, parts = "/" in body, body.removeprefix("/").split("/")
    written = "" if anchored else "(?:.+/)?"
    for place, part in enumerate(parts):
        last = place == len(parts) - 1
        if part == "**":
            written += ".*" if last else "(?:.+/)?"
        else:
            written += _part(part) + ("" if last else "/")
    return written


def _part(glob: str) -> str:
    """The regular expression of what stands between two slashes."""
    written, at = "", 0
    while at < len(glob):
        character = glob[at]
        at += 1
        if character == "*":
            written += "[^/]*"
        elif character == "?":
            written += "[^/]"
        elif character == "[" and (found := re.compile(r"[!^]?\]?(?:\\.|[^\]\\])*\]").match(glob, at)):
            inside = found[0][:-1]
            negated = inside[:1] in ("!", "^")
            inside = (inside[1:] if negated else inside).replace("[", "\\[").removeprefix("]")
            inside = ("\\]" if found[0].lstrip("!^")[:1] == "]" else "") + inside
            written += f"(?!/)[{'^' if negated else ''}{inside}]"
            at = found.end()
        elif character == "\\" and at < len(glob):
            written += re.escape(glob[at])
            at += 1
        else:
            written += re.escape(character)
    return written
