"""The run: what determines it, its record, its predictions, and its folder.

A run is one adaptation of one backbone to one dataset config. Its folder holds `run.json` (the record), `predictions.parquet` (every scored
row) and `adapter/` (weights and model card). Everything that reports, compares or publishes reads these files and nothing else.
"""

from .config import MethodOptions, RunConfig
from .identity import SCHEMA, identity
from .predictions import Predictions, load_predictions, probabilities_of, save_predictions
from .record import RunRecord, hashes_of, record_path

__all__ = [
    "SCHEMA",
    "MethodOptions",
    "Predictions",
    "RunConfig",
    "RunRecord",
    "hashes_of",
    "identity",
    "load_predictions",
    "probabilities_of",
    "record_path",
    "save_predictions",
]
