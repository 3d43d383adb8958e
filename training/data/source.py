"""The source of a training sample: its shard, or stored features in place of its picture, its captions or both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from schemas.training import LATENT_DOWNSAMPLING
from training.data.order import Shape
from training.data.reader import ShardReader
from training.data.stored import MEND, StoredArrays


class CaptionsOf(Protocol):
    """The captions of a sample, as texts or as encoded texts, (tokens, channels)."""

    @property
    def mixed(self) -> str | Tensor:
        """The caption the dataset chose."""
        ...

    def caption(self, synthetic: bool) -> str | Tensor:
        """The synthetic or the raw caption; where that one is missing, the other."""
        ...


@dataclass(frozen=True)
class TrainingSample:
    """A picture and its captions, encoded or not.

    Attributes:
        picture: pixels (3, height, width) uint8, or stored moments (1 or 2, channels, h, w), float32 or bfloat16.
    """

    image_id: str
    picture: Tensor
    captions: CaptionsOf


class Source:
    """Reads samples of the index rows. Safe to share between threads.

    Args:
        latents, text: sets of features to use; None is the shard's own picture or captions.
    """

    def __init__(
        self,
        reader: ShardReader,
        latents: StoredArrays | None = None,
        text: StoredArrays | None = None,
    ) -> None:
        self._reader = reader
        self._latents, self._text = latents, text

    def __len__(self) -> int:
        return len(self._reader)

    def read(self, row: int, shape: Shape) -> TrainingSample:
        """The sample of an index row.

        Raises:
            DamagedSample: it cannot be used, or could not be when it was encoded.
            ValueError: index, shards or features do not fit each other.
        """
        entry = self._reader.entry(row)
        key, shard = entry.image_id, entry.shard
        stored = None if self._text is None else StoredCaptions(self._text, shard, key)
        if self._latents is None:
            sample = self._reader.read(row, shape)
            return TrainingSample(key, torch.from_numpy(sample.pixels), stored or sample)
        captions = stored or self._reader.captions(row)
        moments = self._latents.read(shard, key, "latents")
        cells = (shape[0] // LATENT_DOWNSAMPLING, shape[1] // LATENT_DOWNSAMPLING)
        if moments is None or tuple(moments.shape[2:]) != cells:
            what = "nothing" if moments is None else f"{tuple(moments.shape[2:])} latent cells"
            raise ValueError(f"{self._latents.folder / shard}: has {what} for {key}, not {cells}; {MEND}")
        return TrainingSample(key, moments, captions)

    def close(self) -> None:
        self._reader.close()


class StoredCaptions:
    """The encoded captions of a sample; only the one that is needed is read."""

    def __init__(self, arrays: StoredArrays, shard: str, key: str) -> None:
        self._arrays, self._shard, self._key = arrays, shard, key

    @property
    def mixed(self) -> Tensor:
        return self._first("mixed", "synthetic", "raw")

    def caption(self, synthetic: bool) -> Tensor:
        names = ("synthetic", "raw") if synthetic else ("raw", "synthetic")
        return self._first(*names, "mixed")

    def _first(self, *names: str) -> Tensor:
        found = (self._arrays.read(self._shard, self._key, name) for name in names)
        array = next((array for array in found if array is not None), None)
        if array is None:
            raise ValueError(f"{self._arrays.folder / self._shard}: has no caption of {self._key}; {MEND}")
        return array
