"""Experiments, runs, metrics, params, tags, inputs: what is kept, and what is refused."""

from __future__ import annotations

from conformance.api import Api, check, refusals

# experiments


@check("POST /experiments/create", "GET /experiments/get")
def check_experiment_is_kept(api: Api) -> object:
    made = api.post("experiments/create", name=api.name(), tags=[{"key": "team", "value": "growth"}])
    return [made, api.get("experiments/get", experiment_id=made["experiment_id"])]


@check("POST /experiments/create", "GET /experiments/get-by-name")
def check_experiment_with_a_unicode_name(api: Api) -> object:
    name = api.name("Überfluß 東京 🚀")
    api.post("experiments/create", name=name)
    return api.get("experiments/get-by-name", experiment_name=name)


@check("POST /experiments/create", "GET /experiments/get")
def check_experiment_name_of_500_characters(api: Api) -> object:
    made = api.post("experiments/create", name=api.name("x" * 500)[:500])
    return [made, api.get("experiments/get", experiment_id=made.get("experiment_id", "0"))["experiment"]]


@check("POST /experiments/create", "GET /experiments/get")
def check_experiment_with_an_artifact_location(api: Api) -> object:
    location = "mlflow-artifacts:/elsewhere/of/it"
    made = api.post("experiments/create", name=api.name(), artifact_location=location)
    run = api.post("runs/create", experiment_id=made["experiment_id"], start_time=1)
    return [
        api.get("experiments/get", experiment_id=made["experiment_id"])["experiment"]["artifact_location"],
        run["run"]["info"]["artifact_uri"],
    ]


@check("POST /experiments/create")
def check_experiment_name_taken(api: Api) -> object:
    api.experiment()
    return api.post("experiments/create", name=api.name("experiment"))


@check("POST /experiments/create", "POST /experiments/delete")
def check_experiment_name_of_a_deleted_one_stays_taken(api: Api) -> object:
    api.post("experiments/delete", experiment_id=api.experiment())
    return api.post("experiments/create", name=api.name("experiment"))


@check("POST /experiments/update", "GET /experiments/get")
def check_experiment_renamed(api: Api) -> object:
    experiment = api.experiment()
    done = api.post("experiments/update", experiment_id=experiment, new_name=api.name("other"))
    return [done, api.get("experiments/get", experiment_id=experiment)["experiment"]["name"]]


@check("POST /experiments/update")
def check_experiment_renamed_to_a_name_taken(api: Api) -> object:
    api.experiment("other")
    return api.post("experiments/update", experiment_id=api.experiment(), new_name=api.name("other"))


@check("POST /experiments/delete", "POST /experiments/restore", "GET /experiments/get")
def check_experiment_deleted_and_restored(api: Api) -> object:
    experiment, seen = api.experiment(), []
    for step in ("delete", "restore"):
        done = api.post(f"experiments/{step}", experiment_id=experiment)
        seen += [done, api.get("experiments/get", experiment_id=experiment)["experiment"]["lifecycle_stage"]]
    return seen


@check("POST /experiments/delete")
def check_experiment_deleted_twice(api: Api) -> object:
    experiment = api.experiment()
    return [api.post("experiments/delete", experiment_id=experiment) for _ in range(2)]


@check("POST /experiments/restore")
def check_experiment_restored_that_is_active(api: Api) -> object:
    return api.post("experiments/restore", experiment_id=api.experiment())


@check("POST /experiments/delete", "POST /runs/search")
def check_runs_of_a_deleted_experiment_are_deleted(api: Api) -> object:
    experiment = api.experiment()
    run = api.run(experiment)
    api.post("experiments/delete", experiment_id=experiment)
    return [
        api.get("runs/get", run_id=run)["run"]["info"]["lifecycle_stage"],
        api.post("runs/search", experiment_ids=[experiment]),
        len(api.post("runs/search", experiment_ids=[experiment], run_view_type="DELETED_ONLY").get("runs", [])),
    ]


@check("POST /experiments/restore", "GET /runs/get")
def check_runs_of_a_restored_experiment_are_active(api: Api) -> object:
    experiment = api.experiment()
    run = api.run(experiment)
    for step in ("delete", "restore"):
        api.post(f"experiments/{step}", experiment_id=experiment)
    return api.get("runs/get", run_id=run)["run"]["info"]["lifecycle_stage"]


@check("POST /runs/create", "POST /experiments/delete")
def check_run_in_a_deleted_experiment(api: Api) -> object:
    experiment = api.experiment()
    api.post("experiments/delete", experiment_id=experiment)
    return api.post("runs/create", experiment_id=experiment, start_time=1)


@check("POST /experiments/set-experiment-tag", "POST /experiments/delete-experiment-tag")
def check_experiment_tags_set_replaced_and_deleted(api: Api) -> object:
    experiment, seen = api.experiment(), []
    for value in ("one", "two"):
        api.post("experiments/set-experiment-tag", experiment_id=experiment, key="team", value=value)
        seen.append(api.get("experiments/get", experiment_id=experiment)["experiment"].get("tags"))
    done = api.post("experiments/delete-experiment-tag", experiment_id=experiment, key="team")
    return [*seen, done, api.get("experiments/get", experiment_id=experiment)]


@check("POST /experiments/set-experiment-tag", "POST /experiments/delete")
def check_experiment_tag_of_a_deleted_one(api: Api) -> object:
    experiment = api.experiment()
    api.post("experiments/delete", experiment_id=experiment)
    return api.post("experiments/set-experiment-tag", experiment_id=experiment, key="team", value="x")


