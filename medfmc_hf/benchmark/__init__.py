"""Benchmarks of many runs: the grid, its plan, the sweep and its live table."""
