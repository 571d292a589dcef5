"""A Helm chart made of the very manifests: rendered with its own values, it gives them again.

What may differ between installations stands in a table: where it is in a manifest, and what it is called in the values.
The values are read off the manifests, so that neither can say anything else than the other.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from noria.serving.kubernetes.plan import IMAGE, LONGEST_NAME, ClusterPlan
from noria.serving.kubernetes.pods import Manifest
from noria.serving.kubernetes.workload import workload
from noria.serving.kubernetes.writing import HEAD, file_names, yaml_of

_NAMESPACE = "%namespace%"
"""In place of the namespace while manifests are built: YAML quotes what begins with %, so it stays a text."""
_NAME = "%name%"
"""In place of the deployment's name: objects are named by their release, so that a namespace can hold several."""
_FULL_NAME = '{{ include "noria.fullname" . }}'
_HELPERS = f"""\
{{{{- define "noria.fullname" -}}}}
{{{{- $name := printf "%s-%s" .Release.Name .Chart.Name -}}}}
{{{{- if contains .Chart.Name .Release.Name -}}}}
{{{{- $name = .Release.Name -}}}}
{{{{- end -}}}}
{{{{- if not (regexMatch "^[a-z]" $name) -}}}}
{{{{- $name = printf "n-%s" $name -}}}}
{{{{- end -}}}}
{{{{- if or (gt (len $name) {LONGEST_NAME}) (contains "." $name) -}}}}
{{{{- $plain := replace "." "-" $name | trunc {LONGEST_NAME - 9} | trimSuffix "-" -}}}}
{{{{- $name = printf "%s-%s" $plain (sha256sum $name | trunc 8) -}}}}
{{{{- end -}}}}
{{{{- $name -}}}}
{{{{- end -}}}}
"""
"""The release's name where it has the chart's in it, else both; what is too long is cut, with a hash of it all.

A release may begin with a digit, or have dots; a Service's name may not.
"""
_BOUNDS = """\
{{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) }}
{{- fail "autoscaling.minReplicas is above autoscaling.maxReplicas" }}
{{- end }}
"""
"""What a schema cannot say."""
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
_TOGGLES = {
    "PodDisruptionBudget": "podDisruptionBudget",
    "NetworkPolicy": "networkPolicy",
    "ServiceMonitor": "serviceMonitor",
}
"""Objects that a cluster may do without, or not know."""

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class _Value:
    """Something in manifests of a kind that the values say; ``schema`` is what it may be."""

    kind: str
    path: Path
    name: tuple[str, ...]
    schema: Mapping[str, object]


_QUANTITY = {
    "type": ["string", "number"],
    "pattern": r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)(m|[kMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)?$",
}
_QUANTITIES = {"type": "object", "additionalProperties": _QUANTITY}
_RESOURCES = {
    "type": "object",
    "properties": {"requests": _QUANTITIES, "limits": _QUANTITIES, "claims": {"type": "array"}},
    "additionalProperties": False,
}
_COUNT = {"type": "integer", "minimum": 1}
_VARIABLE = {
    "type": "object",
    "required": ["name"],
    "properties": {key: {"type": "string"} for key in ("name", "value")},
}
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_PODS = ("spec", "template")
_CONTAINER = (*_PODS, "spec", "containers", 0)
_TABLE = (
    _Value("Deployment", ("spec", "replicas"), ("replicas",), {"type": "integer", "minimum": 0}),
    _Value("Deployment", (*_CONTAINER, "image"), ("image",), {"type": "string", "pattern": f"^{IMAGE}$"}),
    _Value("Deployment", (*_CONTAINER, "env"), ("env",), {"type": "array", "items": _VARIABLE}),
    _Value("Deployment", (*_CONTAINER, "resources"), ("resources",), _RESOURCES),
    _Value("Deployment", (*_PODS, "metadata", "annotations"), ("podAnnotations",), _TEXTS),
    _Value("Deployment", (*_PODS, "spec", "nodeSelector"), ("nodeSelector",), _TEXTS),
    _Value("Deployment", (*_PODS, "spec", "tolerations"), ("tolerations",),
           {"type": "array", "items": {"type": "object"}}),
    _Value("HorizontalPodAutoscaler", ("spec", "minReplicas"), ("autoscaling", "minReplicas"), _COUNT),
    _Value("HorizontalPodAutoscaler", ("spec", "maxReplicas"), ("autoscaling", "maxReplicas"), _COUNT),
    _Value("HorizontalPodAutoscaler", ("spec", "metrics", 0, "resource", "target", "averageUtilization"),
           ("autoscaling", "cpuPercent"), {"type": "integer", "minimum": 1, "maximum": 100}),
    _Value("ScaledObject", ("spec", "minReplicaCount"), ("autoscaling", "minReplicas"), _COUNT),
    _Value("ScaledObject", ("spec", "maxReplicaCount"), ("autoscaling", "maxReplicas"), _COUNT),
    _Value("ScaledObject", ("spec", "triggers", 0, "metadata", "threshold"), ("autoscaling", "predictionsPerSecond"),
           {"type": ["string", "number"], "pattern": r"^\d+(\.\d+)?$", "exclusiveMinimum": 0}),
    _Value("ScaledObject", ("spec", "triggers", 0, "metadata", "serverAddress"), ("autoscaling", "prometheus"),
           {"type": "string", "format": "uri"}),
    _Value("HTTPRoute", ("spec", "hostnames"), ("hosts",), {"type": "array", "items": {"type": "string"}}),
    _Value("HTTPRoute", ("spec", "parentRefs"), ("parents",), {"type": "array", "items": {"type": "object"}}),
)  # fmt: skip


