"""One contract for every online store: SQLite, LMDB, and real Redis and PostgreSQL servers."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.errors import InvalidConfig, MissingExtra, Unavailable
from noria.store import KeyValueStore, open_keyvalue
from noria.store.stamps import pack_stamp, unpack_stamp

ENGINES = ["sqlite", "lmdb", "redis", "postgresql"]
instants = st.integers(-(2**63), 2**63 - 1)


@pytest.fixture(scope="module", params=ENGINES)
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param == "redis":
        return str(request.getfixturevalue("redis_server").url)
    if request.param == "postgresql":
        return str(request.getfixturevalue("new_database_url")("postgresql"))
    return f"{request.param}:///{tmp_path_factory.mktemp('online')}/store"


@pytest.fixture
def store(url: str, tmp_path: Path) -> Iterator[KeyValueStore]:
    opened = open_keyvalue(url, tmp_path)
    opened.delete(b"")
    yield opened
    opened.close()


def row(event: int, content: str = "", created: int = 0) -> bytes:
    return pack_stamp(event, created) + content.encode()


def test_rows_are_found_by_key_in_the_order_asked(store):
    assert store.put_newer([(b"b", row(1, "b")), (b"a\x00\xff", row(1, "a"))]) == 2
    assert store.get_many([b"a\x00\xff", b"c", b"b", b"b"]) == [row(1, "a"), None, row(1, "b"), row(1, "b")]
    assert store.get_many([]) == []
    assert store.put_newer([]) == 0


def test_a_row_replaces_only_one_whose_stamp_is_not_greater(store):
    store.put_newer([(b"k", row(5, "first", 7))])
    assert store.put_newer([(b"k", row(4, "older", 9))]) == 0
    assert store.put_newer([(b"k", row(5, "known earlier", 6))]) == 0
    assert store.put_newer([(b"k", row(5, "corrected", 7))]) == 1
    assert store.get_many([b"k"]) == [row(5, "corrected", 7)]
    assert store.put_newer([(b"k", row(-5, "before 1970"))]) == 0
    assert store.put_newer([(b"k", row(6, "newer"))]) == 1
    assert store.get_many([b"k"]) == [row(6, "newer")]


def test_of_entries_with_one_key_the_last_of_the_newest_counts(store):
    store.put_newer([(b"k", row(2, "a")), (b"k", row(3, "b")), (b"k", row(3, "c")), (b"k", row(1, "d"))])
    assert store.get_many([b"k"]) == [row(3, "c")]


@settings(max_examples=40)
@given(st.lists(st.tuples(instants, instants), min_size=1, max_size=6))
def test_whatever_the_order_of_writing_the_greatest_stamp_stays(url, tmp_path_factory, stamps):
    store = open_keyvalue(url, tmp_path_factory.getbasetemp())
    store.delete(b"")
    for event, created in stamps:
        store.put_newer([(b"k", pack_stamp(event, created))])
    assert [unpack_stamp(value) for value in store.get_many([b"k"])] == [max(stamps)]
    store.close()


def test_a_view_is_deleted_by_the_beginning_of_its_keys_and_no_other_is(store):
    ours, others = [b"v*\x00%d" % i for i in range(2500)], [b"v", b"v*", b"v*\x01", b"va\x00", b"w\xff\xff"]
    store.put_newer((key, row(1)) for key in ours + others)
    assert store.delete(b"v*\x00") == len(ours)
    assert store.get_many([ours[0], ours[-1]]) == [None, None]
    assert store.get_many(others) == [row(1)] * len(others)
    assert store.delete(b"v*\x00") == 0
    assert store.delete(b"w\xff\xff") == 1
    assert store.delete(b"") == len(others) - 1


def test_more_keys_than_a_statement_takes_are_read_and_written_at_once(store):
    keys = [b"%d" % number for number in range(70_000)]
    assert store.put_newer((key, row(1, "x")) for key in keys) == len(keys)
    assert store.get_many(keys) == [row(1, "x")] * len(keys)


def test_keys_and_values_of_any_length_a_store_promises_are_kept(store):
    store.put_newer([(b"k" * 511, row(1)), (b"k" * 510, row(2, "x" * 1_000_000))])
    assert store.get_many([b"k" * 511, b"k" * 510]) == [row(1), row(2, "x" * 1_000_000)]


def test_a_batch_that_fails_half_way_leaves_nothing(store):
    def entries():
        yield b"a", row(1)
        yield from ((b"%d" % number, row(1)) for number in range(2000))
        raise RuntimeError("source ended")

    with pytest.raises(RuntimeError):
        store.put_newer(entries())
    assert store.get_many([b"a", b"7"]) == [None, None]


def test_what_another_handle_writes_or_deletes_is_seen_at_once(url, store, tmp_path):
    other = open_keyvalue(url, tmp_path)
    for event in range(1, 20):
        other.put_newer([(b"a", row(event)), (b"b", row(event))])
        assert store.get_many([b"a", b"b", b"c"]) == [row(event), row(event), None]
        assert store.get_many([b"b", b"c"]) == [row(event), None]
        store.update([b"c"], lambda values: [values[0] or row(0)])
        assert (store.get_many([b"c"]), other.get_many([b"c", b"a"])) == ([row(0)], [row(0), row(event)])
        other.delete(b"c")
    other.close()


def test_rows_that_were_read_do_not_fill_the_memory(store):
    keys = [b"%d" % number for number in range(80)]
    store.put_newer((key, row(1, "x" * 1_000_000)) for key in keys)
    tracemalloc.start()
    lengths = [len(value) for key in keys for value in store.get_many([key]) if value is not None]
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert lengths == [len(row(1)) + 1_000_000] * 80
    assert kept < 30_000_000


def test_threads_share_a_handle(store):
    def write(thread: int) -> list[bytes | None]:
        keys = [b"%d-%d" % (thread, number) for number in range(200)]
        store.put_newer((key, row(thread)) for key in keys)
        return store.get_many(keys)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(write, range(8))) == [[row(thread)] * 200 for thread in range(8)]


def test_updates_by_several_handles_lose_nothing(url, tmp_path):
    def add(_handle: int) -> None:
        store = open_keyvalue(url, tmp_path)
        for _ in range(25):
            store.update([b"a", b"b"], lambda values: [(value or row(0)) + b"+" for value in values])
        store.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(4)))
    store = open_keyvalue(url, tmp_path)
    assert store.get_many([b"a", b"b"]) == [row(0) + b"+" * 100] * 2
    store.delete(b"")
    store.close()


def test_an_update_that_fails_changes_nothing(store):
    store.put_newer([(b"a", row(1))])
    with pytest.raises(ZeroDivisionError):
        store.update([b"a"], lambda _values: [1 // 0])
    assert store.get_many([b"a"]) == [row(1)]


WRITER = """
import sys
from pathlib import Path
from noria.store import open_keyvalue
from noria.store.stamps import pack_stamp
url, parity = sys.argv[1], int(sys.argv[2])
store = open_keyvalue(url, Path())
print("ready", flush=True)
sys.stdin.readline()
for event in range(parity, 300, 2):  # both write all keys, in turn newer and older than the other
    keys = [b"%d" % number for number in range(20)]
    store.put_newer([(key, pack_stamp(event, 0) + b"%d" % event) for key in (keys if parity else keys[::-1])])
