"""What a server counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_FACTORS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)

        def counter(name: str, help: str, *labels: str) -> Counter:
            return Counter(f"tdtdecode_{name}", help, labels, registry=self.registry)

        def gauge(name: str, help: str) -> Gauge:
            return Gauge(f"tdtdecode_{name}", help, registry=self.registry)

        def histogram(name: str, help: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"tdtdecode_{name}", help, registry=self.registry, buckets=buckets)

        self.requests = counter("requests", "Requests answered, by endpoint and status", "endpoint", "status")
        self.latency = histogram("request_seconds", "From the first byte of a transcription to its answer", _SECONDS)
        self.waited = histogram("queue_seconds", "From arrival until the model begins with a recording", _SECONDS)
        self.under_way = gauge("requests_under_way", "Requests that are received, wait or are computed")
        self.waiting = gauge("queue_recordings", "Recordings that wait for a batch")
        self.sessions = gauge("live_sessions", "Live sessions")
        self.rows = histogram("batch_rows", "Recordings in a batch", _ROWS)
        self.fill = histogram("batch_fill", "Share of a batch that is audio, and not padding", _SHARES)
        self.audio = counter("audio_seconds", "Audio that was transcribed, in seconds", "kind")
        self.computed = counter("model_seconds", "Time that encoder and decoder took, in seconds", "kind")
        self.factor = histogram("real_time_factor", "Time to the answer as a share of the recording's length", _FACTORS)
        self.doubts = counter("warnings", "Doubts about recordings or phrases, by kind", "kind")

    def text(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return generate_latest(self.registry)
