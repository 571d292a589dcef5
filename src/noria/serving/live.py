"""A deployment as it serves now: its route table, and the loaded version behind each variant."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from noria.errors import InvalidInput, NotFound
from noria.rollout.contextual import read_linucb
from noria.rollout.routes import RouteTable, Variant, place, uniform
from noria.serving.batcher import Batcher
from noria.serving.inputs import InputColumns, NoColumns
from noria.serving.runtimes import Floats
from noria.serving.served import Served

if TYPE_CHECKING:
    from noria.serving.shadow import Shadow


@dataclass(frozen=True, slots=True, eq=False)
class Arm:
    """One variant, loaded. ``version`` is as answers give it."""

    variant: Variant
    served: Served
    batcher: Batcher
    columns: InputColumns
    version: str

    @classmethod
    def of(cls, variant: Variant, served: Served, batcher: Batcher) -> Arm:
        """The variant answered by ``served``."""
        columns = (NoColumns if served.bundle.tensors else InputColumns)(served.bundle)
        return cls(variant, served, batcher, columns, str(variant.version))


class Live:
    """One deployment at one revision; replaced as a whole. ``arms`` answer, ``shadows`` get copies.

    ``by_context`` chooses among the arms by the features of a row, where a contextual bandit does.
    """

    def __init__(self, table: RouteTable, arms: Sequence[Arm], shadows: Sequence[Shadow]) -> None:
        self.table, self.arms, self.shadows = table, arms, shadows
        self.by_context = read_linucb(table.contextual) if table.contextual else None
        self._percents = [arm.variant.percent for arm in self.arms]
        self._salt, self.unit = table.salt, table.unit

    def admits(self, key: str) -> bool:
        """Whether a request with this key, empty without one, may be answered."""
        return not self.table.key_hashes or hashlib.sha256(key.encode()).hexdigest() in self.table.key_hashes

    @property
    def champion(self) -> Arm:
        """The first variant."""
        return self.arms[0]

    @property
    def all_arms(self) -> Sequence[Arm]:
        """Those that answer, and the shadows'."""
        return [*self.arms, *(shadow.arm for shadow in self.shadows)]

    def serves(self, table: RouteTable) -> bool:
        """Whether every version that ``table`` names is loaded here."""
        return {one.identity for one in table.variants} <= {arm.variant.identity for arm in self.all_arms}

    @property
    def models(self) -> set[str]:
        """The names of the models behind it."""
        return {arm.variant.model for arm in self.arms}

    def choose(self, key: str) -> Arm:
        """The arm that answers ``key``."""
        arms = self.arms
        return arms[0] if len(arms) == 1 else arms[place(self._salt + key, self._percents)]

    def choose_by_context(self, key: str, numbers: Sequence[float | None] | Floats) -> Arm:
        """The arm for a complete row; ``key`` decides where chance does."""
        assert self.by_context is not None
        place, _ = self.by_context.choose(np.array(numbers, dtype=np.float64), uniform(self._salt + key))
        name = self.by_context.arms[place]
        return next((arm for arm in self.arms if arm.variant.name == name), self.arms[0])

    def arm(self, version: str) -> Arm:
        """The arm a client names: by version, or by an alias or stage that the table knows. Raises NotFound."""
        wanted = self.table.addresses.get(version, version)
        for arm in self.arms:
            if arm.version == str(wanted):
                return arm
        served = ", ".join(arm.served.label for arm in self.arms)
        raise NotFound(
            f"version {version!r} is not served by deployment {self.table.deployment!r}",
            remedy=f"Served are: {served}.",
        )


def find(deployments: Sequence[Live], name: str | None) -> Live:
    """The deployment of that name, or the only one that serves a model of that name; the only one when none is given.

    Raises NotFound, or InvalidInput when a deployment's name is needed: of several that serve a model, one is not as
    good as another.
    """
    if name is None and len(deployments) == 1:
        return deployments[0]
    names = ", ".join(live.table.deployment for live in deployments)
    if name is None:
        raise InvalidInput("several models are served here", remedy=f"Name one, as in /models/NAME/predict: {names}.")
    for live in deployments:
        if live.table.deployment == name:
            return live
    serving = [live for live in deployments if name in live.models]
    if len(serving) == 1:
        return serving[0]
    if serving:
        names = ", ".join(live.table.deployment for live in serving)
        raise InvalidInput(f"several deployments serve model {name!r}", remedy=f"Name one of them: {names}.")
    raise NotFound(f"{name!r} is not served here", remedy=f"Served are: {names}.")
