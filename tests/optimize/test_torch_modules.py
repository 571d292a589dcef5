"""PyTorch modules: a graph stands for one only where tracing kept nothing of the tensors it was shown.

PyTorch is no dependency of Noria: these run where it is installed.
"""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
import pytest

from noria.optimize.conversion.closeness import NotConverted
from noria.optimize.conversion.tensors import convert_torch, convert_torch_of_columns

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore")

MATRIX = [["", "float32", [-1, 3]]]


class Module(torch.nn.Module):
    """A linear layer, and what ``way`` makes of it."""

    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.way, self.layer, self.kernel = way, torch.nn.Linear(3, 2), torch.nn.Conv2d(3, 2, 3)
        self.table, self.cell = torch.nn.Embedding(50, 4), torch.nn.LSTM(4, 2, batch_first=True)

    def forward(self, x):
        return getattr(self, f"by_{self.way}")(x)

    def by_count(self, x):
        return self.layer(x) * (10 if x.shape[0] > 4 else 1)

    def by_value(self, x):
        return self.layer(x) * (100 if float(x.abs().max()) > 100 else 1)

    def by_row(self, x):
        return torch.stack([self.layer(row) * (10 if float(row[0]) > 0 else 1) for row in x])

    def by_log(self, x):
        return torch.log(self.layer(x))

    def by_mean(self, x):
        return self.layer(x - x.mean(0, keepdim=True))

    def by_pool(self, x):
        return self.layer(x).mean(0, keepdim=True)

    def by_name(self, x):
        return {"y": self.layer(x)}

    def by_half(self, x):
        return self.layer(x.float()).half()

    def by_picture(self, x):
        return self.kernel(x)

    def by_words(self, x):
        return self.cell(self.table(x))[0][:, -1]


def saved(folder, way):
    """The folder that MLflow keeps a module in."""
    module = Module(way).eval()
    torch.save(module, folder / "model.pth")
    return module


@pytest.mark.parametrize("way", ["count", "value", "row"])
def test_what_tracing_would_keep_one_way_of_is_not_converted(way, tmp_path):
    saved(tmp_path, way)
    with pytest.raises(NotConverted, match="depends on the values or the number of its rows"):
        convert_torch(tmp_path, tmp_path, MATRIX)


@pytest.mark.parametrize(
    ("way", "columns", "said"),
    [
        ("pool", MATRIX, r"has shape \[1, 2\] for 8 rows"),
        ("name", MATRIX, "the module answers dict"),
        ("half", [["", "float16", [-1, 3]]], "input 'input' of the module is float16"),
        ("half", MATRIX, "output 0 of the module is float16"),
        ("log", [["", "float32", [-1, 4]]], "fails at made-up tensors of its signature: RuntimeError"),
    ],
)
def test_why_a_module_is_not_converted_is_told(way, columns, said, tmp_path):
    saved(tmp_path, way)
    with pytest.raises(NotConverted, match=said):
        convert_torch(tmp_path, tmp_path, columns)


def test_a_module_that_was_not_pickled_is_told_without_a_path(tmp_path):
    (tmp_path / "model.pt2").write_bytes(b"")
    with pytest.raises(NotConverted, match=r"is kept as model\.pt2") as raised:
        convert_torch(tmp_path, tmp_path, MATRIX)
    assert str(tmp_path) not in str(raised.value)


@pytest.mark.parametrize(
    ("way", "kind", "shape", "given"),
    [
        ("picture", "float32", [-1, 3, -1, -1], [-1, 2, -1, -1]),
        ("words", "int64", [-1, -1], [-1, 2]),
        ("log", "float32", [-1, 3], [-1, 2]),
    ],
)
def test_every_open_axis_of_the_signature_stays_open(way, kind, shape, given, tmp_path):
    module = saved(tmp_path, way)
    found = convert_torch(tmp_path, tmp_path, [["", kind, shape]])
    assert [one[2] for one in found["tensors"] + found["outputs"]] == [shape, given]
    assert found["tensors"][0][0] == "input"
    assert found["rows_alone"]
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    for size in (5, 11):
        x = np.random.default_rng(1).normal(size=[4, *(size if one < 0 else one for one in shape[1:])]) * 3
        x = np.abs(x).astype(kind)
        with torch.no_grad():
            expected = module(torch.from_numpy(x)).numpy()
        assert session.run(None, {"input": x})[0] == pytest.approx(expected, abs=1e-4, nan_ok=True)


def test_a_module_whose_rows_depend_on_each_other_says_so_and_is_no_model_of_columns(tmp_path):
    saved(tmp_path, "mean")
    assert convert_torch(tmp_path, tmp_path, MATRIX)["rows_alone"] is False
    with pytest.raises(NotConverted, match="depends on the rows beside it"):
        convert_torch_of_columns(tmp_path, tmp_path, [(name, "double") for name in "abc"])


@pytest.mark.parametrize("example", [[[1.0, 2.0, 3.0]], {"inputs": [[1.0, 2.0, 3.0]]}, {"data": [[1.0, 2.0, 3.0]]}])
def test_the_logged_example_is_compared_too(example, tmp_path):
    saved(tmp_path, "log")
    without = convert_torch(tmp_path, tmp_path, MATRIX, tmp_path)["rows_checked"]
    (tmp_path / "input_example.json").write_text(json.dumps(example))
    assert convert_torch(tmp_path, tmp_path, MATRIX, tmp_path)["rows_checked"] == without + 1
