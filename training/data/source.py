"""The source of a training sample: its shard, or stored features in place of its picture, its captions or both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from schemas.training import LATENT_DOWNSAMPLING
from training.data.cache import ShardCache
from training.data.captions import MIXED, SYNTHETIC, Read, preferred
from training.data.order import Shape
from training.data.reader import ShardReader
from training.data.selection import Selection
from training.data.stored import MEND, StoredArrays


class CaptionsOf(Protocol):
    """The captions of a sample, as texts or as encoded texts, (tokens, channels)."""

    @property
    def mixed(self) -> str | Tensor: ...

    def read(self, toss: bool | None) -> Read:
        """The caption that training reads; see `training.data.captions.preferred`."""


@dataclass(frozen=True)
class TrainingSample:
    """A picture and its captions, encoded or not. `picture`: pixels (3, height, width) uint8, or stored moments (1 or
    2, channels, h, w), float32 or bfloat16."""

    image_id: str
    picture: Tensor
    captions: CaptionsOf


class Source:
    """Reads samples of the index rows. Safe to share between threads. `latents`, `text`: sets of features to use; None
    is the shard's own picture or captions. `cache`: copies what is in a store."""

    def __init__(
        self,
        reader: ShardReader,
        latents: StoredArrays | None = None,
        text: StoredArrays | None = None,
        cache: ShardCache | None = None,
    ) -> None:
        self._reader = reader
        self._latents, self._text, self._cache = latents, text, cache

    def __len__(self) -> int:
        return len(self._reader)

    def over(self, rows: Selection) -> Source:
        """The same over other rows of the index."""
        return Source(self._reader.over(rows), self._latents, self._text)

    def read(self, row: int, shape: Shape) -> TrainingSample:
        """The sample of an index row. Raises DamagedSample: it cannot be used, or could not be when it was encoded.
        Raises ValueError: index, shards or features do not fit each other."""
        entry = self._reader.entry(row)
        key, shard = entry.image_id, entry.shard
        stored = None if self._text is None else StoredCaptions(self._text, shard, key, entry.caption_source)
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

    def reached(self, step: int) -> None:
        if self._cache is not None:
            self._cache.reached(step)

    def close(self) -> None:
        if self._cache is not None:
            self._cache.close()
        self._reader.close()


class StoredCaptions:
    """The encoded captions of a sample; one is read. `source`: which caption the mix chose, `raw` or `synthetic`."""

    def __init__(self, arrays: StoredArrays, shard: str, key: str, source: str | None) -> None:
        self._arrays, self._shard, self._key, self._source = arrays, shard, key, source

    @property
    def mixed(self) -> Tensor:
        caption = self.read(None).caption
        assert isinstance(caption, Tensor)
        return caption

    def read(self, toss: bool | None) -> Read:
        """The caption that training reads, (tokens, channels)."""
        for name in preferred(toss):
            array = self._arrays.read(self._shard, self._key, name)
            if array is not None:
                is_synthetic = SYNTHETIC in (name, self._source if name == MIXED else None)
                return Read(array, is_synthetic, self._arrays.is_cut(self._shard, self._key, name))
        raise ValueError(f"{self._arrays.folder / self._shard}: has no caption of {self._key}; {MEND}")