@check("POST /experiments/update", "POST /experiments/delete")
def check_experiment_renamed_after_its_deletion(api: Api) -> object:
    experiment = api.experiment()
    api.post("experiments/delete", experiment_id=experiment)
    return api.post("experiments/update", experiment_id=experiment, new_name=api.name("other"))


@check("GET /experiments/get")
def check_workspace_of_an_experiment(api: Api) -> object:
    found = api.get("experiments/get", experiment_id=api.experiment())["experiment"]
    return {"the workspace": found.get("workspace", "")}


refusals(
    "tracking",
    {
        "experiment_without_a_name": ("POST /experiments/create", {}),
        "experiment_with_an_empty_name": ("POST /experiments/create", {"name": ""}),
        "experiment_with_a_number_as_name": ("POST /experiments/create", {"name": 7}),
        "experiment_name_of_501_characters": ("POST /experiments/create", {"name": "x" * 501}),
        "experiment_with_tags_that_are_none": ("POST /experiments/create", {"name": "bad tags", "tags": "x"}),
        "experiment_with_an_unknown_field": ("POST /experiments/create", {"name": "an unknown field", "nothing": 1}),
        "experiment_with_an_artifact_location_that_climbs": (
            "POST /experiments/create",
            {"name": "climbs", "artifact_location": "mlflow-artifacts:/../../etc"},
        ),
        "experiment_unknown": ("GET /experiments/get", {"experiment_id": "999999"}),
        "experiment_id_that_is_no_number": ("GET /experiments/get", {"experiment_id": "abc"}),
        "experiment_get_without_id": ("GET /experiments/get", {}),
        "experiment_by_a_name_unknown": ("GET /experiments/get-by-name", {"experiment_name": "nobody's"}),
        "experiment_by_name_without_one": ("GET /experiments/get-by-name", {}),
        "experiment_update_of_an_unknown_one": (
            "POST /experiments/update",
            {"experiment_id": "999999", "new_name": "x"},
        ),
        "experiment_update_without_a_name": ("POST /experiments/update", {"experiment_id": "<experiment>"}),
        "experiment_delete_of_an_unknown_one": ("POST /experiments/delete", {"experiment_id": "999999"}),
        "experiment_delete_without_id": ("POST /experiments/delete", {}),
        "experiment_restore_of_an_unknown_one": ("POST /experiments/restore", {"experiment_id": "999999"}),
        "experiment_tag_without_a_key": (
            "POST /experiments/set-experiment-tag",
            {"experiment_id": "<experiment>", "value": "x"},
        ),
        "experiment_tag_without_a_value": (
            "POST /experiments/set-experiment-tag",
            {"experiment_id": "<experiment>", "key": "x"},
        ),
        "experiment_tag_key_of_251_characters": (
            "POST /experiments/set-experiment-tag",
            {"experiment_id": "<experiment>", "key": "k" * 251, "value": "x"},
        ),
        "experiment_tag_value_of_20001_characters": (
            "POST /experiments/set-experiment-tag",
            {"experiment_id": "<experiment>", "key": "k", "value": "x" * 20_001},
        ),
        "experiment_tag_of_an_unknown_one": (
            "POST /experiments/set-experiment-tag",
            {"experiment_id": "999999", "key": "k", "value": "x"},
        ),
        "experiment_tag_deleted_that_is_not_there": (
            "POST /experiments/delete-experiment-tag",
            {"experiment_id": "<experiment>", "key": "k"},
        ),
        "body_that_is_no_json": ("POST /experiments/create", "{"),
        "body_that_is_a_list": ("POST /experiments/create", "[]"),
        "body_that_is_empty": ("POST /experiments/create", ""),
        "endpoint_unknown": ("GET /nothing/like-it", {}),
        "method_not_allowed": ("PATCH /experiments/create", {"name": "x"}),
    },
)

# runs


@check("POST /runs/create", "GET /runs/get")
def check_run_is_kept(api: Api) -> object:
    made = api.post(
        "runs/create",
        experiment_id=api.experiment(),
        run_name="first",
        start_time=1_700_000_000_123,
        tags=[{"key": "team", "value": "growth"}],
    )
    return [made, api.get("runs/get", run_id=made["run"]["info"]["run_id"])]


@check("POST /runs/create")
def check_run_start_time_is_exact(api: Api) -> object:
    run = api.run(start_time=1234)
    return api.get("runs/get", run_id=run)["run"]["info"]["start_time"]


@check("POST /runs/create", "GET /runs/get")
def check_who_a_run_is_of(api: Api) -> object:
    run = api.run()
    info = api.get("runs/get", run_id=run)["run"]["info"]
    return {"user": info.get("user_id", ""), "run_uuid is run_id": info.get("run_uuid") == run}


@check("POST /runs/create")
def check_run_user_is_what_the_client_says(api: Api) -> object:
    made = api.post("runs/create", experiment_id="0", start_time=1, user_id="ada")
    return {"user": made["run"]["info"]["user_id"]}


@check("POST /runs/create")
def check_run_named_by_its_tag(api: Api) -> object:
    tags = [{"key": "mlflow.runName", "value": "by tag"}]
    return api.post("runs/create", experiment_id="0", start_time=1, tags=tags)


@check("POST /runs/create")
def check_run_named_twice_the_same(api: Api) -> object:
    tags = [{"key": "mlflow.runName", "value": "same"}]
    return api.post("runs/create", experiment_id="0", start_time=1, run_name="same", tags=tags)


@check("POST /runs/create")
def check_run_named_twice_differently(api: Api) -> object:
    tags = [{"key": "mlflow.runName", "value": "one"}]
    return api.post("runs/create", experiment_id="0", start_time=1, run_name="two", tags=tags)


