"""One server of MLflow's protocol as a check sees it: requests, answers, and answers two servers can be compared by."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

API = "/api/2.0/mlflow/"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
_IDS = {"run_id": "run", "model_id": "logged model"}
_ROOT = re.compile(r"(mlflow-artifacts:/)(\d+)")
_TIMES = re.compile(r"(_time|_timestamp|_timestamp_ms|^timestamp)$")
_RECENT = 1_600_000_000_000
# What differs everywhere; the checks who_..._is_of, workspace_of_an_experiment and version_tags_exact show it.
_IGNORED_FIELDS = ("user_id", "run_uuid", "workspace")
_IGNORED_TAGS = ("noria.semantic_version",)


@dataclass(frozen=True)
class Answer:
    """What a server answered to one request."""

    status: int
    body: Any

    def __getitem__(self, key: str) -> Any:
        assert self.status == 200, f"{self.status}: {self.body}"
        return self.body[key]

    def get(self, key: str, default: Any = None) -> Any:
        return self.body.get(key, default) if isinstance(self.body, dict) else default


@dataclass(frozen=True)
class Check:
    """One thing to do against a server, and the endpoints it covers."""

    name: str
    area: str
    endpoints: Sequence[str]
    do: Callable[[Api], object]


CHECKS: dict[str, Check] = {}


def check(*endpoints: str) -> Callable[[Callable[[Api], object]], Callable[[Api], object]]:
    """Register the function as a check of these endpoints, written ``"POST /runs/create"``."""

    def register(do: Callable[[Api], object]) -> Callable[[Api], object]:
        add(do.__name__.removeprefix("check_"), do.__module__.rpartition("checks_")[2], endpoints, do)
        return do

    return register


def add(name: str, area: str, endpoints: Sequence[str], do: Callable[[Api], object]) -> None:
    """Register ``do`` under a name that no other check has."""
    assert name not in CHECKS, name
    CHECKS[name] = Check(name, area, tuple(endpoints), do)


def refusals(area: str, table: Mapping[str, tuple[str, object]]) -> None:
    """Register a check a row, name → (endpoint, arguments): its answer's status and error code are what counts."""
    for name, (endpoint, arguments) in table.items():
        add(name, area, [endpoint], _Request(endpoint, arguments))


@dataclass(frozen=True)
class _Request:
    endpoint: str
    arguments: object

    def __call__(self, api: Api) -> object:
        method, _, path = self.endpoint.partition(" ")
        filled = api.fill(self.arguments)
        path = api.fill(path.replace("{model_id}", "<logged model>").replace("{key}", "key"))
        return api.call(method, path, filled)


