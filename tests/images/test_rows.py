"""The undecoded images of a dataset's rows."""

import threading

import pytest
from patience import PATIENCE
from PIL import Image
from stored_images import embedded, rows_of

from medfmc_hf.images.decoding import identity
from medfmc_hf.images.rows import ImageRows, in_order, threads


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


def test_more_embedded_images_than_are_in_memory_at_once_are_known_in_order(folder):
    """They are read a slice at a time."""
    rows = embedded(rows_of(folder, [*range(40)] * 4))
    images = ImageRows(rows)
    assert len(images) == 160 and len(set(images.identities)) == 40
    for row in (0, 39, 63, 64, 127, 128, 159):
        content = (folder / f"{row % 40:02d}.png").read_bytes()
        assert images.source(row)["bytes"] == content
        assert images.identities[row] == identity({"bytes": content, "path": None})
    assert list(images.distinct().values()) == list(range(40))


def test_results_come_in_order_though_later_ones_are_ready_first():
    ready = threading.Event()

    def work(number):
        if number == 0:
            assert ready.wait(PATIENCE)
        if number == 1:
            ready.set()
        return 10 * number

    assert list(in_order(work, range(100))) == [10 * number for number in range(100)]


def test_few_images_are_ahead_of_the_reader_and_none_begins_when_it_stops():
    numbers, begun = iter(range(1000)), []
    results = in_order(begun.append, numbers)
    next(results)
    results.close()
    assert next(numbers) == 2 * threads(), "the first that nobody took"
    assert 1 <= len(begun) <= 2 * threads()


def test_an_error_comes_where_its_result_would():
    results = in_order(lambda number: 1 / number, [1, 2, 0, 4])
    assert [next(results), next(results)] == [1, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(results)
