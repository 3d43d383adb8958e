"""Smaller copies and masks in a TIFF are no pages, wherever they are; the page is the picture."""

from __future__ import annotations

import io
import struct

import pytest
from PIL import Image, TiffImagePlugin

from curation.images.decode import decode
from curation.images.header import Unreadable, read_header
from schemas import tiff
from schemas.pixels import open_rgb
from schemas.reasons import ImageError
from tests.photos import BLUE, GREEN, RED, WHITE, corners, encode, quadrants

FULL, REDUCED, PAGE, MASK = 0, 1, 2, 4


def tiff_of(*pictures: tuple[Image.Image, int], old: bool = False, big: bool = False) -> bytes:
    """A TIFF of pictures with their kind."""
    buffer = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(buffer, new=True) as writer:
        for image, kind in pictures:
            tags = TiffImagePlugin.ImageFileDirectory_v2()
            tags[254] = kind
            image.save(writer, "TIFF", tiffinfo=tags, compression="tiff_lzw", big_tiff=big)
            writer.newFrame()
    tag, old_tag = (struct.pack("<HHI", number, 4, 1) for number in (254, 255))
    return buffer.getvalue().replace(tag, old_tag) if old else buffer.getvalue()


PICTURE, SMALL, TWIN = quadrants(), quadrants(32, 16), quadrants(64, 32).transpose(Image.Transpose.ROTATE_180)
MASKED = Image.new("1", (64, 32), 1)


@pytest.mark.parametrize(
    "others",
    [[(SMALL, REDUCED)], [(MASKED, MASK)], [(SMALL, REDUCED), (SMALL, REDUCED), (MASKED, MASK | REDUCED)]],
)
@pytest.mark.parametrize("big", [False, True])
def test_copies_and_masks_are_no_pages(others: list[tuple[Image.Image, int]], big: bool) -> None:
    data = tiff_of((PICTURE, FULL), *others, big=big)
    assert read_header(data).frames == 1
    assert decode(data).image.tobytes() == PICTURE.tobytes()


@pytest.mark.parametrize("kind", [FULL, PAGE])
def test_two_pages_are_two_pages(kind: int) -> None:
    with pytest.raises(Unreadable) as caught:
        decode(tiff_of((PICTURE, kind), (SMALL, REDUCED), (TWIN, kind)))
    assert (caught.value.reason, caught.value.detail) == (ImageError.ANIMATED, "2 pages")


@pytest.mark.parametrize("old", [False, True])
def test_the_page_is_the_picture_where_its_thumbnail_comes_first(old: bool) -> None:
    data = tiff_of((SMALL, 2 if old else REDUCED), (PICTURE, 1 if old else FULL), old=old)
    decoded = decode(data)
    assert (decoded.header.width, decoded.header.height, decoded.header.frames) == (64, 32, 1)
    assert corners(decoded.image) == [RED, GREEN, BLUE, WHITE]
    assert open_rgb(data).tobytes() == decoded.image.tobytes()


def test_a_lone_picture_counts_whatever_it_says_it_is() -> None:
    assert decode(tiff_of((PICTURE, REDUCED))).image.size == (64, 32)


def test_directories_without_end_are_counted_no_further() -> None:
    directory = struct.pack("<HHHIHHI", 1, 254, 3, 1, 0, 0, 0)
    chain = b"".join(directory[:-4] + struct.pack("<I", 8 + 18 * (number + 1)) for number in range(5000))
    data = b"II*\0" + struct.pack("<I", 8) + chain
    assert tiff.num_pages(data) == tiff.MOST_DIRECTORIES


def test_a_tiff_without_kinds_is_one_page() -> None:
    data = encode(PICTURE, "TIFF")
    assert (tiff.num_pages(data), tiff.first_page(data)) == (1, 0)
