"""Tensors over HTTP and gRPC: what is taken, in which type it is answered, and what is refused rather than altered."""

from __future__ import annotations

import json
from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from noria.surface.grpc import open_inference_pb2 as messages
from surface.tensor_world import Asked, asked_in, request


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    with asked_in(tmp_path_factory.mktemp("tensors")) as found:
        yield found


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("INT64", [None, 2]),
        ("INT64", [1.5, 2.9]),
        ("INT64", [None, 1.5]),
        ("INT64", [1e30]),
        ("INT64", [2**63]),
        ("INT8", [300]),
        ("INT8", [None, 300]),
        ("FP64", [1.7]),
        ("FP64", [1e30]),
        ("FP64", [2.0**63]),
        ("FP64", [None]),
        ("UINT64", [2**64 - 1]),
        ("BOOL", [2]),
    ],
)
def test_what_is_no_integer_is_refused_and_not_cut_to_one(asked, datatype, data):
    answer = asked.infer("square", datatype, data)
    assert (answer.status_code, "'x'" in answer.json()["error"]) == (400, True), answer.text


@pytest.mark.parametrize(
    ("datatype", "data", "squares"),
    [
        ("INT64", [3, -4], [9, 16]),
        ("INT64", [3.0, 4], [9, 16]),
        ("INT64", [2**31 + 1, 1.0], [(2**31 + 1) ** 2, 1]),
        ("INT8", [-128], [16384]),
        ("UINT64", [7], [49]),
        ("FP64", [3.0, -0.0], [9, 0]),
        ("FP32", [3.0], [9]),
        ("BOOL", [True, False], [1, 0]),
        ("INT64", [], []),
    ],
)
def test_values_that_an_integer_has_are_taken_in_any_datatype(asked, datatype, data, squares):
    assert asked.infer("square", datatype, data).json()["outputs"][0]["data"] == squares


def test_truth_values_and_texts_are_those_sent_or_refused(asked):
    assert asked.infer("flag", "BOOL", [True, 0]).json()["outputs"][0]["data"] == [True, False]
    assert asked.infer("word", "BYTES", ["a", ""]).json()["outputs"][0]["data"] == ["a", ""]
    for model, datatype, data in [("flag", "BOOL", [2]), ("flag", "INT8", [-1]), ("word", "BYTES", ["a", None])]:
        assert asked.infer(model, datatype, data).status_code == 400, data


@pytest.mark.parametrize(
    ("model", "values"),
    [
        ("square", ["7"]),
        ("square", [1, "7"]),
        ("square", [1.5]),
        ("square", [None]),
        ("square", [2**80]),
        ("square", [[1], [2, 3]]),
        ("square", None),
        ("flag", ["false"]),
        ("flag", [1, "false"]),
        ("flag", [None]),
        ("flag", [2]),
        ("half", ["1.5"]),
        ("half", [70000]),
        ("word", [None]),
        ("word", [5]),
        ("word", ["a", ["x"]]),
    ],
)
def test_invocations_refuse_what_is_of_another_type(asked, model, values):
    answer = asked.invoke(model, values)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), answer.text


def test_invocations_take_each_type_as_it_is(asked):
    sent = {"square": [3, 4.0], "flag": [True, False, 1], "word": ["a", ""], "half": [1.5, None, 2]}
    found = {model: asked.invoke(model, values).json()["predictions"] for model, values in sent.items()}
    assert found == {"square": [9, 16], "flag": [True, False, True], "word": ["a", ""], "half": [1.5, None, 2.0]}


@pytest.mark.parametrize(
    "rows",
    [
        {"dataframe_split": {"columns": ["b", "beside", "a"], "data": [[2, 0, 1], [4, 0, 3]]}},
        {"dataframe_records": [{"b": 2, "a": 1}, {"a": 3, "b": 4}]},
        {"instances": [{"b": 2, "a": 1}, {"a": 3, "b": 4}]},
        {"inputs": {"b": [2, 4], "a": [1, 3]}},
        {"inputs": [[1, 2], [3, 4]]},
        {"inputs": {"x": [[1, 2], [3, 4]]}},
    ],
)
def test_a_graph_that_was_logged_with_columns_takes_them_by_name_and_answers_by_name(asked, rows):
    answer = asked.http.post("/models/named/invocations", json=rows)
    assert answer.json() == {"predictions": {"y": [[1, 4], [9, 16]]}}


