"""What the dearest pictures cost: CPU seconds per megapixel, bytes per pixel at the peak, CPU seconds per MB of parts.

Of each format the dearest whole pictures and pictures made to be dear are decoded as curation and as training do it,
each in a process of its own. A file that is refused counts for what it took until then.
"""

from __future__ import annotations

import ctypes
import io
import multiprocessing
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageFile

from curation.images.decode import decode
from curation.images.header import Unreadable
from schemas.jpeg_segments import SCAN, segments
from schemas.opening import picture_formats
from schemas.parts import MOST_SCANS
from schemas.pixels import PixelError, open_rgb
from tests.bombs import BOMBS, box
from tests.photos import encode, png_chunk

SIDE = 2400
"""px; 1000 where each pixel is decoded in Python."""
SLOW_SIDE = 1000
SCANNED_SIDE = 2200
"""px, of the largest JPEG that may have all scans."""
LONGEST_PX = 512
NUM_PARTS = 60_000


class Cost(NamedTuple):
    """What one decode takes in a process of its own."""

    cpu_s: float
    num_bytes: int
    """Memory at its peak, beyond what the process had before."""
    outcome: str


def noise(mode: str = "RGB", side: int = SIDE) -> Image.Image:
    """A picture that no encoder makes small."""
    return Image.frombytes(mode, (side, side), os.urandom(side * side * len(Image.new(mode, (1, 1)).getbands())))


def flat(mode: str = "RGB", side: int = SIDE) -> Image.Image:
    """A picture that becomes a small file."""
    return Image.new(mode, (side, side))


def progressive(image: Image.Image) -> bytes:
    """Without the loss of detail; Pillow's buffer is too small for it."""
    usual, ImageFile.MAXBLOCK = ImageFile.MAXBLOCK, 8 * image.width * image.height
    try:
        return encode(image, "JPEG", quality=100, subsampling=0, progressive=True)
    finally:
        ImageFile.MAXBLOCK = usual


def scans(mode: str = "RGB", arithmetic: bool = False) -> bytes:
    """A flat progressive JPEG with as many scans as one may have; arithmetic ones hold zeros alone."""
    data = encode(flat(mode, SCANNED_SIDE), "JPEG", progressive=True, subsampling=0)
    found = [segment for segment in segments(data) if segment.marker == SCAN]
    end = found[-1].end if arithmetic else found[-1].data_end
    more = (MOST_SCANS - len(found)) * (data[found[-1].start : end] + bytes(40 * arithmetic))
    data = data[:-2] + more + data[-2:]
    return data.replace(b"\xff\xc2", b"\xff\xca", 1) if arithmetic else data


def png(depth: int, colour: int, row: bytes, interlaced: bool = False, between: bytes = b"") -> bytes:
    """A PNG of equal rows."""
    stream = zlib.compress(row * SIDE * (2 if interlaced else 1), 9)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, depth, colour, 0, 0, interlaced))
    return b"\x89PNG\r\n\x1a\n" + header + between + png_chunk(b"IDAT", stream) + png_chunk(b"IEND", b"")


def tiff_tiles(compression: str, side: int) -> bytes:
    """A TIFF in tiles of 16 px that are all the same bytes."""
    one = encode(noise(side=16), "TIFF", compression=compression)
    tags = Image.open(io.BytesIO(one)).tag_v2  # type: ignore[attr-defined]
    start, length = tags[273][0], tags[279][0]
    num, tile = (side // 16) ** 2, one[start : start + length]
    tile += bytes(len(tile) % 2)
    fields = [(256, side), (257, side), (258, 8), (259, tags[259]), (262, 2), (277, 3), (322, 16), (323, 16)]
    places, lengths = 8 + len(tile), 8 + len(tile) + 4 * num
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields)
    table += struct.pack("<HHIIHHII", 324, 4, num, places, 325, 4, num, lengths)
    values = tile + struct.pack("<I", 8) * num + struct.pack("<I", length) * num
    return b"II*\0" + struct.pack("<I", 8 + len(values)) + values + struct.pack("<H", 10) + table + bytes(4)


def jpeg2000(num_components: int, block: tuple[int, int] = (2, 2), layers: int = 1, fill: int = 4000) -> bytes:
    """A JPEG 2000 of one tile without data, in code-blocks of so many bits (less 2) each way."""
    size = struct.pack(">H8IH", 0, SIDE, SIDE, 0, 0, SIDE, SIDE, 0, 0, num_components) + b"\7\1\1" * num_components
    style = struct.pack(">BBHBBBBBB", 0, 2, layers, 0, 5, *block, 0, 1)
    stream = b"\xff\x4f"
    for marker, payload in ((0x51, size), (0x52, style), (0x5C, b"\x40" + b"\x48" * 16)):
        stream += struct.pack(">BBH", 0xFF, marker, 2 + len(payload)) + payload
    return stream + struct.pack(">HHHIBBH", 0xFF90, 10, 0, 14 + fill, 0, 1, 0xFF93) + bytes(fill) + b"\xff\xd9"