@check("POST /runs/create")
def check_run_without_a_name_gets_one(api: Api) -> object:
    run = api.post("runs/create", experiment_id="0", start_time=1)["run"]
    tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
    return bool(run["info"]["run_name"]) and tags["mlflow.runName"] == run["info"]["run_name"]


@check("POST /runs/create")
def check_run_without_a_start_time(api: Api) -> object:
    return api.post("runs/create", experiment_id="0", run_name="x")["run"]["info"].get("start_time", 0) > 0


@check("POST /runs/create")
def check_run_without_an_experiment_goes_to_the_default(api: Api) -> object:
    return api.post("runs/create", start_time=1, run_name="x")


@check("POST /runs/update", "GET /runs/get")
def check_run_finished(api: Api) -> object:
    run = api.run()
    done = api.post("runs/update", run_id=run, status="FINISHED", end_time=1_700_000_000_456)
    return [done, api.get("runs/get", run_id=run)]


@check("POST /runs/update")
def check_run_end_time_is_exact(api: Api) -> object:
    run = api.run()
    api.post("runs/update", run_id=run, status="FAILED", end_time=4321)
    return api.get("runs/get", run_id=run)["run"]["info"]["end_time"]


@check("POST /runs/update", "GET /runs/get")
def check_run_finished_and_running_again(api: Api) -> object:
    run = api.run()
    api.post("runs/update", run_id=run, status="FINISHED", end_time=4321)
    api.post("runs/update", run_id=run, status="RUNNING")
    info = api.get("runs/get", run_id=run)["run"]["info"]
    return {"run status": info["status"], "ended": info.get("end_time")}


@check("POST /runs/update", "GET /runs/get")
def check_run_updated_with_nothing(api: Api) -> object:
    run = api.run()
    return [api.post("runs/update", run_id=run), api.get("runs/get", run_id=run)]


@check("POST /runs/update")
def check_run_finished_without_an_end_time(api: Api) -> object:
    run = api.run()
    info = api.post("runs/update", run_id=run, status="FINISHED")["run_info"]
    return {"run status": info["status"], "ended": bool(info.get("end_time"))}


@check("POST /runs/update", "GET /runs/get")
def check_run_renamed(api: Api) -> object:
    run = api.run()
    return [api.post("runs/update", run_id=run, run_name="other"), api.get("runs/get", run_id=run)]


@check("POST /runs/set-tag", "GET /runs/get")
def check_run_renamed_by_its_tag(api: Api) -> object:
    run = api.run()
    api.post("runs/set-tag", run_id=run, key="mlflow.runName", value="other")
    return api.get("runs/get", run_id=run)


@check("POST /runs/delete", "POST /runs/restore", "GET /runs/get")
def check_run_deleted_and_restored(api: Api) -> object:
    run, seen = api.run(), []
    for step in ("delete", "restore"):
        done = api.post(f"runs/{step}", run_id=run)
        seen += [done, api.get("runs/get", run_id=run)["run"]["info"]["lifecycle_stage"]]
    return seen


@check("POST /runs/delete")
def check_run_deleted_twice(api: Api) -> object:
    run = api.run()
    return [api.post("runs/delete", run_id=run) for _ in range(2)]


@check("POST /runs/restore")
def check_run_restored_that_is_active(api: Api) -> object:
    return api.post("runs/restore", run_id=api.run())


def _after_deletion(path: str, **arguments: object):
    def do(api: Api) -> object:
        run = api.run()
        api.post("runs/delete", run_id=run)
        return api.post(path, run_id=run, **arguments)

    do.__name__ = "check_deleted_run_" + path.partition("/")[2].replace("-", "_")
    do.__module__ = __name__
    return do


for _path, _arguments in {
    "runs/log-metric": {"key": "m", "value": 1, "timestamp": 1},
    "runs/log-parameter": {"key": "p", "value": "1"},
    "runs/set-tag": {"key": "t", "value": "1"},
    "runs/log-batch": {"tags": [{"key": "t", "value": "1"}]},
    "runs/delete-tag": {"key": "mlflow.runName"},
    "runs/update": {"status": "FINISHED"},
    "runs/log-inputs": {"datasets": [{"dataset": {"name": "d", "digest": "1", "source_type": "x", "source": "y"}}]},
}.items():
    check(f"POST /{_path}", "POST /runs/delete")(_after_deletion(_path, **_arguments))


refusals(
    "tracking",
    {
        "run_in_an_unknown_experiment": ("POST /runs/create", {"experiment_id": "999999", "start_time": 1}),
        "run_in_an_experiment_that_is_no_number": ("POST /runs/create", {"experiment_id": "abc", "start_time": 1}),
        "run_with_a_start_time_that_is_none": ("POST /runs/create", {"experiment_id": "0", "start_time": "noon"}),
        "run_with_tags_that_are_no_list": ("POST /runs/create", {"experiment_id": "0", "tags": {"a": "b"}}),
        "run_with_a_tag_key_of_251_characters": (
            "POST /runs/create",
            {"experiment_id": "0", "tags": [{"key": "k" * 251, "value": "x"}]},
        ),
        "run_unknown": ("GET /runs/get", {"run_id": "0" * 32}),
        "run_id_that_is_odd": ("GET /runs/get", {"run_id": "../x"}),
        "run_get_without_id": ("GET /runs/get", {}),
        "run_update_of_an_unknown_one": ("POST /runs/update", {"run_id": "0" * 32, "status": "FINISHED"}),
        "run_update_without_id": ("POST /runs/update", {"status": "FINISHED"}),
        "run_update_to_an_unknown_status": ("POST /runs/update", {"run_id": "<run>", "status": "DONE"}),
        "run_delete_of_an_unknown_one": ("POST /runs/delete", {"run_id": "0" * 32}),
        "run_delete_without_id": ("POST /runs/delete", {}),
        "run_restore_of_an_unknown_one": ("POST /runs/restore", {"run_id": "0" * 32}),
    },
)

