"""Each image is decoded once, for all configs, processes and runs, even if processes are killed."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from patience import PATIENCE
from PIL import Image
from stored_images import PROCESSING, RECORD, check, embedded, fetch, rows_of

from medfmc_hf.errors import MedfmcError
from medfmc_hf.images import pixels
from medfmc_hf.images.pixels import ImageStore, TrainingPixels, decode, decodes
from medfmc_hf.images.processing import Processing
from medfmc_hf.images.store import list_stores
from medfmc_hf.subsets import SUBSETS


def test_pixels_are_the_processed_images(folder, tmp_path):
    rows = rows_of(folder)
    found = fetch(rows, tmp_path)
    assert len(found) == 40
    check(found, rows)
    assert found[[0, 3, 6]].shape == (3, 1, 16, 16)
    mixed = found[torch.tensor([1, 0])]
    assert mixed.shape == (2, 3, 16, 16)
    assert torch.equal(mixed[1], found[[0]][0].expand(3, -1, -1))
    assert torch.equal(found[38:], found[np.array([38, 39])])
    assert found[[]].shape == (0, 1, 16, 16)
    with pytest.raises(IndexError):
        found[[40]]


def test_each_image_is_decoded_once_in_a_sweep_and_never_again(folder, tmp_path):
    configs = [range(10), range(5, 20), [3, 3, 19, 21], range(22)]
    for numbers in configs:
        fetch(rows_of(folder, numbers), tmp_path)
    assert decodes.count == 22
    decodes.reset()
    for numbers in configs:
        fetch(rows_of(folder, numbers), tmp_path)
    assert decodes.count == 0
    assert [store.images for store in list_stores(tmp_path)] == [22]


def test_what_training_has_decoded_is_not_decoded_again(folder, tmp_path):
    rows, memory = rows_of(folder, range(22)), ImageStore()
    TrainingPixels(rows.select(range(3, 15)), PROCESSING, store=memory).precompute()
    assert decodes.count == 12
    found = fetch(rows, tmp_path, decoded=memory)
    assert decodes.count == 22
    check(found, rows)


def test_each_subset_and_geometry_has_its_own_store(folder, tmp_path):
    rows = rows_of(folder, range(4))
    fetch(rows, tmp_path)
    fetch(rows, tmp_path, processing=Processing(16, 16, (16, 16), mean=(0.1, 0.2, 0.3)))
    assert decodes.count == 4
    fetch(rows, tmp_path, processing=Processing(16, 16, (16, 16), "bilinear"))
    fetch(rows, tmp_path, processing=Processing(16, 16, (20,)))
    fetch(rows, tmp_path, subset=SUBSETS["colon"])
    assert decodes.count == 16
    assert len(list_stores(tmp_path)) == 4


def test_a_replaced_image_is_decoded_again(folder, tmp_path):
    path = tmp_path / "00.png"
    path.write_bytes((folder / "00.png").read_bytes())
    before = fetch(rows_of(tmp_path, [0]), tmp_path / "cache")[[0]]
    Image.fromarray(255 - np.array(Image.open(path))).save(path)
    after = fetch(rows_of(tmp_path, [0]), tmp_path / "cache")
    assert not torch.equal(before, after[[0]])
    check(after, rows_of(tmp_path, [0]))


def test_embedded_images_are_known_by_their_bytes(folder, tmp_path):
    rows = embedded(rows_of(folder, [*range(9), *range(5)]))
    check(fetch(rows, tmp_path), rows)
    decodes.reset()
    fetch(embedded(rows_of(folder, range(3, 9))).shuffle(seed=0), tmp_path)
    assert decodes.count == 0


def test_no_rows_and_no_store(folder, tmp_path):
    found = fetch(rows_of(folder, [0]).select([]), tmp_path / "none")
    assert len(found) == 0
    assert not (tmp_path / "none").exists()


def test_a_whole_store_needs_no_writing(folder, tmp_path, monkeypatch):
    fetch(rows_of(folder, range(4)), tmp_path)
    monkeypatch.setattr(pixels, "FileLock", None)
    check(fetch(rows_of(folder, range(4)), tmp_path), rows_of(folder, range(4)))


SWEEP = """
import sys, threading
from pathlib import Path
sys.path.insert(0, {tests!r})
from medfmc_hf.images import pixels, rows
from stored_images import fetch, rows_of
pixels._COMMIT_IMAGES = 2
real = rows.decode
def decode(source, grey):
    if int(Path(source["path"]).stem) >= {hangs_at}:
        threading.Event().wait()
    return real(source, grey)
