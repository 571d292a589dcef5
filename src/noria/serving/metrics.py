"""What Prometheus sees of serving, counted once a batch instead of once a request."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter as Count
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import HistogramMetricFamily

from noria.rollout.routes import RouteTable, Variant
from noria.serving.runtime import Runtime

_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class _Latencies:
    """A histogram a model that takes a whole batch: prometheus-client's own takes a lock for every value."""

    def __init__(self) -> None:
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    def observe(self, model: str, seconds: Sequence[float]) -> None:
        counts = self._counts.setdefault(model, [0] * (len(_BUCKETS) + 1))
        for value in seconds:
            counts[bisect_left(_BUCKETS, value)] += 1
        self._sums[model] = self._sums.get(model, 0.0) + sum(seconds)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        name, text = "model_prediction_latency_seconds", "Seconds from a request's arrival to its score."
        family = HistogramMetricFamily(name, text, labels=["model_name"])
        bounds = [*(str(bound) for bound in _BUCKETS), "+Inf"]
        for model, counts in self._counts.items():
            buckets = list(zip(bounds, accumulate(counts), strict=True))
            family.add_metric([model], buckets, self._sums[model])
        yield family


class ServingMetrics:
    """The counters of one gateway process, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._latencies = _Latencies()
        self._registry.register(self._latencies)
        self._predictions = Counter(
            "model_predictions",
            "Predictions answered.",
            ["model_name", "model_version", "variant", "prediction_class"],
            registry=self._registry,
        )
        self._errors = Counter(
            "model_prediction_errors",
            "Prediction requests answered with an error; not_logged: answered, but missing in the log.",
            ["code"],
            registry=self._registry,
        )
        self._percent = Gauge(
            "model_route_percent",
            "Share of the traffic.",
            ["model_name", "model_version", "variant"],
            registry=self._registry,
        )

    def observe(
        self, variant: Variant, predictions: Sequence[float], runtime: Runtime, latencies: Sequence[float]
    ) -> None:
        """Count one scored batch (latencies in seconds); a regression's predictions share one class."""
        labels = (runtime.model, str(runtime.version), variant.name)
        if runtime.bundle.task == "regression":
            classes = {"value": len(predictions)}
        else:
            classes = {f"{value:g}": number for value, number in Count(predictions).items()}
        for name, number in classes.items():
            self._predictions.labels(*labels, name).inc(number)
        self._latencies.observe(runtime.model, latencies)

    def count_error(self, code: str, number: int = 1) -> None:
        """Count requests answered with an error."""
        self._errors.labels(code).inc(number)

    def set_routes(self, table: RouteTable) -> None:
        """Show the shares of a new route table."""
        self._percent.clear()
        for variant in table.variants:
            self._percent.labels(variant.model, str(variant.version), variant.name).set(variant.percent)

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self._registry)
