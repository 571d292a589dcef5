"""Pushing and pulling: with a folder and a real S3 server, from us to DVC and back."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from noria.data import dvc as data
from noria.data.dvc.config import read_config
from noria.errors import CorruptArtifact, InvalidConfig, NotFound, NotServed, Unavailable
from servers import free_port
from support import dvc

pytestmark = pytest.mark.peer


@pytest.fixture(params=["folder", "s3"])
def remote(request, tmp_path, monkeypatch):
    """The lines of .dvc/config for an empty remote, which is the default one."""
    lines = "[core]\n    no_scm = True\n    remote = shared\n['remote \"shared\"']\n    url = "
    if request.param == "folder":
        return f"{lines}../../the share\n"
    environment = request.getfixturevalue("s3_environment")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "wrong")  # the configuration goes first
    return (
        f"{lines}s3://noria/dvc/{tmp_path.name}\n    endpointurl = {environment['AWS_ENDPOINT_URL']}\n"
        "    access_key_id = noria\n    secret_access_key = noria-secret\n    region = us-east-1\n"
    )


def project(folder: Path, config: str) -> Path:
    (folder / ".dvc").mkdir(parents=True)
    (folder / ".dvc/config").write_text(config)
    return folder


def clone(root: Path, name: str) -> Path:
    """What git would bring to another machine: configuration and .dvc files."""
    other = project(root.parent / name, (root / ".dvc/config").read_text())
    for file in root.glob("*.dvc"):
        if file.is_file():
            shutil.copy(file, other)
    return other


@pytest.fixture
def root(tmp_path, remote):
    """A project with a file, a large one and a folder, all added."""
    root = project(tmp_path / "work", remote)
    (root / "data.csv").write_text("a,b\n")
    (root / "large").write_bytes(os.urandom(9_000_000))
    (root / "folder/sub").mkdir(parents=True)
    for number in range(30):
        (root / f"folder/sub/ü {number}").write_text(str(number))
    data.add(data.open_repository(root), [root / name for name in ("data.csv", "large", "folder")])
    return root


def tree(folder: Path) -> dict[str, bytes]:
    names = ("data.csv", "large", "folder")
    files = [path for name in names for path in (folder / name, *(folder / name).rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def cached(root: Path) -> dict[str, bytes]:
    cache = root / ".dvc/cache/files"
    return {str(path.relative_to(cache)): path.read_bytes() for path in cache.rglob("*") if path.is_file()}


def test_dvc_pulls_what_we_pushed_and_we_pull_what_dvc_pushed(root):
    first = data.push(data.open_repository(root))
    assert [(t.objects, t.present) for t in first] == [(33, 0)]
    assert [(t.objects, t.present) for t in data.push(data.open_repository(root))] == [(0, 33)]
    theirs = clone(root, "theirs")
    assert "Cache and remote 'shared' are in sync" in dvc(theirs, "pull -q", "status", "status -c")
    assert tree(theirs) == tree(root) and cached(theirs) == cached(root)
    (theirs / "folder/more").write_text("of theirs")
    dvc(theirs, "add -q folder", "push -q")
    ours = clone(theirs, "ours")
    fetched, done = data.pull(data.open_repository(ours))
    assert [(t.objects, t.present) for t in fetched] == [(34, 0)]
    assert sum(item.added for item in done) == 33
    assert tree(ours) == tree(theirs) and cached(ours).items() <= cached(theirs).items()
    assert data.pull(data.open_repository(ours))[0] == []


def test_a_killed_transfer_leaves_nothing_half_visible_and_goes_on(root):
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom noria.data import dvc as data\n"
        "def kill(text, done, of):\n    done == 10 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "root, verb = Path(sys.argv[1]), getattr(data, sys.argv[2])\nverb(data.open_repository(root), progress=kill)\n"
    )
    other = clone(root, "other")
    for verb, where in (("push", root), ("pull", other)):
        done = subprocess.run([sys.executable, "-c", code, str(where), verb], check=False, timeout=120)
        assert done.returncode == -9
        if verb == "push":
            with pytest.raises(NotFound):  # no manifest before all of its files
                early = clone(root, "early")
                data.pull(data.open_repository(early), [early / "folder"])
            (rest,) = data.push(data.open_repository(root))
        else:
            assert not (other / "folder").exists() and not (other / "data.csv").exists()
            found = [name.removeprefix("md5/").replace("/", "") for name in cached(other)]
            assert data.open_repository(other).cache.intact(found)[1] == set()
            (rest,) = data.pull(data.open_repository(other))[0]
        assert rest.present >= 9 and rest.objects == 33 - rest.present
    assert tree(other) == tree(root)


def test_a_damaged_object_is_not_pushed(root):
    for name in ("data.csv", "large"):
        (row,) = data.list_tracked(data.open_repository(root), [root / name])
        path = Path(data.open_repository(root).cache.path(row.output.md5))
        content = path.read_bytes()
        path.chmod(0o644)
        path.write_bytes(content[:-1] + b"?")
        with pytest.raises(CorruptArtifact):
            data.push(data.open_repository(root), [root / name])
        path.write_bytes(content)
    data.push(data.open_repository(root))


def test_what_the_remote_lacks_is_told(root):
    other = clone(root, "other")
    with pytest.raises(NotFound, match="remote 'shared' does not have"):
        data.pull(data.open_repository(other))
    shutil.rmtree(root / ".dvc/cache")
    with pytest.raises(NotFound, match="not in the cache"):
        data.push(data.open_repository(root))


def test_an_object_changed_in_the_remote_never_reaches_cache_or_workspace(tmp_path):
    root = project(tmp_path / "work", "[core]\nremote = r\n['remote \"r\"']\nurl = ../../share\n")
    (root / "data.csv").write_text("a,b\n")
    data.add(data.open_repository(root), [root / "data.csv"])
    data.push(data.open_repository(root))
    (stored,) = [path for path in (tmp_path / "share").rglob("*") if path.is_file()]
    assert stored.relative_to(tmp_path / "share").parts[:2] == ("files", "md5")
    stored.chmod(0o644)
    stored.write_text("a,c\n")
    other = clone(root, "other")
    with pytest.raises(CorruptArtifact, match="has another hash"):
        data.pull(data.open_repository(other))
    assert not (other / "data.csv").exists() and cached(other) == {}


def test_an_output_may_have_a_remote_of_its_own_or_none(tmp_path):
    config = "['remote \"a\"']\nurl = ../../a\n['remote \"b\"']\nurl = ../../b\n"
    root = project(tmp_path / "work", config)
    for name, line in (("one", "  remote: b\n"), ("two", ""), ("three", "  push: false\n")):
        (root / name).write_text(name)
        data.add(data.open_repository(root), [root / name])
        with (root / f"{name}.dvc").open("a") as file:
            file.write(line)
    sent = data.push(data.open_repository(root), remote="a")
    assert sorted((t.remote, t.objects) for t in sent) == [("a", 1), ("b", 1)]
    with pytest.raises(InvalidConfig, match="no remote is named"):
        data.push(data.open_repository(root), [root / "two"])


def test_remotes_that_cannot_be_used_are_told(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    root = project(
        tmp_path / "work",
        "['remote \"gone\"']\n    url = s3://bucket/x\n"
        f"    endpointurl = http://127.0.0.1:{free_port()}\n['remote \"web\"']\n    url = https://example.org/x\n",
    )
    (root / "x").write_text("x")
    data.add(data.open_repository(root), [root / "x"])
    for name, kind, why in (
        ("gone", Unavailable, "s3://bucket/x cannot be used"),
        ("web", NotServed, "https://"),
        ("gon", NotFound, "no remote 'gon'"),
    ):
        with pytest.raises(kind, match=why) as caught:
            data.push(data.open_repository(root), remote=name)
        assert caught.value.remedy
    (root / ".dvc/config").write_text("['remote \"r\"']\n    jobs = 1\n")
    with pytest.raises(InvalidConfig, match="has no url"):
        data.open_repository(root)
    for text in ("not a section\n", "[core\n", "\x00[core]\nremote\n"):
        (root / ".dvc/config").write_text(text)
        with pytest.raises(InvalidConfig, match="no configuration of DVC"):
            data.open_repository(root)


def test_wrong_credentials_are_told(s3_environment, tmp_path):
    root = project(
        tmp_path / "work",
        f"['remote \"r\"']\n    url = s3://noria/x\n    endpointurl = {s3_environment['AWS_ENDPOINT_URL']}\n"
        "    access_key_id = noria\n    secret_access_key = wrong\n    region = us-east-1\n",
    )
    (root / "x").write_text("x")
    data.add(data.open_repository(root), [root / "x"])
    with pytest.raises(Unavailable, match="cannot be used"):
        data.push(data.open_repository(root), remote="r")


def test_the_configuration_is_read_as_dvc_reads_it(tmp_path):
    root = tmp_path / "work"
    root.mkdir()
    dvc(
        root,
        "init -q --no-scm",
        ["remote", "add", "-q", "-d", "Main", "s3://bucket/a b"],
        ["remote", "modify", "-q", "main", "endpointurl", "http://127.0.0.1:1"],
        ["remote", "modify", "-q", "--local", "main", "secret_access_key", "a # 'b', c"],
        ["remote", "add", "-q", "near", "../some where"],
        ["config", "-q", "cache.type", "hardlink,symlink"],
        ["config", "-q", "cache.dir", "../cache, with comma"],
    )
    found = read_config(root / ".dvc")
    main = found.remote("")
    assert (main.name, main.url, main.options["endpointurl"]) == ("main", "s3://bucket/a b", "http://127.0.0.1:1")
    assert main.options["secret_access_key"] == "a # 'b', c"
    near = found.remotes["near"]
    assert os.path.normpath(near.base / near.url) == str(tmp_path / "some where")
    assert (found.cache, found.uses_git) == (tmp_path / "cache, with comma", False)
    assert [str(kind) for kind in found.link_kinds] == ["hardlink", "symlink"]


def test_one_at_a_time_changes_a_project(tmp_path):
    root = project(tmp_path / "work", "[core]\n    no_scm = True\n")
    (root / "x").write_text("x")
    order = []
    with data.open_repository(root).locked():
        other = threading.Thread(
            target=lambda: (data.add(data.open_repository(root), [root / "x"]), order.append("added"))
        )
        other.start()
        assert "Unable to acquire lock" in dvc(root, "add x", check=False)
        order.append("released")
    other.join()
    assert order == ["released", "added"]
