"""What the benchmarks measure with; how fast anything is, no test says."""
