"""What a runtime answers: an entry a row, whatever its code does; rows that depend on each other stay apart."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from noria.errors import NoriaError
from noria.optimize.bundle import Bundle, TensorSpec, write_bundle
from noria.rollout.routes import RouteTable, Variant
from noria.serving import Block, DataPlane, PredictionRequest
from noria.serving.runtimes import Rows
from noria.serving.runtimes.chain import MEMBER, TRANSFORMER_FILE, ChainRuntime
from noria.store.blobs import FolderBlobs, folder_digest
from serving.gateway_world import LAST_SEEN

TENSORS = (TensorSpec("x", "FP64", (-1, 2)),)


class Answers:
    """A third party's runtime: ``how`` says what it answers to rows and tensors."""

    inline, concurrency = False, 1

    def __init__(self, folder, bundle) -> None:
        del folder
        self._how = bundle.options["how"]

    def score(self, rows: Rows) -> Any:
        return HOW[self._how](rows.numbers)

    def infer(self, tensors, params=None):
        return HOW[self._how](tensors["x"], **({"params": params} if self._how == "params" else {}))

    def unload(self) -> None:
        pass


class OldAnswers(Answers):
    """One whose ``infer`` takes tensors alone."""

    def infer(self, tensors):
        return super().infer(tensors)


class InlineAnswers(Answers):
    """One that is scored in the event loop."""

    inline = True


class Leaves(Answers):
    """One whose loading ends the program."""

    def __init__(self, folder, bundle) -> None:
        super().__init__(folder, bundle)
        raise SystemExit(3)


def leaves(_: Any) -> Any:
    raise SystemExit(3)


def interrupts(_: Any) -> Any:
    raise KeyboardInterrupt


HOW = {
    "sum": lambda x: x.sum(axis=1),
    "fewer": lambda x: x.sum(axis=1)[1:],
    "one": lambda x: np.float64(x.sum()),
    "nothing": lambda _: None,
    "texts": lambda x: np.array(["a"] * len(x)),
    "iterator": lambda x: (float(row.sum()) for row in x),
    "leaves": leaves,
    "interrupts": interrupts,
    "centered": lambda x: {"y": x - x.mean(axis=0)},
    "pooled": lambda x: {"y": x.mean(axis=0, keepdims=True)},
    "unlike": lambda x: {"y": x, "z": x[:1]},
    "none": lambda _: {},
    "params": lambda x, params=None: {"y": x * (params or {}).get("k", 1)},
}


@pytest.fixture
def plane_for(tmp_path, monkeypatch):
    """Makes a data plane whose model answers in one of these ways."""
    planes = []

    def make(how: str, runtime: type = Answers, **more: Any) -> DataPlane:
        monkeypatch.setattr("noria.serving.runtimes._entry_point", lambda _: runtime)
        model = tmp_path / "artifacts/model"
        model.mkdir(parents=True)
        write_bundle(model, Bundle(runtime="answers", options={"how": how}, **more))
        variant = Variant("champion", "model", 1, "model", folder_digest(model), 100.0)
        plane = DataPlane(FolderBlobs(tmp_path / "artifacts"), f"sqlite:///{tmp_path}/online.db", tmp_path / "log")
        asyncio.run(plane.swap(RouteTable("model", 1, [variant], "test", LAST_SEEN)))
        planes.append(plane)
        return plane

    yield make
    for plane in planes:
        plane.close()


def of_rows(plane: DataPlane, count: int) -> Sequence[Any]:
    """Predictions of single rows that come in one moment, or their errors."""

    async def ask():
        live = plane.find()
        requests = [PredictionRequest(features={"a": 1.0, "b": float(place)}) for place in range(count)]
        return await asyncio.gather(*(plane.predict(live, one) for one in requests), return_exceptions=True)

    return asyncio.run(ask())


