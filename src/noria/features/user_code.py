"""What a project's functions say: their text, which definitions are compared by, and where they fail."""

from __future__ import annotations

import ast
import inspect
import sysconfig
import textwrap
import traceback
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import Any

_HERE = str(Path(__file__).parents[1])
_INSTALLED = (_HERE, *{sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})


def source_text(function: Callable[..., Any]) -> str:
    """The text of ``function`` without its decorators; where there is none, what its bytecode says."""
    try:
        text = textwrap.dedent(inspect.getsource(function))
        defined = ast.parse(text).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):
        code = getattr(function, "__code__", None)
        return _bytecode(code) if code else f"{type(function).__module__}.{type(function).__qualname__}"
    return "".join(text.splitlines(keepends=True)[defined.lineno - 1 :]).rstrip()


def is_installed(file: str) -> bool:
    """Whether code of that file is a package's or Python's, not the project's."""
    return (
        "site-packages" in file or "dist-packages" in file or file.startswith(_INSTALLED) or file.startswith("<frozen")
    )


def place_of(function: Callable[..., Any]) -> str:
    """File, line and name of a function, as a person looks for it."""
    function = inspect.unwrap(function)
    code = getattr(function, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}, in {code.co_name}" if code else repr(function)


def failed_at(error: BaseException, function: Callable[..., Any]) -> str:
    """The last line of the project's code on the way to an error that ``function`` raised."""
    frames = [one for one in traceback.extract_tb(error.__traceback__) if not is_installed(one.filename)]
    return f"{frames[-1].filename}:{frames[-1].lineno}, in {frames[-1].name}" if frames else place_of(function)


def _bytecode(code: CodeType) -> str:
    """What ``code`` does, without where it stands."""
    constants = [_constant(one) for one in code.co_consts]
    return "\n".join([code.co_code.hex(), *code.co_names, *code.co_varnames, *code.co_freevars, *constants])


def _constant(value: object) -> str:
    if isinstance(value, CodeType):
        return _bytecode(value)
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)
