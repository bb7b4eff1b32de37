"""Many runs in one process: the grid, its plan, the sweep and its live table."""
