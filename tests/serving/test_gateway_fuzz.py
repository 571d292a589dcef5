"""Whatever is sent to a gateway: the protocol's own error shape, no 500, and the next client is served."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noria.surface.grpc import open_inference_pb2 as messages
from servers import free_port
from serving.pool import REQUEST, Pool

JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=12),
        st.sampled_from(["hour", "weekday", "shop", "north", "FP64", "BYTES", "\x00", "é" * 400, "2026-02-27"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=12,
)  # fmt: skip
FIELDS = {
    "/predict": ("features", "entities", "prediction_id", "event_time", "unit_id", "instances"),
    "/predict/batch": ("features", "instances", "prediction_id", "event_time", "unit_id"),
    "/labels": ("labels",),
    "/rewards": ("rewards",),
    "/invocations": ("dataframe_split", "dataframe_records", "instances", "inputs", "params"),
    "/v2/models/demand/infer": ("inputs", "outputs", "id", "parameters"),
}
"""Path → the fields of its body."""
TENSOR = st.fixed_dictionaries(
    {},
    optional={
        "name": st.one_of(JSON, st.sampled_from(["input", "hour"])),
        "shape": st.one_of(JSON, st.lists(st.integers(-3, 2**62), max_size=4)),
        "datatype": st.one_of(JSON, st.sampled_from(["FP64", "BYTES", "BOOL", "INT8", "FP16", "UINT64"])),
        "data": JSON,
        "parameters": st.one_of(JSON, st.just({"binary_data_size": 8})),
    },
)
ROW = st.fixed_dictionaries(
    {},
    optional={
        "features": st.one_of(JSON, st.just(REQUEST["features"])),
        "entities": st.one_of(JSON, st.just(REQUEST["entities"])),
        "event_time": JSON,
        "prediction_id": JSON,
        "value": JSON,
        "label": JSON,
    },
)
BYTES = [b"[" * 10**5, b'{"a":' * 10**4, b"NaN", b'{"features":NaN}', b"hour,weekday\n1,2\n", b"\xef\xbb\xbf{}"]
HEADERS = [
    "content-type",
    "content-encoding",
    "inference-header-content-length",
    "timeout",
    "accept-encoding",
    "ce-specversion",
]
VALUES = [
    "application/json",
    "text/csv",
    "application/cloudevents+json",
    "gzip",
    "zstd",
    "5",
    "-1",
    "1e400",
    "1.0",
    "\xff",
    "",
]
FUZZ = settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def pool(trained: Path) -> Iterator[Pool]:
    found = Pool(trained, "--port", "0", grpc_port=free_port())
    yield found
    assert not [said for said in found.said if said == "request_failed"]
    found.stop()


@pytest.fixture(scope="module")
def client(pool: Pool) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{pool.port}") as found:
        yield found


@pytest.fixture(scope="module")
def infer(pool: Pool) -> Iterator[Any]:
    """The call of gRPC."""
    with grpc.insecure_channel(f"127.0.0.1:{pool.grpc_port}") as channel:
        yield channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=messages.ModelInferRequest.SerializeToString,
            response_deserializer=messages.ModelInferResponse.FromString,
        )


def check(path: str, answer: httpx.Response) -> None:
    """A good answer, or a refusal in the shape of the path's protocol."""
    if answer.status_code < 300:
        json.loads(answer.content)
        return
    assert answer.status_code in (400, 404, 413, 422, 429), answer.text
    keys = {"/invocations": {"error_code", "message"}}.get(path, {"error"} if path.startswith("/v2") else {"detail"})
    assert keys <= set(answer.json()), answer.text


@pytest.mark.parametrize("path", FIELDS)
@FUZZ
@given(data=st.data())
def test_no_json_breaks_an_endpoint(client, path, data):
    values = st.one_of(JSON, st.lists(st.one_of(ROW, TENSOR), max_size=3))
    body = data.draw(st.one_of(st.dictionaries(st.sampled_from(FIELDS[path]), values, max_size=3), JSON, ROW))
    check(path, client.post(path, content=json.dumps(body), headers={"content-type": "application/json"}))
    assert client.post("/predict", json=REQUEST).status_code == 200


@pytest.mark.parametrize("path", FIELDS)
@FUZZ
@given(
    content=st.one_of(st.binary(max_size=200), st.sampled_from(BYTES)),
    headers=st.dictionaries(st.sampled_from(HEADERS), st.sampled_from(VALUES)),
)
def test_no_bytes_break_an_endpoint(client, path, content, headers):
    raw = {name: value.encode("latin-1") for name, value in headers.items()}
    answer = client.post(path, content=content, headers=raw)
    if answer.status_code != 504:  # a timeout of no seconds at all
        check(path, answer)


@FUZZ
@given(
    model=st.one_of(st.just("demand"), st.text(max_size=10)),
    tensors=st.lists(
        st.tuples(
            st.sampled_from(["input", "hour", "", "weekday"]),
            st.sampled_from(["FP64", "BYTES", "INT64", "FP16", "nothing"]),
            st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
            st.lists(st.floats(), max_size=4),
            st.lists(st.binary(max_size=8), max_size=2),
        ),
        max_size=3,
    ),
    raw=st.lists(st.binary(max_size=16), max_size=3),
)
def test_no_message_breaks_grpc(infer, model, tensors, raw):
    request = messages.ModelInferRequest(model_name=model, raw_input_contents=raw)
    for name, datatype, shape, numbers, texts in tensors:
        contents = messages.InferTensorContents(fp64_contents=numbers, bytes_contents=texts)
        request.inputs.add(name=name, datatype=datatype, shape=shape, contents=contents)
    try:
        infer(request, timeout=10)
    except grpc.RpcError as error:
        assert error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND), error


def test_a_gateway_keeps_to_the_description_it_gives_of_itself(pool):
    schemathesis.checks.load_all_checks()
    names = "not_a_server_error", "response_schema_conformance", "content_type_conformance", "status_code_conformance"
    checks = [schemathesis.checks.CHECKS.get_one(name) for name in names]
    described = schemathesis.openapi.from_url(f"http://127.0.0.1:{pool.port}/openapi.json")

    operations = [found.ok() for found in described.get_all_operations()]
    assert len(operations) >= 8
    for operation in operations:

        @settings(max_examples=40, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def keeps_to_it(case):
            case.call_and_validate(checks=checks)

        keeps_to_it()
