"""What stands around a prediction: TLS, browsers, encodings, events, keys, limits, and faults of clients and disks."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import resource
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import pytest
import zstandard

from noria.errors import InvalidConfig
from noria.monitoring.log import find_prediction
from noria.surface.grpc import open_inference_pb2 as messages
from noria.surface.http.cross_origin import origins_of
from servers import free_port
from serving.pool import REQUEST, Pool
from support import noria, resident_megabytes

ORIGIN = "https://shop.test"
SETTINGS = {
    "NORIA_GATEWAY__CORS_ORIGINS": json.dumps([f"{ORIGIN}/"]),
    "NORIA_GATEWAY__LARGEST_BODY_MIB": "1",
    "NORIA_GATEWAY__LIMITS": json.dumps({"*": {"queue_rows": 50}}),
}


@pytest.fixture(scope="module")
def limited(trained: Path) -> Iterator[Pool]:
    """A gateway that takes at most 1 MiB and 50 rows at once."""
    pool = Pool(trained, "--port", "0", **SETTINGS)
    yield pool
    pool.stop()


@pytest.fixture(scope="module")
def client(limited: Pool) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{limited.port}") as found:
        yield found


def test_a_browser_is_answered_for_the_origins_named_and_no_other(client, trained):
    preflight = client.request("OPTIONS", "/predict", headers={"Origin": ORIGIN})
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in preflight.headers["access-control-allow-methods"]
    headers = {"Origin": ORIGIN, "access-control-request-headers": "authorization,content-type"}
    preflight = client.request("OPTIONS", "/predict", headers=headers)
    assert preflight.headers["access-control-allow-headers"] == "authorization,content-type"
    headers = {"Origin": ORIGIN, "access-control-request-method": "POST"}
    preflight = client.request("OPTIONS", "/no-such-path", headers=headers)  # so that the page sees the 404
    assert (preflight.status_code, preflight.headers["access-control-max-age"]) == (204, "600")
    for origin, allowed in [(ORIGIN, ORIGIN), ("https://other.test", None), (None, None)]:
        answer = client.post("/predict", json=REQUEST, headers={"Origin": origin} if origin else {})
        assert answer.headers["vary"] == "origin"
        assert (answer.status_code, answer.headers.get("access-control-allow-origin")) == (200, allowed)


@pytest.mark.parametrize(
    ("origin", "site", "status"),
    [
        ("https://other.test", "cross-site", 403),
        ("https://other.shop.test", "same-site", 403),
        (ORIGIN, "cross-site", 200),
        ("https://gateway.test", "same-origin", 200),
        ("https://other.test", None, 403),  # as browsers do over plain HTTP
        (ORIGIN, None, 200),
        ("of the gateway itself", None, 200),
        (None, None, 200),
    ],
)
def test_what_other_pages_have_browsers_send_unheard_is_refused(client, origin, site, status):
    origin = str(client.base_url).rstrip("/") if origin == "of the gateway itself" else origin
    said = {"Origin": origin, "Sec-Fetch-Site": site, "content-type": "text/plain"}  # which is sent without asking
    headers = {name: value for name, value in said.items() if value is not None}
    answers = [client.post("/predict", json=REQUEST, headers=headers)]
    answers.append(client.post("/rewards", json={"rewards": [{"value": 1, "unit_id": "u"}]}, headers=headers))
    assert [one.status_code for one in answers] == [status, status]
    assert client.get("/health", headers=headers).status_code == 200  # a link may lead there


def test_the_pages_that_may_call_are_written_as_people_write_addresses():
    pages = ["HTTPS://Shop.test:443/checkout", "http://[::1]:80/", "http://shop.test:8080", "*", "null"]
    assert origins_of(pages) == {"https://shop.test", "http://[::1]", "http://shop.test:8080", "*", "null"}
    for page in ("shop.test", "https://", "https://shop.test:99999", "https://*.shop.test", ""):
        with pytest.raises(InvalidConfig, match="is no origin"):
            origins_of([page])


@pytest.mark.parametrize("coding", ["gzip", "zstd", "deflate"])
def test_bodies_are_read_and_written_in_what_the_client_speaks(client, coding):
    content = json.dumps({"instances": [REQUEST] * 20}).encode()
    packed = {"gzip": gzip.compress, "zstd": zstandard.compress, "deflate": _deflate}[coding](content)
    accepted = "gzip" if coding == "deflate" else coding
    headers = {"content-encoding": coding, "accept-encoding": accepted}
    with client.stream("POST", "/predict", content=packed, headers=headers) as answer:
        raw = b"".join(answer.iter_raw())
    assert (answer.status_code, answer.headers["content-encoding"]) == (200, accepted)
    body = gzip.decompress(raw) if accepted == "gzip" else zstandard.ZstdDecompressor().decompressobj().decompress(raw)
    assert len(json.loads(body)["predictions"]) == 20


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_what_is_packed_in_several_streams_is_read_whole_or_not_at_all(client, coding):
    pack = {"gzip": gzip.compress, "zstd": zstandard.compress}[coding]
    content = json.dumps({"instances": [REQUEST] * 20}).encode()
    headers = {"content-encoding": coding}
    whole = client.post("/predict", content=pack(content[:300]) + pack(content[300:]), headers=headers)
    assert len(whole.json()["predictions"]) == 20
    if coding == "zstd":
        begun = zstandard.ZstdCompressor().compressobj()
        torn = begun.compress(json.dumps(REQUEST).encode()) + begun.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        refused = client.post("/predict", content=torn, headers=headers)
        assert refused.status_code == 400 and "no end" in refused.json()["detail"]


def test_an_encoding_of_no_weight_is_not_used(client):
    content = json.dumps({"instances": [REQUEST] * 20})
    for accepted, used in (
        ("gzip;q=0.0, zstd; q=0.000", None),
        ("gzip;q=0.5, zstd;q=0", "gzip"),
        ("gzip;q=0.01", "gzip"),
    ):
        answer = client.post("/predict", content=content, headers={"accept-encoding": accepted})
        assert answer.headers.get("content-encoding") == used, accepted


def test_an_offer_to_speak_another_protocol_is_passed_over(client, limited):
    body = json.dumps(REQUEST).encode()
    for offer in (
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
    ):
        head = b"POST /predict HTTP/1.1\r\nHost: a\r\n%sContent-Length: %d\r\n\r\n" % (offer, len(body))
        for sent in ([head + body], [head[:50], head[50:], body], [head, body[:9], body[9:]]):
            with socket.create_connection(("127.0.0.1", limited.port), timeout=10) as connection:
                for _ in range(2):  # the connection goes on
                    for part in sent:
                        connection.sendall(part)
                        time.sleep(0.01)
                    assert b" 200 OK" in connection.recv(65536)
    with socket.create_connection(("127.0.0.1", limited.port), timeout=10) as connection:
        connection.sendall(b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 400")


def test_a_head_without_end_is_refused(limited):
    with socket.create_connection(("127.0.0.1", limited.port), timeout=10) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nX: ")
        with contextlib.suppress(OSError):
            for _ in range(1000):
                connection.sendall(b"x" * 65536)
        answer = b""
        with contextlib.suppress(OSError):
            answer = connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 431") or answer == b""  # it may be lost where more was on its way
    with socket.create_connection(("127.0.0.1", limited.port), timeout=10) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 70_000)
        assert connection.recv(4096).startswith(b"HTTP/1.1 431")


def test_head_is_a_get_without_its_body(client):
    for path in ("/health", "/v2/models/demand/ready", "/v2/models/nope/ready", "/v2/models/demand/versions/77/ready"):
        got, asked = client.get(path), client.head(path)
        assert (asked.status_code, asked.content) == (got.status_code, b""), path
        assert asked.headers["content-length"] == got.headers["content-length"]


def _deflate(content: bytes) -> bytes:
    import zlib

    return zlib.compress(content)


def test_what_is_packed_badly_or_too_well_is_refused(client, limited):
    bomb = gzip.compress(b" " * 2**28)
    assert client.post("/predict", content=bomb, headers={"content-encoding": "gzip"}).status_code == 413
    for content, coding in [
        (b"nonsense", "gzip"),
        (b"nonsense", "zstd"),
        (gzip.compress(b"{}")[:-3], "gzip"),
        (b"{}", "br"),
    ]:
        answer = client.post("/predict", content=content, headers={"content-encoding": coding})
        assert answer.status_code == 400 and coding in answer.json()["detail"]
    assert resident_megabytes(limited.workers()[0] if limited.workers() else limited.process.pid) < 400


def test_events_are_answered_by_events_in_their_own_mode(client):
    attributes = {"specversion": "1.0", "id": "e-1", "source": "/shop", "type": "asked"}
    binary = client.post("/predict", json=REQUEST, headers={f"ce-{name}": value for name, value in attributes.items()})
    assert (binary.headers["ce-correlationid"], binary.headers["ce-specversion"]) == ("e-1", "1.0")
    assert "prediction" in binary.json()
    kind = {"content-type": "application/cloudevents+json"}
    structured = client.post("/predict", json=attributes | {"data": REQUEST}, headers=kind)
    assert structured.headers["content-type"] == kind["content-type"]
    assert structured.json()["correlationid"] == "e-1"
    assert structured.json()["data"]["prediction"] == binary.json()["prediction"]
    packed = base64.b64encode(json.dumps(REQUEST).encode()).decode()
    assert (
        "prediction" in client.post("/predict", json=attributes | {"data_base64": packed}, headers=kind).json()["data"]
    )
    tensors = {
        "inputs": [{"name": name, "shape": [1], "datatype": "FP64", "data": [4.0]} for name in ("hour", "weekday")]
    }
    tensors["inputs"].append({"name": "shop", "shape": [1], "datatype": "BYTES", "data": ["north"]})
    for said in (client.post("/v2/models/demand/infer", json=attributes | {"data": tensors}, headers=kind),):
        assert said.json()["data"]["outputs"][0]["shape"] == [1], said.text
    binary = {f"ce-{name}": value for name, value in attributes.items()}
    assert client.post("/v2/models/demand/infer", json=tensors, headers=binary).headers["ce-correlationid"] == "e-1"
    late = client.post("/predict", json=attributes | {"data": REQUEST}, headers=kind | {"timeout": "1us"})
    assert late.status_code == 504
    rows = "hour,weekday,shop\n4,5,north\n4,5,north\n"
    table = attributes | {"datacontenttype": "text/csv", "data": rows}
    assert len(client.post("/invocations", json=table, headers=kind).json()["data"]["predictions"]) == 2
    for event in ({**attributes, "id": ""}, {**attributes, "specversion": "0.3", "data": {}}, attributes, [1]):
        refused = client.post("/predict", json=event, headers=kind)
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_input")


def test_a_batch_of_events_is_answered_by_one_with_each_that_fails_told_in_its_place(client):
    kind = {"content-type": "application/cloudevents-batch+json"}
    event = {"specversion": "1.0", "source": "/shop", "type": "asked", "data": REQUEST}
    bad = [event | {"id": "b", "data": {"features": {}}}, event, {"id": 7}, 5]
    answer = client.post("/predict", json=[event | {"id": "a"}, *bad, event | {"id": "c"}], headers=kind)
    assert (answer.status_code, answer.headers["content-type"]) == (200, kind["content-type"])
    found = answer.json()
    assert [one.get("correlationid") for one in found] == ["a", "b", None, "7", None, "c"]
    assert [one["type"].removeprefix("org.noria.") for one in found] == ["prediction", *["error"] * 4, "prediction"]
    assert found[0]["data"]["prediction"] == found[5]["data"]["prediction"]
    assert [one["data"]["code"] for one in found[1:5]] == ["invalid_input"] * 4
    assert "the event lacks id" in found[2]["data"]["detail"]
    assert client.post("/predict", json=[], headers=kind).json() == []
    for refused in (bad, {}, [5]):
        answer = client.post("/predict", json=refused, headers=kind)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_input")
    assert client.post("/models/none/predict", json=[event | {"id": "a"}], headers=kind).status_code == 404


def test_more_rows_than_may_wait_are_refused_with_a_time_to_come_back(client):
    body = {"instances": [REQUEST] * 50}

    def ask(_number: int) -> list[httpx.Response]:
        with httpx.Client(base_url=client.base_url) as own:
            return [own.post("/predict", json=body) for _ in range(20)]

    with ThreadPoolExecutor(8) as threads:
        answers = [answer for several in threads.map(ask, range(8)) for answer in several]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert 0 < len(refused) < len(answers) and {answer.status_code for answer in answers} == {200, 429}
    assert all(answer.headers["retry-after"] and answer.json()["code"] == "overloaded" for answer in refused)
    assert client.post("/predict", json={"instances": [REQUEST] * 51}).status_code == 200  # and nothing is left behind


def test_a_client_that_has_no_time_is_told_so(client):
    assert client.post("/predict", json=REQUEST, headers={"timeout": "5"}).status_code == 200
    late = client.post("/predict", json=REQUEST, headers={"timeout": "1us"})
    assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
    for bad in ("1_0", "soon", "-1", "0", "nan"):
        assert client.post("/predict", json=REQUEST, headers={"timeout": bad}).status_code == 400


def test_a_gigabyte_is_refused_before_it_is_read(client, limited):
    with socket.create_connection(("127.0.0.1", limited.port), timeout=20) as raw:
        raw.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 1073741824\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 413")
    sent = 0

    def gigabyte() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(1024):
            sent += 2**20
            yield b" " * 2**20

    with contextlib.suppress(httpx.WriteError, httpx.ReadError):  # it may hang up before its answer is read
        assert client.post("/predict", content=gigabyte()).status_code == 413
    assert sent < 2**27
    assert client.post("/predict", json=REQUEST).status_code == 200


@pytest.mark.parametrize("length", [b"content-length: 16000000", b"transfer-encoding: chunked"])
def test_who_reads_only_after_sending_all_of_what_is_too_much_is_told_so(limited, length):
    body = b"f42400\r\n" * (b"chunked" in length) + b" " * 16_000_000
    with socket.create_connection(("127.0.0.1", limited.port), timeout=20) as raw:
        raw.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\n" + length + b"\r\n\r\n" + body)  # as proxies do
        assert raw.makefile("rb").read().startswith(b"HTTP/1.1 413")


def test_clients_that_never_finish_keep_nobody_else_waiting(client, limited):
    halves = []
    for number in range(300):
        half = socket.create_connection(("127.0.0.1", limited.port))
        if number % 3:
            half.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\n" + b"content-length: 100\r\n\r\n{" * (number % 2))
        halves.append(half)
    started = time.monotonic()
    assert {client.post("/predict", json=REQUEST).status_code for _ in range(50)} == {200}
    assert time.monotonic() - started < 20
    for half in halves:
        half.close()
    assert client.post("/predict", json=REQUEST).status_code == 200


def test_a_key_is_wanted_by_every_front_once_there_is_one(project):
    pool = Pool(project, "--port", "0", grpc_port=free_port())
    made = json.loads(noria("deploy", "keys", "add", "demand", "--name", "ann", "--json", cwd=project).stdout)
    key, key_id = made[0]["key"], made[0]["key_id"]
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{pool.port}") as client,
        grpc.insecure_channel(f"127.0.0.1:{pool.grpc_port}") as channel,
    ):
        asked = {"json": REQUEST}
        _eventually(lambda: client.post("/predict", **asked).status_code == 401)
        for path in ("/predict", "/predict/batch", "/models/demand/predict", "/v2/models/demand/infer", "/invocations"):
            refused = client.post(path, json=REQUEST if path.endswith("predict") else {"instances": [], "inputs": []})
            assert refused.status_code == 401, path
        for headers in ({"x-api-key": key}, {"authorization": f"Bearer {key}"}, {"authorization": f"bearer {key}"}):
            assert client.post("/predict", **asked, headers=headers).status_code == 200
        event = {"specversion": "1.0", "id": "e", "source": "/s", "type": "t", "data": REQUEST}
        kind = {"content-type": "application/cloudevents+json", "x-api-key": key}
        assert client.post("/predict", json=event, headers=kind).status_code == 200
        for path in ("/model/info", "/openapi.json"):
            assert client.get(path).status_code == 401 and client.get(path, headers={"x-api-key": key}).is_success
        assert client.get("/model/info").headers["www-authenticate"] == "Bearer"
        described = client.get("/openapi.json", headers={"x-api-key": key}).json()
        assert described["paths"]["/predict"]["post"]["security"] == [{"key": []}, {"token": []}]
        assert set(described["components"]["securitySchemes"]) == {"key", "token"}
        assert client.post("/predict", **asked, headers={"x-api-key": key[:-1]}).status_code == 401
        infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=messages.ModelInferRequest.SerializeToString,
            response_deserializer=messages.ModelInferResponse.FromString,
        )
        request = messages.ModelInferRequest(model_name="demand")
        with pytest.raises(grpc.RpcError) as refused:
            infer(request)
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
        is_ready = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelReady",
            request_serializer=messages.ModelReadyRequest.SerializeToString,
            response_deserializer=messages.ModelReadyResponse.FromString,
        )
        with pytest.raises(grpc.RpcError) as refused:
            is_ready(messages.ModelReadyRequest(name="demand"))
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert is_ready(messages.ModelReadyRequest(name="demand"), metadata=[("x-api-key", key)]).ready
        for sent in (("x-api-key", key), ("authorization", f"Bearer {key}"), ("authorization", f"bearer {key}")):
            with pytest.raises(grpc.RpcError) as refused:  # let in, and then told that nothing was asked
                infer(request, metadata=[sent])
            assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT, sent
        noria("deploy", "keys", "revoke", key_id, cwd=project)
        _eventually(lambda: client.post("/predict", **asked, headers={"x-api-key": key}).status_code == 401)
        noria("deploy", "keys", "drop", "demand", "--yes", cwd=project)
        noria("audit", "verify", cwd=project)
        _eventually(lambda: client.post("/predict", **asked).status_code == 200)
    pool.stop()


def test_a_full_disk_costs_the_log_and_no_answer(project):
    pool = Pool(project, "--port", "0")
    with httpx.Client(base_url=f"http://127.0.0.1:{pool.port}") as client:
        assert client.post("/predict", json=REQUEST).status_code == 200
        unlimited = resource.RLIM_INFINITY
        resource.prlimit(pool.process.pid, resource.RLIMIT_FSIZE, (4096, unlimited))  # no file grows beyond one page
        assert {client.post("/predict", json=REQUEST).status_code for _ in range(200)} == {200}
        _eventually(lambda: client.get("/health").json()["status"] == "degraded")
        assert _metric(client, "model_predictions_not_logged_total") > 0
        resource.prlimit(pool.process.pid, resource.RLIMIT_FSIZE, (unlimited, unlimited))
        assert client.post("/predict", json=REQUEST | {"prediction_id": "after"}).status_code == 200
        _eventually(lambda: client.get("/health").json()["status"] == "healthy")
        assert find_prediction(project / ".noria/predictions", "after") is not None
    pool.stop()


def test_a_locked_database_and_a_gone_control_plane_hold_up_nobody(project):
    database = sqlite3.connect(project / ".noria/noria.db", isolation_level=None)
    database.execute("BEGIN EXCLUSIVE")
    pool = Pool(project, "--port", "0")
    with httpx.Client(base_url=f"http://127.0.0.1:{pool.port}") as client:
        assert {client.post("/predict", json=REQUEST).status_code for _ in range(50)} == {200}
        database.execute("ROLLBACK")
        database.close()
        for file in (project / ".noria").glob("noria.db*"):
            file.unlink()
        assert {client.post("/predict", json=REQUEST).status_code for _ in range(50)} == {200}
    pool.stop()


def _metric(client: httpx.Client, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def _eventually(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not check():
        assert time.monotonic() < deadline, "it did not happen in 15 seconds"
        time.sleep(0.05)