# metrics


@check("POST /runs/log-metric", "GET /runs/get")
def check_metric_keeps_the_newest(api: Api) -> object:
    run = api.run()
    for value, timestamp, step in ((1.5, 10, 0), (2.5, 30, 1), (3.5, 20, 1), (4.5, 40, 0)):
        api.post("runs/log-metric", run_id=run, key="loss", value=value, timestamp=timestamp, step=step)
    return api.get("runs/get", run_id=run)["run"]["data"]["metrics"]


@check("POST /runs/log-metric", "GET /metrics/get-history")
def check_metric_history(api: Api) -> object:
    run = api.run()
    for step in range(3):
        api.post("runs/log-metric", run_id=run, key="loss", value=1 / (step + 1), timestamp=step + 1, step=step)
    history = api.get("metrics/get-history", run_id=run, metric_key="loss")
    return sorted(history["metrics"], key=lambda metric: metric["step"])


@check("POST /runs/log-metric", "GET /metrics/get-history")
def check_metric_same_value_twice_is_kept_once(api: Api) -> object:
    run = api.run()
    for _ in range(2):
        api.post("runs/log-metric", run_id=run, key="loss", value=1, timestamp=1, step=1)
    return api.get("metrics/get-history", run_id=run, metric_key="loss")


@check("POST /runs/log-metric", "GET /metrics/get-history")
def check_metric_two_values_at_one_step(api: Api) -> object:
    run = api.run()
    for value in (1, 2):
        api.post("runs/log-metric", run_id=run, key="loss", value=value, timestamp=1, step=1)
    history = api.get("metrics/get-history", run_id=run, metric_key="loss")
    return [sorted(metric["value"] for metric in history["metrics"]), api.get("runs/get", run_id=run)]


@check("GET /metrics/get-history")
def check_metric_history_by_pages(api: Api) -> object:
    run = api.run()
    metrics = [{"key": "loss", "value": i, "timestamp": i + 1, "step": i} for i in range(5)]
    api.post("runs/log-batch", run_id=run, metrics=metrics)
    pages, token = [], {}
    for _ in range(4):
        answer = api.get("metrics/get-history", run_id=run, metric_key="loss", max_results=2, **token)
        pages.append([metric["value"] for metric in answer["metrics"]])
        if not answer.get("next_page_token"):
            break
        token = {"page_token": answer["next_page_token"]}
    return pages


@check("GET /metrics/get-history")
def check_metric_history_with_a_page_token_that_is_none(api: Api) -> object:
    run = api.run()
    api.post("runs/log-metric", run_id=run, key="loss", value=1, timestamp=1)
    return api.get("metrics/get-history", run_id=run, metric_key="loss", max_results=2, page_token="zzz")


@check("POST /runs/delete", "GET /metrics/get-history")
def check_metric_history_of_a_deleted_run(api: Api) -> object:
    run = api.run()
    api.post("runs/log-metric", run_id=run, key="loss", value=1, timestamp=1)
    api.post("runs/delete", run_id=run)
    return api.get("metrics/get-history", run_id=run, metric_key="loss")


@check("POST /runs/log-metric", "GET /metrics/get-history", "GET /runs/get")
def check_metric_not_a_number(api: Api) -> object:
    run = api.run()
    done = api.post("runs/log-metric", run_id=run, key="loss", value="NaN", timestamp=1)
    return [done, _values_of(api, run)]


@check("POST /runs/log-metric", "GET /metrics/get-history", "GET /runs/get")
def check_metric_infinite(api: Api) -> object:
    run = api.run()
    done = [
        api.post("runs/log-metric", run_id=run, key="loss", value=value, timestamp=1, step=step)
        for step, value in enumerate(("Infinity", "-Infinity"))
    ]
    return [done, _values_of(api, run)]


@check("POST /runs/log-batch", "GET /metrics/get-history")
def check_metric_not_a_number_in_a_batch(api: Api) -> object:
    run = api.run()
    metrics = [{"key": "loss", "value": "NaN", "timestamp": 1}, {"key": "loss", "value": 2, "timestamp": 2}]
    return [api.post("runs/log-batch", run_id=run, metrics=metrics), _values_of(api, run)]


@check("POST /runs/log-metric", "GET /runs/get")
def check_metric_a_number_after_nan(api: Api) -> object:
    run = api.run()
    for value, timestamp in (("NaN", 1), (0.5, 1), ("NaN", 2)):
        api.post("runs/log-metric", run_id=run, key="loss", value=value, timestamp=timestamp)
    return _values_of(api, run)


@check("POST /runs/log-metric", "GET /runs/get")
def check_metric_without_a_step(api: Api) -> object:
    run = api.run()
    api.post("runs/log-metric", run_id=run, key="loss", value=1, timestamp=5)
    return api.get("runs/get", run_id=run)["run"]["data"]["metrics"]


@check("POST /runs/log-metric", "GET /runs/get")
def check_metric_at_a_negative_step(api: Api) -> object:
    run = api.run()
    api.post("runs/log-metric", run_id=run, key="loss", value=-0.25, timestamp=5, step=-3)
    return api.get("runs/get", run_id=run)["run"]["data"]["metrics"]


@check("POST /runs/log-metric", "GET /runs/get")
def check_metric_value_as_text(api: Api) -> object:
    run = api.run()
    done = api.post("runs/log-metric", run_id=run, key="loss", value="1.5", timestamp="5", step="2")
    return [done, api.get("runs/get", run_id=run)["run"]["data"].get("metrics")]


