"""The true reason why a file is no image."""

import io

import numpy as np
import pytest
from PIL import Image

from medfmc_hf.errors import MedfmcError
from medfmc_hf.images.decoding import decode


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


FILES = {
    "scan.dcm": (b"\0" * 128 + b"DICM" + b"\2\0\0\0", "is a DICOM file.*convert it to PNG"),
    "scan.png": (b"\0" * 128 + b"DICM" + b"\2\0\0\0", "is a DICOM file"),
    "photo.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "is a HEIC image"),
    "pointer.png": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "is a Git LFS pointer"),
    "page.jpg": (b"<!DOCTYPE html><title>404</title>", "is a web page"),
    "paper.png": (b"%PDF-1.7\n", "is a PDF"),
    "all.png": (b"PK\x03\x04" + b"\0" * 40, "is a zip archive"),
    "empty.png": (b"", "is empty"),
    "text.png": (b"just text", "is no image that Pillow can read"),
    "half.png": (png()[:9000], "is cut off"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("embedded", [False, True])
def test_what_a_file_is(name, embedded, tmp_path):
    content, says = FILES[name]
    (tmp_path / name).write_bytes(content)
    source = {"bytes": content, "path": name} if embedded else {"bytes": None, "path": str(tmp_path / name)}
    with pytest.raises(MedfmcError, match=says):
        decode(source)


def test_what_is_wrong_with_a_path(tmp_path):
    (tmp_path / "image_001.png").write_bytes(png())
    for path, says in (
        (tmp_path, "is a folder; give the files in it"),
        (tmp_path / "imag_001.png", "is not there; the nearest name in its folder is image_001.png"),
        (tmp_path / "other" / "image_001.png", "is not there, and neither is its folder"),
    ):
        with pytest.raises(MedfmcError, match=says):
            decode({"bytes": None, "path": str(path)})


def test_an_image_over_pillows_guard(tmp_path, monkeypatch):
    (tmp_path / "large.png").write_bytes(png())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(MedfmcError, match="8,100 pixels, more than the 200 that Pillow decodes"):
        decode({"bytes": None, "path": str(tmp_path / "large.png")})
