"""The tutorial's blocks, run in order in one shell, as a reader would."""

from __future__ import annotations

from pathlib import Path

from support import run_page

TUTORIAL = Path(__file__).parents[2] / "docs/tutorial/the-wheel-in-ten-minutes.md"


def test_every_block_of_the_tutorial_runs(tmp_path):
    told = run_page(TUTORIAL, tmp_path, blocks=5)
    assert '"model_version":"1"' in told
    assert "entries verified" in told
