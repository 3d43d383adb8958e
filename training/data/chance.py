"""Every random choice of training, as a function of (seed, stage, epoch, image id, draw): nothing is carried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from schemas.ids import counter, unit_interval
from training.diffusion.schedule import NUM_TIMESTEPS


@dataclass(frozen=True)
class Chance:
    """The coins of one stage; the same arguments give the same answer on every machine and in any order."""

    seed: int
    stage: str

    def coin(self, image_id: str, purpose: str, epoch: int, draw: int) -> float:
        """Uniform in [0, 1)."""
        return unit_interval(image_id, self._salt(purpose, epoch, draw))

    def timestep(self, image_id: str, epoch: int, draw: int) -> int:
        """Uniform over 0..999."""
        return int(self.coin(image_id, "timestep", epoch, draw) * NUM_TIMESTEPS)

    def noise_seed(self, image_id: str, epoch: int, draw: int) -> int:
        return counter(image_id, self._salt("noise", epoch, draw))

    def _salt(self, purpose: str, epoch: int, draw: int) -> str:
        return f"{self.seed}/{self.stage}/{purpose}/{epoch}/{draw}"


def derived_seed(seed: int, purpose: str) -> int:
    """Another seed that depends on this one and the purpose alone, for noise that must not repeat the first's."""
    return counter(str(seed), purpose)


def noise(seeds: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise (len(seeds), *shape), each row from its own seed alone, drawn on the CPU."""
    generator = torch.Generator()
    return torch.stack([torch.randn(shape, generator=generator.manual_seed(seed)) for seed in seeds])
