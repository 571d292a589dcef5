"""Chains, ensembles and models elsewhere: registered and deployed like any, and what they answer."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from msgspec.structs import replace
from onnx import helper
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from lifecycle.rollout_world import RolloutWorld
from noria.config import PolicySettings, StageRuleSettings
from noria.errors import InvalidInput, NoriaError, PolicyRefused, Unavailable
from noria.lifecycle.composing import Composer
from noria.lifecycle.deploying import deploy, parse_address
from noria.optimize.bundle import Bundle, read_bundle, write_bundle
from noria.registry import ModelVersion, NewVersion, Policies, get_version, register_version
from noria.rollout import read_routes
from noria.serving import Block, DataPlane, PredictionRequest
from noria.serving.runtimes import Rows
from noria.serving.runtimes.chain import MEMBER, ChainRuntime
from noria.store.blobs import folder_digest
from noria.store.workspace import Workspace, artifact_key, artifact_uri
from serving.gateway_world import new_world
from support import noria

ROW = {"a": 0.4, "b": -0.2, "c": 1.0}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> RolloutWorld:
    """Three versions that differ."""
    made = RolloutWorld(tmp_path_factory.mktemp("composing"))
    for model in (LogisticRegression(), RandomForestClassifier(15, random_state=0), LogisticRegression(C=0.001)):
        made.add_version(model)
    return made


@pytest.fixture(scope="module")
def composer(world) -> Composer:
    return Composer(world.workspace, world.policies, world.clock, "ann")


def served(world: RolloutWorld, version: ModelVersion | int) -> DataPlane:
    """A data plane that serves a version, which is deployed for it."""
    model, number = ("churn", version) if isinstance(version, int) else (version.model, version.version)
    address = parse_address(f"models:/{model}/{number}")
    deploy(
        world.workspace, world.policies, world.clock, address, actor="ann", reason="", deployment=f"{model}-{number}"
    )
    return _plane(world.workspace, f"{model}-{number}")


def _plane(workspace: Workspace, deployment: str) -> DataPlane:
    plane = DataPlane(workspace.artifacts, workspace.online_url, workspace.prediction_log)
    asyncio.run(plane.swap(read_routes(workspace.route_file(deployment))))
    assert not plane.faults, plane.faults
    return plane


def answers(plane: DataPlane, *rows: Mapping[str, Any]) -> Sequence[Any]:
    """Predictions of rows."""

    async def ask() -> Sequence[Any]:
        return await plane.predict_many(plane.find(), [PredictionRequest(features=row) for row in rows])

    return asyncio.run(ask())


def score(world: RolloutWorld, version: ModelVersion | int, row: Mapping[str, Any] = ROW) -> float:
    plane = served(world, version)
    (answer,) = answers(plane, row)
    plane.close()
    return float(answer.score)


@pytest.mark.parametrize("combine", ["mean", "median", "vote"])
def test_an_ensemble_answers_as_its_members_together(world, composer, combine):
    each = [score(world, version) for version in (1, 2, 3)]
    made = composer.ensemble(f"{combine}-of-three", [f"models:/churn/{n}" for n in (1, 2, 3)], combine=combine)
    expected = {"mean": np.mean(each), "median": np.median(each), "vote": np.mean([one > 0.5 for one in each])}
    assert score(world, made) == pytest.approx(expected[combine], abs=1e-9)
    assert made.tags["noria.members"] == "churn@1, churn@2, churn@3"


def test_weights_count_and_members_may_take_different_columns(world, composer):
    narrow = world.add_version(inputs=("b", "a"))
    made = composer.ensemble("weighted", ["models:/churn/1", f"models:/churn/{narrow}"], weights=[3, 1])
    wide_score, narrow_score = score(world, 1), score(world, narrow, {"a": ROW["a"], "b": ROW["b"]})
    assert score(world, made) == pytest.approx(0.75 * wide_score + 0.25 * narrow_score, abs=1e-9)


def test_a_policy_that_wants_a_metric_of_a_version_without_a_run_is_told_with_a_way(world, composer):
    made = composer.ensemble("measured", ["models:/churn/1", "models:/churn/2"])
    rule = PolicySettings(stages={"Production": StageRuleSettings(required_metrics=["mae"])})
    policies, address = Policies.from_settings({"*": rule}), parse_address(f"models:/measured/{made.version}")
    with pytest.raises(PolicyRefused) as refused:
        deploy(world.workspace, policies, world.clock, address, actor="ann", reason="")
    assert 'policies."measured"' in (refused.value.remedy or "")
    deploy(world.workspace, policies, world.clock, address, actor="ann", reason="", deployment="preview")


def test_what_makes_no_ensemble_is_refused(composer):
    with pytest.raises(InvalidInput, match="1 models with 0 weights"):
        composer.ensemble("alone", ["models:/churn/1"])
    with pytest.raises(InvalidInput, match="no way to combine"):
        composer.ensemble("odd", ["models:/churn/1", "models:/churn/2"], combine="max")
    with pytest.raises(InvalidInput, match="2 models with 2 weights"):
        composer.ensemble("negative", ["models:/churn/1", "models:/churn/2"], weights=[1, -1])
    with pytest.raises(InvalidInput, match="2 models with 2 weights"):
        composer.ensemble("endless", ["models:/churn/1", "models:/churn/2"], weights=[1e308, 1e308])
    with pytest.raises(InvalidInput, match="a median has no weights"):
        composer.ensemble("middle", ["models:/churn/1", "models:/churn/2"], weights=[1, 2], combine="median")


CLEANING = """
import words

