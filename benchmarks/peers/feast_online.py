"""Feast's side of features_online.py, run by Feast's own interpreter: takes a JSON request a line, answers each."""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from datetime import datetime, timedelta, timezone
from pathlib import Path
from statistics import median
from typing import Any

warnings.filterwarnings("ignore")
os.environ["FEAST_USAGE"] = "False"

from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType  # noqa: E402
from feast import types as feast_types  # noqa: E402

CONFIG = """
project: bench
provider: local
registry: {folder}/registry.db
online_store: {{type: sqlite, path: {folder}/online.db}}
offline_store: {{type: duckdb}}
entity_key_serialization_version: 3
"""


def open_store(folder: Path, data: Path, views: dict[str, dict[str, str]]) -> FeatureStore:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "feature_store.yaml").write_text(CONFIG.format(folder=folder))
    store = FeatureStore(repo_path=str(folder))
    user = Entity(name="user_id", value_type=ValueType.INT64)
    defined: list[Any] = [user]
    for name, fields in views.items():
        source = FileSource(
            name=name,
            path=str(data / f"{name}.parquet"),
            timestamp_field="event_timestamp",
            created_timestamp_column="created_timestamp",
        )
        schema = [Field(name="user_id", dtype=feast_types.Int64)]
        schema += [Field(name=field, dtype=getattr(feast_types, kind)) for field, kind in fields.items()]
        defined.append(FeatureView(name=name, entities=[user], schema=schema, source=source, ttl=timedelta(0)))
    store.apply(defined)
    return store


def main() -> None:
    folder, data, views = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    asked = [f"{name}:{field}" for name, fields in views.items() for field in fields]
    answers, sys.stdout = sys.stdout, sys.stderr  # Feast talks
    store = open_store(folder / "0", data, views)

    def respond(ids: list[int]) -> Any:
        return store.get_online_features(
            features=asked, entity_rows=[{"user_id": one} for one in ids], full_feature_names=True
        )

    def timed(ids: list[int]) -> float:
        began = time.perf_counter()
        respond(ids).to_dict(include_event_timestamps=True)
        return time.perf_counter() - began

    for number, line in enumerate(sys.stdin, start=1):
        request = json.loads(line)
        answer: Any = None
        if request["do"] == "materialize":
            store = open_store(folder / str(number), data, views)
            begin, end = (datetime.fromtimestamp(second, timezone.utc) for second in request["between"])  # noqa: UP017
            began = time.perf_counter()
            store.materialize(begin, end)
            answer = time.perf_counter() - began
        elif request["do"] == "time":
            answer = median(map(timed, request["batches"])) * 1e6
        else:
            response = respond(request["ids"])
            found = response.to_dict(include_event_timestamps=True)
            results = zip(response.proto.metadata.feature_names.val, response.proto.results, strict=True)
            statuses = {name: list(result.statuses) for name, result in results if name != "user_id"}
            answer = {name: [found[name], statuses[name], found[f"{name}__ts"]] for name in statuses}
        print(json.dumps(answer), file=answers, flush=True)


main()
