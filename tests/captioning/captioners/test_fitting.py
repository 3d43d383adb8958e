"""The batch that a device has room for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from captioning.captioners import fitting
from captioning.captioners.fitting import FEW, MANY, MOST, ON_CPU, batch_size_for, room_for

MB = 10**6


@pytest.mark.parametrize(
    ("free_gb", "expected"),
    [(60, MOST), (20, 37), (5, 9), (0.6, 1), (0.01, 1)],
)
def test_the_batch_follows_the_free_memory(free_gb: float, expected: int) -> None:
    """A prompt of 200 MB and 0.5 MB a token, 500 tokens at most: 0.45 GB a picture."""
    few, many = (200 * MB + tokens * MB // 2 for tokens in (FEW, MANY))
    assert room_for(int(free_gb * 1e9), few, many, 500) == expected


def test_longer_captions_make_smaller_batches_and_shorter_ones_than_the_probe_none_larger() -> None:
    few, many = 100 * MB, 100 * MB + (MANY - FEW) * MB
    sizes = [room_for(4 * 10**9, few, many, tokens) for tokens in (1, FEW, 100, 1000)]
    assert sizes == [34, 34, 17, 3]


def test_noise_in_the_probe_takes_nothing_away_from_a_caption() -> None:
    """The longer run may reserve less: then a token costs nothing, and never less."""
    assert room_for(10**9, 100 * MB, 90 * MB, 500) == 8


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Memory of a GPU of which 40 GB are free: 14 GB of weights, and a caption's as of the tests above."""
    counts = {"peak": 0}

    def write(tokens: int) -> None:
        counts["peak"] = max(counts["peak"], 14_000 * MB + 200 * MB + tokens * MB // 2)

    def reset(_device: Any) -> None:
        counts["peak"] = 14_000 * MB

    monkeypatch.setattr("torch.cuda.empty_cache", lambda: None)
    monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", reset)
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda _: 14_000 * MB)
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda _: counts["peak"])
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (20_000 * MB, 80_000 * MB))
    yield write


def test_a_gpu_is_tried_with_two_lengths(gpu: Callable[[int], None]) -> None:
    lengths: list[int] = []

    def noted(tokens: int) -> None:
        lengths.append(tokens)
        gpu(tokens)

    assert batch_size_for(torch.device("cuda", 0), 500, noted) == 37
    assert lengths == [FEW, MANY]


def test_a_cpu_is_not_tried() -> None:
    assert batch_size_for(torch.device("cpu"), 500, pytest.fail) == ON_CPU == fitting.ON_CPU