"""


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def test_two_processes_that_write_at_once_lose_no_newer_row_and_readers_see_whole_batches(url, store):
    writers = [start(WRITER, url, str(parity)) for parity in (0, 1)]
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    keys, seen = [b"%d" % number for number in range(20)], []
    while any(writer.poll() is None for writer in writers):
        store.get_many(keys[len(seen) % 20 :])  # some of them, which a store may keep
        found = store.get_many(keys)
        assert len(set(found)) == 1, "a batch was seen half written"
        seen.append(found[0])
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    assert store.get_many(keys) == [row(299, "299")] * 20
    events = [unpack_stamp(value)[0] for value in seen if value is not None]
    assert all(before <= after for before, after in pairwise(events))


@pytest.mark.parametrize("engine", ["sqlite", "lmdb"])
def test_many_processes_may_open_a_new_store_at_once(engine, tmp_path):
    code = WRITER.split("print")[0] + "store.put_newer([(sys.argv[2].encode(), pack_stamp(1, 1))])"
    opened = f"{engine}:///{tmp_path}/new"
    writers = [subprocess.Popen([sys.executable, "-c", code, opened, str(number)]) for number in range(4)]
    assert [writer.wait() for writer in writers] == [0] * 4
    assert None not in open_keyvalue(opened, tmp_path).get_many([b"0", b"1", b"2", b"3"])


def test_one_process_opens_an_lmdb_folder_twice(tmp_path):
    one, other = (open_keyvalue("lmdb:///store", tmp_path) for _ in range(2))
    one.put_newer([(b"k", row(1))])
    one.close()
    assert other.get_many([b"k"]) == [row(1)]
    other.close()


FILLED = """
import resource, signal, sys
from pathlib import Path
from noria.errors import Unavailable
from noria.store import open_keyvalue
from noria.store.stamps import pack_stamp
store = open_keyvalue(sys.argv[1], Path())
store.put_newer([(b"k", pack_stamp(1, 1) + b"old")])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))  # as a disk that is full
try:
    store.put_newer([(b"k", pack_stamp(2, 2))] + [(b"%d" % n, pack_stamp(1, 1) + bytes(5000)) for n in range(2000)])
