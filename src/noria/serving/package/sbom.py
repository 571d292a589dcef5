"""The bill of materials of a package in CycloneDX: its models, Noria, and every distribution of its locks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

from noria.errors import MissingExtra
from noria.rollout.routes import RouteTable
from noria.serving.package.lock import Locked
from noria.serving.package.recipe import ModelEnvironment

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

_LONGEST_LICENCE = 80
_OURS = "noria"
"""PyPI has another project of that name, whose faults would be told of this one."""


@dataclass(frozen=True, slots=True)
class Materials:
    """What a package is made of. ``environments`` are those that models bring along, with their locks."""

    routes: RouteTable
    noria_version: str
    wheel_sha256: str
    lock: Sequence[Locked]
    environments: Mapping[ModelEnvironment, Sequence[Locked]]


def bill_of_materials(materials: Materials, at: datetime) -> str:
    """CycloneDX 1.6 as JSON; the same materials make the same text. Raises MissingExtra without its library."""
    try:
        from cyclonedx.model.bom import Bom, BomMetaData
        from cyclonedx.model.component import Component, ComponentType
        from cyclonedx.output import make_outputter
        from cyclonedx.schema import OutputFormat, SchemaVersion
    except ImportError:
        raise MissingExtra("a bill of materials needs more", remedy="pip install 'noria[package]'") from None
    routes = materials.routes
    whole = Component(name=routes.deployment, version=str(routes.revision), type=ComponentType.APPLICATION,
                      bom_ref="package")  # fmt: skip
    models, wheel = _models(routes), _wheel(materials)
    bom = Bom(metadata=BomMetaData(component=whole, timestamp=at))
    made_by = Component(name="noria", version=materials.noria_version, type=ComponentType.APPLICATION, bom_ref="noria")
    bom.metadata.tools.components.add(made_by)
    for one in [*models, wheel]:
        bom.components.add(one)
    bom.register_dependency(whole, [*models, wheel])
    bom.register_dependency(wheel, _add_lock(bom, "", materials.lock))
    for environment, lock in materials.environments.items():
        bom.register_dependency(whole, _add_lock(bom, environment.name, lock))
    identity = "\n".join(sorted(str(one.bom_ref.value) for one in bom.components))
    bom.serial_number = uuid5(NAMESPACE_URL, f"noria:{routes.deployment}:{routes.revision}:{identity}")
    outputter = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6)
    return outputter.output_as_string(indent=1) + "\n"


def _models(routes: RouteTable) -> list[Component]:
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType

    found = {(one.model, one.version): one for one in routes.variants}
    return [
        Component(
            name=one.model,
            version=str(one.version),
            type=ComponentType.MACHINE_LEARNING_MODEL,
            bom_ref=f"model:{one.model}@{one.version}",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=one.digest)],
        )
        for one in found.values()
    ]


def _wheel(materials: Materials) -> Component:
    from cyclonedx.model import HashAlgorithm, HashType

    one = _component("", "noria", materials.noria_version)
    one.hashes.add(HashType(alg=HashAlgorithm.SHA_256, content=materials.wheel_sha256))
    return one


def _add_lock(bom: Any, environment: str, lock: Sequence[Locked]) -> list[Component]:
    """Add the distributions of one environment, and who needs whom; returns those that nothing else there needs."""
    components = {one.name: _component(environment, one.name, one.version) for one in lock}
    for component in components.values():
        bom.components.add(component)
    for name, component in components.items():
        bom.register_dependency(component, [components[one.name] for one in lock if name in one.via])
    return [components[one.name] for one in lock if not one.via]


def _component(environment: str, name: str, version: str) -> Component:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    kind = "generic" if name.lower() == _OURS else "pypi"
    purl = PackageURL(kind, name=name.lower(), version=version)
    reference = f"{environment}:{purl}" if environment else str(purl)
    return Component(
        name=name, version=version, type=ComponentType.LIBRARY, purl=purl, bom_ref=reference,
        licenses=_licences(name, version),
    )  # fmt: skip


def _licences(name: str, version: str) -> Iterable[Any]:
    """What the distribution installed here says, when it is the same version; an index is not asked."""
    from cyclonedx.contrib.license.factories import LicenseFactory

    try:
        found = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return []
    named = next((field for field in ("License-Expression", "License") if field in found), None)
    text = "" if named is None else found[named].strip()
    if found["Version"] != version or not text or len(text) > _LONGEST_LICENCE or "\n" in text:
        return []
    return [LicenseFactory().make_from_string(text)]
