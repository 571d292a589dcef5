"""Searching experiments and runs: the grammar, the order, the pages, and what is refused."""

from __future__ import annotations

import functools

from conformance.api import Api, add, check

_RUNS = (
    {"name": "one", "loss": 0.5, "auc": 0.9, "depth": "3", "team": "growth", "start": 1000},
    {"name": "two", "loss": 0.25, "auc": 0.8, "depth": "10", "team": "Growth", "start": 2000},
    {"name": "three", "loss": "NaN", "depth": "3", "team": "ops'team", "start": 3000},
    {"name": "four", "loss": -1, "start": 4000, "a b": "space"},
)


def _filled(api: Api) -> str:
    """An experiment with the four runs above: the last failed, the first was given a dataset."""
    experiment = api.experiment()
    for item in _RUNS:
        run = api.run(experiment, run_name=item["name"], start_time=item["start"])
        metrics = [{"key": key, "value": item[key], "timestamp": 1} for key in ("loss", "auc") if key in item]
        params = [{"key": key, "value": item[key]} for key in ("depth", "a b") if key in item]
        tags = [{"key": "team", "value": item["team"]}] if "team" in item else []
        api.post("runs/log-batch", run_id=run, metrics=metrics, params=params, tags=tags)
        status = "FAILED" if item["name"] == "four" else "FINISHED"
        api.post("runs/update", run_id=run, status=status, end_time=item["start"] + 10)
        if item["name"] == "one":
            dataset = {"name": "train", "digest": "abc", "source_type": "local", "source": "{}"}
            context = [{"key": "mlflow.data.context", "value": "training"}]
            api.post("runs/log-inputs", run_id=run, datasets=[{"dataset": dataset, "tags": context}])
    return experiment


def _names(api: Api, experiment: str, **arguments: object) -> object:
    answer = api.post("runs/search", experiment_ids=[experiment], **arguments)
    return [run["info"]["run_name"] for run in answer.get("runs", [])] if answer.status == 200 else answer


