"""What Prometheus is told at /metrics."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

# Seconds: from a feature selector's milliseconds to a deadline.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_PASSAGES = (1, 4, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """Counters of one server, in a registry of its own: two servers in one process do not meet.

    Args:
        queue: how many passages wait, asked when somebody looks.
    """

    def __init__(self, queue: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"gainrag_{name}", text, buckets=buckets, registry=self.registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"gainrag_{name}", text, labels, registry=self.registry)

        waiting = Gauge("gainrag_queue_passages", "Passages that wait.", registry=self.registry)
        waiting.set_function(queue)
        self.requests = counter("requests", "Requests by route and status.", "route", "status")
        self.seconds = Histogram(
            "gainrag_request_seconds", "Whole requests.", ["route"], buckets=_SECONDS, registry=self.registry
        )
        self.queued = histogram("queue_seconds", "How long requests waited.", _SECONDS)
        self.tokenizing = histogram("tokenization_seconds", "Counting and cutting, by batch.", _SECONDS)
        self.scoring = histogram("scoring_seconds", "The selector's work, by batch.", _SECONDS)
        self.batch = histogram("batch_passages", "Passages scored together.", _PASSAGES)
        self.batched = histogram("batch_requests", "Requests scored together.", _PASSAGES)
        self.cut = counter("truncated_documents", "Documents that were cut.")
        self.refused = counter("rejections", "Requests that were refused, by why.", "reason")
        self.reloads = counter("reloads", "Changed selector folders, by what came of them.", "model", "outcome")

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)