def test_a_column_that_a_graph_was_logged_with_and_that_is_missing_is_named(asked):
    rows = {"dataframe_split": {"columns": ["a", "c"], "data": [[1, 2]]}}
    answer = asked.http.post("/models/named/invocations", json=rows)
    assert answer.status_code == 400 and "columns are missing: b" in answer.text


def test_grpc_refuses_what_is_no_integer(asked):
    for datatype, contents in [
        ("FP64", {"fp64_contents": [float("nan")]}),
        ("FP64", {"fp64_contents": [1.7]}),
        ("UINT64", {"uint64_contents": [2**64 - 1]}),
        ("INT8", {"int_contents": [300]}),
    ]:
        with pytest.raises(grpc.RpcError) as refused:
            asked.call(request("square", datatype, **contents))
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT, contents
    answer = asked.call(request("square", "FP64", fp64_contents=[3.0]))
    assert (list(answer.outputs[0].contents.int64_contents), answer.model_name) == ([9], "square")


def test_half_floats_are_answered_raw_for_they_have_no_typed_contents(asked):
    answer = asked.call(request("half", "FP32", fp32_contents=[1.5, -2.0]))
    assert np.frombuffer(answer.raw_output_contents[0], dtype=np.float16).tolist() == [1.5, -2.0]
    assert answer.outputs[0].datatype == "FP16"
    sent = request("half", "FP32", fp32_contents=[1]), request("square", "INT64", int64_contents=[3])
    half, square = asked.stream(*sent)
    assert (half.error_message, half.infer_response.id) == ("", "half")
    assert list(square.infer_response.outputs[0].contents.int64_contents) == [9]


def test_a_stream_outlives_a_request_that_nobody_foresaw(asked):
    broken, square = asked.stream(*(request(name, "INT64", int64_contents=[3]) for name in ("broken", "square")))
    assert "the gateway failed at this request" in broken.error_message
    assert broken.infer_response.id == "broken"
    assert list(square.infer_response.outputs[0].contents.int64_contents) == [9]


def test_a_model_goes_by_the_name_it_is_asked_for_by(asked):
    for name in ("square", "registered-square"):
        assert asked.http.get(f"/v2/models/{name}").json()["name"] == name
        assert asked.infer(name, "INT64", [3]).json()["model_name"] == name
    found = asked.rpc.unary_unary(
        "/inference.GRPCInferenceService/ModelMetadata",
        request_serializer=messages.ModelMetadataRequest.SerializeToString,
        response_deserializer=messages.ModelMetadataResponse.FromString,
    )
    for name in ("square", "registered-square"):
        assert found(messages.ModelMetadataRequest(name=name)).name == name


def test_what_is_said_of_an_output_goes_before_what_is_said_of_all(asked):
    everything = {"binary_data_output": True}
    for wanted, is_json in [({"binary_data": False}, True), ({"binary_data": True}, False), ({}, False), (None, False)]:
        outputs = [{"name": "y", "parameters": wanted}]
        answer = asked.infer("square", "INT64", [3], outputs=outputs, parameters=everything)
        assert (answer.headers["content-type"] == "application/json") is is_json, wanted
    assert asked.infer("square", "INT64", [3], outputs=[{"name": "y"}]).json()["outputs"][0]["data"] == [9]