_FILTERS = {
    "metric_above": ["metrics.loss > 0.3", "metric.loss >= 0.5", "metrics.`loss` < 0.5", "metrics.loss <= -1"],
    "metric_equal": ["metrics.loss = 0.5", "metrics.loss != 0.5", "metrics.loss = 5e-1", "metrics.loss = .5"],
    "metric_missing": ["metrics.nothing > 0", "metrics.auc != 0.9"],
    "metric_against_text": ["metrics.loss > 'x'", "metrics.loss LIKE '0%'", "metrics.loss = '0.5'"],
    "param_equal": ["params.depth = '3'", "params.depth != '3'", 'param.depth = "3"', "parameters.depth = '3'"],
    "param_compared": ["params.depth > '2'", "params.depth = 3", "params.depth IN ('3')"],
    "param_like": ["params.depth LIKE '1%'", "params.depth LIKE '_'", "params.depth ILIKE '%3%'"],
    "param_of_a_key_with_a_space": ["params.`a b` = 'space'", "params.\"a b\" = 'space'", "params.a b = 'space'"],
    "tag_equal": ["tags.team = 'growth'", "tags.team != 'growth'", "tag.team = 'growth'", 'tags.team = "ops\'team"'],
    "tag_like": [
        "tags.team LIKE 'growth'",
        "tags.team ILIKE 'GROWTH'",
        "tags.team LIKE '%row%'",
        "tags.team like 'g%'",
    ],
    "tag_of_mlflow": ["tags.mlflow.runName = 'one'", "tags.`mlflow.runName` LIKE 't%'"],
    "tag_null": ["tags.team IS NULL", "tags.team IS NOT NULL", "params.depth IS NULL", "metrics.auc IS NULL"],
    "attribute_status": ["attributes.status = 'FINISHED'", "status = 'FAILED'", "attribute.status != 'FAILED'"],
    "attribute_name": ["run_name = 'one'", "attributes.run_name LIKE 't%'", "attributes.`run name` = 'one'"],
    "attribute_name_other_spellings": ["attributes.`Run name` = 'one'", "attributes.\"run_name\" ILIKE 'ONE'"],
    "attribute_start_time": ["start_time > 2000", "attributes.start_time <= 2000", "attributes.created = 1000"],
    "attribute_end_time": ["end_time = 1010", "attributes.end_time > 3000"],
    "attribute_start_time_against_text": ["start_time > '2000'", "start_time = 'x'"],
    "attribute_run_id": ["run_id = 'x'", "attributes.run_id != 'x'", "attributes.run_id IN ('x', 'y')"],
    "attribute_run_id_not_in": ["run_id NOT IN ('x')", "run_id IN ('x',)", "run_id IN ()", "run_id IN 'x'"],
    "attribute_in_other_kinds": ["status IN ('FAILED')", "run_name IN ('one', 'two')"],
    "attribute_user": ["user_id = 'x'", "attributes.user_id = 'x'"],
    "attribute_artifact_uri": ["artifact_uri LIKE '%artifacts'", "attributes.artifact_uri = 'x'"],
    "attribute_lifecycle": ["lifecycle_stage = 'active'", "attributes.experiment_id = '0'"],
    "dataset": ["dataset.name = 'train'", "datasets.digest = 'abc'", "dataset.context = 'training'"],
    "dataset_like": ["dataset.name LIKE 'tr%'", "dataset.name != 'train'", "dataset.name IN ('train', 'x')"],
    "dataset_unknown_attribute": ["dataset.color = 'x'", "dataset.name > 'a'"],
    "and": [
        "metrics.loss > 0 and params.depth = '3'",
        "tags.team = 'growth' AND metrics.auc > 0.85 AND status = 'FINISHED'",
    ],
    "and_within_quotes": ["tags.team = 'a and b' AND metrics.loss > 0", "tags.team = 'x AND y'"],
    "or": ["metrics.loss > 0 OR metrics.auc > 0", "(metrics.loss > 0)"],
    "not": ["NOT metrics.loss > 0", "tags.team NOT LIKE 'g%'"],
    "incomplete": [
        "metrics.loss >",
        "metrics.loss",
        "> 3",
    ],
    "ending_in_and": ["metrics.loss > 0 AND", "AND"],
    "nonsense": [
        "this is no filter",
        "metrics.loss === 3",
        "'x' = tags.team",
        ";",
        "metrics.loss > 0; DROP TABLE runs",
    ],
    "unknown_kind": ["color.loss > 0", ".loss > 0"],
    "without_a_key": ["metrics. > 0", "params. = 'x'"],
    "unknown_attribute": ["attributes.color = 'x'", "color = 'x'"],
    "quotes": ["params.depth = 3'", "params.depth = '3", "params.`depth = '3'", "tags.team = `growth`"],
    "empty": [""],
    "blank": ["   "],
    "spaces": ["  metrics.loss>0.3  ", "metrics.loss   =0.5", "metrics.loss\n> 0.3"],
    "run_prefix": ["run.status = 'FAILED'", "attr.status = 'FAILED'"],
    "nan": ["metrics.loss > 'NaN'", "metrics.loss = NaN"],
}


def _filter(api: Api, filters: list[str]) -> object:
    experiment = _filled(api)
    return [[text, _names(api, experiment, filter=text)] for text in filters]


for _name, _texts in _FILTERS.items():
    add(f"run_filter_{_name}", "search", ["POST /runs/search"], functools.partial(_filter, filters=_texts))

_ORDERS = {
    "default": [[]],
    "metric": [["metrics.loss"], ["metrics.loss DESC"], ["metric.auc ASC"], ["metrics.`loss` desc"]],
    "param": [["params.depth"], ["params.depth DESC"], ["params.`a b`"]],
    "tag": [["tags.team"], ["tags.team DESC"]],
    "attribute": [["start_time"], ["attributes.start_time DESC"], ["attributes.status ASC"], ["run_name"]],
    "attribute_other_spellings": [["Created"], ["attributes.end_time DESC"], ["attribute.run_id"], ["`Run name`"]][:2],
    "several": [["params.depth DESC", "start_time ASC"], ["tags.team", "metrics.loss"]],
    "missing": [["metrics.nothing"], ["params.nothing DESC"]],
    "dataset": [["dataset.name"]],
    "unknown": [["color"], ["attributes.color"], ["color.x"], ["metrics.loss UP"], [""], ["metrics.loss DESC ASC"]],
    "odd": [["metrics.loss, metrics.auc"], ["metrics"], ["; DROP TABLE runs"]],
}


