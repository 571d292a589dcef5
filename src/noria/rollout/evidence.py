"""What a canary's guards look at, what they are told to allow, and what they find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from noria.rollout.estimates import Moments
from noria.rollout.planning import LatencyBar
from noria.rollout.rates import EventRecord

Floats = NDArray[np.float64]

ERRORS, LATENCY, SCORES, QUALITY, REWARD, SPLIT = "errors", "latency", "scores", "quality", "reward", "split"


@dataclass(frozen=True, slots=True)
class ArmEvidence:
    """What one arm did in one step, up to now.

    Counts are of units: requests where each is routed by itself, units of assignment where assignment sticks to one
    (then only a unit's first error, first slow answer and first exposure within the rollout count, in the step they
    fall into, so that every event is an independent draw of the arm).
    """

    share: float
    """The share of the traffic assigned to it, 0 to 1."""
    requests: int
    errors: int
    slow: int | None = None
    """Answers above the step's latency bar."""
    scores: Floats | None = None
    """The model's scores, of all or of a random sample of its predictions."""
    labelled: tuple[Floats, Floats] | None = None
    """Scores and labels of the predictions whose label is known."""
    rewards: Moments | None = None
    """Of one final reward per unit; units whose reward may still change are left out."""
    exposed: int | None = None
    """Units first seen in this step; None: not known, the split is not checked."""


@dataclass(frozen=True, slots=True)
class StepEvidence:
    """Both arms in the same stretch of time at the same shares."""

    champion: ArmEvidence
    challenger: ArmEvidence
    bar: LatencyBar | None = None
    """``latency_bar`` of the champion's latencies and ``max_latency_factor``, taken before the step began."""
    requests_needed: int = 0
    """Challenger requests with which harm would have been seen (``planning.requests_needed``); 0: not known."""
    before: EventRecord | None = None
    """Where the challenger is alone: what errors it is held against, the champion's before; None: no record of any.

    The challenger's requests, errors and slow answers are then those of each unit's first request in the step, and so
    is this record: units come back, and how many fail of those that are asked anew would say nothing.
    """
    slow_requests_needed: int | None = None
    """With which slowness would have been seen, where that takes others than errors do."""

    @property
    def is_alone(self) -> bool:
        """Whether the challenger has all the traffic."""
        return self.champion.share <= 0

    def needed_by(self, guard: str) -> int:
        """Challenger requests with which a guard of events would have seen harm; 0: not known."""
        if guard == LATENCY and self.slow_requests_needed is not None:
            return self.slow_requests_needed
        return self.requests_needed


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """What a challenger may show before it is stopped; None turns a guard off.

    ``alpha`` is the chance that a challenger no different from the champion is ever stopped, over all guards, all steps
    and all looks. A guard calls harm when the challenger is worse beyond chance and by more than the limit.
    """

    alpha: float = 0.05
    max_error_increase: float | None = 0.005
    """In absolute terms: 0.005 is half a percentage point."""
    max_latency_factor: float | None = 1.1
    """How many times longer answers may take; each step's ``bar`` says what that means in slow answers."""
    latency_tolerance_seconds: float = 0.0005
    """How much longer they may take at least: a tenth of a tenth of a millisecond matters to nobody."""
    max_score_shift: float | None = None
    """Of P(challenger's score > champion's) from 1/2. A retrained model shifts for good reasons: set it wide."""
    max_quality_loss: float | None = 0.05
    """Of AUC (absolute) or mean absolute error (relative)."""
    max_reward_loss: float | None = None
    """Of the mean reward per unit, relative to the champion's."""
    task: str = "classification"
    min_rows: int = 300
    """Rows of the challenger (scores, labels, rewards) with which a step may be passed."""

    @property
    def guards(self) -> Sequence[str]:
        """The guards that are on; the check of the split always is."""
        limits = {
            ERRORS: self.max_error_increase,
            LATENCY: self.max_latency_factor,
            SCORES: self.max_score_shift,
            QUALITY: self.max_quality_loss,
            REWARD: self.max_reward_loss,
        }
        return [*(name for name, limit in limits.items() if limit is not None), SPLIT]

    def allowance(self, step: int) -> float:
        """What one guard may spend on harm that begins at ``step`` (from 1): its part of alpha times 1/(step (step+1)).

        These parts of 1 sum to 1 over however many steps there will be.
        """
        return self.alpha / len(self.guards) / (step * (step + 1))


class GuardState(StrEnum):
    """What a guard makes of the evidence."""

    OK = "ok"
    HARMED = "harmed"
    UNDECIDED = "undecided"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class GuardFinding:
    """One guard's finding, in numbers and in words.

    ``estimate`` with ``lower`` and ``upper`` is the challenger's minus the champion's, in the measure's own direction:
    more errors, slow answers or scores are above 0, and so are a better quality and a larger reward. It is of the
    evidence since ``since_step``; ``p_value`` is always valid and means harm at or below ``allowance``. ``arm`` names
    the challenger where there are several.
    """

    guard: str
    state: GuardState
    reason: str
    estimate: float | None = None
    lower: float | None = None
    upper: float | None = None
    p_value: float | None = None
    allowance: float | None = None
    since_step: int | None = None
    arm: str = ""

    def as_document(self) -> dict[str, object]:
        """The JSON kept as evidence."""
        return asdict(self)
