"""Point-in-time joins as Ray tasks, on a local Ray: the same values as in one process, and nothing half done."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import with_ray

pytestmark = pytest.mark.peer
SCRIPT, TESTS = Path(__file__).with_name("ray_join_script.py"), Path(__file__).parents[1]


@pytest.mark.parametrize(
    "claim",
    [
        "same_as_here_and_as_the_definition",
        "by_the_store_and_by_its_setting",
        "killed_workers_are_replaced_or_told",
        "a_part_that_fails_is_named",
    ],
)
def test_joins_by_ray(claim, tmp_path):
    environment = with_ray()
    environment["PYTHONPATH"] += os.pathsep + str(TESTS)
    done = subprocess.run(
        [sys.executable, SCRIPT, claim, tmp_path],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
