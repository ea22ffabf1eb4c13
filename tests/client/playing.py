"""Plays the driver of a flow by hand: what it asks for, and what it is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from gpudev_client import errors
from gpudev_client._steps import Call, Emit, Flow, Pause, Read, Reply, Step

Told: TypeAlias = list[Reply | bytes | Exception]
CUT = errors.Unreachable("cut")


class Played:
    """A flow that was run to its end.

    Args:
        told: what each `Call` and `Read` gets, in order: a `Reply`, bytes, or an error to throw.
            Pauses pass at once.
    """

    def __init__(self, flow: Flow[Any], told: Sequence[Reply | bytes | Exception]) -> None:
        self.calls: list[Call] = []
        self.pauses: list[float] = []
        self.emitted: list[Any] = []
        self.result: Any = None
        self.error: errors.GpuDevError | None = None
        left: Told = list(told)
        try:
            step = next(flow)
            while True:
                step = self._advance(flow, step, left)
        except StopIteration as done:
            self.result = done.value
        except errors.GpuDevError as error:
            self.error = error
        self.left = left

    def _advance(self, flow: Flow[Any], step: Step, left: Told) -> Step:
        if isinstance(step, Pause):
            self.pauses.append(step.seconds)
            return flow.send(None)
        if isinstance(step, Emit):
            self.emitted.append(step.value)
            return flow.send(None)
        if isinstance(step, Call):
            self.calls.append(step)
        if not left:
            raise AssertionError(f"the flow asks for more than the test expects: {step}")
        answer = left.pop(0)
        if isinstance(answer, Exception):
            return flow.throw(answer)
        assert isinstance(answer, bytes) == isinstance(step, Read), (step, answer)
        return flow.send(answer)