@dataclass(slots=True)
class _Chart:
    """What is gathered while manifests become templates."""

    values: dict[str, Any] = field(default_factory=dict)
    schema: dict[str, Any] = field(default_factory=lambda: _object())
    files: dict[str, str] = field(default_factory=dict)

    def take(self, manifest: Manifest, value: _Value, tokens: dict[str, str]) -> None:
        """Read one value off a manifest, and leave a token there."""
        holder = _at(manifest, value.path[:-1])
        last = value.path[-1]
        if holder is None or (isinstance(holder, dict) and last not in holder):
            return
        if _NAME in json.dumps(holder[last]):  # it names the chart's own object, which goes by the release
            return
        _put(self.values, value.name, holder[last])
        _put_schema(self.schema, value.name, value.schema)
        token = f"%value-{len(tokens)}%"
        text = "toString | " if isinstance(holder[last], str) else ""  # --set makes numbers of what looks like one
        tokens[f"'{token}'"] = f"{{{{ {_reference(value.name)} | {text}toJson }}}}"
        holder[last] = token


def chart_files(plan: ClusterPlan) -> dict[str, str]:
    """Name → text of every file of the chart."""
    plan.check()
    chart = _Chart()
    manifests = workload(replace(plan, namespace=_NAMESPACE, renamed=_NAME))
    for name, manifest in zip(file_names(manifests), manifests, strict=True):
        chart.files[f"templates/{name.replace(_NAME, plan.name)}"] = _template(chart, manifest, plan.name)
    version = f"0.1.{plan.routes.revision}"
    described = {
        "apiVersion": "v2",
        "name": plan.name,
        "description": f"Serves {plan.routes.deployment} with Noria",
        "type": "application",
        "version": version,
        "appVersion": str(plan.routes.variants[0].version),
    }
    _put_schema(chart.schema, ("global",), {"type": "object"})  # which Helm gives to what another chart depends on
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", **chart.schema}
    return {
        "Chart.yaml": HEAD + yaml_of(described),
        "values.yaml": HEAD + yaml_of(chart.values),
        "values.schema.json": json.dumps(schema, indent=1) + "\n",
        "templates/_helpers.tpl": _HELPERS,
        **chart.files,
    }


def _template(chart: _Chart, manifest: Manifest, plain_name: str) -> str:
    """The manifest with what may differ taken out of it; ``plain_name`` is the deployment's."""
    manifest, tokens = copy.deepcopy(manifest), dict[str, str]()
    for value in [*_TABLE, *_weights(manifest, plain_name)]:
        if value.kind == manifest["kind"]:
            chart.take(manifest, value, tokens)
    if manifest["kind"] == "ConfigMap":
        file = f"routes/{manifest['metadata']['name'].replace(_NAME, plain_name)}.json"
        chart.files[file] = manifest["data"]["routes.json"]
        manifest["data"]["routes.json"] = "%routes%"
        tokens["'%routes%'"] = f'{{{{ .Files.Get "{file}" | toJson }}}}'
    text = yaml_of(manifest).replace("{{", '{{ "{{" }}')
    for token, expression in {**tokens, _NAMESPACE: "{{ .Release.Namespace }}", _NAME: _FULL_NAME}.items():
        text = text.replace(token, expression)
    return HEAD + _wrapped(chart, manifest["kind"], text)


def _wrapped(chart: _Chart, kind: str, text: str) -> str:
    """The template, left out where the values say so, and refused where they contradict each other."""
    if kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        return _BOUNDS + text
    if kind not in _TOGGLES:
        return text
    name = (_TOGGLES[kind], "enabled")
    _put(chart.values, name, True)
    _put_schema(chart.schema, name, {"type": "boolean"})
    return f"{{{{- if {_reference(name)} }}}}\n{text}{{{{- end }}}}\n"


def _weights(manifest: Manifest, plain_name: str) -> Iterator[_Value]:
    """Of a route over several variants: the weight of each, by its service."""
    rules = manifest["spec"]["rules"] if manifest["kind"] == "HTTPRoute" else []
    backends = rules[0]["backendRefs"] if rules else []
    for place, backend in enumerate(backends if len(backends) > 1 else []):
        path = ("spec", "rules", 0, "backendRefs", place, "weight")
        schema = {"type": "integer", "minimum": 0, "maximum": 1_000_000}
        yield _Value("HTTPRoute", path, ("weights", backend["name"].replace(_NAME, plain_name)), schema)


def _reference(name: Sequence[str]) -> str:
    if all(map(_IDENTIFIER.fullmatch, name)):
        return ".Values." + ".".join(name)
    return "(index .Values " + " ".join(f'"{part}"' for part in name) + ")"


def _at(document: Any, path: Path) -> Any:
    for part in path:
        if isinstance(document, dict) and part not in document:
            return None
        document = document[part]
    return document


def _put(values: dict[str, Any], name: Sequence[str], value: object) -> None:
    for part in name[:-1]:
        values = values.setdefault(part, {})
    values[name[-1]] = value


def _put_schema(schema: dict[str, Any], name: Sequence[str], value: Mapping[str, object]) -> None:
    for part in name[:-1]:
        schema = schema["properties"].setdefault(part, _object())
    schema["properties"][name[-1]] = dict(value)


def _object() -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": {}}