@check("POST /runs/log-metric", "GET /runs/get")
def check_metric_with_a_dataset_and_model(api: Api) -> object:
    run = api.run()
    done = api.post(
        "runs/log-metric",
        run_id=run,
        key="loss",
        value=1,
        timestamp=5,
        dataset_name="train",
        dataset_digest="abc",
    )
    return [done, [metric["value"] for metric in api.get("runs/get", run_id=run)["run"]["data"]["metrics"]]]


@check("POST /runs/log-metric", "GET /runs/get")
def check_metric_keys_that_are_allowed(api: Api) -> object:
    run = api.run()
    keys = ["a/b", "a b", "a.b", "a-b", "a_b", "a:b", "ü", "x" * 250]
    return [[key[:10], api.post("runs/log-metric", run_id=run, key=key, value=1, timestamp=1)] for key in keys]


@check("POST /runs/log-metric")
def check_metric_keys_that_are_not(api: Api) -> object:
    run = api.run()
    keys = ["", "../a", "/a", "a//b", "a/./b", "a/../b", ".", "a\nb", "a\\b", "a?b", "x" * 251]
    return [[key[:10], api.post("runs/log-metric", run_id=run, key=key, value=1, timestamp=1)] for key in keys]


@check("GET /metrics/get-history-bulk-interval")
def check_metric_history_of_several_runs(api: Api) -> object:
    runs = [api.run(), api.run()]
    for run in runs:
        metrics = [{"key": "loss", "value": i, "timestamp": i + 1, "step": i} for i in range(4)]
        api.post("runs/log-batch", run_id=run, metrics=metrics)
    answer = api.get("metrics/get-history-bulk-interval", run_ids=runs, metric_key="loss", max_results=100)
    return sorted([runs.index(metric["run_id"]), metric["step"], metric["value"]] for metric in answer["metrics"])


@check("GET /metrics/get-history-bulk-interval")
def check_metric_history_of_several_runs_between_steps(api: Api) -> object:
    run = api.run()
    metrics = [{"key": "loss", "value": i, "timestamp": i + 1, "step": i} for i in range(10)]
    api.post("runs/log-batch", run_id=run, metrics=metrics)
    bounds = {"start_step": 2, "end_step": 6, "max_results": 100}
    answer = api.get("metrics/get-history-bulk-interval", run_ids=[run], metric_key="loss", **bounds)
    return sorted(metric["step"] for metric in answer["metrics"])


@check("GET /metrics/get-history-bulk-interval")
def check_metric_history_of_several_runs_thinned(api: Api) -> object:
    run = api.run()
    metrics = [{"key": "loss", "value": i, "timestamp": i + 1, "step": i} for i in range(100)]
    api.post("runs/log-batch", run_id=run, metrics=metrics)
    answer = api.get("metrics/get-history-bulk-interval", run_ids=[run], metric_key="loss", max_results=7)
    return sorted(metric["step"] for metric in answer["metrics"])


refusals(
    "tracking",
    {
        "metric_of_an_unknown_run": (
            "POST /runs/log-metric",
            {"run_id": "0" * 32, "key": "m", "value": 1, "timestamp": 1},
        ),
        "metric_without_a_run": ("POST /runs/log-metric", {"key": "m", "value": 1, "timestamp": 1}),
        "metric_without_a_key": ("POST /runs/log-metric", {"run_id": "<run>", "value": 1, "timestamp": 1}),
        "metric_without_a_value": ("POST /runs/log-metric", {"run_id": "<run>", "key": "m", "timestamp": 1}),
        "metric_without_a_timestamp": ("POST /runs/log-metric", {"run_id": "<run>", "key": "m", "value": 1}),
        "metric_with_a_value_that_is_no_number": (
            "POST /runs/log-metric",
            {"run_id": "<run>", "key": "m", "value": "much", "timestamp": 1},
        ),
        "metric_with_a_value_that_is_true": (
            "POST /runs/log-metric",
            {"run_id": "<run>", "key": "m", "value": True, "timestamp": 1},
        ),
        "metric_with_a_value_that_is_null": (
            "POST /runs/log-metric",
            {"run_id": "<run>", "key": "m", "value": None, "timestamp": 1},
        ),
        "metric_with_a_step_that_is_no_number": (
            "POST /runs/log-metric",
            {"run_id": "<run>", "key": "m", "value": 1, "timestamp": 1, "step": "x"},
        ),
        "metric_with_a_broken_step": (
            "POST /runs/log-metric",
            {"run_id": "<run>", "key": "m", "value": 1, "timestamp": 1, "step": 1.5},
        ),
        "metric_with_a_timestamp_beyond_64_bits": (
            "POST /runs/log-metric",
            {"run_id": "<run>", "key": "m", "value": 1, "timestamp": 2**63},
        ),
        "metric_with_a_negative_timestamp": (
            "POST /runs/log-metric",
            {"run_id": "<run>", "key": "m", "value": 1, "timestamp": -1},
        ),
        "metric_history_of_an_unknown_run": ("GET /metrics/get-history", {"run_id": "0" * 32, "metric_key": "m"}),
        "metric_history_of_an_unknown_key": ("GET /metrics/get-history", {"run_id": "<run>", "metric_key": "m"}),
        "metric_history_without_a_key": ("GET /metrics/get-history", {"run_id": "<run>"}),
        "metric_history_without_a_run": ("GET /metrics/get-history", {"metric_key": "m"}),
        "metric_history_bulk_without_runs": ("GET /metrics/get-history-bulk-interval", {"metric_key": "m"}),
        "metric_history_bulk_without_a_key": ("GET /metrics/get-history-bulk-interval", {"run_ids": "<run>"}),
        "metric_history_bulk_of_no_results": (
            "GET /metrics/get-history-bulk-interval",
            {"run_ids": "<run>", "metric_key": "m", "max_results": 0},
        ),
        "metric_history_bulk_of_too_many_results": (
            "GET /metrics/get-history-bulk-interval",
            {"run_ids": "<run>", "metric_key": "m", "max_results": 2501},
        ),
        "metric_history_bulk_of_steps_backwards": (
            "GET /metrics/get-history-bulk-interval",
            {"run_ids": "<run>", "metric_key": "m", "start_step": 5, "end_step": 1},
        ),
        "metric_history_bulk_of_half_an_interval": (
            "GET /metrics/get-history-bulk-interval",
            {"run_ids": "<run>", "metric_key": "m", "start_step": 5},
        ),
        "metric_history_bulk_of_an_unknown_run": (
            "GET /metrics/get-history-bulk-interval",
            {"run_ids": "0" * 32, "metric_key": "m"},
        ),
    },
)

