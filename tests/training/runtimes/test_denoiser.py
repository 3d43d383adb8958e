"""A model behind the interface of the runtimes: the numbers of sampling, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from training.runtimes.denoiser import eager


@torch.no_grad()
def test_eager_is_the_model_under_its_mask_for_captions_and_for_the_null_caption(model):
    latents, timestep = torch.randn(2, 4, 8, 12), torch.tensor([999.0, 20.5])
    padded = torch.randn(1, 30, 128).expand(2, -1, -1)
    mask = (torch.arange(30) < 7).expand(2, -1)
    denoise = eager(model)
    for drop, caption in ((False, padded[:1, :7]), (True, denoise.null(7))):
        expected = model(latents, timestep, padded, mask, torch.full((2,), drop))[:, :4]
        torch.testing.assert_close(denoise(latents, timestep, caption), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("cells", "tokens", "width", "why"),
    [
        ((8, 7), 3, 128, "64x56 px .* multiples of 16 from 64"),
        ((2, 4), 3, 128, "16x32 px .* multiples of 16 from 64"),
        ((2048, 4), 3, 128, "16384x32 px"),
        ((8, 8), 0, 128, "a caption of 0 tokens"),
        ((8, 8), 301, 128, "a caption of 301 tokens .* 1 to 300 of 128"),
        ((8, 8), 3, 16, "of 16 channels"),
    ],
)
def test_what_the_graph_cannot_draw_is_refused(model, cells, tokens, width, why):
    with pytest.raises(ValueError, match=why):
        eager(model)(torch.zeros(1, 4, *cells), torch.zeros(1), torch.zeros(1, tokens, width))
