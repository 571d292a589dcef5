"""The definitions that the Python files of a feature store's folder hold."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from noria.errors import InvalidConfig, NoriaError
from noria.features.catalog import Definition
from noria.features.definitions import Entity, FeatureService, FeatureView
from noria.features.on_demand import OnDemandFeatureView
from noria.features.referred_code import is_own
from noria.features.sources import RequestSource, Source
from noria.features.user_code import is_installed

_SKIPPED = re.compile(r"^(\.|_|test)|^(train|conftest|setup)\.py$|_test\.py$")


def read_definitions(folder: Path) -> list[Definition]:
    """Every definition at the top level of the Python files in ``folder``, a name once.

    Raises InvalidConfig naming file and line of what cannot be imported, and two definitions of one name.
    """
    found: dict[tuple[str, str], tuple[Definition, Path]] = {}
    with importing_from(folder):
        for path in _python_files(folder):
            for definition in _defined(_import(path)):
                kind = type(definition).__name__
                other, place = found.setdefault((kind, definition.name), (definition, path))
                if other is not definition and other.document() != definition.document():
                    raise InvalidConfig(
                        f"{kind} {definition.name!r} is defined in {place.name} and, otherwise, in {path.name}",
                        remedy="Give one of them another name.",
                    )
    return [definition for definition, _ in found.values()]


@contextmanager
def importing_from(folder: Path) -> Iterator[None]:
    """While it is open, modules of ``folder`` are found, as they are now.

    What was imported of them before is read again, and modules of another project that go by the same names give way.
    """
    provided = {path.stem if path.suffix == ".py" else path.name for path in folder.iterdir()}
    for name, module in list(sys.modules.items()):
        same_name = name.partition(".")[0] in provided and _is_a_projects(module)
        if name != "__main__" and (same_name or is_own(module, folder.resolve())):
            del sys.modules[name]
    importlib.invalidate_caches()
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _is_a_projects(module: ModuleType) -> bool:
    places = [getattr(module, "__file__", None) or "", *map(str, getattr(module, "__path__", ()))]
    return any(places) and not any(map(is_installed, filter(None, places)))


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
        is_feasts = isinstance(error, ModuleNotFoundError) and str(error.name).partition(".")[0] == "feast"
        raise InvalidConfig(
            f"{path.name}, line {line}: {type(error).__name__}: {error}",
            remedy="Import from noria.features what it imports from feast." if is_feasts else f"Mend {path}.",
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
