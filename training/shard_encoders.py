"""Encodes the samples of one shard: pictures to moments, captions to vectors. A process loads an encoder once."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing
from functools import partial
from threading import Lock
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
from torch import Tensor

from engine.ahead import ALONE, ahead, in_batches
from models.device import choose_device, coming_back, sent
from schemas.shard_index import ShardIndex
from schemas.training import TrainingRecipe
from training.data.captions import MIXED, RAW, SYNTHETIC, Captions
from training.data.reader import DamagedSample, ShardReader
from training.data.selection import Selection
from training.data.transform import shapes_of, to_unit_range
from training.encoders.base import TextEncoder
from training.encoders.make import codec_for, text_encoder_for
from training.encoders.pretrained import PIXELS_AT_ONCE
from training.features import FeatureSet
from training.stages import pixel_multiple

PIECES_AHEAD = 1024
"""Captions and ends of samples among which captions of one length are looked for. It bounds memory: 180 tokens of
T5-XXL in bf16 take 1.5 MB."""

Found = TypeVar("Found")


class Encoded(NamedTuple):
    """The features of a sample."""

    arrays: dict[str, Tensor]
    """By name, one object for equal ones."""
    damage: str | None = None
    """The reason where there are none."""
    cut: tuple[str, ...] = ()
    """Names of the captions that were cut."""


class LatentsEncoder:
    """Encodes pictures, cropped to a stage's shapes, to moments."""

    def __init__(self, recipe: TrainingRecipe, wanted: FeatureSet) -> None:
        assert wanted.stage is not None
        self._recipe, self._stage = recipe, wanted.stage
        self._codec = codec_for(recipe.latents, together=True)
        self._device = choose_device()
        together = max(1, PIXELS_AT_ONCE // wanted.stage.resolution**2) if self._device.type == "cuda" else 1
        self._at_once = recipe.features.pictures_at_once or together
        self._turn = Lock()

    def __call__(self, reader: ShardReader, rows: pa.Table) -> Iterator[Encoded]:
        stage = self._stage
        selection = Selection(ShardIndex.of(rows))
        shapes = shapes_of(selection, stage.resolution, pixel_multiple(self._recipe, stage), stage.multi_aspect)
        found = in_batches(
            lambda row: _or_damage(reader.read, row, shapes[row]),
            range(len(shapes)),
            self._moments,
            threads=self._recipe.data.threads,
            size=self._at_once,
            kind=lambda sample: None if isinstance(sample, str) else sample.pixels.shape,
            turn=self._turn,
        )
        for sample, moments in found:
            if isinstance(sample, str):
                yield Encoded({}, sample)
            elif moments is not None:
                yield Encoded({"latents": moments})

    def _moments(self, samples: list[Any]) -> Callable[[], Iterable[Tensor]]:
        pixels = to_unit_range(sent([sample.pixels for sample in samples], self._device))
        return coming_back(self._codec.moments(pixels))

    def null(self) -> None:
        return None


class TextFeaturesEncoder:
    """Encodes the chosen caption of a sample, unpadded; for a toss both, so that training still throws the coin."""

    def __init__(self, recipe: TrainingRecipe) -> None:
        self._encoder = text_encoder_for(recipe.text)
        self._at_once, self._toss = recipe.features.captions_at_once, recipe.data.captions == "toss"
        self._threads, self._turn = recipe.data.threads, Lock()

    def __call__(self, reader: ShardReader, rows: pa.Table) -> Iterator[Encoded]:
        def pieces() -> Iterator[str | Sample]:
            """Of each sample the texts, each once, then the sample."""
            read = partial(_or_damage, reader.captions)
            with closing(ahead(read, range(rows.num_rows), self._threads, PIECES_AHEAD)) as samples:
                for captions in samples:
                    named = {} if isinstance(captions, str) else by_name(captions, self._toss)
                    yield from dict.fromkeys(named.values())
                    yield Sample(captions, named)

        encoded: dict[str, Tensor] = {}
        for piece, vectors in encoded_texts(self._encoder, pieces(), self._at_once, self._threads, self._turn):
            if isinstance(piece, str):
                encoded[piece] = vectors
            elif isinstance(piece.captions, str):
                yield Encoded({}, damage=piece.captions)
            else:
                cut = tuple(name for name in piece.named if name in piece.captions.cut)
                yield Encoded({name: encoded[text] for name, text in piece.named.items()}, cut=cut)
                encoded = {}

    def null(self) -> Tensor:
        return self._encoder.null()


ShardEncoder = LatentsEncoder | TextFeaturesEncoder
"""What a process loads once, and calls once per shard for the features of each row, in order. It also gives the null
caption; None for latents."""


class Sample(NamedTuple):
    """What a sample has of captions: why none, or the text of each of its arrays."""

    captions: Captions | str
    named: dict[str, str]


def encoded_texts(
    encoder: TextEncoder,
    pieces: Iterable[Any],
    at_once: int | None,
    threads: int,
    turn: AbstractContextManager[Any] = ALONE,
) -> Generator[tuple[Any, Any], None, None]:
    """Each piece in order, with its vectors where it is a text. Texts of one length go through together. `at_once`:
    most texts; None is what the encoder likes best."""
    found = in_batches(
        lambda piece: (piece, encoder.tokens(piece) if isinstance(piece, str) else None),
        pieces,
        lambda batch: encoder.encoding([tokens for _, tokens in batch if tokens is not None]),
        threads=threads,
        size=at_once or encoder.at_once,
        kind=lambda prepared: None if prepared[1] is None else len(prepared[1]),
        within=PIECES_AHEAD,
        turn=turn,
    )
    return ((piece, vectors) for (piece, _), vectors in found)


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
