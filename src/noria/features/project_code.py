"""The definitions that the Python files of a feature store's folder hold."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from noria.errors import InvalidConfig, NoriaError
from noria.features.catalog import Definition
from noria.features.definitions import Entity, FeatureService, FeatureView
from noria.features.on_demand import OnDemandFeatureView
from noria.features.sources import RequestSource, Source

_SKIPPED = re.compile(r"^(\.|_|test)|^(train|conftest|setup)\.py$|_test\.py$")


def read_definitions(folder: Path) -> list[Definition]:
    """Every definition at the top level of the Python files in ``folder``, a name once.

    Raises InvalidConfig naming file and line of what cannot be imported, and two definitions of one name.
    """
    found: dict[tuple[str, str], tuple[Definition, Path]] = {}
    sys.path.insert(0, str(folder))
    try:
        for path in _python_files(folder):
            for definition in _defined(_import(path)):
                kind = type(definition).__name__
                other, place = found.setdefault((kind, definition.name), (definition, path))
                if other is not definition and other.document() != definition.document():
                    raise InvalidConfig(
                        f"{kind} {definition.name!r} is defined in {place.name} and, otherwise, in {path.name}",
                        remedy="Give one of them another name.",
                    )
    finally:
        sys.path.remove(str(folder))
    return [definition for definition, _ in found.values()]


def _python_files(folder: Path) -> list[Path]:
    paths = (path for path in folder.rglob("*.py") if path.is_file())
    return sorted(path for path in paths if not any(map(_SKIPPED.search, path.relative_to(folder).parts)))


def _import(path: Path) -> Any:
    name = f"noria_repo_{path.stem}_{abs(hash(path))}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except NoriaError as error:
        raise InvalidConfig(f"{path.name}: {error.message}", remedy=error.remedy) from error
    except Exception as error:
        line = getattr(error, "lineno", None) or _line(error, path)
        raise InvalidConfig(
            f"{path.name}, line {line}: {type(error).__name__}: {error}", remedy=f"Mend {path}."
        ) from error
    return module


def _line(error: Exception, path: Path) -> int | str:
    trace, found = error.__traceback__, "?"
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            found = str(trace.tb_lineno)
        trace = trace.tb_next
    return found


def _defined(module: Any) -> Iterator[Definition]:
    kinds = Entity | FeatureView | OnDemandFeatureView | FeatureService | Source | RequestSource
    for value in vars(module).values():
        if isinstance(value, kinds):
            yield value
        elif isinstance(value, list | tuple):
            yield from (item for item in value if isinstance(item, kinds))
