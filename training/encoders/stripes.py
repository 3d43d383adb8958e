"""The SDXL VAE on pictures whose feature maps fit no memory whole: the same sums, a stripe of rows at a time. Nothing
is blended and there is no seam. A convolution reads the rows next to its stripe, and a group norm has the mean and the
variance of the whole map, which are summed over the stripes first. What is left is rounding. On a CPU all sums are in
fp32, which is also the quicker there; `precision: bf16` halves what is kept. A map is kept, or its rows are computed
from the map before each time they are read. Sums of residual blocks are kept, in the place of the map before where they
can be; of the rest, what is larger than `KEPT_BYTES` is computed again. So 4K takes one map of 128 channels of all
pixels and one of 256 of a quarter: 3.2 GB in bf16, 6.4 GB in fp32."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:  # imported where it is used: it takes seconds
    from diffusers import AutoencoderKL

WHOLE_PX = 2**21
"""Pictures of more pixels go through in stripes, others whole: 1024 px whole, 2K and 4K not."""
STRIPE_NUMBERS = 2**25
"""Numbers of a stripe; a convolution holds a few stripes at a time."""
KEPT_BYTES = 2**30
"""Largest map that is kept besides the sums of blocks; a larger one is computed two or three times."""
_FEWEST_ROWS = 8
"""Of a stripe: more than the rows that two convolutions read beyond it."""


@dataclass(frozen=True)
class Map:
    """A feature map of one picture."""

    shape: tuple[int, int, int]
    """Channels, height and width."""
    dtype: torch.dtype
    """In which it is kept."""
    widest: int
    """Channels of the widest map that its rows are computed from, itself included."""
    rows: Callable[[int, int], Tensor]
    """(first, last) -> its rows from `first` up to `last`, (1, channels, last - first, width)."""
    tensor: Tensor | None = None
    """All of it, (1, channels, height, width), where it is kept."""

    @classmethod
    def of(cls, tensor: Tensor) -> Map:
        """A map that is kept."""
        _, channels, height, width = tensor.shape
        return cls(
            (channels, height, width), tensor.dtype, channels, lambda first, last: tensor[:, :, first:last], tensor
        )

    def stripes(self) -> Iterator[tuple[int, int, Tensor]]:
        """The map from top to bottom: first row, last row, and the rows."""
        _, height, width = self.shape
        step = max(_FEWEST_ROWS, STRIPE_NUMBERS // (self.widest * width))
        for first in range(0, height, step):
            last = min(first + step, height)
            yield first, last, self.rows(first, last)


def decode(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """(1, 4, h, w), unscaled -> (1, 3, 8h, 8w): what `vae.decode` gives, but for rounding."""
    decoder = cast(Any, vae.decoder)
    latents = latents if vae.post_quant_conv is None else vae.post_quant_conv(latents)
    found = Map.of(decoder.mid_block(decoder.conv_in(latents)))  # 64 times fewer cells than pixels: whole
    for block in decoder.up_blocks:
        for resnet in block.resnets:
            found = _resnet(found, resnet)
        for upsampler in block.upsamplers or ():
            found = _kept_if_small(_convolved(_doubled(found), upsampler.conv))
    return _kept(_convolved(_normed(found, decoder.conv_norm_out), decoder.conv_out))


def moments(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """(1, 3, H, W) -> (1, 8, H / 8, W / 8): the mean and the log variance that `vae.encode` makes, but for rounding."""
    encoder = cast(Any, vae.encoder)
    found = Map.of(_kept(_convolved(Map.of(pixels), encoder.conv_in)))
    for block in encoder.down_blocks:
        for resnet in block.resnets:
            found = _resnet(found, resnet)
        for downsampler in block.downsamplers or ():
            found = Map.of(_kept(_halved(found, downsampler.conv)))
    middle = encoder.conv_norm_out(encoder.mid_block(found.tensor))
    made = encoder.conv_out(F.silu(middle))
    return made if vae.quant_conv is None else vae.quant_conv(made)


def _resnet(before: Map, block: Any) -> Map:
    """A residual block, kept: in the place of the map before, if that is kept and as wide."""
    inner = _convolved(_normed(before, block.norm1), block.conv1)
    inner = _convolved(_normed(_kept_if_small(inner), block.norm2), block.conv2)
    if block.conv_shortcut is None:
        past, into = before, before.tensor
    else:
        past, into = _convolved(before, block.conv_shortcut), None
    both = Map(
        inner.shape, inner.dtype, inner.widest, lambda first, last: past.rows(first, last) + inner.rows(first, last)
    )
    return Map.of(_kept(both, into))


def _kept(found: Map, into: Tensor | None = None) -> Tensor:
    """All rows of a map, each stripe written once the next is computed: that one may still read what it replaces."""
    waiting: tuple[int, int, Tensor] | None = None
    for first, last, rows in found.stripes():
        if into is None:
            into = rows.new_empty(1, *found.shape, dtype=found.dtype)
        if waiting is not None:
            into[:, :, waiting[0] : waiting[1]] = waiting[2]
        waiting = first, last, rows
    assert into is not None and waiting is not None
    into[:, :, waiting[0] : waiting[1]] = waiting[2]
    return into


def _kept_if_small(found: Map) -> Map:
    is_small = math.prod(found.shape) * found.dtype.itemsize <= KEPT_BYTES
    return Map.of(_kept(found)) if is_small else found


def _normed(found: Map, norm: nn.GroupNorm) -> Map:
    """Group norm and SiLU, with the mean and the variance of the whole map (Chan et al. 1979, sums of parts)."""
    count, mean, squares = 0, torch.zeros(()), torch.zeros(())
    for _, _, rows in found.stripes():
        part = rows.float().reshape(norm.num_groups, -1)
        variance, middle = (value.double() for value in torch.var_mean(part, dim=1, correction=0))
        more = part.shape[1]
        apart = middle - mean.to(middle)
        squares = squares.to(middle) + variance * more + apart.square() * (count * more / (count + more))
        mean = mean.to(middle) + apart * (more / (count + more))
        count += more
    each = found.shape[0] // norm.num_groups
    scale = norm.weight.double() * (squares / count + norm.eps).rsqrt().repeat_interleave(each)
    shift = norm.bias.double() - mean.repeat_interleave(each) * scale
    by, plus = (value.float()[:, None, None] for value in (scale, shift))

    def rows_of(first: int, last: int) -> Tensor:
        return F.silu((found.rows(first, last).float() * by).add_(plus), inplace=True)

    return Map(found.shape, found.dtype, found.widest, rows_of)


def _convolved(found: Map, conv: nn.Conv2d) -> Map:
    """A convolution of stride 1 that keeps the size; zeros surround the map."""
    _, height, width = found.shape
    beyond = conv.kernel_size[0] // 2

    def rows_of(first: int, last: int) -> Tensor:
        top, bottom = max(first - beyond, 0), min(last + beyond, height)
        missing = (0, 0, top - (first - beyond), last + beyond - bottom)
        rows = found.rows(top, bottom)
        return _sums(F.pad(rows, missing) if any(missing) else rows, conv, padding=(0, beyond))

    return Map((conv.out_channels, height, width), conv.weight.dtype, max(found.widest, conv.out_channels), rows_of)


def _doubled(found: Map) -> Map:
    """Each cell twice across and twice down."""
    channels, height, width = found.shape

    def rows_of(first: int, last: int) -> Tensor:
        rows = F.interpolate(found.rows(first // 2, (last + 1) // 2), scale_factor=2.0, mode="nearest")
        return rows[:, :, first % 2 : first % 2 + last - first]

    return Map((channels, 2 * height, 2 * width), found.dtype, found.widest, rows_of)


def _halved(found: Map, conv: nn.Conv2d) -> Map:
    """A 3x3 convolution of stride 2; a row and a column of zeros follow the map."""
    _, height, width = found.shape

    def rows_of(first: int, last: int) -> Tensor:
        bottom = min(2 * last + 1, height)
        rows = F.pad(found.rows(2 * first, bottom), (0, 1, 0, 2 * last + 1 - bottom))
        return _sums(rows, conv, stride=2)

    widest = max(found.widest, conv.out_channels)
    return Map((conv.out_channels, height // 2, width // 2), conv.weight.dtype, widest, rows_of)


def _sums(rows: Tensor, conv: nn.Conv2d, *, stride: int = 1, padding: tuple[int, int] = (0, 0)) -> Tensor:
    dtype = torch.float32 if rows.device.type == "cpu" else conv.weight.dtype
    bias = None if conv.bias is None else conv.bias.to(dtype)
    return F.conv2d(rows.to(dtype), conv.weight.to(dtype), bias, stride, padding)
