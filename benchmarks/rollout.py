"""How well rollouts decide, by simulation: `make bench NAME=rollout`.

"Peer" is what a team does without this: t-tests looked at again and again, a test of fixed size with one look, or an
even split of the traffic. Seeded, so the numbers are the same again. Prints a line a measure and, last, one JSON
object.
"""

from __future__ import annotations

import json

import numpy as np
import rollout_bandits
import rollout_canary
import rollout_experiments

SEED = 20_260


def main() -> None:
    parts = (rollout_experiments, rollout_canary, rollout_bandits)
    generators = np.random.default_rng(SEED).spawn(len(parts))
    rows = [row for part, generator in zip(parts, generators, strict=True) for row in part.rows(generator)]
    print(json.dumps({"bench": "rollout", "rows": rows}))


if __name__ == "__main__":
    main()
