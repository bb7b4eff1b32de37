"""One image: its identity and its decoded pixels."""

import io
import os

import datasets
import numpy as np
import pytest
from PIL import Image

from medfmc_hf.errors import MedfmcError
from medfmc_hf.images.decoding import channels, decode, decodes, identity
from medfmc_hf.images.grey_range import FULL

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 9), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return {"bytes": file.getvalue(), "path": "image"}


def linked(path):
    return {"bytes": None, "path": str(path)}


def test_grey_stays_grey_and_colour_is_rgb(tmp_path):
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(GREY))), GREY)
    Image.fromarray(COLOUR).save(tmp_path / "colour.png")
    np.testing.assert_array_equal(decode(linked(tmp_path / "colour.png")), COLOUR)


def test_sixteen_bits_are_scaled_over_their_whole_range():
    values = RNG.integers(0, 65536, (6, 9)).astype(np.uint16)
    values[0, :6] = [0, 128, 129, 257, 65406, 65535]
    pixels = decode(encoded(Image.fromarray(values)), FULL)
    np.testing.assert_array_equal(pixels, np.floor(values / 257 + 0.5).astype(np.uint8))
    assert pixels[0, :6].tolist() == [0, 0, 1, 1, 254, 255]
    # an 8-bit image that was stored in 16 bits comes back as it was
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(GREY.astype(np.uint16) * 257)), FULL), GREY)


def test_thirty_two_bits_are_read_as_sixteen_or_refused():
    values = np.full((2, 3), 65535, np.int32)
    assert (decode(encoded(Image.fromarray(values), "TIFF"), FULL) == 255).all()
    values[0, 0] = 70000
    with pytest.raises(MedfmcError, match="70000"):
        decode(encoded(Image.fromarray(values), "TIFF"), FULL)
    with pytest.raises(MedfmcError, match="'F'"):
        decode(encoded(Image.fromarray(np.zeros((2, 3), np.float32)), "TIFF"))


def test_alpha_is_dropped():
    alpha = RNG.integers(0, 256, (6, 9, 1), dtype=np.uint8)
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(np.concatenate([COLOUR, alpha], 2)))), COLOUR)
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(np.concatenate([GREY[..., None], alpha], 2)))), GREY)


def test_palettes_and_two_levels():
    palette = Image.fromarray(COLOUR).quantize(16)
    np.testing.assert_array_equal(decode(encoded(palette)), np.array(palette.convert("RGB")))
    np.testing.assert_array_equal(decode(encoded(palette, transparency=3)), np.array(palette.convert("RGB")))
    bits = Image.fromarray(GREY > 127)
    assert bits.mode == "1"
    np.testing.assert_array_equal(decode(encoded(bits)), np.where(GREY > 127, 255, 0))


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
def test_print_and_video_colours_become_rgb(mode):
    source = encoded(Image.fromarray(COLOUR).convert(mode), "JPEG", quality=95)
    np.testing.assert_array_equal(decode(source), np.array(Image.open(io.BytesIO(source["bytes"])).convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_upright_as_datasets_has_them(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    source = encoded(Image.fromarray(COLOUR), "JPEG", exif=exif)
    theirs = datasets.Image().decode_example(source)
    np.testing.assert_array_equal(decode(source), np.array(theirs))
    assert decode(source).shape == ((6, 9, 3) if orientation < 5 else (9, 6, 3))


def test_the_counter_counts_what_was_decoded():
    decodes.reset()
    for _ in range(3):
        decode(encoded(Image.fromarray(GREY)))
    with pytest.raises(MedfmcError):
        decode({"bytes": b"nothing", "path": "x"})
    assert decodes.count == 3


def test_a_broken_file_is_named(tmp_path):
    path = tmp_path / "an image.png"
    noise = RNG.integers(0, 256, (200, 200), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(MedfmcError, match=r"an image\.png is cut off"):
        decode(linked(path))
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(MedfmcError, match=r"an image\.png is a web page"):
        decode(linked(path))
    path.write_bytes(b"")
    with pytest.raises(MedfmcError, match=r"an image\.png is empty"):
        decode(linked(path))
    path.unlink()
    with pytest.raises(MedfmcError, match=r"an image\.png is not there"):
        decode(linked(path))
    with pytest.raises(MedfmcError, match=r"an image\.png is not there.*medfmc build"):
        identity(linked(path))
    with pytest.raises(MedfmcError, match="neither"):
        identity({"bytes": None, "path": None})


def test_channels_are_known_from_the_header(tmp_path):
    for image, expected in ((Image.fromarray(GREY), 1), (Image.fromarray(COLOUR), 3), (Image.fromarray(GREY.astype(np.uint16)), 1)):
        assert channels(encoded(image)) == expected
        assert (1 if decode(encoded(image), FULL).ndim == 2 else 3) == expected
    assert channels({"bytes": b"nothing", "path": None}) == 3


def test_a_linked_image_is_its_path_size_and_time(tmp_path, monkeypatch):
    path = tmp_path / "one.png"
    Image.fromarray(GREY).save(path)
    first = identity(linked(path))
    assert len(first) == 16
    monkeypatch.chdir(tmp_path)
    assert identity(linked("one.png")) == first
    Image.fromarray(GREY).save(tmp_path / "two.png")
    assert identity(linked(tmp_path / "two.png")) != first
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert identity(linked(path)) != first


def test_an_embedded_image_is_its_bytes():
    grey, colour = encoded(Image.fromarray(GREY)), encoded(Image.fromarray(COLOUR))
    assert identity(grey) == identity({**grey, "path": "elsewhere"})
    assert identity(grey) != identity(colour)
    changed = bytearray(grey["bytes"])
    changed[len(changed) // 2] ^= 1
    assert identity({**grey, "bytes": bytes(changed)}) != identity(grey)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_turned_alike_from_a_path_and_from_bytes(dtype, orientation, tmp_path):
    values = RNG.integers(0, 255, (6, 9)).astype(dtype)
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / "one.tiff"
    Image.fromarray(values).save(path, exif=exif)
    embedded = decode({"bytes": path.read_bytes(), "path": None}, FULL)
    assert embedded.shape == ((6, 9) if orientation < 5 else (9, 6))
    np.testing.assert_array_equal(decode(linked(path), FULL), embedded)
