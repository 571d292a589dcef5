"""The Python and command-line clients, and the load generator, against a gateway process."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import polars as pl
import pytest

from noria.client import PredictionClient
from noria.client.address import Address
from noria.client.load import NEVER_DUE
from noria.client.rows import encoded, listed
from noria.errors import Conflict, DeadlineExceeded, Forbidden, InvalidInput, NotFound, Unavailable
from noria.monitoring.log import LABELS, REWARDS, LabelRecord, RewardRecord, read_predictions, read_records
from serving.gateway_world import REQUEST, World, new_world
from support import noria

AT = datetime(2013, 3, 1, 12, 30, tzinfo=UTC)
ENTITIES = {"carrier": "UA", "origin": "EWR"}
FEATURES = {"distance": 700, "hour": 17.5}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, str]]:
    world = new_world(tmp_path_factory.mktemp("gateway"))
    world.deploy(1, world.add_model(1))
    with world.gateway() as url:
        yield world, url


@pytest.fixture
def client(gateway: tuple[World, str]) -> Iterator[PredictionClient]:
    with PredictionClient(gateway[1], deployment="flights") as made:
        yield made


@contextmanager
def answering(answers: Sequence[bytes], asked: list[bytes] | None = None) -> Iterator[str]:
    """A server that gives one answer a connection, and hangs up; what it was asked is added to ``asked``."""

    def answer_each(server: socket.socket) -> None:
        for answer in answers:
            with server.accept()[0] as connection:
                request = connection.recv(65536)
                if asked is not None:
                    asked.append(request)
                connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer_each, args=(server,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join(10)


def test_one_row_and_many_are_answered_alike(client):
    one = client.predict(FEATURES, entities=ENTITIES, event_time=AT, prediction_id="a")
    listed = client.predict([700, 17.5], entities=ENTITIES, event_time=AT)
    many = client.predict_many([{"features": FEATURES, "entities": ENTITIES, "event_time": AT}] * 3)
    assert (one.prediction_id, one.model_version, one.variant) == ("a", "1", "champion")
    assert {answer.score for answer in (one, listed, *many)} == {one.score}
    assert 0.5 <= one.probability <= 1 and one.confidence == "very_high"


def test_tensors_go_there_and_back_as_bytes(client):
    row = np.array([[700, 17.5, 0.2, 7.5, 11.0]] * 2)
    found = client.infer({"input": row})
    assert {name: len(tensor) for name, tensor in found.items()} == dict.fromkeys(found, 2)
    score = client.predict(FEATURES, entities=ENTITIES, event_time=AT).score
    assert any(
        np.allclose(tensor.reshape(2, -1)[0, -1], score) for tensor in found.values() if tensor.dtype.kind == "f"
    )


def test_outcomes_reach_the_log(gateway, client):
    answer = client.predict(FEATURES, entities=ENTITIES, event_time=AT, unit_id="u")
    client.label(answer.prediction_id, 1, event_time=AT)
    client.reward(2.5, prediction_id=answer.prediction_id, metric="revenue")
    log = gateway[0].settings.prediction_log
    assert answer.prediction_id in {record.prediction_id for record in read_predictions(log)}
    assert answer.prediction_id in {record.prediction_id for record in read_records(log, LABELS, LabelRecord)}
    assert (2.5, "revenue") in {(record.value, record.metric) for record in read_records(log, REWARDS, RewardRecord)}


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (np.str_("north"), "north"),
        (np.bool_(True), True),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
        (np.array([1.5, 2.5]), [1.5, 2.5]),
        (np.datetime64("2026-01-02T03:04:05"), "2026-01-02T03:04:05"),
        (np.datetime64("NaT"), None),
        (pd.Timestamp("2026-01-02 03:04:05", tz="UTC"), "2026-01-02T03:04:05+00:00"),
        (pd.NaT, None),
        (pd.NA, None),
        (float("nan"), None),
    ],
    ids=repr,
)
def test_values_of_numpy_and_pandas_are_sent_as_jsons_own(value, sent):
    assert json.loads(encoded({"x": value})) == {"x": sent}


@pytest.mark.parametrize(
    ("row", "place"),
    [
        ({"features": {"hour": float("inf")}}, "features.hour"),
        ({"features": [1, None, float("-inf")]}, r"features\[3\]"),
        ({"x": np.float32("inf")}, "x"),
        ({"x": np.array([1.0, np.inf])}, r"x\[2\]"),
        ({"instances": [{"a": pd.NA}, {"a": np.float64("-inf")}]}, r"instances\[2\].a"),
    ],
    ids=repr,
)
def test_an_infinite_number_is_not_sent_as_a_missing_one(row, place):
    with pytest.raises(InvalidInput, match=f"^{place} is infinite"):
        encoded(row)


def test_a_data_frame_is_rows(client):
    rows = [{"distance": 700, "hour": 17.5}, {"distance": 90, "hour": 3.0}]
    for frame in (pd.DataFrame(rows), pl.DataFrame(rows, strict=False)):
        assert listed(frame) == [{"features": row} for row in rows]
        with pytest.raises(InvalidInput, match="entity key"):  # of the features nothing is wrong
            client.predict_many(frame)
    turned = pd.DataFrame(rows)[["hour", "distance"]].iloc[0]
    one, other = (client.predict(row, entities=ENTITIES, event_time=AT) for row in (turned, FEATURES))
    assert one.score == other.score


@pytest.mark.parametrize("rows", [{"features": FEATURES}, "text", 3, [[700, 17.5]]])
def test_what_is_no_rows_is_told_before_it_is_sent(rows):
    with PredictionClient("http://127.0.0.1:1") as client, pytest.raises(InvalidInput, match="a list of mappings"):
        client.predict_many(rows)


def test_lists_are_tensors_too(client):
    row = [[700, 17.5, 0.2, 7.5, 11.0]]
    expected = client.infer({"input": np.array(row)})
    found = client.infer({"input": row})
    assert all((found[name] == expected[name]).all() for name in expected)


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        ([[1.0], [1.0, 2.0]], "no tensor"),
        ([1.0, None], "of float cannot be sent"),
        (np.array(["2026-01-02"], "M8[s]"), "of datetime64"),
    ],
)
def test_what_is_no_tensor_is_told_by_its_name(client, tensor, words):
    with pytest.raises(InvalidInput, match=f"'hour'.*{words}"):
        client.infer({"hour": tensor})


@pytest.mark.parametrize("page", [b"<html>Sign in</html>", b"", b"[]", b"{}", b"\xff"])
def test_an_answer_that_is_no_gateways_is_told_with_the_address(page):
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(page), page)
    with answering([answer] * 3) as url, PredictionClient(url, deployment="flights") as client:
        asked = [
            ("/models/flights/predict", lambda: client.predict(FEATURES)),
            ("/models/flights/predict/batch", lambda: client.predict_many([{"features": FEATURES}])),
            ("/v2/models/flights/infer", lambda: client.infer({"hour": [1.0]})),
        ]
        for path, ask in asked:
            with pytest.raises(Unavailable, match="none of a gateway's") as refused:
                ask()
            assert f"{url}{path}" in refused.value.message
            assert repr(page.decode(errors="replace")) in refused.value.message


def test_a_closed_client_asks_nothing(gateway):
    with PredictionClient(gateway[1], deployment="flights") as client:
        client.info()
    for ask in (client.info, lambda: client.predict(FEATURES), lambda: client.infer({"input": [1.0]})):
        with pytest.raises(Conflict, match="the client is closed"):
            ask()


def test_what_speaks_no_http_is_told_without_what_a_terminal_would_obey():
    with (
        answering([b"\x00\x1b[2J\r\n"]) as url,
        PredictionClient(url) as client,
        pytest.raises(Unavailable, match="none of a gateway's") as refused,
    ):
        client.info()
    assert "\\x1b" in refused.value.message and "\x1b" not in refused.value.message


def test_an_answer_that_drips_is_not_waited_for_longer_than_allowed():
    def drip(server: socket.socket) -> None:
        with server.accept()[0] as connection, contextlib.suppress(OSError):  # it hangs up in the middle
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n")
            for _ in range(100):
                connection.sendall(b" ")
                time.sleep(0.05)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=drip, args=(server,), daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with PredictionClient(url, timeout_seconds=0.3) as client, pytest.raises(DeadlineExceeded):
            client.info()


@pytest.mark.parametrize("framing", ["content-length: 100", "transfer-encoding: chunked"])
def test_an_answer_that_ends_in_the_middle_is_none(framing):
    cut = f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n5\r\n{{}}".encode()
    with answering([cut]) as url, PredictionClient(url) as client, pytest.raises(Unavailable):
        client.info()


@pytest.mark.parametrize(("status", "kind"), [("502 Bad Gateway", Unavailable), ("403 Forbidden", Forbidden)])
def test_a_proxys_refusals_are_the_errors_they_mean(status, kind):
    page = b"<html>no</html>"
    answer = f"HTTP/1.1 {status}\r\ncontent-length: {len(page)}\r\n\r\n".encode() + page
    with answering([answer]) as url, PredictionClient(url) as client, pytest.raises(kind, match="<html>no</html>"):
        client.predict(FEATURES)


def test_a_proxy_may_have_the_gateway_below_a_path_and_where_there_is_none_that_is_told():
    asked, nothing = [], b'{"detail":"Not Found"}'
    answer = f"HTTP/1.1 404 Not Found\r\ncontent-length: {len(nothing)}\r\n\r\n".encode() + nothing
    refused = pytest.raises(NotFound, match="a gateway is asked, http://HOST:8000 by default")
    with answering([answer], asked) as url, PredictionClient(f"{url}/our ml/", deployment="d") as client, refused:
        client.predict(FEATURES)
    assert asked[0].startswith(b"POST /our%20ml/models/d/predict HTTP/1.1\r\n")


def test_refusals_are_the_errors_they_are(gateway, client):
    with pytest.raises(InvalidInput, match="not a number") as refused:
        client.predict({"distance": "far", "hour": 1}, entities=ENTITIES)
    assert refused.value.remedy
    with pytest.raises(InvalidInput) as refused:
        client.predict_many([{"features": FEATURES}, {"features": FEATURES, "entities": ENTITIES}])
    assert refused.value.details
    with pytest.raises(InvalidInput, match="no JSON"):
        client.predict({"distance": object()})
    with PredictionClient(gateway[1], deployment="trains") as other, pytest.raises(NotFound, match="trains"):
        other.predict(FEATURES)
    with PredictionClient("http://127.0.0.1:1") as nobody, pytest.raises(Unavailable, match="does not answer"):
        nobody.predict(FEATURES)
    ignored = ("http://me:pw@host", "http://host?x=1", "http://host#x")
    for url in ("127.0.0.1:8000", "ftp://host", "http://host:x", *ignored):
        with pytest.raises(InvalidInput, match="names no gateway"):
            PredictionClient(url)


@pytest.mark.parametrize("key", ["a\nb", "k\u00e9y\u20ac", "k\u00e9y", "a\x00b"])
def test_a_key_that_no_header_carries_is_told_and_not_shown(tmp_path, key):
    with pytest.raises(InvalidInput, match="API key") as refused:
        PredictionClient("http://127.0.0.1:1", key=key)
    assert key not in str(refused.value)
    for words in (("predict", "rows", "{}", "--url"), ("bench", "serve", "--body", "b.jsonl")):
        (tmp_path / "b.jsonl").write_text("{}\n")
        done = noria(*words, "http://127.0.0.1:1", cwd=tmp_path, check=False, NORIA_API_KEY=key.replace("\x00", "\n"))
        assert done.returncode == 2 and "API key" in done.stderr and "Traceback" not in done.stderr


def test_a_key_is_sent_without_the_line_end_of_its_file():
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with server.accept()[0] as connection:
                asked.append(connection.recv(65536))
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with PredictionClient(f"http://127.0.0.1:{server.getsockname()[1]}", key="secret \r\n") as client:
            client.info()
        thread.join(10)
    assert b"x-api-key: secret\r\n" in asked[0]


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan"), 1e12])
def test_a_time_to_wait_that_is_none_is_told(seconds):
    with pytest.raises(InvalidInput, match="no time to wait"):
        PredictionClient("http://127.0.0.1:1", timeout_seconds=seconds)
    with pytest.raises(InvalidInput, match="retries=-1"):
        PredictionClient("http://127.0.0.1:1", retries=-1)


def test_who_does_not_answer_in_time_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with (
            PredictionClient(url, timeout_seconds=0.2) as client,
            pytest.raises(DeadlineExceeded, match="no answer"),
        ):
            client.predict(FEATURES)


def test_a_busy_gateway_is_asked_again_and_a_closed_connection_replaced():
    answers = [
        b"HTTP/1.1 503 x\r\ncontent-length: 0\r\nretry-after: 1\r\n\r\n",
        b'HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{"a":1}',
        b'HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{"a":2}',
    ]

    with answering(answers) as url, PredictionClient(url) as client:
        assert [client.info(), client.info()] == [{"a": 1}, {"a": 2}]


class _Eager(PredictionClient):
    """Asks over a connection the moment that it is kept, as another thread may."""

    asked = False

    def _keep(self, connection):
        super()._keep(connection)
        if not self.asked:
            self.asked = True
            assert self.info()


def test_a_connection_is_kept_when_its_answer_is_over(gateway):
    with _Eager(gateway[1], deployment="flights") as client:
        assert client.info() and client.asked


def test_threads_share_a_client(client):
    found: list[float | None] = []

    def ask() -> None:
        found.extend(client.predict(FEATURES, entities=ENTITIES, event_time=AT).score for _ in range(50))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 400 and len(set(found)) == 1


def test_the_command_line_asks_about_rows(gateway, tmp_path):
    row = ["--url", gateway[1], "--entity", "carrier=UA", "--entity", "origin=EWR", "--json"]
    whole = json.dumps({"features": FEATURES, "event_time": REQUEST["event_time"], "prediction_id": "mine"})
    (found,) = json.loads(noria("predict", "rows", whole, *row, cwd=tmp_path).stdout)
    assert (found["prediction_id"], found["model_version"]) == ("mine", "1")
    assert (
        len(json.loads(noria("predict", "rows", whole, whole.replace("mine", "other"), *row, cwd=tmp_path).stdout)) == 2
    )
    for bad, words in [("{", "row 1 is no JSON"), ("3", "neither an object nor a list"), ('{"x": 1}', "distance")]:
        done = noria("predict", "rows", bad, *row, cwd=tmp_path, check=False)
        assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
    for words, said in [([whole, "--entity", "carrier=AA"], "given twice"), (['{"hour": 1e999}'], "infinite")]:
        done = noria("predict", "rows", *words, *row, cwd=tmp_path, check=False)
        assert done.returncode == 2 and said in done.stderr


def test_an_address_of_ipv6_is_shown_as_it_is_written():
    assert str(Address.of("http://[::1]:24710")) == "http://[::1]:24710"


def test_load_is_put_on_and_measured(gateway, tmp_path):
    world, url = gateway
    bodies = tmp_path / "bodies.jsonl"
    bodies.write_text("".join(json.dumps(REQUEST | {"unit_id": f"load-{n}"}) + "\n" for n in range(5)))
    common = ["bench", "serve", url, "--body", str(bodies), "--seconds", "1", "--warmup", "0.2", "--json"]
    free = json.loads(noria(*common, "--connections", "4", cwd=tmp_path).stdout)
    assert free["requests"] > 100 and free["faults"] == {}
    assert free["milliseconds"]["p50"] <= free["milliseconds"]["p99"] <= free["milliseconds"]["p100"]
    steady = json.loads(noria(*common, "--rate", "50", cwd=tmp_path).stdout)
    assert 35 <= steady["requests"] <= 65
    logged = [record for record in read_predictions(world.settings.prediction_log) if record.unit.startswith("load")]
    assert len(logged) >= free["requests"] + steady["requests"]


def test_load_that_is_refused_is_told(gateway, tmp_path):
    common = ["bench", "serve", gateway[1], "--seconds", "0.3", "--warmup", "0", "--json"]
    (tmp_path / "none.jsonl").write_text("{}\n")
    done = noria(*common, "--body", str(tmp_path / "none.jsonl"), "--rate", "0.1", cwd=tmp_path, check=False)
    assert done.returncode == 1 and json.loads(done.stdout)["faults"] == {NEVER_DUE: 1}
    done = noria(*common, cwd=tmp_path, check=False)
    assert done.returncode == 2 and "takes entity keys (carrier, origin)" in done.stderr
    bodies = tmp_path / "bodies.jsonl"
    bodies.write_text('{"features": {}}\n')
    done = noria(*common, "--body", str(bodies), cwd=tmp_path, check=False)
    measured = json.loads(done.stdout)
    assert done.returncode == 1 and set(measured["faults"]) == {"HTTP 400"}
    assert "'distance' is missing" in measured["said"]["HTTP 400"]
    bodies.write_text("{\n")
    done = noria(*common, "--body", str(bodies), cwd=tmp_path, check=False)
    assert done.returncode == 2 and "bodies.jsonl:1 is no JSON" in done.stderr


_FORKING = """
import os, sys
from datetime import datetime, UTC
from noria.client import PredictionClient

client = PredictionClient(sys.argv[1], deployment="flights")
row = {"features": [700, 17.5], "entities": {"carrier": "UA", "origin": "EWR"}}
row["event_time"] = datetime(2013, 3, 1, 12, 30, tzinfo=UTC)
client.predict(**row)

def others(who):
    asked = [f"{who}-{number}" for number in range(30)]
    return [one for one in asked if client.predict(**row, prediction_id=one).prediction_id != one]

children = []
for who in range(3):
    children.append(os.fork())
    if not children[-1]:
        os._exit(len(others(who)))
print(len(others("parent")), [os.waitstatus_to_exitcode(os.waitpid(one, 0)[1]) for one in children])
"""


def test_processes_forked_from_one_with_a_client_get_their_own_answers(gateway):
    done = subprocess.run(
        [sys.executable, "-c", _FORKING, gateway[1]], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr == ""
    assert done.stdout == "0 [0, 0, 0]\n"
