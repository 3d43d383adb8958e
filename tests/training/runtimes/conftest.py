"""What the tests of the runtimes share: one tiny model, traced once."""

from __future__ import annotations

import pytest
import torch

from training.model import KVCompression, PixArt, PixArtConfig
from training.runtimes.graph import traced


def tiny(depth: int = 2, kv: KVCompression = KVCompression(layers=(1,))) -> PixArt:  # noqa: B008
    """The published initialisation, but that no output is zero; its second block compresses keys and values."""
    torch.manual_seed(0)
    config = PixArtConfig(
        depth=depth,
        hidden_size=128,
        num_heads=2,
        caption_channels=128,
        max_caption_tokens=300,
        kv_compression=kv,
    )
    model = PixArt(config)
    for linear in (*(block.cross_attn.proj for block in model.blocks), model.final_layer.linear):
        torch.nn.init.xavier_uniform_(linear.weight)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="package")
def model() -> PixArt:
    return tiny()


@pytest.fixture(scope="package")
def program(model):
    return traced(model)
