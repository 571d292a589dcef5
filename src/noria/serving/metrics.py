"""What Prometheus sees of serving, counted once a batch instead of once a request."""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from noria.rollout.routes import RouteTable, Variant
from noria.serving.runtime import Runtime

_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class ServingMetrics:
    """The counters of one gateway process, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._predictions = Counter(
            "model_predictions",
            "Predictions answered.",
            ["model_name", "model_version", "variant", "prediction_class"],
            registry=self._registry,
        )
        self._latency = Histogram(
            "model_prediction_latency_seconds",
            "Seconds to score and answer a micro-batch.",
            ["model_name"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._errors = Counter(
            "model_prediction_errors", "Requests answered with an error.", ["code"], registry=self._registry
        )
        self._percent = Gauge(
            "model_route_percent",
            "Share of the traffic.",
            ["model_name", "model_version", "variant"],
            registry=self._registry,
        )

    def observe(self, variant: Variant, predictions: Sequence[float], runtime: Runtime, seconds: float) -> None:
        """Count one scored batch; a regression's predictions share one class."""
        classes = ["value"] if runtime.bundle.task == "regression" else [f"{value:g}" for value in predictions]
        labels = (runtime.model, str(runtime.version), variant.name)
        for name, number in Count(classes).items():
            self._predictions.labels(*labels, name).inc(len(predictions) if name == "value" else number)
        self._latency.labels(runtime.model).observe(seconds)

    def count_error(self, code: str) -> None:
        """Count a request answered with an error."""
        self._errors.labels(code).inc()

    def set_routes(self, table: RouteTable) -> None:
        """Show the shares of a new route table."""
        self._percent.clear()
        for variant in table.variants:
            self._percent.labels(variant.model, str(variant.version), variant.name).set(variant.percent)

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self._registry)
