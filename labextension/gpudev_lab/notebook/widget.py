"""The lease in a notebook: `gpudev_lab.widget()`.

The widget shows what is left and updates by itself. Its buttons work in the browser of whoever
looks, through the Jupyter server and with their own rights: the kernel itself may only look, so a
notebook that somebody else wrote cannot extend a lease or give it back.
"""

from __future__ import annotations

import html
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gpudev_client import Client, config, words
from gpudev_client.errors import GpuDevError
from gpudev_client.models import Reservation
from gpudev_client.states import FINAL, LIVE

from .lease import lease, reservation_id

#: Seconds before the stream is opened again after it broke.
_PAUSE = 5.0


def shown(reservation: Reservation) -> dict[str, Any]:
    """What the browser's half needs, as plain data."""
    offer = reservation.extension
    return {
        "what": words.gpus(reservation.gpus, reservation.gpu_type),
        "name": reservation.name,
        "state": reservation.state.value,
        "live": reservation.state in LIVE,
        "expires_at": reservation.expires_at.isoformat() if reservation.expires_at else None,
        "reason": reservation.reason or "",
        "possible_hours": offer.possible_hours if offer else 0.0,
        "limited_by": (offer.limited_by if offer else None) or "",
        "simulated": reservation.simulated,
    }


class StaticLease:
    """The lease as it was when it was asked for, where anywidget is not installed."""

    def __init__(self, reservation: Reservation) -> None:
        self._reservation = reservation

    def __repr__(self) -> str:
        r = self._reservation
        what = words.gpus(r.gpus, r.gpu_type)
        if r.expires_at is None or r.state in FINAL:
            return f"{what}: {r.state.value}"
        return f"{what}: {words.time_left(r.expires_at, datetime.now(UTC))}"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self))}</p>"


def widget() -> Any:
    """A widget of the lease that this kernel runs on; text where anywidget is not installed.

    Raises:
        NotOnALease: this process runs on no lease.
    """
    reservation_id()
    try:
        import anywidget  # noqa: F401 - only whether it is there
    except ImportError:
        return StaticLease(lease())
    return _lease_widget()


def _lease_widget() -> Any:
    """Defined late: anywidget and ipywidgets take a tenth of a second to import."""
    import anywidget
    import traitlets

    class LeaseWidget(anywidget.AnyWidget):
        """`lease` is what `shown` says; `problem` a sentence while the service is away."""

        _esm = Path(__file__).with_name("widget.js")
        _css = Path(__file__).with_name("widget.css")
        lease = traitlets.Dict().tag(sync=True)
        problem = traitlets.Unicode("").tag(sync=True)

        def __init__(self) -> None:
            super().__init__()
            self._closed = threading.Event()
            self._key = reservation_id()
            settings = config.load()
            self._client = Client(settings.url, settings.token)
            threading.Thread(target=self._follow, name="gpudev widget", daemon=True).start()

        def close(self) -> None:
            self._closed.set()
            super().close()

        def _follow(self) -> None:
            """Takes each event as a hint and reads the lease anew, until it is over."""
            while not self._closed.is_set():
                try:
                    for _ in self._client.events(self._key):
                        found = self._client.reservation(self._key)
                        self.lease, self.problem = shown(found), ""
                        if self._closed.is_set() or found.state in FINAL:
                            return
                except GpuDevError:
                    self.problem = (
                        "The reservation service does not answer. The lease goes on; this is "
                        "shown again as soon as it does."
                    )
                self._closed.wait(_PAUSE)

    return LeaseWidget()
