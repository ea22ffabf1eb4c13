"""What a shell gets: the script, and the verbs and options that it asks the command for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).with_name("gpu-dev")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_printed(shell: str) -> None:
    done = subprocess.run(
        [PROGRAM, "completion", shell], capture_output=True, text=True, check=True
    )
    assert "_GPU_DEV_COMPLETE" in done.stdout


@pytest.mark.parametrize(
    ("typed", "wanted"), [("gpu-dev re", "reserve"), ("gpu-dev reserve --gpu", "--gpu-type")]
)
def test_verbs_and_options_are_completed(typed: str, wanted: str) -> None:
    """As the script for bash asks."""
    asked = {"_GPU_DEV_COMPLETE": "bash_complete", "COMP_WORDS": typed}
    asked["COMP_CWORD"] = str(len(typed.split()) - 1)
    done = subprocess.run(
        [PROGRAM], env=os.environ | asked, capture_output=True, text=True, check=False
    )
    assert wanted in done.stdout
