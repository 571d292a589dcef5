"""The folder a feature store is defined in: a project with noria.toml, or a repo with Feast's feature_store.yaml."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noria.config import FeatureSettings, ServerSettings, StoreSettings, load_settings
from noria.errors import InvalidConfig
from noria.project_files import CONFIG_FILE, FEAST_FILE


@dataclass(frozen=True, slots=True)
class Repo:
    """Where the definitions are, what they belong to, and where state is kept."""

    folder: Path
    project: str
    settings: ServerSettings


def read_repo(folder: Path) -> Repo:
    """The repo in ``folder``. Raises InvalidConfig when there is none, or when it asks for what Noria has not."""
    folder = folder.resolve()
    if (folder / CONFIG_FILE).is_file():
        settings = load_settings(folder)
        return Repo(folder, settings.project.name, settings)
    if (folder / FEAST_FILE).is_file():
        return _feast_repo(folder, folder / FEAST_FILE)
    raise InvalidConfig(
        f"no {CONFIG_FILE} or {FEAST_FILE} in {folder}",
        remedy="Give the folder of a project as repo_path; `noria init` makes one.",
    )


def is_feast_repo(folder: Path) -> bool:
    """Whether the folder is a Feast repo, and no project with a noria.toml of its own."""
    return (folder / FEAST_FILE).is_file() and not (folder / CONFIG_FILE).is_file()


def _feast_repo(folder: Path, path: Path) -> Repo:
    import yaml

    try:
        document = yaml.safe_load(os.path.expandvars(path.read_text()))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"{path} is not valid YAML: {error}", remedy="Mend the line it names.") from error
    if not isinstance(document, dict) or not re.fullmatch(r"[A-Za-z0-9][\w.-]*", str(document.get("project", ""))):
        raise InvalidConfig(f"{path} names no project", remedy="Write project: NAME, of letters, digits, _ and -.")
    store = {"database": database} if (database := _database(document.get("registry"))) else {}
    settings = ServerSettings(
        store=StoreSettings(**store), features=FeatureSettings(online=_online(document.get("online_store"), path))
    )
    return Repo(folder, str(document["project"]), settings)


def _database(registry: Any) -> str:
    """The SQL database a Feast registry lies in; empty for a file, beside which we keep our own."""
    path = registry.get("path", "") if isinstance(registry, dict) else registry
    match = re.match(r"^(postgres(?:ql)?)(?:\+\w+)?://", str(path or ""))
    return f"postgresql://{path[match.end() :]}" if match else ""


def _online(store: Any, path: Path) -> str:
    """The URL of the online store; empty for the embedded one in the project's folder."""
    options: Mapping[str, Any] = {"type": store} if isinstance(store, str) else store or {}
    kind = options.get("type", "sqlite")
    if kind == "sqlite":
        return ""
    if kind == "redis":
        first, *rest = str(options.get("connection_string", "localhost:6379")).split(",")
        given = dict(part.split("=", 1) for part in rest if "=" in part)
        secret = f":{given['password']}@" if "password" in given else ""
        scheme = "rediss" if given.get("ssl", "").lower() == "true" else "redis"
        return f"{scheme}://{secret}{first}/{given.get('db', '0')}"
    if kind == "postgres":
        user, secret = options.get("user", ""), options.get("password", "")
        host, port = options.get("host", "localhost"), options.get("port", 5432)
        return f"postgresql://{user}:{secret}@{host}:{port}/{options.get('database', '')}"
    raise InvalidConfig(
        f"{path} asks for an online store of type {kind!r}", remedy="Noria has sqlite, redis and postgres."
    )
