"""A deployment as it serves now: its route table, and the loaded version behind each variant."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from noria.errors import InvalidInput, NotFound
from noria.rollout.routes import RouteTable, Variant, place
from noria.serving.batcher import Batcher
from noria.serving.inputs import InputColumns
from noria.serving.served import Served


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
        return cls(variant, served, batcher, InputColumns(served.bundle), str(variant.version))


class Live:
    """One deployment at one revision; replaced as a whole. ``arms`` answer, ``shadows`` get copies."""

    def __init__(self, table: RouteTable, arms: Sequence[Arm]) -> None:
        self.table = table
        self.arms = [arm for arm in arms if not arm.variant.shadow]
        self.shadows = [arm for arm in arms if arm.variant.shadow]
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
        """Those that answer, and the shadows."""
        return [*self.arms, *self.shadows]

    @property
    def models(self) -> set[str]:
        """The names of the models behind it."""
        return {arm.variant.model for arm in self.arms}

    def choose(self, key: str) -> Arm:
        """The arm that answers ``key``."""
        arms = self.arms
        return arms[0] if len(arms) == 1 else arms[place(self._salt + key, self._percents)]

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
    """The deployment of that name, or the one that serves the model of that name; the only one when none is given.

    Raises NotFound, or InvalidInput when a name is needed.
    """
    if name is None and len(deployments) == 1:
        return deployments[0]
    names = ", ".join(live.table.deployment for live in deployments)
    if name is None:
        raise InvalidInput("several models are served here", remedy=f"Name one, as in /models/NAME/predict: {names}.")
    for live in deployments:
        if live.table.deployment == name:
            return live
    for live in deployments:
        if name in live.models:
            return live
    raise NotFound(f"{name} is not served here", remedy=f"Served are: {names}.")
