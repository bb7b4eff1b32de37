"""The rows of a dataset as images that are not decoded."""

from PIL import Image
from stored_images import rows_of

from medfmc_hf.images.rows import ImageRows


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
