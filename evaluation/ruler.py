"""Measures models that are being trained or compared: the same captions, noise and reference for each of them."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from evaluation.features import INCEPTION, Features, clip_features, inception_features
from evaluation.inception import Inception
from evaluation.results import FEWEST, agree, distances
from models.clip import Clip
from models.fetching import find_packaged
from models.weights import CLIP_L14, FID_INCEPTION, find_frozen, weights_name
from schemas.ids import counter
from schemas.training import Stage, TrainingRecipe
from training.data.order import Shape
from training.data.reader import DamagedSample, Sample, ShardReader
from training.model import PixArt
from training.sample import draw
from training.stages import copies_of, stage_data

log = logging.getLogger(__name__)

PROTOCOL = "clean"
AT_ONCE = 32
"""Pictures that are drawn together."""


class Ruler:
    """Networks and reference for the pictures of a stage, each loaded when it is needed. `pictures`: how many are
    drawn. `clip`: a folder or hub id; None is the published one, where it is here."""

    def __init__(self, recipe: TrainingRecipe, stage: Stage, pictures: int, clip: str | None = None) -> None:
        self._recipe, self._stage, self._count, self._clip_given = recipe, stage, pictures, clip
        self.missing: dict[str, str] = {}
        """Why there is no FID, or no CLIP-Score; of weights with the command that gets them."""
        self._inception_name = self._found("FID", _find_inception)
        self._clip_name = self._found("CLIP-Score", self._find_clip)

    def _found(self, what: str, find: Callable[[], str]) -> str | None:
        try:
            return find()
        except ValueError as error:
            if what == "CLIP-Score" and self._clip_given is not None:
                raise
            self.missing[what] = str(error)
            return None

    def _find_clip(self) -> str:
        return weights_name(self._clip_given, find_frozen(self._clip_given, CLIP_L14, "clip"), CLIP_L14)

    @cached_property
    def _inception(self) -> Inception | None:
        return None if self._inception_name is None else Inception.load()

    @cached_property
    def _clip(self) -> Clip | None:
        return None if self._clip_name is None else Clip.load(self._clip_given, "clip")

    @property
    def made_by(self) -> dict[str, Any]:
        """All that a measure depends on, apart from the weights that draw."""
        return {
            "pictures": self._count,
            "sample": self._recipe.sample.resolved(),
            "inception": self._inception_name,
            "clip": self._clip_name,
        }

    @cached_property
    def _chosen(self) -> tuple[list[str], list[Shape], list[int], list[bytes]]:
        """Captions, shapes and seeds of the pictures that are drawn, and the pictures of the captions, as PNG. Captions
        are spread evenly over the pictures that are held out, or over the stage's own where none are; where there are
        fewer, each is drawn several times."""
        data, count = stage_data(self._recipe, self._stage), self._count
        held, shapes = (data.rows, data.shapes) if data.held is None else (data.held.rows, data.held.shapes)
        reader = ShardReader(self._recipe.dataset_folder / "shards", held, copies=copies_of(self._recipe))
        chosen = np.linspace(0, held.num_rows - 1, min(count, held.num_rows)).astype(int).tolist()
        samples: list[tuple[Shape, Sample]] = []
        for row in chosen:
            try:
                samples.append((shapes[row], reader.read(row, shapes[row])))
            except DamagedSample as damage:
                log.warning("damaged sample, left out of what is measured: %s", damage)
        reader.close()
        if not samples:
            raise ValueError(f"stage {self._stage.name}: every picture to measure with is damaged; check the shards")
        drawn = [samples[number % len(samples)] for number in range(count)]
        return (
            [sample.mixed for _, sample in drawn],
            [shape for shape, _ in drawn],
            [counter(sample.image_id, f"measure/{n // len(samples)}") for n, (_, sample) in enumerate(drawn)],
            [png(sample.pixels) for _, sample in samples],
        )

    @cached_property
    def _reference(self) -> Features:
        return inception_features(self._chosen[3], PROTOCOL, network=self._inception)

    def measure(self, model: PixArt, recipe: TrainingRecipe) -> dict[str, Any]:
        """FID, KID, precision, recall and CLIP-Score of what a model draws; what cannot be measured here is left out.
        `recipe`: says how the model draws, and with which codec."""
        if self._inception is None and self._clip is None:
            return {}
        captions, shapes, seeds, _ = self._chosen
        pictures: list[bytes] = []
        for begin in range(0, len(captions), AT_ONCE):
            part = slice(begin, begin + AT_ONCE)
            drawn = draw(model, recipe, self._stage, captions[part], shapes[part], seeds[part])
            pictures += [png(pixels) for pixels in drawn]
        found: dict[str, Any] = {"num_pictures": len(pictures)}
        if (num := len(self._chosen[3])) < FEWEST:
            why = f"stage {self._stage.name} has {num} pictures to compare with, FID needs {FEWEST} or more"
            if self.missing.get("FID") != why:
                self.missing["FID"] = why
                log.warning("no FID: %s", why)
        elif self._inception is not None:
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
