"""The Hub-managed service: the only writer of reservations, disks and policy decisions.

Belongs here: the planner, the store, the operations on reservations and disks, the loops that keep
promises, the REST API and the pages.
Never here: imports of gpudev_spawner (they meet at the REST API), a second user table, or a
scheduling decision outside `planner`.
"""
