"""Score how a picture looks, from 1 to 10; the threshold is `select`'s."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from engine.ahead import ahead
from engine.map_job import MapJob, Worker, naming
from engine.runner import Progress
from models.weights import CLIP_L14, find_frozen
from schemas.late import late
from schemas.recipe import DataRecipe

with late(__name__):
    import numpy as np
    import pyarrow as pa
    from PIL import Image

    from curation.scores.laion import LaionWorker, find_head_file
    from schemas.pixels import open_rgb, shrunk_size
    from schemas.tables import schema_of

SCORED_PX = 512
"""Pictures are measured at this longest side, so that a score does not depend on the size of the proxy."""


def map_job(recipe: DataRecipe) -> MapJob:
    """The job that turns proxies into `scores`, and into `embeddings` with `aesthetic.store_embeddings`."""
    section, threads = recipe.aesthetic, recipe.run.threads
    build: Callable[[], Worker] = partial(AestheticWorker, section.scorer, threads)
    needs: tuple[Callable[[], object], ...] = ()
    if section.scorer == "laion":
        build = partial(LaionWorker, section, threads)
        needs = (partial(find_head_file, section.head), partial(find_frozen, section.clip, CLIP_L14, "aesthetic.clip"))
    return MapJob(
        job="aesthetic",
        inputs=("proxies",),
        outputs=("embeddings", "scores") if section.store_embeddings else ("scores",),
        build=build,
        knobs={f"aesthetic.{name}": value for name, value in section.knobs().items()},
        workers=section.workers,
        num_gpus=section.num_gpus(),
        overlaps=section.scorer == "laion",
        drops=() if section.store_embeddings else ("embeddings",),
        needs=needs,
    )


class AestheticWorker(Worker):
    """Decodes proxies on threads and scores them."""

    def __init__(self, scorer: str, threads: int) -> None:
        """Choose the scorer; `photographic` has no weights to load."""
        assert scorer in SCORERS, scorer
        self.scorer = scorer
        self.threads = threads

    def __call__(self, inputs: Mapping[str, pa.Table], progress: Progress) -> Mapping[str, pa.Table]:
        """`proxies` in, `scores` out; a row without a proxy has nulls."""
        proxies = inputs["proxies"]
        rows = []
        columns = (proxies["row_id"], proxies["image_id"], proxies["jpeg"])
        for row in ahead(self._row, zip(*columns, strict=True), self.threads):
            rows.append(row)
            progress(1)
        return {"scores": pa.Table.from_pylist(rows, schema=schema_of("scores"))}

    def _row(self, values: tuple[Any, ...]) -> dict[str, Any]:
        row_id, image_id, jpeg = (value.as_py() for value in values)
        if jpeg is None:
            return {"row_id": row_id, "image_id": image_id}
        with naming(f"{image_id} (row {row_id})"):
            score = SCORERS[self.scorer](open_rgb(jpeg))
        return {"row_id": row_id, "image_id": image_id, "aesthetic": score, "aesthetic_scorer": self.scorer}


class Measures(NamedTuple):
    """The measures of `photographic`, each from 0 to 1; more is better."""

    sharpness: float
    contrast: float
    colourfulness: float
    exposure: float


def photographic(image: Image.Image) -> float:
    """A score from 1 to 10 for sharpness, contrast, colourfulness and exposure: technical quality, not taste. score = 1
    + 9 * exposure * (0.4 sharpness + 0.3 contrast + 0.3 colourfulness), so that it rises with each of the four and a
    black, white or evenly grey frame is near 1. The measures are those of `measure`. `image`: RGB, upright, of any
    size; measured at a longest side of 512 px."""
    seen = measure(image)
    quality = 0.4 * seen.sharpness + 0.3 * seen.contrast + 0.3 * seen.colourfulness
    return round(1 + 9 * seen.exposure * quality, 4)


def measure(image: Image.Image) -> Measures:
    """The four measures of `photographic`. Luminance Y is Rec. 601, 0 to 255; sat(x, s) = 1 - exp(-x / s).

    - sharpness: sat(mean |Laplacian of Y|, 12): how much changes from one pixel to the next.
    - contrast: sat(standard deviation of Y, 40).
    - colourfulness: sat(M, 40), with M = sqrt(var(rg) + var(yb)) + 0.3 sqrt(mean(rg)^2 + mean(yb)^2), rg = R - G,
      yb = (R + G) / 2 - B: Hasler and Süsstrunk, "Measuring colourfulness in natural images" (2003), section 4.
    - exposure: the square root of the share of pixels that are neither crushed (Y <= 4) nor blown out (Y >= 251),
      times 1 - 3 (mean(Y) / 255 - 0.5)^2, which is 1 in the middle and 0.25 at either end."""
    size = shrunk_size(image.size, SCORED_PX)
    image = image.convert("RGB")
    if size != image.size:
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    pixels = np.asarray(image, dtype=np.float64)
    luminance = pixels @ np.array([0.299, 0.587, 0.114])
    rg = pixels[..., 0] - pixels[..., 1]
    yb = (pixels[..., 0] + pixels[..., 1]) / 2 - pixels[..., 2]
    colourfulness = np.sqrt(rg.var() + yb.var()) + 0.3 * np.hypot(rg.mean(), yb.mean())
    unclipped = float(((luminance > 4) & (luminance < 251)).mean())
    balance = 1 - 3 * (luminance.mean() / 255 - 0.5) ** 2
    return Measures(
        sharpness=_saturate(_mean_laplacian(luminance), 12),
        contrast=_saturate(luminance.std(), 40),
        colourfulness=_saturate(colourfulness, 40),
        exposure=float(np.sqrt(unclipped) * balance),
    )


SCORERS = {"photographic": photographic}
"""Name in the recipe -> upright RGB picture to a score from 1 to 10."""


def _saturate(value: float, scale: float) -> float:
    return float(1 - np.exp(-value / scale))


def _mean_laplacian(luminance: np.ndarray) -> float:
    """Mean absolute value of the 4-neighbour Laplacian; borders repeat."""
    padded = np.pad(luminance, 1, mode="edge")
    neighbours = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    return float(np.abs(neighbours - 4 * luminance).mean())
