"""What the pictures of a cell are measured with: the same captions, noise and reference for every cell and seed."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from evaluation.features import INCEPTION, Features, clip_features, inception_features
from evaluation.inception import Inception
from evaluation.results import agree, distances
from models.clip import Clip
from models.fetching import find_packaged
from models.weights import CLIP_L14, FID_INCEPTION, find_frozen, weights_name
from schemas.ablation import AblationRecipe
from schemas.ids import counter
from schemas.training import TrainingRecipe
from training.checkpoint import load_checkpoint
from training.data.order import Shape
from training.data.reader import ShardReader
from training.model import PixArt
from training.sample import draw
from training.stages import copies_of, stage_data
from training.weak_to_strong import model_config

PROTOCOL = "clean"
AT_ONCE = 32
"""Pictures that are drawn together."""


class Ruler:
    """Networks and reference of an ablation, each loaded when it is needed: a finished ablation needs none.

    Attributes:
        missing: why there is no FID, or no CLIP-Score, with the command that mends it.
    """

    def __init__(self, recipe: AblationRecipe, cell: TrainingRecipe) -> None:
        self._recipe, self._cell = recipe, cell
        self.missing: dict[str, str] = {}
        self._inception_name = self._found("FID", _find_inception)
        self._clip_name = self._found("CLIP-Score", self._find_clip)

    def _found(self, what: str, find: Callable[[], str]) -> str | None:
        try:
            return find()
        except ValueError as error:
            if what == "CLIP-Score" and self._recipe.clip is not None:
                raise
            self.missing[what] = str(error)
            return None

    def _find_clip(self) -> str:
        return weights_name(self._recipe.clip, find_frozen(self._recipe.clip, CLIP_L14, "clip"), CLIP_L14)

    @cached_property
    def _inception(self) -> Inception | None:
        return None if self._inception_name is None else Inception.load()

    @cached_property
    def _clip(self) -> Clip | None:
        return None if self._clip_name is None else Clip.load(self._recipe.clip, "clip")

    @property
    def made_by(self) -> dict[str, Any]:
        """All that a measure depends on, apart from the weights that draw."""
        return {
            "pictures": self._recipe.pictures,
            "sample": self._cell.sample.resolved(),
            "inception": self._inception_name,
            "clip": self._clip_name,
        }

    @cached_property
    def _chosen(self) -> tuple[list[str], list[Shape], list[int], list[bytes]]:
        """Captions, shapes and seeds of the pictures that are drawn, and the pictures of the captions, as PNG.

        Captions are spread evenly over the rows of the stage; where there are fewer, each is drawn several times.
        """
        stage = self._cell.stages[0]
        data = stage_data(self._cell, stage)
        reader = ShardReader(self._cell.dataset_folder / "shards", data.rows, copies=copies_of(self._cell))
        count = self._recipe.pictures
        rows = np.linspace(0, data.rows.num_rows - 1, min(count, data.rows.num_rows)).astype(int).tolist()
        samples = [reader.read(row, data.shapes[row]) for row in rows]  # a damaged one is an error: repair the dataset
        reader.close()
        places = [number % len(rows) for number in range(count)]
        return (
            [samples[place].mixed for place in places],
            [data.shapes[rows[place]] for place in places],
            [counter(samples[place].image_id, f"ablate/{n // len(rows)}") for n, place in enumerate(places)],
            [png(sample.pixels) for sample in samples],
        )

    @cached_property
    def _reference(self) -> Features:
        return inception_features(self._chosen[3], PROTOCOL, network=self._inception)

    def measure(
        self, recipe: TrainingRecipe, remodel: Callable[[PixArt], None] | None, checkpoint: Path
    ) -> dict[str, Any]:
        """FID, KID, precision, recall and CLIP-Score of what the averaged weights of a checkpoint draw; what cannot be
        measured here is left out."""
        if self._inception is None and self._clip is None:
            return {}
        model = PixArt(model_config(recipe, recipe.stages[0]))
        if remodel is not None:
            remodel(model)
        load_checkpoint(model, checkpoint)
        model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        captions, shapes, seeds, _ = self._chosen
        pictures: list[bytes] = []
        for begin in range(0, len(captions), AT_ONCE):
            part = slice(begin, begin + AT_ONCE)
            pictures += [png(pixels) for pixels in draw(model, recipe, captions[part], shapes[part], seeds[part])]
        found: dict[str, Any] = {"num_pictures": len(pictures)}
        if self._inception is not None:
            features = inception_features(pictures, PROTOCOL, network=self._inception)
            measures = distances(features.rows, self._reference.rows)
            found |= {measure.metric.split()[0]: measure.value for measure in measures}
            found |= {"network": features.network, "protocol": PROTOCOL}
        if self._clip is not None:
            found["clip_score"] = agree(clip_features(pictures, self._clip), captions, self._clip).mean.value
        return found


def _find_inception() -> str:
    find_packaged(FID_INCEPTION)
    return f"{INCEPTION} {PROTOCOL}"


def png(pixels: np.ndarray) -> bytes:
    """A picture (3, height, width) uint8 as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
