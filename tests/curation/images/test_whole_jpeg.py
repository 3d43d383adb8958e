"""A JPEG that was cut and given an end marker is found, wherever it was cut; a whole one of any make is not."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

from curation.images.decode import decode
from curation.images.header import Unreadable
from curation.images.whole_jpeg import EndsEarly, decode_whole, missing_scans
from schemas.jpeg_segments import SCAN, segments
from schemas.pixels import draft, open_rgb
from schemas.reasons import ImageError
from tests.photos import animation, encode, orientation_tag, oriented, photo, swapped_primaries

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
def test_the_strict_decoder_gives_pillows_pixels(mode: str, longest_px: int | None, options: dict[str, Any]) -> None:
    if mode == "CMYK":
        options = options | {"subsampling": 0}  # the strict decoder knows no other
    data = encode(PHOTO.convert(mode), "JPEG", **options)
    ours = decode_whole(opened(data, longest_px), data)
    assert ours is not None
    assert ours.mode == mode
    assert np.array_equal(np.asarray(ours), np.asarray(opened(data, longest_px)))


def test_the_metadata_is_kept() -> None:
    data = encode(PHOTO, "JPEG", exif=orientation_tag(6), icc_profile=swapped_primaries())
    loaded = decode_whole(opened(data), data)
    assert loaded is not None
    assert (loaded.getexif()[0x0112], loaded.info["icc_profile"]) == (6, swapped_primaries())
    strict, lenient = decode(data, longest_px=120).image, open_rgb(data, 120)
    assert np.array_equal(np.asarray(strict), np.asarray(lenient))


def test_the_first_view_of_an_mpo_is_decoded() -> None:
    data = animation("MPO", 2, (640, 320))
    assert np.array_equal(np.asarray(decode(data, longest_px=100).image), np.asarray(open_rgb(data, 100)))


@pytest.mark.parametrize("end", [b"", b"\xff\xd9"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_missing_end_is_named(end: bytes, progressive: bool) -> None:
    data = encode(PHOTO, "JPEG", progressive=progressive)
    cut = data[: len(data) // 2] + end
    what = "its data ends before its last block" if end else "the file ends before its end marker"
    with pytest.raises(EndsEarly, match=what):
        decode_whole(opened(cut), cut)
    with pytest.raises(Unreadable) as caught:
        decode(cut)
    assert (caught.value.reason, caught.value.detail) == (ImageError.TRUNCATED, f"JPEG: {what}")


def test_pillow_decodes_the_layouts_that_the_strict_decoder_does_not_know() -> None:
    data = encode(PHOTO.convert("CMYK"), "JPEG", subsampling=2)
    assert decode_whole(opened(data), data) is None
    assert decode(data).image.tobytes() == open_rgb(data).tobytes()


def test_bytes_before_the_end_marker_are_no_missing_end() -> None:
    data = encode(PHOTO, "JPEG")
    with_junk = data[:-2] + b"junk" + data[-2:]
    assert decode(with_junk).image.tobytes() == open_rgb(data).tobytes()


END = b"\xff\xd9"
KINDS: dict[str, dict[str, Any]] = {
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2},
    "restart markers": {"restart_marker_blocks": 5},
    "optimised tables": {"optimize": True},
    "low quality": {"quality": 20},
    "progressive 4:4:4": {"subsampling": 0, "progressive": True},
    "progressive 4:2:2": {"subsampling": 1, "progressive": True},
    "progressive 4:2:0": {"subsampling": 2, "progressive": True},
    "progressive with restart markers": {"restart_marker_blocks": 5, "progressive": True},
    "progressive of low quality": {"quality": 20, "progressive": True},
}
PROGRESSIVE = [kind for kind in KINDS if "progressive" in kind]


def jpeg(mode: str = "RGB", **options: Any) -> bytes:
    return encode(PHOTO.convert(mode), "JPEG", **{"quality": 90, **options})


def scan_starts(data: bytes) -> list[int]:
    """Where each scan begins, the tables before it included."""
    tables = r"(?:\xff\xc4..(?s:.{0,500}?))*"
    starts = re.finditer(f"{tables}\\xff\\xda\x00.[\x01-\x04]".encode("latin-1"), data, re.DOTALL)
    return [match.start() for match in starts]


def refusal(data: bytes, longest_px: int | None = None) -> tuple[ImageError, str]:
    with pytest.raises(Unreadable) as caught:
        decode(data, longest_px=longest_px)
    return ImageError(caught.value.reason), caught.value.detail


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9, 0.97])
@pytest.mark.parametrize("longest_px", [None, 120])
def test_half_a_jpeg_with_an_end_marker_is_truncated(kind: str, kept: float, longest_px: int | None) -> None:
    """Pillow takes it: what is missing is flat, or coarse."""
    data = jpeg(**KINDS[kind])
    forged = data[: int(len(data) * kept)] + END
    Image.open(io.BytesIO(forged)).load()
    assert refusal(forged, longest_px) == (ImageError.TRUNCATED, "JPEG: its data ends before its last block")


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_half_a_jpeg_is_truncated_in_every_colour_space(mode: str, progressive: bool) -> None:
    data = jpeg(mode, progressive=progressive)
    reason, detail = refusal(data[: len(data) * 2 // 3] + END)
    assert (reason, detail) == (ImageError.TRUNCATED, "JPEG: its data ends before its last block")


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_half_a_jpeg_of_subsampled_inks_is_truncated(kept: float) -> None:
    data = jpeg("CMYK", subsampling=2)
    assert decode(data).image.size == PHOTO.size
    forged = data[: int(len(data) * kept)] + END
    assert refusal(forged) == (ImageError.TRUNCATED, "JPEG: its data ends before its last block")


@pytest.mark.parametrize("kind", PROGRESSIVE)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_progressive_file_cut_between_two_scans_is_truncated(kind: str, mode: str) -> None:
    """No decoder has anything to say of it: all that is there is whole."""
    data = jpeg(mode, **KINDS[kind])
    starts = scan_starts(data)
    assert len(starts) >= 6
    for start in starts[1:]:
        forged = data[:start] + END
        Image.open(io.BytesIO(forged)).load()
        reason, detail = refusal(forged)
        assert reason == ImageError.TRUNCATED
        assert re.fullmatch(r"JPEG: its last scans are missing: \d+ of \d+ frequencies are unfinished", detail), detail


def test_a_sequential_file_without_its_last_component_is_truncated() -> None:
    scans = b"".join(
        b"\xff\xda\x00\x08\x01" + bytes([component, 0, 0, 63, 0]) + b"\x12\x34\xff\x00\x56" for component in (1, 2, 3)
    )
    frame = b"\xff\xd8\xff\xc0\x00\x11\x08\x00\x08\x00\x08\x03\x01\x11\x00\x02\x11\x00\x03\x11\x00"
    assert missing_scans(frame + scans + END) is None
    two = scans[: len(scans) * 2 // 3]
    assert missing_scans(frame + two + END) == "its last scans are missing: 64 of 192 frequencies are unfinished"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_cut_is_found_in_every_orientation(orientation: int) -> None:
    data = encode(oriented(PHOTO, orientation), "JPEG", quality=90, exif=orientation_tag(orientation))
    with pytest.raises(Unreadable):
        decode(data[: len(data) * 4 // 5] + END)
    decode(data)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_whole_jpeg_is_decoded(kind: str, mode: str) -> None:
    data = jpeg(mode, **KINDS[kind])
    assert missing_scans(data) is None
    assert decode(data, longest_px=120).image.width == 120


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (17, 9), (3000, 40)])
@pytest.mark.parametrize("colour", ["white", "black", "navy"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_plain_picture_is_whole(size: tuple[int, int], colour: str, progressive: bool) -> None:
    data = encode(Image.new("RGB", size, colour), "JPEG", progressive=progressive)
    assert decode(data).image.size == size


@pytest.mark.parametrize("behind", [b"\x00" * 100, b"\n", b"junk behind the end", END])
@pytest.mark.parametrize("progressive", [False, True])
def test_bytes_behind_the_end_marker_do_no_harm(behind: bytes, progressive: bool) -> None:
    assert decode(jpeg(progressive=progressive) + behind).image.size == PHOTO.size


@pytest.mark.parametrize("between", [b"\x00" * 4, b"junk"])
@pytest.mark.parametrize("progressive", [False, True])
def test_bytes_before_the_end_marker_do_no_harm(between: bytes, progressive: bool) -> None:
    data = jpeg(progressive=progressive)
    assert decode(data[:-2] + between + END).image.tobytes() == decode(data).image.tobytes()


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xda\x00\x02", b"\xff\xd8\xff\xc2\x00\x02\xff\xd9"])
def test_bytes_that_are_no_jpeg_have_no_missing_scans(data: bytes) -> None:
    assert missing_scans(data) is None


def scans(data: bytes) -> list[tuple[int, int]]:
    """(first byte, first byte behind) of the data of each scan."""
    return [(segment.end, segment.data_end) for segment in segments(data) if segment.marker == SCAN]


def without_a_code(data: bytes, number: int) -> bytes:
    """Ones in the middle of a scan: the longest code of a Huffman table is never all ones (T.81, C)."""
    begin, end = scans(data)[number]
    middle = (begin + end) // 2
    return data[:middle] + b"\xff\x00" * 4 + data[middle + 8 :]


def without_a_restart(data: bytes) -> bytes:
    """Restart marker 2 of the first scan has another number."""
    return data.replace(b"\xff\xd2", b"\xff\xd5", 1)


def with_all_gaps(data: bytes, between: bytes) -> bytes:
    """Bytes between each two segments behind the frame header."""
    starts = [segment.start for segment in segments(data)]
    frame = next(segment.end for segment in segments(data) if segment.marker in (0xC0, 0xC2))
    for start in reversed([start for start in starts if start >= frame]):
        data = data[:start] + between + data[start:]
    return data


@pytest.mark.parametrize("scan", [1, 5, -1])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("longest_px", [None, 60])
def test_a_code_that_no_table_has_is_damage(scan: int, mode: str, longest_px: int | None) -> None:
    data = jpeg(mode, progressive=True)
    damaged = without_a_code(data, scan)
    Image.open(io.BytesIO(damaged)).load()
    reason, detail = refusal(damaged, longest_px)
    assert reason in (ImageError.CORRUPT, ImageError.TRUNCATED)
    assert detail.startswith(("JPEG: its data is damaged: ", "JPEG: its data ends before"))


@pytest.mark.parametrize("progressive", [False, True])
def test_a_lost_restart_marker_is_damage(progressive: bool) -> None:
    damaged = without_a_restart(jpeg(restart_marker_blocks=5, progressive=progressive))
    Image.open(io.BytesIO(damaged)).load()
    reason, detail = refusal(damaged)
    assert (reason, detail[:27]) == (ImageError.CORRUPT, "JPEG: its data is damaged: ")


def test_the_rest_of_a_scan_that_was_misread_is_damage() -> None:
    data = jpeg(progressive=True)
    begin, end = scans(data)[0]
    longer = data[:end] + data[begin + 40 : begin + 140].replace(b"\xff", b"\x7f") + data[end:]
    reason, detail = refusal(longer)
    assert reason == ImageError.CORRUPT
    assert re.fullmatch(r"JPEG: its data is damaged: \d+ extraneous bytes before marker 0xc4", detail)


@pytest.mark.parametrize("between", [b"\x00", b"\x00" * 50, b"abc", b"written by a scanner"])
@pytest.mark.parametrize("kind", ["4:2:0", "progressive 4:2:0", "restart markers"])
def test_bytes_between_segments_do_no_harm(between: bytes, kind: str) -> None:
    data = jpeg(**KINDS[kind])
    assert decode(with_all_gaps(data, between)).image.tobytes() == decode(data).image.tobytes()


@pytest.mark.parametrize("kind", ["4:2:0", "progressive 4:2:0"])
def test_harmless_bytes_do_not_hide_damage_behind_them(kind: str) -> None:
    data = with_all_gaps(jpeg(**KINDS[kind]), b"abc")
    begin, end = scans(data)[0]
    middle = (begin + end) // 2
    assert refusal(data[:middle] + data[middle + 200 : end] + b"abc" + END)[0] == ImageError.TRUNCATED
    damaged = without_a_restart(with_all_gaps(jpeg(restart_marker_blocks=5, **KINDS[kind]), b"abc"))
    assert refusal(damaged)[0] == ImageError.CORRUPT


def test_a_truncated_file_is_not_saved_by_bytes_between_segments() -> None:
    data = jpeg(progressive=True)
    start = scan_starts(data)[4]
    assert refusal(with_all_gaps(data[:start] + END, b"abc"))[0] == ImageError.TRUNCATED


def test_what_no_pixel_depends_on_is_no_damage() -> None:
    """A revision of JFIF, a colour transform, a torn profile, band limits that a sequential scan ignores."""
    data = jpeg()
    whole = decode(data).image.tobytes()
    scan = data.index(b"\xff\xda")
    at = scan + 2 + int.from_bytes(data[scan + 2 : scan + 4], "big")
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x07"
    torn = b"\xff\xe2\x00\x14ICC_PROFILE\x00\x02\x01abcd"
    for harmless in (
        data.replace(b"JFIF\x00\x01", b"JFIF\x00\x03"),
        data[:20] + adobe + data[20:],
        data[:20] + torn + data[20:],
        data[: at - 3] + b"\x00\x00\x00" + data[at:],
    ):
        assert decode(harmless).image.tobytes() == whole


@pytest.mark.parametrize("longest_px", [None, 64])
@pytest.mark.parametrize("subsampling", [1, 2])
def test_a_hole_in_subsampled_inks_is_truncated(subsampling: int, longest_px: int | None) -> None:
    """The blocks behind it move up, and the last ones are missing; a small picture of the whole does not show it."""
    data = jpeg("CMYK", subsampling=subsampling)
    middle = len(data) // 2
    assert refusal(data[:middle] + data[middle + 400 :], longest_px)[0] == ImageError.TRUNCATED
    assert decode(data, longest_px=longest_px).image.mode == "RGB"


def test_a_lost_restart_marker_in_subsampled_inks_is_found() -> None:
    data = jpeg("CMYK", subsampling=2, restart_marker_blocks=5)
    assert decode(data).image.size == PHOTO.size
    assert refusal(without_a_restart(data))[0] == ImageError.CORRUPT
    assert refusal(without_a_restart(of_two_tables(data))) == (
        ImageError.TRUNCATED,
        "JPEG: one of its restart markers is lost",
    )


def of_two_tables(data: bytes) -> bytes:
    """The same JPEG, whose second ink has Huffman tables of its own; they are copies."""
    tables = [data[s.start : s.end] for s in segments(data) if s.marker == 0xC4]
    copies = b"".join(table[:4] + bytes([table[4] | 1]) + table[5:] for table in tables)
    scan = data.index(b"\xff\xda")
    return data[:scan] + copies + data[scan : scan + 8] + b"\x11" + data[scan + 9 :]


def test_inks_of_two_tables_are_checked_for_their_end() -> None:
    data = of_two_tables(jpeg("CMYK", subsampling=2))
    assert decode(data).image.tobytes() == decode(jpeg("CMYK", subsampling=2)).image.tobytes()
    assert refusal(data[: len(data) // 2] + END) == (ImageError.TRUNCATED, "JPEG: its data ends before its last block")
