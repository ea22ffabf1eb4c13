"""Benchmarks: each prints one ratio, against a peer or a limit that it measures in the same run.

`make p1` runs benchmarks/p1.py. The first line of a benchmark's docstring says what it measures;
`make help` shows it. Nothing here is imported by the product, and no test runs it for its time.
"""
