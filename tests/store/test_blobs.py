"""One contract for every place of artifacts: a folder, and a real S3 server."""

from __future__ import annotations

import asyncio
import hashlib
import urllib.request
from datetime import timedelta

import pytest

from noria.errors import CorruptArtifact, InvalidInput, NotFound, NotServed, Unavailable
from noria.store.blobs import open_blobs


@pytest.fixture(params=["folder", "s3"])
def blobs(request, tmp_path, monkeypatch):
    url = ""
    if request.param == "s3":
        for name, value in request.getfixturevalue("s3_environment").items():
            monkeypatch.setenv(name, value)
        url = f"s3://noria/{tmp_path.name}"
    return open_blobs(url, folder=tmp_path / "artifacts", cache=tmp_path / "cache")


async def pieces(*contents, then=None):
    for content in contents:
        yield content
    if then is not None:
        raise then


def test_what_is_written_is_read(blobs):
    blobs.write("a/b/c.txt", b"one")
    blobs.write("a/b/c.txt", b"two")
    assert blobs.read("a/b/c.txt") == blobs.read("a//b/./c.txt") == b"two"
    size, content = blobs.stream("a/b/c.txt")
    assert (size, b"".join(content)) == (3, b"two")
    assert blobs.read("a/b/c.txt", sha256=hashlib.sha256(b"two").hexdigest()) == b"two"
    with pytest.raises(CorruptArtifact):
        blobs.read("a/b/c.txt", sha256=hashlib.sha256(b"one").hexdigest())


def test_what_arrives_in_pieces_appears_whole_or_not_at_all(blobs):
    big = bytes(range(256)) * 40_000
    asyncio.run(blobs.receive("big", pieces(big, b"end")))
    assert blobs.read("big") == big + b"end"
    with pytest.raises(ConnectionError):
        asyncio.run(blobs.receive("half", pieces(big, then=ConnectionError("client is gone"))))
    with pytest.raises(ConnectionError):
        asyncio.run(blobs.receive("big", pieces(b"x", then=ConnectionError("client is gone"))))
    assert blobs.read("big") == big + b"end"
    assert [entry.key for entry in blobs.entries("")] == ["big"]


def test_files_are_listed_at_any_depth_with_a_tag_that_tells_of_changes(blobs):
    for key in ("m/MLmodel", "m/data/x", "m2/z"):
        blobs.write(key, b"12")
    before = blobs.files("m")
    assert [(file.key, file.size) for file in before] == [("m/MLmodel", 2), ("m/data/x", 2)]
    assert blobs.files("m/MLmodel") == before[:1] and blobs.files("nothing") == []
    blobs.write("m/data/x", b"34")
    assert blobs.files("m")[0] == before[0] and blobs.files("m")[1].tag != before[1].tag


def test_a_local_file_is_taken_in_and_read_from_any_position(blobs, tmp_path):
    local = tmp_path / "local"
    local.write_bytes(bytes(range(256)) * 40_000)
    blobs.take("a/b", local)
    assert not local.exists()
    with blobs.open("a/b") as file:
        file.seek(-3, 2)
        assert (file.tell(), file.read()) == (10_239_997, b"\xfd\xfe\xff")
        file.seek(257)
        assert file.read(2) == b"\x01\x02"
    with pytest.raises(NotFound):
        blobs.open("a/c")


def test_a_folder_lists_what_is_directly_below_it(blobs):
    for key in ("m/MLmodel", "m/data/x", "m/data/y", "m2/z"):
        blobs.write(key, b"12")
    assert [(e.key, e.size) for e in blobs.entries("m")] == [("m/MLmodel", 2), ("m/data", None)]
    assert blobs.entries("nothing") == blobs.entries("m/MLmodel/x") == []


def test_deleting_removes_a_file_or_a_folder_and_no_namesake(blobs):
    for key in ("m/a", "m/b/c", "m2/z"):
        blobs.write(key, b"1")
    blobs.delete("m/a")
    blobs.delete("m")
    for gone in ("m/a", "m/b/c"):
        with pytest.raises(NotFound):
            blobs.read(gone)
    assert blobs.read("m2/z") == b"1"
    with pytest.raises(NotFound):
        blobs.delete("m/b/c")


def test_a_folder_goes_in_and_comes_out(blobs, tmp_path):
    source = tmp_path / "source"
    (source / "data").mkdir(parents=True)
    (source / "MLmodel").write_text("x")
    (source / "data" / "w").write_bytes(b"\0\1")
    blobs.write("models/1/stale", b"old")
    blobs.put_folder("models/1", source)
    found = blobs.fetch("models/1")
    assert sorted(p.relative_to(found).as_posix() for p in found.rglob("*") if p.is_file()) == ["MLmodel", "data/w"]
    assert blobs.fetch("models/1/data/w").read_bytes() == b"\0\1"
    blobs.write("models/1/MLmodel", b"changed")
    assert (blobs.fetch("models/1") / "MLmodel").read_text() == "changed"


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/passwd", "a\0b", "a\\..\\b", "n" * 300])
def test_keys_that_leave_the_root_are_refused_everywhere(blobs, key):
    for call in (
        lambda: blobs.write(key, b""),
        lambda: blobs.read(key),
        lambda: blobs.entries(key),
        lambda: blobs.delete(key),
        lambda: blobs.fetch(key),
        lambda: asyncio.run(blobs.receive(key, pieces(b""))),
    ):
        with pytest.raises(InvalidInput):
            call()


def test_what_is_not_there_is_said(blobs):
    for call in (blobs.read, blobs.stream, blobs.fetch, blobs.delete):
        with pytest.raises(NotFound):
            call("no/such")


def test_an_object_has_an_address_and_a_file_has_none(blobs, tmp_path):
    blobs.write("signed", b"content")
    if (tmp_path / "artifacts").exists():
        with pytest.raises(NotServed):
            blobs.sign("signed", "GET", valid=timedelta(minutes=1))
    else:
        with urllib.request.urlopen(blobs.sign("signed", "GET", valid=timedelta(minutes=1))) as answer:
            assert answer.read() == b"content"


def test_a_folder_link_does_not_lead_out(tmp_path):
    blobs = open_blobs("", folder=tmp_path / "artifacts", cache=tmp_path)
    blobs.write("a", b"")
    (tmp_path / "artifacts" / "out").symlink_to("/etc")
    with pytest.raises(InvalidInput):
        blobs.read("out/passwd")


@pytest.mark.parametrize("url", ["ftp://x/y", "hdfs://x"])
def test_an_unknown_scheme_says_which_there_are(url, tmp_path):
    with pytest.raises(InvalidInput, match="s3"):
        open_blobs(url, folder=tmp_path, cache=tmp_path)


def test_a_store_that_is_gone_says_so(tmp_path, monkeypatch, s3_environment):
    for name, value in s3_environment.items():
        monkeypatch.setenv(name, value)
    blobs = open_blobs("s3://no-such-bucket/x", folder=tmp_path, cache=tmp_path)
    with pytest.raises((Unavailable, NotFound)):
        blobs.read("x")
