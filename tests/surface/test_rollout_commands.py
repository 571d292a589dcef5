"""`noria rollout`: what makes no sense is refused in words, and leaves the registry as it was."""

from __future__ import annotations

import pytest

from lifecycle.rollout_world import MODEL, RolloutWorld
from noria.registry import Stage, get_version
from noria.rollout.records import list_rollouts
from support import noria


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> RolloutWorld:
    """Two versions, the first of which serves."""
    made = RolloutWorld(tmp_path_factory.mktemp("rollouts"))
    for _ in range(2):
        made.add_version()
    made.deploy(1)
    settings = f'[project]\nname = "rollouts"\n[model]\nname = "{MODEL}"\ntask = "classification"\n'
    (made.workspace.folder.parent / "noria.toml").write_text(settings)
    return made


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--steps 50,20", "no steps for canary"),
        ("--steps nan,100", "no steps for canary"),
        ("--max-days nan", "max_days is nan"),
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
