"""The store on disk: its content, damage, a full disk, and removal."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from stored_images import PROCESSING, RECORD, check, fetch, rows_of

from medfmc_hf.errors import MedfmcError
from medfmc_hf.images import pixels, store
from medfmc_hf.images.pixels import decodes
from medfmc_hf.images.store import PixelStore, Reader, clear_store, list_stores
from medfmc_hf.subsets import SUBSETS


def test_the_default_cache_is_in_the_hugging_face_home(folder):
    from huggingface_hub.constants import HF_HOME

    assert pixels.default_cache() == Path(HF_HOME) / "medfmc" / "pixels"
    fetch(rows_of(folder, [1]), None)
    (store,) = [store for store in list_stores(pixels.default_cache()) if store.folder.name.startswith("endo-16x16")]
    clear_store(store)


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


def test_a_foreign_folder_is_not_written_to(folder, tmp_path):
    foreign = tmp_path / "endo-16x16-bicubic-v2"
    foreign.mkdir()
    (foreign / "store.json").write_text('{"kind": "something else"}')
    with pytest.raises(MedfmcError, match="not written by this version"):
        fetch(rows_of(folder), tmp_path)
    assert list_stores(tmp_path) == []


def test_clearing_leaves_foreign_files(folder, tmp_path):
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


def test_a_flipped_byte_is_found_and_the_image_restored(folder, tmp_path, capsys):
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
    """With a memory-mapped file, this would kill the process."""
    rows, store = rows_of(folder, range(10)), tmp_path / "endo-16x16-bicubic-v2" / "pixels.bin"
    found = fetch(rows, tmp_path)
    right = found[:]
    os.truncate(store, 300)
    assert torch.equal(found[:], right)


def test_a_store_of_another_schema_is_never_read(folder, tmp_path):
    """Neither under its old name nor under the current one."""
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
