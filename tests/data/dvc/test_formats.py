"""What we write is what DVC writes, byte for byte; DVC itself is run beside."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from noria.data import dvc as data
from noria.data.dvc.dvc_files import Output, check_name, parse_dvc_file, updated
from noria.data.dvc.ignores import Ignores
from noria.data.dvc.yaml_text import scalar
from noria.errors import InvalidInput, NotServed
from support import dvc, dvc_environment

pytestmark = pytest.mark.peer

ODD = "we ird: [a]#!*? näme 名前"
LONG = "a long name that is folded " * 8 + "x"
NAMES = ["data.csv", "folder", "run.sh", "zero", "on", "empty", ODD, LONG, "deep/er/file"]
MD5 = "f69f5b72bc79a92dc70c63c9aa142e36"
COMMENTED = f"""# ours
outs:
- md5: {MD5} # of old
  size: 4
  hash: md5
  # where it is
  path: data.csv
  desc: about
meta:
  a: 1
"""


def fill(root: Path) -> None:
    """Data of every kind that a project may hold."""
    (root / "data.csv").write_text("a,b\n")
    (root / "folder/sub").mkdir(parents=True)
    (root / "folder/none").mkdir()
    (root / "folder/x.txt").write_text("1\n")
    (root / "folder/sub/ü \n y.txt").write_text("2\r\n")
    (root / "folder/again").write_text("1\n")
    (root / "folder/left.tmp").write_text("ignored\n")
    (root / "folder/link").symlink_to("x.txt")
    (root / "folder/elsewhere").symlink_to("../deep")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "zero").touch()
    (root / "empty").mkdir()
    for name in ("on", ODD, LONG):
        (root / name).write_text(name)
    (root / "deep/er").mkdir(parents=True)
    (root / "deep/er/file").write_bytes(b"\0" * 3_000_000)


def written(root: Path) -> dict[str, tuple[bytes, int]]:
    """Every file that DVC or we wrote: its content and mode."""
    files = [p for p in root.rglob("*") if p.is_file() and not {".git", "tmp"} & set(p.relative_to(root).parts)]
    return {
        str(p.relative_to(root)): (p.read_bytes(), p.stat().st_mode)
        for p in files
        if p.suffix == ".dvc" or ".dvc" in p.relative_to(root).parts or p.name in (".gitignore", ".dvcignore")
    }


@pytest.fixture(scope="module")
def added(tmp_path_factory):
    """Two projects with the same data, in git: one added by us, one by DVC."""
    folder = tmp_path_factory.mktemp("twins")
    for name in ("ours", "theirs"):
        (folder / name).mkdir()
        subprocess.run(["git", "init", "--quiet"], cwd=folder / name, check=True)
        (folder / name / ".dvcignore").write_text("*.tmp\n")
        fill(folder / name)
        (folder / name / ".gitignore").write_text("*.log")
    dvc(folder / "theirs", "init -q", ["add", "-q", *NAMES])
    data.add(data.open_or_make_repository(folder / "ours"), [folder / "ours" / name for name in NAMES])
    return folder


@pytest.fixture
def twins(added, tmp_path):
    """Copies of both that the test may spoil."""
    return tuple(Path(shutil.copytree(added / name, tmp_path / name, symlinks=True)) for name in ("ours", "theirs"))


def test_add_writes_what_dvc_add_writes(twins):
    ours, theirs = twins
    assert written(ours) == written(theirs)
    # and again when the content changed, whatever else the files say
    for root in twins:
        (root / "folder/link").unlink()  # DVC made a file of it, we left it as it was
        (root / "folder/x.txt").write_text("3\n")
        (root / "folder/sub/new").write_text("4\n")
        (root / "data.csv.dvc").write_text(COMMENTED)
        (root / "data.csv").write_text("a,b\n1,2\n")
        (root / "zero").unlink()
        (root / "zero").mkdir()
        (root / "zero/one").write_text("1")
        (root / "run.sh").write_text("#!/bin/bash\n")
        (root / "run.sh").chmod(0o644)
    dvc(theirs, ["add", "-q", "folder", "data.csv", "zero", "run.sh"])
    data.add(data.open_repository(ours), [ours / name for name in ("folder", "data.csv", "zero", "run.sh")])
    assert written(ours) == written(theirs)


def test_dvc_is_content_with_our_project_and_we_with_its(twins):
    ours, theirs = twins
    for name in ("folder/x.txt", "data.csv", ODD):
        (ours / name).unlink()
        (theirs / name).unlink()
    said = dvc(ours, "checkout -q", "status", "data status --json")
    assert "Data and pipelines are up to date." in said and '"uncommitted"' not in said
    assert (ours / ODD).read_text() == ODD
    found = data.list_tracked(data.open_repository(theirs))
    assert {row.status for row in found} == {"up to date", "missing", "modified"}
    data.checkout(data.open_repository(theirs))
    assert {row.status for row in data.list_tracked(data.open_repository(theirs))} == {"up to date"}
    assert "up to date" in dvc(theirs, "status")


def test_a_project_without_git_is_one_of_dvc_too(tmp_path):
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
        fill(tmp_path / name)
    dvc(tmp_path / "theirs", "init -q --no-scm", "add -q data.csv")
    data.add(data.open_or_make_repository(tmp_path / "ours"), [tmp_path / "ours/data.csv"])
    assert written(tmp_path / "ours") == written(tmp_path / "theirs")


WORDS = (
    "on|yes|null|~|12e5|0x1f|1_0|0o7|2020-01-01|12:30|.inf|a|ab:|#b|:c|-|'q'|it's|ü|名前|😀|data.csv|"
    '"z"|[|}|&|*|!|>|%|@|`|?|---|...|,|=|<<|\\| |  |a-name-longer-than-a-line-' + "x" * 60
).split("|")


def test_names_are_quoted_and_folded_as_dvc_does():
    dice = random.Random(20)
    names = [
        dice.choice(["", " ", "  "]).join(dice.choices(WORDS, k=dice.randint(1, 30)))[: dice.randint(1, 250)]
        for _ in range(1000)
    ]
    names += WORDS
    code = (
        "import sys, json\nfrom dvc.utils.serialize import dumps_yaml\n"
        "print(json.dumps([dumps_yaml({'outs': [{'md5': name, 'path': name}]}) for name in json.load(sys.stdin)]))"
    )
    done = subprocess.run(
        [dvc_environment(), "-c", code], input=json.dumps(names), capture_output=True, text=True, check=True
    )
    for name, theirs in zip(names, json.loads(done.stdout), strict=True):
        assert f"outs:\n- md5: {scalar(name, column=7)}\n  path: {scalar(name, column=8)}\n" == theirs
        if yaml.load(theirs, yaml.BaseLoader)["outs"][0]["path"] == name and not name.endswith(" "):
            check_name(name)
        else:  # what DVC writes is not what it would read
            with pytest.raises(InvalidInput):
                check_name(name)


PATTERNS = """
*.tmp
!keep.tmp
/top
build/
a/b
**/deep
x/**/y
tail/**
q?z
[ab]c
[!d]e
esc\\*
 spaced 
# comment
!sub/build/
"""


NAMED = """
f.tmp keep.tmp top sub/top build sub/build sub/build/x a/b z/a/b deep p/q/deep x/y x/1/2/y tail/1 tail qaz q/z ac cc
de fe esc* escx spaced #comment p/keep.tmp p/f.tmp a/f.tmp/inside .git n/.git n/.dvc in/only in/other only
"""


def test_dvcignore_means_what_it_means_to_dvc(tmp_path):
    (tmp_path / ".dvcignore").write_text(PATTERNS)
    names = NAMED.split()
    folders = {"build", "sub/build", "tail", ".git", "n/.dvc", "deep"}
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if name in folders:
            (tmp_path / name).mkdir(exist_ok=True)
        else:
            (tmp_path / name).touch()
    (tmp_path / "in/.dvcignore").write_text("only\n!other\n")
    code = (
        "import sys, json\nfrom dvc.repo import Repo\nof = Repo('.').dvcignore\n"
        "print(json.dumps([of.is_ignored_dir(n) if d else of.is_ignored_file(n) for n, d in json.load(sys.stdin)]))"
    )
    dvc(tmp_path, "init -q --no-scm")
    questions = json.dumps([(name, (tmp_path / name).is_dir()) for name in names])
    done = subprocess.run(
        [dvc_environment(), "-c", code], input=questions, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    ignores = Ignores(tmp_path)
    ours = {name: ignores.match(name, is_folder=(tmp_path / name).is_dir()) for name in names}
    assert ours == dict(zip(names, json.loads(done.stdout), strict=True))
    assert any(ours.values()) and not all(ours.values())


def test_an_update_touches_only_what_changed():
    start, rest = f"# top\nouts:\n  - md5: '{MD5}'\n    path: \"x\"  # name\n    hash: md5", "\n    desc: kept"
    file = parse_dvc_file(Path("x.dvc"), f"{start}\n    isexec: true{rest}\nfrozen: true")
    assert updated(file, Output("x", "0" * 32, 7)) == f"{start}{rest}\n    size: 7\nfrozen: true".replace(MD5, "0" * 32)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no list"),
        ("outs: [", "while parsing"),
        ("outs:\n- md5: 12", "no path"),
        ("outs:\n- path: x\n  hash: md5", "no MD5"),
        (f"outs:\n- path: x\n  hash: md5\n  md5: {MD5[:-1]}/", "no MD5"),
        (f"outs:\n- path: x\n  hash: md5\n  md5: {MD5}\n  size: -1", "not a number"),
        (f"outs:\n- path: x\n  hash: md5\n  md5: {MD5}\nwdir: [1]", "no path"),
        ("- 1\n- 2", "no list"),
        ("outs: &a [*a]", ""),
        ("x: \0", "unacceptable"),
    ],
)
def test_a_damaged_file_is_named_with_its_fault(tmp_path, text, why):
    path = tmp_path / "x.dvc"
    path.write_text(text)
    (tmp_path / ".dvc").mkdir()
    with pytest.raises(InvalidInput) as caught:
        data.list_tracked(data.open_repository(tmp_path))
    assert "x.dvc" in caught.value.message and why in caught.value.message


def test_what_only_dvc_handles_is_left_to_it():
    for text in (f"outs:\n- md5: {MD5}\n  path: x", f"outs:\n- path: x\n  hash: md5\n  files: []\n  md5: {MD5}"):
        with pytest.raises(NotServed):
            parse_dvc_file(Path("x.dvc"), text)


def test_numbers_that_look_like_text_stay_text():
    text = "outs:\n- md5: 12345678901234567890123456789012\n  size: 4\n  hash: md5\n  path: 2020-01-01\n"
    (output,) = parse_dvc_file(Path("x.dvc"), text).outputs
    assert (output.md5, output.path, os.fspath(output.path)) == (
        "12345678901234567890123456789012",
        "2020-01-01",
        "2020-01-01",
    )
