"""Artifacts: the proxy's files, and the listing of a run's."""

from __future__ import annotations

from conformance.api import Api, check, refusals

_LIST, _GET = "GET /mlflow-artifacts/artifacts", "GET /mlflow-artifacts/artifacts/{path}"
_PUT, _DELETE = "PUT /mlflow-artifacts/artifacts/{path}", "DELETE /mlflow-artifacts/artifacts/{path}"


def _run_with_files(api: Api) -> str:
    """A run with notes/a.txt, notes/deep/b.txt and c.bin."""
    run = api.run()
    for path in ("notes/a.txt", "notes/deep/b.txt", "c.bin"):
        api.artifact("PUT", f"/0/{run}/artifacts/{path}", path.encode())
    return run


@check(_PUT, _GET)
def check_artifact_is_kept(api: Api) -> object:
    path = f"/{api.check}/a.txt"
    return [api.artifact("PUT", path, b"hello"), api.artifact("GET", path).body]


@check(_PUT, _GET)
def check_artifact_is_replaced(api: Api) -> object:
    path = f"/{api.check}/a.txt"
    return [api.artifact("PUT", path, text) for text in (b"one", b"two")] + [api.artifact("GET", path).body]


@check(_PUT, _GET)
def check_artifact_of_no_bytes(api: Api) -> object:
    path = f"/{api.check}/empty"
    return [api.artifact("PUT", path, b""), api.artifact("GET", path).status]


@check(_PUT, _GET, _LIST)
def check_artifact_with_a_unicode_name(api: Api) -> object:
    path = f"/{api.check}/Überfluß 東京.txt"
    done = api.artifact("PUT", path, b"hello")
    return [done, api.artifact("GET", path).body, api.artifacts(api.check)]


@check(_PUT, _GET)
def check_artifact_with_a_dot_before_its_name(api: Api) -> object:
    path = f"/{api.check}/.hidden"
    done = api.artifact("PUT", path, b"hello")
    return [done, api.artifact("GET", path).body, api.artifacts(api.check)]


@check(_GET)
def check_artifact_unknown(api: Api) -> object:
    return api.artifact("GET", f"/{api.check}/nothing.txt")


@check(_PUT, _GET)
def check_artifact_that_is_a_folder(api: Api) -> object:
    api.artifact("PUT", f"/{api.check}/folder/a.txt", b"hello")
    return api.artifact("GET", f"/{api.check}/folder").status


@check(_PUT)
def check_artifact_in_place_of_a_folder(api: Api) -> object:
    api.artifact("PUT", f"/{api.check}/folder/a.txt", b"hello")
    return api.artifact("PUT", f"/{api.check}/folder", b"hello")


@check(_PUT)
def check_artifact_below_a_file(api: Api) -> object:
    api.artifact("PUT", f"/{api.check}/a.txt", b"hello")
    return api.artifact("PUT", f"/{api.check}/a.txt/b.txt", b"hello")


@check(_DELETE, _GET)
def check_artifact_deleted(api: Api) -> object:
    path = f"/{api.check}/a.txt"
    api.artifact("PUT", path, b"hello")
    return [api.artifact("DELETE", path), api.artifact("GET", path)]


@check(_DELETE)
def check_artifact_deleted_that_is_not_there(api: Api) -> object:
    return api.artifact("DELETE", f"/{api.check}/nothing.txt")


@check(_DELETE, _LIST)
def check_artifact_folder_deleted(api: Api) -> object:
    api.artifact("PUT", f"/{api.check}/folder/a.txt", b"hello")
    return [api.artifact("DELETE", f"/{api.check}/folder"), api.artifacts(api.check)]


@check(_LIST)
def check_artifacts_listed(api: Api) -> object:
    run = _run_with_files(api)
    folders = ("", "/notes", "/notes/", "/notes/deep", "/notes/a.txt", "/nothing")
    return [[folder, api.artifacts(f"0/{run}/artifacts{folder}")] for folder in folders]


@check(_GET, _PUT, _DELETE, _LIST)
def check_artifact_paths_that_climb(api: Api) -> object:
    paths = (
        "/%2e%2e/%2e%2e/etc/passwd",
        "/a/%2e%2e/%2e%2e/x",
        "/..%2fx",
        "//etc/passwd",
        "/%2fetc%2fpasswd",
        "/a%5c..%5cx",
    )
    seen = [[path, api.artifact("GET", path)] for path in paths]
    seen += [[path, api.artifact("PUT", path, b"x").status] for path in paths[:3]]
    seen += [[path, api.artifact("DELETE", path).status] for path in paths[:3]]
    return seen + [[path, api.artifacts(path)] for path in ("..", "../x", "a/../../x", "/etc", "%2e%2e/x")]


@check("GET /artifacts/list")
def check_run_artifacts_listed(api: Api) -> object:
    run = _run_with_files(api)
    return [[path, api.get("artifacts/list", run_id=run, path=path)] for path in ("", "notes", "notes/deep")]


@check("GET /artifacts/list")
def check_run_artifacts_without_a_path(api: Api) -> object:
    return api.get("artifacts/list", run_id=_run_with_files(api))


@check("GET /artifacts/list")
def check_run_artifacts_of_none(api: Api) -> object:
    return api.get("artifacts/list", run_id=api.run())


@check("GET /artifacts/list")
def check_run_artifacts_of_a_file_or_nothing(api: Api) -> object:
    run = _run_with_files(api)
    return [[path, api.get("artifacts/list", run_id=run, path=path)] for path in ("notes/a.txt", "nothing")]


@check("GET /artifacts/list")
def check_run_artifact_paths_that_climb(api: Api) -> object:
    run = _run_with_files(api)
    paths = ("..", "../..", "notes/../..", "/etc", "//etc", "notes/..", "%2e%2e", "notes\\..", "file:///etc")
    return [[path, api.get("artifacts/list", run_id=run, path=path)] for path in paths]


refusals(
    "artifacts",
    {
        "run_artifacts_of_an_unknown_run": ("GET /artifacts/list", {"run_id": "0" * 32}),
        "run_artifacts_without_a_run": ("GET /artifacts/list", {}),
    },
)