def test_null_is_as_good_as_absent(asked):
    assert asked.infer("square", "INT64", [3], id=None, parameters=None, outputs=None).json()["id"] == ""
    named = {"prediction_id": "mine", "unit_id": None, "event_time": None, "timeout": None}
    answer = asked.infer("square", "INT64", [3], parameters=named)
    assert answer.json()["parameters"]["prediction_id"] == "mine"
    tensor = {"name": "x", "datatype": "INT64", "shape": [1], "data": [3], "parameters": None}
    assert asked.http.post("/v2/models/square/infer", json={"inputs": [tensor]}).status_code == 200


def test_an_input_sent_twice_is_refused(asked):
    tensor = {"name": "x", "datatype": "INT64", "shape": [1], "data": [3]}
    answer = asked.http.post("/v2/models/square/infer", json={"inputs": [tensor, tensor | {"data": [4]}]})
    assert (answer.status_code, "twice" in answer.json()["error"]) == (400, True)
    twice = request("square", "INT64", int64_contents=[3])
    twice.inputs.append(twice.inputs[0])
    with pytest.raises(grpc.RpcError, match="twice"):
        asked.call(twice)


@pytest.mark.parametrize("datatype", ["FP64", "FP32", "INT64"])
def test_data_is_flat_or_nested_as_its_shape(asked, datatype):
    flat, square, column = [[1, 2], [3]], [[1, 2, 3], [4]], [[[1]]]
    for data, shape in [(flat, [3]), (flat, [2]), (square, [2, 2]), (column, [1, 1]), ([[1]], [1]), ([1, [2]], [2])]:
        answer = asked.infer("square", datatype, data, shape)
        assert (answer.status_code, "expected [-1]" in answer.json()["error"]) == (400, False), answer.text
    fits = asked.infer("square", datatype, [[1, 2], [3, 4]], [2, 2])  # and is refused for what it is
    assert "has shape [2, 2], expected [-1]" in fits.json()["error"]
    assert "not nested" in asked.infer("word", "BYTES", [["a", "b"], "cd"], [2, 2]).json()["error"]


@pytest.mark.parametrize("shape", [[1] * 65, [0, 2**62, 2**62], [0, 2**70], [2**41], [-1]])
def test_a_shape_that_no_array_has_is_refused(asked, shape):
    for data in ([], [3]):
        answer = asked.infer("square", "INT64", data, shape)
        assert answer.status_code == 400, answer.text


@pytest.mark.parametrize("length", ["²", "9" * 5000, "-5", "1_0", "5.0", "99999"])
def test_a_header_length_that_is_none_is_refused(asked, length):
    headers = {"inference-header-content-length": length.encode("latin-1")}
    answer = asked.http.post("/v2/models/square/infer", content=b'{"inputs": []}', headers=headers)
    assert answer.status_code == 400, answer.text


@pytest.mark.parametrize("model", ["records", "texts"])
def test_a_batch_without_rows_has_no_answers(asked, model):
    answer = asked.http.post(f"/models/{model}/predict/batch", json={"features": []})
    assert (answer.status_code, answer.json().get("predictions")) == (200, []), answer.text


def test_what_takes_tensors_alone_is_described_without_the_paths_of_rows(asked):
    paths = asked.http.get("/openapi.json").json()["paths"]
    assert {"/models/records/predict", "/models/square/invocations", "/v2/models/square/infer"} <= set(paths)
    assert not {"/models/square/predict", "/models/square/predict/batch"} & set(paths)


def test_records_are_answered_as_json(asked):
    tensor = {"name": "input", "datatype": "FP64", "shape": [1, 2], "data": [1, 2]}
    answer = asked.http.post("/v2/models/records/infer", json={"inputs": [tensor]}).json()
    assert json.loads(answer["outputs"][0]["data"][0]) == {"sum": 3.0, "ok": True, "none": None}


def test_infinite_numbers_are_refused_of_columns_which_json_has_none_of(asked):
    for rows in ([[1.0, float("inf")]], [[1.0, 2.0], [-float("inf"), 1.0]]):
        content = np.array(rows).tobytes()
        tensor = {"name": "input", "datatype": "FP64", "shape": [len(rows), 2]}
        head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": len(content)}}]}).encode()
        headers = {"inference-header-content-length": str(len(head))}
        refused = asked.http.post("/v2/models/records/infer", content=head + content, headers=headers)
        assert refused.status_code == 400 and "is infinite in row" in refused.text


