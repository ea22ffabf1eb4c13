"""Disks and their snapshots as bytes: create, copy, swap, list, measure, remove.

Belongs here: the seam `DiskBackend`, its implementations, the pure rule of which snapshots may go.
Never here: names, owners, locks of reservations or states of disks (the database has them), and
decisions about who may do what. This package knows disks and snapshots by opaque ids only.
"""
