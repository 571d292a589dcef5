"""The code of a project's functions as bytes that another process can run."""

from __future__ import annotations

import inspect
import io
import pickletools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from types import ModuleType
from typing import Any

import msgspec

from noria.errors import InvalidData
from noria.features.referred_code import is_own, project_folder
from noria.features.sources import Field
from noria.features.transformation import Input, Transformation
from noria.features.transformation_modes import Mode
from noria.features.types import parse_type
from noria.structs import read_by_threads

_LARGEST_BYTES = 2**20
_NORIA = "noria"


@read_by_threads
class _Stored(msgspec.Struct):
    name: str
    python: tuple[int, int]
    inputs: list[tuple[str, str, str, bool]]
    outputs: list[tuple[str, str]]
    mode: Mode
    singleton: bool
    function: bytes


@read_by_threads
class _Kept(msgspec.Struct):
    python: tuple[int, int]
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
        function=_stored_function(transformation),
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


def packages_of(content: bytes) -> set[str]:
    """The distributions installed here that running what ``dump`` stored may take, by name; rather one too many.

    A pickle names modules as any other text, and so does the code in it for what it imports when it is called.
    """
    stored = msgspec.msgpack.decode(content, type=_Stored)
    texts = [text for _, text, _ in pickletools.genops(stored.function) if isinstance(text, str)]
    modules = {part for text in texts for part in text.replace("\n", " ").split(" ")[0].split(".")[:1]}
    known = metadata.packages_distributions()
    named = {name for module in modules for name in known.get(module, ()) if name != _NORIA}
    return named | {"cloudpickle", "polars"} | ({"pandas", "pyarrow"} if stored.mode == "pandas" else set())


_AGAIN = "Apply the project's definitions again with this version of Python and of Noria."


def dump_source(function: Callable[[], Any]) -> bytes:
    """A function that gives a source's rows, as another process can run it; empty for one that cannot be kept.

    That is one which holds on to what no process can be given, or to tables of more than ``_LARGEST_BYTES``.
    """
    try:
        content = _pickled(inspect.unwrap(function))
    except Exception:  # what a function holds on to fails in any way it likes; the project's code still has it
        return b""
    return msgspec.msgpack.encode(_Kept(sys.version_info[:2], content)) if len(content) <= _LARGEST_BYTES else b""


def load_source(content: bytes) -> Callable[[], Any] | None:
    """What ``dump_source`` stored; None when another version of Python, or with other packages, stored it."""
    import cloudpickle

    kept = msgspec.msgpack.decode(content, type=_Kept)
    if kept.python != sys.version_info[:2]:
        return None
    try:
        function: Callable[[], Any] = cloudpickle.loads(kept.function)
    except Exception:  # a pickle of a package that is gone or changed fails in any way it likes
        return None
    return function


def _stored_function(transformation: Transformation) -> bytes:
    try:
        return _pickled(transformation.function)
    except Exception as error:  # what a function holds on to fails in any way it likes
        raise InvalidData(
            f"on-demand feature view {transformation.name!r} cannot be stored: {type(error).__name__}: {error}",
            remedy="Open files, connections and locks inside the function, not around it.",
        ) from error


def _pickled(function: Callable[..., Any]) -> bytes:
    import cloudpickle

    content = io.BytesIO()
    with _by_value(_own_modules(function)):
        cloudpickle.dump(function, content)
    return content.getvalue()


def _own_modules(function: Callable[..., Any]) -> list[ModuleType]:
    """The loaded modules that lie in the folder the function comes from: the project's own, which no one installs."""
    folder = project_folder(inspect.unwrap(function))
    return [] if folder is None else [one for one in list(sys.modules.values()) if is_own(one, folder)]


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
