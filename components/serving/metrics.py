"""What a server counts, in Prometheus' format."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

OTHER = "other"  # names a client made up must not become labels: each would be a time series of its own


class ServingMetrics:
    """Requests, latency, batch sizes, rows and errors by dataset, and the version that serves."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("loraloom_requests", "Requests by status.", ["status"], registry=self.registry)
        self.latency = Histogram("loraloom_request_seconds", "Seconds to the answer.", registry=self.registry)
        self.batch = Histogram(
            "loraloom_batch_rows", "Rows answered together.", registry=self.registry,
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
        )  # fmt: skip
        self.rows = Counter("loraloom_rows", "Rows answered, by dataset.", ["dataset"], registry=self.registry)
        self.errors = Counter("loraloom_errors", "Rows refused, by dataset.", ["dataset"], registry=self.registry)
        self.version = Gauge("loraloom_model_version", "The version that serves.", registry=self.registry)

    def answered(self, datasets: Sequence[str]) -> None:
        """Count rows that were answered."""
        for name in datasets:
            self.rows.labels(name).inc()

    def refused(self, datasets: Sequence[object], known: Sequence[str]) -> None:
        """Count rows that were not; ``known`` are the ensemble's datasets."""
        for name in datasets:
            self.errors.labels(name if name in known else OTHER).inc()

    def page(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)
