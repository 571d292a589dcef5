"""What it takes to serve a bundle: the distributions of the gateway, of the model's runtime, of chosen extras."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

from noria.errors import InvalidInput, MissingExtra
from noria.optimize.bundle import Bundle
from noria.serving.runtimes import GROUP

if TYPE_CHECKING:
    from packaging.requirements import Requirement

_NORIA = "noria"
_GATEWAY = (
    "httptools", "msgspec", "numpy", "prometheus-client", "pydantic", "pyyaml", "rich", "sqlalchemy", "structlog",
    "typer", "uvicorn", "uvloop",
)  # fmt: skip
"""What `noria serve` imports, whatever it serves; a test runs it with these alone."""
_RUNTIMES: Mapping[str, Sequence[str]] = {
    "onnx": ("onnxruntime",),
    "lightgbm": ("lightgbm",),
    "xgboost": ("xgboost",),
    "pyfunc": (),  # in its own environment
    "chain": (),  # what its members need
    "ensemble": (),
    "remote": (),
}
_MORE: Mapping[str, Sequence[str]] = {"postgres": ("alembic",), "grpc": ("protobuf",), "batch": ("polars", "pyarrow")}
"""What comes with an extra, or is one to packages alone: of a job that only predicts, `batch`. To follow a database, a
gateway must be able to tell whether it is migrated."""


def requirements_for(
    bundles: Iterable[Bundle], extras: Sequence[str] = (), *, packages: Iterable[str] = ()
) -> list[str]:
    """Requirement lines of all that serving ``bundles`` takes, Noria itself aside; as narrow as Noria's own.

    ``packages`` are distributions that code in the bundles takes besides.

    Raises InvalidInput for an extra that Noria does not have, MissingExtra for a runtime that nobody provides.
    """
    known = _requirements()
    names = {*_GATEWAY, *packages, *(name for extra in extras for name in _MORE.get(extra, ()))}
    lines: set[str] = set()
    for bundle in bundles:
        for runtime in _runtimes_of(bundle):
            names.update(_RUNTIMES.get(runtime, ()))
            if runtime not in _RUNTIMES:
                lines.add(_provider(runtime))
    lines |= {str(known[name]) if name in known else name for name in names}
    return sorted(lines | {line for extra in extras for line in _of_extra(extra)})


def installed_versions() -> dict[str, str]:
    """The versions of this environment's distributions: those the models were checked with."""
    found = {one.metadata["Name"]: one.version for one in metadata.distributions() if one.metadata["Name"]}
    return {name: version for name, version in sorted(found.items()) if name != _NORIA and "+" not in version}


def _runtimes_of(bundle: Bundle) -> list[str]:
    """The runtime that a bundle names, and the one beside it that takes large batches."""
    native: Mapping[str, Any] = bundle.options.get("native") or {}
    return [bundle.runtime, *([native["kind"]] if native else [])]


def _provider(runtime: str) -> str:
    found = next(iter(metadata.entry_points(group=GROUP, name=runtime)), None)
    if found is None or found.dist is None:
        raise MissingExtra(
            f"no installed package provides the runtime {runtime!r}", remedy="Install it, then package the model again."
        )
    return f"{found.dist.name}=={found.dist.version}"


def _requirements() -> dict[str, Requirement]:
    """Noria's own requirements by name, those of extras aside."""
    return {one.name: one for one in _parsed() if one.marker is None}


def _of_extra(extra: str) -> list[str]:
    found = [one for one in _parsed() if one.marker is not None and one.marker.evaluate({"extra": extra})]
    if not found and extra not in _MORE:
        known = sorted({*_MORE, *(metadata.metadata(_NORIA).get_all("Provides-Extra") or [])})
        raise InvalidInput(f"Noria has no extra {extra!r}", remedy=f"There are: {', '.join(known)}.")
    for one in found:
        one.marker = None
    return [str(one) for one in found]


def _parsed() -> list[Requirement]:
    try:
        from packaging.requirements import Requirement
    except ImportError:
        raise MissingExtra("packaging a model needs more", remedy="pip install 'noria[package]'") from None
    return [Requirement(line) for line in metadata.requires(_NORIA) or []]
