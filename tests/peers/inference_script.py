"""What the stock Open Inference clients see of a gateway: run with their own interpreter, prints JSON.

Triton's and KServe's client cannot be imported together: both describe the same messages.
"""

import asyncio
import json
import queue
import sys

import numpy as np

client, http_port, grpc_port, model, texts = sys.argv[1:6]
rows = np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]])
found = {}


def numbers(array):
    return np.asarray(array).reshape(-1).tolist()


def triton_inputs(module, array=rows, name="input", datatype="FP64", **options):
    tensor = module.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, **options)
    return [tensor]


def triton():
    import tritonclient.grpc as triton_grpc
    import tritonclient.http as triton_http
    from tritonclient.utils import InferenceServerException

    http = triton_http.InferenceServerClient(f"127.0.0.1:{http_port}")
    found["http ready"] = [http.is_server_live(), http.is_server_ready(), http.is_model_ready(model)]
    found["http metadata"] = http.get_model_metadata(model)["inputs"]
    found["http index"] = http.get_model_repository_index()
    for name, binary in (("json", False), ("binary", True)):
        asked = [triton_http.InferRequestedOutput(one, binary_data=binary) for one in ("prediction", "probability")]
        answer = http.infer(model, triton_inputs(triton_http, binary_data=binary), outputs=asked, request_id="mine")
        found[f"http {name}"] = [numbers(answer.as_numpy("prediction")), numbers(answer.as_numpy("probability"))]
    for algorithm in ("gzip", "deflate"):
        answer = http.infer(
            model,
            triton_inputs(triton_http),
            request_compression_algorithm=algorithm,
            response_compression_algorithm="gzip",
        )
        found[f"http {algorithm}"] = [numbers(answer.as_numpy("prediction")), numbers(answer.as_numpy("probability"))]
    try:
        http.infer(model, triton_inputs(triton_http, rows[:, :2]))
    except InferenceServerException as error:
        found["http refused"] = [error.status(), error.message()]

    rpc = triton_grpc.InferenceServerClient(f"127.0.0.1:{grpc_port}")
    found["grpc ready"] = [rpc.is_server_live(), rpc.is_server_ready(), rpc.is_model_ready(model)]
    found["grpc not ready"] = rpc.is_model_ready("nothing")
    found["grpc metadata"] = rpc.get_model_metadata(model, as_json=True)["inputs"]
    found["grpc index"] = rpc.get_model_repository_index(as_json=True)
    answer = rpc.infer(model, triton_inputs(triton_grpc), request_id="mine")
    found["grpc"] = [numbers(answer.as_numpy("prediction")), numbers(answer.as_numpy("probability"))]
    for name, call in (
        ("grpc refused", lambda: rpc.infer(model, triton_inputs(triton_grpc, rows[:, :2]))),
        ("grpc unknown", lambda: rpc.infer("nothing", triton_inputs(triton_grpc))),
    ):
        try:
            call()
        except InferenceServerException as error:
            found[name] = [error.status(), error.message()]

    answers = queue.Queue()
    rpc.start_stream(lambda result, error: answers.put((result, error)))
    for place in range(20):
        width = 3 if place % 5 else 2
        rpc.async_stream_infer(model, triton_inputs(triton_grpc, rows[:1, :width]), request_id=str(place))
    streamed = [answers.get(timeout=10) for _ in range(20)]
    rpc.stop_stream()
    found["stream"] = [None if error else result.get_response().id for result, error in streamed]

    words = np.array([["red"], ["blue"]], dtype=object)
    mixed = triton_inputs(triton_http, rows[:, :1], "size") + triton_inputs(triton_http, words, "color", "BYTES")
    answer = http.infer(texts, mixed)
    found["texts http"] = [one.decode() for one in answer.as_numpy("prediction")]
    mixed = triton_inputs(triton_grpc, rows[:, :1], "size") + triton_inputs(triton_grpc, words, "color", "BYTES")
    found["texts grpc"] = [one.decode() for one in rpc.infer(texts, mixed).as_numpy("prediction")]


async def kserve():
    from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
    from kserve.inference_client import InferenceGRPCClient

    rest = InferenceRESTClient(RESTConfig(protocol="v2"))
    tensor = InferInput("input", list(rows.shape), "FP64")
    tensor.set_data_from_numpy(rows, binary_data=False)
    answer = await rest.infer(f"http://127.0.0.1:{http_port}", InferRequest(model, [tensor]), model_name=model)
    found["kserve rest"] = numbers(answer.outputs[1].data)
    client = InferenceGRPCClient(f"127.0.0.1:{grpc_port}")
    answer = await client.infer(InferRequest(model, [tensor]))
    found["kserve grpc"] = numbers(answer.outputs[1].as_numpy())


triton() if client == "triton" else asyncio.run(kserve())
print(json.dumps(found))
