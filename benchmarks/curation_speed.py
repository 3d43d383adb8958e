"""Header probe, ingest and shard writing, each against the raw work of the same cores on the same files."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from commands import order
from curation import build as pipeline
from curation.build import Observer
from curation.images.header import read_header
from curation.images.whole import missing_rows
from curation.images.whole_jpeg import missing_scans
from engine.run_log import JobResult
from schemas.pixels import shrunk_size
from schemas.recipe import DataRecipe

NUM_PHOTOS = 48
PHOTO_PX = (3000, 2000)
SIZES = {6: (3000, 2000), 12: (4243, 2828), 24: (6000, 4000)}
"""Megapixels -> width and height of the photos of `ingest`."""
INGEST_PHOTOS = 8
MEMORY_PHOTOS = 4
"""A part of `workers_memory`."""
PROXY_PX = 1024


class Times(Observer):
    """An observer that only keeps the clock."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def end(self, job: str, result: JobResult | None) -> None:
        """Keep the seconds of the job's last step."""
        if result is not None:
            self.seconds[result.tables[-1]] = result.seconds


def write_photos(
    folder: Path, count: int = NUM_PHOTOS, size: tuple[int, int] = PHOTO_PX, windows: bool = False
) -> list[Path]:
    """Multi-megapixel JPEGs with the statistics of photographs: enlarged real ones, each with its own noise.

    Args:
        windows: each shows a window of its own, so that a perceptual hash tells them apart.
    """
    from skimage import data

    folder.mkdir(parents=True)
    originals = [Image.fromarray(picture()) for picture in (data.astronaut, data.coffee, data.chelsea, data.rocket)]
    paths = []
    for number in range(count):
        original, random = originals[number % len(originals)], np.random.default_rng((number, *size))
        box = None
        if windows:
            left, top = random.uniform(0, 0.4, 2) * original.size
            box = (left, top, left + 0.6 * original.width, top + 0.6 * original.height)
        base = original.resize(size, Image.Resampling.BICUBIC, box)
        noise = random.integers(-7, 8, (size[1], size[0], 3), np.int8)
        pixels = np.clip(np.asarray(base, np.int16) + noise, 0, 255).astype(np.uint8)
        paths.append(folder / f"{number:04d}.jpg")
        Image.fromarray(pixels).save(paths[-1], quality=90)
    return paths


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def header_probe(folder: Path) -> Iterator[str]:
    """Images per second and core whose header is read, bytes in memory."""
    photos = [path.read_bytes() for path in write_photos(folder / "photos")]
    rounds = 40
    ours = _seconds(lambda: [read_header(photo) for _ in range(rounds) for photo in photos])
    raw = _seconds(lambda: [Image.open(io.BytesIO(photo)).size for _ in range(rounds) for photo in photos])
    count = rounds * len(photos)
    alone = f"Pillow alone {count / raw:,.0f}"
    yield f"| header probe, 1 core | {count / ours:,.0f} images/s | {alone} | {raw / ours:.2f} |"


def ingest_and_shards(folder: Path) -> Iterator[str]:
    """The ingest and shard jobs in this process, against a bare scaled decode and a bare copy."""
    photos = write_photos(folder / "photos")

    def decode_all() -> None:
        for path in photos:
            image = Image.open(path)
            image.draft(None, (1024, 683))
            image.load()

    recipe = DataRecipe.from_mapping(
        {"images": str(folder / "photos"), "out": str(folder / "dataset"), "run": {"runner": "local", "threads": 1}}
    )
    times = Times()
    pipeline.build(recipe, order.pipeline(recipe), times)
    ceiling = _seconds(decode_all)
    ingest = times.seconds["images"]
    yield (
        f"| ingest, 6 MP JPEG, 1 thread | {len(photos) / ingest:,.1f} images/s | "
        f"scaled decode alone {len(photos) / ceiling:,.1f} | {ceiling / ingest:.2f} |"
    )
    num_bytes = sum(path.stat().st_size for path in photos)
    copied = _seconds(lambda: shutil.copytree(folder / "photos", folder / "copy"))
    packed = times.seconds["samples"]
    yield (
        f"| shard writing, fsync included | {num_bytes / packed / 1e6:,.0f} MB/s | "
        f"copy of the files {num_bytes / copied / 1e6:,.0f} MB/s | {copied / packed:.2f} |"
    )


def _pillow(data: bytes) -> None:
    image = Image.open(io.BytesIO(data))
    image.draft(None, shrunk_size(image.size, PROXY_PX))
    image.load()


