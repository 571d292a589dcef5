"""The text of a project's functions, which definitions are compared by."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from types import CodeType
from typing import Any


def source_text(function: Callable[..., Any]) -> str:
    """The text of ``function`` without its decorators; where there is none, what its bytecode says."""
    try:
        text = textwrap.dedent(inspect.getsource(function))
        defined = ast.parse(text).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):
        code = getattr(function, "__code__", None)
        return _bytecode(code) if code else f"{type(function).__module__}.{type(function).__qualname__}"
    return "".join(text.splitlines(keepends=True)[defined.lineno - 1 :]).rstrip()


def _bytecode(code: CodeType) -> str:
    """What ``code`` does, without where it stands."""
    constants = [_constant(one) for one in code.co_consts]
    return "\n".join([code.co_code.hex(), *code.co_names, *code.co_varnames, *code.co_freevars, *constants])


def _constant(value: object) -> str:
    if isinstance(value, CodeType):
        return _bytecode(value)
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)
