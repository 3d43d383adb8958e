"""The strict decoder gives Pillow's pixels, and names what is missing where Pillow fills it in."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from schemas.pixels import PixelError, draft, exif_orientation, open_picture, open_rgb
from schemas.whole_jpeg import EndsEarly, decode_whole
from tests.photos import animation, encode, orientation_tag, photo, swapped_primaries

PHOTO = photo("chelsea.png")


def opened(data: bytes, longest_px: int | None = None) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    draft(image, longest_px, None)
    return image


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("longest_px", [None, 200, 100, 30])
@pytest.mark.parametrize(
    "options",
    [{"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"subsampling": 2, "progressive": True}],
    ids=["4:4:4", "4:2:2", "4:2:0", "progressive"],
)
def test_pixels_are_those_of_pillow(mode: str, longest_px: int | None, options: dict[str, Any]) -> None:
    if mode == "CMYK":
        options = options | {"subsampling": 0}  # it knows no other
    data = encode(PHOTO.convert(mode), "JPEG", **options)
    ours = decode_whole(opened(data, longest_px), data)
    assert ours is not None
    assert ours.mode == mode
    assert np.array_equal(np.asarray(ours), np.asarray(opened(data, longest_px)))


def test_metadata_comes_along() -> None:
    data = encode(PHOTO, "JPEG", exif=orientation_tag(6), icc_profile=swapped_primaries())
    loaded = decode_whole(opened(data), data)
    assert loaded is not None
    assert (exif_orientation(loaded), loaded.info["icc_profile"]) == (6, swapped_primaries())
    strict, lenient = open_picture(data, 120, whole=True).rgb, open_picture(data, 120).rgb
    assert np.array_equal(np.asarray(strict), np.asarray(lenient))


def test_of_a_phone_picture_the_first_view_counts() -> None:
    data = animation("MPO", 2, (640, 320))
    assert np.array_equal(np.asarray(open_picture(data, 100, whole=True).rgb), np.asarray(open_rgb(data, 100)))


@pytest.mark.parametrize("end", [b"", b"\xff\xd9"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_missing_end_is_named(end: bytes, progressive: bool) -> None:
    data = encode(PHOTO, "JPEG", progressive=progressive)
    cut = data[: len(data) // 2] + end
    what = "its data ends before its last block" if end else "the file ends before its end marker"
    with pytest.raises(EndsEarly, match=what):
        decode_whole(opened(cut), cut)
    with pytest.raises(PixelError, match=what):
        open_picture(cut, whole=True)


def test_what_it_does_not_know_is_left_to_pillow() -> None:
    data = encode(PHOTO.convert("CMYK"), "JPEG", subsampling=2)
    assert decode_whole(opened(data), data) is None
    assert open_picture(data, whole=True).rgb.tobytes() == open_rgb(data).tobytes()


def test_bytes_before_the_end_marker_are_no_missing_end() -> None:
    data = encode(PHOTO, "JPEG")
    with_junk = data[:-2] + b"junk" + data[-2:]
    assert open_picture(with_junk, whole=True).rgb.tobytes() == open_rgb(data).tobytes()
