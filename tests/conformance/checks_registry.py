"""Registered models and their versions: what is kept, found, moved, and refused."""

from __future__ import annotations

import functools

from conformance.api import Api, add, check, refusals

# models


@check("POST /registered-models/create", "GET /registered-models/get")
def check_model_is_kept(api: Api) -> object:
    tags = [{"key": "team", "value": "growth"}]
    made = api.post("registered-models/create", name=api.name(), description="what it is", tags=tags)
    return [made, api.get("registered-models/get", name=api.name())]


@check("POST /registered-models/create", "GET /registered-models/get")
def check_model_names_that_are_allowed(api: Api) -> object:
    names = [api.name(text) for text in ("Überfluß 東京", "a b", "a.b", "a-b_c", "a\\b", "a#b")]
    made = [[name, api.post("registered-models/create", name=name)] for name in names]
    return [made, [api.get("registered-models/get", name=name) for name in names]]


@check("POST /registered-models/create")
def check_model_names_with_signs_that_mean_something(api: Api) -> object:
    names = [api.name(text) for text in ("a@b", "a%b", "a'b", 'a"b')]
    return [api.post("registered-models/create", name=name) for name in names]


@check("POST /registered-models/create")
def check_model_names_that_are_not(api: Api) -> object:
    names = ["", "a/b", "a:b", " ", ".", ".."]
    return [[name[:9], api.post("registered-models/create", name=name)] for name in names]


@check("POST /registered-models/create")
def check_model_name_of_256_characters(api: Api) -> object:
    return api.post("registered-models/create", name=api.name("x" * 256)[:256])


@check("POST /registered-models/create")
def check_model_name_taken(api: Api) -> object:
    return api.post("registered-models/create", name=api.model())


@check("PATCH /registered-models/update", "GET /registered-models/get")
def check_model_described(api: Api) -> object:
    model = api.model(description="before")
    done = api.patch("registered-models/update", name=model, description="after")
    return [done, api.get("registered-models/get", name=model)]


@check("PATCH /registered-models/update", "GET /registered-models/get")
def check_model_updated_without_a_description(api: Api) -> object:
    model = api.model(description="before")
    return [api.patch("registered-models/update", name=model), api.get("registered-models/get", name=model)]


@check("POST /registered-models/rename", "GET /registered-models/get", "GET /model-versions/get")
def check_model_renamed(api: Api) -> object:
    model, other = api.model(), api.name("other")
    version = api.version(model)
    done = api.post("registered-models/rename", name=model, new_name=other)
    return [
        done,
        api.get("registered-models/get", name=model),
        api.get("registered-models/get", name=other),
        api.get("model-versions/get", name=other, version=version),
    ]


@check("POST /registered-models/rename")
def check_model_renamed_to_a_name_taken(api: Api) -> object:
    return api.post("registered-models/rename", name=api.model(), new_name=api.model("other"))


@check("POST /registered-models/rename")
def check_model_renamed_to_its_own_name(api: Api) -> object:
    model = api.model()
    return api.post("registered-models/rename", name=model, new_name=model)


@check("POST /registered-models/rename")
def check_model_renamed_to_a_name_that_is_none(api: Api) -> object:
    model = api.model()
    return [api.post("registered-models/rename", name=model, new_name=name) for name in ("", "a/b", "a:b")]


@check("DELETE /registered-models/delete", "GET /registered-models/get", "GET /model-versions/get")
def check_model_deleted_with_its_versions(api: Api) -> object:
    model = api.model()
    version = api.version(model)
    return [
        api.delete("registered-models/delete", name=model),
        api.get("registered-models/get", name=model),
        api.get("model-versions/get", name=model, version=version),
        api.get("model-versions/search", filter=f"name = '{model}'"),
    ]


@check("DELETE /registered-models/delete", "POST /registered-models/create")
def check_model_name_free_after_deletion(api: Api) -> object:
    model = api.model()
    api.version(model)
    api.delete("registered-models/delete", name=model)
    return [api.model(), api.version(model)]


@check("POST /registered-models/set-tag", "DELETE /registered-models/delete-tag", "GET /registered-models/get")
def check_model_tags(api: Api) -> object:
    model, seen = api.model(), []
    for value in ("one", "two"):
        seen.append(api.post("registered-models/set-tag", name=model, key="team", value=value))
        seen.append(api.get("registered-models/get", name=model))
    seen.append(api.delete("registered-models/delete-tag", name=model, key="team"))
    return [*seen, api.get("registered-models/get", name=model)]


