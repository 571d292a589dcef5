"""The whole wheel on the first months of the flights example: played through, and killed on its way."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from noria.errors import Unavailable
from noria.monitoring.log import read_predictions
from noria.pipelines import load_project
from noria.surface.cli.processes import Child, watch
from support import noria, process_of

FLIGHTS = Path(__file__).parents[2] / "examples/flights"
UNTIL_THE_DRILL_IS_OVER = """

import dataclasses
from datetime import UTC, datetime

_spring = pl.col("scheduled") < datetime(2013, 4, 25, tzinfo=UTC)
observations = dataclasses.replace(observations, source=lambda: flights().filter(_spring))
"""


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The flights example, its year cut short."""
    folder = tmp_path_factory.mktemp("example") / "spring"
    shutil.copytree(FLIGHTS, folder, ignore=shutil.ignore_patterns("__pycache__", ".noria"))
    with (folder / "features.py").open("a") as features:
        features.write(UNTIL_THE_DRILL_IS_OVER)
    return folder


@pytest.fixture(scope="module")
def played(example: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a demo played without a fault, and its summary."""
    folder = tmp_path_factory.mktemp("played") / "demo"
    return folder, summary_of(noria("demo", str(example), "--folder", str(folder), "--json", cwd=example))


def summary_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return json.loads(done.stdout.strip().splitlines()[-1])


def what_happened(summary: dict[str, Any]) -> dict[str, Any]:
    """What must not depend on crashes."""
    return {key: summary[key] for key in ("versions", "verdicts", "canary", "rollback", "requests")}


def test_the_verdict_is_answered_by_a_canary_and_the_forged_version_is_rolled_back(played):
    _, summary = played
    assert [v["stage"] for v in summary["versions"]] == ["Archived", "Production", "Archived"]
    (verdict,) = summary["verdicts"]
    assert verdict["statistic"] > verdict["threshold"]
    steps = [(step["version"], step["percent"], step["decision"]) for step in summary["canary"]["steps"]]
    assert steps[:3] == [(2, 5.0, "advance"), (2, 25.0, "advance"), (2, 100.0, "advance")]
    assert (summary["rollback"]["version"], summary["rollback"]["decision"]) == (3, "roll_back")
    good, forged = summary["versions"][1:]
    assert forged["metrics"] == good["metrics"]


def test_every_request_is_answered_and_logged(played):
    folder, summary = played
    assert summary["requests"]["failed"] == 0
    asked = load_project(folder).observations.load().filter(pl.col("scheduled") >= datetime(2013, 3, 1, tzinfo=UTC))
    logged = [record.prediction_id for record in read_predictions(folder / ".noria/predictions")]
    assert sorted(logged) == asked["flight_id"].sort().to_list()
    assert summary["requests"]["sent"] > len(logged) > 50_000


def test_the_policy_refused_the_first_version_until_it_was_approved(played):
    folder, _ = played
    rows = json.loads(noria("audit", "show", "--limit", "100", "--json", cwd=folder).stdout)[::-1]
    actions = [row["action"] for row in rows if row["subject"] == "version:late-arrival@1"]
    assert actions[1:5] == ["version.transition", "version.refuse", "version.approve", "version.transition"]


def test_the_chain_verifies_and_a_changed_byte_of_a_copy_does_not(played, tmp_path):
    folder, summary = played
    assert f"{summary['audit']['entries']} entries verified" in noria("audit", "verify", cwd=folder).stdout
    copy = tmp_path / "copy.db"
    sqlite3.connect(folder / ".noria/noria.db").execute("VACUUM INTO ?", (str(copy),))
    content = copy.read_bytes()
    place = content.index(b"passed its canary rollout: auc")
    copy.write_bytes(content[:place] + b"P" + content[place + 1 :])
    done = noria("audit", "verify", "--database", str(copy), cwd=folder, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr


def test_the_console_tells_of_every_verdict_and_rollout(played):
    child = Child("server", played[0], 0)
    try:
        pages = [httpx.get(child.url)]
        pages += [
            httpx.get(child.url + link) for link in sorted(set(re.findall(r"/rollouts/[0-9a-f]{32}", pages[0].text)))
        ]
    finally:
        child.stop()
    assert {page.status_code for page in pages} == {200}
    assert len(pages) == 3
    with pytest.raises(Unavailable, match=r"`noria server` (ended|was killed)"):
        watch([child])


def test_the_prediction_of_the_readme_is_traced_back_to_the_commit(played):
    folder, _ = played
    (prediction_id,) = re.findall(r"noria trace (\S+)", (FLIGHTS.parents[1] / "README.md").read_text())
    found = json.loads(noria("trace", prediction_id, "--json", cwd=folder).stdout)
    assert found["version"]["version"] == "late-arrival@2"
    assert found["approvals"][0].startswith("Production by noria/lifecycle")
    assert found["route"] == {
        "deployment": "flights",
        "revision": 5,
        "variant": "champion",
        "shares": {"champion": 100},
        "reason": found["route"]["reason"],
    }
    assert found["data"]["name"] == "flights"
    assert found["features"]["distance"] > 0 and found["entities"]["origin"] in ("EWR", "JFK", "LGA")
    assert len(found["code"]["digest"]) == 64


def test_resuming_a_finished_demo_changes_nothing(example, played):
    folder, summary = played
    again = summary_of(noria("demo", str(example), "--folder", str(folder), "--resume", "--json", cwd=example))
    assert what_happened(again) == what_happened(summary)


def test_killed_again_and_again_it_ends_in_the_same_versions(example, played, tmp_path):
    seed = int.from_bytes(os.urandom(4))
    print(f"moments drawn with seed {seed}")
    moment = random.Random(seed)
    folder = tmp_path / "demo"
    command = [sys.executable, "-m", "noria", "demo", str(example), "--folder", str(folder), "--resume", "--json"]
    victims = ["demo", "serve"]
    while True:
        with subprocess.Popen(
            command, cwd=example, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as demo:
            victim = victims.pop(0) if victims else "none"
            killed = victim != "none" and kill_after(moment.uniform(4, 18), demo, victim, folder)
            output = demo.communicate(timeout=300)[0]
        if not killed:
            break
        assert demo.returncode != 0
    assert demo.returncode == 0
    summary = json.loads(output.strip().splitlines()[-1])
    assert what_happened(summary) == what_happened(played[1])
    noria("audit", "verify", cwd=folder)


def kill_after(seconds: float, demo: subprocess.Popen[str], victim: str, folder: Path) -> bool:
    """kill -9 the demo or its gateway once it has run that long; False when it ended before."""
    time.sleep(seconds)
    while demo.poll() is None:
        pid = demo.pid if victim == "demo" else process_of("serve", folder)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            return True
        time.sleep(0.2)
    return False
