"""Logged models: what a client saved before it is registered."""

from __future__ import annotations

import functools

from conformance.api import Api, add, check, refusals

_ONE = "/logged-models/{model_id}"


@check("POST /logged-models", f"GET {_ONE}")
def check_logged_model_is_kept(api: Api) -> object:
    made = api.post(
        "logged-models",
        experiment_id=api.experiment(),
        name="tree",
        model_type="agent",
        source_run_id=api.run(),
        params=[{"key": "depth", "value": "3"}],
        tags=[{"key": "team", "value": "growth"}],
    )
    return [made, api.get(f"logged-models/{made['model']['info']['model_id']}")]


@check("POST /logged-models")
def check_logged_model_without_a_name_gets_one(api: Api) -> object:
    return bool(api.post("logged-models", experiment_id="0")["model"]["info"].get("name"))


@check("POST /logged-models")
def check_logged_model_without_an_experiment(api: Api) -> object:
    answer = api.post("logged-models", name="x")
    return [answer.status, answer.get("error_code")]


@check("POST /logged-models")
def check_logged_model_names(api: Api) -> object:
    names = ("a b", "ü", "a.b", "a/b", "a:b", "a%b", 'a"b', "a'b", "..", "x" * 250, "x" * 500)
    seen = [[name, api.post("logged-models", experiment_id="0", name=name)] for name in names]
    return [[name[:9], answer.status, answer.get("error_code")] for name, answer in seen]


@check(f"PATCH {_ONE}", f"GET {_ONE}")
def check_logged_model_finalized(api: Api) -> object:
    seen = []
    for status in ("LOGGED_MODEL_READY", "LOGGED_MODEL_UPLOAD_FAILED"):
        model = api.logged_model()
        seen += [api.patch(f"logged-models/{model}", model_id=model, status=status), api.get(f"logged-models/{model}")]
    return seen


@check(f"PATCH {_ONE}")
def check_logged_model_finalized_with_a_status_that_is_none(api: Api) -> object:
    model = api.logged_model()
    return [
        api.patch(f"logged-models/{model}", model_id=model, status=status)
        for status in ("DONE", "", 9, "LOGGED_MODEL_PENDING")
    ]


@check(f"PATCH {_ONE}")
def check_logged_model_finalized_without_a_status(api: Api) -> object:
    model = api.logged_model()
    return api.patch(f"logged-models/{model}", model_id=model)


@check(f"POST {_ONE}/params", f"GET {_ONE}")
def check_logged_model_params(api: Api) -> object:
    model = api.logged_model(params=[{"key": "a", "value": "1"}])
    done = api.post(f"logged-models/{model}/params", model_id=model, params=[{"key": "b", "value": "2"}])
    return [done, api.get(f"logged-models/{model}")]


@check(f"POST {_ONE}/params", f"GET {_ONE}")
def check_logged_model_param_changed(api: Api) -> object:
    model = api.logged_model(params=[{"key": "a", "value": "1"}])
    done = [
        api.post(f"logged-models/{model}/params", model_id=model, params=[{"key": "a", "value": value}])
        for value in ("1", "2")
    ]
    return [done, api.get(f"logged-models/{model}")["model"]["data"]["params"]]


@check(f"PATCH {_ONE}/tags", f"DELETE {_ONE}/tags/{{key}}", f"GET {_ONE}")
def check_logged_model_tags(api: Api) -> object:
    model, seen = api.logged_model(), []
    for value in ("one", "two"):
        tags = [{"key": "team", "value": value}]
        seen.append(api.patch(f"logged-models/{model}/tags", model_id=model, tags=tags))
    seen.append(api.get(f"logged-models/{model}"))
    seen.append(api.delete(f"logged-models/{model}/tags/team"))
    return [*seen, api.get(f"logged-models/{model}")]


@check(f"DELETE {_ONE}", f"GET {_ONE}")
def check_logged_model_deleted(api: Api) -> object:
    model = api.logged_model()
    done = [api.delete(f"logged-models/{model}") for _ in range(2)]
    return [done, api.get(f"logged-models/{model}")]


@check(f"GET {_ONE}/artifacts/directories")
def check_logged_model_artifacts(api: Api) -> object:
    model = api.logged_model()
    uri = api.get(f"logged-models/{model}")["model"]["info"]["artifact_uri"]
    for path in ("MLmodel", "data/weights.bin"):
        api.artifact("PUT", "/" + uri.removeprefix("mlflow-artifacts:/").lstrip("/") + "/" + path, b"x")
    folders = ("", "data", "nothing", "../..", "/etc")
    path = f"logged-models/{model}/artifacts/directories"
    return [
        api.get(path),
        *([folder, api.get(path, artifact_directory_path=folder)] for folder in folders),
    ]


