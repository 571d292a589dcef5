"""Writing a package: routes, models, features, locks, Noria itself, and the files that say what to do with them."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from noria import __version__
from noria.errors import Conflict, Unavailable
from noria.features.function_code import packages_of
from noria.features.snapshot import write_snapshot
from noria.optimize.bundle import Bundle, bundles_below
from noria.optimize.environments import environment_name, python_of
from noria.optimize.prepare import MODEL_FOLDER, environment_requirements
from noria.rollout.routes import RouteTable, Variant, publish
from noria.serving.package.lock import Locked, resolve
from noria.serving.package.manifest import MANIFEST_FILE, STATE_FOLDER, write_manifest
from noria.serving.package.needs import installed_versions, requirements_for
from noria.serving.package.recipe import ModelEnvironment, Recipe, python_of_image, recipe_files
from noria.serving.package.sbom import Materials, bill_of_materials
from noria.serving.package.wheel import write_wheel
from noria.serving.runtimes.chain import transformer_packages
from noria.serving.served import fetch_model
from noria.store.blobs import BlobStore

SBOM_FILE = "sbom.cdx.json"
_SNAPSHOT_FILE = "online.db"
_SNAPSHOT = f"sqlite:///{STATE_FOLDER}/{_SNAPSHOT_FILE}?immutable=1"
_LOCAL = ("sqlite:", "lmdb:")
_LOCK_HEADER = "# {what}, for Python {python} on Linux. Written by `noria package`; install it with --require-hashes.\n"

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PackagePlan:
    """What is packaged and how it is to run.

    ``facts`` is what the records say, for the manifest. Features are looked up at ``online``; where that is empty, at
    ``online_url``, the project's own store, of which a local one is copied.
    """

    routes: RouteTable
    artifacts: BlobStore
    online_url: str
    base_image: str
    image: str
    online: str = ""
    python: str = ""
    port: int = 8000
    grpc_port: int = 0
    extras: Sequence[str] = ()
    facts: Mapping[str, object] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


def write_package(plan: PackagePlan, output: Path, *, replace: bool, progress: Progress = lambda _: None) -> None:
    """Write the package to ``output``, whole or not at all; one that is there is replaced when asked for.

    Raises Conflict for a folder that holds anything else, and what locking and reading the models raise.
    """
    _check_output(output, replace=replace)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".package-") as staging:
        folder = Path(staging) / "package"
        folder.mkdir()
        _Package(plan, folder, progress).write()
        _check_output(output, replace=replace)  # once more: making it takes a while
        if output.exists():
            shutil.rmtree(output)
        folder.rename(output)


def _check_output(output: Path, *, replace: bool) -> None:
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output / MANIFEST_FILE).is_file():
        raise Conflict(f"{output} is there and is no package", remedy="Name a new folder.")
    if not replace:
        raise Conflict(f"{output} holds a package", remedy="Add --yes to replace it, or name a new folder.")


def _copy(source: Path, target: Path) -> None:
    """Copy a folder. Raises Unavailable for the first file that cannot be: what Python says names them all in one."""
    try:
        shutil.copytree(source, target)
    except shutil.Error as error:
        _, file, why = error.args[0][0]
        raise Unavailable(
            f"{file} cannot be written: {str(why).partition(': ')[0]}", remedy="Check its place and the free space."
        ) from None


class _Package:
    """A package while it is written."""

    def __init__(self, plan: PackagePlan, folder: Path, progress: Progress) -> None:
        self._plan, self._folder, self._progress = plan, folder, progress
        self._python = python_of_image(plan.base_image, plan.python)

    def write(self) -> None:
        """All files, the manifest last."""
        plan, folder = self._plan, self._folder
        self._progress("models")
        models = [self._add_model(variant) for variant in plan.routes.variants]
        bundles = [one for model in models for one in bundles_below(model)]
        publish(plan.routes, folder / STATE_FOLDER / "routes" / f"{plan.routes.deployment}.json")
        online = self._add_features([bundle for _, bundle in bundles])
        materials = self._add_requirements(bundles)
        recipe = self._recipe(bundles[0][1], online, materials)
        for name, text in recipe_files(recipe).items():
            (folder / name).write_text(text)
        (folder / SBOM_FILE).write_text(bill_of_materials(materials, plan.routes.created_at))
        write_manifest(folder, plan.facts)
        _let_anyone_read(folder)  # an image runs as nobody in particular

    def _add_model(self, variant: Variant) -> Path:
        target = self._folder / STATE_FOLDER / "artifacts" / variant.source
        if not target.exists():  # two variants may serve one version
            _copy(fetch_model(self._plan.artifacts, variant), target)
        return target

    def _add_features(self, bundles: Sequence[Bundle]) -> str:
        """Where the gateway looks features up: a copy of local ones travels along."""
        plan, views = self._plan, [view.name for bundle in bundles for view in bundle.looked_up]
        if not views:
            return ""
        if plan.online or not plan.online_url.startswith(_LOCAL):
            return plan.online or plan.online_url
        write_snapshot(plan.online_url, views, self._folder / STATE_FOLDER / _SNAPSHOT_FILE)
        return _SNAPSHOT

    def _add_requirements(self, bundles: Sequence[tuple[Path, Bundle]]) -> Materials:
        self._progress("requirements")
        wheel = write_wheel(self._folder / "wheels")
        sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
        here = installed_versions()
        extras = [*self._plan.extras, *(["grpc"] if self._plan.grpc_port else [])]
        code = [(folder / spec.file).read_bytes() for folder, bundle in bundles for spec in bundle.computed]
        packages = {name for content in code for name in packages_of(content)}
        needed = requirements_for([bundle for _, bundle in bundles], extras, packages=packages)
        lock = resolve(needed, self._python, here)
        own = f"./wheels/{wheel.name} --hash=sha256:{sha256}\n"
        self._write_lock("requirements.lock", "All that serving takes", lock, own)
        self._write_lock("build.lock", "What installs the rest", resolve(["uv"], self._python, here))
        environments = dict(
            self._add_environment(*one) for folder, bundle in bundles for one in self._own(folder, bundle)
        )
        return Materials(self._plan.routes, __version__, sha256, lock, environments)

    def _own(self, folder: Path, bundle: Bundle) -> Sequence[tuple[Sequence[str], str]]:
        """The environment that a bundle's runtime asks for, if it does: its packages, and its Python."""
        if bundle.runtime == "pyfunc":
            model = folder / MODEL_FOLDER
            return [(environment_requirements(model), python_of(model, self._python))]
        packages = transformer_packages(bundle.options["requirements"]) if bundle.runtime == "chain" else []
        return [(packages, self._python)] if packages else []

    def _add_environment(self, packages: Sequence[str], python: str) -> tuple[ModelEnvironment, Sequence[Locked]]:
        """The lock of an environment beside the gateway's."""
        self._progress("environments")
        name, minor = environment_name(packages, python), ".".join(python.split(".")[:2])
        lock = resolve(packages, minor)
        self._write_lock(f"environments/{name}/requirements.lock", "A model's own environment", lock, python=minor)
        return ModelEnvironment(name, minor), lock

    def _write_lock(self, name: str, what: str, lock: Sequence[Locked], own: str = "", python: str = "") -> None:
        header = _LOCK_HEADER.format(what=what, python=python or self._python)
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join([header, *(one.lines for one in lock), own]))

    def _recipe(self, example: Bundle, online: str, materials: Materials) -> Recipe:
        plan = self._plan
        return Recipe(
            deployment=plan.routes.deployment,
            image=plan.image,
            models=[f"{one.model}@{one.version} ({one.name}, {one.percent:g}%)" for one in plan.routes.variants],
            base_image=plan.base_image,
            python=self._python,
            port=plan.port,
            noria_version=__version__,
            environments=sorted(materials.environments, key=lambda one: one.name),
            labels=plan.labels,
            example=example,
            online=online,
            snapshot=online == _SNAPSHOT,
            has_keys=bool(plan.routes.key_hashes),
            grpc_port=plan.grpc_port,
        )


def _let_anyone_read(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
