"""Hash every picture: a 64-bit perceptual hash, and a sha256 that names its pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any

from engine.ahead import ahead
from engine.map_job import MapJob, Worker, naming
from engine.runner import Progress
from schemas.late import late
from schemas.recipe import DataRecipe

with late(__name__):
    import numpy as np
    import pyarrow as pa
    import simplejpeg
    from cykooz_resizer import Resizer
    from PIL import Image

    from schemas import pixels
    from schemas.tables import schema_of

_SIDE = 32
_BITS = 64
_HALVED_PX = 256
"""Shortest side from which half the size is enough: a quarter, or less of it, moves bits that copies share."""
_FLAT = 1.0
"""A picture whose 32x32 luminance has a smaller standard deviation (in 0..255) has no structure to hash."""


def map_job(recipe: DataRecipe) -> MapJob:
    return MapJob(
        job="fingerprint",
        inputs=("proxies", "images"),
        outputs=("fingerprints",),
        build=partial(FingerprintWorker, recipe.run.threads),
        knobs={f"fingerprint.{name}": value for name, value in recipe.fingerprint.resolved().items()},
    )


class FingerprintWorker(Worker):
    """Hashes proxies on threads."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def __call__(self, inputs: Mapping[str, pa.Table], progress: Progress) -> Mapping[str, pa.Table]:
        """`proxies` and `images` in, `fingerprints` out; a row without a proxy has nulls."""
        proxies, images = inputs["proxies"], inputs["images"]
        columns = (proxies["row_id"], proxies["image_id"], proxies["jpeg"], images["width"], images["height"])
        rows = []
        for row in ahead(_row, zip(*columns, strict=True), self.threads):
            rows.append(row)
            progress(1)
        return {"fingerprints": pa.Table.from_pylist(rows, schema=schema_of("fingerprints"))}


def phash(image: Image.Image) -> int:
    """A 64-bit hash that survives rescaling and recompression. Luminance at 32x32 px, its two-dimensional DCT-II, the
    signs of the 64 lowest frequencies in zigzag order without the constant one. Follows the DCT hash of C. Zauner,
    "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010), section 3.2.1, with two changes: zigzag
    in place of a square, so that no bit goes to the mean brightness, and the sign in place of the median, so that a
    coefficient that crosses the threshold costs one bit and not two. A flat picture, where the signs are noise, is
    hashed by its colour instead, so that a black frame is no duplicate of a white one. `image`: RGB or L, of any
    size."""
    grey = np.asarray(image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS), dtype=np.float64)
    return _colour_hash(image) if grey.std() < _FLAT else dct_hash(grey)


def proxy_phash(jpeg: bytes) -> int:
    """`phash` of a proxy, within two bits and in a third of the time: only luminance is decoded, at half the size.
    `jpeg`: upright, sRGB, without metadata, as `curation.ingest.ingest.encode_proxy` makes it."""
    height, width = simplejpeg.decode_jpeg_header(jpeg)[:2]
    halves = 2 if min(width, height) >= _HALVED_PX else 1
    luminance = simplejpeg.decode_jpeg(jpeg, "GRAY", min_height=height // halves, min_width=width // halves)
    small = Image.new("L", (_SIDE, _SIDE), None)
    Resizer().resize_pil(Image.fromarray(luminance[:, :, 0]), small, pixels.LANCZOS)
    grey = np.asarray(small, dtype=np.float64)
    return _colour_hash(pixels.open_rgb(jpeg)) if grey.std() < _FLAT else dct_hash(grey)


def dct_hash(grey: np.ndarray) -> int:
    basis, rows, columns = _dct_basis(), *_zigzag()
    spectrum = basis @ grey @ basis.T
    lowest = np.round(spectrum[rows, columns], 3)  # so that a zero with a rounding error is zero on every machine
    return int.from_bytes(np.packbits(lowest > 0).tobytes(), "big")


def hamming(a: int, b: int) -> int:
    return (a ^ b).bit_count()


def pixel_sha256(width: int, height: int, jpeg: bytes) -> str:
    """The sha256 of the original's upright size and of its proxy. Equal for two files of the same pixels in different
    wrappings (a PNG saved again, metadata stripped), different for the same picture at another size, whose proxies may
    be alike. The proxy is hashed as it is encoded: it carries nothing but pixels, and the same pixels are encoded to
    the same bytes."""
    digest = hashlib.sha256(f"{width}x{height}\n".encode())
    digest.update(jpeg)
    return digest.hexdigest()


def _row(values: tuple[Any, ...]) -> dict[str, Any]:
    row_id, image_id, jpeg, width, height = (value.as_py() for value in values)
    row: dict[str, Any] = {"row_id": row_id, "image_id": image_id, "phash": 0, "pixel_sha256": None}
    # no null: pandas would read the others as floats, which hold 53 bits of 64
    if jpeg is None:
        return row
    with naming(f"{image_id} (row {row_id})"):
        return row | {"phash": proxy_phash(jpeg), "pixel_sha256": pixel_sha256(width, height, jpeg)}


def _colour_hash(image: Image.Image) -> int:
    mean = image.convert("RGB").resize((1, 1), Image.Resampling.BOX).tobytes()
    coarse = bytes(level // 8 for level in mean)
    return int.from_bytes(hashlib.sha256(b"flat" + coarse).digest()[:8], "big")


@lru_cache(maxsize=1)
def _dct_basis() -> np.ndarray:
    """The orthonormal DCT-II matrix: rows are frequencies, columns are pixels."""
    frequency, position = np.meshgrid(np.arange(_SIDE), np.arange(_SIDE), indexing="ij")
    basis: np.ndarray = np.cos(np.pi * (2 * position + 1) * frequency / (2 * _SIDE)) * np.sqrt(2 / _SIDE)
    basis[0] /= np.sqrt(2)
    return basis


@lru_cache(maxsize=1)
def _zigzag() -> tuple[np.ndarray, np.ndarray]:
    """(rows, columns) of the 64 lowest frequencies, by their sum and then by row, the constant one left out."""
    order = sorted((u + v, u, v) for u in range(_SIDE) for v in range(_SIDE))[1 : _BITS + 1]
    return np.array([u for _, u, _ in order]), np.array([v for _, _, v in order])
