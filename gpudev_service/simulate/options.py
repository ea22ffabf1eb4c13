"""The options of `gpudev simulate`."""

from __future__ import annotations

from traitlets import Bool, CaselessStrEnum, Integer, List, Unicode
from traitlets.config import Configurable

from .synthetic import DAYS, LOADS


class Simulate(Configurable):
    """What is replayed, on which nodes, and what it is compared with."""

    trace = Unicode(help="A trace in the Standard Workload Format, version 2.2.").tag(config=True)
    synthetic = CaselessStrEnum(
        list(LOADS), None, allow_none=True, help="A trace that is made up, with such a load."
    ).tag(config=True)
    seed = Integer(1, help="Which of the made-up traces; the same seed makes the same.").tag(
        config=True
    )
    days = Integer(DAYS, min=1, max=366, help="For how many days a trace is made up.").tag(
        config=True
    )
    processors_per_gpu = Integer(
        1, min=1, max=10_000, help="How many processors of a trace are one GPU."
    ).tag(config=True)
    fleet = List(
        Unicode(),
        help="""Nodes to replay on, as h100=16x8 (16 nodes of 8 GPUs), in place of those of the
        configuration. May be given several times, for several GPU types.""",
    ).tag(config=True)
    policy = List(
        Unicode(),
        help="""Another policy to compare with: a .json file with what GpuDev.policy takes, or
        another configuration file. May be given several times.""",
    ).tag(config=True)
    picture = Unicode(
        help="Where to write a picture, as FILE.svg: use and queue over time, and the waits."
    ).tag(config=True)
    write = Unicode(
        help="""Where to write the trace itself, as FILE.swf, with numbers for people and groups, so
        that it can be given away."""
    ).tag(config=True)
    history = Bool(
        False, help="The reservations of the service's own database. It is only read."
    ).tag(config=True)
    json = Bool(False, help="All figures as JSON.").tag(config=True)


ALIASES = {
    "trace": "Simulate.trace",
    "synthetic": "Simulate.synthetic",
    "seed": "Simulate.seed",
    "days": "Simulate.days",
    "processors-per-gpu": "Simulate.processors_per_gpu",
    "fleet": "Simulate.fleet",
    "policy": "Simulate.policy",
    "picture": "Simulate.picture",
    "write": "Simulate.write",
}
FLAGS = {
    "history": (
        {"Simulate": {"history": True}},
        "The reservations of the service's own database. It is only read.",
    ),
    "json": ({"Simulate": {"json": True}}, "All figures as JSON, and no table."),
}
