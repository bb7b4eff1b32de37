"""How long a test waits for what has to come: it ends a test that hangs, and is no bound on how slow a machine may be."""

PATIENCE = 1800  # seconds
