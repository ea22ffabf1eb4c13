"""How long `gpu-dev --help` takes beyond the interpreter's own start, and as a ratio to it.

Runs `python -c pass` and `gpu-dev --help` in turn (A-B-A-B) and compares medians.

    python -m benchmarks.cli_start [RUNS]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

GOAL_SECONDS = 0.3
BARE = [sys.executable, "-c", "pass"]
HELP = [sys.executable, "-c", "from gpudev_client.cli import main; main()", "--help"]


def seconds(command: list[str]) -> float:
    """Wall-clock time of one run."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main(runs: int) -> None:
    seconds(HELP)  # compiles what is not compiled yet
    bare, helped = [], []
    for _ in range(runs):
        bare.append(seconds(BARE))
        helped.append(seconds(HELP))
    floor, whole = statistics.median(bare), statistics.median(helped)
    own = whole - floor
    print(f"bare interpreter {floor * 1000:.0f} ms, gpu-dev --help {whole * 1000:.0f} ms")
    print(
        f"cli_start own={own:.3f}s ratio={whole / floor:.1f} goal {GOAL_SECONDS}s "
        f"{'met' if own <= GOAL_SECONDS else 'missed'}"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
