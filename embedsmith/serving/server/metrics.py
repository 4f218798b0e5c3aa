"""What a server has done, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SHARES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters of one process.

    Args:
        folder: of several processes, in whose files prometheus_client counts; then what is told is the sum of all that
            have ever counted there, and the requests in flight are those of processes that live.
    """

    def __init__(self, folder: str | None = None) -> None:
        self._folder = folder
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
        self.in_flight = Gauge(
            "embedsmith_requests_in_flight",
            "Requests that are worked on.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )

    def text(self) -> bytes:
        """Return all of it in Prometheus' format."""
        if not self._folder:
            return generate_latest(self.registry)
        of_all = CollectorRegistry()
        MultiProcessCollector(of_all, path=self._folder)  # type: ignore[no-untyped-call]
        return generate_latest(of_all)
