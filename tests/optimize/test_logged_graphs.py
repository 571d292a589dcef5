"""Graphs as clients logged them: whole, without maps, refused where nobody could be answered, tried for their rows."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

from noria.errors import InvalidData
from noria.optimize.prepare import prepare
from noria.serving.runtimes import load

FLOAT, ROWS = TensorProto.FLOAT, ["rows", 3]
VALUE = helper.make_tensor_value_info
RANDOM = np.random.default_rng(0)


def graph(nodes, inputs, outputs, weights=()):
    """A model of such a graph."""
    made = helper.make_graph(nodes, "g", inputs, outputs, list(weights))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(made, opset_imports=opsets, ir_version=8)


def of(operator, output, *, inputs=("x",), attributes=None):
    """A graph of one operator that answers ``output``."""
    node = helper.make_node(operator, list(inputs), ["y"], **(attributes or {}))
    return graph([node], [VALUE("x", FLOAT, ROWS)], [output])


def ready(folder, model, columns=(), **saving):
    """What preparation makes of a graph as MLflow logs it, with a signature of doubles called ``columns`` or none."""
    logged, out = folder / "logged", folder / "out"
    logged.mkdir()
    out.mkdir()
    onnx.save_model(model, str(logged / "model.onnx"), **saving)
    inputs = json.dumps([{"name": name, "type": "double"} for name in columns])
    document = {"flavors": {"onnx": {"data": "model.onnx"}}, "signature": {"inputs": inputs}}
    (logged / "MLmodel").write_text(yaml.safe_dump(document))
    return prepare(logged, out)


def infer(folder, found, x):
    """What the prepared folder answers once it stands alone."""
    runtime = load(folder / "out", found.bundle)
    try:
        return runtime.infer({found.bundle.tensors[0].name: x})
    finally:
        runtime.unload()


def wide():
    """A graph with a weight of 4 KB."""
    weight = RANDOM.normal(size=(3, 400)).astype(np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    outputs = [VALUE("y", FLOAT, ["rows", 400])]
    return weight, graph([node], [VALUE("x", FLOAT, ROWS)], outputs, [numpy_helper.from_array(weight, "w")])


def test_weights_in_files_beside_the_graph_come_along(tmp_path):
    weight, model = wide()
    found = ready(tmp_path, model, save_as_external_data=True, location="1234.data", size_threshold=1024)
    assert (tmp_path / "logged/1234.data").is_file()
    (tmp_path / "logged/1234.data").unlink()
    x = RANDOM.normal(size=(5, 3)).astype(np.float32)
    assert infer(tmp_path, found, x)["y"] == pytest.approx(x @ weight, abs=1e-5)
    assert found.bundle.rows_alone


def test_texts_are_lowered_where_no_language_is_installed(tmp_path):
    node = helper.make_node("StringNormalizer", ["x"], ["y"], case_change_action="LOWER")
    ends = (VALUE(name, TensorProto.STRING, ["rows"]) for name in "xy")
    found = ready(tmp_path, graph([node], *([end] for end in ends)))
    assert infer(tmp_path, found, np.array(["ÄB", "c"], dtype=object))["y"].tolist() == ["äb", "c"]


@pytest.mark.parametrize(("columns", "known"), [(["b", "a", "c"], ["b", "a", "c"]), (["a"], None), ([], None)])
def test_a_matrix_keeps_the_names_of_the_columns_it_was_logged_with(columns, known, tmp_path):
    found = ready(tmp_path, of("Identity", VALUE("y", FLOAT, ROWS)), columns)
    assert found.bundle.options.get("columns") == known


def test_weights_that_were_lost_are_told(tmp_path):
    logged, out = tmp_path / "logged", tmp_path / "out"
    logged.mkdir()
    out.mkdir()
    onnx.save_model(
        wide()[1], str(logged / "model.onnx"), save_as_external_data=True, location="w.data", size_threshold=1024
    )
    (logged / "w.data").unlink()
    (logged / "MLmodel").write_text(yaml.safe_dump({"flavors": {"onnx": {"data": "model.onnx"}}}))
    with pytest.raises(InvalidData, match=r"the graph 'model.onnx' cannot be read: .*w\.data"):
        prepare(logged, out)


@pytest.mark.parametrize("classes", [["no", "yes"], [3, 5, 8]])
def test_a_map_a_row_becomes_a_tensor_of_probabilities(classes, tmp_path):
    x = RANDOM.normal(size=(90, 3)).astype(np.float32)
    labels = np.array(classes)[np.argsort(np.argsort(x[:, 0])) * len(classes) // 90]
    model = LogisticRegression().fit(x, labels)
    found = ready(tmp_path, to_onnx(model, x[:1], target_opset=17))
    assert [(one.name, one.shape) for one in found.bundle.outputs] == [
        ("output_label", (-1,)),
        ("output_probability", (-1, len(classes))),
    ]
    answered = infer(tmp_path, found, x)
    assert answered["output_label"].tolist() == model.predict(x).tolist()
    assert answered["output_probability"] == pytest.approx(model.predict_proba(x), abs=1e-5)
    assert "output_probability" in found.notes[1]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            of("SequenceConstruct", helper.make_tensor_sequence_value_info("y", FLOAT, None)),
            "output 'y' is seq(tensor(float))",
        ),
        (
            of("Cast", VALUE("y", TensorProto.BFLOAT16, ROWS), attributes={"to": TensorProto.BFLOAT16}),
            "output 'y' is tensor(bfloat16)",
        ),
        (of("ReduceSum", VALUE("y", FLOAT, []), attributes={"keepdims": 0}), "output 'y' is one number"),
        (of("ReduceSum", VALUE("y", FLOAT, None), attributes={"keepdims": 0}), "output 'y' has shape [] for 5 rows"),
        (of("Shape", VALUE("y", TensorProto.INT64, [2])), "output 'y' has shape [2] for 5 rows"),
        (
            graph(
                [helper.make_node("Mul", ["x", "k"], ["y"])],
                [VALUE("x", FLOAT, ROWS), VALUE("k", FLOAT, [])],
                [VALUE("y", FLOAT, ROWS)],
            ),
            "input 'k' is one number",
        ),
        (
            graph([helper.make_node("RandomNormal", [], ["y"], shape=[2, 2])], [], [VALUE("y", FLOAT, [2, 2])]),
            "takes no input",
        ),
        (of("Nonsense", VALUE("y", FLOAT, ROWS)), "ONNX Runtime cannot load it"),
    ],
)
def test_what_nobody_could_be_answered_with_is_refused_by_name(model, said, tmp_path):
    with pytest.raises(InvalidData) as raised:
        ready(tmp_path, model)
    assert said in raised.value.message


def mean_of_rows():
    """x less the mean of all rows."""
    mean = helper.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1)
    return graph(
        [mean, helper.make_node("Sub", ["x", "m"], ["y"])], [VALUE("x", FLOAT, ROWS)], [VALUE("y", FLOAT, ROWS)]
    )


@pytest.mark.parametrize(
    ("model", "alone"),
    [
        (of("Exp", VALUE("y", FLOAT, ROWS)), True),
        (of("Log", VALUE("y", FLOAT, ROWS)), True),
        (mean_of_rows(), False),
        (of("Softmax", VALUE("y", FLOAT, ROWS), attributes={"axis": 0}), False),
        (
            graph([helper.make_node("Neg", ["x"], ["y"])], [VALUE("x", FLOAT, [2, 3])], [VALUE("y", FLOAT, [2, 3])]),
            False,
        ),
    ],
)
def test_whether_rows_are_scored_alone_is_found_out(model, alone, tmp_path):
    found = ready(tmp_path, model)
    assert found.bundle.rows_alone is alone
    assert any("one by one" in note for note in found.notes) is not alone
