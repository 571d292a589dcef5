"""Run with KServe's own client installed: every key of the manifests on standard input is one of its models' fields."""

import json
import sys

import kserve.models
import kubernetes.client


def faults(document, kind, where):
    """What the model of that name does not have, or holds something else for."""
    if kind.startswith("list["):
        for place, one in enumerate(document):
            yield from faults(one, kind[5:-1], f"{where}[{place}]")
        return
    if kind.startswith("dict("):
        return
    model = getattr(kserve.models, kind, None) or getattr(kubernetes.client, kind, None)
    if model is None:
        expected = {"str": str, "int": int, "bool": bool, "float": (int, float)}.get(kind)
        if expected and not isinstance(document, expected):
            yield f"{where} is {document!r}, not {kind}"
        return
    fields = {key: name for name, key in model.attribute_map.items()}
    for key, value in document.items():
        if key not in fields:
            yield f"{where}.{key} is no field of {kind}"
        else:
            yield from faults(value, model.openapi_types[fields[key]], f"{where}.{key}")


found = []
for manifest in json.load(sys.stdin):
    version = manifest["apiVersion"].rpartition("/")[2].replace("v1", "V1", 1)
    found += faults(manifest, f"{version}{manifest['kind']}", manifest["kind"])
print("\n".join(found))
sys.exit(bool(found))
