import hashlib
import io

import numpy as np
import pytest
from PIL import Image
from trees import image_bytes

from medfmc_hf.images.integrity import inspect, inspect_all

PNG, JPEG = image_bytes("a.png"), image_bytes("a.jpg")


def encode(pixels, name):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, name)
    return buffer.getvalue()


LARGE = encode(np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8), "PNG")


def test_whole_images(tmp_path):
    grey = encode(np.zeros((4, 4), np.uint8), "PNG")
    deep = encode(np.zeros((4, 4), np.uint16), "PNG")
    others = [encode(np.zeros((4, 4, 3), np.uint8), name) for name in ("BMP", "TIFF", "WEBP")]
    assert len(LARGE) > 1 << 20
    for i, content in enumerate([PNG, JPEG, LARGE, grey, deep, *others, PNG + b"\0" * 100, JPEG + b"\0" * 100]):
        path = tmp_path / f"{i}.png"  # the name's extension does not matter
        path.write_bytes(content)
        assert inspect(str(path)).damage is None


@pytest.mark.parametrize(
    ("content", "damage"),
    [
        (b"", "is empty"),
        (PNG[:20], "is truncated"),
        (PNG[:-1], "is truncated"),
        (PNG[: len(PNG) // 2], "is truncated"),
        (LARGE[:-100], "is truncated"),
        (LARGE[: len(LARGE) // 2], "is truncated"),
        (JPEG[:-2], "is truncated"),
        (JPEG[: len(JPEG) // 2], "is truncated"),
        (PNG[:45] + bytes([PNG[45] ^ 1]) + PNG[46:], "is damaged"),
        (LARGE[:900_000] + bytes([LARGE[900_000] ^ 1]) + LARGE[900_001:], "is damaged"),
        (PNG[:16] + b"\0\0\0\0" + PNG[20:], "is damaged"),
        (b"<html>404</html>", "is no image"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (encode(np.zeros((40, 40, 3), np.uint8), "BMP")[:10], "is no image"),
    ],
)
def test_damage_is_named(tmp_path, content, damage):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    assert damage in inspect(str(path)).damage


def test_every_flipped_bit_of_a_small_png_is_found_or_changes_no_pixel(tmp_path):
    path, harmless = tmp_path / "a.png", 0
    pixels = np.asarray(Image.open(io.BytesIO(PNG)))
    for position in range(len(PNG)):
        path.write_bytes(PNG[:position] + bytes([PNG[position] ^ 4]) + PNG[position + 1 :])
        if inspect(str(path)).damage is None:
            harmless += 1
            np.testing.assert_array_equal(np.asarray(Image.open(path)), pixels)
    assert harmless <= 4  # the length of the last chunk, which no decoder reads


def test_many_files_are_read_once_each(tmp_path):
    for name, content in {"a": PNG, "b": PNG[:-5], "c": JPEG}.items():
        (tmp_path / name).write_bytes(content)
    paths = [str(tmp_path / name) for name in "abcd"]
    read = inspect_all(paths)
    assert {path: found.damage for path, found in read.items() if found.damage} == {
        paths[1]: "is truncated (a PNG without its end)",
        paths[3]: "cannot be read (No such file or directory)",
    }
    assert [read[path].sha256 for path in paths[:3]] == [hashlib.sha256(content).hexdigest() for content in (PNG, PNG[:-5], JPEG)]