@check("POST /registered-models/set-tag")
def check_model_tag_limits(api: Api) -> object:
    model = api.model()
    pairs = (("k" * 250, "x"), ("k" * 251, "x"), ("k", "x" * 100_000), ("k", "x" * 100_001), ("", "x"), ("../k", "x"))
    return [api.post("registered-models/set-tag", name=model, key=key, value=value) for key, value in pairs]


@check("POST /registered-models/set-tag", "GET /registered-models/get")
def check_model_tag_with_an_empty_value(api: Api) -> object:
    model = api.model()
    done = api.post("registered-models/set-tag", name=model, key="team", value="")
    return [done, [tag["key"] for tag in api.get("registered-models/get", name=model)["registered_model"]["tags"]]]


refusals(
    "registry",
    {
        "model_without_a_name": ("POST /registered-models/create", {}),
        "model_with_a_number_as_name": ("POST /registered-models/create", {"name": 7}),
        "model_with_tags_that_are_text": ("POST /registered-models/create", {"name": "bad tags", "tags": "x"}),
        "model_with_a_tag_without_a_key": (
            "POST /registered-models/create",
            {"name": "no key", "tags": [{"value": "x"}]},
        ),
        "model_unknown": ("GET /registered-models/get", {"name": "nobody's"}),
        "model_get_without_a_name": ("GET /registered-models/get", {}),
        "model_update_of_an_unknown_one": ("PATCH /registered-models/update", {"name": "nobody's", "description": "x"}),
        "model_update_without_a_name": ("PATCH /registered-models/update", {"description": "x"}),
        "model_rename_of_an_unknown_one": ("POST /registered-models/rename", {"name": "nobody's", "new_name": "x y z"}),
        "model_rename_without_a_new_name": ("POST /registered-models/rename", {"name": "<model>"}),
        "model_delete_of_an_unknown_one": ("DELETE /registered-models/delete", {"name": "nobody's"}),
        "model_delete_without_a_name": ("DELETE /registered-models/delete", {}),
        "model_tag_of_an_unknown_one": (
            "POST /registered-models/set-tag",
            {"name": "nobody's", "key": "k", "value": "v"},
        ),
        "model_tag_without_a_key": ("POST /registered-models/set-tag", {"name": "<model>", "value": "v"}),
        "model_tag_without_a_value": ("POST /registered-models/set-tag", {"name": "<model>", "key": "k"}),
        "model_tag_deleted_that_is_not_there": (
            "DELETE /registered-models/delete-tag",
            {"name": "<model>", "key": "k"},
        ),
        "model_tag_deleted_of_an_unknown_one": (
            "DELETE /registered-models/delete-tag",
            {"name": "nobody's", "key": "k"},
        ),
        "model_tag_deleted_without_a_key": ("DELETE /registered-models/delete-tag", {"name": "<model>"}),
    },
)

# versions


@check("POST /model-versions/create", "GET /model-versions/get")
def check_version_is_kept(api: Api) -> object:
    model, run = api.model(), api.run()
    made = api.post(
        "model-versions/create",
        name=model,
        source=f"mlflow-artifacts:/0/{run}/artifacts/model",
        run_id=run,
        description="the first",
        tags=[{"key": "team", "value": "growth"}],
    )
    return [made, api.get("model-versions/get", name=model, version="1")]


@check("POST /model-versions/create", "GET /model-versions/get")
def check_version_tags_exact(api: Api) -> object:
    model = api.model()
    tags = api.get("model-versions/get", name=model, version=api.version(model))["model_version"].get("tags", [])
    return [[tag["key"], tag["value"]] for tag in tags]


@check("GET /model-versions/get")
def check_who_a_version_is_of(api: Api) -> object:
    model = api.model()
    version = api.get("model-versions/get", name=model, version=api.version(model))["model_version"]
    return {"user": version.get("user_id", "")}


@check("POST /model-versions/create", "DELETE /model-versions/delete")
def check_version_numbers_are_counted_on(api: Api) -> object:
    model = api.model()
    numbers = [api.version(model), api.version(model)]
    api.delete("model-versions/delete", name=model, version="1")
    return [*numbers, api.version(model)]