def _order(api: Api, orders: list[list[str]]) -> object:
    experiment = _filled(api)
    return [[order, _names(api, experiment, order_by=order)] for order in orders]


for _name, _texts in _ORDERS.items():
    add(f"run_order_by_{_name}", "search", ["POST /runs/search"], functools.partial(_order, orders=_texts))


@check("POST /runs/search")
def check_run_search_gives_whole_runs(api: Api) -> object:
    return api.post("runs/search", experiment_ids=[_filled(api)], filter="run_name = 'one'")


@check("POST /runs/search")
def check_run_search_by_pages(api: Api) -> object:
    experiment, pages, token = _filled(api), [], {}
    for _ in range(4):
        answer = api.post("runs/search", experiment_ids=[experiment], max_results=2, **token)
        pages.append([run["info"]["run_name"] for run in answer.get("runs", [])])
        if not answer.get("next_page_token"):
            break
        token = {"page_token": answer["next_page_token"]}
    return pages


@check("POST /runs/search", "POST /runs/delete")
def check_run_search_by_lifecycle(api: Api) -> object:
    experiment = api.experiment()
    api.run(experiment, run_name="kept")
    api.post("runs/delete", run_id=api.run(experiment, run_name="gone"))
    views = ("ACTIVE_ONLY", "DELETED_ONLY", "ALL", "SOME")
    found = [_names(api, experiment, run_view_type=view) for view in views]
    return [sorted(names) if isinstance(names, list) else names for names in found]


@check("POST /runs/search")
def check_run_search_limits(api: Api) -> object:
    experiment = api.experiment()
    api.run(experiment)
    return [[limit, _names(api, experiment, max_results=limit)] for limit in (0, -1, 1, 50_000, 50_001, "x", "1")]


@check("POST /runs/search")
def check_run_search_page_tokens_that_are_none(api: Api) -> object:
    experiment = api.experiment()
    return [_names(api, experiment, page_token=token) for token in ("", "zzz", "-1", "9" * 30)]


@check("POST /runs/search")
def check_run_search_of_several_experiments(api: Api) -> object:
    first, second = api.experiment("first"), api.experiment("second")
    api.run(first, run_name="a", start_time=1)
    api.run(second, run_name="b", start_time=2)
    answer = api.post("runs/search", experiment_ids=[first, second])
    return [run["info"]["run_name"] for run in answer["runs"]]


@check("POST /runs/search")
def check_run_search_of_no_or_unknown_experiments(api: Api) -> object:
    return [
        api.post("runs/search"),
        api.post("runs/search", experiment_ids=[]),
        api.post("runs/search", experiment_ids=["999999"]),
        api.post("runs/search", experiment_ids=["abc"]),
    ]


@check("POST /runs/search")
def check_run_search_with_arguments_of_other_types(api: Api) -> object:
    experiment = api.experiment()
    return [
        api.post("runs/search", experiment_ids=experiment),
        api.post("runs/search", experiment_ids=[experiment], filter=7),
        api.post("runs/search", experiment_ids=[experiment], filter=["x"]),
        api.post("runs/search", experiment_ids=[experiment], order_by="start_time"),
        api.post("runs/search", experiment_ids=[experiment], order_by={"a": 1}),
        api.post("runs/search", experiment_ids=[experiment], order_by=[7]),
        api.post("runs/search", experiment_ids=[7]),
        api.post("runs/search", experiment_ids=[experiment], run_view_type=7),
    ]


# experiments


def _experiments(api: Api) -> None:
    for name, team in (("alpha", "growth"), ("Beta", "ops"), ("gamma", None)):
        tags = [] if team is None else [{"key": "team", "value": team}]
        api.post("experiments/create", name=api.name(name), tags=tags)


def _experiment_names(api: Api, **arguments: object) -> object:
    answer = api.post("experiments/search", **{"max_results": 1000, **arguments})
    if answer.status != 200:
        return answer
    names = [item["name"] for item in answer.get("experiments", [])]
    return [name.removeprefix(api.check + "-") for name in names if name.startswith(api.check + "-")]


