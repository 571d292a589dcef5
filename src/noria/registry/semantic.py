"""Semantic versions: major = callers must change, minor = a new input or another algorithm, patch = retrained."""

from __future__ import annotations

from collections.abc import Iterable

from noria.registry.entities import ModelVersion, NewVersion, Signature

SEMANTIC_TAG = "noria.semantic_version"
"""The tag under which clients see it; nobody sets it."""


def next_semantic_version(earlier: Iterable[ModelVersion], new: NewVersion) -> str:
    """The semantic version of ``new`` after those registered ``earlier``, the newest first.

    What is not known of a version proves no change: signature and algorithm are held against the last that are known.

    >>> next_semantic_version([], NewVersion(model="m", source="s"))
    '1.0.0'
    """
    before = list(earlier)
    if not before:
        return "1.0.0"
    major, minor, patch = (int(part) for part in before[0].semantic_version.split("."))
    signature = next((version.signature for version in before if version.signature.is_known), Signature())
    algorithm = next((version.algorithm for version in before if version.algorithm), "")
    both = signature.is_known and new.signature.is_known
    if both and _breaks(signature, new.signature):
        return f"{major + 1}.0.0"
    if (both and set(signature.inputs) != set(new.signature.inputs)) or _differ(algorithm, new.algorithm):
        return f"{major}.{minor + 1}.0"
    return f"{major}.{minor}.{patch + 1}"


def _breaks(before: Signature, after: Signature) -> bool:
    """Whether who calls the one cannot call the other: an input is gone, changed or newly required, or an output is."""
    lost, demanded = set(before.inputs) - set(after.inputs), set(after.required) - set(before.required)
    return bool(lost or demanded) or _differ(before.output, after.output)


def _differ(before: str, after: str) -> bool:
    return bool(before and after) and before != after
