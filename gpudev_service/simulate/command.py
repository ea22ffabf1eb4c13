"""What `gpudev simulate` does with its options: a trace, replayed under rules that are compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from traitlets.config import Config
from traitlets.config.loader import PyFileConfigLoader

from gpudev_service.config import ConfigurationError, GpuDev
from gpudev_service.settings import Policy, Settings
from gpudev_service.store import address
from gpudev_service.store.engine import Store

from . import fleet as fleets
from . import history as past
from . import picture, requests, series, swf, synthetic, tables
from .backfill import Backfill
from .desk import Desk
from .fleet import Fleet
from .measures import Figures, measure
from .options import Simulate
from .planned import Planned
from .replay import Outcome, Rules, replay
from .requests import Workload
from .trace import Trace, TraceError

_DAY_MS = 86_400_000
#: How the columns are called.
OURS, SLURM = "gpudev", "Slurm's rules"
#: Slurm starts what is due at its next cycle, and rounds to whole minutes: that is not late.
_SLURM_PATIENCE_MS = 90_000


@dataclass(frozen=True, slots=True)
class Simulated:
    """What came of it: the outcomes by name, and their figures."""

    trace: Trace
    workload: Workload
    fleet: Fleet
    span_ms: int
    outcomes: Mapping[str, Outcome]
    figures: Mapping[str, Figures]

    def text(self, width: int | None) -> str:
        """For people."""
        left_out, count = self.workload.left_out, len(self.workload.requests)
        days = self.span_ms // _DAY_MS
        lines = [
            f"Trace: {self.trace.name}, {count} request{'' if count == 1 else 's'} in "
            f"{days} day{'' if days == 1 else 's'}"
            + (f"; left out: {requests.told(left_out)}" if left_out else ""),
            f"Fleet: {self.fleet.described()}",
            "",
            tables.compared(self.figures, width),
        ]
        return "\n".join(lines)

    def picture(self) -> str:
        """As an SVG."""
        found = {
            name: series.of(outcome, self.fleet.units, self.span_ms)
            for name, outcome in self.outcomes.items()
        }
        return picture.svg(
            f"{self.trace.name}, {self.fleet.described()}", found, self.span_ms / 1000
        )

    def document(self) -> dict[str, Any]:
        """For programs."""
        about = {
            "trace": self.trace.name,
            "left_out": dict(self.workload.left_out),
            "fleet": {name: dict(units) for name, units in self.fleet.nodes.items()},
        }
        return tables.document(about, self.figures)


async def history(db_url: str) -> Trace:
    """The service's own past.

    Raises:
        ConfigurationError: there is none.
        StoreError: the database cannot be read.
    """
    store = Store(db_url)
    file = address.sqlite_file(store.url) if store.is_sqlite else None
    if file is not None and not file.exists():
        raise ConfigurationError(f"--history: there is no database {file}.")
    try:
        return await past.read(store)
    except TraceError as error:
        raise ConfigurationError(str(error)) from None
    finally:
        await store.close()


def write_files(options: Simulate, found: Simulated) -> list[Path]:
    """Writes the files that were asked for; which ones.

    Raises:
        ConfigurationError: a file cannot be written.
    """
    wanted = {
        Path(name): text
        for name, text in (
            (options.picture, found.picture),
            (options.write, lambda: "".join(swf.write(found.trace))),
        )
        if name
    }
    for path, text in wanted.items():
        try:
            path.write_text(text())
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be written: {error.strerror}.") from None
    return list(wanted)


def silent(_: str) -> None:
    """For callers who are not interested in what is going on."""


def simulate(
    options: Simulate,
    settings: Settings,
    history: Trace | None = None,
    say: Callable[[str], None] = silent,
) -> Simulated:
    """Replays the trace that the options name, or `history`, under the rules to compare. `say` is
    told what takes its time.

    Raises:
        ConfigurationError: what the options say cannot work, with what is accepted.
    """
    _one_source(options)
    if options.picture and Path(options.picture).suffix != ".svg":
        raise ConfigurationError(f"--picture: {options.picture} does not end with .svg.")
    try:
        fleet = _fleet(options, settings)
        trace = history or _trace(options, fleet)
        workload = requests.fitted(trace, fleet, per_gpu=options.processors_per_gpu)
    except TraceError as error:
        raise ConfigurationError(str(error)) from None
    last = workload.requests[-1].at_ms
    span = -(-max(last, 1) // _DAY_MS) * _DAY_MS
    policies = {OURS: settings.policy, **_policies([Path(name) for name in options.policy])}
    turnover_ms = round(settings.times.turnover * 1000)
    outcomes: dict[str, Outcome] = {}
    figures: dict[str, Figures] = {}

    def run(name: str, rules: Rules, policy: Policy, patience_ms: int) -> None:
        say(f"Replaying {len(workload.requests)} requests: {name}")
        outcome = replay(workload.requests, rules, Desk(policy, fleet.types))
        outcomes[name] = outcome
        figures[name] = measure(outcome, fleet.units, span_ms=span, patience_ms=patience_ms)

    for name, policy in policies.items():
        run(name, Planned(fleet, turnover_ms), policy, 0)
    run(SLURM, Backfill(fleet), settings.policy, _SLURM_PATIENCE_MS)
    return Simulated(trace, workload, fleet, span, outcomes, figures)


def _one_source(options: Simulate) -> None:
    named = [bool(options.trace), options.synthetic is not None, options.history]
    if sum(named) != 1:
        loads = ", ".join(synthetic.LOADS)
        raise ConfigurationError(
            "What is to be replayed? One of --trace=FILE.swf, --history, or --synthetic=LOAD with "
            f"a load of {loads}."
        )


def _fleet(options: Simulate, settings: Settings) -> Fleet:
    if options.fleet:
        return fleets.written(options.fleet, settings.gpu_types)
    if not settings.nodes:
        raise TraceError(
            "The configuration has no nodes. Name a fleet, as --fleet=h100=16x8 for 16 nodes of 8"
            " GPUs, or a configuration with nodes by --config=FILE."
        )
    return fleets.configured(settings.gpu_types, settings.nodes)


def _trace(options: Simulate, fleet: Fleet) -> Trace:
    if options.trace:
        return swf.read_file(Path(options.trace))
    load = options.synthetic or ""
    nodes = [units for those in fleet.nodes.values() for units in those.values()]
    return synthetic.make(
        synthetic.LOADS[load],
        len(nodes),
        max(nodes),
        days=options.days,
        seed=options.seed,
        name=f"{load} load, seed {options.seed}",
    )


def _policies(paths: Sequence[Path]) -> dict[str, Policy]:
    found: dict[str, Policy] = {}
    for path in paths:
        name = f"{OURS}, {path.stem}"
        if name in found:
            raise ConfigurationError(f"--policy: two files are called {path.stem}. Rename one.")
        found[name] = _policy(path)
    return found


def _policy(path: Path) -> Policy:
    """The policy in a file: a configuration, or JSON with just what GpuDev.policy takes."""
    if not path.is_file():
        raise ConfigurationError(f"--policy: there is no file {path}.")
    if path.suffix == ".json":
        value = _from_json(path)
    elif path.suffix == ".py":
        value = _from_configuration(path)
    else:
        raise ConfigurationError(
            f"--policy: {path} is neither .json, with what GpuDev.policy takes, nor a configuration"
            " file, .py, that sets c.GpuDev.policy."
        )
    if not isinstance(value, dict):
        raise ConfigurationError(f"{path}: has no policy: a dict as GpuDev.policy takes it.")
    try:
        return GpuDev(config=Config({"GpuDev": {"policy": value}})).settings().policy
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None


def _from_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ConfigurationError(f"{path}: is no JSON: {error}.") from None


def _from_configuration(path: Path) -> Any:
    try:
        read = PyFileConfigLoader(path.name, path=str(path.parent.absolute())).load_config()
    except SyntaxError as error:
        raise ConfigurationError(f"{path}, line {error.lineno}: {error.msg}.") from None
    except Exception as error:
        # Whatever the operator's own code raises is a mistake in the configuration.
        raise ConfigurationError(f"{path}: {type(error).__name__}: {error}") from error
    return read.get("GpuDev", {}).get("policy")
