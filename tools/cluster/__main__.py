"""`python -m tools.cluster COMMAND`: the cluster on this machine; docs/contributing/cluster.md."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from . import images, programs, requirements
from .cluster import Cluster
from .place import ClusterError, State, default_place
from .processes import is_running


def main() -> int:
    """Does what the arguments say; the exit code tells whether it worked."""
    options = _options()
    cluster = Cluster(default_place())
    try:
        return _COMMANDS[options.command](cluster, options)
    except ClusterError as problem:
        print(f"cluster: {problem}", file=sys.stderr)
        return 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="build what is missing and start everything")
    commands.add_parser("down", help="end everything and leave nothing")
    commands.add_parser("status", help="which parts run")
    restart = commands.add_parser("restart", help="end one part and start it again")
    restart.add_argument("part")
    commands.add_parser("prepare", help="build all that tests may want, where a cluster can run")
    load = commands.add_parser("load", help="put an archive of images into the running cluster")
    load.add_argument("archive", type=Path)
    build = commands.add_parser("build", help="build FOLDER/Dockerfile; prints the archive")
    build.add_argument("folder", type=Path)
    build.add_argument("tag")
    build.add_argument("--arg", type=_pair, action="append", default=[], metavar="NAME=VALUE")
    add = commands.add_parser("add-nodes", help="add nodes that only seem to run pods")
    add.add_argument("count", type=int)
    add.add_argument("group")
    add.add_argument("--resource", type=_pair, action="append", default=[], metavar="NAME=VALUE")
    commands.add_parser("remove-nodes", help="take them away").add_argument("group")
    return parser.parse_args()


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text} is not NAME=VALUE")
    return name, value


def _prepare(cluster: Cluster, _: argparse.Namespace) -> int:
    reason = requirements.machine_obstacle()
    if reason is not None:
        print(f"cluster: cannot run here: {reason}")  # the tests' tier says so as well
        return 0
    for built in programs.build(cluster.place, programs.MODULES):
        print(f"cluster: built {built.module} in {built.seconds:.0f} s", flush=True)
    return 0


def _restart(cluster: Cluster, options: argparse.Namespace) -> int:
    cluster.restart(options.part)
    return 0


def _load(cluster: Cluster, options: argparse.Namespace) -> int:
    cluster.load(options.archive)
    return 0


def _build(cluster: Cluster, options: argparse.Namespace) -> int:
    print(images.build(cluster.place, options.folder, options.tag, dict(options.arg)))
    return 0


def _add_nodes(cluster: Cluster, options: argparse.Namespace) -> int:
    cluster.add_nodes(options.count, options.group, resources=dict(options.resource))
    return 0


def _remove_nodes(cluster: Cluster, options: argparse.Namespace) -> int:
    cluster.remove_nodes(options.group)
    return 0


def _up(cluster: Cluster, _: argparse.Namespace) -> int:
    before = time.monotonic()
    if cluster.is_up:
        print("cluster: runs already")
    cluster.up()
    for what, seconds in cluster.times:
        print(f"  {seconds:7.1f} s  {what}")
    print(f"cluster: up after {time.monotonic() - before:.1f} s; `make cluster-down` ends it")
    print(f"export KUBECONFIG={cluster.place.kubeconfig}")
    print(f"{cluster.kubectl.program} get nodes")
    return 0


def _down(cluster: Cluster, _: argparse.Namespace) -> int:
    cluster.down()
    images.abandon(cluster.place)
    print("cluster: ended, nothing is left")
    return 0


def _status(cluster: Cluster, options: argparse.Namespace) -> int:
    state = State.load(cluster.place)
    if state is None:
        print("cluster: does not run")
        return 1
    for name, (pid, _) in state.parts.items():
        print(f"{name:<26} {pid:>8}  {'runs' if is_running(state, name) else 'has ended'}")
    return 0 if cluster.is_up else 1


_COMMANDS: dict[str, Callable[[Cluster, argparse.Namespace], int]] = {
    "up": _up,
    "down": _down,
    "status": _status,
    "restart": _restart,
    "prepare": _prepare,
    "build": _build,
    "load": _load,
    "add-nodes": _add_nodes,
    "remove-nodes": _remove_nodes,
}

if __name__ == "__main__":
    sys.exit(main())
