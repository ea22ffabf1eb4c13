"""Slurm's controller as a peer: Debian's slurmctld over a fleet of nodes that need not exist.

The nodes are cloud nodes that never come up: jobs get them, and the plan behind these jobs is the
same as over real ones. Everything lies in a directory of its own and ends with the `with` block.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tools.ports import free_port

PROGRAMS = ("slurmctld", "sbatch", "squeue", "sdiag")
#: Cores of a node; a job gets them in proportion to its GPUs, so that they are never what is short.
CORES_PER_GPU = 8
_START_SECONDS = 60.0
#: `sbatch` side by side: its own start is most of its time.
_AT_ONCE = 8
_TRIES = 10
#: Seconds after which a backfill cycle ends wherever it is; Slurm's own default is 30. Behind a
#: full fleet a job deep in a queue takes it a second, and a whole queue of thousands an hour.
CYCLE_SECONDS = 90
#: A cycle lets nobody in: seconds that its commands wait for an answer, of which 100 are the most.
_ANSWER_SECONDS = CYCLE_SECONDS + 10

_CONFIGURATION = """\
ClusterName=bench
SlurmctldHost=localhost
SlurmctldPort={port}
SlurmUser={user}
AuthType=auth/none
MessageTimeout={patience}
CredType=cred/none
StateSaveLocation={home}/state
SlurmctldPidFile={home}/slurmctld.pid
SlurmctldLogFile={home}/slurmctld.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SchedulerType=sched/backfill
SchedulerParameters={parameters}
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PriorityType=priority/basic
GresTypes=gpu
MaxJobCount=200000
ResumeProgram=/bin/true
SuspendProgram=/bin/true
SuspendTime=60000
ResumeTimeout=60000
NodeName={nodes} State=CLOUD CPUs={cores} RealMemory=100000 Gres=gpu:{gpus}
PartitionName=h100 Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""

#: The whole queue in every cycle, as far as it comes in its time; within a window of two weeks.
WHOLE_QUEUE: Mapping[str, str] = {
    "bf_max_job_test": "200000",
    "bf_window": "40320",
    "bf_resolution": "60",
    "bf_interval": "5",
    "bf_max_time": str(CYCLE_SECONDS),
    "bf_yield_interval": "600000000",
    "default_queue_depth": "1",
    "sched_interval": "600",
}


@dataclass(frozen=True)
class Job:
    """What `sbatch` is asked for; `minutes` is the limit of time."""

    nodes: int
    gpus_per_node: int
    minutes: int
    priority: int = 1

    def arguments(self) -> list[str]:
        return [
            f"--nodes={self.nodes}",
            f"--ntasks-per-node={self.gpus_per_node * CORES_PER_GPU}",
            f"--gres=gpu:{self.gpus_per_node}",
            f"--time={self.minutes}",
            f"--priority={self.priority}",
        ]


@dataclass(frozen=True)
class Cycle:
    """One backfill cycle as `sdiag` tells it: how long it took, and how many jobs it looked at."""

    number: int
    seconds: float
    depth: int


def missing() -> str | None:
    """What is not installed, for people; None when all is there."""
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"{', '.join(lacking)} (Debian's package slurm-wlm)" if lacking else None