columns = {"a": "double", "b": "double", "text": "string"}
example = {"a": 1.0, "b": 0.5, "text": "one"}

def preprocess(columns):
    for text in columns["text"]:
        if text not in words.NUMBERS:
            raise ValueError(f"{text!r} is no number")
    return {"c": map(words.NUMBERS.get, columns["text"])}
"""
TELLING = """
def postprocess(answers, columns):
    for one, a in zip(answers, columns["a"]):
        yield {"verdict": "stay" if one["prediction"] else "go", "a": a}
"""


def test_a_transformer_makes_a_models_columns_of_what_is_sent(world, composer, tmp_path):
    (tmp_path / "clean.py").write_text(CLEANING)
    (tmp_path / "words.py").write_text("NUMBERS = {'one': 1.0, 'two': 2.0}\n")
    address = "models:/churn/1"
    made = composer.chain("chained", address, tmp_path / "clean.py", beside=[tmp_path / "words.py"], requirements=[])
    assert made.signature.inputs == (("a", "double"), ("b", "double"), ("text", "string"))
    row = {"a": ROW["a"], "b": ROW["b"], "text": "one"}
    assert score(world, made, row) == pytest.approx(score(world, 1), abs=1e-9)
    plane = served(world, made)
    two = answers(plane, row, row | {"text": "two"})
    assert two[0].score != two[1].score
    with pytest.raises(InvalidInput, match="'three' is no number"):
        answers(plane, row | {"text": "three"})
    assert answers(plane, row)[0].score == two[0].score
    plane.close()


def test_a_transformer_behind_a_model_answers_what_it_likes(world, composer, tmp_path):
    (tmp_path / "tell.py").write_text(TELLING)
    made = composer.chain("telling", "models:/churn/1", tmp_path / "tell.py", requirements=[])
    plane = served(world, made)
    (answer,) = answers(plane, ROW)
    plane.close()
    assert answer.prediction == {"verdict": "stay" if score(world, 1) > 0.5 else "go", "a": ROW["a"]}
    assert answer.probability is None


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("x = 1", "transforms nothing"),
        ("import nothing_like_it", "No module named"),
        ("columns = 3\ndef preprocess(columns): return columns", "cannot be read"),
        ("def preprocess(columns): return {'c': []}", "has 0 of 1 rows"),
        ("def preprocess(columns): return {'c': 3}", "column 'c' is 3 after preprocess"),
        ("def preprocess(columns): return {'c': ['x']}", "column 'c' is 'x' after preprocess, .* takes numbers there"),
        ("def preprocess(columns): return [1]", "list instead of a dict of columns"),
        ("columns = ['a']\nexample = {'a': 1}\ndef preprocess(columns): return {}", "is missing after preprocess"),
        ("def postprocess(answers, columns): return [1, 2, 3]", "3 answers for 1 rows"),
        ("def postprocess(answers, columns): pass", "gave nothing for 1 rows"),
        ("def postprocess(answers, columns): return 3", "gave int instead of a list for 1 rows"),
    ],
)
def test_a_transformer_that_does_not_work_is_told_when_it_is_registered(composer, tmp_path, code, fault):
    (tmp_path / "broken.py").write_text(code)
    with pytest.raises(NoriaError, match=fault):
        composer.chain("broken", "models:/churn/1", tmp_path / "broken.py", requirements=[])


def test_a_column_that_a_model_may_do_without_may_be_left_out_of_what_is_made_of_it(world, composer, tmp_path):
    source = f"models/{world.random.integers(10**9)}"
    with world.workspace.database.read() as tx:
        folder = world.workspace.artifacts.fetch(artifact_key(get_version(tx, "churn", 2).source))
    shutil.copytree(folder, tmp_path / "model")
    write_bundle(tmp_path / "model", replace(read_bundle(folder), optional=("b", "c")))
    world.workspace.artifacts.put_folder(source, tmp_path / "model")
    new = NewVersion("lenient", artifact_uri(source), digest=folder_digest(tmp_path / "model"))
    with world.workspace.database.write() as tx:
        lenient = register_version(tx, new, policies=world.policies, at=world.clock.now(), actor="ann")
    (tmp_path / "seen.py").write_text("def preprocess(columns): return {'a': columns['a'], 'b': columns['b']}")
    chain = composer.chain("leniently", "models:/lenient/1", tmp_path / "seen.py", requirements=[])
    assert score(world, chain, {"a": 0.4}) == score(world, lenient, {"a": 0.4})
    narrow = world.add_version(inputs=("a", "b"))
    both = composer.ensemble("half-lenient", ["models:/lenient/1", f"models:/churn/{narrow}"])
    assert score(world, both, {"a": 0.4, "b": 0.1}) > 0
    with pytest.raises(InvalidInput, match="'b' is missing"):
        score(world, both, {"a": 0.4})


TEXTS = """
columns = {"c": "double"}
example = {"c": 1.0}

