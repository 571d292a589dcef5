"""Policies: what must hold before a version may enter a stage."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from noria.config import PolicySettings, StageRuleSettings
from noria.errors import InvalidConfig
from noria.registry.entities import Approval, ModelVersion, Stage

_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_CONDITION = re.compile(r"^\s*([\w.\-/ ]+?)\s*(?:(>=|<=|>|<)\s*(-?\d+(?:\.\d+)?(?:[eE]-?\d+)?))?\s*$")


@dataclass(frozen=True, slots=True)
class MetricCondition:
    """``auc >= 0.6``, or ``auc`` alone: the metric must have been logged."""

    metric: str
    comparison: str | None = None
    threshold: float | None = None

    @classmethod
    def parse(cls, text: str) -> MetricCondition:
        """Read a condition as people write it. Raises InvalidConfig when it is none."""
        match = _CONDITION.match(text)
        if match is None:
            raise InvalidConfig(
                f"{text!r} is not a metric condition",
                remedy="Write a metric name, or a comparison such as 'auc >= 0.65'.",
            )
        metric, comparison, threshold = match.groups()
        return cls(metric, comparison, None if threshold is None else float(threshold))

    def unmet(self, metrics: Mapping[str, float]) -> str | None:
        """Why the condition does not hold, or None."""
        value = metrics.get(self.metric)
        if value is None:
            return f"metric {self.metric!r} was not logged"
        if self.comparison is None or self.threshold is None:
            return None
        if _COMPARISONS[self.comparison](value, self.threshold):
            return None
        return f"metric {self.metric} = {value:.4g}, required {self.comparison} {self.threshold:g}"


@dataclass(frozen=True, slots=True)
class StageRule:
    """What a version needs to enter one stage."""

    required_tags: Sequence[str] = ()
    required_metrics: Sequence[MetricCondition] = ()
    approvals: int = 0
    reason_required: bool = False

    @classmethod
    def from_settings(cls, settings: StageRuleSettings) -> StageRule:
        """One stage's rule as noria.toml has it. Raises InvalidConfig for what is no metric condition."""
        return cls(
            required_tags=tuple(settings.required_tags),
            required_metrics=tuple(MetricCondition.parse(text) for text in settings.required_metrics),
            approvals=settings.approvals,
            reason_required=settings.reason_required,
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of the models whose name matches ``pattern`` (a shell pattern)."""

    pattern: str
    rules: Mapping[Stage, StageRule] = field(default_factory=dict)

    def unmet(self, version: ModelVersion, stage: Stage, approvals: Sequence[Approval], reason: str) -> list[str]:
        """Every condition that does not hold, one sentence each."""
        return list(self._unmet(version, self.rules.get(stage, StageRule()), stage, approvals, reason))

    @staticmethod
    def _unmet(
        version: ModelVersion, rule: StageRule, stage: Stage, approvals: Sequence[Approval], reason: str
    ) -> Iterator[str]:
        for tag in rule.required_tags:
            if tag not in version.tags:
                yield f"tag {tag!r} is missing"
        for condition in rule.required_metrics:
            if (finding := condition.unmet(version.metrics)) is not None:
                yield finding
        given = sum(approval.stage == stage for approval in approvals)
        if given < rule.approvals:
            yield f"{given} of {rule.approvals} approvals for {stage} given"
        if rule.reason_required and not reason.strip():
            yield "a reason is required"


@dataclass(frozen=True, slots=True)
class Policies:
    """All policies of a project; the first whose pattern matches a model applies."""

    policies: Sequence[Policy] = ()

    @classmethod
    def from_settings(cls, settings: Mapping[str, PolicySettings]) -> Policies:
        """The policies of noria.toml: name pattern → policy. Raises InvalidConfig for what is no metric condition."""
        return cls(
            tuple(
                Policy(pattern, {Stage(stage): StageRule.from_settings(rule) for stage, rule in policy.stages.items()})
                for pattern, policy in settings.items()
            )
        )

    def of(self, model: str) -> Policy:
        """The policy of ``model``; one without conditions when none matches."""
        return next((p for p in self.policies if fnmatchcase(model, p.pattern)), Policy(model))
