"""Share-Captioner with random weights, at its published size or as a toy; needs torch and transformers alone."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from captioning.captioners.share_captioner.dimensions import Dimensions, ResamplerChoices
from captioning.captioners.share_captioner.generation import Decoding, generate_ids
from captioning.captioners.share_captioner.model import ShareCaptionerModel

FULL = Dimensions(
    image_size=448,
    patch_size=14,
    vision_width=1408,
    vision_depth=39,
    vision_heads=16,
    vision_mlp=6144,
    vision_ln_eps=1e-6,
    ln_vision_eps=1e-5,
    num_queries=256,
    connector=ResamplerChoices(),
    connector_width=4096,
    hidden_size=4096,
    intermediate_size=11008,
    num_layers=32,
    num_heads=32,
    vocab_size=103168,
    rms_norm_eps=1e-5,
    rope_theta=10_000.0,
    max_positions=2048,
)
TINY = replace(
    FULL,
    image_size=112,
    vision_width=64,
    vision_depth=2,
    vision_heads=4,
    vision_mlp=128,
    num_queries=16,
    connector=ResamplerChoices(heads=4),
    connector_width=128,
    hidden_size=128,
    intermediate_size=256,
    num_layers=2,
    num_heads=4,
    vocab_size=2000,
)
IDS = (torch.arange(1, 7), torch.arange(10, 28))
"""As many ids before and after the picture as the published prompt has."""
NUM_PICTURES = 33_000_000


def random_model(dimensions: Dimensions, device: torch.device, dtype: torch.dtype) -> ShareCaptionerModel:
    """The model with random weights, made on the device."""
    with torch.device("meta"):
        model = ShareCaptionerModel(dimensions).to(dtype)
    model.to_empty(device=device).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        parameter.fill_(1.0) if "norm" in name or ".ln_" in name else parameter.normal_(std=0.05)
    head_dim = dimensions.hidden_size // dimensions.num_heads
    frequencies = dimensions.rope_theta ** (-torch.arange(0, head_dim, 2, device=device) / head_dim)
    model.language.model.rotary_emb.inv_freq = frequencies
    model.language.model.rotary_emb.original_inv_freq = frequencies
    return model


@torch.inference_mode()
def ids_of_pixels(model: ShareCaptionerModel, pixels: Tensor, decoding: Decoding) -> list[list[int]]:
    """Pixels on the model's device, as `preprocess` makes them, to ids; none ends before `max_new_tokens`."""
    before, after = (ids.to(pixels.device) for ids in IDS)
    prompt = model.prompt(model.encode_image(pixels), before, after)
    return generate_ids(model.language, prompt, decoding, range(len(pixels)), [])
