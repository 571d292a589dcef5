"""What Prometheus sees of serving, counted once a batch instead of once a request.

Several workers of one gateway leave their counts in a shared folder, so that any of them answers for all.
"""

from __future__ import annotations

import os
import threading
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from noria.rollout.routes import RouteTable
from noria.store.blobs import write_atomically
from noria.structs import read_by_threads

if TYPE_CHECKING:
    from noria.serving.items import Outcome
    from noria.serving.live import Arm
    from noria.serving.served import Served

_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BOUNDS = [*(str(bound) for bound in _BUCKETS), "+Inf"]
_MOST_UNCOUNTED = 4096
"""Rows that are held until somebody looks."""
_ROUTE_LABELS = ("deployment", "model_name", "model_version", "variant")


@read_by_threads
class Counts(msgspec.Struct):
    """What one process counted. Keys of several parts are joined by the unit separator."""

    predictions: dict[str, int] = {}
    errors: dict[str, int] = {}
    shadows: dict[str, int] = {}
    latencies: dict[str, list[int]] = {}
    latency_sums: dict[str, float] = {}
    not_logged: int = 0
    changed: dict[str, int] = {}
    hung: dict[str, int] = {}

    def add(self, other: Counts) -> None:
        """Count what another process counted, too."""
        _add(self.predictions, other.predictions)
        _add(self.errors, other.errors)
        _add(self.shadows, other.shadows)
        _add(self.changed, other.changed)
        _add(self.hung, other.hung)
        self.not_logged += other.not_logged
        for model, counts in other.latencies.items():
            self.observe(model, counts, other.latency_sums[model])

    def observe(self, model: str, counts: Sequence[int], total: float) -> None:
        """Add to the histogram of a model's latencies."""
        known = self.latencies.get(model) or [0] * len(_BOUNDS)
        self.latencies[model] = [one + more for one, more in zip(known, counts, strict=True)]
        self.latency_sums[model] = self.latency_sums.get(model, 0.0) + total


