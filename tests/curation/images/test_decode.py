"""Half a picture, two pictures, or none: refused with the reason; a whole one is upright sRGB."""

from __future__ import annotations

import io
import platform
import random
import re
import resource
import struct
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from curation.images.decode import decode, keep_freed_memory
from curation.images.header import Unreadable
from curation.images.whole import cut_short
from curation.ingest.ingest import ingest_row
from schemas.pixels import open_picture
from schemas.reasons import ImageError
from schemas.recipe import Ingest
from tests.photos import (
    GREEN,
    HEIC,
    HTML,
    JXL,
    WHITE,
    animation,
    corners,
    encode,
    orientation_tag,
    oriented,
    photo,
    png_bomb,
    quadrants,
    swapped_primaries,
)


def refusal(data: bytes, **options: Any) -> Unreadable:
    """What the bytes are refused with."""
    with pytest.raises(Unreadable) as caught:
        decode(data, **options)
    return caught.value


def test_a_photo_of_a_phone() -> None:
    stored = oriented(photo("coffee.png"), 6)
    decoded = decode(encode(stored, "JPEG", quality=95, exif=orientation_tag(6)), longest_px=300)
    assert decoded.image.size == (300, 200)
    assert (decoded.header.width, decoded.header.height, decoded.header.exif_orientation) == (600, 400, 6)
    assert decoded.alpha is None
    reference = photo("coffee.png").resize((300, 200), Image.Resampling.LANCZOS)
    assert np.abs(np.asarray(decoded.image, int) - np.asarray(reference, int)).mean() < 4


def test_header_and_pixels_agree_on_the_size() -> None:
    for image_format in ("JPEG", "PNG", "TIFF", "WEBP", "AVIF"):
        for orientation in (1, 3, 6):
            decoded = decode(
                encode(oriented(quadrants(), orientation), image_format, exif=orientation_tag(orientation))
            )
            assert decoded.image.size == (decoded.header.width, decoded.header.height) == (64, 32), image_format


def test_alpha_is_measured_before_shrinking() -> None:
    image = quadrants(640, 320).convert("RGBA")
    image.paste((255, 0, 0, 0), (0, 0, 320, 160))
    decoded = decode(encode(image, "PNG"), longest_px=64)
    assert decoded.alpha == 0.25
    assert decoded.image.size == (64, 32)
    assert corners(decoded.image)[:2] == [WHITE, GREEN]


CUTTABLE = {
    "JPEG": encode(photo("chelsea.png"), "JPEG", quality=90),
    "progressive JPEG": encode(photo("chelsea.png"), "JPEG", quality=90, progressive=True),
    "PNG": encode(photo("chelsea.png"), "PNG"),
    "WEBP": encode(photo("chelsea.png"), "WEBP"),
    "lossless WEBP": encode(photo("chelsea.png").resize((90, 60)), "WEBP", lossless=True),
    "GIF": encode(photo("chelsea.png"), "GIF"),
    "TIFF": encode(photo("chelsea.png"), "TIFF"),
    "LZW TIFF": encode(photo("chelsea.png"), "TIFF", compression="tiff_lzw"),
    "AVIF": encode(photo("chelsea.png"), "AVIF"),
    "JPEG2000": encode(photo("chelsea.png").resize((90, 60)), "JPEG2000"),
    "BMP": encode(photo("chelsea.png"), "BMP"),
}


@pytest.mark.parametrize("name", CUTTABLE)
@pytest.mark.parametrize("kept", [0.3, 0.5, 0.9, 0.99, "all but 12 bytes", "all but 200 bytes"])
def test_a_cut_file_is_truncated(name: str, kept: float | str) -> None:
    data = CUTTABLE[name]
    end = int(len(data) * kept) if isinstance(kept, float) else len(data) - int(kept.split()[2])
    refused = refusal(data[:end])
    assert refused.reason == ImageError.TRUNCATED, refused.detail


@pytest.mark.parametrize("missing", [1, 2])
@pytest.mark.parametrize("name", ["JPEG", "progressive JPEG", "GIF", "WEBP", "TIFF", "AVIF"])
def test_the_very_last_bytes_count(name: str, missing: int) -> None:
    assert refusal(CUTTABLE[name][:-missing]).reason == ImageError.TRUNCATED


