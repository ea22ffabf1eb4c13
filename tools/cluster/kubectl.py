"""The API server, asked through kubectl, in the words that people use as well."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .place import ClusterError

Manifest = dict[str, Any]


class KubectlError(ClusterError):
    """kubectl refused; `stderr` has its words."""

    def __init__(self, arguments: Sequence[str], stderr: str) -> None:
        super().__init__(f"kubectl {' '.join(arguments)}: {stderr.strip()}")
        self.stderr = stderr


@dataclass(frozen=True)
class Kubectl:
    """kubectl at one cluster, in one namespace, or where the manifests say."""

    program: Path
    kubeconfig: Path
    namespace: str | None = None

    def within(self, namespace: str) -> Kubectl:
        """The same in another namespace."""
        return Kubectl(self.program, self.kubeconfig, namespace)

    def __call__(self, *arguments: str, text: str | None = None) -> str:
        """Runs `kubectl ARGUMENTS` and returns what it prints.

        Raises:
            KubectlError: it failed.
        """
        done = subprocess.run(
            [*self._command, *arguments],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise KubectlError(arguments, done.stderr)
        return done.stdout

    @property
    def _command(self) -> list[str]:
        where = [f"--namespace={self.namespace}"] if self.namespace else []
        return [str(self.program), f"--kubeconfig={self.kubeconfig}", *where]

    def get(self, *arguments: str) -> Any:
        """What `kubectl get` knows, as a value."""
        return json.loads(self("get", "-o", "json", *arguments))

    def apply(self, *manifests: Manifest) -> None:
        """Creates or changes things, however large they are."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self("apply", "--server-side", "--force-conflicts", "-f", "-", text=json.dumps(items))

    def wait(
        self, what: str, condition: str, *, selector: str | None = None, seconds: int = 90
    ) -> None:
        """Returns when the condition holds: `Ready`, `create`, `delete`, or `jsonpath=…`.

        Args:
            what: a kind and a name, or a kind with a selector of labels.
            condition: for how long it does not hold, this waits.
            selector: all that it selects have to meet the condition.
            seconds: it fails after them.
        """
        plain = "=" not in condition and condition not in {"delete", "create"}
        wanted = f"condition={condition}" if plain else condition
        which = [f"--selector={selector}"] if selector else []
        self("wait", what, *which, f"--for={wanted}", f"--timeout={seconds}s")

    def event(self, name: str, reason: str, *, seconds: int = 90) -> str:
        """The message of the first event with this reason about the thing; waits for it."""
        where = f"involvedObject.name={name},reason={reason}"
        shown = 'jsonpath={.message}{"\\n"}'
        command = [
            *(*self._command, f"--request-timeout={seconds}s"),
            *("get", "events", f"--field-selector={where}", "--watch", "-o", shown),
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
            line = watching.stdout.readline() if watching.stdout else ""
            watching.kill()
        if not line:
            raise ClusterError(f"There was no event {reason} about {name} in {seconds} s.")
        return line.strip()
