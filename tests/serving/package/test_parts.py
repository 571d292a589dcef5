"""The parts of a package, each by itself: locks, what serving needs, the wheel, settings, and who may have one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from noria.errors import CorruptArtifact, InvalidData, InvalidInput, MissingExtra, Unavailable
from noria.features import ViewSpec
from noria.optimize.bundle import Bundle
from noria.serving.package.folder import _copy
from noria.serving.package.lock import parse
from noria.serving.package.manifest import verify_package, write_manifest
from noria.serving.package.needs import requirements_for
from noria.serving.package.recipe import ModelEnvironment, Recipe, example_request, python_of_image, recipe_files
from noria.serving.package.wheel import write_wheel
from support import noria

TREE = Bundle("classification", ("a",), options={"native": {"kind": "lightgbm", "file": "m.txt", "from_rows": 100}})
RECIPE = Recipe("m", "m:1", ["m@1"], "python:3.11-slim", "3.11", 8000, "0.1.0", (), {}, TREE)
LOCK = """# made by hand
click==8.1.0 \\
    --hash=sha256:{0}
    # via uvicorn
uvicorn==0.34.0 \\
    --hash=sha256:{0} \\
    --hash=sha256:{1}
    # via -r requirements.in
""".format("0" * 64, "1" * 64)


def test_a_lock_is_read_and_written_back():
    click, uvicorn = parse(LOCK)
    assert (click.name, click.version, click.via, len(uvicorn.hashes)) == ("click", "8.1.0", ("uvicorn",), 2)
    assert parse(click.lines + uvicorn.lines) == [click, uvicorn]


@pytest.mark.parametrize("line", ["noria @ git+https://example.org/noria", "click==8.1.0", "./local"])
def test_what_has_no_version_or_hash_is_not_locked(line):
    with pytest.raises(InvalidData, match="cannot be locked"):
        parse(line)


def test_only_what_a_bundle_needs_is_required():
    names = {line.split(">")[0].split("<")[0].split("[")[0] for line in requirements_for([TREE])}
    assert {"onnxruntime", "lightgbm", "uvicorn"} <= names
    assert not {"polars", "scikit-learn", "alembic", "onnx"} & names
    more = requirements_for([TREE], ["redis", "batch"])
    assert {"redis", "polars"} <= {line.split(">")[0] for line in more}
    alone = [line.split(">")[0] for line in requirements_for([Bundle("generic", runtime="pyfunc")])]
    assert not {"lightgbm", "onnxruntime"} & set(alone)


def test_an_unknown_extra_or_runtime_is_told():
    with pytest.raises(InvalidInput, match=r"no extra 'reddis'"):
        requirements_for([TREE], ["reddis"])
    with pytest.raises(MissingExtra, match="no installed package provides the runtime 'tpu'"):
        requirements_for([Bundle("generic", runtime="tpu")])


@pytest.mark.parametrize(
    ("image", "given", "python"),
    [("python:3.12-slim", "", "3.12"), ("mirror:5000/python:3.13@sha256:0", "", "3.13"), ("base:7", "3.11", "3.11")],
)
def test_the_python_of_an_image_is_read_off_its_tag(image, given, python):
    assert python_of_image(image, given) == python


@pytest.mark.parametrize(
    ("image", "given"), [("debian:12", ""), ("python:3.9", ""), ("x", "three"), ("cpython:3.11", "")]
)
def test_an_image_without_a_python_that_noria_runs_on_is_refused(image, given):
    with pytest.raises(InvalidInput):
        python_of_image(image, given)


def test_the_wheel_is_what_runs_here(tmp_path):
    first, second = write_wheel(tmp_path / "a"), write_wheel(tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    names = zipfile.ZipFile(first).namelist()
    assert "noria/serving/package/templates/Dockerfile.j2" in names
    assert "noria-0.1.0.dist-info/entry_points.txt" in names
    assert not [name for name in names if name.endswith((".pyc", "direct_url.json"))]


def test_an_address_with_a_password_is_in_no_file():
    texts = recipe_files(replace(RECIPE, online="redis://:hush@features:6379/0"))
    assert not any("hush" in text for text in texts.values())
    assert "NORIA_FEATURES__ONLINE" in texts["README.md"]
    assert (
        'online = "redis://features:6379/0"'
        in recipe_files(replace(RECIPE, online="redis://features:6379/0"))["noria.toml"]
    )


def test_a_dockerfile_with_environments_has_nothing_a_linter_minds(tmp_path):
    environments = (ModelEnvironment("0a1b", "3.10"), ModelEnvironment("2c3d", "3.11"))
    whole = replace(RECIPE, environments=environments, grpc_port=8001, labels={"title": 'a "$quoted" name'})
    (tmp_path / "Dockerfile").write_text(recipe_files(whole)["Dockerfile"])
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, tmp_path / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_a_pipe_and_an_empty_folder_are_not_in_the_manifest(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/a").write_text("a")
    write_manifest(tmp_path, {})
    (tmp_path / "model/predictions").mkdir()
    assert verify_package(tmp_path).files == 1
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "model/empty").mkdir()
    with pytest.raises(CorruptArtifact) as refused:
        verify_package(tmp_path)
    assert refused.value.details == ("model/empty is not in the manifest", "pipe is not in the manifest")


def test_an_example_is_made_of_zeros():
    assert example_request(TREE, "m") == ("/predict", '{"features": {"a": 0}}')


def test_an_example_has_a_value_of_each_kind_or_the_models_own():
    kinds = {"s": "string", "at": "datetime", "b": "boolean", "n": "long", "beside": "datetime"}
    view = ViewSpec("v", ("shop", "line"), ("mean",), None, "null", ("String", "Int64"))
    bundle = Bundle("generic", ("s", "at", "b", "n", "x"), (view,), kinds=kinds, sent_beside=("beside",))
    when = "2026-01-02T03:04:05"
    _, body = example_request(bundle, "m")
    assert json.loads(body) == {
        "features": {"s": "text", "at": when, "b": False, "n": 0, "x": 0, "beside": when},
        "entities": {"shop": "", "line": 0},
    }
    _, body = example_request(msgspec.structs.replace(bundle, example=("north", when, 1, 2, 3.5, 9.0)), "m")
    assert list(json.loads(body)["features"].values()) == ["north", when, 1, 2, 3.5, when]
    assert "shop, line" not in recipe_files(RECIPE)["README.md"]
    assert "the values of line, shop" in recipe_files(replace(RECIPE, example=bundle))["README.md"]


def test_a_policy_without_previews_lets_nothing_be_packaged_that_is_not_in_production(project: Path, tmp_path):
    config = project / "noria.toml"
    config.write_text(
        f'{config.read_text()}\n[policies."hourly*"]\npreviews = false\n'.replace('[policies."*".', '[policies."x*".')
    )
    noria("models", "move", "hourly-demand", "1", "Archived", "--reason", "old", cwd=project)
    refused = noria("package", "models:/hourly-demand/1", "--output", str(tmp_path / "p"), cwd=project, check=False)
    assert (refused.returncode, (tmp_path / "p").exists()) == (3, False)


def test_a_file_that_cannot_be_copied_is_named_alone(tmp_path):
    (tmp_path / "model").mkdir()
    for name in ("a", "b"):
        (tmp_path / "model" / name).symlink_to(tmp_path / "gone")
    with pytest.raises(Unavailable, match=r"copy/[ab] cannot be written: \[Errno 2\] No such file or directory\n"):
        _copy(tmp_path / "model", tmp_path / "copy")