def preprocess(columns):
    return {"city": [{1.0: "Oslo", 2.0: float("nan"), 3.0: None, 4.0: 4}[c] for c in columns["c"]]}
"""


def test_texts_that_a_transformer_makes_may_be_null_also_as_pandas_has_it_but_nothing_else(tmp_path):
    (tmp_path / MEMBER).mkdir()
    (tmp_path / "transformer.py").write_text(TEXTS)
    cities = {"keys_strings": ["Oslo", "None"], "values_floats": [1.0, 2.0]}
    node = helper.make_node("LabelEncoder", ["x"], ["y"], domain="ai.onnx.ml", **cities)
    taken, given = (helper.make_tensor_value_info(name, kind, [None, 1]) for name, kind in (("x", 8), ("y", 1)))
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    graph = helper.make_model(helper.make_graph([node], "g", [taken], [given]), opset_imports=sets, ir_version=8)
    (tmp_path / MEMBER / "model.onnx").write_bytes(graph.SerializeToString())
    member = Bundle("regression", ("city",), kinds={"city": "string"}, onnx_strings="x", onnx_score="y")
    write_bundle(tmp_path / MEMBER, member)
    runtime = ChainRuntime(
        tmp_path, Bundle("regression", ("c",), options={"verbs": ["preprocess"], "requirements": []})
    )
    assert np.asarray(runtime.score(Rows(np.array([[1.0], [2.0], [3.0]])))).ravel().tolist() == [1.0, 2.0, 2.0]
    with pytest.raises(InvalidInput, match="column 'city' is 4 after preprocess, and the model takes texts there"):
        runtime.score(Rows(np.array([[4.0]])))
    runtime.unload()


def test_a_chain_is_a_member_of_an_ensemble(world, composer, tmp_path):
    (tmp_path / "same.py").write_text("def preprocess(columns): return {'a': [one + 0 for one in columns['a']]}")
    made = composer.chain("same", "models:/churn/1", tmp_path / "same.py", requirements=[])
    both = composer.ensemble("both", [f"models:/same/{made.version}", "models:/churn/2"])
    assert score(world, both) == pytest.approx((score(world, 1) + score(world, 2)) / 2, abs=1e-9)


def test_a_model_on_another_server_is_asked_by_its_protocol(world, composer, tmp_path):
    there = new_world(tmp_path)
    there.deploy(1, there.add_model(1, views=False))
    with there.gateway() as url:
        made = composer.remote("elsewhere", url, "flights")
        plane = served(world, made)
        tensors = {"input": np.array([[700.0, 17.5], [20.0, 3.0]])}
        found = _infer(plane, tensors).tensors
        rows = [dict(zip(("distance", "hour"), row, strict=True)) for row in tensors["input"].tolist()]
        direct = [httpx.post(f"{url}/predict", json={"features": row}).json() for row in rows]
        assert found["prediction"].tolist() == [one["prediction"] for one in direct]
        with pytest.raises(InvalidInput, match="takes tensors"):
            answers(plane, {})
    with pytest.raises(Unavailable, match="cannot be reached"):
        _infer(plane, tensors)
    plane.close()
    with pytest.raises(Unavailable, match="cannot be reached"):
        composer.remote("elsewhere", url, "flights")
    with pytest.raises(InvalidInput, match="no known protocol"):
        composer.remote("elsewhere", url, "flights", protocol="soap")


def _infer(plane: DataPlane, tensors: Mapping[str, Any]) -> Any:
    async def ask() -> Any:
        return await plane.predict_block(plane.find(), Block(np.empty((2, 0)), tensors=tensors))

    return asyncio.run(ask())[1]


class Completions(BaseHTTPRequestHandler):
    """A server that speaks OpenAI's protocol: says the prompt backwards, and nothing without the key."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        allowed = self.headers["Authorization"] == "Bearer secret"
        said = asked["messages"][0]["content"][::-1] * asked.get("n_times", 1)
        body = {"choices": [{"message": {"role": "assistant", "content": said}}]} if allowed else {"error": "key"}
        content = json.dumps(body).encode()
        self.send_response(200 if allowed else 401)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def completions() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Completions)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_language_model_on_another_server_completes_prompts(world, composer, completions, monkeypatch):
    made = composer.remote("talker", completions, "talk-1", protocol="openai", key_variable="TALK_KEY")
    plane = served(world, made)
    with pytest.raises(Unavailable, match="is not set"):
        answers(plane, {"prompt": "hello"})
    monkeypatch.setenv("TALK_KEY", "wrong")
    with pytest.raises(Unavailable, match="answered 401"):
        answers(plane, {"prompt": "hello"})
    monkeypatch.setenv("TALK_KEY", "secret")
    assert [one.prediction for one in answers(plane, {"prompt": "hello"}, {"prompt": "abc"})] == ["olleh", "cba"]
    plane.close()


def test_composed_versions_are_deployed_from_the_command_line(world, composer, tmp_path):
    folder = Path(world.workspace.folder).parent
    settings = '[project]\nname = "composing"\n[model]\nname = "churn"\ntask = "classification"\n'
    (folder / "noria.toml").write_text(settings)
    made = json.loads(
        noria("compose", "ensemble", "cli", "models:/churn/1", "models:/churn/2", "--json", cwd=folder).stdout
    )
    assert made[0]["members"] == "churn@1, churn@2"
    (tmp_path / "nothing.py").write_text("x = 1")
    failed = noria(
        "compose",
        "chain",
        "c",
        "models:/churn/1",
        "--transformer",
        str(tmp_path / "nothing.py"),
        cwd=folder,
        check=False,
    )
    assert failed.returncode == 1 and "transforms nothing" in failed.stderr