@check("POST /runs/log-metric", f"GET {_ONE}")
def check_logged_model_metrics(api: Api) -> object:
    run = api.run()
    model = api.logged_model(source_run_id=run)
    api.post("runs/log-metric", run_id=run, key="auc", value=0.9, timestamp=1, step=0, model_id=model)
    return api.get(f"logged-models/{model}")["model"]["data"].get("metrics")


def _measured(api: Api) -> str:
    """The three logged models, each measured at two steps."""
    experiment = _filled(api)
    found = api.post("logged-models/search", experiment_ids=[experiment], order_by=[{"field_name": "name"}])
    run = api.post("runs/create", experiment_id=experiment)["run"]["info"]["run_id"]
    for model, (first, last) in zip(found["models"], ((0.5, 0.9), (0.8, 0.3), (0.1, 0.6)), strict=True):
        about = {"key": "auc", "model_id": model["info"]["model_id"]}
        values = [{**about, "value": first, "timestamp": 1, "step": 0}, {**about, "value": last, "timestamp": 2}]
        values += [{**about, "key": "mae", "value": 1 - last, "timestamp": 3, "step": 1}]
        api.post("runs/log-batch", run_id=run, metrics=values)
    return experiment


@check("POST /logged-models/search", "POST /runs/log-batch")
def check_logged_model_order_by_metrics(api: Api) -> object:
    experiment, up = _measured(api), {"field_name": "metrics.auc", "ascending": True}
    seen = [_names(api, experiment, order_by=[order]) for order in (up, {**up, "ascending": False})]
    orders = [{"field_name": "metrics.nothing"}, {"field_name": "name"}]
    return [*seen, _names(api, experiment, order_by=orders)]


@check("POST /logged-models/search", "POST /runs/log-batch")
def check_logged_model_filter_by_metrics_that_changed(api: Api) -> object:
    experiment = _measured(api)
    filters = ("metrics.auc >= 0.6", "metrics.auc < 0.5", "metrics.mae <= 0.1 AND name = 'alpha'", "metrics.none > 0")
    return [_names(api, experiment, filter=text, order_by=[{"field_name": "name"}]) for text in filters]


@check("GET /logged-models/{model_id}", "POST /runs/log-batch")
def check_logged_model_metrics_all_told(api: Api) -> object:
    experiment = _measured(api)
    found = api.post("logged-models/search", experiment_ids=[experiment], order_by=[{"field_name": "name"}])
    told = [[item["key"], item["value"]] for model in found["models"] for item in model["data"]["metrics"]]
    return sorted(told)


def _measured_on_datasets(api: Api) -> str:
    """The three logged models, two measured on one dataset in two versions, and one on none."""
    experiment = _filled(api)
    found = api.post("logged-models/search", experiment_ids=[experiment], order_by=[{"field_name": "name"}])
    run = api.run(experiment)
    values = [("d2", 0.2, 1), ("d1", 0.5, 2), ("d1", 0.9, 3)], [("d1", 0.7, 1), ("d2", 0.8, 2)], [("", 0.99, 1)]
    for model, measured in zip(found["models"], values, strict=True):
        for digest, value, time in measured:
            of_dataset = {"dataset_name": "shop", "dataset_digest": digest} if digest else {}
            fields = {"key": "auc", "value": value, "timestamp": time, "step": time, **of_dataset}
            api.post("runs/log-metric", run_id=run, model_id=model["info"]["model_id"], **fields)
    return experiment


_D1, _D2 = ({"dataset_name": "shop", "dataset_digest": digest} for digest in ("d1", "d2"))


@check("POST /logged-models/search", "POST /runs/log-metric")
def check_logged_model_search_of_datasets(api: Api) -> object:
    experiment, by_name = _measured_on_datasets(api), [{"field_name": "name"}]
    unknown = {"dataset_name": "none", "dataset_digest": "d1"}
    asked = ([_D1], [_D2], [_D1, _D2], [unknown], [unknown, _D2], [{**_D1, "dataset_digest": "none"}], [])
    return [[datasets, _names(api, experiment, datasets=datasets, order_by=by_name)] for datasets in asked]


@check("POST /logged-models/search", "POST /runs/log-metric")
def check_logged_model_search_of_datasets_and_metrics(api: Api) -> object:
    experiment, by_name = _measured_on_datasets(api), [{"field_name": "name"}]
    asked = [
        (datasets, text)
        for datasets in ([_D1], [_D2], [_D1, _D2], [])
        for text in ("metrics.auc >= 0.9", "metrics.auc > 0.75 AND name = 'beta'", "metrics.none > 0", "name = 'gamma'")
    ]
    return [[*one, _names(api, experiment, datasets=one[0], filter=one[1], order_by=by_name)] for one in asked]


