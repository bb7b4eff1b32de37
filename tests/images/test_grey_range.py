"""One range of grey values a data set: what it is taken from, and what it makes of values."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medfmc_hf.errors import MedfmcError
from medfmc_hf.images.decoding import decode, identity
from medfmc_hf.images.grey_range import FULL, GreyRange, common_range, depth_of, grey_range_of, of_bits


def png(values, significant_bits: int | None = None) -> bytes:
    """A 16-bit grey PNG, with what it says of its significant bits."""
    file = io.BytesIO()
    Image.fromarray(np.asarray(values, np.uint16)).save(file, "PNG")
    content = file.getvalue()
    if significant_bits is None:
        return content
    chunk = b"sBIT" + bytes([significant_bits])
    return content[:33] + struct.pack(">I", 1) + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[33:]


def depth(values, significant_bits: int | None = None, window=None):
    content = png(values, significant_bits)
    with Image.open(io.BytesIO(content)) as image:
        return depth_of(image, content, window)


@given(st.integers(0, 65534), st.integers(1, 65535), st.integers(0, 65535))
def test_values_are_scaled_as_the_formula_says(low, span, value):
    grey = GreyRange(low, min(low + span, 65535), window=True)
    found = int(grey.eight_bits(np.array([[value]]), "x")[0, 0])
    share = min(max((value - grey.low) / (grey.high - grey.low), 0), 1)
    assert abs(found - 255 * share) <= 0.5 + 1e-9


@pytest.mark.parametrize(("most", "bits"), [(5, 10), (1023, 10), (1024, 12), (4095, 12), (4096, 14), (16383, 14), (16384, 16), (65535, 16)])
def test_the_fewest_bits_that_hold_every_value(most, bits):
    assert common_range([depth([[0, 3]]), depth([[0, most]])]) == of_bits(bits)


def test_what_every_png_says_goes_before_what_values_need():
    assert common_range([depth([[900]], 12), depth([[5]], 12)]) == of_bits(12)
    assert common_range([depth([[900]], 12), depth([[5]], 11)]) == of_bits(10)
    assert common_range([depth([[900]], 12), depth([[5]])]) == of_bits(10)
    assert common_range([depth([[65520]], 12), depth([[16]], 12)]) == FULL, "stretched to 16 bits, as PNG asks"


def test_levels_are_those_of_each_range():
    found = depth([np.arange(4096)]).levels
    assert found == {of_bits(12): 256, of_bits(14): 65, of_bits(16): 17}
    window = GreyRange(1000, 2000, window=True)
    assert depth([np.arange(4096)], window=window).levels == {window: 256}


def test_values_outside_are_an_error_and_a_window_clips_them():
    values = np.array([[0, 4095], [4096, 100]])
    with pytest.raises(MedfmcError, match="4096, and those of its data set go from 0 to 4095"):
        of_bits(12).eight_bits(values, "one.png")
    assert GreyRange(100, 4095, window=True).eight_bits(values, "").tolist() == [[0, 255], [255, 0]]


def test_a_deep_image_needs_a_range_and_is_another_image_by_another():
    source = {"bytes": png(np.arange(12).reshape(3, 4) * 300), "path": "x.png"}
    with pytest.raises(MedfmcError, match="more than 8 bits"):
        decode(source)
    assert decode(source, of_bits(12))[0].tolist() == [0, 19, 37, 56]
    assert identity(source) == identity(source, FULL) != identity(source, of_bits(12)) != identity(source, of_bits(14))


def test_colours_of_sixteen_bits_are_refused():
    raw = b"".join(b"\0" + struct.pack(">6H", *([4095, 17, 300] * 2)) for _ in range(2))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    with pytest.raises(MedfmcError, match="colours of 16 bits"):
        decode({"bytes": content, "path": "x.png"}, FULL)


def test_ranges_travel_as_json():
    assert grey_range_of(None) is None and grey_range_of(GreyRange(3, 9, window=True).to_dict()) == GreyRange(3, 9, window=True)
    with pytest.raises(MedfmcError, match="from a value to a higher one"):
        GreyRange(9, 9)


@pytest.mark.parametrize("bits", [9, 11, 13, 15])
def test_bits_that_no_scanner_has_are_believed(bits):
    depths = [depth([[0, 5]], bits), depth([[0, (1 << bits) - 1]], bits)]
    assert common_range(depths) == of_bits(bits) and all(common_range(depths) in each.levels for each in depths)


def test_deep_tiffs_with_white_as_zero_are_refused():
    file = io.BytesIO()
    Image.fromarray(np.array([[0, 4095]], np.uint16)).save(file, "TIFF", tiffinfo={262: 0})
    with pytest.raises(MedfmcError, match="0 is white"):
        decode({"bytes": file.getvalue(), "path": "x.tif"}, of_bits(12))
