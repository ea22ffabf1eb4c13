"""Runs as `python -I -S .../gpudev_client/ssh`, without site-packages and without the package's
`__init__`, which would import what is not needed here."""

import os.path
import sys


def _main() -> int:
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib takes 10 ms
    package = type(sys)("gpudev_client")
    package.__path__ = [os.path.dirname(here)]  # noqa: PTH120
    sys.modules["gpudev_client"] = package
    from gpudev_client.ssh.main import main

    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(_main())
