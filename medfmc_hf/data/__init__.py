"""From a MedFMC download to pixels: sources, splits, the build, its check, and loading it."""
