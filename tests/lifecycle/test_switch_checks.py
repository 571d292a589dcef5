"""What a blue-green challenger is tested with before the switch, and what stops it."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.linear_model import LogisticRegression

from lifecycle.rollout_world import INPUTS, MODEL, RolloutWorld, forest, logged_answers, write_answers
from noria.lifecycle.checks import newest_rows
from noria.optimize.bundle import Bundle, TensorSpec, write_bundle
from noria.registry import NewVersion, register_version
from noria.rollout import Rollout, Strategy
from noria.rollout.records import PROMOTED, ROLLED_BACK, list_decisions
from noria.store.blobs import folder_digest
from noria.store.workspace import artifact_uri


def switched(world: RolloutWorld, version: int) -> tuple[Rollout, dict[str, Any]]:
    """A blue-green rollout after its look, and what it was decided on."""
    rollout = world.start(Strategy.BLUE_GREEN, version)
    after = world.rollouts.look(rollout.rollout_id)
    with world.workspace.database.read() as tx:
        (decision,) = list_decisions(tx, rollout.rollout_id)
    return after, dict(decision.evidence)


def serving(folder: Path, **settings: Any) -> RolloutWorld:
    world = RolloutWorld(folder, **settings)
    world.deploy(world.add_version())
    world.send(300)
    return world


def answering_within_100_us(folder: Path, **settings: Any) -> RolloutWorld:
    """A deployment whose log says how long answers took: measured, it would be what a busy machine makes of it."""
    world = RolloutWorld(folder, **settings)
    world.deploy(world.add_version())
    world.log_answers({"champion": np.full(300, 1e-4)})
    return world


def opposite() -> LogisticRegression:
    model = LogisticRegression()
    fit = model.fit
    model.fit = lambda rows, labels: fit(rows, 1 - labels)
    return model


def test_a_version_that_says_the_opposite_is_stopped_where_scores_are_guarded(tmp_path):
    world = serving(tmp_path, guards=["errors", "scores"])
    after, evidence = switched(world, world.add_version(forest(5)))
    assert after.status == PROMOTED and evidence["agreement"] > 0.8
    world = serving(tmp_path / "other", guards=["errors", "scores"], max_score_shift=0.05)
    shifted = LogisticRegression()
    fit = shifted.fit
    shifted.fit = lambda rows, _labels: fit(rows, rows[:, 0] > -1.5)
    after, evidence = switched(world, world.add_version(shifted))
    assert after.status == ROLLED_BACK
    assert "shifts the scores by +0." in evidence["reason"]


def test_where_they_are_not_its_agreement_is_told(tmp_path):
    world = serving(tmp_path)
    after, evidence = switched(world, world.add_version(opposite()))
    assert after.status == PROMOTED and evidence["agreement"] < 0.1
    assert "tested with 200 logged requests (agrees on " in evidence["reason"]


def test_a_version_that_is_far_slower_is_stopped_where_latency_is_guarded(tmp_path):
    world = answering_within_100_us(tmp_path, guards=["latency"], required=["latency"])
    after, evidence = switched(world, slow_version(world))
    assert after.status == ROLLED_BACK
    assert "times as long, more than 2.2" in evidence["reason"]
    unguarded = answering_within_100_us(tmp_path / "other")
    after, evidence = switched(unguarded, slow_version(unguarded))
    assert after.status == PROMOTED and evidence["latency_factor"] > 2.2


# versions that are a graph made by hand


def graph_version(world: RolloutWorld, bundle: Bundle, nodes: list[Any], weights: dict[str, Any]) -> int:
    """Register a graph from "x" to "y"."""
    graph = helper.make_graph(
        nodes,
        "by hand",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in weights.items()],
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        folder.mkdir()
        onnx.save(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "model.onnx"
        )
        write_bundle(folder, bundle)
        digest, key = folder_digest(folder), f"models/{world.random.integers(10**9)}"
        world.workspace.artifacts.put_folder(key, folder)
    with world.workspace.database.write() as tx:
        new = NewVersion(MODEL, artifact_uri(key), digest=digest)
        return register_version(tx, new, policies=world.policies, at=world.clock.now(), actor="ann").version


_LAYERS = 10  # slow even beside what a busy machine adds to the others


def slow_version(world: RolloutWorld) -> int:
    """A version that has millions of numbers to multiply for each row."""
    hidden = [f"hidden{layer}" for layer in range(_LAYERS + 1)]
    nodes = [
        helper.make_node("MatMul", ["x", "first"], hidden[:1]),
        *(helper.make_node("MatMul", [below, "second"], [above]) for below, above in pairwise(hidden)),
        helper.make_node("ReduceMean", hidden[-1:], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Sigmoid", ["mean"], ["y"]),
    ]
    weights = {"first": np.full((3, 2000), 1e-3), "second": np.full((2000, 2000), 1e-3)}
    return graph_version(world, Bundle("classification", INPUTS, (), "x", "y", "float32"), nodes, weights)


# models of tensors


def tensor_version(world: RolloutWorld, *, columns: int = 2, fails: bool = False) -> int:
    """A version that takes a tensor; ``fails`` asks for more columns than its signature says."""
    node = helper.make_node("ReduceSum", ["x"], ["y"], keepdims=1)
    weights = {}
    if fails:
        node, weights = helper.make_node("Concat", ["x", "wide"], ["y"], axis=0), {"wide": np.zeros((1, columns + 1))}
    bundle = Bundle(
        "generic", tensors=(TensorSpec("x", "FP32", (-1, columns)),), outputs=(TensorSpec("y", "FP32", (-1, 1)),)
    )
    return graph_version(world, bundle, [node], weights)


def test_a_model_of_tensors_is_switched_after_it_answered_zeros(tmp_path):
    world = RolloutWorld(tmp_path)
    world.deploy(tensor_version(world))
    after, evidence = switched(world, tensor_version(world))
    assert after.status == PROMOTED
    assert evidence["reason"].startswith("tensors are not logged")


def test_one_that_fails_at_what_its_champion_answers_is_not(tmp_path):
    world = RolloutWorld(tmp_path)
    world.deploy(tensor_version(world))
    after, evidence = switched(world, tensor_version(world, fails=True))
    assert after.status == ROLLED_BACK
    assert "churn@2 fails at zeros: " in evidence["reason"]
    assert not evidence["reason"].endswith(": ")


# the log's newest rows


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
def test_numbers_and_texts_of_a_logged_request_stay_together(tmp_path, count):
    written = [(1.0, "old"), (2.0, "old too"), (3.0, "new"), (4.0, "newer"), (5.0, "newest")]
    parts = [zip(*part, strict=True) for part in (written[:2], written[2:])]
    write_answers(tmp_path, [logged_answers("d", np.array([numbers]).T, texts) for numbers, texts in parts])
    rows = newest_rows(tmp_path, "d", 1, count)
    found = list(zip(rows.numbers[:, 0].tolist(), rows.strings[:, 0].tolist(), strict=True))
    assert found == written[-count:]
