"""A Hub with GPU reservations on this machine, for trying gpudev out: `python -m tools.demo`.

It listens on 127.0.0.1 only. `DEMO_PORT` (8000) is the port of its address, `DEMO_DIR` (`.demo`)
the place of its data, which the next start finds again.
"""
