"""Adding, listing, checking out and comparing: what must hold whatever the data is."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noria.data import dvc as data
from noria.data.dvc.hashes import Fingerprint, HashIndex
from noria.data.dvc.links import LinkKind
from noria.data.dvc.manifests import Manifest, parse_manifest
from noria.errors import (
    AlreadyExists,
    Conflict,
    CorruptArtifact,
    InvalidConfig,
    InvalidData,
    InvalidInput,
    NotFound,
    Unavailable,
)


@pytest.fixture
def root(tmp_path):
    """A project with one tracked file and one tracked folder, outside of git."""
    (tmp_path / "shop/folder/sub").mkdir(parents=True)
    (tmp_path / "shop/data.csv").write_text("a,b\n1,2\n")
    for name in ("x", "sub/y", "sub/z"):
        (tmp_path / "shop/folder" / name).write_text(name)
    data.add(data.open_or_make_repository(tmp_path / "shop"), [tmp_path / "shop/data.csv", tmp_path / "shop/folder"])
    return tmp_path / "shop"


def opened(root: Path) -> data.Repository:
    return data.open_repository(root)


def configure(root: Path, text: str) -> None:
    (root / ".dvc/config").write_text("[core]\n    no_scm = True\n" + text)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def statuses(root: Path) -> dict[str, str]:
    return {row.path.name: row.status.value for row in data.list_tracked(opened(root))}


def object_of(root: Path, name: str) -> Path:
    repository = opened(root)
    (row,) = data.list_tracked(repository, [root / name])
    return Path(repository.cache.path(row.output.md5))


def test_checkout_undoes_whatever_happened_to_the_workspace(root):
    before = tree(root / "folder")
    shutil.rmtree(root / "folder/sub")
    (root / "folder/x").write_text("changed")
    (root / "folder/new").write_text("x")  # known content, so that nothing is lost
    (root / "data.csv").unlink()
    assert statuses(root) == {"data.csv": "missing", "folder": "modified"}
    with pytest.raises(Conflict) as caught:
        data.checkout(opened(root))
    assert caught.value.details == ("folder/x",)
    done = data.checkout(opened(root), force=True)
    assert [(item.added, item.replaced, item.removed) for item in done] == [(1, 0, 0), (2, 1, 1)]
    assert tree(root / "folder") == before
    assert statuses(root) == {"data.csv": "up to date", "folder": "up to date"}


def test_a_file_may_become_a_folder_and_back(root):
    (root / "data.csv").unlink()
    (root / "data.csv/in").mkdir(parents=True)
    (root / "data.csv/in/side").write_text("1")
    before = (root / "data.csv.dvc").read_text()
    data.add(opened(root), [root / "data.csv"])
    as_folder = (root / "data.csv.dvc").read_text()
    (root / "data.csv.dvc").write_text(before)
    data.checkout(opened(root))
    assert (root / "data.csv").read_text() == "a,b\n1,2\n"
    (root / "data.csv.dvc").write_text(as_folder)
    data.checkout(opened(root))
    assert tree(root / "data.csv") == {"in/side": b"1"}


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.dictionaries(st.sampled_from(["a", "b/c", "b/d", "e/f/g"]), st.binary(max_size=3), max_size=4),
        min_size=2,
        max_size=4,
    )
)
def test_every_version_that_was_added_comes_back(tmp_path_factory, versions):
    root = tmp_path_factory.mktemp("versions")
    recorded = []
    for files in versions:
        shutil.rmtree(root / "d", ignore_errors=True)
        (root / "d").mkdir()
        for name, content in files.items():
            (root / "d" / name).parent.mkdir(parents=True, exist_ok=True)
            (root / "d" / name).write_bytes(content)
        data.add(data.open_or_make_repository(root), [root / "d"])
        recorded.append((root / "d.dvc").read_text())
    for files, text in zip(versions, recorded, strict=True):
        (root / "d.dvc").write_text(text)
        data.checkout(opened(root))
        assert tree(root / "d") == files
        assert data.diff(opened(root)) == []


@pytest.mark.parametrize("kind", ["hardlink", "symlink", "copy", "reflink,hardlink", "reflink,copy"])
def test_cache_type_decides_how_workspace_and_cache_share(root, kind):
    configure(root, f"[cache]\n    type = {kind}\n")
    (root / "data.csv").write_text("a,b\n3,4\n")
    data.add(opened(root), [root / "data.csv"])
    (root / "folder/x").unlink()
    data.checkout(opened(root))
    cached = object_of(root, "data.csv")
    used = opened(root).link_kind
    assert used in [LinkKind(name) for name in kind.split(",")]
    assert (root / "data.csv").is_symlink() == (used is LinkKind.SYMLINK)
    assert (root / "data.csv").samefile(cached) == used.shares
    assert (root / "data.csv").stat().st_mode & 0o222 == (0 if used.shares else 0o200)
    assert cached.stat().st_mode & 0o777 == 0o444
    assert set(statuses(root).values()) == {"up to date"}
    assert (root / "folder/x").read_text() == "x"


def test_no_kind_of_link_that_works_is_told(root):
    assert opened(root).link_kind in (LinkKind.REFLINK, LinkKind.COPY)
    configure(root, "[cache]\n    type = reflink\n")
    if opened(root).config.link_kinds == (LinkKind.REFLINK,):
        try:
            used = opened(root).link_kind
        except Unavailable as error:
            assert "cache.type" in error.remedy
        else:
            assert used is LinkKind.REFLINK
    configure(root, "[cache]\n    type = magic\n")
    with pytest.raises(InvalidConfig, match=r"cache\.type is 'magic'"):
        opened(root)


def test_a_cache_may_lie_elsewhere(root, tmp_path):
    configure(root, f"[cache]\n    dir = {tmp_path / 'my cache'}\n")
    data.add(opened(root), [root / "data.csv"])
    assert object_of(root, "data.csv").is_relative_to(tmp_path / "my cache")
    assert object_of(root, "data.csv").read_text() == "a,b\n1,2\n"


def test_a_damaged_object_is_never_checked_out(root):
    cached = object_of(root, "data.csv")
    cached.chmod(0o644)
    cached.write_text("a,b\n1,9\n")
    (root / "data.csv").unlink()
    (root / "folder/x").unlink()
    for _ in range(2):
        with pytest.raises(CorruptArtifact) as caught:
            data.checkout(opened(root))
        assert str(cached) in caught.value.details
    assert not (root / "data.csv").exists() and not (root / "folder/x").exists()
    (root / "data.csv").write_text("a,b\n1,2\n")
    data.add(opened(root), [root / "data.csv"])  # the content is at hand again, which mends the cache
    (root / "data.csv").unlink()
    data.checkout(opened(root))
    assert (root / "data.csv").read_text() == "a,b\n1,2\n"


def test_a_manifest_cannot_name_files_outside_its_folder(root):
    for path in ("../out", "/etc/passwd", "a/../../out", "", "a//b", "."):
        with pytest.raises(CorruptArtifact):
            parse_manifest("x.dir", Manifest({path: "0" * 32}).content)
    for content in (b"{}{", b"[1]", b'{"a": 1}', b'[{"md5": "x", "relpath": "a"}]', b"\xff"):
        with pytest.raises(CorruptArtifact):
            parse_manifest("x.dir", content)


@pytest.mark.parametrize(
    "where", ["path: ../out", "path: /etc/out", "path: .git/hooks/x", "path: x\nwdir: ../..", "path: ."]
)
def test_a_dvc_file_cannot_reach_outside_the_data(root, where):
    text = (root / "data.csv.dvc").read_text()
    (root / "evil.dvc").write_text(text.replace("path: data.csv", where))
    with pytest.raises(InvalidInput, match=r"evil\.dvc"):
        data.checkout(opened(root), force=True)


def test_nothing_is_written_through_a_link_to_a_folder(root):
    outside = root.parent / "outside"
    outside.mkdir()
    shutil.rmtree(root / "folder/sub")
    (root / "folder/sub").symlink_to(outside)
    with pytest.raises(Conflict, match="folder/sub is a link"):
        data.checkout(opened(root), force=True)
    assert list(outside.iterdir()) == []


def test_a_project_that_cannot_be_written_can_be_looked_at(root):
    index = root / ".dvc/tmp/noria/hashes.db"
    index.unlink()
    index.mkdir()  # nothing can be remembered, as in a read-only folder
    assert set(statuses(root).values()) == {"up to date"}
    assert data.diff(opened(root)) == []


def test_an_unchanged_file_is_not_read_again_and_a_changed_one_is(root, monkeypatch):
    os.utime(root / "data.csv", ns=(1, 1))
    assert statuses(root)["data.csv"] == "up to date"
    index = HashIndex(root / ".dvc/tmp/noria/hashes.db")
    path = str(root / "data.csv")
    print_ = Fingerprint.of((root / "data.csv").stat())
    index.record(path, print_, "0" * 32)
    index.flush()
    assert statuses(root)["data.csv"] == "modified"  # the index was asked, not the file
    (root / "data.csv").write_text("a,b\n1,3\n")
    os.utime(root / "data.csv", ns=(1, 1))  # same size and time of modification
    assert index.lookup({path: Fingerprint.of((root / "data.csv").stat())}) == {}


def test_a_file_written_just_now_is_not_trusted(tmp_path):
    (tmp_path / "x").write_text("1")
    index, print_ = HashIndex(tmp_path / "index"), Fingerprint.of((tmp_path / "x").stat())
    for age_ns, known in ((1_000_000, {}), (60_000_000, {str(tmp_path / "x"): "m"})):
        index.record(str(tmp_path / "x"), print_, "m", at_ns=max(print_.mtime_ns, print_.ctime_ns) + age_ns)
        index.flush()
        assert index.lookup({str(tmp_path / "x"): print_}) == known


def test_a_damaged_index_is_made_anew(root):
    (root / ".dvc/tmp/noria/hashes.db").write_bytes(b"not a database" * 1000)
    assert set(statuses(root).values()) == {"up to date"}
    assert set(statuses(root).values()) == {"up to date"}


def bad_paths(root: Path) -> dict[str, tuple[Path, type[Exception]]]:
    """What cannot be added: where it is, and the error."""
    (root / "loop").symlink_to("loop")
    (root / "broken").symlink_to("nothing")
    (root / "linked").symlink_to("folder")
    os.mkfifo(root / "pipe")
    (root / "holds").mkdir()
    (root / "holds/broken").symlink_to("nothing")
    (root / "has").mkdir()
    (root / "has/.dvcignore").touch()
    (root / "skipped.tmp").touch()
    (root / ".dvcignore").write_text("*.tmp\n")
    (root / "line\nbreak").touch()
    (root / ("n" * 254)).touch()
    (root / "taken").touch()
    (root / "taken.dvc").write_text((root / "data.csv.dvc").read_text().replace("data.csv", "other"))
    names = ["loop", "broken", "linked", "pipe", "holds", "has", "skipped.tmp", "line\nbreak", "n" * 254, "nothing",
             "../out", "data.csv.dvc", ".", ".dvc/config"]  # fmt: skip
    wrong: dict[str, tuple[Path, type[Exception]]] = {name: (root / name, InvalidInput) for name in names}
    return wrong | {
        "in a tracked folder": (root / "folder/x", Conflict),
        "above a tracked file": (root, InvalidInput),
        "taken": (root / "taken", AlreadyExists),
        "through a link": (root / "linked/x", InvalidInput),
    }


def test_what_cannot_be_added_is_refused_before_anything_changes(root):
    (root / "good").write_text("good")
    cases = bad_paths(root)
    (root.parent / "out").touch()
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.dvc")}
    for name, (path, kind) in cases.items():
        with pytest.raises(kind) as caught:
            data.add(opened(root), [root / "good", path])
        assert caught.value.remedy, name  # type: ignore[attr-defined]
    assert not (root / "good.dvc").exists()
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.dvc")} == before


def test_a_socket_is_no_data(root):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "folder/s"))
        with pytest.raises(InvalidInput, match="neither a file nor a folder"):
            data.add(opened(root), [root / "folder"])


def in_process(root: Path, code: str, **options: object) -> str:
    """Run ``code`` in a process of its own; what it raised."""
    script = (
        "import os\nfrom pathlib import Path\n"
        "from noria.data import dvc as data\nfrom noria.errors import NoriaError\n"
        f"root = Path({str(root)!r})\ntry:\n    {code}\nexcept NoriaError as error:\n    print(error.code, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120, **options
    )  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def test_a_file_that_cannot_be_read_is_named(root):
    (root / "folder/secret").write_text("s")
    (root / "folder/secret").chmod(0)
    if os.geteuid() == 0:  # whom nothing is forbidden
        for path in (root, *root.rglob("*")):
            os.chown(path, 65534, 65534, follow_symlinks=False)
        for parent in list(root.parents)[:-2]:
            parent.chmod(parent.stat().st_mode | 0o055)
        code = "os.setgid(65534); os.setuid(65534); data.add(data.open_repository(root), [root / 'folder'])"
    else:
        code = "data.add(data.open_repository(root), [root / 'folder'])"
    said = in_process(root, code)
    assert said.startswith("unavailable") and "secret" in said and "Permission denied" in said


def test_a_full_disk_leaves_the_old_version(root):
    old = (root / "data.csv.dvc").read_text()
    (root / "data.csv").write_bytes(os.urandom(3_000_000))

    def small() -> None:  # files of this process end at a megabyte, as they do on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    said = in_process(root, "data.add(data.open_repository(root), [root / 'data.csv'])", preexec_fn=small)
    assert said.startswith("unavailable") and "too large" in said
    assert (root / "data.csv.dvc").read_text() == old
    assert not list((root / ".dvc/tmp/noria/staging").iterdir())


def test_a_file_that_changes_while_it_is_added_is_refused(root):
    (root / "data.csv").write_bytes(b"x" * 50_000_000)
    code = "import sys\nf = open(sys.argv[1], 'r+b', 0)\nprint(flush=True)\nwhile f.write(b'x'): f.seek(0)"
    writer = subprocess.Popen([sys.executable, "-c", code, str(root / "data.csv")], stdout=subprocess.PIPE)
    try:
        assert writer.stdout is not None
        writer.stdout.readline()
        old = (root / "data.csv.dvc").read_text()
        with pytest.raises(Conflict, match="changed while it was added"):
            data.add(opened(root), [root / "data.csv"])
        assert (root / "data.csv.dvc").read_text() == old
    finally:
        writer.kill()
        writer.communicate()


def test_a_killed_add_leaves_the_old_version_whole(root):
    (root / "big").mkdir()
    for number in range(300):
        (root / "big" / str(number)).write_bytes(os.urandom(20_000))
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom noria.data import dvc as data\n"
        "def kill(text, done, of):\n    done == 100 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "root = Path(sys.argv[1])\ndata.add(data.open_repository(root), [root / 'big'], kill)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(root)], check=False, timeout=120)
    assert done.returncode == -9
    assert not (root / "big.dvc").exists()
    repository = opened(root)
    kept = [path for path in (root / ".dvc/cache/files").rglob("*") if path.is_file()]
    assert len(kept) >= 100
    assert repository.cache.intact([path.parent.name + path.name for path in kept])[1] == set()
    data.add(opened(root), [root / "big"])
    assert statuses(root)["big"] == "up to date"


def test_the_version_of_what_a_run_reads_is_that_of_its_content(root):
    repository = opened(root)
    recorded = {row.path.name: row.output.md5 for row in data.list_tracked(repository)}
    assert data.version_of(root / "data.csv") == recorded["data.csv"]
    assert data.version_of(root / "folder") == recorded["folder"]
    assert data.version_of(root / "folder/x") == "9dd4e461268c8034f5c8564e155c67a6"
    (root / "data.csv").write_text("other")
    assert data.version_of(root / "data.csv") == "795f3202b17cb6bc3d4b771d8c6c9eaf"
    (root / "untracked").touch()
    assert data.version_of(root / "untracked") is None
    assert data.version_of(root.parent) is None
    with pytest.raises(InvalidInput):
        data.version_of(root / "folder/gone")


def test_targets_may_be_paths_dvc_files_or_folders_above(root):
    (root / "deep/er").mkdir(parents=True)
    (root / "deep/er/file").write_text("1")
    data.add(opened(root), [root / "deep/er/file"])
    for target in ("deep", "deep/er/file", "deep/er/file.dvc"):
        assert [row.path.name for row in data.list_tracked(opened(root), [root / target])] == ["file"]
    for target, remedy in (("folder/x", "folder"), ("nothing", "noria data list")):
        with pytest.raises(NotFound) as caught:
            data.checkout(opened(root), [root / target])
        assert remedy in caught.value.remedy
    with pytest.raises(NotFound):
        data.open_repository(root.parent)


def git(root: Path, *words: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *words], cwd=root, check=True, capture_output=True)


def test_revisions_of_git_are_compared(tmp_path):
    root = tmp_path / "repository" / "project"
    (root / "parts").mkdir(parents=True)
    git(root.parent, "init")
    (root / "noria.toml").touch()
    for name in ("one", "two", "three"):
        (root / "parts" / name).write_text(f"content of {name}")
    data.add(data.open_or_make_repository(root), [root / "parts"])
    git(root, "add", ".")
    git(root, "commit", "-m", "first")
    (root / "parts/one").rename(root / "parts/uno")
    (root / "parts/two").write_text("2")
    (root / "parts/three").unlink()
    (root / "parts/four").write_text("4")
    expected = [
        ("added", "parts/four"),
        ("deleted", "parts/three"),
        ("modified", "parts/two"),
        ("renamed", "parts/uno"),
    ]
    in_workspace = data.diff(opened(root))
    assert [(change.kind, change.path) for change in in_workspace] == expected
    assert in_workspace[3].origin == "parts/one"
    assert [(c.before and c.before.size, c.after and c.after.size) for c in in_workspace[1:3]] == [(16, None), (14, 1)]
    data.add(opened(root), [root / "parts"])
    git(root, "commit", "-am", "second")
    assert data.diff(opened(root)) == []
    for sides in (("HEAD~1", "HEAD"), ("HEAD~1",)):
        assert [(change.kind, change.path) for change in data.diff(opened(root), *sides)] == expected
    with pytest.raises(NotFound, match="no-such"):
        data.diff(opened(root), "no-such")
    with pytest.raises(Conflict, match="tracked by git"):
        data.add(opened(root), [root / "noria.toml"])


def test_rows_of_tables_are_compared_by_key(root):
    before = pl.DataFrame({"day": ["a", "a", "b"], "id": [1, 2, 1], "x": [1.0, None, float("nan")], "gone": [1, 1, 1]})
    after = pl.DataFrame({"id": [1, 2, 3], "day": ["a", "a", "b"], "x": [1.5, None, 2.0], "new": ["", "", ""]})
    for suffix in ("csv", "parquet"):
        path = root / f"t.{suffix}"
        before.write_csv(path) if suffix == "csv" else before.write_parquet(path)
        data.add(opened(root), [path])
        after.write_csv(path) if suffix == "csv" else after.with_columns(pl.col("id").cast(pl.Int32)).write_parquet(
            path
        )
        (change,) = data.diff(opened(root), targets=[path], key=["day", "id"])
        assert change.table is not None and change.table.rows is not None
        rows = change.table.rows
        assert (rows.added, rows.removed, rows.changed) == (1, 1, 1)
        assert rows.changed_keys == ({"day": "a", "id": 1},)
        assert (change.table.columns_added, change.table.columns_removed) == (("new",), ("gone",))
        assert change.table.types_changed == ({} if suffix == "csv" else {"id": ("Int64", "Int32")})
        with pytest.raises(InvalidInput, match="'nope'"):
            data.diff(opened(root), targets=[path], key=["nope"])
        with pytest.raises(InvalidData, match="share their key"):
            data.diff(opened(root), targets=[path], key=["day"])
    (root / "t.parquet").write_bytes(b"no table")
    with pytest.raises(InvalidData, match=r"t\.parquet is no table"):
        data.diff(opened(root), targets=[root / "t.parquet"])


def test_a_table_that_became_empty_is_compared(root):
    (root / "data.csv").write_text("")
    (change,) = data.diff(opened(root), targets=[root / "data.csv"])
    assert change.table is not None
    assert (change.table.rows_before, change.table.rows_after, change.table.columns_removed) == (1, 0, ("a", "b"))
