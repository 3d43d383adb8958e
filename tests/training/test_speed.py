"""Speed: the FLOPs of a step are those of its own bucket, captions and compression; peaks are found by name."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch

from training.flops import peak_flops_per_s, training_flops
from training.inputs import ModelInputs, padded
from training.model import KVCompression, PixArtConfig
from training.parallel.distributed import World
from training.speed import Speed

CONFIG = PixArtConfig(
    depth=2, hidden_size=32, num_heads=2, caption_channels=8, max_caption_tokens=9, kv_compression=KVCompression((1,))
)


def inputs_of(height: int, width: int, lengths: list[int]) -> ModelInputs:
    count = len(lengths)
    caption, mask = padded([torch.zeros(length, 8) for length in lengths])
    latents, timestep = torch.zeros(count, 4, height, width), torch.zeros(count)
    return ModelInputs(latents, latents, timestep, caption, mask, timestep > 0, torch.tensor(lengths))


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
