"""CPU time of ingest and fingerprint, tables and all, beside the necessary work itself in native code."""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import simplejpeg
from cykooz_resizer import Resizer
from PIL import Image

from benchmarks.curation_speed import PROXY_PX, SIZES, write_photos
from curation import build as pipeline
from curation.dedup import fingerprint
from curation.ingest import ingest as ingest_job
from engine.dataset import Dataset
from engine.job import State
from engine.runner import once
from schemas.pixels import LANCZOS, shrunk_size
from schemas.recipe import DataRecipe, Ingest

GOAL = 0.92
ROUNDS, ROWS = 12, 32
"""Parts, each with so many rows: few for a part, so what its commit costs counts more than in a build."""
FURTHER: dict[str, dict[str, Any]] = {
    "progressive JPEG": {"format": "JPEG", "quality": 90, "progressive": True},
    "PNG": {"format": "PNG", "compress_level": 3},
    "WebP": {"format": "WEBP", "quality": 90},
}
"""Kinds of files whose rows have no goal, and how they are written; of 6 MP."""
FURTHER_ROWS = 8
Decoder = Callable[[bytes], Image.Image]


def ingest(folder: Path) -> Iterator[str]:
    """Parts of the jobs ingest and fingerprint, read, computed and committed, beside the same work with nothing around.

    The necessary work is to read the file, hash it, decode it at the scale of the proxy's pixels, resample it once,
    encode it once, and take a pHash of the pixels at hand; of two decoders of JPEG the faster one counts. CPU time of
    this process with one thread, a part and the bare work in turn, the best of the rounds.
    """
    for megapixels, size in SIZES.items():
        paths = write_photos(folder / str(megapixels), 4, size)
        yield measured(f"{megapixels} MP JPEG", folder, [path.read_bytes() for path in paths], ROWS, GOAL)
    for name, options in FURTHER.items():
        bodies = []
        for path in paths:
            buffer = io.BytesIO()
            Image.open(path).resize(SIZES[6]).save(buffer, **options)
            bodies.append(buffer.getvalue())
        yield measured(f"6 MP {name}", folder, bodies, FURTHER_ROWS, None)


def measured(name: str, folder: Path, bodies: list[bytes], rows: int, goal: float | None) -> str:
    """One row of the table; as many parts as rounds, all of the same files."""
    photos = folder / name / "photos"
    photos.mkdir(parents=True)
    for number in range(ROUNDS * rows):
        path = photos / f"{number:04d}.jpg"  # the bytes say what it is, not the name
        if number < len(bodies):
            path.write_bytes(bodies[number])
        else:
            path.hardlink_to(photos / f"{number % len(bodies):04d}.jpg")
    run_part, paths = _parts(photos, folder / name / "dataset", rows), sorted(photos.iterdir())[:rows]
    decoders = (by_pillow, by_simplejpeg) if bodies[0].startswith(b"\xff\xd8") else (by_pillow,)
    ours, bare = list[float](), {decoder: list[float]() for decoder in decoders}
    for number in range(ROUNDS):
        ours.append(_cpu_ms(lambda number=number: run_part(number)) / rows)
        for decoder, spent in bare.items():
            spent.append(_cpu_ms(lambda decoder=decoder: [necessary_work(path, decoder) for path in paths]) / rows)
    decoder, ceiling = min(((each, min(spent)) for each, spent in bare.items()), key=lambda found: found[1])
    ratio = ceiling / min(ours)
    verdict = f"{goal:g}, {'reached' if ratio >= goal else 'missed'}" if goal else ""
    return (
        f"| ingest and fingerprint, {name}, {sum(map(len, bodies)) / len(bodies) / 1e6:.1f} MB | {min(ours):.1f} ms | "
        f"the necessary work {ceiling:.1f} ms, {decoder.__name__}; load average {os.getloadavg()[0]:.1f} "
        f"| {ratio:.3f} | {verdict} |"
    )


def _parts(photos: Path, out: Path, rows: int) -> Callable[[int], None]:
    """What runs one part of both jobs: reads its inputs, computes it and commits it."""
    settings = {"images": str(photos), "out": str(out), "part_rows": rows, "ingest": {"proxy_px": PROXY_PX}}
    recipe = DataRecipe.from_mapping({**settings, "run": {"runner": "local", "threads": 1}})
    pipeline.build(recipe, [])
    dataset, jobs = Dataset(out), []
    for job in (ingest_job.map_job(recipe), fingerprint.map_job(recipe)):
        job.prepare(dataset, State.NEW, redo=False)
        jobs.append((job, once(job.build)))

    def run_part(number: int) -> None:
        for job, worker in jobs:
            (task,) = job.tasks(dataset.held(), [number])
            assert job.run_part(dataset, worker, task, lambda rows, counts={}: None).rows == rows

    return run_part


def necessary_work(path: Path, decoder: Decoder) -> tuple[str, bytes, int]:
    """The sha256 of a file, its proxy and its pHash, without any check, metadata or table."""
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    decoded, resizer = decoder(data), Resizer()
    proxy = Image.new("RGB", shrunk_size(decoded.size, PROXY_PX), None)
    resizer.resize_pil(decoded, proxy, LANCZOS)
    buffer = io.BytesIO()
    proxy.save(buffer, "JPEG", quality=Ingest().proxy_quality, subsampling="4:2:0")
    small = Image.new("RGB", (32, 32), None)
    resizer.resize_pil(proxy, small, LANCZOS)
    return digest, buffer.getvalue(), fingerprint.dct_hash(np.asarray(small.convert("L"), dtype=np.float64))


def by_pillow(data: bytes) -> Image.Image:
    """Decode with Pillow, a JPEG at the smallest of its scales that is not below the proxy's size."""
    image = Image.open(io.BytesIO(data))
    image.draft(None, shrunk_size(image.size, PROXY_PX))
    image.load()
    return image if image.mode == "RGB" else image.convert("RGB")


def by_simplejpeg(data: bytes) -> Image.Image:
    """Decode a JPEG with simplejpeg at the same scale; scales between those of Pillow would give other pixels."""
    height, width = simplejpeg.decode_jpeg_header(data)[:2]
    scale = next(scale for scale in (8, 4, 2, 1) if max(width, height) // scale >= PROXY_PX or scale == 1)
    pixels = simplejpeg.decode_jpeg(data, "RGBX", min_height=-(-height // scale), min_width=-(-width // scale))
    return Image.fromarrow(pa.array(pixels.reshape(-1)), "RGB", (pixels.shape[1], pixels.shape[0]))


def _cpu_ms(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return (time.process_time() - begun) * 1e3


BENCHMARKS = (ingest,)
