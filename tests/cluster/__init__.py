"""Tests in a real Kubernetes (`tools/cluster`): real pods, real volumes, a real scheduler.

Here belongs what no double can show. A test has a namespace of its own, and waits for conditions of
the API server instead of sleeping.
"""