@check("POST /logged-models/search", "POST /runs/log-metric")
def check_logged_model_search_of_a_dataset_in_any_version(api: Api) -> object:
    return _names(
        api, _measured_on_datasets(api), datasets=[{"dataset_name": "shop"}], order_by=[{"field_name": "name"}]
    )


@check("POST /logged-models/search", "POST /runs/log-metric")
def check_logged_model_order_by_metrics_of_a_dataset(api: Api) -> object:
    experiment, field = _measured_on_datasets(api), {"field_name": "metrics.auc"}
    asked = ({}, _D1, _D2, {"dataset_name": "shop"}, {"dataset_digest": "d2"}, {"dataset_name": "none"})
    return [
        [which, ascending, _names(api, experiment, order_by=[{**field, **which, "ascending": ascending}])]
        for which in asked
        for ascending in (True, False)
    ]


@check("POST /logged-models/search")
def check_logged_model_search_of_datasets_that_are_none(api: Api) -> object:
    experiment = api.experiment()
    asked = ([{}], [{"dataset_digest": "d1"}], [{"dataset_name": ""}], ["shop"], "shop", [{"dataset_name": 1}])
    return [[datasets, _names(api, experiment, datasets=datasets)] for datasets in asked]


_LONG = {"key": "k" * 251, "value": "x"}
refusals(
    "logged_models",
    {
        "logged_model_in_an_unknown_experiment": ("POST /logged-models", {"experiment_id": "999999", "name": "x"}),
        "logged_model_of_an_unknown_run": (
            "POST /logged-models",
            {"experiment_id": "0", "name": "x", "source_run_id": "0" * 32},
        ),
        "logged_model_with_a_param_key_of_251_characters": (
            "POST /logged-models",
            {"experiment_id": "0", "name": "x", "params": [_LONG]},
        ),
        "logged_model_with_a_tag_key_of_251_characters": (
            "POST /logged-models",
            {"experiment_id": "0", "name": "x", "tags": [_LONG]},
        ),
        "logged_model_with_params_that_are_text": ("POST /logged-models", {"experiment_id": "0", "params": "x"}),
        "logged_model_params_of_an_unknown_one": (
            "POST /logged-models/m-unknown/params",
            {"model_id": "m-unknown", "params": [{"key": "a", "value": "1"}]},
        ),
        "logged_model_tags_of_an_unknown_one": (
            "PATCH /logged-models/m-unknown/tags",
            {"tags": [{"key": "a", "value": "1"}]},
        ),
        "logged_model_tag_key_of_251_characters": (f"PATCH {_ONE}/tags", {"tags": [_LONG]}),
        "logged_model_param_key_of_251_characters": (f"POST {_ONE}/params", {"params": [_LONG]}),
        "logged_model_param_value_of_6001_characters": (
            f"POST {_ONE}/params",
            {"params": [{"key": "k", "value": "x" * 6001}]},
        ),
        "logged_model_tag_value_of_8001_characters": (
            f"PATCH {_ONE}/tags",
            {"tags": [{"key": "k", "value": "x" * 8001}]},
        ),
        "logged_model_tag_deleted_that_is_not_there": (f"DELETE {_ONE}/tags/{{key}}", {}),
        "logged_model_unknown": ("GET /logged-models/m-unknown", {}),
        "logged_model_finalized_unknown": (
            "PATCH /logged-models/m-unknown",
            {"model_id": "m-unknown", "status": "LOGGED_MODEL_READY"},
        ),
        "logged_model_artifacts_of_an_unknown_one": ("GET /logged-models/m-unknown/artifacts/directories", {}),
        "logged_model_search_without_experiments": ("POST /logged-models/search", {}),
        "logged_model_search_of_unknown_experiments": ("POST /logged-models/search", {"experiment_ids": ["999999"]}),
        "logged_model_search_of_experiments_as_text": ("POST /logged-models/search", {"experiment_ids": "0"}),
        "logged_model_search_order_that_is_text": (
            "POST /logged-models/search",
            {"experiment_ids": ["<experiment>"], "order_by": ["name"]},
        ),
    },
)


def _filled(api: Api) -> str:
    """An experiment with three logged models."""
    experiment = api.experiment()
    for name, kind, depth, team in (
        ("alpha", "agent", "3", "growth"),
        ("beta", "", "10", "ops"),
        ("gamma", "x", "3", ""),
    ):
        params, tags = [{"key": "depth", "value": depth}], [{"key": "team", "value": team}] if team else []
        api.post("logged-models", experiment_id=experiment, name=name, model_type=kind, params=params, tags=tags)
    return experiment