@check("POST /model-versions/create", "DELETE /model-versions/delete")
def check_version_number_after_the_last_was_deleted(api: Api) -> object:
    model = api.model()
    api.version(model)
    api.delete("model-versions/delete", name=model, version=api.version(model))
    return api.version(model)


@check("POST /model-versions/create")
def check_version_of_a_logged_model(api: Api) -> object:
    model, run = api.model(), api.run()
    logged = api.logged_model(source_run_id=run)
    return api.post("model-versions/create", name=model, source=f"models:/{logged}", model_id=logged)


@check("POST /model-versions/create")
def check_version_of_a_logged_model_by_its_files(api: Api) -> object:
    model, run = api.model(), api.run()
    logged = api.logged_model(source_run_id=run)
    source = api.get(f"logged-models/{logged}")["model"]["info"]["artifact_uri"]
    return api.post("model-versions/create", name=model, source=source, model_id=logged, run_id=run)


@check("POST /model-versions/create")
def check_version_sources(api: Api) -> object:
    model, run = api.model(), api.run()
    sources = (
        f"mlflow-artifacts:/0/{run}/artifacts/model", "s3://bucket/model", "models:/nobody/1", "runs:/x/model",
        "/etc/passwd", "file:///etc", "mlflow-artifacts:/../../etc", "mlflow-artifacts://host/../x", "", "model",
    )  # fmt: skip
    made = [api.post("model-versions/create", name=model, source=source, run_id=run) for source in sources]
    return [[source, answer.status, answer.get("error_code")] for source, answer in zip(sources, made, strict=True)]


@check("POST /model-versions/create")
def check_version_of_another_runs_files(api: Api) -> object:
    model, run, other = api.model(), api.run(), api.run()
    source = f"mlflow-artifacts:/0/{other}/artifacts/model"
    answer = api.post("model-versions/create", name=model, source=source, run_id=run)
    return [answer.status, answer.get("error_code")]


@check("POST /model-versions/create")
def check_version_without_a_run(api: Api) -> object:
    return api.post("model-versions/create", name=api.model(), source="s3://bucket/model")


@check("POST /model-versions/create")
def check_version_with_a_run_link(api: Api) -> object:
    return api.post("model-versions/create", name=api.model(), source="s3://b/m", run_link="http://x/run")


@check("PATCH /model-versions/update", "GET /model-versions/get")
def check_version_described(api: Api) -> object:
    model = api.model()
    version = api.version(model, description="before")
    done = api.patch("model-versions/update", name=model, version=version, description="after")
    return [done, api.get("model-versions/get", name=model, version=version)]


@check("PATCH /model-versions/update", "GET /model-versions/get")
def check_version_updated_without_a_description(api: Api) -> object:
    model = api.model()
    version = api.version(model, description="before")
    done = api.patch("model-versions/update", name=model, version=version)
    return [done, api.get("model-versions/get", name=model, version=version)]


@check("DELETE /model-versions/delete", "GET /model-versions/get")
def check_version_deleted(api: Api) -> object:
    model = api.model()
    version = api.version(model)
    done = [api.delete("model-versions/delete", name=model, version=version) for _ in range(2)]
    return [done, api.get("model-versions/get", name=model, version=version)]


@check("DELETE /model-versions/delete", "GET /registered-models/alias")
def check_version_deleted_with_its_aliases(api: Api) -> object:
    model = api.model()
    version = api.version(model)
    api.post("registered-models/alias", name=model, alias="best", version=version)
    api.delete("model-versions/delete", name=model, version=version)
    return [api.get("registered-models/alias", name=model, alias="best"), api.get("registered-models/get", name=model)]


@check("POST /model-versions/set-tag", "DELETE /model-versions/delete-tag", "GET /model-versions/get")
def check_version_tags(api: Api) -> object:
    model, seen = api.model(), []
    at = {"name": model, "version": api.version(model)}
    for value in ("one", "two"):
        seen.append(api.post("model-versions/set-tag", **at, key="team", value=value))
        seen.append(api.get("model-versions/get", **at))
    seen.append(api.delete("model-versions/delete-tag", **at, key="team"))
    return [*seen, api.get("model-versions/get", **at)]


@check("POST /model-versions/set-tag")
def check_version_tag_limits(api: Api) -> object:
    model = api.model()
    at = {"name": model, "version": api.version(model)}
    pairs = (("k" * 250, "x"), ("k" * 251, "x"), ("k", "x" * 100_000), ("k", "x" * 100_001), ("", "x"), ("../k", "x"))
    return [api.post("model-versions/set-tag", **at, key=key, value=value) for key, value in pairs]


