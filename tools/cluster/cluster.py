"""The cluster as a whole: up, down, and its parts ended and started again."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from . import busybox, control, fleet, network, node, processes, programs, remains, storage
from .kubectl import Kubectl
from .pki import Authority
from .place import ClusterError, Place, State
from .processes import Part

#: What the real node says it has; patched into its status, as a device plugin would do.
GPUS = {"nvidia.com/gpu": "8", "nvidia.com/mig-1g.10gb": "4"}
_BEFORE_SERVICES = ("etcd", "kube-apiserver")


class Cluster:
    """One tree's cluster. Making the object starts nothing."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.kubectl = Kubectl(place.bin / "kubectl", place.kubeconfig)
        #: What was done when it was started, and the seconds that it took.
        self.times: list[tuple[str, float]] = []

    @property
    def is_up(self) -> bool:
        """Whether it was started, and all its parts still run."""
        state = State.load(self.place)
        if state is None or not state.noted("complete"):
            return False
        return all(processes.is_running(state, name) for name in state.parts)

    def up(self) -> None:
        """Builds what is missing and starts everything; takes it all back when a part fails.

        Raises:
            ClusterError: it could not be started; says which part, with the end of its log.
        """
        self.place.check()
        if self.is_up:
            return
        if (holder := self._other()) is not None:
            self._clear(Path(holder))
        self.down()
        if foreign := network.leftovers():
            raise ClusterError(
                "This machine seems to be a node of another cluster; it has room for one:\n"
                + "\n".join(foreign[:5])
            )
        for built in programs.build(self.place, programs.RUNNING):
            self.times.append((f"built {built.module}", built.seconds))
        try:
            self._start()
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """Ends everything and leaves nothing; logs are kept until the next time.

        Raises:
            ClusterError: something could not be taken away; says what.
        """
        state = State.load(self.place)
        if state is None:
            return
        for name in ("kubelet", "kube-proxy"):  # so that nobody starts anything again
            processes.stop(state, name)
        if processes.is_running(state, "containerd"):
            node.end_containers(self.place)
        for name in reversed(state.parts):
            processes.stop(state, name)
        processes.kill(processes.marked(self.place))
        if self._other() is None:
            network.down(state)
        remains.remove(self.place, state)
        if found := self.leftovers():
            raise ClusterError("The cluster left something behind:\n" + "\n".join(found))

    def leftovers(self) -> list[str]:
        """What of the cluster is on this machine, in words; nothing after `down`."""
        found = [f"process {p.pid} ({p.name()})" for p in processes.marked(self.place)]
        network_too = network.leftovers() if self._other() is None else []
        return [*found, *network_too, *remains.found(self.place)]

    def stop(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends one part, as a test of what then happens wants it."""
        processes.stop(self._state(), name, how)

    def start(self, name: str) -> None:
        """Starts one part again, and returns when it works."""
        state = self._state()
        if processes.is_running(state, name):
            return
        part = next((part for part in self._parts(state) if part.name == name), None)
        if part is None:
            raise ClusterError(f"There is no part {name}; there are: {', '.join(state.parts)}.")
        processes.start(self.place, state, part)
        if name == "kubelet":
            self._give_gpus()  # a kubelet that begins anew takes back what it does not know

    def mend(self) -> None:
        """Starts again whatever part does not run, after a test that has left it so."""
        for name in self._state().parts:
            self.start(name)

    def kill(self, name: str) -> None:
        """Ends one part as a crash does."""
        self.stop(name, signal.SIGKILL)

    def restart(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends one part and starts it again."""
        self.stop(name, how)
        self.start(name)

    @contextlib.contextmanager
    def driver_fault(self, call: str, message: str) -> Iterator[None]:
        """Meanwhile this call of the CSI driver (`CreateVolume`, …) fails with the message."""
        file = storage.folders(self.place) / "faults" / call
        file.write_text(message)
        try:
            yield
        finally:
            file.unlink()

    def load(self, archive: Path) -> None:
        """Imports an archive of images; pods use them with `imagePullPolicy: Never`."""
        node.ctr(self.place, "images", "import", str(archive))

    def program(self, name: str) -> Path:
        """The path of a program that Go builds (`helm`, `csi-sanity`, …), built if need be."""
        module = next((key for key, m in programs.MODULES.items() if name in m.programs), None)
        if module is None:
            raise ClusterError(f"No module makes a program {name}.")
        programs.build(self.place, [module])
        return self.place.bin / name

    def add_nodes(
        self,
        count: int,
        group: str,
        *,
        resources: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        taint: bool = True,
    ) -> list[str]:
        """Adds nodes that only seem to run pods, and returns their names.

        Args:
            count: how many.
            group: the first part of their names; `remove_nodes` takes it.
            resources: what they have besides CPU and memory, `{"nvidia.com/gpu": "8"}`.
            labels: more labels.
            taint: whether only pods with a toleration for `fleet.TAINT` may go there.
        """
        state = self._state()
        if not processes.is_running(state, "kwok"):
            self.program("kwok")
            processes.start(self.place, state, fleet.part(self.place, state))
        names = [f"{group}-{number}" for number in range(count)]
        nodes = (
            fleet.manifest(name, group, resources or {}, labels or {}, taint=taint)
            for name in names
        )
        fleet.add(self.place, state, nodes)
        return names

    def remove_nodes(self, group: str) -> None:
        """Takes the nodes of a group away."""
        fleet.remove(self.place, self._state(), group)

    def _other(self) -> str | None:
        """The folder of another tree's cluster that has this machine's network now."""
        holder = network.owner()
        return None if holder == network.named(self.place) else holder

    def _clear(self, run: Path) -> None:
        """Takes away what another tree's cluster left whose processes are all gone."""
        other = Cluster(Place(run.parent))
        if processes.marked(other.place):
            raise ClusterError(f"Another cluster runs on this machine, from {run}. End it first.")
        other.down()
        network.down(None)  # its folder may be gone as well

    def _start(self) -> None:
        state = State.new(self.place)
        with self._timed("network, certificates"):
            remains.note(state)
            network.up(self.place, state)
            self._certificates(state)
        for part in control.parts(self.place, state):
            with self._timed(part.name):
                processes.start(self.place, state, part)
        with self._timed("containerd"):
            processes.start(self.place, state, node.containerd(self.place, state))
            self.load(busybox.archive(self.place, node.BUSYBOX))
        for make in (node.kubelet, node.kube_proxy):
            part = make(self.place, state)
            with self._timed(part.name):
                processes.start(self.place, state, part)
        with self._timed("CRDs, classes, DNS service"):
            storage.apply(self.place, state, self.kubectl)
        for part in storage.parts(self.place, state):
            with self._timed(part.name):
                processes.start(self.place, state, part)
        with self._timed("the node is ready"):
            self._await_node()
            self._give_gpus()
            storage.await_driver(self.kubectl)
        state.note("complete", True)

    def _parts(self, state: State) -> Iterator[Part]:
        yield from control.parts(self.place, state)
        for make in (node.containerd, node.kubelet, node.kube_proxy):
            yield make(self.place, state)
        yield from storage.parts(self.place, state)
        yield fleet.part(self.place, state)

    def _certificates(self, state: State) -> None:
        authority = Authority(self.place.pki, dt.datetime.now(dt.UTC))
        control.certificates(self.place, authority)
        node.certificates(authority)
        storage.certificates(authority)
        fleet.certificates(authority)
        control.kubeconfigs(self.place, state, authority)
        node.kubeconfigs(self.place, state, authority)
        storage.kubeconfigs(self.place, state, authority)
        fleet.kubeconfigs(self.place, state, authority)

    def _await_node(self) -> None:
        self.kubectl.wait(f"node/{node.NAME}", "create")
        self.kubectl.wait(f"node/{node.NAME}", "Ready")
        # Pods are refused until the controllers have made it.
        self.kubectl.wait("serviceaccount/default", "create")

    def _give_gpus(self) -> None:
        status = {"status": {"capacity": GPUS, "allocatable": GPUS}}
        self.kubectl(
            *("patch", f"node/{node.NAME}", "--subresource=status", "--type=merge"),
            *("--patch", json.dumps(status)),
        )

    def _state(self) -> State:
        state = State.load(self.place)
        if state is None:
            raise ClusterError("The cluster does not run.")
        return state

    @contextlib.contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        before = time.monotonic()
        yield
        self.times.append((what, time.monotonic() - before))
