"""Header probe, ingest and shard writing, each against the raw work of the same cores on the same files."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

import sigma
from curation import pipeline
from curation.job import JobResult
from curation.listing import Listed
from curation.probe import probe
from schemas.recipe import DataRecipe

NUM_PHOTOS = 48
PHOTO_PX = (3000, 2000)


class Times:
    """An observer that only keeps the clock."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def listed(self, found: Listed) -> None:
        """Nothing to show."""

    def retried(self, rows: int) -> None:
        """Nothing failed."""

    def begin(self, job: str, rows: int) -> None:
        """Nothing to show."""

    def advance(self, rows: int) -> None:
        """Nothing to show."""

    def end(self, job: str, result: JobResult | None) -> None:
        """Keep the seconds of the job's last step."""
        if result is not None:
            self.seconds[result.tables[-1]] = result.seconds


def write_photos(folder: Path) -> list[Path]:
    """Multi-megapixel JPEGs with the statistics of photographs: enlarged real ones, each with its own noise."""
    from skimage import data

    folder.mkdir(parents=True)
    originals = [Image.fromarray(picture()) for picture in (data.astronaut, data.coffee, data.chelsea, data.rocket)]
    paths = []
    for number in range(NUM_PHOTOS):
        base = originals[number % len(originals)].resize(PHOTO_PX, Image.Resampling.BICUBIC)
        noise = np.random.default_rng(number).normal(0, 4, (PHOTO_PX[1], PHOTO_PX[0], 3))
        pixels = np.clip(np.asarray(base) + noise, 0, 255).astype(np.uint8)
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
    ours = _seconds(lambda: [probe(photo) for _ in range(rounds) for photo in photos])
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
    pipeline.build(recipe, sigma.pipeline(recipe), times)
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


BENCHMARKS = (header_probe, ingest_and_shards)
