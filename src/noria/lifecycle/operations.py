"""What a person asks for by hand: train now, move a version, deploy it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from noria.clock import Clock, SystemClock, as_utc, iso
from noria.errors import Conflict, PolicyRefused
from noria.features import intervals
from noria.features.materialize import materialize as materialize_view
from noria.lifecycle.wheel import Wheel
from noria.pipelines import Project, TrainingRequest, train_version
from noria.registry import ModelVersion, Stage, version_in_stage
from noria.registry.stages import request_transition
from noria.rollout.deployments import tell_gateways
from noria.store.database import Transaction
from noria.store.workspace import Workspace


def train_now(
    project: Project, workspace: Workspace, *, actor: str, progress: Callable[[str], None]
) -> tuple[ModelVersion, PolicyRefused | Conflict | None]:
    """Train on all rows the settings name, then take the version as far as the policy lets it.

    Returns the version, and what stopped it short of Production, if anything: the policy, or a rollout under way.
    """
    now = SystemClock().now()
    model = project.settings.model
    with workspace.database.read() as tx:
        champion = version_in_stage(tx, model.name, Stage.PRODUCTION)
    version = train_version(
        project,
        workspace,
        TrainingRequest(
            since=as_utc(datetime.fromisoformat(model.train_since)) if model.train_since else None,
            until=as_utc(datetime.fromisoformat(model.train_until)) if model.train_until else now,
            trigger=f"noria run at {iso(now)}",
            at=now,
            actor=actor,
            champion=champion,
        ),
        progress,
    )
    progress("materialize")
    materialize(project, workspace, now)
    try:
        for stage in (Stage.STAGING, Stage.PRODUCTION):
            version = move_version(
                project, workspace, version.model, version.version, stage, actor=actor, reason="trained by noria run"
            )
    except (PolicyRefused, Conflict) as refusal:
        return version, refusal
    return version, None


def move_version(
    project: Project, workspace: Workspace, model: str, version: int, stage: Stage, *, actor: str, reason: str
) -> ModelVersion:
    """Move a version under the policy; one of the project's model that enters Production is deployed with it.

    Raises Conflict where that deployment has a rollout under way, which decides what serves: nothing moves then.
    """
    clock: Clock = SystemClock()
    wheel = Wheel(project, workspace, clock)
    deploys = stage is Stage.PRODUCTION and model == project.settings.model.name

    def serve(tx: Transaction, moved: ModelVersion) -> None:
        if deploys:
            wheel.serve(tx, moved, reason=f"{moved.label} entered Production", actor=actor)

    moved = request_transition(
        workspace.database,
        model,
        version,
        stage,
        policies=project.policies,
        at=clock.now(),
        actor=actor,
        reason=reason,
        along=serve,
    )
    if deploys:
        tell_gateways(workspace, project.deployment)
    return moved


def materialize(project: Project, workspace: Workspace, until: datetime) -> int:
    """Make all feature rows known by ``until`` current online; returns how many were newer."""
    store, name, newer = workspace.open_online(), project.settings.project.name, 0
    try:
        for view in project.views:
            written = materialize_view(view, project.folder, store, None, until).written
            with workspace.database.write() as tx:
                intervals.record(tx, name, view.name, since=None, until=until, rows=written, at=SystemClock().now())
            newer += written
    finally:
        store.close()
    return newer
