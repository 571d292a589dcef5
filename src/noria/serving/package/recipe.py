"""The files that say how a package is installed, built into an image, run and asked."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import zip_longest
from typing import Any
from urllib.parse import urlsplit

import yaml

from noria.errors import InvalidInput
from noria.optimize.bundle import Bundle, TensorSpec
from noria.serving.package.manifest import PREDICTIONS_FOLDER, STATE_FOLDER

IMAGE_HOME = "/opt/noria"
IMAGE_PACKAGE = f"{IMAGE_HOME}/package"
IMAGE_USER = 10001
_OLDEST_PYTHON = (3, 11)
_OF_KIND: Mapping[str, object] = {
    "string": "text", "datetime": "2026-01-02T03:04:05", "boolean": False,
    "binary": "", "array": [], "object": {}, "map": {},
}  # fmt: skip
"""What stands in an example for the kinds that are no plain numbers."""
_PYTHON_IMAGE = re.compile(r"(?:^|/)python:(\d+)\.(\d+)(?![\d])")


@dataclass(frozen=True, slots=True)
class ModelEnvironment:
    """An environment that a model brings along: the folder it is in, and its Python."""

    name: str
    python: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the files are made from. ``online`` is where features are looked up, "" where none are."""

    deployment: str
    image: str
    models: Sequence[str]
    base_image: str
    python: str
    port: int
    noria_version: str
    environments: Sequence[ModelEnvironment]
    labels: Mapping[str, str]
    example: Bundle
    online: str = ""
    snapshot: bool = False
    has_keys: bool = False
    grpc_port: int = 0


def default_base_image() -> str:
    """The image whose Python is the one that runs here."""
    return f"python:{sys.version_info[0]}.{sys.version_info[1]}-slim"


def python_of_image(base_image: str, given: str = "") -> str:
    """The Python of an image, such as 3.11: by its tag, or as ``given``. Raises InvalidInput."""
    match = _PYTHON_IMAGE.search(base_image)
    version = given or (f"{match[1]}.{match[2]}" if match else "")
    if not version:
        raise InvalidInput(
            f"the tag of image {base_image!r} does not say which Python it has", remedy="Say it: --python 3.11."
        )
    if not re.fullmatch(r"\d+\.\d+", version) or tuple(map(int, version.split("."))) < _OLDEST_PYTHON:
        raise InvalidInput(
            f"Noria does not run on Python {version!r}", remedy="Take an image with Python 3.11 or newer."
        )
    return version


def recipe_files(recipe: Recipe) -> Mapping[str, str]:
    """Name → text of every file."""
    return {
        "Dockerfile": _rendered("Dockerfile", recipe),
        ".dockerignore": _rendered("dockerignore", recipe),
        "README.md": _rendered("README.md", recipe),
        "compose.yaml": _yaml(_compose(recipe)),
        "noria.toml": _settings(recipe),
    }


def example_request(bundle: Bundle, deployment: str) -> tuple[str, str]:
    """A path, and a body that the model takes there: its example, or a value of each kind."""
    if bundle.tensors:
        body: Mapping[str, Any] = {"inputs": [_zeros(one) for one in bundle.tensors]}
        return f"/v2/models/{deployment}/infer", json.dumps(body)
    features = {name: _OF_KIND.get(bundle.kinds.get(name, ""), 0) for name in bundle.sent}
    features |= zip(bundle.request_columns, bundle.example, strict=False)  # what is looked up is not sent
    keys = {
        key: "" if kind in ("", "String") else 0
        for view in bundle.looked_up
        for key, kind in zip_longest(view.join_keys, view.key_types, fillvalue="String")
    }
    return "/predict", json.dumps({"features": features} | ({"entities": keys} if keys else {}))


def _zeros(tensor: TensorSpec) -> Mapping[str, object]:
    shape = [max(size, 1) for size in tensor.shape]
    count = 1
    for size in shape:
        count *= size
    value = "" if tensor.datatype == "BYTES" else 0
    return {"name": tensor.name, "shape": shape, "datatype": tensor.datatype, "data": [value] * count}


def _rendered(name: str, recipe: Recipe) -> str:
    from jinja2 import Environment, StrictUndefined

    template = (resources.files(__package__) / "templates" / f"{name}.j2").read_text()
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)  # no HTML
    path, request = example_request(recipe.example, recipe.deployment)
    return environment.from_string(template).render(
        deployment=recipe.deployment,
        image=recipe.image,
        models=", ".join(recipe.models),
        base_image=recipe.base_image,
        python=recipe.python,
        port=recipe.port,
        grpc_port=recipe.grpc_port,
        noria_version=recipe.noria_version,
        environments=recipe.environments,
        labels=[(name, json.dumps(value).replace("$", r"\$")) for name, value in recipe.labels.items()],
        home=IMAGE_HOME,
        user=IMAGE_USER,
        predictions=PREDICTIONS_FOLDER,
        online_note=_online_note(recipe),
        snapshot=recipe.snapshot,
        keys=recipe.has_keys,
        path=path,
        request=request.replace("'", r"'\''"),
        entity_keys=recipe.example.entity_keys,
    )


def _online_note(recipe: Recipe) -> str:
    if recipe.snapshot:
        return (
            "It looks features up in a copy of what was online when it was made: they grow old, and count as missing "
            "once they are older than their view's TTL"
        )
    if recipe.online:
        return "It looks features up in the online store that noria.toml, or `NORIA_FEATURES__ONLINE`, names"
    return ""


def _compose(recipe: Recipe) -> Mapping[str, object]:
    service = {
        "build": ".",
        "image": recipe.image,
        "ports": [f"127.0.0.1:{port}:{port}" for port in (recipe.port, recipe.grpc_port) if port],
        "read_only": True,
        "tmpfs": ["/tmp"],
        "volumes": [f"predictions:{IMAGE_PACKAGE}/{PREDICTIONS_FOLDER}"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "restart": "unless-stopped",
        "stop_grace_period": "30s",
    }
    return {"services": {"gateway": service}, "volumes": {"predictions": {}}}


def _settings(recipe: Recipe) -> str:
    secret = urlsplit(recipe.online).password  # such an address comes by NORIA_FEATURES__ONLINE alone
    sections = [
        "# A gateway alone: it serves the routes in model/routes, and follows no database.",
        f'[store]\ndatabase = ""\nfolder = "{STATE_FOLDER}"\n',
        *([f"[features]\nonline = {json.dumps(recipe.online)}\n"] if recipe.online and not secret else []),
        f"[gateway]\nport = {recipe.port}\n" + (f"grpc_port = {recipe.grpc_port}\n" if recipe.grpc_port else ""),
    ]
    return "\n".join(sections)


def _yaml(document: Mapping[str, object]) -> str:
    text: str = yaml.safe_dump(document, sort_keys=False, width=120)
    return text
