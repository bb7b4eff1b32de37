"""Targets, scores and patients for tests of whatever scores them."""

import numpy as np


def invent(rows=60, classes=3, patients=12, seed=0, multilabel=True):
    rng = np.random.default_rng(seed)
    targets = rng.random((rows, classes)) < 0.3 if multilabel else rng.integers(0, classes, rows)
    return targets, rng.integers(0, 8, (rows, classes)) / 7, rng.integers(0, patients, rows)
