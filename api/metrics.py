"""Numbers for Prometheus. Labels are few and bounded: a route's pattern, never a path."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import Scope

from api.state import Services
from service.connection import answers
from service.counters import NAMES as COUNTED
from service.replay_totals import BLOCKED, totals
from warploom.errors import WarploomError

REPLAY = {
    "bytes": "Bytes of stored chunks",
    "units": "Complete units stored",
    "inserted": "Units that became complete",
    "sampled": "Units handed to learners",
    "rejected": "Units and chunks that could not be used",
    "evicted": "Units dropped to make room",
    "dropped_stale": "Units dropped for their version lag",
    "waits": "Chunks that found no room",
}
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """The API's own counters, and what it reads from Redis when it is scraped."""

    def __init__(self, services: Services) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "warploom_http_requests_total", "Requests answered", ["method", "route", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "warploom_http_response_seconds", "Time to the answer's first byte", ["route"], registry=self.registry
        )
        self.registry.register(_Work(services))

    def observe(self, scope: Scope, status: int, seconds: float) -> None:
        """Count one answer."""
        method = scope["method"] if scope["method"] in METHODS else "other"
        route = pattern(scope)
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)


def pattern(scope: Scope) -> str:
    """The route's pattern, with its prefix."""
    found = getattr(scope.get("route"), "path", None)
    if not isinstance(found, str):
        return "unmatched"
    # Depending on its version, the framework leaves out the prefix under which a router is included.
    private = scope["path"].startswith("/v1/") and not found.startswith("/v1/")
    return f"/v1{found}" if private else found


class _Work(Collector):
    """Queues and live parts, as Redis knows them at the time of the scrape; absent while it does not answer."""

    def __init__(self, services: Services) -> None:
        self.services = services

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("warploom_redis_up", "Whether the API reaches Redis")
        try:
            gauges = list(self._gauges())
        except WarploomError:
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield from (up, *gauges)

    def describe(self) -> Iterator[Metric]:
        # Without this, registering would ask Redis.
        return iter(())

    def _gauges(self) -> Iterator[Metric]:
        services = self.services
        for name, load in (("jobs", services.jobs.load()), ("sweeps", services.sweeps.load())):
            gauge = GaugeMetricFamily(f"warploom_{name}", f"{name.capitalize()} by place", labels=["place"])
            for place, count in load.items():
                gauge.add_metric([place], count)
            yield gauge
        pending = GaugeMetricFamily("warploom_adaptations_pending", "Adaptation requests without an answer")
        pending.add_metric([], services.queue.pending())
        yield pending
        books = services.queue.kept.books()
        kept = GaugeMetricFamily("warploom_adaptations_kept_bytes", "Adapted parameters that are kept")
        kept.add_metric([], books["bytes"])
        yield kept
        dropped = GaugeMetricFamily("warploom_adaptations_dropped", "Adapted models that made room before their time")
        dropped.add_metric([], books["dropped"])
        yield dropped
        shards = GaugeMetricFamily("warploom_replay_shard_up", "Whether a replay server answers", labels=["shard"])
        for number, shard in enumerate(services.connections.shards):
            shards.add_metric([str(number)], answers(shard))
        yield shards
        alive = GaugeMetricFamily("warploom_parts_alive", "Live parts of the service", labels=["role"])
        for role, count in services.fleet.alive().items():
            alive.add_metric([role], count)
        yield alive
        for counter, value in services.counters.read().items():
            family = CounterMetricFamily(f"warploom_{counter}", COUNTED[counter])
            family.add_metric([], value)
            yield family
        yield from _replay(totals(services.connections))


def _replay(found: dict[str, float]) -> Iterator[GaugeMetricFamily]:
    """The buffers of all running jobs together; sums over jobs that come and go, so no counters."""
    for name, text in REPLAY.items():
        gauge = GaugeMetricFamily(f"warploom_replay_{name}", f"{text}, of running jobs")
        gauge.add_metric([], found[name])
        yield gauge
    blocked = GaugeMetricFamily(
        "warploom_replay_blocked_seconds", "Time that a side of the limiter waited, of running jobs", labels=["side"]
    )
    for side in BLOCKED:
        blocked.add_metric([side], found[f"blocked_{side}_s"])
    yield blocked
    ratio = GaugeMetricFamily("warploom_replay_samples_per_insert", "Units sampled per unit inserted, of running jobs")
    ratio.add_metric([], found["sampled"] / found["inserted"] if found["inserted"] else 0.0)
    yield ratio
