"""The SDXL VAE in stripes gives what it gives whole, without a seam, and holds no map that it need not."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from schemas.training import Latents
from training.encoders import stripes
from training.encoders.make import codec_for

LEVEL = 2 / 255
"""One of the 256 levels of a picture in [-1, 1]."""


@pytest.fixture(scope="module")
def vae():
    """SDXL's architecture, 16 times narrower; norms that scale and shift, unlike fresh ones."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    made = AutoencoderKL(
        block_out_channels=(8, 16, 32, 32), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4, layers_per_block=2, norm_num_groups=8,
    ).eval().requires_grad_(False)  # fmt: skip
    for module in made.modules():
        if isinstance(module, torch.nn.GroupNorm):
            torch.nn.init.normal_(module.weight, mean=1, std=0.3)
            torch.nn.init.normal_(module.bias, std=0.3)
    return made


@pytest.fixture(params=[0, 2**30], ids=["computed again", "kept"])
def thin_stripes(monkeypatch, request):
    """Stripes of 8 rows where 8 channels are 96 px wide, so that a picture of 64 px has several at every depth."""
    monkeypatch.setattr(stripes, "STRIPE_NUMBERS", 8 * 8 * 96)
    monkeypatch.setattr(stripes, "KEPT_BYTES", request.param)


def uneven(*shape):
    """Noise whose mean and spread change over the picture: stripes with statistics of their own would differ."""
    torch.manual_seed(1)
    return torch.randn(shape) * torch.linspace(0.2, 3, shape[2])[:, None] + torch.linspace(-2, 2, shape[3])


@torch.no_grad()
@pytest.mark.parametrize("cells", [(24, 12), (9, 7), (1, 30)])
def test_a_picture_decoded_in_stripes_is_the_picture_decoded_whole(vae, thin_stripes, cells):
    latents = uneven(1, 4, *cells)
    whole, striped = vae.decode(latents).sample, stripes.decode(vae, latents)
    assert whole.std() > 30 * LEVEL
    assert (whole - striped).abs().max() < LEVEL / 100


@torch.no_grad()
@pytest.mark.parametrize("size", [(192, 96), (72, 56), (8, 240)])
def test_latents_encoded_in_stripes_are_those_encoded_whole(vae, thin_stripes, size):
    pixels = uneven(1, 3, *size).clamp(-1, 1)
    whole, striped = vae.encode(pixels).latent_dist.parameters, stripes.moments(vae, pixels)
    assert torch.allclose(whole, striped, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_in_bf16_stripes_are_as_near_to_fp32_as_the_whole_is(vae, thin_stripes):
    import copy

    latents, rough = uneven(1, 4, 24, 12), copy.deepcopy(vae).bfloat16()
    exact = vae.decode(latents).sample
    whole, striped = (
        (found.float() - exact).square().mean().sqrt()
        for found in (rough.decode(latents.bfloat16()).sample, stripes.decode(rough, latents.bfloat16()))
    )
    assert striped < 1.1 * whole


class Largest(TorchDispatchMode):
    """The numbers of the largest tensor that is made inside, and how many tensors are of more than `limit` numbers."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit, self.largest, self.num_large = limit, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and not made._is_view():
            self.largest = max(self.largest, made.numel())
            self.num_large += made.numel() > self.limit
        return made


@torch.no_grad()
def test_only_the_maps_between_blocks_are_ever_whole(vae, monkeypatch):
    monkeypatch.setattr(stripes, "STRIPE_NUMBERS", 8 * 8 * 128)
    monkeypatch.setattr(stripes, "KEPT_BYTES", 0)
    latents = torch.randn(1, 4, 16, 16)
    pixels = 128 * 128
    with Largest(limit=pixels * 4) as whole:
        vae.decode(latents)
    assert whole.largest == pixels * 16  # the upsampled map of the last stage
    with Largest(limit=pixels * 4) as striped:
        stripes.decode(vae, latents)
    assert striped.largest == pixels * 8  # 128 channels of all pixels, which SDXL's last blocks add to
    assert striped.num_large == 1


@torch.no_grad()
def test_a_stripe_is_as_wide_as_what_it_is_computed_from(vae, monkeypatch):
    """The last convolution has 3 channels: were these counted, its stripes would hold 8 channels of all rows."""
    monkeypatch.setattr(stripes, "STRIPE_NUMBERS", 8 * 8 * 64)
    found = stripes.Map.of(torch.randn(1, 8, 64, 64))
    last = stripes._convolved(stripes._normed(found, vae.decoder.conv_norm_out), vae.decoder.conv_out)
    assert [rows.shape for _, _, rows in last.stripes()] == [(1, 3, 8, 64)] * 8


def test_the_codec_takes_stripes_above_a_number_of_pixels_and_each_picture_alone(real_components, monkeypatch):
    codec = codec_for(Latents.from_mapping({"codec": "sdxl", "weights": str(real_components)}))
    latents, pixels = torch.randn(2, 4, 6, 10), torch.rand(2, 3, 48, 80) * 2 - 1
    whole = codec.decode(latents), codec.moments(pixels)
    used = []
    for name in ("decode", "moments"):
        real = getattr(stripes, name)
        monkeypatch.setattr(
            stripes, name, lambda vae, given, name=name, real=real: used.append(name) or real(vae, given)
        )
    assert torch.equal(codec.decode(latents), whole[0]) and torch.equal(codec.moments(pixels), whole[1])
    assert not used
    monkeypatch.setattr(stripes, "WHOLE_PX", 48 * 80 - 1)
    assert torch.allclose(codec.decode(latents), whole[0], atol=1e-5)
    assert torch.allclose(codec.moments(pixels), whole[1], atol=1e-4)
    assert used == ["decode", "decode", "moments", "moments"]
