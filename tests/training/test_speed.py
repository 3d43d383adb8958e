"""The FLOP formula against torch's counter and the published totals; the FLOPs of a step; peaks by a GPU's name."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from training.data.loader import PaddedText
from training.inputs import ModelInputs
from training.model import KVCompression, PixArt, PixArtConfig
from training.parallel.distributed import World
from training.speed import Speed, forward_flops, mfu, peak_flops_per_s, training_flops

TINY = {"depth": 3, "hidden_size": 32, "num_heads": 4, "caption_channels": 24, "max_caption_tokens": 12}
KV = KVCompression((1, 2), 2)
CONFIG = PixArtConfig(
    depth=2, hidden_size=32, num_heads=2, caption_channels=8, max_caption_tokens=9, kv_compression=KVCompression((1,))
)


def inputs_of(height: int, width: int, lengths: list[int]) -> ModelInputs:
    count = len(lengths)
    text = PaddedText.of([torch.zeros(length, 8) for length in lengths])
    latents, timestep = torch.zeros(count, 4, height, width), torch.zeros(count)
    return ModelInputs(latents, latents, timestep, text.tokens, text.mask, timestep > 0, text.lengths)


def test_each_step_counts_with_its_own_shape(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    loader = SimpleNamespace(waited_s=5.0)
    speed = Speed(CONFIG, loader, World(0, 2, torch.device("cpu")))
    speed.count(1, inputs_of(8, 12, [3, 7]))  # one picture, two draws
    speed.count(2, inputs_of(16, 4, [1, 1]))
    now[0], loader.waited_s = 2.0, 5.5
    work = training_flops(CONFIG, (4, 6), 3) + training_flops(CONFIG, (4, 6), 7) + 2 * training_flops(CONFIG, (8, 2), 1)
    values = speed.read()
    assert values == {"images_per_s": 3.0, "wait_share": 0.25, "tflops_per_s": pytest.approx(work / 2 / 1e12)}
    speed.restart()
    now[0] = 3.0
    assert speed.read() == {"images_per_s": 0.0, "wait_share": 0.0, "tflops_per_s": 0.0}


def test_on_a_known_gpu_there_is_a_share_of_its_peak(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100-SXM4-80GB")
    speed = Speed(CONFIG, SimpleNamespace(waited_s=0.0), World(0, 1, torch.device("cuda", 0)))
    speed.count(1, inputs_of(8, 8, [4]))
    now[0] = 1e-6
    assert speed.read()["mfu"] == pytest.approx(training_flops(CONFIG, (4, 4), 4) / 1e-6 / 312e12)


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A800-SXM4-80GB", 312),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
        ("NVIDIA GeForce RTX 4090", 165),
        ("Tesla T4", None),
        ("NVIDIA A1000", None),
    ],
)
def test_peaks_by_the_name_that_torch_gives(name, tera):
    peak = peak_flops_per_s(name)
    assert peak == (None if tera is None else tera * 1e12)


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
def test_flops_of_a_tiny_model_equal_the_counter(kv, grid):
    config = PixArtConfig(**TINY, kv_compression=kv)
    assert forward_flops(config, grid, 12) == pytest.approx(counted(config, grid, 12, "meta"), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kv", [None, KVCompression(tuple(range(14, 28)), 2)])
def test_flops_of_xl_equal_the_counter(kv):
    config = PixArtConfig(kv_compression=kv)
    assert forward_flops(config, (64, 64), 300) == pytest.approx(counted(config, (64, 64), 300, "meta"), rel=1e-3)


@pytest.mark.parametrize(("side", "tera"), [(16, 0.999), (32, 3.866), (64, 19.90), (128, 157.1)])
def test_flops_of_xl_have_the_published_totals(side, tera):
    assert training_flops(PixArtConfig(), (side, side), 300) / 1e12 == pytest.approx(tera, rel=1e-3)


def test_compression_saves_what_its_keys_cost():
    plain = training_flops(PixArtConfig(), (128, 128), 300)
    compressed = training_flops(PixArtConfig(kv_compression=KVCompression(tuple(range(14, 28)))), (128, 128), 300)
    assert 1 - compressed / plain == pytest.approx(0.248, abs=0.001)


def test_mfu_is_the_share_of_the_peak():
    assert mfu(100, 2e12, 1e15) == pytest.approx(0.2)
    with pytest.raises(ValueError, match="not positive"):
        mfu(1, 1, 0)
