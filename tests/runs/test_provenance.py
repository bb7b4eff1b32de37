"""What a record says of its data, its backbone, the machine and the libraries."""

import importlib
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from tiny_models import tiny
from torch import nn

from medfmc_hf.models.backbones import load_backbone
from medfmc_hf.models.checkpoint import find_checkpoint
from medfmc_hf.runs import RunConfig, RunRecord, provenance
from medfmc_hf.subsets import SUBSETS, ConfigName
from medfmc_hf.training.loop import make_accelerator


def record(**data) -> RunRecord:
    return RunRecord("0" * 16, "finished", RunConfig("endo").to_dict(), data=data)


def test_rows_are_counted_and_patients_once():
    patients = {"train": ["a", "a", "b"], "test": ["c", "d", "d", "e"]}
    splits = datasets.DatasetDict({name: datasets.Dataset.from_dict({"patient_id": ids}) for name, ids in patients.items()})
    found = provenance.data(ConfigName("endo", 5, 1, "official"), splits, "f", "t", {"invented": True})
    assert (found["rows"], found["patients"]) == ({"train": 3, "test": 4}, {"train": 2, "test": 3})
    assert (found["config"], found["fingerprint"], found["test_sha256"]) == ("endo-5shot-seed1-official", "f", "t")
    assert found["protocol"].startswith("official: ") and found["invented"] is True


def test_marks_set_images_apart_and_only_unfit_ones_keep_a_run_off_boards():
    assert provenance.marks(record()) == provenance.marks(record(invented=False, incomplete=False, max_side=None)) == []
    shrunk = record(max_side=512)
    assert provenance.marks(shrunk) == ["shrunk to at most 512 pixels a side"] and provenance.unfit_marks(shrunk) == []
    both = record(invented=True, incomplete=True, max_side=64)
    assert provenance.unfit_marks(both) == ["invented", "incomplete (built with --allow-missing)"]
    assert provenance.marks(both) == [*provenance.unfit_marks(both), "shrunk to at most 64 pixels a side"]


def test_the_backbone_is_named_by_its_folder_and_its_content(tmp_path):
    tiny("siglip vision").save_pretrained(tmp_path)
    model, checkpoint = load_backbone(str(tmp_path), SUBSETS["endo"]), find_checkpoint(str(tmp_path))
    found = provenance.backbone(model, checkpoint)
    assert found == {
        "name": str(tmp_path),
        "revision": None,
        "fingerprint": checkpoint.fingerprint,
        "sha256": checkpoint.content,
        "architecture": "siglip_vision_model",
        "image_size": 16,
        "pool": "encoder",
    }


def test_parameters_are_counted_one_by_one():
    model = nn.Sequential(nn.Linear(3, 4).requires_grad_(False), nn.Linear(4, 2))
    assert provenance.parameters(model) == {"trainable_parameters": 4 * 2 + 2, "total_parameters": 3 * 4 + 4 + 4 * 2 + 2}


def test_peak_memory_is_in_bytes_and_that_of_the_whole_process():
    held = np.ones(50_000_000, np.uint8)
    found = provenance.machine(make_accelerator())
    assert found["processes"] == 1 and found["threads"] == torch.get_num_threads() and len(held) == 50_000_000
    if torch.cuda.is_available():
        assert found["device"].startswith("cuda: ")
        return
    assert found["device"].startswith("cpu: ")
    status = Path("/proc/self/status")
    if not status.is_file():
        pytest.skip("this system does not say how much memory a process has held")
    (peak,) = (int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    assert found["peak_memory_bytes"] == pytest.approx(peak, rel=0.1)


def test_versions_are_those_that_are_imported_and_what_is_missing_is_left_out(monkeypatch):
    modules = {"torch": "torch", "scikit-learn": "sklearn", "numpy": "numpy", "pillow": "PIL"}
    monkeypatch.setattr(provenance, "LIBRARIES", (*modules, "no-such-library-at-all"))
    found = provenance.versions()
    assert set(found) == {"python", "medfmc_hf", *modules}
    for name, module in modules.items():
        assert importlib.import_module(module).__version__.split("+")[0] == found[name].split("+")[0]
