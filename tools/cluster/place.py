"""Where things are: programs and images, which are kept, and the running cluster, which is not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.ports import free_port

TREE = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
#: Longest path of a Unix socket, and the longest that is made below `run`.
_SOCKET_PATH_MAX = 107
_LONGEST_SOCKET = "kubelet/plugins_registry/folders.csi.gpudev.test-reg.sock"


class ClusterError(Exception):
    """Something about the cluster that its user has to know; the message says all of it."""


@dataclass(frozen=True)
class Place:
    """The folders of one tree's cluster, and how it is set.

    Attributes:
        node_patience: seconds without a sign of life after which a node counts as lost. Kubernetes
            waits for 50; with fewer, tests of a node's loss end sooner.
    """

    home: Path
    node_patience: int = 16

    @property
    def bin(self) -> Path:
        """What Go built."""
        return self.home / "bin"

    @property
    def images(self) -> Path:
        """Images, by the digest of what they were made from."""
        return self.home / "images"

    @property
    def run(self) -> Path:
        """All that the running cluster has; `down` removes it."""
        return self.home / "run"

    @property
    def logs(self) -> Path:
        """One log for each part."""
        return self.run / "logs"

    @property
    def last_logs(self) -> Path:
        """The logs of the cluster that ran before."""
        return self.home / "last-logs"

    @property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.run / "pki"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.run / "kubeconfig"

    @property
    def audit_log(self) -> Path:
        """What the apiserver was asked, a line of JSON for each answer."""
        return self.run / "audit.log"

    @property
    def state_file(self) -> Path:
        """What runs, for whoever ends it."""
        return self.run / "state.json"

    @property
    def containerd_socket(self) -> Path:
        """Where containerd listens."""
        return self.run / "containerd.sock"

    @property
    def kubelet_root(self) -> Path:
        """Pods' volumes, and the sockets of CSI drivers."""
        return self.run / "kubelet"

    def check(self) -> None:
        """Raises ClusterError where sockets below this folder could not be made."""
        longest = len(str(self.run / _LONGEST_SOCKET))
        if longest > _SOCKET_PATH_MAX:
            raise ClusterError(
                f"{self.home} is {longest - _SOCKET_PATH_MAX} characters too long: the paths of"
                " sockets below it would not fit. Clone the tree to a shorter path."
            )


def default_place() -> Place:
    """This tree's own."""
    return Place(TREE / ".artifacts" / "cluster")


class State:
    """What runs, kept in a file so that another process can end it."""

    def __init__(self, place: Place, data: dict[str, Any]) -> None:
        self._file = place.state_file
        self._data = data

    @classmethod
    def new(cls, place: Place) -> State:
        """An empty one."""
        place.run.mkdir(parents=True, exist_ok=True)
        state = cls(place, {"ports": {}, "parts": {}, "notes": {}})
        state._save()
        return state

    @classmethod
    def load(cls, place: Place) -> State | None:
        """What a cluster that was started left; None without one."""
        if not place.state_file.exists():
            return None
        return cls(place, json.loads(place.state_file.read_text()))

    def port(self, name: str) -> int:
        """The port with this name: a free one when it is asked for first, the same ever after."""
        ports: dict[str, int] = self._data["ports"]
        if name not in ports:
            ports[name] = free_port()
            self._save()
        return ports[name]

    @property
    def parts(self) -> dict[str, tuple[int, int]]:
        """Process id and start (in the kernel's ticks) of each part, in order."""
        return {name: (pid, ticks) for name, (pid, ticks) in self._data["parts"].items()}

    def started(self, name: str, pid: int, ticks: int) -> None:
        """Notes that a part runs; one that is started again keeps its place in the order."""
        self._data["parts"][name] = [pid, ticks]
        self._save()

    def note(self, key: str, value: object) -> None:
        """Notes something that the end of the cluster needs to know."""
        self._data["notes"][key] = value
        self._save()

    def noted(self, key: str) -> Any:
        """What was noted; None if nothing was."""
        return self._data["notes"].get(key)

    def _save(self) -> None:
        draft = self._file.with_suffix(".new")
        draft.write_text(json.dumps(self._data, indent=1))
        draft.replace(self._file)