@pytest.mark.parametrize("name", CUTTABLE)
def test_a_whole_file_is_decoded(name: str) -> None:
    assert decode(CUTTABLE[name]).image.mode == "RGB"


def test_a_cut_jpeg_is_found_while_scaling() -> None:
    data = encode(photo("retina.jpg"), "JPEG")
    for kept in (0.4, 0.98):
        refused = refusal(data[: int(len(data) * kept)], longest_px=128)
        assert refused.reason == ImageError.TRUNCATED
        assert refused.header is not None
        assert refused.header.width == 1411


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "AVIF"])
def test_animations(image_format: str) -> None:
    refused = refusal(animation(image_format, 3))
    assert (refused.reason, refused.detail) == (ImageError.ANIMATED, "3 frames")
    assert refused.header is not None
    assert refused.header.format == image_format


def test_pages() -> None:
    refused = refusal(animation("TIFF", 3))
    assert (refused.reason, refused.detail) == (ImageError.ANIMATED, "3 pages")


def test_the_first_view_of_an_mpo() -> None:
    assert decode(animation("MPO", 2)).image.getpixel((10, 10)) == pytest.approx((0, 40, 200), abs=4)


def calls_of(work: Callable[[], object]) -> Counter[str]:
    """How often each Python function was called meanwhile."""
    found = Counter[str]()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            found[f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}"] += 1

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return found


@pytest.mark.parametrize(
    "image_format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF", "BMP", "JPEG2000", "PPM", "TGA"]
)
def test_the_header_of_a_file_is_opened_once(image_format: str) -> None:
    data = encode(photo("chelsea.png"), image_format)
    assert calls_of(lambda: decode(data, longest_px=100))["PIL.Image.open"] == 1


def test_the_samples_of_a_jpeg_are_searched_for_markers_once() -> None:
    """Of a progressive one a second time, for the headers of its scans."""
    data = encode(photo("chelsea.png").resize((2700, 1900)), "JPEG")  # so large that the number of its scans matters
    calls = calls_of(lambda: decode(data, longest_px=1024))
    assert calls["schemas.jpeg_segments._data_end"] == 1


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_memory_that_was_freed_is_used_again() -> None:
    keep_freed_memory()
    faults = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        pieces = [bytearray(6 << 20), bytearray(8 << 20)]
        del pieces
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    assert min(faults[1:]) < 100, faults


def test_the_first_frame_counts_where_a_later_one_is_broken() -> None:
    """Pillow moves to the broken frame while it counts them, and fills the screen around the first one otherwise."""
    frame = quadrants(32, 16).convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    frames = [frame, frame.transpose(Image.Transpose.ROTATE_180), frame]
    whole = encode(frame, "GIF", save_all=True, append_images=frames[1:], transparency=2, disposal=2)
    whole = whole[:6] + bytes([64, 0, 32, 0]) + whole[10:]  # a screen that is larger than its frames
    broken = []
    for at in range(len(whole) // 3, len(whole)):
        for level in (0, 1, 255):
            changed = whole[:at] + bytes([level]) + whole[at + 1 :]
            try:
                getattr(Image.open(io.BytesIO(changed)), "n_frames")  # noqa: B009  mypy does not know it
            except (IndexError, struct.error):
                broken.append(changed)
    pictures = [decode(data) for data in broken if cut_short(data, "GIF") is None]
    assert pictures
    expected = open_picture(whole)
    for picture in pictures:
        assert (picture.header.frames, picture.alpha) == (1, expected.see_through)
        assert picture.image.tobytes() == expected.rgb.tobytes()


def test_one_frame_is_no_animation() -> None:
    image = quadrants()
    for image_format in ("GIF", "WEBP", "PNG"):
        assert decode(encode(image, image_format, save_all=True)).header.frames == 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", ImageError.EMPTY),
        (HTML, ImageError.NOT_AN_IMAGE),
        (HEIC, ImageError.UNSUPPORTED),
        (JXL, ImageError.UNSUPPORTED),
        (png_bomb(), ImageError.TOO_MANY_PIXELS),
    ],
    ids=["empty", "html", "heic", "jxl", "bomb"],
)
def test_reasons(data: bytes, reason: ImageError) -> None:
    assert refusal(data).reason == reason


