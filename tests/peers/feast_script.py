"""Run by Feast's interpreter. FOLDER QUESTION: make its example repo there and answer; REPO URL QUESTION: ask URL."""

import json
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd
from feast import FeatureStore
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus


def run(folder, *arguments):
    command = [Path(sys.executable).parent / "feast", *arguments]
    subprocess.run(command, cwd=folder, check=True, stdout=sys.stderr)


def answer(folder, features, rows):
    run(folder, "init", "drivers")
    repo = folder / "drivers/feature_repo"
    run(repo, "apply")
    store = FeatureStore(repo_path=str(repo))
    now = datetime.utcnow()
    store.materialize(now - timedelta(days=20), now)
    online = store.get_online_features(features=features, entity_rows=rows)
    names = list(online.proto.metadata.feature_names.val)
    statuses = online.proto.results[names.index("acc_rate")].statuses
    service = store.get_online_features(features=store.get_feature_service("driver_activity_v2"), entity_rows=rows)
    times = [(now - timedelta(days=days)).isoformat() for days in (1, 2, 3)]
    added = {"val_to_add": [1, 2, 3], "val_to_add_2": [4, 5, 6]}
    entities = {"driver_id": [1001, 1002, 1003], "event_timestamp": times, **added}
    asked = pd.DataFrame(entities).assign(event_timestamp=lambda f: pd.to_datetime(f["event_timestamp"], utc=True))
    historical = store.get_historical_features(entity_df=asked, features=[features[0], features[3]]).to_df()
    historical = historical.sort_values("driver_id").drop(columns="event_timestamp")
    return {
        "online": online.to_dict(),
        "statuses": [FieldStatus.Name(status) for status in statuses],
        "service": service.to_dict(),
        "entities": entities,
        "historical": historical.to_dict(orient="list"),
    }


def ask(repo, url, features, rows):
    config = repo / "feature_store.yaml"
    text = config.read_text()
    remote = f"online_store:\n    type: remote\n    path: {url}\n"
    config.write_text(text[: text.index("online_store:")] + remote + text[text.index("entity_key_serialization") :])
    found = FeatureStore(repo_path=str(repo)).get_online_features(features=features, entity_rows=rows)
    return found.to_dict()


*place, question = sys.argv[1:]
features, rows = json.loads(question)
found = ask(Path(place[0]), place[1], features, rows) if place[1:] else answer(Path(place[0]), features, rows)
print(json.dumps(found))
