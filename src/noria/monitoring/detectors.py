"""Detectors that may look every day and still keep their promise on false alarms.

Each is a Shiryaev-Roberts e-detector (Shin, Ramdas & Rinaldo, 2023, "E-detectors: a nonparametric framework for
sequential change detection"): M_t = (M_{t-1} + 1) * L_t with E[L_t] <= 1 while nothing changed. Then the expected
time to M >= c is at least c windows, so the threshold is the run length one asks for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime

from noria.monitoring.profile import Baseline, Floats, Profile
from noria.monitoring.records import WindowResult

INPUT_DRIFT = "input_drift"
PREDICTION_DRIFT = "prediction_drift"
PERFORMANCE = "performance"

_SHIFTS = (0.5, 1.0, 2.0)
_CEILING = 1e12


def likelihood_ratio(z: float, *, two_sided: bool) -> float:
    """The mean over shifts d of exp(d z - d²/2): at most 1 in expectation for a standard normal ``z``."""
    shifts = [*_SHIFTS, *(-shift for shift in _SHIFTS)] if two_sided else list(_SHIFTS)
    return sum(math.exp(shift * z - shift**2 / 2) for shift in shifts) / len(shifts)


def step(previous: float, z: float, *, two_sided: bool) -> float:
    """The e-detector after one more window."""
    return min((previous + 1) * likelihood_ratio(z, two_sided=two_sided), _CEILING)


def judge_inputs(
    profile: Profile, inputs: Mapping[str, Floats], previous: WindowResult | None, base: WindowResult
) -> WindowResult:
    """Input drift: one e-detector a column on its mean rank; their mean is an e-detector too.

    ``base`` carries deployment, version, window and threshold; the result replaces its measures.
    """
    before = _column_state(previous)
    z = {
        name: profile.columns[name].baseline.standardize(profile.columns[name].mean_rank(values))
        for name, values in inputs.items()
    }
    state = {name: step(before.get(name, 0.0), value, two_sided=True) for name, value in z.items()}
    top = sorted(state, key=lambda name: -state[name])[:3]
    return _result(
        base,
        value=sum(abs(value) for value in z.values()) / max(len(z), 1),
        statistic=sum(state.values()) / max(len(state), 1),
        evidence={"columns": state, "deviations": z, "moved_most": top},
    )


def judge_measure(
    reference: Baseline, value: float, previous: WindowResult | None, base: WindowResult, *, two_sided: bool
) -> WindowResult:
    """One measure (mean rank of scores, mean loss) against its baseline."""
    z = reference.standardize(value)
    statistic = step(0.0 if previous is None else previous.statistic, z, two_sided=two_sided)
    return _result(base, value=value, statistic=statistic, evidence={"deviation": z, "reference": reference.mean})


def blank(deployment: str, version: int, detector: str, start: datetime, rows: int, threshold: float) -> WindowResult:
    """A result that still lacks its measures."""
    return WindowResult(deployment, version, detector, start, rows, 0.0, 0.0, threshold, {})


def _result(base: WindowResult, *, value: float, statistic: float, evidence: Mapping[str, object]) -> WindowResult:
    return WindowResult(
        base.deployment,
        base.model_version,
        base.detector,
        base.window_start,
        base.rows,
        value,
        statistic,
        base.threshold,
        evidence,
    )


def _column_state(previous: WindowResult | None) -> Mapping[str, float]:
    columns = {} if previous is None else previous.evidence.get("columns", {})
    assert isinstance(columns, dict)
    return columns