def avif_behind_a_small_box() -> bytes:
    """Its box says 16 x 16 px."""
    data = encode(flat(), "AVIF", speed=10)
    return data.replace(b"ispe\0\0\0\0" + struct.pack(">II", SIDE, SIDE), b"ispe\0\0\0\0" + struct.pack(">II", 16, 16))


def bmp_run_lengths(bits: int) -> bytes:
    """A run for every pixel."""
    side, palette = SLOW_SIDE, bytes(4 << bits)
    runs = (b"\1\1" * side + b"\0\0") * side + b"\0\1"
    head = struct.pack("<IiiHHIIiiII", 40, side, side, 1, bits, 1 if bits == 8 else 2, len(runs), 0, 0, 1 << bits, 0)
    start = 14 + len(head) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start) + head + palette + runs


def dds_by_masks() -> bytes:
    """Pixels whose channels are at odd places."""
    numbers = (124, 0x1007, SLOW_SIDE, SLOW_SIDE, 0, 0, 0, 32, 0x41, 0, 32, 0x3FF00000, 0xFFC00, 0x3FF, 3 << 30)
    return b"DDS " + struct.pack("<7I44x8I20x", *numbers) + bytes(4 * SLOW_SIDE**2)


def psd_run_lengths() -> bytes:
    """A run for every two bytes."""
    runs = b"\xff\0" * (SIDE // 2)
    head = struct.pack(">4sH6xHIIHHIII", b"8BPS", 1, 3, SIDE, SIDE, 8, 3, 0, 0, 0)
    return head + struct.pack(">H", 1) + struct.pack(">H", len(runs)) * (3 * SIDE) + runs * (3 * SIDE)


def sun_run_lengths() -> bytes:
    """Runs as long as they can be."""
    return struct.pack(">8I", 0x59A66A95, SIDE, SIDE, 24, 0, 2, 0, 0) + b"\x80\xff\1" * (SIDE * SIDE * 3 // 256 + 1)


def ppm(head: str, pixel: bytes) -> bytes:
    """Decoded pixel by pixel."""
    return head.format(SLOW_SIDE).encode("ascii") + pixel * SLOW_SIDE**2


PIXELS: dict[str, dict[str, Callable[[], bytes]]] = {
    "JPEG": {
        "noise, 4:4:4": lambda: encode(noise(), "JPEG", quality=100, subsampling=0),
        "noise, progressive": lambda: progressive(noise()),
        "noise, progressive CMYK": lambda: progressive(noise("CMYK")),
        "*100 scans": scans,
        "*100 scans of CMYK": lambda: scans("CMYK"),
        "*100 scans, arithmetic": lambda: scans(arithmetic=True),
        "*100 scans of CMYK, arithmetic": lambda: scans("CMYK", arithmetic=True),
    },
    "PNG": {
        "noise with alpha": lambda: encode(noise("RGBA"), "PNG", compress_level=1),
        "*16 bits with alpha": lambda: png(16, 6, b"\4" + bytes(8 * SIDE)),
        "*interlaced": lambda: png(8, 6, bytes(1 + 4 * SIDE), interlaced=True),
        "*one bit with a transparent colour": lambda: png(
            1, 0, bytes(1 + SIDE // 8), between=png_chunk(b"tRNS", b"\0\0")
        ),
    },
    "WEBP": {
        "noise with alpha": lambda: encode(noise("RGBA"), "WEBP", quality=70, method=0),
        "lossless noise with alpha": lambda: encode(noise("RGBA"), "WEBP", lossless=True, method=0),
        "*flat with alpha": lambda: encode(flat("RGBA"), "WEBP", method=0),
    },
    "GIF": {"noise": lambda: encode(noise("L").convert("P"), "GIF"), "*flat": lambda: encode(flat("P"), "GIF")},
    "TIFF": {
        **{
            f"noise with alpha, {each}": lambda each=each: encode(noise("RGBA"), "TIFF", compression=each)
            for each in ("tiff_adobe_deflate", "tiff_lzw", "zstd")
        },
        "noise, JPEG": lambda: encode(noise(), "TIFF", compression="jpeg"),
        "noise, LZMA": lambda: encode(noise(side=SLOW_SIDE), "TIFF", compression="lzma"),
        "*tiles of 16 px": lambda: tiff_tiles("tiff_adobe_deflate", 1600),
        "*tiles of 16 px, LZMA": lambda: tiff_tiles("lzma", 1600),
    },
    "AVIF": {
        "noise with alpha": lambda: encode(noise("RGBA", SIDE // 2), "AVIF", speed=10, quality=95),
        "*flat with alpha": lambda: encode(flat("RGBA"), "AVIF", speed=10),
        "*behind a box of 16 x 16 px": avif_behind_a_small_box,
    },
    "BMP": {
        "noise": lambda: encode(noise(), "BMP"),
        "*a run for every pixel": lambda: bmp_run_lengths(8),
        "*the same in 4 bits": lambda: bmp_run_lengths(4),
    },
    "JPEG2000": {
        "noise, lossless": lambda: encode(noise(side=SIDE // 2), "JPEG2000"),
        "*blocks of 16 px, four channels": lambda: jpeg2000(4),
        "*65,535 layers": lambda: jpeg2000(3, (4, 4), 65_535, 8_000_000),
    },
    "PPM": {
        "noise": lambda: encode(noise(), "PPM"),
        "*in letters": lambda: ppm("P3 {0} {0} 255\n", b"1 2 3 "),
        "*of an unusual white": lambda: ppm("P6 {0} {0} 100\n", bytes(3)),
    },
    "PSD": {"*run lengths": psd_run_lengths},
    "QOI": {"noise": lambda: encode(noise(side=SLOW_SIDE), "QOI"), "*flat": lambda: encode(flat(), "QOI")},
    "DDS": {"noise": lambda: encode(noise("RGBA"), "DDS", pixel_format="DXT5"), "*by masks": dds_by_masks},
    "SGI": {"noise": lambda: encode(noise(), "SGI"), "*run lengths": lambda: encode(flat(), "SGI")},
    "SUN": {"*run lengths": sun_run_lengths},
    "PCX": {"noise": lambda: encode(noise(), "PCX"), "*run lengths": lambda: encode(flat(), "PCX")},
    "TGA": {
        "noise": lambda: encode(noise("RGBA"), "TGA", compression="tga_rle"),
        "*run lengths": lambda: encode(flat(), "TGA", compression="tga_rle"),
    },
}
"""Format -> name -> a file; those made to be dear begin with an asterisk."""


def cost(data: bytes, training: bool = False) -> Cost:
    """The decode of a file in a process of its own."""
    return in_a_child(_measure, data, training)


def in_a_child(work: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a process of its own, whose memory this one does not keep."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=lambda: theirs.send(work(*arguments)))
    child.start()
    theirs.close()
    found = ours.recv()
    child.join()
    return found


def _measure(data: bytes, training: bool) -> Cost:
    _decode(encode(flat(side=64), "JPEG"), training)
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before would be taken again, unseen
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    memory, begun = _peak(), time.process_time()
    outcome = _decode(data, training)
    return Cost(time.process_time() - begun, _peak() - memory, outcome)


def _peak() -> int:
    """Most bytes that this process has held."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def _decode(data: bytes, training: bool) -> str:
    try:
        if training:
            open_rgb(data, longest_px=LONGEST_PX)
        else:
            decode(data, longest_px=LONGEST_PX)
    except Unreadable as refused:
        return str(refused.reason)
    except PixelError:
        return "refused"
    return "kept"


def with_most_parts(name: str, num: int) -> bytes:
    """A file that may have some more parts than 60,000, of so many of a kind."""
    data = BOMBS[name](num)
    missing = 128 * (NUM_PARTS - 9_000) - len(data)
    return data + (box(b"free", bytes(missing)) if name.startswith("JPEG2000") else bytes(missing))


def hostile_pictures(folder: Path) -> Iterator[str]:
    """A row for each format: the dearest whole picture, and the dearest one that was made to be."""
    yield "\n| format | whole | CPU s per MP | bytes per px | made to be dear | CPU s per MP | bytes per px |"
    yield "|---|---|---|---|---|---|---|"
    for image_format in (each for each in PIXELS if each in picture_formats()):
        cells = []
        for hostile in (False, True):
            rows = [
                _row(name, in_a_child(make))
                for name, make in PIXELS[image_format].items()
                if name.startswith("*") == hostile
            ]
            slowest, largest = (
                max(rows, key=lambda row: row[1], default=None),
                max(rows, key=lambda row: row[2], default=None),
            )
            if slowest is None or largest is None:
                cells.append(" | | ")
                continue
            names = dict.fromkeys((slowest[0], largest[0]))
            cells.append(f"{'; '.join(names)} | {slowest[1]:.3f} | {largest[2]:.0f}")
        yield f"| {image_format} | {' | '.join(cells)} |"
    yield "\n| as many parts as allowed | CPU s per MB |\n|---|---|"
    for name in (name for name in BOMBS if not name.startswith("PPM")):
        for parts_of_one in (1, 2, 4):  # a comment of a GIF is an extension and a block
            data = in_a_child(with_most_parts, name, NUM_PARTS // parts_of_one)
            found = max((cost(data, training) for training in (False, True)), key=lambda each: each.cpu_s)
            if found.outcome == "kept":
                break
        yield f"| {name} ({found.outcome}) | {found.cpu_s / len(data) * 1e6:.3f} |"


def _row(name: str, data: bytes) -> tuple[str, float, float]:
    """(name and outcome, CPU seconds per megapixel, peak bytes per pixel), the higher ones of curation and training."""
    both = [cost(data, training) for training in (False, True)]
    pixels = SIDE**2 if "behind a box" in name else _num_pixels(data)
    outcome = "" if both[0].outcome == "kept" else f" ({both[0].outcome})"
    return (
        name.lstrip("*") + outcome,
        max(each.cpu_s for each in both) / pixels * 1e6,
        max(each.num_bytes for each in both) / pixels,
    )


def _num_pixels(data: bytes) -> int:
    width, height = Image.open(io.BytesIO(data)).size
    return width * height


BENCHMARKS = (hostile_pictures,)