rows.decode = decode
fetch(rows_of(Path({folder!r}), {numbers}), Path({cache!r}))
print(pixels.decodes.count)
"""


def sweep(folder, cache, numbers="range(40)", hangs_at=40, before=""):
    """A process that stores images and hangs before the image with that number."""
    tests = str(Path(__file__).parents[1])
    script = before + SWEEP.format(tests=tests, folder=str(folder), cache=str(cache), numbers=numbers, hangs_at=hangs_at)
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)


def test_processes_share_the_work(folder, tmp_path):
    processes = [sweep(folder, tmp_path, numbers) for numbers in ("range(30)", "range(10, 40)")]
    counts = [int(process.communicate(timeout=PATIENCE)[0]) for process in processes]
    assert sum(counts) == 40
    check(fetch(rows_of(folder), tmp_path), rows_of(folder))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_what_a_killed_sweep_stored_is_not_decoded_again(folder, tmp_path):
    index, most = tmp_path / "endo-16x16-bicubic-v2" / "index.bin", 0
    for records in (4, 14):
        process = sweep(folder, tmp_path, hangs_at=records + 2)
        while not (index.exists() and index.stat().st_size >= records * RECORD):
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=PATIENCE)
        stored = index.stat().st_size // RECORD
        assert records <= stored <= records + 2
        most = stored
    rows = rows_of(folder)
    found = fetch(rows, tmp_path)
    assert decodes.count == 40 - most
    check(found, rows)
    decodes.reset()
    fetch(rows, tmp_path)
    assert decodes.count == 0


def test_what_was_stored_before_an_interrupt_stays(folder, tmp_path, monkeypatch):
    def interrupted(source, grey):
        if source["path"].endswith("20.png"):
            raise KeyboardInterrupt
        return decode(source)

    monkeypatch.setattr("medfmc_hf.images.rows.decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(rows_of(folder), tmp_path)
    monkeypatch.undo()
    assert list_stores(tmp_path)[0].images == 20
    decodes.reset()
    check(fetch(rows_of(folder), tmp_path), rows_of(folder))


def test_a_broken_image_is_named_and_the_others_are_stored(folder, tmp_path):
    for number in range(6):
        (tmp_path / f"{number:02d}.png").write_bytes((folder / f"{number:02d}.png").read_bytes()[: 900 if number == 4 else None])
    with pytest.raises(MedfmcError, match=r"04\.png"):
        fetch(rows_of(tmp_path, range(6)), tmp_path / "cache")
    assert list_stores(tmp_path / "cache")[0].images == 4


def test_a_folder_that_cannot_be_created_is_a_clear_error(folder, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MedfmcError, match="choose another folder"):
        fetch(rows_of(folder), tmp_path / "file" / "cache")


def test_processes_with_locks_that_do_not_work(folder, tmp_path):
    """They may store images twice, and each reads the right pixels."""
    before = "import fcntl\nfcntl.flock = lambda *_: None\n"
    processes = [sweep(folder, tmp_path, hangs_at=hangs_at, before=before) for hangs_at in (20, 40, 40)]
    index = tmp_path / "endo-16x16-bicubic-v2" / "index.bin"
    while not index.exists():
        time.sleep(0.005)
    processes[0].kill()
    for other in processes[1:]:
        other.communicate(timeout=PATIENCE)
        assert other.returncode == 0
    decodes.reset()
    found = fetch(rows_of(folder), tmp_path)
    assert decodes.count == 0
    check(found, rows_of(folder))
