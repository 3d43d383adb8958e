"""A training recipe and an ablation that take seconds, and a network that stands in for Inception; fixtures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from evaluation import ruler
from schemas.ablation import AblationRecipe
from schemas.training import TrainingRecipe
from tests.training.conftest import photo, write_dataset

Made = tuple[TrainingRecipe, AblationRecipe]


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Those that this machine may have would be loaded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def six_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pictures: list[tuple[bytes, str | None, str | None]] = [(photo(i, 64, 64), f"words {i}", None) for i in range(6)]
    return write_dataset(tmp_path_factory.mktemp("six"), pictures, [(64, 64)] * 6)


@pytest.fixture
def made(six_pictures: Path, tmp_path: Path) -> Iterator[Callable[..., Made]]:
    """A training recipe of three stages, and an ablation of the last one with other knobs.

    They train on one thread: tiny tensors gain nothing from two, which wait for each other on a busy machine.
    """

    def make(training: dict[str, Any] | None = None, **knobs: Any) -> Made:
        values = {
            "dataset": str(six_pictures),
            "out": str(tmp_path / "run"),
            "model": {"depth": 2, "hidden_size": 32, "num_heads": 2},
            "latents": {"channels": 4},
            "text": {"channels": 16, "max_tokens": 8},
            "optimizer": {"lr": 1e-3, "warmup_steps": 0, "gradient_clip": 1.0},
            "data": {"batch": 2},
            "ema": {"decay": 0.5},
            "precision": "fp32",
            "sample": {"steps": 2},
            "log_every": 1,
            "validation": {"every": 1, "samples": 2, "timesteps": [300]},
            "stages": [
                {"name": "first", "resolution": 32, "steps": 2, "multi_aspect": False},
                {"name": "larger", "resolution": 64, "steps": 2, "multi_aspect": False},
                {"name": "compressed", "resolution": 64, "steps": 3, "multi_aspect": False},
            ],
        } | (training or {})
        base = {"train": "any", "out": str(tmp_path / "ablation"), "stage": "compressed", "points": 3, "pictures": 4}
        return TrainingRecipe.from_mapping(values), AblationRecipe.from_mapping(base | {"timing_rounds": 1} | knobs)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield make
    torch.set_num_threads(threads)


class Tiny(nn.Module):
    """A network with eight features that stands in for Inception: the means of the channels' halves."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat(
            [x.mean(dim=(2, 3)), x[:, :, :150].mean(dim=(2, 3)), x[:, :2, :, :150].mean(dim=(2, 3))], dim=1
        )


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: ruler.Ruler) -> nn.Module:
        return Tiny()

    found = cached_property(load)
    found.__set_name__(ruler.Ruler, "_inception")
    monkeypatch.setattr(ruler.Ruler, "_inception", found)
