"""Answers as a service would give them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from gpudev_client import models
from gpudev_client._steps import Reply
from gpudev_client.states import State

NOW = datetime(2026, 5, 12, 14, 30, tzinfo=UTC)
ID = "abcd0123456789ef"


def reservation(state: State = State.ACTIVE, **values: Any) -> models.Reservation:
    fields: dict[str, Any] = {
        "id": ID,
        "name": "training",
        "user": "ada",
        "server_name": ID,
        "gpu_type": "t4",
        "gpus": 2,
        "hours": 0.5,
        "disk": None,
        "state": state,
        "submitted_at": NOW,
    }
    if state is State.ACTIVE:
        fields |= {"starts_at": NOW, "active_at": NOW, "expires_at": NOW + timedelta(minutes=30)}
    return models.Reservation(**fields | values)


def event(number: int, state: State = State.QUEUED, **values: Any) -> models.Event:
    return models.Event(
        id=number, kind="transition", at=NOW, message="", reservation=reservation(state, **values)
    )


def sse(*events: models.Event) -> bytes:
    return b"".join(f"id: {e.id}\ndata: {e.model_dump_json()}\n\n".encode() for e in events)


def ok(answer: Any, status: int = 200) -> Reply:
    text = answer.model_dump_json() if hasattr(answer, "model_dump_json") else json.dumps(answer)
    return Reply(status, {"content-type": "application/json"}, text.encode())


def refused(status: int, code: str, message: str = "No.", **more: Any) -> Reply:
    headers = {"content-type": "application/json", "x-request-id": "r1"}
    body = {"error": {"code": code, "message": message, **more}}
    return Reply(status, headers, json.dumps(body).encode())


def stream() -> Reply:
    return Reply(200, {"content-type": "text/event-stream"})
