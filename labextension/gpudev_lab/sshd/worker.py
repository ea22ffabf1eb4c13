"""The SSH server among the pods of one reservation: `python -m gpudev_lab.sshd.worker`.

A worker pod runs this and nothing else until somebody starts work from rank 0; in rank 0 it runs
beside the Jupyter server. The keys are the reservation's own, mounted into all of its pods: they
open these pods and nothing else. People come in by the panel, `gpu-dev` or the Hub, not here.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from . import daemon, places

log = logging.getLogger(__name__)

#: The variable that names the folder of the reservation's keys; only where there are several pods.
FOLDER = "GPUDEV_SSH"
PORT = 2222


def configuration(environment: Mapping[str, str], who: daemon.Account) -> str:
    """The sshd_config: sessions have the environment of the pod, devices and rank included."""
    folder = Path(environment[FOLDER])
    return daemon.configuration(environment, folder / "host_ed25519", who) + (
        f"Port {PORT}\nAuthorizedKeysFile {folder / 'authorized_keys'}\n"
    )


def beside(environment: Mapping[str, str]) -> subprocess.Popen[bytes] | None:
    """Runs it beside this process, with which it ends; None where the reservation has one pod, or
    where there is no SSH."""
    if not environment.get(FOLDER):
        return None
    try:
        setpriv = daemon.program("setpriv", "/usr/bin")
    except daemon.Unavailable as error:
        log.warning("the other pods cannot come in by SSH: %s", error)
        return None
    command = [setpriv, "--pdeathsig", "TERM", sys.executable, "-m", "gpudev_lab.sshd.worker"]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL)


def main() -> None:
    sshd = daemon.program("sshd", "/usr/sbin")
    config = places.make() / "sshd_config"
    daemon.write(config, configuration(os.environ, daemon.account()))
    # In its place, so that it is what the container's end is told to, and what takes in orphans.
    os.execv(sshd, [sshd, "-D", "-e", "-f", str(config)])  # noqa: S606 - no shell


if __name__ == "__main__":
    main()