class ServingMetrics:
    """The counts of one gateway process. Threads may share it."""

    def __init__(self, shared: Path | None = None) -> None:
        self._counts = Counts()
        self._uncounted: deque[tuple[Arm, Sequence[object], Sequence[float]]] = deque()
        self._rows_uncounted = 0
        self._routes: dict[str, RouteTable] = {}
        self._lock = threading.Lock()
        self._file = None if shared is None else shared / f"{os.getpid()}.json"
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def observe(self, arm: Arm, outcome: Outcome, latencies: Sequence[float]) -> None:
        """Count one scored batch (latencies in seconds); what is no classification shares one class.

        Its answers wait for this: what can be worked out later is worked out for many batches together.
        """
        self._uncounted.append((arm, outcome.predictions, latencies))
        self._rows_uncounted += len(latencies)  # two threads at once may miss some, which makes it count a bit later
        if self._rows_uncounted > _MOST_UNCOUNTED:
            with self._lock:
                self._count()

    def _count(self) -> None:
        """Work out what was observed; the lock must be held."""
        self._rows_uncounted = 0
        together: dict[int, tuple[Arm, list[Sequence[object]], list[Sequence[float]]]] = {}
        with suppress(IndexError):
            while True:
                arm, predictions, latencies = self._uncounted.popleft()
                _, rows, times = together.setdefault(id(arm), (arm, [], []))
                rows.append(predictions)
                times.append(latencies)
        for arm, rows, times in together.values():
            variant = arm.variant
            head = _joined(variant.model, arm.version, variant.name)
            if arm.served.bundle.task == "classification":
                classes = {f"{head}\x1f{name}": number for name, number in Counter(chain.from_iterable(rows)).items()}
            else:
                classes = {f"{head}\x1fvalue": sum(map(len, rows))}
            _add(self._counts.predictions, classes)
            seconds = np.fromiter(chain.from_iterable(times), np.float64)
            places = np.bincount(np.searchsorted(_BUCKETS, seconds), minlength=len(_BOUNDS)).tolist()
            self._counts.observe(variant.model, places, float(seconds.sum()))

    def count_error(self, code: str, number: int = 1) -> None:
        """Count requests answered with an error."""
        with self._lock:
            _add(self._counts.errors, {code: number})

    def count_lost(self, rows: int) -> None:
        """Count rows that were answered and could not be logged."""
        with self._lock:
            self._counts.not_logged += rows

    def count_changed(self, view: str) -> None:
        """Count a row of a view that is of another definition than its model was trained on."""
        with self._lock:
            _add(self._counts.changed, {view: 1})

    def count_hung(self, served: Served) -> None:
        """Count a call of a model that gave no answer, for which its process was begun anew."""
        with self._lock:
            _add(self._counts.hung, {_joined(served.model, str(served.version)): 1})

    def count_shadow(self, deployment: str, outcome: str, rows: int) -> None:
        """Count copies that a shadow scored, or that were dropped because it was behind."""
        with self._lock:
            _add(self._counts.shadows, {_joined(deployment, outcome): rows})

    def set_routes(self, table: RouteTable) -> None:
        """Show the shares of a new route table."""
        self._routes[table.deployment] = table

    def forget_routes(self, table: RouteTable) -> None:
        """Show no shares of a deployment any more."""
        self._routes.pop(table.deployment, None)

    def share(self) -> None:
        """Leave the counts where the other workers find them."""
        if self._file is not None:
            with self._lock:
                self._count()
                content = msgspec.json.encode(self._counts)
            write_atomically(self._file, content)

    def render(self) -> bytes:
        """The Prometheus text format, of all workers."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """The metric families; prometheus-client asks for them."""
        total = self._of_all()
        yield _counter("model_predictions", "Predictions answered.", _CLASS_LABELS, total.predictions)
        yield _counter("model_prediction_errors", "Requests answered with an error.", ("code",), total.errors)
        yield _counter(
            "model_shadow_predictions", "Copies of requests, by what became of them.", _SHADOW_LABELS, total.shadows
        )
        text = "Calls that a model gave no answer to, for which its process was begun anew."
        yield _counter("model_calls_hung", text, ("model_name", "model_version"), total.hung)
        lost = CounterMetricFamily("model_predictions_not_logged", "Predictions answered, but missing in the log.")
        lost.add_metric([], total.not_logged)
        yield lost
        text = "Rows looked up that are of another definition of their view than the model was trained on."
        yield _counter("noria_feature_definition_mismatches", text, ("view",), total.changed)
        yield _histogram(total)
        yield self._shares()

    def _of_all(self) -> Counts:
        total = Counts()
        with self._lock:
            self._count()
            total.add(self._counts)
        for file in [] if self._file is None else self._file.parent.glob("*.json"):
            if file != self._file:
                total.add(msgspec.json.decode(file.read_bytes(), type=Counts))
        return total

    def _shares(self) -> Metric:
        family = GaugeMetricFamily("model_route_percent", "Share of the traffic.", labels=_ROUTE_LABELS)
        for table in list(self._routes.values()):
            for variant in table.variants:
                labels = (table.deployment, variant.model, str(variant.version), variant.name)
                family.add_metric(labels, variant.percent)
        return family


_CLASS_LABELS = ("model_name", "model_version", "variant", "prediction_class")
_SHADOW_LABELS = ("deployment", "outcome")


def _add(counts: dict[str, int], more: Mapping[str, int]) -> None:
    for key, number in more.items():
        counts[key] = counts.get(key, 0) + number


def _joined(*parts: str) -> str:
    return "\x1f".join(parts)


def _counter(name: str, text: str, labels: Sequence[str], counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, number in counts.items():
        family.add_metric(key.split("\x1f"), number)
    return family


def _histogram(counts: Counts) -> Metric:
    text = "Seconds from a request's arrival to its score."
    family = HistogramMetricFamily("model_prediction_latency_seconds", text, labels=["model_name"])
    for model, places in counts.latencies.items():
        buckets = list(zip(_BOUNDS, np.cumsum(places).tolist(), strict=True))
        family.add_metric([model], buckets, counts.latency_sums[model])
    return family
