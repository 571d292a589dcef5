"""Rollouts as a reconciler runs them: started, looked at, moved along, promoted or taken back.

Every move is one transaction of registry change, policy decision, route and audit entry. A look that is cut short is
taken again and ends in the same state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from noria.clock import Clock
from noria.errors import Conflict, InvalidInput, NoriaError, PolicyRefused
from noria.lifecycle.checks import check_with_log
from noria.lifecycle.evidence import Evidence
from noria.lifecycle.latencies import Floats, latencies_lately
from noria.lifecycle.looks import (
    CANARY,
    CHAMPION,
    Look,
    evidence_of,
    fixed_at_start,
    look_at,
    out_of_use,
    worse_ones,
)
from noria.lifecycle.rollout_routes import point_alias, route, route_to
from noria.lifecycle.served_forms import check_preview, make_servable, variant_of
from noria.lifecycle.startable import champion_of, check_startable
from noria.lifecycle.troubles import Troubles
from noria.optimize.bundle import Task
from noria.registry import ModelVersion, Policies, Stage, approve, get_version, transition
from noria.registry.stages import MoveRefused, gated, note_refusal
from noria.rollout import Decision, Plan, Rollout, Strategy, current_routes
from noria.rollout.deployments import serves_production, tell_gateways
from noria.rollout.moves import (
    Overtaken,
    begin_step,
    check_versions,
    fix_step,
    record_decision,
    record_look,
    record_shares,
    start_rollout,
)
from noria.rollout.plan import check_plan
from noria.rollout.records import PAUSED, PROMOTED, RUNNING, get_rollout, list_rollouts, list_steps
from noria.rollout.strategies import Judgement, judge_checks
from noria.serving.served import load_served
from noria.store.database import Transaction
from noria.store.workspace import Workspace

ACTOR = "noria/lifecycle"
_LATELY = timedelta(days=2)
_REST = 10
"""Times as long as a look took, the next look at the same rollout is put off: looking may not eat the machine."""


class Rollouts:
    """The controller of all rollouts of a workspace. One process runs it at a time."""

    def __init__(
        self, workspace: Workspace, policies: Policies, clock: Clock, progress: Callable[[str], None] = lambda _: None
    ) -> None:
        self._workspace, self._policies, self._clock, self._progress = workspace, policies, clock, progress
        self._evidence: dict[str, Evidence] = {}
        self._checks: dict[str, Mapping[str, object]] = {}
        self._rests: dict[str, float] = {}
        self._troubles = Troubles("rollout_look_failed", "rollout")

    # what people ask for

    def start(
        self, deployment: str, challengers: Sequence[int], plan: Plan, *, actor: str, reason: str = ""
    ) -> Rollout:
        """Prepare the challengers, move them through the gate (Staging, under policy), and begin the first step.

        All of them move and it begins, or nothing does. Raises InvalidInput for a plan that cannot be, Conflict where
        none can start, PolicyRefused for a challenger that the gate does not let through, and what preparing raises.
        """
        database, now = self._workspace.database, self._clock.now()
        check_plan(plan, len(challengers))
        with database.read() as tx:
            champion = champion_of(tx, deployment)
            check_versions(champion.version, challengers)
            check_startable(tx, deployment, champion.model)
            versions = [get_version(tx, champion.model, number) for number in challengers]
            if not serves_production(tx, deployment, champion.model):
                for version in versions:
                    check_preview(self._policies, version)
        for version in versions:
            make_servable(self._workspace, version, at=now, actor=actor, progress=self._progress)
            plan = replace(plan, guards=replace(plan.guards, task=self._loaded_task(version)))
        latencies = self._latencies_before(deployment, now)
        with gated(database, at=self._clock.now(), actor=actor, reason=reason) as tx:
            check_startable(tx, deployment, champion.model)
            if champion_of(tx, deployment).version != champion.version:
                raise Conflict(f"{deployment!r} serves another version by now", remedy="See how it stands, then retry.")
            for version in versions:
                if get_version(tx, version.model, version.version).stage in (Stage.NONE, Stage.ARCHIVED):
                    self._move(tx, version, Stage.STAGING, actor, "the gate before a rollout")
            rollout = start_rollout(
                tx,
                deployment,
                champion.model,
                champion=champion.version,
                challengers=challengers,
                plan=plan,
                at=now,
                actor=actor,
                reason=reason,
            )
            named = ", ".join(version.label for version in versions)
            self._begin_step(tx, rollout, f"{plan.strategy} of {named} starts", actor, latencies)
        tell_gateways(self._workspace, deployment)
        return rollout

    def pause(self, rollout_id: str, *, actor: str, reason: str) -> Rollout:
        """Leave the shares as they are and decide nothing until it is resumed."""
        return self._record(rollout_id, (RUNNING,), Decision.PAUSE, actor, reason)

    def resume(self, rollout_id: str, *, actor: str, reason: str) -> Rollout:
        """Go on with a paused rollout."""
        return self._record(rollout_id, (PAUSED,), Decision.RESUME, actor, reason)

    def promote(self, rollout_id: str, *, actor: str, reason: str, version: int | None = None) -> Rollout:
        """Give a challenger all the traffic, and Production under policy; ``version`` says which of several.

        Raises Conflict when the rollout has ended, InvalidInput for a version that is none of its challengers,
        PolicyRefused with all that is missing.
        """
        with gated(self._workspace.database, at=self._clock.now(), actor=actor, reason=reason) as tx:
            rollout = self._open(tx, rollout_id)
            winner = self._only_challenger(rollout) if version is None else version
            self._check_challenger(rollout, winner)
            after = self._promoted(tx, rollout, winner, Judgement(Decision.PROMOTE, reason), actor, passed=False)
        tell_gateways(self._workspace, after.deployment)
        return after

    def abort(self, rollout_id: str, *, actor: str, reason: str) -> Rollout:
        """Give the champion all the traffic again, at once, from whatever state the rollout is in.

        An alias that the deployment follows and that was moved meanwhile moves back: it would take the traffic along.
        """
        with self._workspace.database.write() as tx:
            rollout = self._open(tx, rollout_id)
            after = record_decision(
                tx, rollout, Decision.ROLL_BACK, {"reason": reason}, at=self._clock.now(), actor=actor
            )
            point_alias(tx, after, after.champion, at=self._clock.now(), actor=actor)
            route(tx, after, at=self._clock.now(), actor=actor, reason=reason)
        tell_gateways(self._workspace, after.deployment)
        self._evidence.pop(after.rollout_id, None)
        return after

    # the reconciler

    def step(self) -> None:
        """Look at every running rollout once. What fails for one is logged, and the others are looked at."""
        with self._workspace.database.read() as tx:
            running = [rollout for rollout in list_rollouts(tx) if rollout.status == RUNNING]
        for rollout in running:
            if time.monotonic() < self._rests.get(rollout.rollout_id, 0.0):
                continue
            started = time.process_time()
            try:
                self.look(rollout.rollout_id)
                self._troubles.end(rollout.rollout_id)
            except NoriaError as error:
                self._troubles.begin(rollout.rollout_id, error.message)
            except Exception as error:
                self._troubles.begin(rollout.rollout_id, repr(error), traceback=True)
            self._rests[rollout.rollout_id] = time.monotonic() + _REST * (time.process_time() - started)

    def look(self, rollout_id: str) -> Rollout:
        """Judge a running rollout on its evidence so far, and do what that asks for; in the end its routes stand.

        Judging takes a while. A rollout that somebody ended, paused or moved along meanwhile is left as they left it.
        """
        with self._workspace.database.read() as tx:
            rollout = get_rollout(tx, rollout_id)
            steps = list_steps(tx, rollout.rollout_id)
            routes = current_routes(tx, rollout.deployment)
            gone = out_of_use(tx, rollout)
        if rollout.status != RUNNING or routes is None:
            return rollout
        now = self._clock.now()
        if gone:
            reason = f"{', '.join(gone)} was archived or deleted meanwhile: the champion stays"
            look = Look(Judgement(Decision.ROLL_BACK, reason))
        elif rollout.plan.strategy is Strategy.BLUE_GREEN:
            if rollout.rollout_id not in self._checks or not self._checks[rollout.rollout_id]["requests"]:
                self._checks[rollout.rollout_id] = check_with_log(self._workspace, routes, rollout.plan)
            days = (now - rollout.started_at).total_seconds() / 86_400
            look = Look(judge_checks(rollout.plan, self._checks[rollout.rollout_id], days=days))
        else:
            evidence = self._evidence.setdefault(
                rollout.rollout_id, evidence_of(self._workspace.prediction_log, rollout)
            )
            answering = {variant.name: variant.percent for variant in routes.answering}
            look = look_at(evidence, rollout, steps, answering, now)
        try:
            after = self._act(rollout, look, now)
        except Overtaken as overtaken:
            self._progress(overtaken.message)
            with self._workspace.database.read() as tx:
                after = get_rollout(tx, rollout.rollout_id)
        if not after.is_open:
            self._evidence.pop(after.rollout_id, None)
        tell_gateways(self._workspace, after.deployment)
        return after

    def _act(self, rollout: Rollout, look: Look, now: datetime) -> Rollout:
        judgement = look.judgement
        if judgement.decision is Decision.WAIT:
            with self._workspace.database.write() as tx:
                record_look(tx, rollout, judgement.as_document(), at=now)
                if look.fixed is not None:
                    fix_step(tx, rollout, look.fixed, at=now, actor=ACTOR)
                if look.shares is not None:
                    shares, why = look.shares, judgement.as_document()
                    record_shares(tx, rollout, shares.shares, shares.parameters, why, at=now, actor=ACTOR)
            return rollout
        self._progress(f"{rollout.plan.strategy} at {rollout.percent:g}%: {judgement.decision.replace('_', ' ')}")
        if judgement.decision is Decision.ROLL_BACK:
            return self._roll_back(rollout, judgement)
        return self._advance(rollout, judgement)

    def _roll_back(self, rollout: Rollout, judgement: Judgement) -> Rollout:
        """Take the traffic away, and archive the challengers that were shown to be worse, where the policy lets them.

        One that nothing was shown of keeps its stage, and may be tried again. A deployment beside the model's own
        leaves stages alone: others may be trying the version, and would be stopped by that.
        """
        with self._workspace.database.write() as tx:
            after = record_decision(
                tx, rollout, Decision.ROLL_BACK, judgement.as_document(), at=self._clock.now(), actor=ACTOR
            )
            route(tx, after, at=self._clock.now(), actor=ACTOR, reason=judgement.reason)
            archives = serves_production(tx, rollout.deployment, rollout.model)
            for version in worse_ones(tx, rollout, judgement) if archives else []:
                self._archive(tx, version, f"rolled back: {judgement.reason}")
        return after

    def _archive(self, tx: Transaction, version: ModelVersion, reason: str) -> None:
        """A refusal is audited; the version keeps its stage then, without traffic."""
        try:
            self._move(tx, version, Stage.ARCHIVED, ACTOR, reason)
        except MoveRefused as refusal:
            note_refusal(tx, refusal, at=self._clock.now(), actor=ACTOR, reason=reason)

    def _advance(self, rollout: Rollout, judgement: Judgement) -> Rollout:
        """The next step; after the last one Production, unless the policy asks for a person first: then wait."""
        last = rollout.step + 1 == len(rollout.steps)
        promotes = judgement.decision is Decision.PROMOTE or last
        try:
            with self._workspace.database.write() as tx:
                if promotes:
                    winner = self._winner(rollout, judgement)
                    if gone := out_of_use(tx, rollout):
                        raise Overtaken(f"{', '.join(gone)} was archived or deleted meanwhile")
                    return self._promoted(tx, rollout, winner, judgement, ACTOR, passed=rollout.plan.approves)
                after = record_decision(
                    tx, rollout, Decision.ADVANCE, judgement.as_document(), at=self._clock.now(), actor=ACTOR
                )
                latencies = self._evidence[rollout.rollout_id].champion_latencies()
                self._begin_step(tx, after, judgement.reason, ACTOR, latencies)
                return after
        except PolicyRefused as refusal:
            self._progress(str(refusal))
            with self._workspace.database.write() as tx:
                document = judgement.as_document() | {"waits_for": [refusal.message, *refusal.details]}
                record_look(tx, rollout, document, at=self._clock.now())
            return rollout

    # moves, within a transaction

    def _promoted(
        self, tx: Transaction, rollout: Rollout, winner: int, judgement: Judgement, actor: str, *, passed: bool
    ) -> Rollout:
        """Production, all the traffic, and the rollout's end; ``passed`` counts as the approval of a passed canary.

        A deployment beside the model's own leaves Production alone, whose version others serve. The alias that the
        deployment follows moves along: it would take the traffic back to where it points.
        """
        now, model = self._clock.now(), rollout.model
        if not serves_production(tx, rollout.deployment, model):
            check_preview(self._policies, get_version(tx, model, winner))
        else:
            if passed:
                why = "passed its rollout"
                approve(tx, model, winner, Stage.PRODUCTION, at=now, actor=ACTOR, reason=why, roles=[CANARY])
            reason = f"passed its {rollout.plan.strategy} rollout: {judgement.reason}" if passed else judgement.reason
            transition(tx, model, winner, Stage.PRODUCTION, policies=self._policies, at=now, actor=actor, reason=reason)
        document = judgement.as_document() | {"winner": winner}
        decision = Decision.ADVANCE if judgement.decision is Decision.ADVANCE else Decision.PROMOTE
        after = record_decision(tx, rollout, decision, document, at=now, actor=actor)
        point_alias(tx, after, winner, at=now, actor=actor)
        route_to(tx, after, winner, at=now, actor=actor, reason=judgement.reason)
        return after

    def _begin_step(self, tx: Transaction, rollout: Rollout, reason: str, actor: str, latencies: Floats) -> None:
        now = self._clock.now()
        revision = route(tx, rollout, at=now, actor=actor, reason=reason)
        begin_step(tx, rollout, revision, fixed_at_start(rollout.plan, latencies), at=now, actor=actor)

    def _loaded_task(self, version: ModelVersion) -> Task:
        """What a version predicts, as it says once loaded: one that does not load gets no traffic."""
        with self._workspace.database.read() as tx:
            variant = variant_of(tx, version, CANARY, 0)
        served = load_served(self._workspace.artifacts, variant)
        served.runtime.unload()
        return served.bundle.task

    def _latencies_before(self, deployment: str, at: datetime) -> Floats:
        """What the champion's answers took lately, under the routes that stand now."""
        with self._workspace.database.read() as tx:
            table = current_routes(tx, deployment)
        revision = 0 if table is None else table.revision
        return latencies_lately(self._workspace.prediction_log, deployment, revision, CHAMPION, at - _LATELY)

    def _record(self, rollout_id: str, states: Sequence[str], decision: Decision, actor: str, reason: str) -> Rollout:
        with self._workspace.database.write() as tx:
            rollout = get_rollout(tx, rollout_id)
            if rollout.status not in states:
                raise Conflict(
                    f"rollout {rollout.rollout_id[:8]} is {rollout.status.replace('_', ' ')}: there is nothing to "
                    f"{decision}",
                    remedy=f"Only a rollout that is {' or '.join(states)} takes a {decision}; `noria rollout status` "
                    "shows how it stands.",
                )
            return record_decision(tx, rollout, decision, {"reason": reason}, at=self._clock.now(), actor=actor)

    @staticmethod
    def _open(tx: Transaction, rollout_id: str) -> Rollout:
        rollout = get_rollout(tx, rollout_id)
        if not rollout.is_open:
            raise Conflict(
                f"rollout {rollout.rollout_id[:8]} has ended: {rollout.status.replace('_', ' ')}",
                remedy=f"`noria rollback {rollout.deployment}` takes back what was promoted."
                if rollout.status == PROMOTED
                else "Its champion was left serving; `noria rollout start` begins another.",
            )
        return rollout

    @staticmethod
    def _only_challenger(rollout: Rollout) -> int:
        if len(rollout.challengers) > 1:
            raise Conflict(
                f"rollout {rollout.rollout_id[:8]} has several challengers", remedy="Say which with --version."
            )
        return rollout.challenger

    @staticmethod
    def _check_challenger(rollout: Rollout, version: int) -> None:
        if version not in rollout.challengers:
            raise InvalidInput(
                f"version {version} is no challenger of rollout {rollout.rollout_id[:8]}; it tries "
                f"{', '.join(map(str, rollout.challengers))}",
                remedy="Promote one of these, or abort the rollout and deploy another version.",
            )

    @staticmethod
    def _winner(rollout: Rollout, judgement: Judgement) -> int:
        named = [number for number in rollout.challengers if judgement.winner == f"v{number}"]
        return named[0] if named else rollout.challenger

    def _move(self, tx: Transaction, version: ModelVersion, stage: Stage, actor: str, reason: str) -> None:
        transition(
            tx,
            version.model,
            version.version,
            stage,
            policies=self._policies,
            at=self._clock.now(),
            actor=actor,
            reason=reason,
        )
