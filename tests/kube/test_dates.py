"""The API server's time of day, as its answers tell it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from gpudev_service.clock import elapsed
from gpudev_service.kube import KubeRefused

from .moody import moody_server


async def test_each_answer_tells_it_a_refusal_too(tmp_path: Path) -> None:
    heard: list[tuple[str | None, float]] = []
    async with moody_server(tmp_path) as (_, kube):
        kube.hears = lambda date, asked: heard.append((date, asked))
        begun, day = elapsed(), datetime.now(UTC)
        await kube.get("/api/v1/nodes")
        with pytest.raises(KubeRefused):
            await kube.get("/api/v1/namespaces/lab/pods/nowhere")
        async with kube.lines(
            "/api/v1/nodes", {"watch": "1", "resourceVersion": "1", "timeoutSeconds": "1"}
        ):
            pass
    assert len(heard) == 3
    for date, asked in heard:
        assert date is not None
        said = parsedate_to_datetime(date)
        assert begun <= asked <= elapsed()
        assert day - timedelta(seconds=1) <= said <= datetime.now(UTC)


async def test_nobody_has_to_listen(tmp_path: Path) -> None:
    async with moody_server(tmp_path) as (_, kube):
        assert (await kube.get("/api/v1/nodes"))["items"] == []
