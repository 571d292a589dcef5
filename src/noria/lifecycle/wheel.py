"""One turn a day: judge the canary, or watch the traffic and answer a verdict with a new version.

Every move is one transaction of registry change, policy decision, route and audit entry, and can be repeated: a turn
cut short by a crash is taken again and ends in the same state.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

from noria.clock import Clock
from noria.errors import Conflict, PolicyRefused
from noria.monitoring.profile import read_profile
from noria.monitoring.records import Verdict, WindowResult, list_verdicts, raise_verdict, set_outcome
from noria.monitoring.watch import Watch, labelled, watch_day
from noria.pipelines import Project, TrainingRequest, train_version
from noria.registry import ModelVersion, Stage, approve, get_version, transition, version_in_stage
from noria.registry.stages import history, request_transition
from noria.rollout import CanaryPolicy, Decision, Variant, judge_step, set_routes
from noria.rollout.canary import Quality, compare
from noria.rollout.records import (
    PROMOTED,
    ROLLED_BACK,
    RUNNING,
    Rollout,
    list_decisions,
    list_rollouts,
    record_decision,
    running_rollout,
    start_rollout,
)
from noria.rollout.routes import write_routes
from noria.store.database import Transaction
from noria.store.workspace import Workspace, artifact_key

ACTOR = "noria/lifecycle"
RETRAINING = "retraining"

Floats = NDArray[np.float64]
Progress = Callable[[str], None]


class Wheel:
    """The controller of one project's deployment. One process turns it at a time."""

    def __init__(self, project: Project, workspace: Workspace, clock: Clock, progress: Progress = lambda _: None):
        self.project = project
        self.workspace = workspace
        self.clock = clock
        self._progress = progress

    def deploy(self, version: ModelVersion, *, reason: str, actor: str) -> None:
        """Give a version in Production all the traffic."""
        if version.stage is not Stage.PRODUCTION:
            raise Conflict(
                f"{version.label} is in stage {version.stage}, not Production",
                remedy="Only a version in Production is deployed: approve it and move it there.",
            )
        with self.workspace.database.write() as tx:
            variants = [_variant(version, "champion", 100)]
            set_routes(tx, self.project.deployment, variants, at=self.clock.now(), actor=actor, reason=reason)
        self.publish_routes()

    def publish_routes(self) -> int:
        """Put the current route table where gateways read it; returns its revision, 0 when there is none."""
        return write_routes(self.workspace, self.project.deployment)

    def turn(self, day: date) -> None:
        """Take stock at the end of ``day`` (UTC). Taking the same turn again changes nothing."""
        champion = self._champion()
        if champion is None:
            return
        with self.workspace.database.read() as tx:
            rollout = running_rollout(tx, self.project.deployment)
            decided = self._decided_now(tx)
        results = self._watch(champion, day)
        if decided:
            pass
        elif rollout is not None and rollout.started_at < self.clock.now():
            self._judge(rollout, day)
        elif rollout is None:
            self._answer(champion, results)
        self.publish_routes()

    def start_canary(self, version: ModelVersion) -> bool:
        """Move a version through the gate (Staging, under policy) and give it the first step's share.

        False when the policy refuses: the version stays where it is and the refusal is audited.
        """
        champion = self._champion()
        if champion is None:
            raise Conflict("no version is in Production", remedy="Deploy a first version before starting a canary.")
        try:
            request_transition(
                self.workspace.database,
                version.model,
                version.version,
                Stage.STAGING,
                policies=self.project.policies,
                at=self.clock.now(),
                actor=ACTOR,
                reason="the gate before a canary",
            )
        except PolicyRefused:
            return False
        with self.workspace.database.write() as tx:
            self._open_rollout(tx, champion, version)
        return True

    def _open_rollout(self, tx: Transaction, champion: ModelVersion, version: ModelVersion) -> None:
        known = [r for r in list_rollouts(tx, self.project.deployment) if r.challenger == version.version]
        if known:
            return
        rollout = start_rollout(
            tx,
            self.project.deployment,
            version.model,
            champion=champion.version,
            challenger=version.version,
            steps=self.project.settings.canary.steps,
            at=self.clock.now(),
            actor=ACTOR,
        )
        self._route(tx, rollout, f"canary of {version.label} starts")

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

    # judging

    def _judge(self, rollout: Rollout, day: date) -> None:
        settings = self.project.settings.canary
        policy = CanaryPolicy(
            settings.steps, settings.min_labels, settings.max_days, settings.tolerance, settings.false_alarm
        )
        quality = self._quality(policy, rollout, day)
        days = (self.clock.now() - rollout.step_started_at).days
        decision, reason = judge_step(policy, quality, days)
        if decision is Decision.WAIT:
            return
        evidence = {"reason": reason} | ({} if quality is None else quality.as_document())
        self._progress(f"{day:%d %b}: canary at {rollout.percent:g}%: {decision.replace('_', ' ')}")
        if decision is Decision.ROLL_BACK:
            self._roll_back(rollout, evidence, reason)
        else:
            self._advance(rollout, evidence, reason)

    def _roll_back(self, rollout: Rollout, evidence: dict[str, object], reason: str) -> None:
        """Take the traffic away first; archiving comes second, since a policy may refuse it."""
        now, database = self.clock.now(), self.workspace.database
        with database.write() as tx:
            after = record_decision(tx, rollout, Decision.ROLL_BACK, evidence, at=now, actor=ACTOR)
            self._route(tx, after, reason)
        with contextlib.suppress(PolicyRefused):  # the refusal is audited; the version keeps its stage, without traffic
            request_transition(
                database,
                rollout.model,
                rollout.challenger,
                Stage.ARCHIVED,
                policies=self.project.policies,
                at=now,
                actor=ACTOR,
                reason=f"canary rolled back: {reason}",
            )

    def _advance(self, rollout: Rollout, evidence: dict[str, object], reason: str) -> None:
        """The next step; after the last one Production, unless the policy asks for a person first: then wait."""
        try:
            with self.workspace.database.write() as tx:
                after = record_decision(tx, rollout, Decision.ADVANCE, evidence, at=self.clock.now(), actor=ACTOR)
                if after.status != RUNNING:
                    self._promote(tx, rollout, reason)
                self._route(tx, after, reason)
        except PolicyRefused as refusal:
            self._progress(str(refusal))

    def _promote(self, tx: Transaction, rollout: Rollout, reason: str) -> None:
        now, model, version = self.clock.now(), rollout.model, rollout.challenger
        if self.project.settings.canary.approves:
            approve(
                tx, model, version, Stage.PRODUCTION, at=now, actor=ACTOR, reason="passed its canary", roles=["canary"]
            )
        transition(
            tx,
            model,
            version,
            Stage.PRODUCTION,
            policies=self.project.policies,
            at=now,
            actor=ACTOR,
            reason=f"passed its canary: {reason}",
        )

    def _route(self, tx: Transaction, rollout: Rollout, reason: str) -> None:
        """Make the routes say what the rollout's state says."""
        champion = get_version(tx, rollout.model, rollout.champion)
        challenger = get_version(tx, rollout.model, rollout.challenger)
        if rollout.status == ROLLED_BACK:
            variants = [_variant(champion, "champion", 100)]
        elif rollout.status == PROMOTED:
            variants = [_variant(challenger, "champion", 100)]
        else:
            share = rollout.percent
            variants = [_variant(champion, "champion", 100 - share), _variant(challenger, "canary", share)]
        set_routes(tx, rollout.deployment, variants, at=self.clock.now(), actor=ACTOR, reason=reason)

    def _quality(self, policy: CanaryPolicy, rollout: Rollout, day: date) -> Quality | None:
        """Both versions' quality on the labelled predictions of this step.

        At the last step the champion has no traffic left: there its answers since the rollout began stand for it.
        """
        challenger = self._labelled(rollout.challenger, rollout.step_started_at.date(), day)
        alone = rollout.percent >= 100
        since = rollout.started_at if alone else rollout.step_started_at
        champion = self._labelled(rollout.champion, since.date(), day)
        return compare(self.project.settings.model.task, policy, champion, challenger)

    def _labelled(self, version: int, first: date, last: date) -> tuple[Floats, Floats]:
        """Scores and labels of a version's predictions made from ``first`` to ``last``."""
        rows = [
            (record.score, label.label)
            for offset in range((last - first).days + 1)
            for record, label in labelled(self.workspace.prediction_log, first + timedelta(days=offset))
            if record.version == version
        ]
        matrix = np.array(rows, dtype=np.float64).reshape(-1, 2)
        return matrix[:, 0], matrix[:, 1]


def _variant(version: ModelVersion, name: str, percent: float) -> Variant:
    return Variant(name, version.model, version.version, artifact_key(version.source), version.digest, percent)