@check("GET /model-versions/get-download-uri")
def check_version_download_uri(api: Api) -> object:
    model = api.model()
    return api.get("model-versions/get-download-uri", name=model, version=api.version(model))


@check("GET /model-versions/get-download-uri")
def check_version_download_uri_of_a_logged_model(api: Api) -> object:
    model, logged = api.model(), api.logged_model()
    api.post("model-versions/create", name=model, source=f"models:/{logged}", model_id=logged)
    return api.get("model-versions/get-download-uri", name=model, version="1")


@check("GET /model-versions/get")
def check_version_numbers_as_people_write_them(api: Api) -> object:
    model = api.model()
    api.version(model)
    return [
        api.get("model-versions/get", name=model, version=text) for text in ("1", "01", "1.0", "one", "-1", "", "0")
    ]


_AT = {"name": "<model>", "version": "<version>"}
_NOWHERE = {"name": "<model>", "version": "9"}
refusals(
    "registry",
    {
        "version_of_an_unknown_model": ("POST /model-versions/create", {"name": "nobody's", "source": "s3://b/m"}),
        "version_without_a_name": ("POST /model-versions/create", {"source": "s3://b/m"}),
        "version_without_a_source": ("POST /model-versions/create", {"name": "<model>"}),
        "version_of_an_unknown_run": (
            "POST /model-versions/create",
            {"name": "<model>", "source": "s3://b/m", "run_id": "0" * 32},
        ),
        "version_of_an_unknown_logged_model": (
            "POST /model-versions/create",
            {"name": "<model>", "source": "s3://b/m", "model_id": "m-unknown"},
        ),
        "version_unknown": ("GET /model-versions/get", _NOWHERE),
        "version_get_of_an_unknown_model": ("GET /model-versions/get", {"name": "nobody's", "version": "1"}),
        "version_get_without_a_number": ("GET /model-versions/get", {"name": "<model>"}),
        "version_update_of_an_unknown_one": ("PATCH /model-versions/update", {**_NOWHERE, "description": "x"}),
        "version_update_without_a_number": ("PATCH /model-versions/update", {"name": "<model>", "description": "x"}),
        "version_delete_without_a_number": ("DELETE /model-versions/delete", {"name": "<model>"}),
        "version_delete_of_an_unknown_one": ("DELETE /model-versions/delete", _NOWHERE),
        "version_tag_of_an_unknown_one": ("POST /model-versions/set-tag", {**_NOWHERE, "key": "k", "value": "v"}),
        "version_tag_without_a_key": ("POST /model-versions/set-tag", {**_AT, "value": "v"}),
        "version_tag_without_a_value": ("POST /model-versions/set-tag", {**_AT, "key": "v"}),
        "version_tag_deleted_that_is_not_there": ("DELETE /model-versions/delete-tag", {**_AT, "key": "k"}),
        "version_tag_deleted_of_an_unknown_one": ("DELETE /model-versions/delete-tag", {**_NOWHERE, "key": "k"}),
        "version_download_uri_of_an_unknown_one": ("GET /model-versions/get-download-uri", _NOWHERE),
    },
)

# stages


def _move(api: Api, model: str, version: str, stage: str, **more: object) -> object:
    fields = {"archive_existing_versions": False, **more}
    return api.post("model-versions/transition-stage", name=model, version=version, stage=stage, **fields)


def _stages(api: Api, model: str) -> object:
    found = api.get("model-versions/search", filter=f"name = '{model}'")["model_versions"]
    return sorted([version["version"], version["current_stage"]] for version in found)


@check("POST /model-versions/transition-stage", "GET /model-versions/get")
def check_stage_of_a_version(api: Api) -> object:
    model = api.model()
    at = {"name": model, "version": api.version(model)}
    stages = ("Staging", "Production", "Archived", "None")
    return [[_move(api, model, at["version"], stage), api.get("model-versions/get", **at)] for stage in stages]


@check("POST /model-versions/transition-stage")
def check_stage_in_another_case(api: Api) -> object:
    model = api.model()
    version = api.version(model)
    return [_move(api, model, version, stage) for stage in ("staging", "PRODUCTION", "archived", "none")]


@check("POST /model-versions/transition-stage")
def check_stage_unknown(api: Api) -> object:
    model = api.model()
    version = api.version(model)
    return [_move(api, model, version, stage) for stage in ("Elsewhere", "", " Staging")]


