"""A policy kept in YAML, as teams that wrote one before they met Noria have it; read as it is.

Only its ``model_registry`` section is for the registry. The other sections belong to whoever deploys and watches.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from noria.errors import InvalidConfig

PATTERN = "*"
"""A policy file rules every model that no policy of noria.toml names."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _NamingConvention(_Part):
    pattern: str = ""
    max_length: int = Field(0, ge=0)


class _VersionPolicy(_Part):
    max_versions: int = Field(0, ge=0)
    retention_days: int = Field(0, ge=0)
    archive_stages: list[Literal["None", "Staging", "Archived"]] = []
    own_approval: bool | None = None


class _StageTransition(_Part):
    required_tags: list[str] = []
    required_metrics: list[str] = []
    approval_required: bool = False
    reason_required: bool = False


class _ModelRegistry(_Part):
    naming_convention: _NamingConvention = _NamingConvention()
    version_policy: _VersionPolicy = _VersionPolicy()
    stage_transitions: dict[str, _StageTransition] = {}


class _PolicyFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")
    model_registry: _ModelRegistry


def read_policy_file(path: Path) -> dict[str, object]:
    """The policy in ``path`` in the words of noria.toml's ``[policies."*"]``.

    Raises InvalidConfig naming every fault: file missing, not YAML, unknown key, wrong type.
    """
    try:
        return _as_policy(_PolicyFile.model_validate(_parse(path)).model_registry)
    except ValidationError as error:
        findings = [_finding(item["loc"], item["type"], item["msg"]) for item in error.errors()]
        raise InvalidConfig(
            f"{path} cannot be used",
            details=findings,
            remedy="Mend each of these, or leave it out: what is not there is not asked for.",
        ) from error


def _parse(path: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidConfig(
            f"the policy file {path} cannot be read: {error.strerror}",
            remedy="registry.policy_file is a path from the project's folder: mend it, or write that file.",
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"{path} is not valid YAML: {error}", remedy="Mend the line it names.") from error


def _as_policy(registry: _ModelRegistry) -> dict[str, object]:
    moves = {
        move: {
            "required_tags": rule.required_tags,
            "required_metrics": rule.required_metrics,
            "approvals": int(rule.approval_required),
            "reason_required": rule.reason_required,
        }
        for move, rule in registry.stage_transitions.items()
    }
    versions, naming = registry.version_policy, registry.naming_convention
    return {
        "moves": moves,
        "transitions": list(moves),  # there, a move that is not listed is not allowed
        "name_pattern": naming.pattern,
        "name_max_length": naming.max_length,
        "max_versions": versions.max_versions,
        "retention_days": versions.retention_days,
        "archive_stages": versions.archive_stages,
        "own_approval": versions.own_approval,
    }


def _finding(location: tuple[int | str, ...], kind: str, message: str) -> str:
    where = ".".join(str(part) for part in location)
    if kind in ("model_type", "model_attributes_type"):
        return f"{where or 'the file'}: should be a mapping of keys to values"
    if kind != "extra_forbidden":
        return f"{where}: {message}"
    known = _keys_at(location[:-1])
    near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.4)
    return f"{where}: unknown key; " + (f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}")


def _keys_at(location: tuple[int | str, ...]) -> list[str]:
    """The keys of the section at ``location``; those of one move are under a name that people choose."""
    section: type[BaseModel] = _PolicyFile
    for part in location:
        field = section.model_fields.get(str(part))
        if field is None or str(part) == "stage_transitions":
            section = _StageTransition
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            section = field.annotation
    return list(section.model_fields)
