"""Packaging: what serves, or may serve, as a folder that does so by itself, with what the records say of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from noria import __version__, audit
from noria.clock import iso
from noria.config import ServerSettings
from noria.lifecycle.lineage import lineage
from noria.registry import ModelVersion, get_version
from noria.rollout import RouteTable
from noria.serving.names import dns_label
from noria.serving.package import PackagePlan, write_package
from noria.store.workspace import Workspace


@dataclass(frozen=True, slots=True)
class PackageOptions:
    """How a package is to run; see ``PackagePlan``. ``replace`` lets it take the place of another."""

    base_image: str
    python: str = ""
    port: int = 8000
    grpc_port: int = 0
    online: str = ""
    extras: Sequence[str] = ()
    replace: bool = False


@dataclass(frozen=True, slots=True)
class Packager:
    """Makes packages of what a workspace serves, or may serve."""

    workspace: Workspace
    settings: ServerSettings
    progress: Callable[[str], None] = lambda _: None

    def package(self, routes: RouteTable, output: Path, options: PackageOptions) -> None:
        """Write the folder that serves ``routes``. Raises what writing a package raises."""
        champion = routes.variants[0]
        plan = PackagePlan(
            routes=routes,
            artifacts=self.workspace.artifacts,
            online_url=self.workspace.online_url,
            base_image=options.base_image,
            image=image_of(routes),
            online=options.online,
            python=options.python,
            port=options.port,
            grpc_port=options.grpc_port,
            extras=options.extras,
            facts=self._facts(routes),
            labels={
                "org.opencontainers.image.title": routes.deployment,
                "org.opencontainers.image.version": str(champion.version),
                "org.opencontainers.image.description": f"Serves {champion.model}@{champion.version} with Noria",
            },
        )
        write_package(plan, output, replace=options.replace, progress=self.progress)

    def _facts(self, routes: RouteTable) -> Mapping[str, object]:
        """What the records say of the routes and the versions behind them, and where the audit chain stands."""
        with self.workspace.database.read() as tx:
            newest = audit.entries(tx, limit=1)
            versions = [get_version(tx, one.model, one.version) for one in routes.variants]
        head = {"entries": newest[0].sequence, "head": newest[0].entry_hash} if newest else None
        variants = [
            {"name": one.name, "model": one.model, "version": one.version, "percent": one.percent, "shadow": one.shadow}
            for one in routes.variants
        ]
        return {
            "noria": __version__,
            "deployment": {
                "name": routes.deployment,
                "revision": routes.revision,
                "reason": routes.reason,
                "since": iso(routes.created_at),
                "variants": variants,
            },
            "versions": [self._version_facts(one) for one in {one.label: one for one in versions}.values()],
            "audit": head,
        }

    def _version_facts(self, version: ModelVersion) -> Mapping[str, object]:
        found = lineage(self.workspace, version.model, version.version)
        return {
            **found,
            "signature": version.signature.as_document(),
            "metrics": dict(version.metrics),
            "policy": self._policy(version.model),
        }

    def _policy(self, model: str) -> Mapping[str, object] | None:
        """The policy of the model as noria.toml has it, what was left out aside."""
        for pattern, policy in self.settings.policies.items():
            if fnmatchcase(model, pattern):
                return {"pattern": pattern, **policy.model_dump(mode="json", exclude_defaults=True)}
        return None


def image_of(routes: RouteTable) -> str:
    """The name and tag of a deployment's image, where nobody gives another."""
    return f"{dns_label(routes.deployment)}:{routes.revision}"
