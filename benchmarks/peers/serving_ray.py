"""A Ray Serve deployment of one replica: ``python serving_ray.py PORT``."""

# ruff: noqa: TID253  this is another program, in an environment of its own
from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray import serve
from serving_models import Forest
from starlette.requests import Request


@serve.deployment
class ForestDeployment:
    def __init__(self) -> None:
        self.model = Forest()

    async def __call__(self, request: Request) -> Any:
        sent = await request.json()
        return {"probabilities": self.model.predict_proba(np.array(sent["rows"])).tolist()}


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ray.init(include_dashboard=False, configure_logging=False, _node_ip_address="127.0.0.1", _temp_dir=str(Path.cwd()))
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(ForestDeployment.bind(), blocking=False)
    signal.pause()
