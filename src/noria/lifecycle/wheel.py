"""One turn a day: judge the canary, or watch the traffic and answer a verdict with a new version.

Every move is one transaction of registry change, policy decision, route and audit entry, and can be repeated: a turn
cut short by a crash is taken again and ends in the same state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, timedelta

from noria.clock import Clock
from noria.errors import Conflict, PolicyRefused
from noria.lifecycle.looks import CHAMPION
from noria.lifecycle.plans import plan_of
from noria.lifecycle.rollouts import ACTOR, Rollouts
from noria.lifecycle.served_forms import variant_of
from noria.lifecycle.startable import rollout_beside
from noria.monitoring.profile import read_profile
from noria.monitoring.records import Verdict, WindowResult, list_verdicts, raise_verdict, set_outcome
from noria.monitoring.watch import Watch, watch_day
from noria.pipelines import Project, TrainingRequest, train_version
from noria.registry import ModelVersion, Stage, version_in_stage
from noria.registry.stages import history
from noria.rollout import Strategy, set_routes
from noria.rollout.deployments import find_deployment, save_deployment, tell_gateways, write_routes
from noria.rollout.evidence import QUALITY
from noria.rollout.moves import check_none_open
from noria.rollout.records import list_decisions, list_rollouts, open_rollout
from noria.store.database import Transaction
from noria.store.workspace import Workspace, artifact_key

RETRAINING = "retraining"

Progress = Callable[[str], None]


class Wheel:
    """The controller of one project's deployment. One process turns it at a time."""

    def __init__(self, project: Project, workspace: Workspace, clock: Clock, progress: Progress = lambda _: None):
        self.project = project
        self.workspace = workspace
        self.clock = clock
        self._progress = progress
        self._rollouts = Rollouts(workspace, project.policies, clock, progress)

    def deploy(self, version: ModelVersion, *, reason: str, actor: str) -> None:
        """Give a version in Production all the traffic; what else the deployment is set to stays.

        One that was withdrawn stays so. Raises Conflict while a rollout is under way.
        """
        if version.stage is not Stage.PRODUCTION:
            raise Conflict(
                f"{version.label} is in stage {version.stage}, not Production",
                remedy="Only a version in Production is deployed: approve it and move it there.",
            )
        with self.workspace.database.write() as tx:
            self.serve(tx, version, reason=reason, actor=actor)
        tell_gateways(self.workspace, self.project.deployment)

    def serve(self, tx: Transaction, version: ModelVersion, *, reason: str, actor: str) -> None:
        """``deploy`` within a transaction; ``tell_gateways`` comes after it."""
        name, now = self.project.deployment, self.clock.now()
        check_none_open(tx, name)
        record = find_deployment(tx, name)
        if record is None:
            record = save_deployment(tx, name, version.model, follows="", unit="", at=now, actor=actor)
        variants = [variant_of(tx, version, CHAMPION, 100)]
        set_routes(tx, name, variants, at=now, actor=actor, reason=reason, unit=record.unit)

    def publish_routes(self) -> int:
        """Put the current route table where gateways read it; returns its revision, 0 when there is none."""
        return write_routes(self.workspace, self.project.deployment)

    def turn(self, day: date) -> None:
        """Take stock at the end of ``day`` (UTC). Taking the same turn again changes nothing."""
        champion = self._champion()
        if champion is None:
            return
        with self.workspace.database.read() as tx:
            rollout = open_rollout(tx, self.project.deployment)
            beside = rollout_beside(tx, self.project.deployment, self.project.settings.model.name)
            decided = self._decided_now(tx)
        results = self._watch(champion, day)
        if decided:
            pass
        elif rollout is not None and rollout.started_at < self.clock.now():
            self._rollouts.look(rollout.rollout_id)
        elif rollout is None and beside is None:
            self._answer(champion, results)
        self.publish_routes()

    def start_canary(self, version: ModelVersion) -> bool:
        """Move a version through the gate (Staging, under policy) and give it the first step's share.

        False when the policy refuses: the version stays where it is and the refusal is audited.
        """
        if self._champion() is None:
            raise Conflict("no version is in Production", remedy="Deploy a first version before starting a canary.")
        with self.workspace.database.read() as tx:
            if any(version.version in one.challengers for one in list_rollouts(tx, self.project.deployment)):
                return True
        plan = plan_of(self.project.settings.rollout, Strategy.CANARY)
        if QUALITY in plan.guards.guards:
            plan = replace(plan, required=tuple(dict.fromkeys([*plan.required, QUALITY])))  # its labels will come
        try:
            self._rollouts.start(self.project.deployment, [version.version], plan, actor=ACTOR)
        except PolicyRefused:
            return False
        return True

    def _champion(self) -> ModelVersion | None:
        with self.workspace.database.read() as tx:
            return version_in_stage(tx, self.project.settings.model.name, Stage.PRODUCTION)

    def _decided_now(self, tx: Transaction) -> bool:
        rollouts = list_rollouts(tx, self.project.deployment)
        return any(
            decision.decided_at == self.clock.now()
            for rollout in rollouts[-1:]
            for decision in list_decisions(tx, rollout.rollout_id)
        )

    # watching

    def _watch(self, champion: ModelVersion, day: date) -> list[WindowResult]:
        monitor = self.project.settings.monitor
        watch = Watch(
            deployment=self.project.deployment,
            model=champion.model,
            model_version=champion.version,
            task=self.project.settings.model.task,
            profile=read_profile(self.workspace.artifacts.fetch(artifact_key(champion.source))),
            log=self.workspace.prediction_log,
            run_length_days=monitor.run_length_days,
            min_rows=monitor.min_rows,
            label_delay_days=monitor.label_delay_days,
        )
        with self.workspace.database.write() as tx:
            return watch_day(tx, watch, day)

    def _answer(self, champion: ModelVersion, results: Sequence[WindowResult]) -> None:
        """Turn a detector that fired into a verdict, and the verdict into a canary."""
        fired = [result for result in results if result.fired]
        with self.workspace.database.read() as tx:
            open_verdicts = [v for v in list_verdicts(tx, self.project.deployment) if v.outcome == RETRAINING]
        if open_verdicts:
            self._retrain(champion, open_verdicts[-1])
        elif fired and not self._cooling(champion):
            strongest = max(fired, key=lambda result: result.statistic / result.threshold)
            with self.workspace.database.write() as tx:
                verdict = raise_verdict(tx, strongest, at=self.clock.now(), actor=ACTOR, outcome=RETRAINING)
            self._retrain(champion, verdict)

    def _cooling(self, champion: ModelVersion) -> bool:
        """Whether the champion is too new, or a rollout ended too lately, for another retraining to teach anything."""
        cooldown = timedelta(days=self.project.settings.monitor.cooldown_days)
        with self.workspace.database.read() as tx:
            moves = [
                m.moved_at for m in history(tx, champion.model, champion.version) if m.to_stage == Stage.PRODUCTION
            ]
            ends = [r.ended_at for r in list_rollouts(tx, self.project.deployment) if r.ended_at is not None]
            moves += [] if len(ends) == 0 else [max(ends)]
        return any(self.clock.now() - moment < cooldown for moment in moves)

    def _retrain(self, champion: ModelVersion, verdict: Verdict) -> None:
        now = self.clock.now()
        trigger = f"{verdict.detector} of {verdict.window_start:%Y-%m-%d}"
        self._progress(f"{verdict.window_start:%d %b}: {verdict.detector} fired, retraining")
        version = train_version(
            self.project,
            self.workspace,
            TrainingRequest(
                since=now - timedelta(days=self.project.settings.model.retrain_days),
                until=now,
                trigger=trigger,
                at=now,
                actor=ACTOR,
                champion=champion,
            ),
        )
        passed = self.start_canary(version)
        with self.workspace.database.write() as tx:
            outcome = f"version {version.version} {'out as canary' if passed else 'refused by the gate'}"
            set_outcome(tx, verdict, outcome, at=now, actor=ACTOR)
