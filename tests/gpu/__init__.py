"""Leases on the real GPUs of this machine: found by NVML, seen by CUDA.

What belongs here needs a GPU with NVIDIA's driver; what a driver may say otherwise is in
`tests/fleet` and `tests/lab`.
"""