@check("POST /model-versions/transition-stage", "GET /model-versions/search")
def check_stage_production_archives_the_one_before_when_asked(api: Api) -> object:
    model = api.model()
    for version in (api.version(model), api.version(model)):
        _move(api, model, version, "Production", archive_existing_versions=True)
    return _stages(api, model)


@check("POST /model-versions/transition-stage", "GET /model-versions/search")
def check_stage_production_without_archiving(api: Api) -> object:
    model = api.model()
    for version in (api.version(model), api.version(model)):
        _move(api, model, version, "Production")
    return _stages(api, model)


@check("POST /model-versions/transition-stage", "GET /model-versions/search")
def check_stage_staging_with_and_without_archiving(api: Api) -> object:
    model, seen = api.model(), []
    versions = [api.version(model) for _ in range(3)]
    for version, archive in zip(versions, (False, False, True), strict=True):
        _move(api, model, version, "Staging", archive_existing_versions=archive)
        seen.append(_stages(api, model))
    return seen


@check("POST /model-versions/transition-stage")
def check_stage_archived_cannot_archive_others(api: Api) -> object:
    model = api.model()
    version = api.version(model)
    return [_move(api, model, version, stage, archive_existing_versions=True) for stage in ("Archived", "None")]


@check("POST /model-versions/transition-stage", "DELETE /model-versions/delete")
def check_stage_production_version_deleted(api: Api) -> object:
    model = api.model()
    version = api.version(model)
    _move(api, model, version, "Production")
    return api.delete("model-versions/delete", name=model, version=version)


@check("POST /model-versions/transition-stage", "DELETE /registered-models/delete")
def check_stage_model_deleted_with_a_version_in_production(api: Api) -> object:
    model = api.model()
    _move(api, model, api.version(model), "Production")
    return api.delete("registered-models/delete", name=model)


@check("POST /model-versions/transition-stage", "POST /registered-models/rename")
def check_stage_model_renamed_with_a_version_in_production(api: Api) -> object:
    model = api.model()
    _move(api, model, api.version(model), "Production")
    return api.post("registered-models/rename", name=model, new_name=api.name("other"))


@check("POST /model-versions/create", "POST /runs/delete")
def check_run_of_a_version_deleted(api: Api) -> object:
    run = api.run()
    api.version(api.model(), run_id=run, source="s3://b/m")
    return api.post("runs/delete", run_id=run)


@check("POST /model-versions/create", "POST /runs/log-metric")
def check_metrics_of_a_version_whose_run_ended(api: Api) -> object:
    run = api.run()
    api.post("runs/update", run_id=run, status="FINISHED", end_time=5)
    api.version(api.model(), run_id=run, source="s3://b/m")
    return api.post("runs/log-metric", run_id=run, key="auc", value=1, timestamp=1)


@check("POST /model-versions/create", "POST /runs/update")
def check_version_of_a_run_that_failed(api: Api) -> object:
    run = api.run()
    api.post("runs/update", run_id=run, status="FAILED", end_time=5)
    return api.post("model-versions/create", name=api.model(), source="s3://b/m", run_id=run)


@check("GET /registered-models/get-latest-versions", "POST /registered-models/get-latest-versions")
def check_latest_versions(api: Api) -> object:
    model = api.model()
    versions = [api.version(model) for _ in range(4)]
    for version, stage in zip(versions, ("Production", "Staging", "Staging", "None"), strict=True):
        _move(api, model, version, stage)
    wanted = ({}, {"stages": ["Production"]}, {"stages": ["staging", "None"]}, {"stages": ["Archived"]})
    seen = []
    for arguments in wanted:
        for answer in (
            api.get("registered-models/get-latest-versions", name=model, **arguments),
            api.post("registered-models/get-latest-versions", name=model, **arguments),
        ):
            found = answer.get("model_versions", [])
            seen.append(sorted([item["version"], item["current_stage"]] for item in found))
    return seen


@check("GET /registered-models/get")
def check_latest_versions_within_the_model(api: Api) -> object:
    model = api.model()
    versions = [api.version(model) for _ in range(3)]
    _move(api, model, versions[0], "Production")
    found = api.get("registered-models/get", name=model)["registered_model"]["latest_versions"]
    return sorted([item["version"], item["current_stage"]] for item in found)