_EXPERIMENT_FILTERS = {
    "prefixed_in_the_plural": ["attributes.name LIKE '%mm%'"],
    "name": ["name LIKE '%-alpha'", "name ILIKE '%-BETA'", "name != 'x'", "attribute.name != 'x'"],
    "tags": ["tags.team = 'growth'", "tags.`team` != 'growth'", "tag.team LIKE '%'", "tags.team ILIKE 'OPS'"],
    "null": ["tags.team IS NULL", "tags.team IS NOT NULL"],
    "times": ["creation_time > 0", "last_update_time < 5", "creation_time = 'x'", "creation_time LIKE '1%'"],
    "refused": ["color = 'x'", "name > 'a'", "name = 7", "metrics.x = 1", "params.x = '1'", "name", "name = 'x' OR 1"],
    "ids": ["experiment_id = 'x'", "attributes.experiment_id = '0'", "lifecycle_stage = 'active'"],
    "in": ["name IN ('x')", "tags.team IN ('growth')"],
}


def _experiment_filter(api: Api, filters: list[str]) -> object:
    _experiments(api)
    found = [_experiment_names(api, filter=text) for text in filters]
    return [
        [text, sorted(names) if isinstance(names, list) else names] for text, names in zip(filters, found, strict=True)
    ]


for _name, _texts in _EXPERIMENT_FILTERS.items():
    _endpoints = ["POST /experiments/search"]
    add(f"experiment_filter_{_name}", "search", _endpoints, functools.partial(_experiment_filter, filters=_texts))


@check("POST /experiments/search")
def check_experiment_order_by(api: Api) -> object:
    _experiments(api)
    orders = (
        ["name"], ["name DESC"], ["name asc"], ["attribute.name"], ["creation_time", "name"],
        ["experiment_id"], ["experiment_id DESC"], ["last_update_time DESC", "name"],
        ["color"], ["tags.team"], ["name UP"], [""], ["lifecycle_stage", "name"],
    )  # fmt: skip
    return [[order, _experiment_names(api, order_by=order)] for order in orders]


@check("POST /experiments/search")
def check_experiment_search_newest_first(api: Api) -> object:
    _experiments(api)
    return _experiment_names(api)


@check("POST /experiments/search", "GET /experiments/search")
def check_experiment_search_gives_whole_experiments(api: Api) -> object:
    _experiments(api)
    text = f"name = '{api.name('alpha')}'"
    return [
        api.post("experiments/search", filter=text, max_results=5),
        api.get("experiments/search", filter=text, max_results=5),
    ]


@check("POST /experiments/search")
def check_experiment_search_by_pages(api: Api) -> object:
    _experiments(api)
    pages, token = [], {}
    for _ in range(4):
        arguments = {"filter": f"name LIKE '{api.check}%'", "order_by": ["name"], "max_results": 2, **token}
        answer = api.post("experiments/search", **arguments)
        pages.append([item["name"] for item in answer.get("experiments", [])])
        if not answer.get("next_page_token"):
            break
        token = {"page_token": answer["next_page_token"]}
    return pages


@check("POST /experiments/search", "POST /experiments/delete")
def check_experiment_search_by_lifecycle(api: Api) -> object:
    api.experiment("kept")
    api.post("experiments/delete", experiment_id=api.experiment("gone"))
    views = ("ACTIVE_ONLY", "DELETED_ONLY", "ALL", "SOME")
    found = [_experiment_names(api, view_type=view) for view in views]
    return [sorted(names) if isinstance(names, list) else names for names in found]


@check("POST /experiments/search")
def check_experiment_search_limits(api: Api) -> object:
    statuses = []
    for limit in (-1, 0, 1, 50_000, 50_001, "x"):
        answer = api.post("experiments/search", max_results=limit, filter="name = 'nobody'")
        statuses.append([limit, answer.status, answer.get("error_code")])
    return statuses


@check("POST /experiments/search")
def check_experiment_search_without_a_limit(api: Api) -> object:
    return api.post("experiments/search", filter="name = 'nobody'")


@check("POST /experiments/search")
def check_experiment_search_page_tokens_that_are_none(api: Api) -> object:
    return [
        api.post("experiments/search", max_results=2, filter="name = 'nobody'", page_token=token)
        for token in ("", "zzz", "-1")
    ]