def _cpu_seconds(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def truncation_checks(folder: Path) -> Iterator[str]:
    """What it costs to see that a file is whole, beside decoding it."""
    (path,) = write_photos(folder / "photos", 1)
    image = Image.open(path)
    kinds: tuple[tuple[str, dict[str, Any], Callable[[bytes], object]], ...] = (
        ("baseline JPEG", {"format": "JPEG", "quality": 90}, missing_scans),
        ("progressive JPEG", {"format": "JPEG", "quality": 90, "progressive": True}, missing_scans),
        ("PNG", {"format": "PNG", "compress_level": 1}, missing_rows),
    )
    for name, options, check in kinds:
        buffer = io.BytesIO()
        image.save(buffer, **options)
        data = buffer.getvalue()
        checked = min(_cpu_seconds(lambda check=check, data=data: check(data)) for _ in range(3))
        decoded = min(_cpu_seconds(lambda data=data: _pillow(data)) for _ in range(3))
        yield (
            f"| is a {name} of 6 MP whole? | {checked * 1e3:.2f} ms | decoding it {decoded * 1e3:.1f} ms "
            f"| {checked / decoded:.3f} |"
        )


_PARTS = """
import sys
from pathlib import Path
from typing import Any
from benchmarks.dedup_speed import peak_gb
from curation.ingest.ingest import IngestWorker
from schemas.recipe import Ingest
from tests.photos import listing_table
worker, listing = IngestWorker(Ingest(), threads=1), listing_table(Path(sys.argv[1]))
for number in range(20):
    worker({"listing": listing}, lambda rows: None)
    if number in (1, 19):
        print(round(peak_gb() * 1000))
"""


def ingest_memory(folder: Path) -> Iterator[str]:
    """Peak memory of a worker of ingest after 2 parts and after 20, in a process of its own."""
    write_photos(folder / "photos", INGEST_PHOTOS)
    command = [sys.executable, "-c", _PARTS, str(folder / "photos")]
    two, twenty = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    yield f"| peak memory of ingest, {INGEST_PHOTOS} photos a part | {twenty} MB after 20 | after 2: {two} MB | |"


_JOB_PARTS = """
import sys
from commands import order
from benchmarks.dedup_speed import peak_gb
from engine.dataset import Dataset
from engine.job import State
from engine.runner import once
from schemas.recipe import DataRecipe
recipe = DataRecipe.load(sys.argv[1])
(stage,) = (step for step in order.pipeline(recipe) if step.outputs[-1] == sys.argv[2])
dataset, worker = Dataset(recipe.out_path()), once(stage.build)
stage.prepare(dataset, State.NEW, redo=False)
tasks = list(stage.tasks(dataset.held(), range(20)))
for done, task in enumerate(tasks * 5, 1):
    assert stage.run_part(dataset, worker, task, lambda rows: None)
    if done in (2, 20, 100):
        print(round(peak_gb() * 1000))
"""


def workers_memory(folder: Path) -> Iterator[str]:
    """Peak memory of workers of fingerprint, aesthetic and shard after 2 whole parts, 20 and 100: read, compute,
    commit, in a process of its own for each job. The parts are 20, computed five times."""
    for path in write_photos(folder / "photos", MEMORY_PHOTOS):
        data = path.read_bytes()
        for copy in range(20):
            path.with_name(f"{path.stem}-{copy:02d}.jpg").write_bytes(data + bytes([copy]))
        path.unlink()
    recipe = DataRecipe.from_mapping(
        {
            "images": str(folder / "photos"),
            "out": str(folder / "dataset"),
            "part_rows": MEMORY_PHOTOS,
            "select": {"drop_duplicates": False},
            "shard": {"max_samples": MEMORY_PHOTOS},
            "run": {"runner": "local", "threads": 1},
        }
    )
    steps = [step for step in order.pipeline(recipe) if step.job not in ("nouns", "statistics")]
    pipeline.build(recipe, steps, Times())
    for job, table in (("fingerprint", "fingerprints"), ("aesthetic", "scores"), ("shard", "samples")):
        command = [sys.executable, "-c", _JOB_PARTS, str(folder / "dataset" / "recipe.yaml"), table]
        two, twenty, hundred = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        what = f"peak memory of {job}, {MEMORY_PHOTOS} photos of 6 MP a part"
        yield f"| {what} | {hundred} MB after 100 | after 2: {two}, after 20: {twenty} MB | |"


BENCHMARKS = (header_probe, ingest_and_shards, ingest_memory, workers_memory, truncation_checks)