refusals(
    "registry",
    {
        "stage_of_an_unknown_version": ("POST /model-versions/transition-stage", {**_NOWHERE, "stage": "Staging"}),
        "stage_of_a_version_without_one": ("POST /model-versions/transition-stage", _AT),
        "stage_without_a_version": ("POST /model-versions/transition-stage", {"name": "<model>", "stage": "Staging"}),
        "stage_with_archiving_that_is_text": (
            "POST /model-versions/transition-stage",
            {**_AT, "stage": "Staging", "archive_existing_versions": "perhaps"},
        ),
        "latest_versions_of_an_unknown_model": ("GET /registered-models/get-latest-versions", {"name": "nobody's"}),
        "latest_versions_without_a_name": ("GET /registered-models/get-latest-versions", {}),
        "latest_versions_of_an_unknown_stage": (
            "GET /registered-models/get-latest-versions",
            {"name": "<model>", "stages": "Elsewhere"},
        ),
    },
)

# aliases


@check("POST /registered-models/alias", "GET /registered-models/alias", "GET /registered-models/get")
def check_alias_set_and_moved(api: Api) -> object:
    model, seen = api.model(), []
    for version in (api.version(model), api.version(model)):
        seen.append(api.post("registered-models/alias", name=model, alias="best", version=version))
        seen.append(api.get("registered-models/alias", name=model, alias="best"))
    return [*seen, api.get("registered-models/get", name=model), api.get("model-versions/get", name=model, version="1")]


@check("DELETE /registered-models/alias", "GET /registered-models/alias")
def check_alias_deleted(api: Api) -> object:
    model = api.model()
    api.post("registered-models/alias", name=model, alias="best", version=api.version(model))
    done = [api.delete("registered-models/alias", name=model, alias="best") for _ in range(2)]
    return [done, api.get("registered-models/alias", name=model, alias="best")]


@check("POST /registered-models/alias")
def check_alias_names(api: Api) -> object:
    model = api.model()
    at = {"name": model, "version": api.version(model)}
    names = (
        "a",
        "a-b",
        "a_b",
        "A1",
        "a.b",
        "a b",
        "ü",
        "a/b",
        "a@b",
        "a:b",
        "",
        "latest",
        "Latest",
        "v1",
        "V12",
        "1",
        "x" * 255,
        "x" * 256,
    )
    return [[name[:9], api.post("registered-models/alias", **at, alias=name)] for name in names]


refusals(
    "registry",
    {
        "alias_of_an_unknown_version": ("POST /registered-models/alias", {**_NOWHERE, "alias": "best"}),
        "alias_of_an_unknown_model": (
            "POST /registered-models/alias",
            {"name": "nobody's", "version": "1", "alias": "best"},
        ),
        "alias_without_a_name": ("POST /registered-models/alias", _AT),
        "alias_without_a_version": ("POST /registered-models/alias", {"name": "<model>", "alias": "best"}),
        "alias_unknown": ("GET /registered-models/alias", {"name": "<model>", "alias": "best"}),
        "alias_got_of_an_unknown_model": ("GET /registered-models/alias", {"name": "nobody's", "alias": "best"}),
        "alias_got_without_a_name": ("GET /registered-models/alias", {"name": "<model>"}),
        "alias_deleted_of_an_unknown_model": ("DELETE /registered-models/alias", {"name": "nobody's", "alias": "best"}),
        "alias_deleted_without_a_name": ("DELETE /registered-models/alias", {"name": "<model>"}),
    },
)

# search


def _models(api: Api) -> None:
    for name, team in (("alpha", "growth"), ("Beta", "ops"), ("gamma", None)):
        api.model(name, tags=[] if team is None else [{"key": "team", "value": team}])


def _model_names(api: Api, **arguments: object) -> object:
    answer = api.get("registered-models/search", **{"max_results": 1000, **arguments})
    if answer.status != 200:
        return answer
    names = [item["name"] for item in answer.get("registered_models", [])]
    return [name.removeprefix(api.check + "-") for name in names if name.startswith(api.check + "-")]


