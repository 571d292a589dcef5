"""Strings in YAML exactly as DVC's serializer writes them: when they are quoted, and where they are folded.

DVC writes YAML 1.2 with ruamel.yaml. PyYAML follows 1.1 and folds elsewhere, so its dump gives other bytes: ``on`` is
quoted by one and not by the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_WIDTH = 80
_INDENT = 4
_BREAK = "\n" + " " * _INDENT
_NOT_TEXT = re.compile(
    r"""(?: true|True|TRUE|false|False|FALSE|null|Null|NULL|~|=|<<
    | [-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)? | [-+]?[0-9][0-9_]*[eE][-+]?[0-9]+
    | [-+]?\.[0-9_]+(?:[eE][-+][0-9]+)? | [-+]?\.(?:inf|Inf|INF) | \.(?:nan|NaN|NAN)
    | [-+]?0b[0-1_]+ | [-+]?0o?[0-7_]+ | [-+]?[0-9_]+ | [-+]?0x[0-9a-fA-F_]+
    | \d{4}-\d\d-\d\d
    | \d{4}-\d\d?-\d\d?(?:[Tt]|[ \t]+)\d\d?:\d\d:\d\d(?:\.\d*)?(?:[ \t]*(?:Z|[-+]\d\d?(?::\d\d)?))? )""",
    re.VERBOSE,
)
_MARKED = re.compile(r"""[#,\[\]{}&*!|>'"%@`] | [?:-](?:\s|$) | ---|\.\.\.""", re.VERBOSE)
_MARK_INSIDE = re.compile(r".:(?:\s|$)|\s\#", re.VERBOSE)


def scalar(text: str, *, column: int) -> str:
    """``text`` as the value of a mapping in a sequence, starting at ``column``.

    ``text`` holds no line breaks or control characters: names with those are refused before they are written.
    """
    if not (_NOT_TEXT.fullmatch(text) or _MARKED.match(text) or _MARK_INSIDE.search(text) or text != text.strip(" ")):
        return _plain(text, column)
    return _double_quoted(text, column + 1) if "'" in text else _single_quoted(text, column + 1)


def _words(text: str) -> Iterator[tuple[str, bool, bool]]:
    """Each run of spaces or of other characters; whether it is spaces, and whether it stands between words."""
    for run in re.finditer(r" +|[^ ]+", text):
        yield run[0], run[0][0] == " ", run.start() > 0 and run.end() < len(text)


def _plain(text: str, column: int) -> str:
    written = []
    for run, spaces, inside in _words(text):
        if (spaces and run == " " and inside and column >= _WIDTH) or (
            not spaces and column + len(run) > _WIDTH and column > _INDENT
        ):
            written.append(_BREAK)
            column = _INDENT
            if spaces:
                continue
        written.append(run)
        column += len(run)
    return "".join(written)


def _single_quoted(text: str, column: int) -> str:
    written = []
    for run, spaces, inside in _words(text):
        if spaces and run == " " and inside and column > _WIDTH:
            written.append(_BREAK)
            column = _INDENT
            continue
        written.append(run)
        column += len(run)
    return f"'{''.join(written)}'"


def _double_quoted(text: str, column: int) -> str:
    """Follows ruamel.yaml's writer step by step: where it breaks a line, and whether it escapes that break."""
    written: list[str] = []
    start = 0
    for end in range(len(text) + 1):
        if end == len(text) or text[end] in '"\\':
            written.append(text[start:end])
            column += end - start
            start = end
            if end < len(text):
                written.append("\\" + text[end])
                column += 2
                start = end + 1
        breakable = 0 < end < len(text) - 1 and (text[end] == " " or start >= end)
        if breakable and column + end - start > _WIDTH:
            escaped = _break_needs_escape(text, start, end)
            written.append(text[start:end] + ("\\" if escaped else "") + _BREAK)
            start, column = max(start, end), _INDENT
            if text[start] == " ":
                written.append("\\" if escaped else "")
                column += escaped
                start += not escaped
    return f'"{"".join(written)}"'


def _break_needs_escape(text: str, start: int, end: int) -> bool:
    space = text.find(" ", end)
    if space < 0 or space + 1 >= len(text):
        return True
    quoted = '"' in text[end:space] or "'" in text[end:space]
    return quoted or text[space + 1] == " " or text[end - 1 : end + 1] == "  " or start == end
