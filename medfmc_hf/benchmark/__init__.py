"""Many runs in one process: the grid, its plan, and what runs share."""