# params and tags


@check("POST /runs/log-parameter", "GET /runs/get")
def check_param_is_kept(api: Api) -> object:
    run = api.run()
    done = api.post("runs/log-parameter", run_id=run, key="depth", value="3")
    return [done, api.get("runs/get", run_id=run)]


@check("POST /runs/log-parameter")
def check_param_same_value_twice(api: Api) -> object:
    run = api.run()
    return [api.post("runs/log-parameter", run_id=run, key="depth", value="3") for _ in range(2)]


@check("POST /runs/log-parameter", "GET /runs/get")
def check_param_changed(api: Api) -> object:
    run = api.run()
    done = [api.post("runs/log-parameter", run_id=run, key="depth", value=value) for value in ("3", "4")]
    return [done, api.get("runs/get", run_id=run)["run"]["data"]["params"]]


@check("POST /runs/log-parameter", "GET /runs/get")
def check_param_with_an_empty_value(api: Api) -> object:
    run = api.run()
    done = api.post("runs/log-parameter", run_id=run, key="depth", value="")
    return [done, [param["key"] for param in api.get("runs/get", run_id=run)["run"]["data"].get("params", [])]]


@check("POST /runs/log-parameter", "GET /runs/get")
def check_param_with_a_number_as_value(api: Api) -> object:
    run = api.run()
    done = api.post("runs/log-parameter", run_id=run, key="depth", value=3)
    return [done, api.get("runs/get", run_id=run)["run"]["data"].get("params") or None]


@check("POST /runs/log-parameter", "GET /runs/get")
def check_param_in_unicode(api: Api) -> object:
    run = api.run()
    api.post("runs/log-parameter", run_id=run, key="größe", value="日本 🚀\nzwei")
    return api.get("runs/get", run_id=run)["run"]["data"]["params"]


@check("POST /runs/log-parameter")
def check_param_value_at_and_over_the_limit(api: Api) -> object:
    run = api.run()
    return [api.post("runs/log-parameter", run_id=run, key=f"p{length}", value="x" * length) for length in (6000, 6001)]


@check("POST /runs/set-tag", "GET /runs/get")
def check_tag_set_and_replaced(api: Api) -> object:
    run = api.run()
    done = [api.post("runs/set-tag", run_id=run, key="team", value=value) for value in ("a", "ü 🚀")]
    return [done, api.get("runs/get", run_id=run)["run"]["data"]["tags"]]


@check("POST /runs/set-tag", "GET /runs/get")
def check_tag_with_an_empty_value(api: Api) -> object:
    run = api.run()
    done = api.post("runs/set-tag", run_id=run, key="team", value="")
    return [done, [tag["key"] for tag in api.get("runs/get", run_id=run)["run"]["data"]["tags"]]]


@check("POST /runs/set-tag", "GET /runs/get")
def check_tag_value_at_and_over_the_limit(api: Api) -> object:
    run = api.run()
    done = [api.post("runs/set-tag", run_id=run, key=f"t{n}", value="x" * n) for n in (8000, 8001)]
    tags = api.get("runs/get", run_id=run)["run"]["data"]["tags"]
    return [done, {tag["key"]: len(tag["value"]) for tag in tags}]


@check("POST /runs/delete-tag", "GET /runs/get")
def check_tag_deleted(api: Api) -> object:
    run = api.run()
    api.post("runs/set-tag", run_id=run, key="team", value="a")
    return [api.post("runs/delete-tag", run_id=run, key="team"), api.get("runs/get", run_id=run)]


refusals(
    "tracking",
    {
        "param_of_an_unknown_run": ("POST /runs/log-parameter", {"run_id": "0" * 32, "key": "p", "value": "1"}),
        "param_without_a_run": ("POST /runs/log-parameter", {"key": "p", "value": "1"}),
        "param_without_a_key": ("POST /runs/log-parameter", {"run_id": "<run>", "value": "1"}),
        "param_without_a_value": ("POST /runs/log-parameter", {"run_id": "<run>", "key": "p"}),
        "param_key_of_251_characters": (
            "POST /runs/log-parameter",
            {"run_id": "<run>", "key": "k" * 251, "value": "1"},
        ),
        "param_key_that_climbs": ("POST /runs/log-parameter", {"run_id": "<run>", "key": "../k", "value": "1"}),
        "tag_of_an_unknown_run": ("POST /runs/set-tag", {"run_id": "0" * 32, "key": "t", "value": "1"}),
        "tag_without_a_key": ("POST /runs/set-tag", {"run_id": "<run>", "value": "1"}),
        "tag_without_a_value": ("POST /runs/set-tag", {"run_id": "<run>", "key": "t"}),
        "tag_key_of_251_characters": ("POST /runs/set-tag", {"run_id": "<run>", "key": "k" * 251, "value": "1"}),
        "tag_deleted_that_is_not_there": ("POST /runs/delete-tag", {"run_id": "<run>", "key": "t"}),
        "tag_deleted_of_an_unknown_run": ("POST /runs/delete-tag", {"run_id": "0" * 32, "key": "t"}),
        "tag_deleted_without_a_key": ("POST /runs/delete-tag", {"run_id": "<run>"}),
    },
)