SHARED = {"shared_memory_region": "r", "shared_memory_byte_size": 8}


@pytest.mark.parametrize(
    ("input_parameters", "output_parameters", "named"),
    [
        (SHARED, {}, "input 'x' has parameter 'shared_memory_byte_size'"),
        ({}, SHARED, "output 'y' has parameter 'shared_memory_byte_size'"),
        ({}, {"shared_memory_offset": 0}, "output 'y' has parameter 'shared_memory_offset'"),
        ({}, {"classification": 2}, "output 'y' has parameter 'classification'"),
    ],
)
def test_shared_memory_and_classification_are_refused_by_name(asked, input_parameters, output_parameters, named):
    tensor = {"name": "x", "datatype": "INT64", "shape": [1], "data": [3], "parameters": input_parameters}
    document = {"inputs": [tensor], "outputs": [{"name": "y", "parameters": output_parameters}]}
    answer = asked.http.post("/v2/models/square/infer", json=document)
    assert (answer.status_code, named in answer.json()["error"]) == (400, True), answer.text
    sent = request("square", "INT64", int64_contents=[3])
    sent.outputs.add(name="y")
    for part, given in ((sent.inputs[0], input_parameters), (sent.outputs[0], output_parameters)):
        for name, value in given.items():
            kind = "string_param" if isinstance(value, str) else "int64_param"
            part.parameters[name].CopyFrom(messages.InferParameter(**{kind: value}))
    with pytest.raises(grpc.RpcError, match=named) as refused:
        asked.call(sent)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("kind", ["systemsharedmemory", "cudasharedmemory"])
def test_the_paths_of_shared_memory_say_that_it_is_not_spoken(asked, kind):
    for answer in (
        asked.http.get(f"/v2/{kind}/status"),
        asked.http.get(f"/v2/{kind}/region/r/status"),
        asked.http.post(f"/v2/{kind}/region/r/register", json={"key": "/x", "offset": 0, "byte_size": 8}),
        asked.http.post(f"/v2/{kind}/unregister"),
    ):
        assert (answer.status_code, "shared memory" in answer.json()["error"]) == (501, True), answer.text


def test_typed_contents_beside_raw_ones_are_refused(asked):
    sent = request("square", "INT64", int64_contents=[3])
    sent.raw_input_contents.append(np.array([4]).tobytes())
    with pytest.raises(grpc.RpcError, match="typed contents and raw ones") as refused:
        asked.call(sent)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_value_below_a_datatype_is_not_called_large_only(asked):
    assert "too large or too small for UINT8" in asked.infer("square", "UINT8", [-1]).json()["error"]


def test_a_message_that_is_malformed_or_asks_for_nothing_is_refused_as_such_and_counted(asked: Asked):
    def counted(code: str) -> float:
        found = [
            line for line in asked.http.get("/metrics").text.splitlines() if f'errors_total{{code="{code}"}}' in line
        ]
        return float(found[0].split()[-1]) if found else 0.0

    path = "/inference.GRPCInferenceService/"
    before = counted("invalid_input"), counted("not_found")
    malformed = asked.rpc.unary_unary(f"{path}ModelInfer")
    with pytest.raises(grpc.RpcError) as refused:
        malformed(b"\xff\xff\xff\xff", timeout=10)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    answers = asked.rpc.stream_stream(f"{path}ModelStreamInfer")(iter([b"\xff", b""]), timeout=10)
    broken, nameless = (messages.ModelStreamInferResponse.FromString(one).error_message for one in answers)
    assert "cannot be read" in broken and "'' is not served here" in nameless
    with pytest.raises(grpc.RpcError):
        asked.call(messages.ModelInferRequest(model_name="nobody"))
    assert (counted("invalid_input"), counted("not_found")) == (before[0] + 2, before[1] + 2)
