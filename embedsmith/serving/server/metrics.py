"""What a server has done, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SHARES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "embedsmith_requests", "Requests by path and status.", ["path", "status"], registry=self.registry
        )
        self.errors = Counter(
            "embedsmith_errors", "Refused and failed requests by kind.", ["kind"], registry=self.registry
        )
        self.tokens = Counter("embedsmith_tokens", "Tokens that models have read.", ["model"], registry=self.registry)
        self.truncated = Counter(
            "embedsmith_truncated_inputs", "Texts that were cut off.", ["model"], registry=self.registry
        )
        self.seconds = Histogram(
            "embedsmith_request_seconds",
            "From the first byte to the answer.",
            ["path"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.queued = Histogram(
            "embedsmith_queue_seconds",
            "From the queue to the first batch.",
            ["model"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batch_seconds = Histogram(
            "embedsmith_batch_seconds", "Of a batch.", ["model"], buckets=_SECONDS, registry=self.registry
        )
        self.batch_fill = Histogram(
            "embedsmith_batch_fill",
            "Tokens of a batch, as a share of its budget.",
            ["model"],
            buckets=_SHARES,
            registry=self.registry,
        )
        self.batch_texts = Counter(
            "embedsmith_batched_texts", "Texts in all batches.", ["model"], registry=self.registry
        )
        self.in_flight = Gauge("embedsmith_requests_in_flight", "Requests that are worked on.", registry=self.registry)

    def text(self) -> bytes:
        """Return all of it in Prometheus' format."""
        return generate_latest(self.registry)