# batches


@check("POST /runs/log-batch", "GET /runs/get")
def check_batch_is_kept(api: Api) -> object:
    run = api.run()
    done = api.post(
        "runs/log-batch",
        run_id=run,
        metrics=[{"key": "loss", "value": 0.5, "timestamp": 1, "step": 2}, {"key": "auc", "value": 1, "timestamp": 1}],
        params=[{"key": "depth", "value": "3"}],
        tags=[{"key": "team", "value": "a"}],
    )
    return [done, api.get("runs/get", run_id=run)]


@check("POST /runs/log-batch")
def check_batch_of_nothing(api: Api) -> object:
    return api.post("runs/log-batch", run_id=api.run())


@check("POST /runs/log-batch", "GET /runs/get")
def check_batch_with_a_changed_param_keeps_nothing(api: Api) -> object:
    run = api.run()
    api.post("runs/log-parameter", run_id=run, key="depth", value="3")
    pairs = [{"key": "width", "value": "1"}, {"key": "depth", "value": "4"}]
    done = api.post("runs/log-batch", run_id=run, params=pairs, metrics=[{"key": "m", "value": 1, "timestamp": 1}])
    data = api.get("runs/get", run_id=run)["run"]["data"]
    return [done, data.get("params"), data.get("metrics") or None]


@check("POST /runs/log-batch")
def check_batch_with_a_param_twice(api: Api) -> object:
    run = api.run()
    same = [{"key": "depth", "value": "3"}] * 2
    other = [{"key": "width", "value": "3"}, {"key": "width", "value": "4"}]
    return [api.post("runs/log-batch", run_id=run, params=params) for params in (same, other)]


@check("POST /runs/log-batch", "GET /runs/get")
def check_batch_with_a_tag_twice(api: Api) -> object:
    run = api.run()
    tags = [{"key": "team", "value": "a"}, {"key": "team", "value": "b"}]
    return [api.post("runs/log-batch", run_id=run, tags=tags), api.get("runs/get", run_id=run)["run"]["data"]["tags"]]


@check("POST /runs/log-batch")
def check_batch_at_its_limits(api: Api) -> object:
    run = api.run()
    pairs = [{"key": f"k{i}", "value": "x"} for i in range(100)]
    metrics = [{"key": f"m{i}", "value": 1, "timestamp": 1} for i in range(1000)]
    return [
        api.post("runs/log-batch", run_id=run, metrics=metrics),
        api.post("runs/log-batch", run_id=run, params=pairs),
        api.post("runs/log-batch", run_id=run, tags=pairs),
        api.post("runs/log-batch", run_id=run, metrics=metrics[:800], params=pairs, tags=pairs),
    ]


@check("POST /runs/log-batch")
def check_batch_over_its_limits(api: Api) -> object:
    run = api.run()
    pairs = [{"key": f"k{i}", "value": "x"} for i in range(101)]
    metrics = [{"key": f"m{i}", "value": 1, "timestamp": 1} for i in range(1001)]
    return [
        api.post("runs/log-batch", run_id=run, metrics=metrics),
        api.post("runs/log-batch", run_id=run, params=pairs),
        api.post("runs/log-batch", run_id=run, tags=pairs),
        api.post("runs/log-batch", run_id=run, metrics=metrics[:900], params=pairs[:51], tags=pairs[:50]),
    ]


@check("POST /runs/log-batch")
def check_batch_with_long_values(api: Api) -> object:
    run = api.run()
    return [
        api.post("runs/log-batch", run_id=run, params=[{"key": "p", "value": "x" * 6001}]),
        api.post("runs/log-batch", run_id=run, tags=[{"key": "t", "value": "x" * 8001}]),
        api.post("runs/log-batch", run_id=run, metrics=[{"key": "m" * 251, "value": 1, "timestamp": 1}]),
        api.post("runs/log-batch", run_id=run, params=[{"key": "p" * 251, "value": "x"}]),
    ]


_BAD_METRICS = {
    "no_value": {"key": "m", "timestamp": 1},
    "no_key": {"value": 1, "timestamp": 1},
    "no_timestamp": {"key": "m", "value": 1},
    "a_value_that_is_no_number": {"key": "m", "value": "x", "timestamp": 1},
    "a_timestamp_that_is_no_number": {"key": "m", "value": 1, "timestamp": "x"},
}
refusals(
    "tracking",
    {
        **{
            f"batch_metric_with_{name}": ("POST /runs/log-batch", {"run_id": "<run>", "metrics": [metric]})
            for name, metric in _BAD_METRICS.items()
        },
        "batch_of_an_unknown_run": ("POST /runs/log-batch", {"run_id": "0" * 32, "tags": [{"key": "t", "value": "1"}]}),
        "batch_without_a_run": ("POST /runs/log-batch", {"tags": [{"key": "t", "value": "1"}]}),
        "batch_param_without_a_key": ("POST /runs/log-batch", {"run_id": "<run>", "params": [{"value": "1"}]}),
        "batch_param_without_a_value": ("POST /runs/log-batch", {"run_id": "<run>", "params": [{"key": "p"}]}),
        "batch_tag_without_a_key": ("POST /runs/log-batch", {"run_id": "<run>", "tags": [{"value": "1"}]}),
        "batch_of_params_that_are_no_list": ("POST /runs/log-batch", {"run_id": "<run>", "params": {"a": "b"}}),
        "batch_of_metrics_that_are_text": ("POST /runs/log-batch", {"run_id": "<run>", "metrics": "x"}),
    },
)

