"""The project's own code that a function refers to: a change of a helper is a change of what calls it."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import date, time, timedelta, tzinfo
from decimal import Decimal
from enum import Enum
from functools import partial
from hashlib import sha256
from pathlib import Path, PurePath
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from noria.features.user_code import is_installed, source_text
from noria.project_files import CONFIG_FILE, FEAST_FILE

_SHOWN = 2000
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_PLAIN = (
    str,
    bytes,
    bool,
    int,
    float,
    complex,
    date,
    time,
    timedelta,
    tzinfo,
    Decimal,
    PurePath,
    re.Pattern,
    type(None),
)


def referred_code(function: Callable[..., Any]) -> dict[str, str]:
    """What ``function`` refers to, and what that refers to: place → text of code, or a constant's value.

    Functions, classes and values at the top of the project's own modules, closures and defaults count; packages that
    are installed do not. Of values that are no plain data, such as frames and fitted models, only the type counts.
    """
    root = _plain_function(function)
    if root is None:
        return {}
    found = _Found(project_folder(root), root.__module__)
    found.follow(root)
    return dict(sorted(found.texts.items()))


def project_folder(function: Callable[..., Any]) -> Path | None:
    """The folder of the project whose code ``function`` is; None for code that is in no file.

    That is the nearest one with a noria.toml or a feature_store.yaml, else the one its module is imported from.
    """
    module = sys.modules.get(getattr(function, "__module__", ""))
    code = getattr(function, "__code__", None)
    file = str(getattr(module, "__file__", None) or getattr(code, "co_filename", ""))
    path = Path(file).resolve()
    if not file or not path.is_file() or is_installed(str(path)):
        return None
    for folder in path.parents:
        if any((folder / mark).is_file() for mark in (CONFIG_FILE, FEAST_FILE)):
            return folder
    depth = 0 if module is None else module.__name__.count(".") + (path.name == "__init__.py")
    return path.parents[min(depth, len(path.parents) - 1)]


def is_own(module: ModuleType, folder: Path) -> bool:
    """Whether a loaded module is code of the project in ``folder``, which nobody installs."""
    file = getattr(module, "__file__", None)
    return file is not None and not is_installed(file) and Path(file).resolve().is_relative_to(folder)


@dataclass(slots=True)
class _Found:
    """What was found so far; ``module`` is where the search began, whose code counts wherever it lies."""

    folder: Path | None
    module: str
    texts: dict[str, str] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)

    def follow(self, function: FunctionType) -> None:
        """Look at everything that a function's names mean."""
        if id(function) in self.seen:
            return
        self.seen.add(id(function))
        names, space = _names(function.__code__), function.__globals__
        for name in names:
            if name in space:
                self._add(f"{self._place(function.__module__)}:{name}", space[name], names)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            self._add(f"{self._label(function)}.{name}", _content(cell), names)
        given = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        for number, value in enumerate(given):
            self._add(f"{self._label(function)}({number})", value, names)

    def _add(self, place: str, value: object, names: Sequence[str]) -> None:
        code = _plain_function(value)
        if isinstance(value, ModuleType):
            self._add_module(value, names)
        elif code is not None:
            self._add_function(code)
        elif isinstance(value, type):
            self._add_class(value)
        elif (text := self._text(value, names)) is not None:
            self.texts[place] = text if len(text) <= _SHOWN else f"sha256:{sha256(text.encode()).hexdigest()}"

    def _add_module(self, module: ModuleType, names: Sequence[str]) -> None:
        looked_up = hash((id(module), *names))
        if self.folder is None or not is_own(module, self.folder) or looked_up in self.seen:
            return
        self.seen.add(looked_up)
        for name in names:
            value = vars(module).get(name, _NOTHING)
            if value is not _NOTHING and value is not module:
                self._add(f"{self._place(module.__name__)}:{name}", value, names)

    def _add_function(self, function: FunctionType) -> None:
        if self._is_own(function) and id(function) not in self.seen:
            self.texts[self._label(function)] = source_text(function)
            self.follow(function)

    def _add_class(self, found: type) -> None:
        if not self._is_own(found) or id(found) in self.seen:
            return
        self.seen.add(id(found))
        try:
            self.texts[self._label(found)] = inspect.getsource(found).rstrip()
        except (OSError, TypeError):
            self.texts[self._label(found)] = found.__qualname__
        for base in found.__bases__:
            self._add_class(base)
        for value in vars(found).values():
            method = _plain_function(getattr(value, "fget", None) or getattr(value, "__func__", value))
            if method is not None and self._is_own(method):
                self.follow(method)

    def _text(self, value: object, names: Sequence[str]) -> str | None:
        """A value in words; what it holds may be code, too."""
        if isinstance(value, Enum):
            return repr(value.value)
        if isinstance(value, _PLAIN):
            return repr(value)
        if isinstance(value, Mapping):
            return repr([(self._text(key, names), self._text(one, names)) for key, one in value.items()])
        if isinstance(value, AbstractSet):
            return repr(sorted(str(self._text(one, names)) for one in value))
        if isinstance(value, list | tuple):
            return repr([self._text(one, names) for one in value])
        code = _plain_function(value)
        if code is not None or isinstance(value, type):
            self._add("", value, names)
            return getattr(value, "__qualname__", "")
        if self._is_own(type(value)):
            self._add_class(type(value))
            return _ADDRESS.sub("", repr(value))
        return f"{type(value).__module__}.{type(value).__qualname__}"

    def _is_own(self, code: FunctionType | type) -> bool:
        if code.__module__ == self.module:
            return True
        module = sys.modules.get(code.__module__ or "")
        return self.folder is not None and module is not None and is_own(module, self.folder)

    def _label(self, code: FunctionType | type) -> str:
        return f"{self._place(code.__module__)}:{code.__qualname__}"

    def _place(self, module: str) -> str:
        """A module by its file: the names of modules that are read from a repo are made up."""
        file = getattr(sys.modules.get(module), "__file__", None)
        if file is None or self.folder is None or not Path(file).resolve().is_relative_to(self.folder):
            return ""
        return Path(file).resolve().relative_to(self.folder).as_posix()


_NOTHING = object()


def _names(code: CodeType) -> list[str]:
    """The names a function and those inside it use, of globals and of attributes."""
    inner = (one for one in code.co_consts if isinstance(one, CodeType))
    return list(dict.fromkeys([*code.co_names, *(name for one in inner for name in _names(one))]))


def _plain_function(value: object) -> FunctionType | None:
    """The function inside decorators, methods and partial calls."""
    while isinstance(value, partial | MethodType) or hasattr(value, "__wrapped__"):
        value = getattr(value, "__wrapped__", None) or getattr(value, "func", None) or getattr(value, "__func__", None)
    return value if isinstance(value, FunctionType) else None


def _content(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None
