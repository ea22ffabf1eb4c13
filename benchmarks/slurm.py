"""Slurm's controller as a peer: Debian's slurmctld over a fleet of nodes that need not exist.

The nodes are cloud nodes that never come up: jobs get them, and the plan behind these jobs is the
same as over real ones. Who calls is known by munge, as where Slurm is really used, through a munged
of its own. Everything lies in a directory of its own and ends with the `with` block.
"""

from __future__ import annotations

import ctypes
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tools.ports import free_port

PROGRAMS = ("slurmctld", "sbatch", "squeue", "sdiag", "munged", "munge")
#: Cores of a node; a job gets them in proportion to its GPUs, so that they are never what is short.
CORES_PER_GPU = 8
_START_SECONDS = 60.0
#: After that whoever starts is asked again: clients try to reach a controller that has ended for as
#: long as they would wait for an answer.
_QUESTION_SECONDS = 5.0
#: What Slurm's own guide asks for where many jobs come; munged's default is 2.
_MUNGE_THREADS = 10
#: `sbatch` side by side: its own start is most of its time.
_AT_ONCE = 8
_TRIES = 10
#: Seconds after which a backfill cycle ends wherever it is; Slurm's own default is 30. Behind a
#: full fleet a job deep in a queue takes it a second, and a whole queue of thousands an hour.
CYCLE_SECONDS = 90
#: A cycle hardly lets in anybody: seconds that its commands wait for an answer, at most 100.
_ANSWER_SECONDS = CYCLE_SECONDS + 10

_CONFIGURATION = """\
ClusterName=bench
SlurmctldHost=localhost
SlurmctldPort={port}
SlurmUser={user}
AuthType=auth/munge
AuthInfo=socket={socket}
MessageTimeout={patience}
CredType=cred/munge
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

#: The whole queue in every cycle, as far as it comes in its time; within a window of four weeks.
WHOLE_QUEUE: Mapping[str, str] = {
    "bf_max_job_test": "200000",
    "bf_window": "40320",
    "bf_resolution": "60",
    "bf_interval": "5",
    "bf_max_time": str(CYCLE_SECONDS),
    # Others are let in between as rarely as Slurm allows: each ten seconds.
    "bf_yield_interval": "10000000",
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
    return f"{', '.join(lacking)} (Debian's packages slurm-wlm and munge)" if lacking else None


class Slurm:
    """A running slurmctld, and the munged that it and its clients ask."""

    def __init__(self, nodes: int, gpus: int = 8, parameters: Mapping[str, str] = WHOLE_QUEUE):
        self._home = Path(tempfile.mkdtemp(prefix="gpudev-slurm-"))
        names = f"n[00001-{nodes:05}]"
        (self._home / "state").mkdir()
        self._munge = self._home / "munge"
        self._munge.mkdir(mode=0o700)
        self._socket = self._munge / "socket"
        (self._home / "slurm.conf").write_text(
            _CONFIGURATION.format(
                port=free_port(),
                patience=_ANSWER_SECONDS,
                user=_account(),
                socket=self._socket,
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
        self._ends = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as ends:
            ends.callback(shutil.rmtree, self._home, ignore_errors=True)
            self._start(ends, self._munged(), ["munge", "--no-input", f"--socket={self._socket}"])
            controller = ["slurmctld", "-D", "-f", str(self._home / "slurm.conf")]
            self._process = self._start(ends, controller, ["squeue"])
            self._ends = ends.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ends.close()

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

    def _munged(self) -> list[str]:
        """Its command, with a new key. `--force`: it wants the way to its socket open to everybody,
        and this one is for one account."""
        key = self._munge / "key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        return [
            "munged",
            "--foreground",
            "--force",
            f"--num-threads={_MUNGE_THREADS}",
            f"--socket={self._socket}",
            f"--key-file={key}",
            *(f"--{name}-file={self._munge / name}" for name in ("log", "pid", "seed")),
        ]

    def _start(
        self, ends: ExitStack, command: Sequence[str], question: Sequence[str]
    ) -> subprocess.Popen[bytes]:
        """Starts what `ends` will end, and waits until it answers a question."""
        name = command[0]
        said = self._home / f"{name}.output"
        with said.open("wb") as output:
            process = subprocess.Popen(
                command,
                env=self._environment,
                stdout=output,
                stderr=output,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - set before any thread runs
            )
        ends.callback(process.wait)
        ends.callback(process.kill)
        deadline = time.monotonic() + _START_SECONDS
        while not self._answered(*question):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} did not start:\n{said.read_text()[-2000:]}")
            time.sleep(0.2)
        return process

    def _answered(self, *question: str) -> bool:
        try:
            return not self._run(*question, check=False, patience=_QUESTION_SECONDS).returncode
        except subprocess.TimeoutExpired:
            return False

    def _run(
        self, *command: str, check: bool = True, patience: float | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=self._environment,
            capture_output=True,
            text=True,
            check=check,
            timeout=patience,
        )


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _account() -> str:
    import pwd

    return pwd.getpwuid(os.geteuid()).pw_name
