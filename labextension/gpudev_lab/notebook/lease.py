"""The lease that this process runs on, as data."""

from __future__ import annotations

import os
from collections.abc import Mapping

from gpudev_client import Client, config
from gpudev_client.errors import ConfigError
from gpudev_client.ids import MARK
from gpudev_client.models import Reservation


class NotOnALease(ConfigError):  # noqa: N818 - what happened
    """This process was not started by a gpudev server."""

    def __init__(self) -> None:
        super().__init__(
            f"This is not running on a gpudev lease: there is no {MARK} in its environment."
        )


def reservation_id(environment: Mapping[str, str] | None = None) -> str:
    """The id of the reservation that this process runs on.

    Raises:
        NotOnALease: it runs on none.
    """
    found = (os.environ if environment is None else environment).get(MARK)
    if not found:
        raise NotOnALease
    return found


def lease() -> Reservation:
    """The lease as it stands now: `gpus`, `expires_at`, `placement`, `extension` and the rest.

    Times are aware and in UTC; hours are numbers. Asks the service, so call it when you want to
    know, not in a loop: `endings` tells you by itself.

    Raises:
        NotOnALease: this process runs on no lease.
        gpudev_client.Unreachable: the service did not answer.
    """
    key = reservation_id()
    settings = config.load()
    with Client(settings.url, settings.token) as client:
        return client.reservation(key)
