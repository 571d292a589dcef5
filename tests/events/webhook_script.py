"""What the stock MLflow client does with webhooks; prints what it saw as JSON. Arguments: server, receiver."""

import json
import sys

import mlflow
from mlflow import MlflowClient

server, receiver = sys.argv[1:]
mlflow.set_tracking_uri(server)
mlflow.set_registry_uri(server)
client = MlflowClient()
seen = {}

EVENTS = [
    "registered_model.created",
    "model_version.created",
    "model_version_tag.set",
    "model_version_tag.deleted",
    "model_version_alias.created",
    "model_version_alias.deleted",
    "prompt.created",
    "prompt_version.created",
    "prompt_tag.set",
    "prompt_tag.deleted",
    "prompt_version_tag.set",
    "prompt_version_tag.deleted",
    "prompt_alias.created",
    "prompt_alias.deleted",
]
made = client.create_webhook("first", "http://example.invalid/x", ["registered_model.created"], description="words")
seen["made"] = [made.name, made.url, [str(event) for event in made.events], made.description, str(made.status)]
hook = client.update_webhook(made.webhook_id, url=receiver, events=EVENTS, secret="rain", description="other words")
seen["updated"] = [len(hook.events), hook.description, hook.url == receiver, hook.secret]
seen["listed"] = [item.name for item in client.list_webhooks()]
seen["got"] = client.get_webhook(made.webhook_id).name
result = client.test_webhook(made.webhook_id)
seen["tested"] = [result.success, result.response_status, result.response_body, result.error_message]
result = client.test_webhook(made.webhook_id, "model_version_alias.created")
seen["tested_another"] = result.success

client.create_registered_model("churn", tags={"team": "growth"}, description="who leaves")
version = client.create_model_version("churn", "s3://bucket/model", tags={"a": "1"}, description="first").version
client.set_model_version_tag("churn", version, "b", "2")
client.delete_model_version_tag("churn", version, "b")
client.set_registered_model_alias("churn", "best", version)
client.delete_registered_model_alias("churn", "best")

mlflow.genai.register_prompt("greeting", "Hello {{name}}!", commit_message="first", tags={"tone": "kind"})
client.set_prompt_tag("greeting", "owner", "ann")
client.delete_prompt_tag("greeting", "owner")
client.set_prompt_version_tag("greeting", "1", "checked", "yes")
client.delete_prompt_version_tag("greeting", "1", "checked")
client.set_prompt_alias("greeting", "live", 1)
client.delete_prompt_alias("greeting", "live")

refusals = {
    "url": lambda: client.create_webhook("second", "ftp://example.org/x", EVENTS[:1]),
    "name": lambda: client.create_webhook("no spaces", receiver, EVENTS[:1]),
    "unknown": lambda: client.get_webhook("nothing"),
}
for name, attempt in refusals.items():
    try:
        attempt()
    except mlflow.MlflowException as error:
        seen[name] = error.error_code
other = client.create_webhook("other", "http://example.invalid/x", EVENTS[:1], status="DISABLED")
seen["disabled"] = str(client.get_webhook(other.webhook_id).status)
client.delete_webhook(other.webhook_id)
seen["left"] = [item.name for item in client.list_webhooks()]
print(json.dumps(seen))
