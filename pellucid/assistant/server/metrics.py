"""`/metrics`, as Prometheus reads them: requests, their seconds, tokens, texts on their way, and the process itself."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from pellucid.assistant.server.models import OpenModels

SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Meter:
    """The numbers of one server."""

    def __init__(self, models: OpenModels) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(Texts(models))
        self.requests = Counter(
            "pellucid_requests", "Requests, by route and status.", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "pellucid_request_seconds",
            "From a request to its last byte.",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.tokens = Counter("pellucid_tokens", "Tokens read and made.", ["model", "kind"], registry=self.registry)

    def observe(self, route: str, status: int, seconds: float) -> None:
        """Note a request that is over."""
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def count_tokens(self, model: str, read: int, made: int) -> None:
        """Note the tokens of a request."""
        self.tokens.labels(model, "read").inc(read)
        self.tokens.labels(model, "made").inc(made)

    def page(self) -> bytes:
        """All of them as text."""
        return generate_latest(self.registry)


class Texts(Collector):
    """How many texts are on their way now, asked when somebody looks."""

    def __init__(self, models: OpenModels) -> None:
        self.models = models

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One gauge, by model."""
        gauge = GaugeMetricFamily("pellucid_texts", "Texts that are decoded or wait.", labels=["model"])
        for name, engine in list(self.models.engines.items()):
            gauge.add_metric([name], engine.count)
        yield gauge
