"""The FLOP formula against torch's counter, the published totals, and utilisation."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from training.flops import forward_flops, mfu, training_flops
from training.model import KVCompression, PixArt, PixArtConfig

TINY = {"depth": 3, "hidden_size": 32, "num_heads": 4, "caption_channels": 24, "max_caption_tokens": 12}
KV = KVCompression((1, 2), 2)


def counted(config: PixArtConfig, grid: tuple[int, int], text_tokens: int, device: str) -> int:
    with torch.device(device):
        model = PixArt(config)
        latents = torch.zeros(1, config.in_channels, grid[0] * config.patch_size, grid[1] * config.patch_size)
        caption, timestep = torch.zeros(1, text_tokens, config.caption_channels), torch.zeros(1)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(latents, timestep, caption)
    return counter.get_total_flops()


@pytest.mark.parametrize("kv", [None, KV])
@pytest.mark.parametrize("grid", [(4, 6), (7, 5)])
def test_tiny_equals_the_counter(kv, grid):
    config = PixArtConfig(**TINY, kv_compression=kv)
    assert forward_flops(config, grid, 12) == pytest.approx(counted(config, grid, 12, "meta"), rel=1e-3)


@pytest.mark.parametrize("kv", [None, KVCompression(tuple(range(14, 28)), 2)])
def test_xl_equals_the_counter(kv):
    config = PixArtConfig(kv_compression=kv)
    assert forward_flops(config, (64, 64), 300) == pytest.approx(counted(config, (64, 64), 300, "meta"), rel=1e-3)


@pytest.mark.parametrize(("side", "tera"), [(16, 0.999), (32, 3.866), (64, 19.90), (128, 157.1)])
def test_xl_totals(side, tera):
    assert training_flops(PixArtConfig(), (side, side), 300) / 1e12 == pytest.approx(tera, rel=1e-3)


def test_compression_saves_what_its_keys_cost():
    plain = training_flops(PixArtConfig(), (128, 128), 300)
    compressed = training_flops(PixArtConfig(kv_compression=KVCompression(tuple(range(14, 28)))), (128, 128), 300)
    assert 1 - compressed / plain == pytest.approx(0.248, abs=0.001)


def test_utilisation():
    assert mfu(100, 2e12, 1e15) == pytest.approx(0.2)
    with pytest.raises(ValueError, match="not positive"):
        mfu(1, 1, 0)