def test_a_bomb_takes_no_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refusal(png_bomb(30_000, 30_000))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_broken_data_inside_a_whole_file_is_corrupt() -> None:
    png = bytearray(CUTTABLE["PNG"])
    middle = len(png) // 2
    png[middle : middle + 200] = bytes(200)
    refused = refusal(bytes(png))
    assert refused.reason == ImageError.CORRUPT
    assert "0x" not in refused.detail


def test_a_panorama_keeps_its_shape() -> None:
    decoded = decode(encode(Image.new("RGB", (2560, 64), "navy"), "JPEG"), longest_px=640)
    assert decoded.image.size == (640, 16)
    assert (decoded.header.width, decoded.header.height) == (2560, 64)


_SMALL = photo("chelsea.png").resize((48, 32))
SEEDS = {
    "JPEG": encode(_SMALL, "JPEG", exif=orientation_tag(6), icc_profile=swapped_primaries()),
    "progressive JPEG": encode(_SMALL, "JPEG", progressive=True),
    "RGBA PNG": encode(_SMALL.convert("RGBA"), "PNG", exif=orientation_tag(3), icc_profile=swapped_primaries()),
    "palette PNG": encode(_SMALL.convert("P"), "PNG", transparency=3),
    "WEBP": encode(_SMALL, "WEBP", exif=orientation_tag(8)),
    "GIF": encode(_SMALL, "GIF"),
    "TIFF": encode(_SMALL, "TIFF", exif=orientation_tag(5)),
    "LZW TIFF": encode(_SMALL, "TIFF", compression="tiff_lzw"),
    "AVIF": encode(_SMALL, "AVIF"),
    "BMP": encode(_SMALL, "BMP"),
    "TGA": encode(_SMALL, "TGA"),
    "JPEG2000": encode(_SMALL, "JPEG2000"),
    "animated GIF": animation("GIF", 2),
    "APNG": animation("PNG", 2),
    "MPO": animation("MPO", 2),
}


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Bytes with a few flips, holes, insertions or a cut; half of them near the header."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(changed) if rng.random() < 0.5 else min(len(changed), 200))
        match rng.randrange(4):
            case 0:
                changed[at] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
            case 1:
                changed[at : at + 4] = rng.randbytes(4)
            case 2:
                del changed[at : at + rng.randrange(1, 40)]
            case _:
                changed[at:at] = rng.randbytes(rng.randrange(1, 20))
        changed = changed or bytearray(b"\x00")
    return bytes(changed[: rng.randrange(1, len(changed) + 1)] if rng.random() < 0.2 else changed)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Pillow, about the metadata of mutants
@settings(max_examples=300, deadline=5000, derandomize=True, suppress_health_check=list(HealthCheck))
@given(seed=st.sampled_from(sorted(SEEDS)), chance=st.integers(0, 2**32))
def test_a_mutated_file_is_a_picture_or_has_a_reason(tmp_path: Path, seed: str, chance: int) -> None:
    (tmp_path / "image").write_bytes(mutated(SEEDS[seed], random.Random(chance)))
    listed = dict.fromkeys(("byte_offset", "num_bytes", "sidecar", "raw_caption", "url", "license"))
    listed |= {"row_id": 5, "source": str(tmp_path), "source_name": "mutants", "member": "image"}
    proxy, image = ingest_row(listed, Ingest(proxy_px=32, max_megapixels=20))
    assert proxy["row_id"] == image["row_id"] == 5
    assert proxy["image_id"] == image["image_id"] == image["sha256"][:32]
    assert ("jpeg" in proxy) != ("reason" in image)
    if "reason" in image:
        assert image["reason"] in set(ImageError)
        assert image["detail"]
        assert not re.search(r"0x[0-9a-f]{6}", image["detail"])
        assert str(tmp_path) not in image["detail"]
