"""The code of a project's functions as bytes that another process can run."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from noria.errors import InvalidData
from noria.features.sources import Field
from noria.features.transformation import Input, Transformation
from noria.features.transformation_modes import Mode
from noria.features.types import parse_type


class _Stored(msgspec.Struct):
    name: str
    python: tuple[int, int]
    inputs: list[tuple[str, str, str, bool]]
    outputs: list[tuple[str, str]]
    mode: Mode
    singleton: bool
    function: bytes


def dump(transformation: Transformation) -> bytes:
    """All that another process needs to run it: the function too, with what the project's own modules give it.

    Installed packages are only named. Raises InvalidData for a function that cannot be stored.
    """
    stored = _Stored(
        name=transformation.name,
        python=sys.version_info[:2],
        inputs=[(one.source, one.name, str(one.dtype), one.requested) for one in transformation.inputs],
        outputs=[(one.name, str(one.dtype)) for one in transformation.outputs],
        mode=transformation.mode,
        singleton=transformation.singleton,
        function=_pickled(transformation),
    )
    return msgspec.msgpack.encode(stored)


def load(content: bytes) -> Transformation:
    """What ``dump`` stored. It is code: load only what somebody you trust has stored.

    Raises InvalidData when another version of Python stored it, or a package it needs is not installed.
    """
    import cloudpickle

    try:
        stored = msgspec.msgpack.decode(content, type=_Stored)
    except msgspec.DecodeError as error:
        raise InvalidData(f"these bytes are no stored on-demand feature view: {error}", remedy=_AGAIN) from None
    if stored.python != sys.version_info[:2]:
        raise InvalidData(
            f"on-demand feature view {stored.name!r} was stored by Python {'.'.join(map(str, stored.python))}, "
            f"and this is {'.'.join(map(str, sys.version_info[:2]))}",
            remedy=_AGAIN,
        )
    try:
        function = cloudpickle.loads(stored.function)
    except Exception as error:  # a pickle of a package that is gone or changed fails in any way it likes
        raise InvalidData(
            f"on-demand feature view {stored.name!r} cannot be loaded: {type(error).__name__}: {error}",
            remedy="Install the packages it uses, in the versions of the project that defined it.",
        ) from error
    inputs = tuple(Input(source, name, parse_type(dtype), asked) for source, name, dtype, asked in stored.inputs)
    outputs = tuple(Field(name=name, dtype=parse_type(dtype)) for name, dtype in stored.outputs)
    return Transformation(stored.name, inputs, outputs, stored.mode, stored.singleton, function)


_AGAIN = "Apply the project's definitions again with this version of Python and of Noria."


def _pickled(transformation: Transformation) -> bytes:
    import cloudpickle

    content = io.BytesIO()
    with _by_value(_own_modules(transformation.function)):
        try:
            cloudpickle.dump(transformation.function, content)
        except Exception as error:  # what a function holds on to fails in any way it likes
            raise InvalidData(
                f"on-demand feature view {transformation.name!r} cannot be stored: {type(error).__name__}: {error}",
                remedy="Open files, connections and locks inside the function, not around it.",
            ) from error
    return content.getvalue()


def _own_modules(function: Callable[..., Any]) -> list[ModuleType]:
    """The loaded modules that lie in the folder the function comes from: the project's own, which no one installs."""
    module = sys.modules.get(getattr(function, "__module__", ""))
    file = getattr(module, "__file__", None)
    if module is None or file is None:
        return []
    folder = Path(file).resolve().parents[module.__name__.count(".") + (Path(file).name == "__init__.py")]
    own = [one for one in list(sys.modules.values()) if _lies_in(one, folder)]
    return [] if folder.name in ("site-packages", "dist-packages") else own


def _lies_in(module: ModuleType, folder: Path) -> bool:
    file, package = getattr(module, "__file__", None), module.__name__.partition(".")[0]
    if file is None or "site-packages" in file or package == "noria" or package in sys.stdlib_module_names:
        return False
    return Path(file).resolve().is_relative_to(folder)


@contextmanager
def _by_value(modules: Sequence[ModuleType]) -> Iterator[None]:
    import cloudpickle

    held = cloudpickle.list_registry_pickle_by_value()
    mine = [one for one in modules if one.__name__ not in held and sys.modules.get(one.__name__) is one]
    for one in mine:
        cloudpickle.register_pickle_by_value(one)
    try:
        yield
    finally:
        for one in mine:
            cloudpickle.unregister_pickle_by_value(one)
