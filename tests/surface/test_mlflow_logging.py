"""What the server has answered it keeps, also when it is killed; what it cannot read it refuses."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from noria.surface.cli.processes import Child
from support import process_of

API = "/api/2.0/mlflow"


def new_run(url: str) -> str:
    answer = httpx.post(f"{url}{API}/runs/create", json={"experiment_id": "0", "start_time": 1})
    return answer.json()["run"]["info"]["run_id"]


def test_every_answered_metric_survives_kill_9(governed_project):
    child = Child("server", governed_project, 0)
    run_id, started = new_run(child.url), threading.Barrier(9)

    def hammer(worker: int) -> int:
        answered = 0
        with httpx.Client(base_url=child.url) as client:
            started.wait()
            try:
                while True:
                    body = {"run_id": run_id, "key": f"w{worker}", "value": answered, "timestamp": 1, "step": answered}
                    client.post(f"{API}/runs/log-metric", json=body).raise_for_status()
                    answered += 1
            except httpx.TransportError:
                return answered

    with ThreadPoolExecutor(8) as pool:
        counts = [pool.submit(hammer, worker) for worker in range(8)]
        started.wait()
        threading.Event().wait(2)
        os.kill(process_of("server", governed_project), signal.SIGKILL)
        answered = [count.result() for count in counts]
    child.stop()
    assert min(answered) > 0

    child = Child("server", governed_project, 0)
    for worker, count in enumerate(answered):
        query = f"{child.url}{API}/metrics/get-history?run_id={run_id}&metric_key=w{worker}"
        steps = [int(metric["step"]) for metric in httpx.get(query).json()["metrics"]]
        assert steps[:count] == list(range(count))
        assert len(steps) - count <= 1
    child.stop()


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("log-metric", '{"key": "k", "value": 1, "timestamp": 1}', "'run_id'"),
        ("log-metric", '{"run_id": "r", "value": 1}', "missing required field `key`"),
        ("log-metric", '{"run_id": "r", "key": "k", "value": [1]}', "Expected `float`"),
        (
            "log-metric",
            '{"run_id": "r", "key": "k", "value": 1, "timestamp": 1, "step": 99999999999999999999}',
            "$.step",
        ),
        ("log-batch", '{"run_id": "r", "metrics": [{"key": "k"}]}', "$.metrics[0]"),
        ("log-batch", '{"run_id": "r", "params": [{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]}', "twice"),
        ("log-parameter", "nonsense", "cannot be read"),
    ],
)
def test_what_cannot_be_logged_is_refused_with_the_field(server, path, body, words):
    answer = httpx.post(f"{server}{API}/runs/{path}", content=body)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert words in answer.json()["message"]


def test_nan_and_infinity_are_kept_as_mlflow_keeps_them(server):
    run_id = new_run(server)
    for key, value in (("nan", "NaN"), ("inf", "Infinity"), ("low", "-Infinity")):
        body = {"run_id": run_id, "key": key, "value": value, "timestamp": "5", "step": "7"}
        httpx.post(f"{server}{API}/runs/log-metric", json=body).raise_for_status()
    found = httpx.get(f"{server}{API}/runs/get?run_id={run_id}").json()["run"]["data"]["metrics"]
    values = {metric["key"]: metric["value"] for metric in found}
    assert values == {"nan": "NaN", "inf": 1.7976931348623157e308, "low": -1.7976931348623157e308}


def test_a_history_goes_on_where_the_token_says_whatever_was_logged_meanwhile(server):
    run_id = new_run(server)
    question = {"run_id": run_id, "metric_key": "k", "max_results": 2}

    def log(step: int, value: object) -> None:
        body = {"run_id": run_id, "key": "k", "value": value, "timestamp": 5, "step": step}
        httpx.post(f"{server}{API}/runs/log-metric", json=body).raise_for_status()

    for step in (1, 2, 3, 4):
        log(step, "NaN" if step == 2 else step / 3)
    first = httpx.get(f"{server}{API}/metrics/get-history", params=question).json()
    assert [metric["value"] for metric in first["metrics"]] == [1 / 3, "NaN"]
    log(0, 0)
    rest = {**question, "page_token": first["next_page_token"]}
    second = httpx.get(f"{server}{API}/metrics/get-history", params=rest).json()
    assert [metric["step"] for metric in second["metrics"]] == [3, 4]
    assert "next_page_token" not in second


@pytest.mark.parametrize("token", ["zzz", "2", "ä", "WzEsMSwxLDFd", "Wzk5OTk5OTk5OTk5OTk5OTk5OTksMSwxXQ=="])
def test_a_page_token_of_no_history_is_refused(server, token):
    question = {"run_id": new_run(server), "metric_key": "k", "page_token": token}
    answer = httpx.get(f"{server}{API}/metrics/get-history", params=question)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert "page_token" in answer.json()["message"]
