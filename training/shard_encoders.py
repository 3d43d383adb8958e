"""Encodes the samples of one shard: pictures to moments, captions to vectors. A process loads an encoder once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

import pyarrow as pa
import torch
from torch import Tensor

from engine.ahead import ahead
from models.device import choose_device
from schemas.shard_index import ShardIndex
from schemas.training import TrainingRecipe
from training.data.captions import MIXED, RAW, SYNTHETIC, Captions
from training.data.reader import DamagedSample, ShardReader
from training.data.selection import Selection
from training.data.transform import shapes_of, to_unit_range
from training.encoders.make import codec_for, text_encoder_for
from training.features import FeatureSet
from training.stages import pixel_multiple

CAPTIONS_AHEAD = 256
"""Samples whose captions are encoded together, which bounds memory: 2 x 180 tokens of T5-XXL in fp32 take 6 MB."""

Found = TypeVar("Found")


class Encoded(NamedTuple):
    """The features of a sample.

    Attributes:
        arrays: by name, one object for equal ones.
        damage: the reason where there are none.
        cut: names of the captions that were cut.
    """

    arrays: dict[str, Tensor]
    damage: str | None = None
    cut: tuple[str, ...] = ()


class ShardEncoder(Protocol):
    """An encoder that a process loads once and calls once per shard."""

    def __call__(self, reader: ShardReader, rows: pa.Table) -> Iterator[Encoded]:
        """The features of each row, in order."""
        ...

    def null(self) -> Tensor | None:
        """The null caption; None for latents."""
        ...


class LatentsEncoder:
    """Encodes pictures, cropped to a stage's shapes, to moments. Threads decode ahead of the codec."""

    def __init__(self, recipe: TrainingRecipe, wanted: FeatureSet) -> None:
        assert wanted.stage is not None
        self._recipe, self._stage = recipe, wanted.stage
        self._codec = codec_for(recipe.latents)
        self._device = choose_device()

    def __call__(self, reader: ShardReader, rows: pa.Table) -> Iterator[Encoded]:
        stage, threads = self._stage, self._recipe.data.threads
        selection = Selection(ShardIndex.of(rows))
        shapes = shapes_of(selection, stage.resolution, pixel_multiple(self._recipe, stage), stage.multi_aspect)
        read = partial(_or_damage, reader.read)
        for sample in ahead(lambda row: read(row, shapes[row]), range(len(shapes)), threads, window=2 * threads):
            if isinstance(sample, str):
                yield Encoded({}, sample)
                continue
            pixels = to_unit_range(torch.from_numpy(sample.pixels)[None].to(self._device))
            yield Encoded({"latents": self._codec.moments(pixels)[0]})

    def null(self) -> None:
        return None


class TextFeaturesEncoder:
    """Encodes the chosen caption of a sample, unpadded; for a toss both, so that training still throws the coin."""

    def __init__(self, recipe: TrainingRecipe) -> None:
        self._encoder = text_encoder_for(recipe.text)
        self._at_once, self._toss = recipe.features.captions_at_once, recipe.data.captions == "toss"

    def __call__(self, reader: ShardReader, rows: pa.Table) -> Iterator[Encoded]:
        for start in range(0, rows.num_rows, CAPTIONS_AHEAD):
            numbers = range(start, min(start + CAPTIONS_AHEAD, rows.num_rows))
            found = [_or_damage(reader.captions, row) for row in numbers]
            named = [{} if isinstance(captions, str) else by_name(captions, self._toss) for captions in found]
            texts = list(dict.fromkeys(text for arrays in named for text in arrays.values()))
            encoded = dict(zip(texts, self._encoder.encode_many(texts, self._at_once), strict=True))
            for captions, arrays in zip(found, named, strict=True):
                if isinstance(captions, str):
                    yield Encoded({}, damage=captions)
                    continue
                cut = tuple(name for name in arrays if name in captions.cut)
                yield Encoded({name: encoded[text] for name, text in arrays.items()}, cut=cut)

    def null(self) -> Tensor:
        return self._encoder.null()


def _or_damage(read: Callable[..., Found], *arguments: Any) -> Found | str:
    """The sample that `read` gives, or why it is damaged."""
    try:
        return read(*arguments)
    except DamagedSample as damage:
        return str(damage)


def by_name(captions: Captions, toss: bool) -> dict[str, str]:
    """The text of each array that a sample has."""
    if not toss:
        return {MIXED: str(captions.read(None).caption)}
    texts = {RAW: captions.raw, SYNTHETIC: captions.synthetic, MIXED: captions.mixed}
    return {name: text for name, text in texts.items() if text is not None}
