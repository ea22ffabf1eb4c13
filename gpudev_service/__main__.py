"""`python -m gpudev_service` is `gpudev`."""

from .app import main

main()