class Slurm:
    """A running slurmctld."""

    def __init__(self, nodes: int, gpus: int = 8, parameters: Mapping[str, str] = WHOLE_QUEUE):
        self._home = Path(tempfile.mkdtemp(prefix="gpudev-slurm-"))
        names = f"n[00001-{nodes:05}]"
        (self._home / "state").mkdir()
        (self._home / "slurm.conf").write_text(
            _CONFIGURATION.format(
                port=free_port(),
                patience=_ANSWER_SECONDS,
                user=_account(),
                home=self._home,
                parameters=",".join(f"{name}={value}" for name, value in parameters.items()),
                nodes=names,
                cores=gpus * CORES_PER_GPU,
                gpus=gpus,
            )
        )
        (self._home / "gres.conf").write_text(f"NodeName={names} Name=gpu Count={gpus}\n")
        self._environment = {
            **os.environ,
            "SLURM_CONF": str(self._home / "slurm.conf"),
            "SLURM_TIME_FORMAT": "%s",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        command = ["slurmctld", "-D", "-f", str(self._home / "slurm.conf")]
        with (self._home / "output").open("wb") as output:
            self._process = subprocess.Popen(
                command,
                env=self._environment,
                stdout=output,
                stderr=output,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - set before any thread runs
            )
        deadline = time.monotonic() + _START_SECONDS
        while self._run("squeue", check=False).returncode:
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = (self._home / "output").read_text()[-2000:]
                self.__exit__(None, None, None)
                raise RuntimeError(f"slurmctld did not start:\n{said}")
            time.sleep(0.2)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._home, ignore_errors=True)

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("slurmctld does not run")
        return self._process.pid

    def submit(self, jobs: Sequence[Job], at_once: int = _AT_ONCE) -> list[float]:
        """Submits everything; how long each `sbatch` took, in seconds."""

        def one(job: Job) -> float:
            begin = time.monotonic()
            self._run("sbatch", *job.arguments(), "--output=/dev/null", "--wrap=true")
            return time.monotonic() - begin

        with ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(one, jobs))

    def submit_one(self, job: Job) -> int:
        """Submits a job; its number."""
        said = self._run(
            "sbatch", "--parsable", *job.arguments(), "--output=/dev/null", "--wrap=true"
        )
        return int(said.stdout.strip().partition(";")[0])

    def begun(self) -> dict[int, float]:
        """The jobs that have nodes, and since when (seconds since the epoch, whole)."""
        for _ in range(_TRIES):
            told = self._run("squeue", "--noheader", "--states=CF,R", "--format=%i %S", check=False)
            if told.returncode == 0:
                break
            time.sleep(1)  # a controller that is busy does not always answer in time
        else:
            raise RuntimeError(f"squeue: {told.stderr.strip()}")
        said = told.stdout
        return {int(number): float(since) for number, since in map(str.split, said.splitlines())}

    def end(self, numbers: Sequence[int]) -> None:
        """Ends jobs. Their nodes are free at once, since no daemon has to be asked."""
        if numbers:
            self._run("scancel", *map(str, numbers))

    def states(self) -> dict[str, int]:
        """Jobs by Slurm's short word for their state (`CF`, `PD`)."""
        found: dict[str, int] = {}
        for word in self._run("squeue", "--noheader", "--format=%t").stdout.split():
            found[word] = found.get(word, 0) + 1
        return found

    def promised(self) -> int:
        """How many that wait have a start time."""
        said = self._run("squeue", "--noheader", "--states=PD", "--format=%S").stdout.split()
        return sum(word != "N/A" for word in said)

    def cycle(self) -> Cycle:
        """The last backfill cycle."""
        text = self._run("sdiag").stdout.partition("Backfilling stats")[2]

        def number(label: str) -> int:
            match = re.search(rf"^\s*{re.escape(label)}:\s*(\d+)", text, re.MULTILINE)
            return int(match[1]) if match else 0

        return Cycle(number("Total cycles"), number("Last cycle") / 1e6, number("Last depth cycle"))

    def processor_seconds(self) -> float:
        """What slurmctld has used of the processor so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def next_cycle(self, patience: float = 1800.0) -> tuple[Cycle, float]:
        """The next cycle, and the processor's seconds until its end. Slurm plans again only when
        something has changed: one more small job waits after it. A cycle that is under way ends
        before the job is taken, and is not the next."""
        self.submit([Job(1, 1, 60, priority=1)])
        number, before = self.cycle().number, self.processor_seconds()
        cycle = self._after(number, time.monotonic() + patience)
        return cycle, self.processor_seconds() - before

    def wait_until_all_run(self, patience: float = 600.0) -> None:
        """Waits until no job waits any more."""
        deadline = time.monotonic() + patience
        while self.states().get("PD"):
            if time.monotonic() > deadline:
                raise TimeoutError("some jobs of a fleet that has room for them still wait")
            time.sleep(0.5)

    def _after(self, number: int, deadline: float) -> Cycle:
        while (cycle := self.cycle()).number <= number:
            if time.monotonic() > deadline:
                raise TimeoutError("no backfill cycle came to its end")
            time.sleep(0.2)
        return cycle

    def _run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env=self._environment, capture_output=True, text=True, check=check
        )


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _account() -> str:
    import pwd

    return pwd.getpwuid(os.geteuid()).pw_name
