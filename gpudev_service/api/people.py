"""The Hub groups of users other than the caller, for policy and for filters by group."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from gpudev_service.errors import Refusal
from gpudev_service.hub import Hub, HubAway, HubRefused

from .auth import hub_away

#: Seconds for which a user's groups are kept: as long as what the Hub says of a token.
KEPT = 3.0
_MOST = 5_000


class People:
    """Asks the Hub for groups and keeps the answers for seconds, in bounded memory."""

    def __init__(self, hub: Hub, time: Callable[[], float] = time.monotonic) -> None:
        self._hub, self._time = hub, time
        self._kept: OrderedDict[str, tuple[float, tuple[str, ...] | None]] = OrderedDict()

    async def groups(self, user: str) -> tuple[str, ...] | None:
        """The user's groups, sorted; None where the Hub has no such user.

        Raises:
            Refusal: `unavailable` while the Hub cannot be asked.
        """
        kept = self._kept.get(user)
        if kept is not None and self._time() - kept[0] < KEPT:
            return kept[1]
        try:
            groups = await self._hub.groups(user)
        except (HubAway, HubRefused) as error:
            raise hub_away() from error
        self._kept[user] = (self._time(), groups)
        self._kept.move_to_end(user)
        if len(self._kept) > _MOST:
            self._kept.popitem(last=False)
        return groups

    async def groups_of_existing(self, user: str) -> tuple[str, ...]:
        """The same, refusing a user whom the Hub does not have."""
        groups = await self.groups(user)
        if groups is None:
            raise Refusal("invalid_input", "The Hub has no user of that name.", field="user")
        return groups
