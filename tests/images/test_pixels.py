"""The decode law: each image once, for all configs, processes and runs, whatever is killed; and the store that keeps it."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from medfmc_hf.errors import MedfmcError
from medfmc_hf.images import pixels, store
from medfmc_hf.images.pixels import ImageStore, TrainingPixels, decode, decodes, evaluation_pixels
from medfmc_hf.images.processing import Processing, process
from medfmc_hf.images.rows import ImageRows
from medfmc_hf.images.store import PixelStore, Reader, clear_store, list_stores
from medfmc_hf.subsets import SUBSETS

PROCESSING = Processing(16, 16, (16, 16))
ENDO = SUBSETS["endo"]


@pytest.fixture(autouse=True)
def _count():
    decodes.reset()


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Forty small images, every third one grey, no two of one size."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(40):
        shape = (20 + number, 33) if number % 3 == 0 else (20 + number, 33, 3)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{number:02d}.png")
    return folder


def rows_of(folder, numbers=range(40)):
    paths = [str(folder / f"{number:02d}.png") for number in numbers]
    return datasets.Dataset.from_dict({"image": paths}).cast_column("image", datasets.Image())


def embedded(rows):
    sources = rows.cast_column("image", datasets.Image(decode=False))["image"]
    images = [{"bytes": Path(source["path"]).read_bytes(), "path": "x"} for source in sources]
    return datasets.Dataset.from_dict({"image": images}, features=rows.features)


def expected(rows):
    return [process(decode(source), PROCESSING) for source in rows.cast_column("image", datasets.Image(decode=False))["image"]]


def check(found, rows):
    for number, image in enumerate(expected(rows)):
        assert torch.equal(found[[number]][0], image), number


def fetch(rows, cache, **options):
    return evaluation_pixels(rows, options.pop("processing", PROCESSING), subset=options.pop("subset", ENDO), cache=cache, **options)


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


def test_what_determines_the_pixels_has_a_store_of_its_own_and_nothing_else(folder, tmp_path):
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


def test_choosing_rows_opens_no_image(folder, monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("an image was opened")

    rows = rows_of(folder).add_column("label", [0, 1] * 20)
    monkeypatch.setattr(Image, "open", refuse)
    chosen = rows.select([1, 5, 5])
    images = ImageRows(chosen)
    assert len(set(images.identities)) == 2
    assert list(images.distinct().values()) == [0, 1]
    assert images.source(1)["path"].endswith("05.png")


def test_no_rows_and_no_store(folder, tmp_path):
    found = fetch(rows_of(folder, [0]).select([]), tmp_path / "none")
    assert len(found) == 0
    assert not (tmp_path / "none").exists()


def test_a_whole_store_needs_no_writing(folder, tmp_path, monkeypatch):
    fetch(rows_of(folder, range(4)), tmp_path)
    monkeypatch.setattr(pixels, "FileLock", None)
    check(fetch(rows_of(folder, range(4)), tmp_path), rows_of(folder, range(4)))


def test_the_default_cache_is_in_the_hugging_face_home(folder):
    from huggingface_hub.constants import HF_HOME

    assert pixels.default_cache() == Path(HF_HOME) / "medfmc" / "pixels"
    fetch(rows_of(folder, [1]), None)
    assert [store.subset for store in list_stores(pixels.default_cache())] == ["endo"]
    clear_store(list_stores(pixels.default_cache())[0])


RECORD = 40  # bytes of an image in the index

SWEEP = """
import sys, time, datasets
sys.path.insert(0, {tests!r})
from medfmc_hf.images import pixels
from test_pixels import rows_of, fetch, Path
pixels._COMMIT_IMAGES = 2
real = pixels.decode
def slow(source):
    time.sleep({pause})
    return real(source)