def _names(api: Api, experiment: str, **arguments: object) -> object:
    answer = api.post("logged-models/search", experiment_ids=[experiment], **arguments)
    return [m["info"]["name"] for m in answer.get("models", [])] if answer.status == 200 else answer


_FILTERS = {
    "name": ["name = 'alpha'", "name LIKE '%a'", "name ILIKE 'ALPHA'", "name != 'alpha'", "attributes.name = 'beta'"],
    "type": ["model_type = 'agent'", "attributes.model_type != 'agent'", "model_type = ''"],
    "status": ["status = 'LOGGED_MODEL_PENDING'", "status = 'PENDING'", "status = 'READY'", "status != 'READY'"],
    "params": ["params.depth = '3'", "params.depth != '3'", "params.depth LIKE '1%'", "params.depth = 3"],
    "tags": ["tags.team = 'growth'", "tags.team != 'growth'", "tags.`team` ILIKE 'OPS'", "tags.team IN ('ops')"],
    "times": ["creation_timestamp > 0", "creation_time > 0", "last_updated_timestamp > 0"],
    "in": ["name IN ('alpha', 'beta')", "name NOT IN ('alpha')", "model_id IN ('x')", "source_run_id = 'x'"],
    "metrics": ["metrics.auc > 0.5", "metrics.auc = 'x'"],
    "and": ["name LIKE '%a' AND params.depth = '3'", "name = 'alpha' AND tags.team = 'ops'"],
    "refused": ["color = 'x'", "name > 'a'", "name = 7", "name", "name = 'x' OR 1 = 1", "color.x = '1'"],
    "null": ["tags.team IS NULL", "params.depth IS NOT NULL"],
}


def _filter(api: Api, filters: list[str]) -> object:
    experiment = _filled(api)
    found = [_names(api, experiment, filter=text) for text in filters]
    return [
        [text, sorted(names) if isinstance(names, list) else names] for text, names in zip(filters, found, strict=True)
    ]


for _name, _texts in _FILTERS.items():
    _do = functools.partial(_filter, filters=_texts)
    add(f"logged_model_filter_{_name}", "logged_models", ["POST /logged-models/search"], _do)


@check("POST /logged-models/search")
def check_logged_model_order_by(api: Api) -> object:
    experiment = _filled(api)
    orders = (
        [{"field_name": "name"}],
        [{"field_name": "name", "ascending": False}],
        [{"field_name": "model_type"}],
        [{"field_name": "color"}],
        [{"field_name": ""}],
        [{}],
    )
    return [[order, _names(api, experiment, order_by=order)] for order in orders]


@check("POST /logged-models/search")
def check_logged_model_order_by_params_and_tags(api: Api) -> object:
    experiment = _filled(api)
    fields = ("attributes.name", "params.depth", "tags.team")
    return [_names(api, experiment, order_by=[{"field_name": field}, {"field_name": "name"}]) for field in fields]


@check("POST /logged-models/search")
def check_logged_model_order_by_time(api: Api) -> object:
    experiment = _filled(api)
    fields = ("creation_timestamp", "creation_time", "last_updated_timestamp")
    found = [_names(api, experiment, order_by=[{"field_name": field}]) for field in fields]
    return [sorted(names) if isinstance(names, list) else names for names in found]


@check("POST /logged-models/search")
def check_logged_model_search_gives_whole_models(api: Api) -> object:
    return api.post("logged-models/search", experiment_ids=[_filled(api)], filter="name = 'alpha'")


@check("POST /logged-models/search")
def check_logged_model_search_by_pages(api: Api) -> object:
    experiment, pages, token = _filled(api), [], {}
    for _ in range(4):
        fields = {"order_by": [{"field_name": "name"}], "max_results": 2, **token}
        answer = api.post("logged-models/search", experiment_ids=[experiment], **fields)
        pages.append([model["info"]["name"] for model in answer.get("models", [])])
        if not answer.get("next_page_token"):
            break
        token = {"page_token": answer["next_page_token"]}
    return pages


@check("POST /logged-models/search")
def check_logged_model_search_limits(api: Api) -> object:
    experiment = api.experiment()
    limits = (1, 50, 51, 100, 101, 50_000, 50_001, "x")
    return [[limit, _names(api, experiment, max_results=limit)] for limit in limits]


@check("POST /logged-models/search")
def check_logged_model_search_limits_below_one(api: Api) -> object:
    experiment = api.experiment()
    return [_names(api, experiment, max_results=limit) for limit in (0, -1)]


@check("POST /logged-models/search")
def check_logged_model_search_page_tokens_that_are_none(api: Api) -> object:
    experiment = api.experiment()
    return [_names(api, experiment, page_token=token) for token in ("", "zzz")]
