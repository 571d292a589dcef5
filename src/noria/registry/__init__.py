"""Registered models, their versions, stages, aliases, approvals and the policies that guard them."""

from noria.registry.approvals import approve
from noria.registry.entities import ModelVersion, NewVersion, RegisteredModel, Signature, Stage
from noria.registry.policy import Policies
from noria.registry.registration import register_version
from noria.registry.stages import transition
from noria.registry.versions import get_version, list_versions, version_in_stage

__all__ = [
    "ModelVersion",
    "NewVersion",
    "Policies",
    "RegisteredModel",
    "Signature",
    "Stage",
    "approve",
    "get_version",
    "list_versions",
    "register_version",
    "transition",
    "version_in_stage",
]
