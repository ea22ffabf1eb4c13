"""What policy lets people ask for: the limits of the service, for both rules that are compared.

A refusal is not the end: who has too many GPUs or reservations asks again when one of their own has
ended, and who needs more hours than are allowed comes again for the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from gpudev_client.models import PolicyView
from gpudev_service.operations.admission import max_hours
from gpudev_service.settings import GpuTypeSpec, Policy

from .requests import Request

_HOUR_MS = 3_600_000


class Desk:
    """Who has what at the moment, and what they may have besides."""

    def __init__(self, policy: Policy, types: Mapping[str, GpuTypeSpec]) -> None:
        self._policy, self._types = policy, types
        self._views: dict[tuple[str, ...], PolicyView] = {}
        self._gpus: Counter[str] = Counter()
        self._of_type: Counter[tuple[str, str]] = Counter()
        self._live: Counter[str] = Counter()

    def limits(self, request: Request) -> PolicyView:
        view = self._views.get(request.groups)
        if view is None:
            view = self._views[request.groups] = self._policy.of(request.groups)
        return view

    def never(self, request: Request) -> bool:
        """Whether it is refused whatever else somebody has."""
        limits = self.limits(request)
        gpus = self._counted(request)
        return limits.max_reservations == 0 or any(
            most is not None and gpus > most for most in (limits.max_gpus, limits.max_running_gpus)
        )

    def admit(self, request: Request) -> bool:
        """Takes a request, or says that its owner has too much at the moment."""
        limits, user, gpus = self.limits(request), request.user, self._counted(request)
        if limits.max_reservations is not None and self._live[user] >= limits.max_reservations:
            return False
        if limits.max_gpus is not None and self._gpus[user] + gpus > limits.max_gpus:
            return False
        here, most = (user, request.pool), limits.max_running_gpus
        if most is not None and self._of_type[here] + gpus > most:
            return False
        self._gpus[user] += gpus
        self._of_type[here] += gpus
        self._live[user] += 1
        return True

    def left(self, request: Request) -> None:
        """A reservation has ended."""
        gpus = self._counted(request)
        self._gpus[request.user] -= gpus
        self._of_type[request.user, request.pool] -= gpus
        self._live[request.user] -= 1

    def asked_ms(self, request: Request) -> int:
        """For how long the lease is: what was asked for, within the limits."""
        longest = max_hours(self._types[request.pool], self.limits(request))
        shortest = min(self._policy.min_hours, longest)
        return max(round(shortest * _HOUR_MS), min(request.asked_ms, round(longest * _HOUR_MS)), 1)

    def longest_extension_ms(self, request: Request, so_far_ms: int, lease_ms: int) -> int:
        """How much longer a lease of `lease_ms` may become that was extended by `so_far_ms`."""
        limits = self.limits(request)
        by_extension = round(limits.max_extension_hours * _HOUR_MS) - so_far_ms
        in_all = round(limits.max_total_hours * _HOUR_MS) - lease_ms
        return max(0, min(by_extension, in_all))

    def priority(self, request: Request) -> int:
        return self.limits(request).priority

    def _counted(self, request: Request) -> int:
        """Shares of a type without GPUs are no GPUs."""
        return request.gpus if self._types[request.pool].gpus_per_node else 0
