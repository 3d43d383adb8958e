"""Attention: compression against the published module, and what becomes of its keys."""

from __future__ import annotations

import torch

from training.model.blocks import SelfAttention
from training.model.convert import read_torch_file


def test_compressed_attention_equals_the_published_module(published, pixart_fixtures):
    case = published("case_c_attention_module")
    weights = read_torch_file(pixart_fixtures / "base.pth")["state_dict"]
    weights |= read_torch_file(pixart_fixtures / "kv_conv_delta.pth")["state_dict"]
    prefix = "blocks.2.attn."
    attention = SelfAttention(64, 4, kv_ratio=2)
    attention.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    grid = (int(case["hw"][0]), int(case["hw"][1]))
    assert (attention.compress(case["k"], grid) - case["k_compressed"]).abs().max() < 1e-5
    assert (attention.compress(case["v"], grid) - case["v_compressed"]).abs().max() < 1e-5
    assert (attention(case["x"], grid) - case["output"]).abs().max() < 1e-5


def test_average_init_averages_then_normalises():
    attention = SelfAttention(8, 2, kv_ratio=2)
    tokens = torch.randn(1, 4 * 6, 8)
    pooled = torch.nn.functional.avg_pool2d(tokens.transpose(1, 2).reshape(1, 8, 4, 6), 2).flatten(2).transpose(1, 2)
    expected = torch.nn.functional.layer_norm(pooled, (8,))
    assert torch.allclose(attention.compress(tokens, (4, 6)), expected, atol=1e-6)


def test_odd_grids_lose_their_last_line():
    attention = SelfAttention(8, 2, kv_ratio=2)
    assert attention.compress(torch.randn(3, 15, 8), (3, 5)).shape == (3, 2, 8)
    assert attention(torch.randn(3, 15, 8), (3, 5)).shape == (3, 15, 8)
