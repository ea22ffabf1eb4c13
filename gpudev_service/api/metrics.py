"""What Prometheus reads at `/metrics` of the service: requests, reservations, capacity, loops."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from gpudev_client.models import Availability, LoopHealth
from gpudev_client.states import State
from gpudev_service.context import Context
from gpudev_service.operations import capacity, status

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The service's own registry; nothing of the process-wide default one is in it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.requests = Counter(
            "gpudev_requests",
            "Requests by route and status.",
            ["route", "status"],
            registry=registry,
        )
        self.latency = Histogram(
            "gpudev_request_seconds",
            "Time to answer, by route; streams are not in it.",
            ["route"],
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=registry,
        )
        self.streams = Gauge("gpudev_event_streams", "Open event streams.", registry=registry)
        self.reservations = Gauge(
            "gpudev_reservations",
            "Reservations that are not over, by state.",
            ["state"],
            registry=registry,
        )
        self.overdue = Gauge(
            "gpudev_leases_overdue",
            "Leases that still hold GPUs after their end.",
            registry=registry,
        )
        self.queue = Gauge(
            "gpudev_queue_length",
            "Reservations that wait, by GPU type.",
            ["gpu_type"],
            registry=registry,
        )
        self.units = Gauge(
            "gpudev_units",
            "GPUs (or shares of types without GPUs), by GPU type and use.",
            ["gpu_type", "use"],
            registry=registry,
        )
        self.leader = Gauge(
            "gpudev_leader",
            "1 for the replica that leads; what is in the database is told by that one alone.",
            registry=registry,
        )
        self.loop_ok = Gauge(
            "gpudev_loop_ok", "Whether a loop's last run went well.", ["loop"], registry=registry
        )
        self.loop_last = Gauge(
            "gpudev_loop_last_run_timestamp_seconds",
            "When a loop last ended a run.",
            ["loop"],
            registry=registry,
        )

    async def render(self, ctx: Context, loops: list[LoopHealth], *, leads: bool) -> bytes:
        """The present values as Prometheus reads them."""
        self.leader.set(leads)
        if not leads:
            # What is in the database would be told once for each replica.
            return generate_latest(self.registry)
        self._show(await status.counts(ctx), await capacity.availability(ctx, 1.0, ()))
        for loop in loops:
            self.loop_ok.labels(loop.name).set(1 if loop.ok else 0)
            if loop.last_run_at is not None:
                self.loop_last.labels(loop.name).set(loop.last_run_at.timestamp())
        return generate_latest(self.registry)

    def _show(self, counts: status.Counts, availability: list[Availability]) -> None:
        for state in State:
            if state in counts.states or state not in {
                State.EXPIRED,
                State.CANCELLED,
                State.FAILED,
            }:
                self.reservations.labels(state.value).set(counts.states.get(state, 0))
        self.overdue.set(counts.overdue)
        for kind in availability:
            self.queue.labels(kind.gpu_type).set(kind.queue_length)
            held = kind.total - kind.free - kind.drained
            for use, value in (("free", kind.free), ("held", held), ("drained", kind.drained)):
                self.units.labels(kind.gpu_type, use).set(value)
