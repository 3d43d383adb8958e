from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image

from curation.decode import decode
from curation.jpeg_scan import has_flat_corner, missing_blocks
from curation.probe import Unreadable
from schemas.reasons import ImageError
from tests.photos import encode, orientation_tag, oriented, photo

END = b"\xff\xd9"
PHOTO = photo("chelsea.png")
KINDS: dict[str, dict[str, Any]] = {
    "4:4:4": {"subsampling": 0},
    "4:2:0": {"subsampling": 2},
    "restart markers": {"restart_marker_blocks": 5},
    "optimised tables": {"optimize": True},
    "low quality": {"quality": 20},
}


def jpeg(mode: str = "RGB", **options: Any) -> bytes:
    return encode(PHOTO.convert(mode), "JPEG", **{"quality": 90, **options})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9, 0.97])
@pytest.mark.parametrize("longest_px", [None, 120])
def test_half_a_jpeg_with_an_end_marker_is_truncated(kind: str, kept: float, longest_px: int | None) -> None:
    """Pillow takes it: what is missing is flat."""
    data = jpeg(**KINDS[kind])
    forged = data[: int(len(data) * kept)] + END
    Image.open(io.BytesIO(forged)).load()
    with pytest.raises(Unreadable) as caught:
        decode(forged, longest_px=longest_px)
    assert (caught.value.reason, caught.value.detail) == (
        ImageError.TRUNCATED,
        "JPEG: its data ends before its last block",
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_on_its_side_too(orientation: int) -> None:
    data = encode(oriented(PHOTO, orientation), "JPEG", quality=90, exif=orientation_tag(orientation))
    with pytest.raises(Unreadable):
        decode(data[: len(data) * 4 // 5] + END)
    decode(data)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_whole_one_is_not(kind: str, mode: str) -> None:
    assert missing_blocks(jpeg(mode, **KINDS[kind])) is None


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (17, 9), (3000, 40)])
@pytest.mark.parametrize("colour", ["white", "black", "navy"])
def test_a_plain_picture_is_whole(size: tuple[int, int], colour: str) -> None:
    data = encode(Image.new("RGB", size, colour), "JPEG")
    assert has_flat_corner(Image.new("RGB", size, colour))
    assert missing_blocks(data) is None
    assert decode(data).image.size == size


@pytest.mark.parametrize("behind", [b"\x00" * 100, b"\n", b"junk behind the end", END])
def test_what_lies_behind_the_end_does_no_harm(behind: bytes) -> None:
    assert missing_blocks(jpeg() + behind) is None


def test_progressive_files_are_not_judged() -> None:
    data = jpeg(progressive=True)
    assert missing_blocks(data) is missing_blocks(data[: len(data) // 2] + END) is None


def test_photographs_rarely_have_a_flat_corner() -> None:
    assert not has_flat_corner(PHOTO)
    assert has_flat_corner(Image.new("RGB", (1, 1)))
