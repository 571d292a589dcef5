"""`noria rollout`: what makes no sense is refused in words, and leaves the registry as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lifecycle.rollout_world import MODEL, START, RolloutWorld
from noria.lifecycle.deploying import deploy, parse_address
from noria.registry import Stage, get_version
from noria.registry.models import delete_alias, set_alias
from noria.registry.stages import request_transition
from noria.rollout import Strategy
from noria.rollout.records import list_rollouts, seen_last
from noria.surface.console.rollouts import gather_rollout
from support import noria


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> RolloutWorld:
    """Two versions, the first of which serves."""
    made = serving(tmp_path_factory.mktemp("rollouts"))
    made.add_version()
    return made


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--steps 50,20", "no steps for canary"),
        ("--steps nan,100", "no steps for canary"),
        ("--steps ,", "are no percents"),
        ("--floor 0.05", "floor: nothing that canary goes by"),
        ("--strategy shadow --require errors", "required: nothing that shadow goes by"),
        ("--max-days nan", "max_days is nan"),
        ("--require reward", "required, but off: reward"),
        ("--strategy ab --effect inf", "which difference is worth finding"),
        ("--strategy ab --effect 0.1 --steps 100", "no steps for ab"),
        ("--strategy ab --effect 0.1 --window-minutes -5", "window_minutes is -5"),
        ("--strategy blue_green --steps 5,50", "no steps for blue_green"),
        ("--strategy bandit --floor 0.6", "2 arms cannot keep a floor of 0.6"),
        ("--strategy bandit --floor nan", "2 arms cannot keep a floor of nan"),
        ("--strategy bandit --algorithm epsilon-greedy --epsilon -1", "an epsilon of -1"),
    ],
)
def test_options_that_make_no_sense_start_nothing(world, options, words):
    folder = world.workspace.folder.parent
    refused = noria("rollout", "start", f"models:/{MODEL}/2", *options.split(), cwd=folder, check=False)
    assert refused.returncode > 0
    assert words in " ".join(refused.stderr.split())
    with world.workspace.database.read() as tx:
        assert list_rollouts(tx) == []
        assert get_version(tx, MODEL, 2).stage is Stage.NONE


def told(world: RolloutWorld, *words: str) -> str:
    return noria("rollout", *words, cwd=world.workspace.folder.parent).stdout


def told_json(world: RolloutWorld, *words: str) -> Any:
    return json.loads(told(world, *words, "--json"))


def test_an_ended_rollout_is_told_with_what_it_ended_by(tmp_path):
    world = serving(tmp_path)
    world.send(300)
    rollout = world.start(Strategy.CANARY, world.add_version(inputs=("a", "b", "c", "missing")), steps=(20, 100))
    world.rollouts.look(rollout.rollout_id)  # which sees too little
    waits = told_json(world, "status", MODEL)
    assert "nothing to compare" in waits["waits_because"]
    assert waits["rollout"]["ended_at"] is None and "ended_at" not in told(world, "status", MODEL)
    world.send(2000)
    world.pass_minutes(5)
    world.rollouts.look(rollout.rollout_id)
    ended = told_json(world, "status", MODEL)
    assert ended["rollout"]["status"] == "rolled_back" and "waits_because" not in ended
    assert "split of the traffic" in ended["ended_because"]
    harmed = next(one for one in ended["guards"] if one["state"] == "harmed")
    assert 0 <= harmed["p_value"] <= harmed["allowance"]
    story = told_json(world, "explain", MODEL)
    assert story["plan"]["guards"]["max_error_increase"] == 0.005
    assert [(one["step"], one["percent"]) for one in story["steps"]] == [(1, 20.0)]
    assert [one["decision"] for one in story["decisions"]] == ["roll_back"]
    assert ended["looked_at"] == ended["rollout"]["ended_at"] == told_json(world, "list")[0]["ended_at"]


def test_what_a_shadow_that_was_aborted_had_shown_is_still_told(tmp_path):
    world = serving(tmp_path)
    rollout = world.start(Strategy.SHADOW, world.add_version(), min_minutes=5)
    world.rollouts.pause(rollout.rollout_id, actor="ann", reason="too early")
    paused = told_json(world, "status", MODEL)
    assert (paused["waits_because"], paused["looked_at"]) == ("it is paused: too early", None)
    world.rollouts.resume(rollout.rollout_id, actor="ann", reason="now")
    world.send(400)
    world.pass_minutes(1)
    world.rollouts.look(rollout.rollout_id)
    assert told_json(world, "status", MODEL)["waits_because"].endswith("400 requests compared, 1.0 of 5 minutes over")
    world.rollouts.pause(rollout.rollout_id, actor="ann", reason="lunch")
    paused = told_json(world, "status", MODEL)
    assert (paused["waits_because"], paused["requests"]) == ("it is paused: lunch", 400)
    world.rollouts.abort(rollout.rollout_id, actor="ann", reason="seen enough")
    ended = told_json(world, "status", MODEL)
    assert (ended["ended_because"], ended["requests"]) == ("seen enough", 400)
    with world.workspace.database.read() as tx:
        page = gather_rollout(tx, rollout.rollout_id, world.clock.now(), may_change=False)
    assert page.reason == "seen enough"
    assert {"agreement", "seconds · shadow · p95"} <= {name for name, _ in page.measures}


def test_a_bandits_shares_are_told_as_they_are(tmp_path):
    world = serving(tmp_path)
    rollout = world.start(Strategy.BANDIT, world.add_version(), window_minutes=0)
    world.send(1000, reward=lambda answer, _row: float(answer.model_version == "2"))
    world.rollouts.look(rollout.rollout_id)
    status = told_json(world, "status", MODEL)
    assert [status["rollout"][name] for name in ("challengers", "step", "steps")] == [[2], 1, [50.0]]
    assert (status["rollout"]["percent"], status["traffic"]) == (95.0, pytest.approx({"champion": 0.05, "v2": 0.95}))
    assert told_json(world, "list")[0]["percent"] == 95.0
    with world.workspace.database.read() as tx:
        page = gather_rollout(tx, rollout.rollout_id, world.clock.now(), may_change=False)
        assert seen_last(tx, page.rollout) is not None
    assert page.percent == 95.0
    assert [(arm.name, arm.mean, arm.pending, arm.percent) for arm in page.arms] == [
        ("champion", "0", 0, pytest.approx(5)),
        ("v2", "1", 0, pytest.approx(95)),
    ]
    assert page.measures == [("rewards · came in", "1000"), ("rewards · counted", "1000")]
    assert told_json(world, "explain", MODEL)["shares"][-1]["shares"] == pytest.approx({"champion": 0.05, "v2": 0.95})
    assert deployments(world)[0]["serves"] == f"champion {MODEL}@1 5%, v2 {MODEL}@2 95%"


def test_what_a_deployment_follows_is_told_or_that_it_is_gone_or_nothing(tmp_path):
    world = serving(tmp_path)
    with world.workspace.database.write() as tx:
        set_alias(tx, MODEL, "champ", 1, at=START, actor="ann")
    address = parse_address(f"models:/{MODEL}@champ")
    deploy(world.workspace, world.policies, world.clock, address, actor="ann", reason="", deployment="other")
    assert [one["follows"] for one in deployments(world)] == ["", "@champ"]
    with world.workspace.database.write() as tx:
        delete_alias(tx, MODEL, "champ", at=START, actor="ann")
    assert [one["follows"] for one in deployments(world)] == ["", "@champ, which is gone"]
    move = {"policies": world.policies, "at": START, "actor": "ann"}
    request_transition(world.workspace.database, MODEL, world.add_version(), Stage.PRODUCTION, **move)
    assert [one["production_beside"] for one in deployments(world)] == [2, None]
    folder = world.workspace.folder.parent
    mistyped = noria("deploy", "lst", cwd=folder, check=False)
    assert mistyped.returncode == 1 and "Did you mean `noria deploy list`?" in mistyped.stderr
    assert "nothing," in noria("deploy", "list", cwd=folder).stdout


def test_rollouts_have_room_on_eighty_columns_and_comparisons_are_words(tmp_path):
    world = serving(tmp_path)
    started = told(
        world, "start", f"models:/{MODEL}/{world.add_version()}", "--strategy", "ab", "--effect", "0.1",
        "--window-minutes", "0",
    )  # fmt: skip
    assert {"strategy: ab", "challengers: 2", "step: 1 of 1"} <= {line.strip() for line in started.splitlines()}
    assert "ended_at" not in started
    (row,) = [one for one in told(world, "list").splitlines() if "running" in one]
    assert row.split()[1:3] == [MODEL, "ab"] and "running 50%" in row and ":" in row
    rollout = told_json(world, "list")[0]["rollout"]
    world.send(400, reward=lambda answer, _row: float(answer.prediction_id.endswith("7")))
    world.rollouts.look(rollout)
    status = told(world, "status", MODEL)
    shown = status + told(world, "explain", MODEL)
    assert status.count("arm v2, estimate ") == status.count("p_value") == 1
    assert "{" not in shown and "(50" not in shown


def deployments(world: RolloutWorld) -> Any:
    return json.loads(noria("deploy", "list", "--json", cwd=world.workspace.folder.parent).stdout)


def serving(folder: Path) -> RolloutWorld:
    """One version that serves, in a project."""
    world = RolloutWorld(folder)
    world.deploy(world.add_version())
    settings = f'[project]\nname = "rollouts"\n[model]\nname = "{MODEL}"\ntask = "classification"\n'
    (world.workspace.folder.parent / "noria.toml").write_text(settings)
    return world


def test_production_is_left_to_the_rollout_that_is_under_way(project):
    noria("run", cwd=project)
    noria("deploy", "models:/hourly-demand/1", "--unit", "shop", cwd=project)
    noria("rollout", "start", "models:/hourly-demand/2", cwd=project)
    moved = noria("models", "move", "hourly-demand", "2", "Production", cwd=project, check=False)
    assert moved.returncode != 0 and "has a rollout under way" in moved.stderr
    trained = noria("run", "--json", cwd=project, check=False)
    assert trained.returncode == 3 and "has a rollout under way" in trained.stderr
    assert json.loads(trained.stdout)["stage"] == "Staging"
    noria("rollout", "abort", "demand", "--reason", "later", cwd=project)
    noria("models", "move", "hourly-demand", "3", "Production", cwd=project)
    assert json.loads((project / ".noria/routes/demand.json").read_text())["unit"] == "shop"
    noria("audit", "verify", cwd=project)