# inputs, outputs, models of older clients


_DATASET = {"name": "train", "digest": "abc", "source_type": "local", "source": '{"uri": "x"}'}


@check("POST /runs/log-inputs", "GET /runs/get")
def check_inputs_are_kept(api: Api) -> object:
    run = api.run()
    tags = [{"key": "mlflow.data.context", "value": "training"}]
    dataset = {**_DATASET, "schema": '{"a": 1}', "profile": '{"rows": 2}'}
    done = api.post("runs/log-inputs", run_id=run, datasets=[{"tags": tags, "dataset": dataset}])
    return [done, api.get("runs/get", run_id=run)["run"].get("inputs")]


@check("POST /runs/log-inputs", "GET /runs/get")
def check_inputs_twice_the_same_are_kept_once(api: Api) -> object:
    run = api.run()
    for _ in range(2):
        api.post("runs/log-inputs", run_id=run, datasets=[{"dataset": {**_DATASET, "name": api.name()}}])
    return api.get("runs/get", run_id=run)["run"].get("inputs")


@check("POST /runs/log-inputs", "POST /runs/outputs", "GET /runs/get")
def check_models_as_inputs_and_outputs(api: Api) -> object:
    run, model = api.run(), api.logged_model()
    done = [
        api.post("runs/log-inputs", run_id=run, models=[{"model_id": model}]),
        api.post("runs/outputs", run_id=run, models=[{"model_id": model, "step": 3}]),
    ]
    found = api.get("runs/get", run_id=run)["run"]
    return [done, found.get("inputs"), found.get("outputs")]


@check("POST /runs/log-model", "GET /runs/get")
def check_model_of_an_older_client_is_kept_as_a_tag(api: Api) -> object:
    run = api.run()
    model = {"artifact_path": "model", "run_id": run, "utc_time_created": "x", "flavors": {"python_function": {}}}
    done = api.post("runs/log-model", run_id=run, model_json=_json(model))
    return [done, sorted(tag["key"] for tag in api.get("runs/get", run_id=run)["run"]["data"]["tags"])]


refusals(
    "tracking",
    {
        "inputs_of_an_unknown_run": (
            "POST /runs/log-inputs",
            {"run_id": "0" * 32, "datasets": [{"dataset": _DATASET}]},
        ),
        "inputs_without_a_run": ("POST /runs/log-inputs", {"datasets": [{"dataset": _DATASET}]}),
        "inputs_without_a_dataset": ("POST /runs/log-inputs", {"run_id": "<run>", "datasets": [{}]}),
        "inputs_without_a_name": (
            "POST /runs/log-inputs",
            {"run_id": "<run>", "datasets": [{"dataset": {"digest": "a", "source_type": "x", "source": "y"}}]},
        ),
        "inputs_without_a_digest": (
            "POST /runs/log-inputs",
            {"run_id": "<run>", "datasets": [{"dataset": {"name": "a", "source_type": "x", "source": "y"}}]},
        ),
        "inputs_without_a_source": (
            "POST /runs/log-inputs",
            {"run_id": "<run>", "datasets": [{"dataset": {"name": "a", "digest": "x"}}]},
        ),
        "inputs_with_a_name_of_501_characters": (
            "POST /runs/log-inputs",
            {"run_id": "<run>", "datasets": [{"dataset": {**_DATASET, "name": "x" * 501}}]},
        ),
        "inputs_with_a_digest_of_37_characters": (
            "POST /runs/log-inputs",
            {"run_id": "<run>", "datasets": [{"dataset": {**_DATASET, "digest": "x" * 37}}]},
        ),
        "inputs_of_nothing": ("POST /runs/log-inputs", {"run_id": "<run>"}),
        "inputs_that_are_text": ("POST /runs/log-inputs", {"run_id": "<run>", "datasets": "x"}),
        "inputs_that_are_a_list_of_text": ("POST /runs/log-inputs", {"run_id": "<run>", "datasets": ["x"]}),
        "inputs_with_a_dataset_that_is_text": (
            "POST /runs/log-inputs",
            {"run_id": "<run>", "datasets": [{"dataset": "x"}]},
        ),
        "outputs_of_an_unknown_run": ("POST /runs/outputs", {"run_id": "0" * 32, "models": [{"model_id": "m"}]}),
        "outputs_with_a_step_that_is_no_number": (
            "POST /runs/outputs",
            {"run_id": "<run>", "models": [{"model_id": "m", "step": "x"}]},
        ),
        "log_model_that_is_no_json": ("POST /runs/log-model", {"run_id": "<run>", "model_json": "{"}),
        "log_model_that_lacks_fields": ("POST /runs/log-model", {"run_id": "<run>", "model_json": "{}"}),
        "log_model_of_an_unknown_run": ("POST /runs/log-model", {"run_id": "0" * 32, "model_json": "{}"}),
        "log_model_without_a_model": ("POST /runs/log-model", {"run_id": "<run>"}),
    },
)


def _values_of(api: Api, run: str) -> object:
    history = api.get("metrics/get-history", run_id=run, metric_key="loss").get("metrics", [])
    latest = api.get("runs/get", run_id=run)["run"]["data"].get("metrics", [])
    return {"history": sorted(str(metric["value"]) for metric in history), "latest": [m["value"] for m in latest]}


def _json(value: object) -> str:
    import json

    return json.dumps(value)