_MODEL_FILTERS = {
    "name": ["name LIKE '%-alpha'", "name ILIKE '%-BETA'", "name != 'x'", "name LIKE '%mm%' AND name LIKE '%g%'"],
    "name_prefixed": ["attribute.name LIKE '%alpha'"],
    "name_prefixed_in_the_plural": ["attributes.name LIKE '%alpha'"],
    "tags": ["tags.team = 'growth'", "tags.`team` != 'growth'", "tag.team LIKE 'o%'", "tags.team ILIKE 'OPS'"],
    "tags_prompt": ["tags.`mlflow.prompt.is_prompt` = 'true'", "tags.`mlflow.prompt.is_prompt` != 'true'"],
    "refused": ["color = 'x'", "name > 'a'", "name = 7", "metrics.x = 1", "params.x = '1'", "name", "name = 'x' OR 1"],
    "times": ["creation_timestamp > 0", "last_updated_timestamp > 0"],
    "in": ["name IN ('x')", "tags.team IN ('growth')", "name NOT LIKE 'x'"],
    "null": ["tags.team IS NULL", "tags.team IS NOT NULL"],
    "empty": [""],
    "blank": ["  "],
}
_VERSION_FILTERS = {
    "name": ["name LIKE '{check}%'", "name ILIKE '{CHECK}%'", "name = '{check}-one'", "name != '{check}-one'"],
    "run": [
        "run_id = 'x'",
        "run_id IN ('x', 'y')",
        "run_id != 'x'",
        "run_id LIKE '%'",
        "run_id IN ()",
        "run_id NOT IN ('x')",
    ],
    "run_of_it": ["run_id = '{run}'", "run_id IN ('{run}')", "run_id IN ('x', '{run}')"],
    "source": ["source_path = 's3://b/two'", "source_path LIKE 's3%'", "source_path != 's3://b/two'", "source = 'x'"],
    "number": ["version_number = 1", "version_number > 1", "version_number != 1", "version_number = '1'"],
    "number_more": ["version_number >= 2", "version_number < 2", "version_number <= 2", "version_number = 1.5"],
    "tags": ["tags.team = 'growth'", "tags.`team` != 'growth'", "tag.team LIKE 'g%'", "tags.team ILIKE 'GROWTH'"],
    "tags_prompt": ["tags.`mlflow.prompt.is_prompt` = 'true'", "tags.`mlflow.prompt.is_prompt` != 'true'"],
    "and": ["name = '{check}-one' AND version_number = 2", "name = '{check}-one' and tags.team = 'growth'"],
    "refused": ["color = 'x'", "name > 'a'", "name = 7", "metrics.x = 1", "version = '1'", "name", "name = 'x' OR 1"],
    "stage": ["current_stage = 'None'", "status = 'READY'", "user_id = 'x'", "creation_timestamp > 0"],
    "null": ["tags.team IS NULL", "tags.team IS NOT NULL"],
    "in": ["name IN ('{check}-one')", "version_number IN (1)", "tags.team IN ('growth')"],
}


def _model_filter(api: Api, filters: list[str]) -> object:
    _models(api)
    return [[text, _sorted(_model_names(api, filter=text))] for text in filters]


def _versions(api: Api) -> str:
    """Two versions of model one, the second tagged and of a run, and one of model two; that run."""
    first, second, run = api.model("one"), api.model("two"), api.run()
    api.version(first)
    api.version(first, source="s3://b/two", run_id=run, tags=[{"key": "team", "value": "growth"}])
    api.version(second)
    return run


def _version_labels(api: Api, **arguments: object) -> object:
    answer = api.get("model-versions/search", **{"max_results": 10_000, **arguments})
    if answer.status != 200:
        return answer
    found = [(item["name"], item["version"]) for item in answer.get("model_versions", [])]
    return [f"{name.removeprefix(api.check)}@{number}" for name, number in found if name.startswith(api.check + "-")]


def _version_filter(api: Api, filters: list[str]) -> object:
    run = _versions(api)
    filled = [text.format(check=api.check, CHECK=api.check.upper(), run=run) for text in filters]
    return [[text, _sorted(_version_labels(api, filter=text))] for text in filled]


def _sorted(found: object) -> object:
    return sorted(found) if isinstance(found, list) else found


for _name, _texts in _MODEL_FILTERS.items():
    _do = functools.partial(_model_filter, filters=_texts)
    add(f"model_filter_{_name}", "registry", ["GET /registered-models/search"], _do)
for _name, _texts in _VERSION_FILTERS.items():
    _do = functools.partial(_version_filter, filters=_texts)
    add(f"version_filter_{_name}", "registry", ["GET /model-versions/search"], _do)