@dataclass
class Api:
    """Requests to one server on behalf of one check, whose names nobody else uses."""

    client: httpx.Client
    check: str
    _placeholders: dict[str, str] = field(default_factory=dict)
    _experiments: dict[str, str] = field(default_factory=dict)
    _fresh_things: dict[str, str] = field(default_factory=dict)

    def post(self, path: str, /, **arguments: object) -> Answer:
        return self.call("POST", path, arguments)

    def patch(self, path: str, /, **arguments: object) -> Answer:
        return self.call("PATCH", path, arguments)

    def delete(self, path: str, /, **arguments: object) -> Answer:
        return self.call("DELETE", path, arguments)

    def get(self, path: str, /, **arguments: object) -> Answer:
        return self.call("GET", path, arguments)

    def call(self, method: str, path: str, arguments: object) -> Answer:
        """One call of the tracking or registry API; a GET's arguments are its query, a str is a body as it is."""
        url = API + path.lstrip("/")
        if method == "GET":
            return self._send(method, url, params=arguments)
        content = arguments if isinstance(arguments, str) else json.dumps(arguments)
        return self._send(method, url, content=content, headers={"content-type": "application/json"})

    def spans(self, experiment: str, *spans: dict[str, object]) -> Answer:
        """Spans of finished traces, sent as an OpenTelemetry exporter does."""
        times = {"startTimeUnixNano": "1750000000000000000", "endTimeUnixNano": "1750000001500000000"}
        sent = [{**times, "name": "a span", **span} for span in spans]
        content = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": sent}]}]})
        headers = {"content-type": "application/json", "x-mlflow-experiment-id": experiment}
        return self._send("POST", "/v1/traces", content=content, headers=headers)

    def artifact(self, method: str, path: str, content: bytes | None = None) -> Answer:
        """One call of the artifact proxy for one file, the path as it is given."""
        return self._send(method, ARTIFACTS + path, content=content)

    def artifacts(self, folder: str) -> Answer:
        """The artifact proxy's listing of a folder."""
        return self._send("GET", ARTIFACTS, params={"path": folder})

    def _send(self, method: str, url: str, **options: Any) -> Answer:
        try:
            answer = self.client.request(method, url, **options)
        except httpx.TransportError:
            return Answer(599, "no answer")
        kind = answer.headers.get("content-type", "")
        try:
            body = answer.json() if "json" in kind else answer.text
        except ValueError:
            body = answer.text
        self._learn(body)
        return Answer(answer.status_code, body)

    # what checks start from

    def name(self, what: str = "") -> str:
        """A name of this check's own, the same on every server."""
        return f"{self.check}-{what}" if what else self.check

    def experiment(self, name: str = "experiment") -> str:
        """A new experiment's id."""
        return self.post("experiments/create", name=self.name(name))["experiment_id"]

    def run(self, experiment: str = "0", **fields: object) -> str:
        """A new run's id."""
        fields = {"run_name": "a run", "start_time": 1, **fields}
        return self.post("runs/create", experiment_id=experiment, **fields)["run"]["info"]["run_id"]

    def logged_model(self, experiment: str = "0", **fields: object) -> str:
        """A new logged model's id."""
        made = self.post("logged-models", experiment_id=experiment, name="a-model", **fields)
        return made["model"]["info"]["model_id"]

    def model(self, name: str = "model", **fields: object) -> str:
        """A new registered model's name."""
        return self.post("registered-models/create", name=self.name(name), **fields)["registered_model"]["name"]

    def version(self, model: str, **fields: object) -> str:
        """A new version's number, of a run's artifacts."""
        run = self.run()
        source = f"mlflow-artifacts:/0/{run}/artifacts/model"
        made = self.post("model-versions/create", **{"name": model, "source": source, "run_id": run, **fields})
        return made["model_version"]["version"]

    def fill(self, value: object) -> Any:
        """``value`` with fresh things for <experiment>, <run>, <logged model>, <model> and <version>."""
        if isinstance(value, dict):
            return {key: self.fill(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.fill(item) for item in value]
        if isinstance(value, str):
            for mark in re.findall(r"<[a-z ]+>", value):
                value = value.replace(mark, self._fresh(mark))
        return value

    def _fresh(self, mark: str) -> str:
        if mark not in self._fresh_things:
            makers = {"<experiment>": self.experiment, "<run>": self.run, "<logged model>": self.logged_model}
            makers |= {"<model>": self.model, "<version>": lambda: self.version(self._fresh("<model>"))}
            self._fresh_things[mark] = makers[mark]()
        return self._fresh_things[mark]

    # what makes answers of two servers comparable

    def observe(self, seen: object) -> Any:
        """``seen`` with ids and times replaced, empty fields left out, and answers of refusals as their codes."""
        if isinstance(seen, Answer):
            if seen.status != 200:
                return {"status": seen.status, "error": seen.get("error_code")}
            body = self.observe(seen.body)
            return {"status": 200, **(body if isinstance(body, dict) else {"body": body} if body else {})}
        if isinstance(seen, Mapping):
            return self._observe_fields(seen)
        if isinstance(seen, list | tuple):
            items = [item for item in map(self.observe, seen) if item != {}]
            return sorted(items, key=_key) if all(isinstance(item, dict) and "key" in item for item in items) else items
        if isinstance(seen, str):
            for found, placeholder in self._placeholders.items():
                seen = seen.replace(found, placeholder)
            return _ROOT.sub(lambda match: match[1] + self._experiments.get(match[2], match[2]), seen)
        return seen

    def _observe_fields(self, seen: Mapping[str, Any]) -> dict[str, Any]:
        if seen.get("key") in _IGNORED_TAGS:
            return {}
        found = {}
        for name, value in seen.items():
            if name in _IGNORED_FIELDS:
                continue
            if name == "experiment_id":
                found[name] = self._experiments.get(value, value)
            elif _TIMES.search(name) and isinstance(value, int) and value > _RECENT:
                found[name] = "<time>"
            elif (value := self.observe(value)) not in (None, "", [], {}):
                found[name] = value
        return found

    def _learn(self, body: object) -> None:
        if isinstance(body, Mapping):
            for name, value in body.items():
                if name == "experiment_id" and value != "0":
                    self._experiments.setdefault(str(value), f"<experiment {len(self._experiments) + 1}>")
                elif name in _IDS and isinstance(value, str) and value:
                    self._placeholders.setdefault(value, f"<{_IDS[name]} {len(self._placeholders) + 1}>")
                self._learn(value)
        elif isinstance(body, list):
            for item in body:
                self._learn(item)


def _key(item: Mapping[str, Any]) -> str:
    return json.dumps([item["key"], item], sort_keys=True)
