"""Activation checkpointing gives the same gradients from less memory."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from training.model import KVCompression, PixArt, PixArtConfig
from training.model.recompute import COSTLY

CONFIG = PixArtConfig(
    depth=3, hidden_size=32, num_heads=2, caption_channels=16, max_caption_tokens=9, image_size=64,
    kv_compression=KVCompression((1, 2), 2),
)  # fmt: skip


def step(keep: str, bf16: bool) -> tuple[torch.Tensor, list[torch.Tensor], int]:
    """Output, gradients and matrix-product FLOPs of a training step."""
    torch.manual_seed(0)
    model = PixArt(CONFIG)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.activation_checkpointing = keep
    latents, caption = torch.randn(3, 4, 8, 12), torch.randn(3, 9, 16)
    mask = torch.arange(9) < torch.tensor([[2], [9], [5]])
    with FlopCounterMode(display=False) as counter:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            output = model(latents, torch.tensor([1.0, 500.0, 900.0]), caption, mask)
        output.float().square().mean().backward()
    return output, [parameter.grad for parameter in model.parameters()], counter.get_total_flops()


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("keep", ["selective", "full"])
def test_gradients_are_equal_to_the_bit(keep, bf16):
    plain, recomputed = step("none", bf16), step(keep, bf16)
    assert torch.equal(plain[0], recomputed[0])
    assert all(torch.equal(a, b) for a, b in zip(plain[1], recomputed[1], strict=True))


def test_selective_does_no_matrix_product_twice_and_full_does():
    none, selective, full = (step(keep, bf16=False)[2] for keep in ("none", "selective", "full"))
    assert selective == none
    assert full > 1.2 * none


def test_sampling_checkpoints_nothing(monkeypatch):
    monkeypatch.setattr("training.model.recompute.checkpoint", lambda *_, **__: pytest.fail("checkpointed"))
    model = PixArt(CONFIG)
    model.activation_checkpointing = "full"
    with torch.no_grad():
        model(torch.zeros(1, 4, 4, 4), torch.zeros(1), torch.zeros(1, 3, 16))


def test_every_kept_operation_exists_once():
    assert len(set(COSTLY)) == len(COSTLY)
