"""OpenAPI of a gateway, made of the signatures of the models it serves."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from noria import __version__
from noria.optimize.bundle import DTYPES, Bundle
from noria.serving.live import Live
from noria.surface.tensors import metadata

_TYPES: Mapping[str, Mapping[str, Any]] = {
    "double": {"type": ["number", "null"]},
    "float": {"type": ["number", "null"]},
    "long": {"type": ["integer", "null"]},
    "integer": {"type": ["integer", "null"]},
    "boolean": {"type": ["boolean", "null"]},
    "string": {"type": ["string", "null"]},
    "datetime": {"type": ["string", "null"], "format": "date-time"},
    "binary": {"type": ["string", "null"], "contentEncoding": "base64"},
    "array": {"type": ["array", "null"], "items": {}},
    "object": {"type": ["object", "null"]},
    "map": {"type": ["object", "null"]},
    "any": {"type": ["array", "boolean", "number", "object", "string", "null"], "items": {}},
}
_KNOW_NO_NULL = ("long", "integer", "boolean")
_Schema = Mapping[str, object]


def document(deployments: Sequence[Live], named: str | None) -> dict[str, object]:
    """The OpenAPI 3.1 document of all deployments, or of one alone."""
    alone = deployments[0] if len(deployments) == 1 else None
    paths: dict[str, object] = dict(_SHARED)
    schemas: dict[str, object] = dict(_ERRORS)
    for live in deployments:
        name = live.table.deployment
        prefix = "" if alone is not None and named is None else f"/models/{name}"
        if not live.champion.served.bundle.tensors:
            schemas |= {f"{name}.Row": _row(live.champion.served.bundle), f"{name}.Prediction": _prediction(live)}
        paths |= _paths(name, prefix, live)
    has_keys = any(live.table.key_hashes for live in deployments)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Noria gateway" if alone is None else alone.table.deployment, "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas, **({"securitySchemes": _SECURITY} if has_keys else {})},
    }


def _paths(name: str, prefix: str, live: Live) -> Mapping[str, object]:
    found = _open_paths(name, prefix, live)
    if live.table.key_hashes:
        for operation in [operation for path in found.values() for operation in path.values()]:
            operation["security"] = [{scheme: []} for scheme in _SECURITY]
    return found


def _open_paths(name: str, prefix: str, live: Live) -> dict[str, dict[str, dict[str, object]]]:
    return {
        **({} if live.champion.served.bundle.tensors else _paths_of_rows(name, prefix, live.champion.served.bundle)),
        f"{prefix}/invocations": {
            "post": _operation("MLflow's scoring protocol.", _INVOCATION, _ANY_PREDICTIONS, "MlflowError")
        },
        f"{prefix}/model/info": {"get": _operation("What serves.", None, {"type": "object"})},
        f"/v2/models/{name}": {"get": _operation("Metadata of the model.", None, {"type": "object"}, "V2Error")},
        f"/v2/models/{name}/infer": {
            "post": _operation("Open Inference Protocol v2.", _infer_schema(live), {"type": "object"}, "V2Error")
        },
    }


def _paths_of_rows(name: str, prefix: str, bundle: Bundle) -> dict[str, dict[str, dict[str, object]]]:
    """What a model of columns alone answers."""
    row, answer = _ref(f"{name}.Row"), _ref(f"{name}.Prediction")
    rows = _object({"instances": {"type": "array", "items": row}}, ["instances"])
    answers = _object({"predictions": {"type": "array", "items": answer}}, ["predictions"])
    by_lists = not (bundle.looked_up or bundle.computed)
    batch = [rows, _lists(bundle)] if by_lists else [rows]
    batch_answers = [answers, _block(bundle)] if by_lists else [answers]
    return {
        f"{prefix}/predict": {
            "post": _operation("Predict one row, or several.", _any([row, rows]), _any([answer, answers]))
        },
        f"{prefix}/predict/batch": {
            "post": _operation("Predict several rows.", _any(batch), _any(batch_answers)),
        },
    }


def _row(bundle: Bundle) -> _Schema:
    features = {name: _value(bundle, name) for name in bundle.sent}
    keys = list(bundle.entity_keys)
    properties, required = dict(_NAMED), []
    if features:
        by_name = _object(features, [name for name in features if name not in bundle.optional])
        properties["features"] = {"oneOf": [by_name, _in_order(bundle, features)]}
        required.append("features")
    if keys:
        properties["entities"] = {"type": "object", "required": keys, "properties": dict.fromkeys(keys, _KEY)}
        required.append("entities")
    return _object(properties, required)


def _lists(bundle: Bundle) -> _Schema:
    """Rows of plain values, which one version answers."""
    rows = {"type": "array", "items": _in_order(bundle, bundle.request_columns)}
    return _object({**_NAMED, "features": rows}, ["features"])


def _in_order(bundle: Bundle, names: Collection[str]) -> _Schema:
    """A list of values; what ``prefixItems`` would say of each, few generators of clients read."""
    types = {kind: None for name in names for kind in _value(bundle, name)["type"]}
    value = {"type": list(types), **({"items": {}} if "array" in types else {})}
    return {"type": "array", "minItems": len(names), "maxItems": len(names), "items": value}


def _value(bundle: Bundle, name: str) -> Mapping[str, Any]:
    """What a column takes; null where its kind knows it, or the column may be left out."""
    kind = bundle.kinds.get(name, "double")
    if kind not in _KNOW_NO_NULL or name in bundle.optional:
        return _TYPES[kind]
    return {"type": [one for one in _TYPES[kind]["type"] if one != "null"]}


def _prediction(live: Live) -> _Schema:
    bundle = live.champion.served.bundle
    score = {"score": {"type": "number"}} if bundle.task == "classification" and len(bundle.classes) == 2 else {}
    properties = {**_answered(bundle), **_ANSWERING, **score}
    return {"type": "object", "properties": properties, "required": ["prediction_id", "prediction", *_ANSWERING]}


def _block(bundle: Bundle) -> _Schema:
    """The answer to rows of plain values: who answered is said once."""
    row = {"type": "object", "properties": _answered(bundle), "required": ["prediction_id", "prediction"]}
    return _object({**_ANSWERING, "predictions": {"type": "array", "items": row}}, [*_ANSWERING, "predictions"])


def _answered(bundle: Bundle) -> _Schema:
    """What is said of every row."""
    if bundle.task != "classification":
        return {"prediction_id": _TEXT, "prediction": {}}
    return {
        "prediction_id": _TEXT,
        "prediction": {"type": "boolean"} if {bool}.issuperset(map(type, bundle.classes)) else _one_of(bundle.classes),
        "probability": {"type": "number", "minimum": 0, "maximum": 1},
        "confidence": _one_of(["very_high", "high", "medium", "low"]),
    }


def _one_of(values: Sequence[object]) -> _Schema:
    return {"enum": list(values)}


def _infer_schema(live: Live) -> _Schema:
    tensor = _object(
        {
            "name": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "datatype": _one_of(list(DTYPES)),
            "data": {"type": "array", "items": {}},
            "parameters": {"type": ["object", "null"]},
        },
        ["name", "shape", "datatype", "data"],
    )
    described = metadata(live, live.champion)["inputs"]
    return {
        "type": "object",
        "required": ["inputs"],
        "properties": {"inputs": {"type": "array", "items": tensor, "description": f"The model takes {described}."}},
    }


def _operation(summary: str, body: _Schema | None, answer: _Schema, error: str = "Problem") -> dict[str, object]:
    kind = "application/problem+json" if error == "Problem" else "application/json"
    operation: dict[str, object] = {
        "summary": summary,
        "responses": {
            "200": {"description": "Answered.", "content": {"application/json": {"schema": answer}}},
            "default": {
                "description": "Refused, with the reason.",
                "content": {kind: {"schema": _ref(error)}},
            },
        },
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return operation


def _object(properties: Mapping[str, object], required: Sequence[str]) -> dict[str, object]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }


def _any(schemas: Sequence[_Schema]) -> _Schema:
    return schemas[0] if len(schemas) == 1 else {"anyOf": list(schemas)}


def _ref(name: str) -> dict[str, object]:
    return {"$ref": f"#/components/schemas/{name}"}


_SECURITY: Mapping[str, _Schema] = {
    "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "token": {"type": "http", "scheme": "bearer"},
}
"""The ways to send a deployment's key."""
_TEXT: _Schema = {"type": "string"}
_INSTANT: _Schema = {"type": "string", "format": "date-time"}
_KEY: _Schema = {"type": ["string", "integer"]}
_NAMED: _Schema = {"prediction_id": _TEXT, "event_time": _INSTANT, "unit_id": _TEXT}
"""What a client may say of a request beside its rows."""
_ANSWERING: _Schema = {
    "model": _TEXT,
    "model_version": _TEXT,
    "variant": _TEXT,
    "route_revision": {"type": "integer"},
}
"""Who answered."""
_PROBLEM: _Schema = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "remedy": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "string"}},
    },
}
_ERRORS: Mapping[str, _Schema] = {
    "Problem": _PROBLEM,
    "V2Error": {"type": "object", "required": ["error"], "properties": {"error": _TEXT}},
    "MlflowError": {
        "type": "object",
        "required": ["error_code", "message"],
        "properties": {"error_code": _TEXT, "message": _TEXT},
    },
}
"""How each protocol on a gateway tells what it refuses."""
_ANY_PREDICTIONS: _Schema = {"type": "object", "required": ["predictions"], "properties": {"predictions": {}}}
_INVOCATION: _Schema = {
    "type": "object",
    "anyOf": [{"required": [key]} for key in ("dataframe_split", "dataframe_records", "instances", "inputs")],
}
_NAME: _Schema = {"type": "string", "minLength": 1}
_LABEL = _object(
    {"prediction_id": _NAME, "event_time": _INSTANT, "label": {"type": "number"}, "observed_at": _INSTANT},
    ["prediction_id", "event_time", "label"],
)
_REWARD = _object(
    {"value": {"type": "number"}, "prediction_id": _TEXT, "unit_id": _TEXT, "metric": _TEXT, "observed_at": _INSTANT},
    ["value"],
) | {"anyOf": [{"required": [key], "properties": {key: _NAME}} for key in ("prediction_id", "unit_id")]}
_LABELS = _object({"labels": {"type": "array", "items": _LABEL}}, ["labels"])
_REWARDS = _object({"rewards": {"type": "array", "items": _REWARD}}, ["rewards"])
_SHARED: Mapping[str, object] = {
    "/labels": {"post": _operation("What turned out to be true.", _LABELS, {"type": "object"})},
    "/rewards": {"post": _operation("What predictions or units were worth.", _REWARDS, {"type": "object"})},
    "/health": {"get": _operation("Whether predictions are answered.", None, {"type": "object"})},
}