@check("GET /registered-models/search")
def check_model_order_by(api: Api) -> object:
    _models(api)
    orders = (
        "name",
        "name DESC",
        "name asc",
        "last_updated_timestamp,name",
        "color",
        "tags.team",
        "name UP",
        "version",
    )
    seen = [[order, _model_names(api, order_by=order)] for order in orders[:3]]
    return seen + [[order, _sorted(_model_names(api, order_by=order))] for order in orders[3:]]


@check("GET /registered-models/search")
def check_model_order_by_time(api: Api) -> object:
    _models(api)
    orders = (["timestamp"], ["last_updated_timestamp DESC"], ["creation_timestamp"], ["name ASC", "timestamp DESC"])
    return [[order, _sorted(_model_names(api, order_by=order))] for order in orders]


@check("GET /registered-models/search")
def check_model_search_in_its_own_order(api: Api) -> object:
    _models(api)
    return _model_names(api)


@check("GET /registered-models/search")
def check_model_search_gives_whole_models(api: Api) -> object:
    model = api.model(description="it", tags=[{"key": "team", "value": "growth"}])
    api.version(model)
    return api.get("registered-models/search", filter=f"name = '{model}'")


@check("GET /registered-models/search")
def check_model_search_by_pages(api: Api) -> object:
    _models(api)
    pages, token = [], {}
    for _ in range(4):
        answer = api.get("registered-models/search", filter=f"name LIKE '{api.check}%'", max_results=2, **token)
        pages.append([item["name"] for item in answer.get("registered_models", [])])
        if not answer.get("next_page_token"):
            break
        token = {"page_token": answer["next_page_token"]}
    return pages


@check("GET /registered-models/search")
def check_model_search_limits(api: Api) -> object:
    limits = (1, 1000, 1001, "x")
    return [[limit, api.get("registered-models/search", max_results=limit, filter="name = 'x'")] for limit in limits]


@check("GET /registered-models/search")
def check_model_search_limits_below_one(api: Api) -> object:
    return [api.get("registered-models/search", max_results=limit, filter="name = 'x'") for limit in (0, -1)]


@check("GET /registered-models/search")
def check_model_search_page_tokens_that_are_none(api: Api) -> object:
    return [api.get("registered-models/search", page_token=token, filter="name = 'x'") for token in ("", "zzz")]


@check("GET /model-versions/search")
def check_version_order_by(api: Api) -> object:
    _versions(api)
    orders = (["version_number", "name"], ["version_number DESC", "name ASC"], ["name DESC", "version_number ASC"])
    refused = ("color", "tags.team", "name UP", "source_path", "run_id")
    seen = [[order, _version_labels(api, order_by=order)] for order in orders]
    return seen + [[order, _sorted(_version_labels(api, order_by=order))] for order in refused]


@check("GET /model-versions/search")
def check_version_order_by_time(api: Api) -> object:
    _versions(api)
    orders = ("creation_timestamp", "last_updated_timestamp DESC", "last_updated_timestamp")
    return [[order, _sorted(_version_labels(api, order_by=order))] for order in orders]


@check("GET /model-versions/search")
def check_version_search_gives_whole_versions(api: Api) -> object:
    _versions(api)
    return api.get("model-versions/search", filter=f"name = '{api.name('one')}'", order_by="version_number")


@check("GET /model-versions/search")
def check_version_search_by_pages(api: Api) -> object:
    _versions(api)
    pages, token = [], {}
    for _ in range(4):
        arguments = {"filter": f"name LIKE '{api.check}%'", "order_by": ["name", "version_number"], **token}
        answer = api.get("model-versions/search", max_results=2, **arguments)
        pages.append([[item["name"], item["version"]] for item in answer.get("model_versions", [])])
        if not answer.get("next_page_token"):
            break
        token = {"page_token": answer["next_page_token"]}
    return pages


@check("GET /model-versions/search")
def check_version_search_limits(api: Api) -> object:
    limits = (1, 200_000, 200_001, "x")
    return [[limit, api.get("model-versions/search", max_results=limit, filter="name = 'x'")] for limit in limits]


@check("GET /model-versions/search")
def check_version_search_limits_below_one(api: Api) -> object:
    return [api.get("model-versions/search", max_results=limit, filter="name = 'x'") for limit in (0, -1)]


@check("GET /model-versions/search")
def check_version_search_page_tokens_that_are_none(api: Api) -> object:
    return [api.get("model-versions/search", page_token=token, filter="name = 'x'") for token in ("", "zzz")]
