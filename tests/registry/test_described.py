"""What a client saved says itself what it takes and gives: versions of it get their semantic version from that."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime

import cloudpickle
import pytest

import noria.tracking as nt
from noria.config import PolicySettings, load_server_settings
from noria.errors import InvalidInput, PolicyRefused
from noria.registry import Policies, Signature, Stage
from noria.registry.described import Description, describe
from noria.registry.models import create_model, get_model, rename_model
from noria.registry.registration import Saved, register_saved, register_source
from noria.registry.stages import transition
from noria.registry.versions import get_version, update_version
from noria.store.workspace import Workspace
from noria.tracking import experiments, runs
from support import noria

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PLACE = "mlflow-artifacts:/saved/m"


@pytest.fixture
def workspace(tmp_path):
    opened = Workspace(tmp_path, load_server_settings(tmp_path, environment={}))
    yield opened
    opened.database.close()


def write(workspace, mlmodel, **files):
    workspace.artifacts.write("saved/m/MLmodel", mlmodel.encode() if isinstance(mlmodel, str) else mlmodel)
    for name, content in files.items():
        workspace.artifacts.write(f"saved/m/{name}", content)
    return describe(workspace.artifacts, PLACE)


def test_columns_tensors_and_parameters_are_read(workspace):
    inputs = [{"type": "double", "name": "a", "required": True}, {"type": "long", "name": "b", "required": False}]
    outputs = [{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}]
    params = [{"name": "t", "default": 1, "shape": None, "type": "long"}]
    written = {name: json.dumps(part) for name, part in (("inputs", inputs), ("outputs", outputs), ("params", params))}
    found = write(workspace, json.dumps({"signature": written, "flavors": {}}))
    assert found.signature.inputs == (("a", "double"), ("b", "long"), ("params.t", "long"))
    assert (found.signature.required, found.signature.output) == (("a",), '[["0", "tensor int64 [-1]"]]')


def test_the_algorithm_is_the_class_that_the_flavor_or_the_pickle_names(workspace):
    from sklearn.tree import DecisionTreeClassifier

    flavors = {"python_function": {"loader_module": "mlflow.sklearn", "model_path": "model"}, "sklearn": {}}
    for content, name in (
        (pickle.dumps(DecisionTreeClassifier(), protocol=0), "DecisionTreeClassifier"),
        (cloudpickle.dumps(DecisionTreeClassifier()), "DecisionTreeClassifier"),
        (cloudpickle.dumps(DecisionTreeClassifier())[:20], "mlflow.sklearn"),
        (b"no pickle", "mlflow.sklearn"),
    ):
        assert write(workspace, json.dumps({"flavors": flavors}), model=content).algorithm == name
    named = {"flavors": {"lightgbm": {"model_class": "lightgbm.sklearn.LGBMClassifier"}}}
    assert write(workspace, json.dumps(named)).algorithm == "LGBMClassifier"


@pytest.mark.parametrize(
    "content",
    [
        b"", b"- a", b"\xff\xfe", b"a: [", b"signature: 3\nflavors: x", b"signature: {inputs: 3}",
        b"signature: {inputs: 'no json', outputs: '{}', params: '[1]'}", b"flavors: {sklearn: 3}", b"[" * 5000,
    ],
)  # fmt: skip
def test_what_cannot_be_read_says_nothing(workspace, content):
    assert write(workspace, content) == Description()


@pytest.mark.parametrize("place", ["s3://bucket/m", "mlflow-artifacts:/nothing", "greeting"])
def test_files_elsewhere_or_nowhere_say_nothing(workspace, place):
    assert describe(workspace.artifacts, place) == Description()


def test_a_registration_reads_the_files_and_a_copy_takes_over_what_they_say(workspace):
    with workspace.database.write() as tx:
        experiments.ensure_default(tx, artifact_root="mlflow-artifacts:/", at=NOW)
    write(workspace, json.dumps({"signature": {"inputs": '[{"type": "long", "name": "a"}]'}}))
    rules = {"policies": Policies(), "at": NOW, "actor": "someone"}
    made = register_saved(workspace, "m", Saved(PLACE, tags={"noria.semantic_version": "9.9.9"}), **rules)
    assert (made.signature, made.semantic_version, made.tags) == (Signature((("a", "long"),), "", ("a",)), "1.0.0", {})
    assert register_saved(workspace, "copy", Saved("models:/m/1"), **rules).signature == made.signature


def test_nobody_sets_the_semantic_version(workspace):
    with workspace.database.write() as tx:
        register_source(tx, "m", Saved("s3://b/m"), policies=Policies(), at=NOW, actor="someone")
        with pytest.raises(InvalidInput, match="computed"):
            update_version(tx, "m", 1, at=NOW, actor="someone", tags={"noria.semantic_version": "9.9.9"})
        assert get_version(tx, "m", 1).semantic_version == "1.0.0"


def test_a_name_under_another_policy_is_not_taken_by_a_model_with_staged_versions(workspace):
    strict = Policies.from_settings({"strict*": PolicySettings(name_pattern="strict-[a-z]+", failed_runs=True)})
    at = {"at": NOW, "actor": "someone"}
    with workspace.database.write() as tx:
        experiments.ensure_default(tx, artifact_root="mlflow-artifacts:/", at=NOW)
        create_model(tx, "free", policies=strict, **at)
        run = runs.start(tx, "0", name="", user="u", at=NOW)
        register_source(tx, "free", Saved(f"{run.artifact_uri}/m"), policies=strict, **at)
        transition(tx, "free", 1, Stage.STAGING, policies=strict, **at)
        with pytest.raises(PolicyRefused, match="does not match"):
            rename_model(tx, "free", "strict-9", policies=strict, **at)
        with pytest.raises(PolicyRefused, match="version 1 is in Staging under another policy"):
            rename_model(tx, "free", "strict-a", policies=strict, **at)
        rename_model(tx, "free", "open", policies=strict, **at)
        transition(tx, "open", 1, Stage.ARCHIVED, policies=strict, **at)
        rename_model(tx, "open", "strict-a", policies=strict, **at)
        assert get_model(tx, "strict-a").name == "strict-a"


def test_our_own_client_gets_them_too(tmp_path):
    import polars as pl
    from sklearn.linear_model import LogisticRegression

    noria("init", str(tmp_path / "shop"), cwd=tmp_path)
    nt.set_tracking_uri(tmp_path / "shop")
    frame = pl.DataFrame({"a": [1.0, 2.0, 3.0], "b": [1.0, 0.0, 1.0]})
    seen = []
    try:
        for rows in (frame, frame, frame.with_columns(c=pl.lit(None, pl.Float64).fill_null(1.0)), frame.select("a")):
            with nt.start_run():
                model = LogisticRegression().fit(rows, [0, 1, 1])
                logged = nt.log_model(model, registered_model_name="own", input_example=rows)
            seen.append(logged.registered.tags["noria.semantic_version"])
    finally:
        nt.set_tracking_uri(None)
    assert seen == ["1.0.0", "1.0.1", "2.0.0", "3.0.0"]
