"""Mistakes in a project's own files are told in its own words, never as a traceback of ours."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from noria.errors import InvalidConfig, InvalidData
from noria.pipelines import load_project
from noria.pipelines.training import TrainingRequest, train_version
from noria.store.workspace import Workspace

CONFIG = '[project]\nname = "shop"\n[model]\nname = "late"\ntask = "classification"\ntrials = 1\n'
FEATURES = """
from datetime import UTC, datetime
import polars as pl
from noria import Column, Observations

def orders():
    hours = pl.datetime_range(datetime(2026, 1, 1), datetime(2026, 1, 5), "1h", time_zone="UTC", eager=True)
    return pl.DataFrame({"at": hours}).with_row_index("id").with_columns(x=pl.col("id") % 7 / 7, late=LABEL)

columns = [Column("id", "integer"), Column("at", "instant"), Column("x", "number"), Column("late", "integer")]
views = []
observations = Observations(name="orders", source=orders, columns=columns, key="id", event_time="at", label="late",
                            label_time="at", request_columns=["x"])
"""
PRUNING = "import optuna\ndef search_space(trial):\n    raise optuna.TrialPruned\n"
TREE = "from sklearn.tree import DecisionTreeClassifier\ndef estimator(params, seed):\n    return "
NOW = datetime(2026, 2, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("label", "train", "error", "told"),
    [
        ("pl.lit(1)", f"{TREE}DecisionTreeClassifier()", InvalidData, r"is 1 in all of the \d+ oldest rows"),
        ("pl.col('id') % 3", f"{TREE}DecisionTreeClassifier()", InvalidData, "values besides 0 and 1: 2$"),
        ("pl.col('id') % 2", f"{TREE}'tree'", InvalidConfig, "gave str, which has no fit and no predict_proba"),
        ("pl.col('id') % 2", f"{TREE}params['depth']", InvalidConfig, "train.py, line 3: KeyError: 'depth'"),
        ("pl.col('id') % 2", f"{PRUNING}{TREE}'tree'", InvalidConfig, "train.py pruned each of 1 trials"),
        ("pl.col('id') % 2", f"{TREE}DecisionTreeClassifier(max_depth=-1)", InvalidConfig, r"on \d+ rows of x: .*-1"),
    ],
    ids=["one class", "three classes", "no estimator", "a mistake in train.py", "all pruned", "params that do not fit"],
)
def test_a_label_or_an_estimator_that_cannot_be_learned_from_is_told(tmp_path, capfd, label, train, error, told):
    (tmp_path / "noria.toml").write_text(CONFIG)
    (tmp_path / "features.py").write_text(FEATURES.replace("LABEL", label))
    (tmp_path / "train.py").write_text(train)
    project = load_project(tmp_path)
    request = TrainingRequest(None, NOW, "a test", NOW, "someone")
    with pytest.raises(error) as refused:
        train_version(project, Workspace(tmp_path, project.settings), request)
    assert re.search(told, refused.value.message)
    assert "Traceback" not in capfd.readouterr().err
