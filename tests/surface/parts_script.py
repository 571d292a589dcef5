"""Upload and download with the stock client as it comes, and print what went over the wire. argv: URL."""

import hashlib
import json
import os
import re
import sys
import tempfile
from pathlib import Path

import mlflow
import requests

wire = []
plain_send = requests.Session.send


def noting_send(session, request, **options):
    wire.append(f"{request.method} {request.url}")
    return plain_send(session, request, **options)


requests.Session.send = noting_send
mlflow.set_tracking_uri(sys.argv[1])
client = mlflow.MlflowClient()
content = {"large.bin": os.urandom(1_234_567), "small.bin": os.urandom(1000), "empty.bin": b""}
with tempfile.TemporaryDirectory() as folder:
    for name, text in content.items():
        Path(folder, name).write_bytes(text)
    run = client.create_run("0").info.run_id
    client.log_artifacts(run, folder, "files")
uploads = list(wire)
wire.clear()
with tempfile.TemporaryDirectory() as folder:
    got = Path(client.download_artifacts(run, "files", folder))
    same = {
        name: hashlib.sha256((got / name).read_bytes()).digest() == hashlib.sha256(text).digest()
        for name, text in content.items()
    }
print(
    json.dumps(
        {
            "parts": sum(bool(re.search("/mpu/parts/", line)) for line in uploads),
            "completed": sum("/mpu/complete/" in line for line in uploads),
            "signed": sum("/mlflow-artifacts/presigned/" in line for line in wire),
            "through_the_server": sum("/mlflow-artifacts/artifacts/" in line for line in wire),
            "same": same,
        }
    )
)
