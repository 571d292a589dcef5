"""Feast's side of the join: its DuckDB offline store on the files that we join. Run by Feast's own Python."""

from __future__ import annotations

import json
import resource
import sys
import time
from datetime import timedelta
from pathlib import Path

import pandas as pd  # noqa: TID253  this is another program, in Feast's own environment
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, Int64

CONFIG = """\
project: bench
provider: local
registry: {folder}/registry.db
offline_store: {{type: duckdb}}
online_store: {{type: sqlite, path: {folder}/online.db}}
entity_key_serialization_version: 3
"""


def main() -> None:
    task = json.loads(sys.argv[1])
    folder = Path(task["folder"])
    (folder / "feature_store.yaml").write_text(CONFIG.format(folder=folder))
    kind = ValueType.STRING if task["keys"] == "string" else ValueType.INT64
    entity = Entity(name="driver", join_keys=["driver_id"], value_type=kind)
    views = [
        FeatureView(
            name=one["name"],
            entities=[entity],
            ttl=timedelta(days=one["ttl_days"] or 0),
            schema=[Field(name=name, dtype=Int64 if kind == "Int64" else Float64) for name, kind in one["fields"]],
            source=FileSource(
                path=one["path"], timestamp_field="event_timestamp", created_timestamp_column="created_timestamp"
            ),
        )
        for one in task["views"]
    ]
    store = FeatureStore(repo_path=str(folder))
    store.apply([entity, *views])
    features = [f"{one['name']}:{name}" for one in task["views"] for name, _ in one["fields"]]
    events = pd.read_parquet(task["events"])
    seconds = []
    for _ in range(task["repeats"]):
        began = time.perf_counter()
        asked = store.get_historical_features(
            entity_df=events.copy(), features=features, full_feature_names=True, filter_by_created_timestamp=True
        )
        found = asked.to_arrow()
        seconds.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found.to_pandas().to_parquet(task["result"])
    print(json.dumps({"seconds": seconds, "peak_bytes": peak}))


if __name__ == "__main__":
    main()
