"""A deployment in a folder: real versions in a real registry, a data plane that serves them, and the controller."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from noria.clock import ReplayClock, to_millis
from noria.config import RolloutSettings, ServerSettings
from noria.lifecycle.deploying import deploy, follow, parse_address
from noria.lifecycle.plans import planned
from noria.lifecycle.rollouts import Rollouts
from noria.lifecycle.troubles import Troubles
from noria.monitoring.log import LabelRecord, PredictionBatch, PredictionLog, RewardRecord
from noria.optimize.bundle import Bundle, write_bundle
from noria.optimize.onnx import convert
from noria.registry import NewVersion, Policies, register_version
from noria.rollout import Rollout, Strategy, read_routes
from noria.rollout.deployments import write_routes
from noria.serving import DataPlane, Prediction, PredictionRequest
from noria.store.blobs import folder_digest
from noria.store.workspace import Workspace, artifact_uri

MODEL = "churn"
INPUTS = ("a", "b", "c")
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
TRUTH = np.array([1.5, -1.0, 0.5, 0.0])


class RolloutWorld:
    """Versions of one model, served as ``churn``. The clock stands still until it is moved."""

    def __init__(self, folder: Path, policies: Policies | None = None, **settings: Any) -> None:
        self.workspace = Workspace(folder, ServerSettings())
        self.clock = ReplayClock(START)
        self.policies = policies or Policies()
        self.settings = RolloutSettings(**{"min_minutes": 1, "guards": ["errors"], "required": ["errors"]} | settings)
        self.rollouts = Rollouts(self.workspace, self.policies, self.clock)
        self.random = np.random.default_rng(7)
        self.sent = 0

    def add_version(self, model: Any = None, *, inputs: Sequence[str] = INPUTS) -> int:
        """Train, convert and register a version."""
        rows = self.random.normal(size=(2000, len(inputs)))
        labels = (rows @ TRUTH[: len(inputs)] > 0).astype(int)
        fitted = (LogisticRegression() if model is None else model).fit(rows, labels)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "model"
            folder.mkdir()
            graph = convert(fitted, "classification", inputs, rows[:500], folder).graph
            bundle = Bundle("classification", tuple(inputs), (), graph.numbers, graph.score, graph.dtype)
            write_bundle(folder, bundle)
            digest, key = folder_digest(folder), f"models/{self.random.integers(10**9)}"
            self.workspace.artifacts.put_folder(key, folder)
        new = NewVersion(MODEL, artifact_uri(key), digest=digest)
        with self.workspace.database.write() as tx:
            return register_version(tx, new, policies=self.policies, at=self.clock.now(), actor="ann").version

    def deploy(self, version: int) -> None:
        """Give a version all the traffic."""
        address = parse_address(f"models:/{MODEL}/{version}")
        deploy(self.workspace, self.policies, self.clock, address, actor="ann", reason="first")

    def follow(self) -> None:
        """Bring every deployment that follows something to what that points at."""
        lost = Troubles("deployment_cannot_follow", "deployment")
        follow(self.workspace, self.policies, self.clock, actor="noria/lifecycle", troubles=lost)

    def start(self, strategy: Strategy, *challengers: int, **options: Any) -> Rollout:
        """Begin a rollout."""
        plan = planned(self.settings, strategy, **options)
        return self.rollouts.start(MODEL, challengers, plan, actor="ann", reason="try")

    def pass_minutes(self, minutes: float) -> None:
        """Move the clock."""
        self.clock.move_to(self.clock.now() + timedelta(minutes=minutes))

    def send(
        self,
        count: int,
        *,
        units: Callable[[int], str] = lambda _: "",
        features: Callable[[int], Sequence[float | None]] | None = None,
        label: bool = False,
        reward: Callable[[Prediction, Sequence[float | None]], float] | None = None,
    ) -> list[Prediction | Exception]:
        """Ask for predictions through a data plane that serves the routes of now; log labels and rewards."""
        return asyncio.run(self._send(count, units, features, label, reward))

    def log_answers(self, seconds: Mapping[str, NDArray[np.float64]]) -> None:
        """Log answers of the variants by name, as ``send`` does, that took these seconds and not what they do here."""
        write_routes(self.workspace, MODEL)
        routes = read_routes(self.workspace.route_file(MODEL))
        batches = []
        for variant in (variant for variant in routes.answering if variant.name in seconds):
            numbers = self.random.normal(size=(len(seconds[variant.name]), 3))
            made = logged_answers(MODEL, numbers, seconds=seconds[variant.name], first=self.sent)
            self.sent += len(numbers)
            at = {"revision": routes.revision, "variant": variant.name, "version": variant.version}
            batches.append(msgspec.structs.replace(made, **at))
        write_answers(self.workspace.prediction_log, batches)

    async def _send(self, count: int, units: Any, features: Any, label: bool, reward: Any) -> list[Any]:
        workspace = self.workspace
        write_routes(workspace, MODEL)
        plane = DataPlane(workspace.artifacts, workspace.online_url, workspace.prediction_log)
        await plane.swap(read_routes(workspace.route_file(MODEL)))
        assert not plane.faults, plane.faults
        numbers = range(self.sent, self.sent + count)
        rows = [features(n) if features else self.random.normal(size=3).tolist() for n in numbers]
        asked = [
            PredictionRequest(f"p{n}", features=dict(zip(INPUTS, row, strict=True)), unit_id=units(n))
            for n, row in zip(numbers, rows, strict=True)
        ]
        answers: list[Any] = []
        for start in range(0, count, 50):
            together = (plane.predict(plane.find(), request) for request in asked[start : start + 50])
            answers += await asyncio.gather(*together, return_exceptions=True)
        now = to_millis(datetime.now(UTC))
        known = [(a, row) for a, row in zip(answers, rows, strict=True) if isinstance(a, Prediction)]
        if label:
            truth = [float(np.array(row) @ TRUTH[:3] > 0) for _, row in known]
            plane.recorder.labels(
                [LabelRecord(a.prediction_id, now, now, value) for (a, _), value in zip(known, truth, strict=True)]
            )
        if reward is not None:
            plane.recorder.rewards([RewardRecord(now, reward(a, row), a.prediction_id) for a, row in known])
        for shadow in plane.find().shadows:
            deadline = asyncio.get_running_loop().time() + 10
            while shadow.waiting and asyncio.get_running_loop().time() < deadline:
                await asyncio.sleep(0.01)
        plane.close()
        self.sent += count
        return answers


def forest(trees: int) -> RandomForestClassifier:
    """A model that takes its time."""
    return RandomForestClassifier(trees, random_state=0)


def world_of_three(root: Path) -> RolloutWorld:
    """Three versions, of which the first was deployed."""
    made = RolloutWorld(root)
    for _ in range(3):
        made.add_version()
    made.deploy(1)
    return made


def world_of_one(root: Path, requests: int = 300) -> RolloutWorld:
    """One version, deployed and asked."""
    made = RolloutWorld(root)
    made.deploy(made.add_version())
    made.send(requests)
    return made


def logged_answers(
    deployment: str,
    numbers: NDArray[np.float64],
    texts: Sequence[str] = (),
    *,
    seconds: float | NDArray[np.float64] = 0.0,
    first: int = 0,
) -> PredictionBatch:
    """What version 1 answered now: numbers of shape (rows, numeric inputs), and a text a row."""
    count, now = len(numbers), to_millis(datetime.now(UTC))
    return PredictionBatch(
        received_at=now,
        deployment=deployment,
        revision=1,
        variant="champion",
        model=MODEL,
        version=1,
        prediction_ids=[f"p{first + place}" for place in range(count)],
        event_times=np.full(count, now).tobytes(),
        numbers=numbers.tobytes(),
        scores=np.zeros(count).tobytes(),
        predictions=np.zeros(count).tobytes(),
        latencies=np.broadcast_to(np.float32(seconds), count).tobytes(),
        strings=[[text] for text in texts],
        string_places=[1] if texts else [],
    )


def write_answers(folder: Path, batches: Sequence[PredictionBatch]) -> None:
    log = PredictionLog(folder)
    for batch in batches:
        log.predictions(batch, [batch.received_at // 86_400_000])
    log.close()


class InterruptedClock:
    """A clock on which something happens when it is looked at for the ``nth`` time: in the middle of a change."""

    def __init__(self, clock: ReplayClock, interrupt: Callable[[], object], nth: int = 1) -> None:
        self._clock, self._interrupt, self._left = clock, interrupt, nth

    def now(self) -> datetime:
        self._left -= 1
        if self._left == 0:
            self._interrupt()
        return self._clock.now()


def ready(world: RolloutWorld, strategy: Strategy) -> Rollout:
    """A rollout whose next look goes on, promotes, takes back or waits."""
    options = {
        Strategy.CANARY: {"steps": (50, 100)},
        Strategy.AB: {"effect": 0.1, "window_minutes": 0},
        Strategy.BANDIT: {"window_minutes": 0},
    }
    rollout = world.start(strategy, world.add_version(), **options.get(strategy, {}))
    world.send(4000, reward=lambda answer, _row: float(answer.model_version == "2"))
    world.pass_minutes(2)
    return rollout


def look_interrupted(world: RolloutWorld, rollout: Rollout, interrupt: Callable[[], object]) -> Rollout:
    return Rollouts(world.workspace, world.policies, InterruptedClock(world.clock, interrupt)).look(rollout.rollout_id)
