"""What a stranger finds: a light import, host-free constraints, documented settings, errors and commands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from noria.config import PolicySettings, Settings, StageRuleSettings
from noria.surface.cli.main import app
from noria.surface.errors import OUTSIDE

ROOT = Path(__file__).parents[1]
HEAVY = ("mlflow", "pandas", "torch", "ray", "sklearn", "polars", "sqlalchemy", "onnxruntime")


def test_importing_noria_loads_nothing_heavy():
    code = f"import sys, noria; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_gateway_loads_neither_sql_nor_settings_nor_frames():
    heavy = ("sqlalchemy", "pydantic", "pandas", "polars", "sklearn")
    code = f"import sys, noria.surface.http.gateway; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_noria_loads_tells_nobody_what_runs_here(tmp_path):
    code = "import noria, onnx, onnxruntime; from onnx import helper\n" + _GRAPH
    home = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}  # where CI says so, ONNX Runtime is silent by itself
    subprocess.run([sys.executable, "-c", code], env=home, check=True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


_GRAPH = """
value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
node = helper.make_node("Identity", ["x"], ["y"])
graph = helper.make_graph([node], "g", [value], [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnxruntime.InferenceSession(model.SerializeToString())
"""


@pytest.mark.parametrize("package", ["noria.features", "noria.monitoring", "noria.rollout", "noria.store"])
def test_every_public_name_of_a_package_that_loads_late_is_there(package):
    module = import_module(package)
    assert [name for name in module.__all__ if not hasattr(module, name)] == []
    assert not hasattr(module, "unheard_of")


def test_constraints_name_no_index_host():
    assert not re.search(r"https?://", (ROOT / "constraints.txt").read_text())


def test_every_setting_is_documented():
    text = (ROOT / "docs/reference/settings.md").read_text()
    for section, field in Settings.model_fields.items():
        names = getattr(field.annotation, "model_fields", {})
        missing = [f"{section}.{name}" for name in names if f"| `{name}` |" not in text]
        assert missing == []


def test_every_setting_of_a_policy_is_documented():
    text = (ROOT / "docs/reference/settings.md").read_text()
    names = [*PolicySettings.model_fields, *StageRuleSettings.model_fields]
    assert [name for name in names if name != "stages" and f"| `{name}` |" not in text] == []


def test_every_error_code_is_documented():
    text = (ROOT / "docs/reference/errors.md").read_text()
    assert [code for code in OUTSIDE if f"| `{code}` |" not in text] == []


def test_every_extra_is_documented():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    text = (ROOT / "docs/reference/extras.md").read_text()
    assert [name for name in extras if f"| `{name}` |" not in text] == []


@pytest.mark.parametrize("package", ["noria", "noria.features"])
def test_public_names_are_found_by_completion_and_help(package):
    public = import_module(package)
    assert set(public.__all__) <= set(dir(public))


def test_every_command_is_documented():
    text = (ROOT / "docs/reference/commands.md").read_text()
    assert [name for name, _ in every_command() if f"| `{name}` |" not in text] == []


def test_every_command_is_described_as_its_help_describes_it():
    text = (ROOT / "docs/reference/commands.md").read_text()
    told = {name: " ".join((command.help or "").split("\n\n")[0].split()) for name, command in every_command()}
    assert [name for name, help_ in told.items() if f"| `{name}` | {help_}" not in text] == []


def every_command():
    return commands(get_command(app), "noria")


def commands(command, prefix):
    if not isinstance(command, TyperGroup):
        return [(prefix, command)]
    children = {key: command.get_command(None, key) for key in command.list_commands(None)}
    return [one for key, child in children.items() for one in commands(child, f"{prefix} {key}")]
