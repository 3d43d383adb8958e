"""Batches that threads read, decode and draw ahead of training; the wait for them is measured."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from engine.ahead import ahead
from schemas.lru import Lru
from schemas.training import Data
from training.data.captions import Read
from training.data.chance import Chance
from training.data.order import BatchOrder, Shape
from training.data.reader import DamagedSample
from training.data.source import Source, TrainingSample

log = logging.getLogger(__name__)

ATTEMPTS = 20
"""Substitutes tried for one damaged sample before training stops."""


@dataclass(frozen=True)
class PaddedText:
    """Encoded captions (B, L, channels), filled up with zeros to the longest; `lengths` (B,) on the CPU."""

    tokens: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, captions: Sequence[Tensor]) -> PaddedText:
        """From captions of (L_i, channels)."""
        lengths = torch.tensor([len(caption) for caption in captions])
        return cls(torch.nn.utils.rnn.pad_sequence(list(captions), batch_first=True), lengths)

    @property
    def mask(self) -> Tensor:
        """(B, L) bool, true where a token is valid."""
        return torch.arange(self.tokens.shape[1]) < self.lengths[:, None]

    def pinned(self) -> PaddedText:
        return replace(self, tokens=self.tokens.pin_memory())


@dataclass(frozen=True)
class TrainingBatch:
    """The share of one process in one step: B pictures, each with R noise draws."""

    image_ids: list[str]
    """One per picture."""
    pictures: Tensor
    """Pixels (B, 3, height, width) uint8, or stored moments (B, 1 or 2, channels, h, w)."""
    captions: list[str] | PaddedText
    """One per picture, as text or encoded."""
    drop: Tensor
    """(B * R,) bool, true where the null caption takes the caption's place."""
    timestep: Tensor
    """(B * R,) in 0..999."""
    noise_seeds: list[int]
    """One per draw, B * R; `training.data.chance.noise` turns them into noise of the latents' shape."""
    shares: Tensor
    """(2,) shares of the captions that are synthetic, and that are shorter than what was written."""

    def pinned(self) -> TrainingBatch:
        """The same in page-locked memory, from which a GPU copies while it computes."""
        captions = self.captions if isinstance(self.captions, list) else self.captions.pinned()
        tensors = {name: getattr(self, name).pin_memory() for name in ("pictures", "drop", "timestep")}
        return replace(self, captions=captions, **tensors)


class SampleCache:
    """Keeps the samples that were used last, up to so many MiB; an epoch that fits is decoded once."""

    def __init__(self, source: Source, megabytes: int) -> None:
        self._source = source
        self._samples = Lru[tuple[int, Shape], TrainingSample](megabytes * 2**20, lambda sample: sample.picture.nbytes)

    def read(self, row: int, shape: Shape) -> TrainingSample:
        return self._samples.get((row, shape), partial(self._source.read, row, shape))


class Loader:
    """Iterates over one process's batches from a given step on. `pin`: in page-locked memory, for a GPU. `waited_s`:
    seconds that training has waited for data. `num_damaged`: samples that could not be used, each logged once."""

    def __init__(
        self,
        source: Source,
        order: BatchOrder,
        chance: Chance,
        data: Data,
        *,
        rank: int = 0,
        world_size: int = 1,
        pin: bool = False,
    ) -> None:
        self._source, self._cache = source, SampleCache(source, data.cache_mb)
        self._pin = pin
        self._order, self._chance, self._data = order, chance, data
        self._rank, self._world_size = rank, world_size
        self._damaged: set[int] = set()
        self._lock = threading.Lock()
        self.waited_s = 0.0

    @property
    def num_damaged(self) -> int:
        return len(self._damaged)

    def batches(self, first_step: int, last_step: int) -> Iterator[TrainingBatch]:
        """The batches of steps `first_step`..`last_step` - 1, prepared ahead on threads. Raises ValueError: the index
        does not fit its tars, or too many samples are damaged."""
        steps = range(first_step, last_step)
        prepared = ahead(self.prepare, steps, self._data.threads, window=self._data.prefetch)
        for step in steps:
            self._source.reached(step)
            started = time.perf_counter()
            batch = next(prepared)
            self.waited_s += time.perf_counter() - started
            yield batch

    def prepare(self, step: int) -> TrainingBatch:
        """This process's share of a step's batch: a pure function of the step."""
        with self._lock:  # the order plans one epoch at a time
            batch = self._order.batch(step).part(self._rank, self._world_size)
        repeats = self._data.timesteps_per_image
        samples, drops, timesteps, seeds = [], [], [], []
        captions: list[Read] = []
        for row, occurrence in zip(batch.rows.tolist(), batch.occurrences.tolist(), strict=True):
            sample = self._read(row, batch.shape)
            samples.append(sample)
            captions.append(sample.captions.read(self._toss(sample.image_id, batch.epoch)))
            for draw in range(occurrence * repeats, (occurrence + 1) * repeats):
                drop = self._chance.coin(sample.image_id, "drop", batch.epoch, draw) < self._data.caption_drop
                drops.append(drop)
                timesteps.append(self._chance.timestep(sample.image_id, batch.epoch, draw))
                seeds.append(self._chance.noise_seed(sample.image_id, batch.epoch, draw))
        texts = [read.caption for read in captions if isinstance(read.caption, str)]
        encoded = [read.caption for read in captions if isinstance(read.caption, Tensor)]
        made = TrainingBatch(
            image_ids=[sample.image_id for sample in samples],
            pictures=torch.stack([sample.picture for sample in samples]),
            captions=texts or PaddedText.of(encoded),
            drop=torch.tensor(drops),
            timestep=torch.tensor(timesteps),
            noise_seeds=seeds,
            shares=torch.tensor([read[1:] for read in captions], dtype=torch.float32).mean(dim=0),
        )
        return made.pinned() if self._pin else made

    def _toss(self, image_id: str, epoch: int) -> bool | None:
        """Whether the synthetic caption is read in an epoch; None where the dataset has chosen."""
        if self._data.captions == "mix":
            return None
        return self._chance.coin(image_id, "caption", epoch, 0) < self._data.synthetic_share

    def _read(self, row: int, shape: Shape) -> TrainingSample:
        for attempt in range(ATTEMPTS):
            candidate = self._order.substitute(row, attempt)
            try:
                return self._cache.read(candidate, shape)
            except DamagedSample as damage:
                self._note(candidate, damage)
        raise ValueError(f"{ATTEMPTS} samples in a row are damaged, the first at index row {row}; check the shards")

    def _note(self, row: int, damage: DamagedSample) -> None:
        with self._lock:
            if row in self._damaged:
                return
            self._damaged.add(row)
            count = len(self._damaged)
        log.warning("damaged sample, replaced by the next of its shape: %s", damage)
        if count > self._data.max_damaged:
            raise ValueError(
                f"{count} damaged samples, data.max_damaged allows {self._data.max_damaged}; the last: {damage}"
            )