except Unavailable as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
assert store.get_many([b"k", b"7"]) == [pack_stamp(1, 1) + b"old", None]
"""


@pytest.mark.parametrize("engine", ["sqlite", "lmdb"])
def test_a_disk_that_takes_no_more_is_told_and_what_was_stored_stays(engine, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FILLED, f"{engine}:///{tmp_path}/full"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "full cannot be written" in done.stdout and "Check the disk's space" in done.stdout


def test_a_redis_without_memory_is_told_and_what_was_stored_stays(redis_server, tmp_path):
    import redis

    store, admin = open_keyvalue(redis_server.url, tmp_path), redis.Redis.from_url(redis_server.url)
    store.put_newer([(b"k", row(1, "old"))])
    admin.config_set("maxmemory", "1")
    try:
        with pytest.raises(Unavailable, match="memory"):
            store.put_newer([(b"k", row(2)), (b"l", row(2))])
    finally:
        admin.config_set("maxmemory", "0")
    assert store.get_many([b"k", b"l"]) == [row(1, "old"), None]
    store.close()
    admin.close()


def test_a_redis_that_is_gone_is_told_and_used_again_once_it_is_back(redis_server, tmp_path):
    store = open_keyvalue(redis_server.url.replace("redis://", "redis://:secret@"), tmp_path)
    store.put_newer([(b"k", row(1))])
    redis_server.stop()
    try:
        assert_told_without_secret(store)
        with pytest.raises(Unavailable, match=r"cannot be written[^$]*Check that Redis runs"):
            store.put_newer([(b"k", row(1))])
    finally:
        redis_server.start()
    assert store.put_newer([(b"k", row(2))]) == 1
    assert store.get_many([b"k"]) == [row(2)]
    redis_server.stop()
    redis_server.start()  # nobody asked in between: the connection kept is dead, and nobody needs to know
    assert store.get_many([b"k"]) == [None]
    store.close()


def assert_told_without_secret(store: KeyValueStore) -> None:
    with pytest.raises(Unavailable) as refused:
        store.get_many([b"k"])
    assert "secret" not in str(refused.value)


def test_a_connection_postgresql_cut_is_made_again(new_database_url, tmp_path):
    import psycopg

    url = new_database_url("postgresql")
    store = open_keyvalue(url, tmp_path)
    store.put_newer([(b"k", row(1))])
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                      "AND pid <> pg_backend_pid()")  # fmt: skip
    assert store.get_many([b"k"]) == [row(1)]
    store.close()


def test_a_postgresql_that_is_not_there_is_told_without_its_password(tmp_path):
    from servers import free_port

    store = open_keyvalue(f"postgresql://noria:secret@127.0.0.1:{free_port()}/noria", tmp_path)
    assert_told_without_secret(store)


@pytest.mark.parametrize("engine", ["sqlite", "lmdb"])
def test_a_damaged_file_is_told(engine, tmp_path):
    path = tmp_path / "store"
    (path if engine == "sqlite" else path.mkdir() or path / "data.mdb").write_bytes(b"no database" * 1000)
    with pytest.raises(Unavailable, match="store cannot be opened"):
        open_keyvalue(f"{engine}:///{path}", tmp_path)


def test_nothing_said_is_a_sqlite_file_in_the_folder(tmp_path):
    store = open_keyvalue("", tmp_path / "online")
    store.put_newer([(b"k", row(1))])
    assert store.path == tmp_path / "online" / "features.db" and store.path.exists()


@pytest.mark.parametrize("engine", ["sqlite", "lmdb"])
def test_who_only_reads_makes_no_store(engine, tmp_path):
    url = f"{engine}:///{tmp_path}/online/store"
    with pytest.raises(Unavailable, match="is not there"):
        open_keyvalue(url, tmp_path, create=False)
    assert list(tmp_path.iterdir()) == []
    written = open_keyvalue(url, tmp_path)
    written.put_newer([(b"k", row(1))])
    read = open_keyvalue(url, tmp_path, create=False)
    assert read.get_many([b"k"]) == [row(1)]
    read.close()
    written.close()


@pytest.mark.parametrize(
    "bad", ["mongodb://host/0", "features.db", "sqlite://", "lmdb:///", "redis://", "redis://h:x/0"]
)
def test_what_is_no_store_is_refused_with_what_is_one(bad, tmp_path):
    with pytest.raises(InvalidConfig, match="redis://HOST:PORT/0"):
        open_keyvalue(bad, tmp_path)


@pytest.mark.parametrize(
    ("url_", "package"), [("lmdb:///x", "lmdb"), ("redis://h", "redis"), ("postgresql://h", "psycopg")]
)
def test_a_package_that_is_not_installed_is_named_with_its_extra(url_, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=r"pip install 'noria\[(lmdb|redis|postgres)\]'"):
        open_keyvalue(url_, tmp_path)


def test_an_immutable_file_is_read_where_nothing_can_be_written(tmp_path):
    original = open_keyvalue(f"sqlite:///{tmp_path}/online.db", tmp_path)
    original.put_newer([(b"view-a", row(1, "a")), (b"other", row(1, "b")), (b"view-b", row(1, "c"))])
    for number in range(2):
        original.copy([b"view"], tmp_path / f"{number}/copy.db")
    original.close()
    assert (tmp_path / "0/copy.db").read_bytes() == (tmp_path / "1/copy.db").read_bytes()
    copied = open_keyvalue(f"sqlite:///{tmp_path}/0/copy.db?immutable=1", tmp_path)
    assert copied.get_many([b"view-a", b"other", b"view-b"]) == [row(1, "a"), None, row(1, "c")]
    with pytest.raises(Unavailable, match="written"):
        copied.put_newer([(b"view-a", row(2, "d"))])
    copied.close()
    assert [path.name for path in (tmp_path / "0").iterdir()] == ["copy.db"]
