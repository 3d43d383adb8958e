"""Pictures and files that tests share: real photographs, exact patterns, colour profiles, and files gone bad."""

from __future__ import annotations

import io
import struct
import zlib
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageCms

from curation.ingest.tar_groups import rows_of
from curation.sources import list_source
from schemas.recipe import FolderSource
from schemas.tables import schema_of

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


@lru_cache(maxsize=32)
def photo(name: str) -> Image.Image:
    """A photograph of the scikit-image wheel, by file name, as RGB."""
    with (files("skimage") / "data" / name).open("rb") as file:
        return Image.open(file).convert("RGB")


def encode(image: Image.Image, image_format: str, **options: Any) -> bytes:
    """A picture as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def quadrants(width: int = 64, height: int = 32) -> Image.Image:
    """Red, green on top; blue, white below: no two orientations look the same."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[: height // 2, : width // 2] = RED
    pixels[: height // 2, width // 2 :] = GREEN
    pixels[height // 2 :, : width // 2] = BLUE
    pixels[height // 2 :, width // 2 :] = WHITE
    return Image.fromarray(pixels)


def corners(image: Image.Image, inset: int = 3) -> list[Any]:
    """Pixels near the top left, top right, bottom left and bottom right corner."""
    right, bottom = image.width - 1 - inset, image.height - 1 - inset
    return [image.getpixel(at) for at in ((inset, inset), (right, inset), (inset, bottom), (right, bottom))]


def oriented(upright: Image.Image, orientation: int) -> Image.Image:
    """The picture as a camera stores it that writes this EXIF orientation.

    Straight from the definition (TIFF 6.0, tag 274): which visual side the stored row 0 and column 0 are.
    """
    row_side, column_side = {
        1: ("top", "left"),
        2: ("top", "right"),
        3: ("bottom", "right"),
        4: ("bottom", "left"),
        5: ("left", "top"),
        6: ("right", "top"),
        7: ("right", "bottom"),
        8: ("left", "bottom"),
    }[orientation]
    pixels = np.asarray(upright)
    pixels = pixels[::-1] if "bottom" in (row_side, column_side) else pixels
    pixels = pixels[:, ::-1] if "right" in (row_side, column_side) else pixels
    pixels = pixels.swapaxes(0, 1) if row_side in ("left", "right") else pixels
    return Image.fromarray(np.ascontiguousarray(pixels))


def orientation_tag(orientation: int) -> Image.Exif:
    """An EXIF block that holds nothing but the orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def swapped_primaries() -> bytes:
    """An sRGB profile whose red and green primaries have changed places: stored red is seen as green."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    table, rest = profile[:512], profile[512:]
    table = table.replace(b"rXYZ", b"????", 1).replace(b"gXYZ", b"rXYZ", 1).replace(b"????", b"gXYZ", 1)
    return table + rest


def linear_grey() -> bytes:
    """A grey profile of gamma 1: stored 50 % is seen as 74 % of sRGB."""
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    curve = b"curv" + bytes(4) + struct.pack(">I", 1) + struct.pack(">H", 256) + bytes(2)
    tags = ((b"wtpt", white), (b"kTRC", curve))
    offset = 128 + 4 + 12 * len(tags)
    table, payload = struct.pack(">I", len(tags)), b""
    for name, value in tags:
        table += struct.pack(">4sII", name, offset + len(payload), len(value))
        payload += value
    header = bytearray(128)
    struct.pack_into(">I", header, 0, 128 + len(table) + len(payload))
    header[8:24] = b"\x02\x40\x00\x00mntrGRAYXYZ "
    header[36:40] = b"acsp"
    struct.pack_into(">3i", header, 68, 63190, 65536, 54061)
    return bytes(header) + table + payload


def png_chunk(name: bytes, payload: bytes) -> bytes:
    """One chunk of a PNG with its checksum."""
    return struct.pack(">I", len(payload)) + name + payload + struct.pack(">I", zlib.crc32(name + payload))


def with_chunks(png: bytes, *chunks: tuple[bytes, bytes], behind: bool = False) -> bytes:
    """A PNG with further chunks (type, payload) behind its header, or behind its pixels."""
    at = len(png) - 12 if behind else 33
    return png[:at] + b"".join(png_chunk(name, payload) for name, payload in chunks) + png[at:]


def box(name: bytes, payload: bytes) -> bytes:
    """One box of an ISO media file or a JPEG 2000."""
    return struct.pack(">I4s", 8 + len(payload), name) + payload


def in_jp2(data: bytes, colr: bytes) -> bytes:
    """A JP2 whose `colr` box has another content."""
    head, at = data.index(b"jp2h") - 4, data.index(b"colr") - 4
    old = int.from_bytes(data[at : at + 4], "big")
    new = box(b"colr", colr)
    size = int.from_bytes(data[head : head + 4], "big") + len(new) - old
    return data[:head] + size.to_bytes(4, "big") + data[head + 4 : at] + new + data[at + old :]


def png_bomb(width: int = 20_000, height: int = 20_000) -> bytes:
    """A small PNG that claims to be huge."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(3 * width + 1))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")


def animation(image_format: str, num_frames: int = 3, size: tuple[int, int] = (64, 48)) -> bytes:
    """Frames of different colours in one GIF, WEBP, PNG, TIFF, AVIF or MPO."""
    frames = [Image.new("RGB", size, (80 * number % 256, 40, 200)) for number in range(num_frames)]
    return encode(frames[0], image_format, save_all=True, append_images=frames[1:])


HEIC = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(64)
"""The first bytes of a phone's HEIC."""
JXL = b"\x00\x00\x00\x0cJXL \r\n\x87\n" + bytes(64)
"""The first bytes of a JPEG XL container."""
MP4 = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2" + bytes(64)
HTML = b"<!DOCTYPE html>\n<html><body><h1>404 Not Found</h1></body></html>\n"


def write_files(folder: Path, contents: dict[str, bytes]) -> Path:
    """Write files by relative path; gives the folder."""
    for name, data in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def listing_table(folder: Path) -> pa.Table:
    """The rows of `listing` for a folder."""
    items = list_source(FolderSource(path=str(folder))).items
    rows = pa.concat_tables(rows_of(items, str(folder), folder.name))
    return rows.set_column(0, schema_of("listing").field(0), pa.array(range(rows.num_rows), pa.int64()))
