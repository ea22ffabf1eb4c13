"""A real Kubernetes on this machine, without Docker: for tests, and for work on the project.

Here belongs what builds its programs, starts and ends them, and puts images, nodes and volumes into
it. Nothing here knows reservations: whatever tests do with the cluster is theirs (`tests/cluster`).
All that it makes lies below `.artifacts/cluster`, and `down` leaves nothing behind on the machine.
"""
