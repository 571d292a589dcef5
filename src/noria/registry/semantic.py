"""Semantic versions: major = signature changed, minor = algorithm changed, patch = retrained."""

from __future__ import annotations

from noria.registry.entities import ModelVersion, NewVersion


def next_semantic_version(previous: ModelVersion | None, new: NewVersion) -> str:
    """The semantic version of ``new`` after ``previous``.

    >>> next_semantic_version(None, NewVersion(model="m", source="s"))
    '1.0.0'
    """
    if previous is None:
        return "1.0.0"
    major, minor, patch = (int(part) for part in previous.semantic_version.split("."))
    if previous.signature.output != new.signature.output or _removes_inputs(previous, new):
        return f"{major + 1}.0.0"
    if previous.signature != new.signature or previous.algorithm != new.algorithm:
        return f"{major}.{minor + 1}.0"
    return f"{major}.{minor}.{patch + 1}"


def _removes_inputs(previous: ModelVersion, new: NewVersion) -> bool:
    return not set(previous.signature.inputs) <= set(new.signature.inputs)
