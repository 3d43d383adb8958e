"""The compiled block: the eager one's numbers, and one graph for every grid, batch and caption length."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.utils import counters

from training.model import PixArt, PixArtConfig

pytestmark = pytest.mark.slow

CONFIG = PixArtConfig(depth=2, hidden_size=16, num_heads=2, caption_channels=8, max_caption_tokens=9, image_size=64)
SHAPES = [(2, 8, 10, (3, 8)), (3, 10, 12, (2, 7, 5)), (2, 12, 6, (9, 4))]
"""Pictures, latent rows and columns, caption lengths."""


def test_compiled_equals_eager_and_is_compiled_once_for_all_shapes():
    """Captured and differentiated as always, but run by kernels that need no C++ compiler, which takes a minute."""
    torch._dynamo.reset()
    counters.clear()
    torch.manual_seed(0)
    eager, compiled = PixArt(CONFIG), PixArt(CONFIG)
    for parameter in eager.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    compiled.load_state_dict(eager.state_dict())
    compiled.compile_blocks(backend="aot_eager")
    assert list(compiled.state_dict()) == list(eager.state_dict())  # names are the published ones still

    for batch, rows, columns, lengths in SHAPES:
        latents, caption = torch.randn(batch, 4, rows, columns), torch.randn(batch, 9, 8)
        mask = torch.arange(9) < torch.tensor(lengths)[:, None]
        answers = []
        for model in (eager, compiled):
            model.zero_grad()
            answers.append(model(latents, torch.full((batch,), 500.0), caption, mask))
            answers[-1].square().mean().backward()
        assert torch.allclose(*answers, atol=1e-5)
        for a, b in zip(eager.parameters(), compiled.parameters(), strict=True):
            assert torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-5 * float(a.grad.abs().max()))
        assert counters["stats"]["unique_graphs"] == 1