pixels.decode = slow
fetch(rows_of(Path({folder!r}), {numbers}), Path({cache!r}))
print(pixels.decodes.count)
"""


def sweep(folder, cache, numbers="range(40)", pause=0.0):
    script = SWEEP.format(tests=str(Path(__file__).parent), folder=str(folder), cache=str(cache), numbers=numbers, pause=pause)
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)


def test_processes_share_the_work(folder, tmp_path):
    processes = [sweep(folder, tmp_path, numbers, pause=0.02) for numbers in ("range(30)", "range(10, 40)")]
    counts = [int(process.communicate(timeout=120)[0]) for process in processes]
    assert sum(counts) == 40
    check(fetch(rows_of(folder), tmp_path), rows_of(folder))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_killed_sweep_is_finished_and_what_it_stored_is_kept(folder, tmp_path):
    index, most = tmp_path / "endo-16x16-bicubic-v2" / "index.bin", 0
    for records in (4, 14):
        process = sweep(folder, tmp_path, pause=0.05)
        while not (index.exists() and index.stat().st_size >= records * RECORD):
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        stored = index.stat().st_size // RECORD
        assert most <= stored < 40
        most = stored
    rows = rows_of(folder)
    found = fetch(rows, tmp_path)
    assert decodes.count == 40 - most
    check(found, rows)
    decodes.reset()
    fetch(rows, tmp_path)
    assert decodes.count == 0


@pytest.mark.parametrize("damage", ["cut index", "zeros", "noise", "stray pixels", "cut pixels"])
def test_what_a_crash_leaves_is_written_again(damage, folder, tmp_path):
    fetch(rows_of(folder, range(10)), tmp_path)
    store = tmp_path / "endo-16x16-bicubic-v2"
    index = (store / "index.bin").read_bytes()
    if damage == "cut index":
        (store / "index.bin").write_bytes(index[: 7 * RECORD + 11])
    elif damage in ("zeros", "noise"):
        (store / "index.bin").write_bytes(index[: 7 * RECORD] + (bytes(96) if damage == "zeros" else np.random.default_rng(0).bytes(96)))
    elif damage == "stray pixels":
        with (store / "pixels.bin").open("ab") as file:
            file.write(b"stray")
    else:
        os.truncate(store / "pixels.bin", 256 * (1 + 3 + 3 + 1 + 3 + 3 + 1) + 5)
    decodes.reset()
    found = fetch(rows_of(folder, range(12)), tmp_path)
    assert decodes.count == (2 if damage == "stray pixels" else 5)
    check(found, rows_of(folder, range(12)))


def test_an_interrupt_keeps_what_is_done(folder, tmp_path, monkeypatch):
    def interrupted(source):
        if source["path"].endswith("20.png"):
            raise KeyboardInterrupt
        return decode(source)

    monkeypatch.setattr(pixels, "decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(rows_of(folder), tmp_path)
    monkeypatch.undo()
    assert list_stores(tmp_path)[0].images == 20
    decodes.reset()
    check(fetch(rows_of(folder), tmp_path), rows_of(folder))


def test_a_broken_image_is_named_and_the_others_are_kept(folder, tmp_path):
    for number in range(6):
        (tmp_path / f"{number:02d}.png").write_bytes((folder / f"{number:02d}.png").read_bytes()[: 900 if number == 4 else None])
    with pytest.raises(MedfmcError, match=r"04\.png"):
        fetch(rows_of(tmp_path, range(6)), tmp_path / "cache")
    assert list_stores(tmp_path / "cache")[0].images == 4


def test_a_full_disk_is_foreseen(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _path: SimpleNamespace(free=1000))
    with pytest.raises(MedfmcError, match=r"GB free.*medfmc cache"):
        fetch(rows_of(folder), tmp_path)
    assert decodes.count == 0


def test_a_disk_that_fills_is_a_clear_error(folder, tmp_path, monkeypatch):
    def full(*_args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store, "_append", full)
    with pytest.raises(MedfmcError, match=r"cannot be stored in .*No space left"):
        fetch(rows_of(folder), tmp_path)


def test_a_folder_that_cannot_be_made_is_a_clear_error(folder, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MedfmcError, match="name another folder"):
        fetch(rows_of(folder), tmp_path / "file" / "cache")


def test_a_foreign_folder_is_not_written_to(folder, tmp_path):
    foreign = tmp_path / "endo-16x16-bicubic-v2"
    foreign.mkdir()
    (foreign / "store.json").write_text('{"kind": "something else"}')
    with pytest.raises(MedfmcError, match="not written by this version"):
        fetch(rows_of(folder), tmp_path)
    assert list_stores(tmp_path) == []


def test_clearing_spares_what_is_not_ours(folder, tmp_path):
    fetch(rows_of(folder, range(3)), tmp_path)
    fetch(rows_of(folder, range(3)), tmp_path, subset=SUBSETS["colon"])
    (tmp_path / "endo-16x16-bicubic-v2" / "notes.txt").write_text("mine")
    (tmp_path / "other").mkdir()
    stores = list_stores(tmp_path)
    sizes = [(store.subset, store.geometry, store.images) for store in stores]
    assert sizes == [("colon", "16x16-bicubic", 3), ("endo", "16x16-bicubic", 3)]
    assert stores[0].bytes == sum(file.stat().st_size for file in stores[0].folder.iterdir())
    for each in stores:
        clear_store(each)
    assert list_stores(tmp_path) == []
    assert {path.name for path in tmp_path.iterdir()} == {".locks", "other", "endo-16x16-bicubic-v2"}
    assert [path.name for path in (tmp_path / "endo-16x16-bicubic-v2").iterdir()] == ["notes.txt"]
    check(fetch(rows_of(folder, range(3)), tmp_path), rows_of(folder, range(3)))


def test_a_store_in_use_is_not_cleared(folder, tmp_path):
    fetch(rows_of(folder, range(3)), tmp_path)
    store = PixelStore(tmp_path, "endo", PROCESSING.geometry, 16, 16)
    with pixels.FileLock(store.lock_path), pytest.raises(MedfmcError, match="another process"):
        clear_store(list_stores(tmp_path)[0])


# --- damage ---


def test_a_flipped_byte_is_found_and_mended(folder, tmp_path, capsys):
    rows, store = rows_of(folder, range(10)), tmp_path / "endo-16x16-bicubic-v2" / "pixels.bin"
    right = fetch(rows, tmp_path)[:]
    content = bytearray(store.read_bytes())
    content[5] ^= 1
    content[-3] ^= 128
    store.write_bytes(content)
    Reader._sound.clear()  # as in a new process
    decodes.reset()
    found = fetch(rows, tmp_path)
    assert torch.equal(found[:], right)
    assert decodes.count == 2 and "damaged" in capsys.readouterr().err
    decodes.reset()
    assert torch.equal(fetch(rows, tmp_path)[:], right) and decodes.count == 0
    Reader._sound.clear()
    assert torch.equal(fetch(rows, tmp_path)[:], right) and decodes.count == 0, "what was mended stays so"


def test_a_file_that_is_cut_while_it_is_read(folder, tmp_path):
    """A mapped file would end the process."""
    rows, store = rows_of(folder, range(10)), tmp_path / "endo-16x16-bicubic-v2" / "pixels.bin"
    found = fetch(rows, tmp_path)
    right = found[:]
    os.truncate(store, 300)
    assert torch.equal(found[:], right)


def test_a_store_of_another_schema_is_never_read(folder, tmp_path):
    """Under the name it had, and under the one it has now."""
    rows = rows_of(folder, range(4))
    right = fetch(rows, tmp_path)[:]
    store = tmp_path / "endo-16x16-bicubic-v2"
    (store / "pixels.bin").write_bytes(bytes(len((store / "pixels.bin").read_bytes())))
    description = (store / "store.json").read_text()
    (store / "store.json").write_text(description.replace('"schema": 2', '"schema": 1'))
    with pytest.raises(MedfmcError, match="not written by this version"):
        fetch(rows, tmp_path)
    store.rename(tmp_path / "endo-16x16-bicubic")
    decodes.reset()
    assert torch.equal(fetch(rows, tmp_path)[:], right) and decodes.count == 4
    assert [store.images for store in list_stores(tmp_path)] == [4 * RECORD // 32, 4]


def test_processes_whose_locks_exclude_nobody(folder, tmp_path):
    """They store some images twice, and each reads what is right."""
    script = SWEEP.replace("import sys, time, datasets", "import sys, time, datasets, fcntl\nfcntl.flock = lambda *_: None")
    made = [
        script.format(tests=str(Path(__file__).parent), folder=str(folder), cache=str(tmp_path), numbers="range(40)", pause=0.01)
        for _ in range(3)
    ]
    processes = [subprocess.Popen([sys.executable, "-c", each], stdout=subprocess.PIPE, text=True) for each in made]
    time.sleep(0.5)
    processes[0].kill()
    for other in processes[1:]:
        other.communicate(timeout=120)
        assert other.returncode == 0
    decodes.reset()
    found = fetch(rows_of(folder), tmp_path)
    assert decodes.count == 0
    check(found, rows_of(folder))
