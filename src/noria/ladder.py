"""The steps of a canary: rising percents of the traffic, the last being all of it."""

from __future__ import annotations

from collections.abc import Sequence

GIVE_A_LADDER = "Give rising percents above 0, the last being 100, such as 5,10,25,50,100."


def rises(steps: Sequence[float]) -> bool:
    """Whether there are steps, each a percent above 0 and above the one before."""
    return bool(steps) and all(0 < step <= 100 for step in steps) and list(steps) == sorted(set(steps))


def is_ladder(steps: Sequence[float]) -> bool:
    """Whether they rise to 100."""
    return rises(steps) and steps[-1] == 100


def checked_ladder(steps: list[float]) -> list[float]:
    """The same steps. Raises ValueError, as pydantic wants it, for what is no ladder."""
    if not is_ladder(steps):
        raise ValueError(f"{', '.join(f'{step:g}' for step in steps) or 'nothing'}: no steps. {GIVE_A_LADDER}")
    return steps
