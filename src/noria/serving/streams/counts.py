"""What Prometheus sees of one stream."""

from __future__ import annotations

from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge


@dataclass(slots=True)
class StreamCounts:
    """Counters of one consume-predict-produce loop, in a registry of their own."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    consumed: Counter = field(init=False)
    produced: Counter = field(init=False)
    dead_lettered: Counter = field(init=False)
    retries: Counter = field(init=False)
    in_flight: Gauge = field(init=False)
    lag: Gauge = field(init=False)

    def __post_init__(self) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"noria_stream_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"noria_stream_{name}", text, registry=self.registry)

        self.consumed = counter("consumed", "Messages consumed.")
        self.produced = counter("produced", "Answers the sink has confirmed.")
        self.dead_lettered = counter("dead_lettered", "Messages without an answer.")
        self.retries = counter("retries", "Waits for something that was away.", "what")
        self.in_flight = gauge("in_flight", "Messages consumed and not yet acknowledged.")
        self.lag = gauge("lag", "Messages that wait for the group.")

    def totals(self) -> dict[str, int]:
        """The counts so far, by name."""
        names = ("consumed_total", "produced_total", "dead_lettered_total", "lag")
        values = {name: self.registry.get_sample_value(f"noria_stream_{name}") for name in names}
        return {name.removesuffix("_total"): int(value or 0) for name, value in values.items()}
