"""OpenAPI of a gateway, made of the signatures of the models it serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from noria import __version__
from noria.optimize.bundle import Bundle
from noria.serving.live import Live
from noria.surface.tensors import metadata

_TYPES = {
    "double": {"type": ["number", "null"]},
    "float": {"type": ["number", "null"]},
    "long": {"type": ["integer", "null"]},
    "integer": {"type": ["integer", "null"]},
    "boolean": {"type": ["boolean", "null"]},
    "string": {"type": ["string", "null"]},
    "datetime": {"type": ["string", "null"], "format": "date-time"},
}
_Schema = Mapping[str, object]


def document(deployments: Sequence[Live], named: str | None) -> dict[str, object]:
    """The OpenAPI 3.1 document of all deployments, or of one alone."""
    alone = deployments[0] if len(deployments) == 1 else None
    paths: dict[str, object] = dict(_SHARED)
    schemas: dict[str, object] = dict(_ERRORS)
    for live in deployments:
        name = live.table.deployment
        prefix = "" if alone is not None and named is None else f"/models/{name}"
        schemas |= {f"{name}.Row": _row(live.champion.served.bundle), f"{name}.Prediction": _prediction(live)}
        paths |= _paths(name, prefix, live)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Noria gateway" if alone is None else alone.table.deployment, "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _paths(name: str, prefix: str, live: Live) -> dict[str, object]:
    row, answer = _ref(f"{name}.Row"), _ref(f"{name}.Prediction")
    several = _object({"predictions": {"type": "array", "items": answer}}, ["predictions"])
    rows = _object({"instances": {"type": "array", "items": row}}, ["instances"])
    model = str(metadata(live, live.champion)["name"])
    return {
        f"{prefix}/predict": {"post": _operation("Predict one row.", row, answer)},
        f"{prefix}/predict/batch": {"post": _operation("Predict several rows.", rows, several)},
        f"{prefix}/invocations": {
            "post": _operation("MLflow's scoring protocol.", {"type": "object"}, _ANY_PREDICTIONS, "MlflowError")
        },
        f"{prefix}/model/info": {"get": _operation("What serves.", None, {"type": "object"})},
        f"/v2/models/{model}": {"get": _operation("Metadata of the model.", None, {"type": "object"}, "V2Error")},
        f"/v2/models/{model}/infer": {
            "post": _operation("Open Inference Protocol v2.", _infer_schema(live), {"type": "object"}, "V2Error")
        },
    }


def _row(bundle: Bundle) -> _Schema:
    features = {name: _TYPES[bundle.kinds.get(name, "double")] for name in bundle.sent}
    keys = list(bundle.entity_keys)
    properties: dict[str, object] = {
        "prediction_id": {"type": "string"},
        "event_time": {"type": "string", "format": "date-time"},
        "unit_id": {"type": "string"},
    }
    required = []
    if features:
        by_name = _object(features, list(features))
        in_order = {"type": "array", "minItems": len(features), "maxItems": len(features)}
        properties["features"] = {"oneOf": [by_name, in_order]}
        required.append("features")
    if keys:
        properties["entities"] = {"type": "object", "required": keys, "properties": {key: {} for key in keys}}
        required.append("entities")
    return _object(properties, required)


def _prediction(live: Live) -> _Schema:
    bundle = live.champion.served.bundle
    properties: dict[str, object] = {
        "prediction_id": {"type": "string"},
        "prediction": {"enum": list(bundle.classes)} if bundle.task == "classification" else {},
        "model": {"type": "string"},
        "model_version": {"type": "string"},
        "variant": {"type": "string"},
        "route_revision": {"type": "integer"},
    }
    if bundle.task == "classification":
        properties["probability"] = {"type": "number", "minimum": 0, "maximum": 1}
        properties["confidence"] = {"enum": ["very_high", "high", "medium", "low"]}
    return {"type": "object", "properties": properties, "required": ["prediction_id", "prediction", "model_version"]}


def _infer_schema(live: Live) -> _Schema:
    tensor = _object(
        {
            "name": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "datatype": {"type": "string"},
            "data": {"type": "array"},
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


def _ref(name: str) -> dict[str, object]:
    return {"$ref": f"#/components/schemas/{name}"}


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
_TEXT: _Schema = {"type": "string"}
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
_LABELS = _object({"labels": {"type": "array", "items": {"type": "object"}}}, ["labels"])
_REWARDS = _object({"rewards": {"type": "array", "items": {"type": "object"}}}, ["rewards"])
_SHARED: Mapping[str, object] = {
    "/labels": {"post": _operation("What turned out to be true.", _LABELS, {"type": "object"})},
    "/rewards": {"post": _operation("What predictions or units were worth.", _REWARDS, {"type": "object"})},
    "/health": {"get": _operation("Whether predictions are answered.", None, {"type": "object"})},
}