def of_tensors(plane: DataPlane, tensors: Sequence[Any], params: Any = None) -> Sequence[Any]:
    """The output y of requests that come in one moment, or their errors."""

    async def ask():
        live = plane.find()
        blocks = [Block(np.empty((len(one), 0)), params=params, tensors={"x": np.asarray(one)}) for one in tensors]
        return await asyncio.gather(*(plane.predict_block(live, one) for one in blocks), return_exceptions=True)

    return [one if isinstance(one, BaseException) else one[1].tensors["y"] for one in asyncio.run(ask())]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("fewer", "model@1 answered 1 row with an array of shape [0]"),
        ("one", "model@1 answered 1 row with one float64"),
        ("nothing", "model@1 answered 1 row with nothing"),
        ("leaves", "model@1 failed at this row with SystemExit"),
        ("interrupts", "model@1 failed at this row with KeyboardInterrupt"),
        ("texts", "model@1 failed at this row with TypeError"),
    ],
)
def test_what_is_no_entry_a_row_is_told_and_the_gateway_goes_on(how, said, plane_for):
    plane = plane_for(how, task="regression", request_columns=("a", "b"))
    for _ in range(2):
        for error in of_rows(plane, 3):
            assert isinstance(error, NoriaError), error
            assert error.message == said


def test_too_few_answers_of_a_chains_model_are_told_as_the_models(tmp_path, monkeypatch):
    monkeypatch.setattr("noria.serving.runtimes._entry_point", lambda _: Answers)
    (tmp_path / MEMBER).mkdir()
    (tmp_path / TRANSFORMER_FILE).write_text("def postprocess(answers, columns):\n    return [1.0] * 3\n")
    columns = {"task": "regression", "request_columns": ("a", "b")}
    write_bundle(tmp_path / MEMBER, Bundle(runtime="answers", options={"how": "fewer"}, **columns))
    options = {"requirements": [], "verbs": ["postprocess"]}
    chain = ChainRuntime(tmp_path, Bundle(runtime="chain", options=options, **columns))
    with pytest.raises(NoriaError, match="the model answered 3 rows with an array of shape"):
        chain.score(Rows(np.ones((3, 2))))
    chain.unload()


def test_a_runtime_that_ends_the_program_does_not_end_the_event_loop(plane_for):
    plane = plane_for("leaves", InlineAnswers, task="regression", request_columns=("a", "b"))
    assert [one.message for one in of_rows(plane, 1)] == ["model@1 failed at this row with SystemExit"]


def test_a_runtime_that_ends_the_program_when_it_is_loaded_is_told(plane_for):
    plane = plane_for("sum", Leaves, task="regression", request_columns=("a", "b"))
    with pytest.raises(NoriaError, match=r"model@1 cannot be loaded: SystemExit\(3\)"):
        plane.find()


def test_an_iterator_of_answers_is_taken(plane_for):
    plane = plane_for("iterator", task="generic", request_columns=("a", "b"))
    assert [one.prediction for one in of_rows(plane, 3)] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("pooled", "model@1 answered 3 rows with 'y' of shape [1, 2]"),
        ("unlike", "model@1 answered 3 rows with 'y' of shape [3, 2], 'z' of shape [1, 2]"),
        ("none", "model@1 answered 3 rows with no output"),
    ],
)
def test_outputs_with_another_number_of_entries_are_told(how, said, plane_for):
    plane = plane_for(how, task="generic", tensors=TENSORS)
    (error,) = of_tensors(plane, [np.ones((3, 2))])
    assert isinstance(error, NoriaError) and error.message == said


def test_requests_are_joined_only_where_rows_were_found_to_be_scored_alone(plane_for):
    plane = plane_for("centered", task="generic", tensors=TENSORS)
    sent = [np.arange(6.0).reshape(3, 2) * place for place in range(20)]
    for one, found in zip(sent, of_tensors(plane, sent), strict=True):
        assert found == pytest.approx(one - one.mean(axis=0))


@pytest.mark.parametrize(("runtime", "factor"), [(Answers, 3), (OldAnswers, 1)])
def test_params_reach_a_runtime_of_tensors_that_takes_them(runtime, factor, plane_for):
    assert len(inspect.signature(runtime.infer).parameters) == (3 if factor == 3 else 2)
    plane = plane_for("params", runtime, task="generic", tensors=TENSORS)
    (found,) = of_tensors(plane, [np.ones((1, 2))], {"k": 3})
    assert found.tolist() == [[factor, factor]]
