"""Who uses the machine's cores: a figure of all parts together tells little of any of them."""

from __future__ import annotations

from pathlib import Path

import psutil

#: Programs that are told by what they run.
_RUNNERS = ("python", "node")


class Cores:
    """Seconds of processor of every process, from its making on."""

    def __init__(self) -> None:
        self._before = _used()

    def since(self, least: float = 0.5) -> dict[str, float]:
        """Seconds by part, the largest first, of those that used at least so many. What has ended
        since is left out, and so is what it used."""
        found: dict[str, float] = {}
        for key, (name, seconds) in _used().items():
            spent = seconds - self._before.get(key, (name, 0.0))[1]
            found[name] = found.get(name, 0.0) + spent
        order = sorted(found.items(), key=lambda item: -item[1])
        return {name: spent for name, spent in order if spent >= least}


def _used() -> dict[tuple[int, float], tuple[str, float]]:
    found = {}
    for process in psutil.process_iter():
        try:
            with process.oneshot():
                key = process.pid, process.create_time()
                found[key] = _name(process), float(sum(process.cpu_times()[:2]))
        except psutil.Error:
            continue
    return found


def _name(process: psutil.Process) -> str:
    """The program, or what it runs: `jupyterhub` rather than `python3`."""
    name, words = process.name(), process.cmdline()
    if not name.startswith(_RUNNERS):
        return name.split(":")[0]
    for at, word in enumerate(words[1:], 1):
        if word == "-m" and at + 1 < len(words):
            return words[at + 1]
        if not word.startswith("-"):
            return Path(word).name
    return name
