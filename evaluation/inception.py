"""The Inception network of 2015-12-05 up to its last pooling: the features of FID, KID, precision and recall. Szegedy
et al., arXiv 1512.00567, as TensorFlow published it. It differs from torchvision's: average pools leave the border out,
the last block pools by the maximum, batch norms have no scale and an epsilon of 0.001."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from models.fetching import find_packaged
from models.weights import FID_INCEPTION, one_line

Width = Literal[64, 192, 768, 2048]
"""How many features a picture gets: the mean of each channel behind the first and the second pool, before the last
reduction, and at the end. FID is of 2,048."""
EPSILON = 1e-3
_TENSORS = "out_jit_module/data/"


class Convolution(nn.Module):
    """A convolution, the batch norm behind it folded into its weights, and ReLU."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(
        self, inputs: int, outputs: int, size: int | tuple[int, int], stride: int = 1, pad: bool = True
    ) -> None:
        super().__init__()
        height, width = (size, size) if isinstance(size, int) else size
        self.stride, self.padding = stride, (height // 2, width // 2) if pad else (0, 0)
        self.register_buffer("weight", torch.zeros(outputs, inputs, height, width))
        self.register_buffer("bias", torch.zeros(outputs))

    def take(self, kernel: np.ndarray, beta: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> None:
        """Fold one convolution and its batch norm, as published, in float64."""
        scale = 1 / np.sqrt(variance.astype(np.float64) + EPSILON)
        folded = kernel.reshape(self.weight.shape) * scale[:, None, None, None]
        self.weight = torch.from_numpy(folded.astype(np.float32))
        self.bias = torch.from_numpy((beta - mean * scale).astype(np.float32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, inputs, height, width) -> (n, outputs, ...)."""
        return functional.conv2d(x, self.weight, self.bias, self.stride, self.padding).relu_()


class Reduce(nn.Module):
    """A max pool that halves height and width."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, c, height, width) -> (n, c, about half, about half)."""
        return functional.max_pool2d(x, 3, stride=2)


class Smooth(nn.Module):
    """A pool that keeps height and width: the average without the border, or the maximum."""

    def __init__(self, maximum: bool = False) -> None:
        super().__init__()
        self.maximum = maximum

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, c, height, width) -> the same shape."""
        if self.maximum:
            return functional.max_pool2d(x, 3, stride=1, padding=1)
        return functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class Branches(nn.Module):
    """Several branches over one input, their channels side by side."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, c, height, width) -> the branches' channels."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)


def chain(inputs: int, *steps: tuple[int, int | tuple[int, int]], first: tuple[nn.Module, ...] = ()) -> nn.Sequential:
    """Convolutions of (outputs, size) one behind the other, which keep height and width."""
    layers = [*first]
    for outputs, size in steps:
        layers.append(Convolution(inputs, outputs, size))
        inputs = outputs
    return nn.Sequential(*layers)


def block_35(inputs: int, pooled: int) -> Branches:
    """Of 35 x 35: 1 x 1, 5 x 5, two 3 x 3, and a pool."""
    return Branches(
        chain(inputs, (64, 1)),
        chain(inputs, (48, 1), (64, 5)),
        chain(inputs, (64, 1), (96, 3), (96, 3)),
        chain(inputs, (pooled, 1), first=(Smooth(),)),
    )


def block_17(inner: int) -> Branches:
    """Of 17 x 17: 7 x 7 taken apart into rows and columns."""
    row, column = (1, 7), (7, 1)
    return Branches(
        chain(768, (192, 1)),
        chain(768, (inner, 1), (inner, row), (192, column)),
        chain(768, (inner, 1), (inner, column), (inner, row), (inner, column), (192, row)),
        chain(768, (192, 1), first=(Smooth(),)),
    )


def block_8(inputs: int, maximum: bool) -> Branches:
    """Of 8 x 8: rows and columns side by side."""

    def spread() -> Branches:
        return Branches(Convolution(384, 384, (1, 3)), Convolution(384, 384, (3, 1)))

    return Branches(
        chain(inputs, (320, 1)),
        nn.Sequential(Convolution(inputs, 384, 1), spread()),
        nn.Sequential(chain(inputs, (448, 1), (384, 3)), spread()),
        chain(inputs, (192, 1), first=(Smooth(maximum),)),
    )


class Inception(nn.Module):
    """Pictures to features. Load it with `Inception.load`; made without, its weights are zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.to_64 = nn.Sequential(
            Convolution(3, 32, 3, stride=2, pad=False),
            Convolution(32, 32, 3, pad=False),
            Convolution(32, 64, 3),
            Reduce(),
        )
        self.to_192 = nn.Sequential(Convolution(64, 80, 1), Convolution(80, 192, 3, pad=False), Reduce())
        to_17 = Branches(
            Convolution(288, 384, 3, stride=2, pad=False),
            nn.Sequential(chain(288, (64, 1), (96, 3)), Convolution(96, 96, 3, stride=2, pad=False)),
            Reduce(),
        )
        self.to_768 = nn.Sequential(
            *(block_35(192, 32), block_35(256, 64), block_35(288, 64), to_17),
            *(block_17(inner) for inner in (128, 160, 160, 192)),
        )
        to_8 = Branches(
            nn.Sequential(chain(768, (192, 1)), Convolution(192, 320, 3, stride=2, pad=False)),
            nn.Sequential(
                chain(768, (192, 1), (192, (1, 7)), (192, (7, 1))), Convolution(192, 192, 3, stride=2, pad=False)
            ),
            Reduce(),
        )
        self.to_2048 = nn.Sequential(to_8, block_8(1280, maximum=False), block_8(2048, maximum=True))

    def forward(self, x: torch.Tensor, width: Width = 2048) -> torch.Tensor:
        """Features (n, width) of pictures (n, 3, 299, 299) as `Protocol.network_input` gives them."""
        for stage, size in zip((self.to_64, self.to_192, self.to_768, self.to_2048), get_args(Width), strict=True):
            x = stage(x)
            if size == width:
                break
        return x.mean(dim=(2, 3))

    @classmethod
    def load(cls, path: Path | None = None) -> Inception:
        """The published network, whose tensors are read as numbers: the TorchScript around them is never run. `path`:
        the file of the package; None is the one that was fetched by name. Raises ValueError: it is not on this machine,
        or is another file than the one that was checked."""
        if path is None:
            path = find_packaged(FID_INCEPTION)  # it is checked there
        else:
            _check(path)
        network = cls()
        with zipfile.ZipFile(path) as archive:
            numbers = (np.frombuffer(archive.read(f"{_TENSORS}{place}"), "<f4") for place in range(4 * 94))
            network.take(numbers)
        return network.eval()

    def take(self, tensors: Iterator[np.ndarray]) -> None:
        """Fold the kernel, beta, mean and variance of every convolution, flat and one behind the other."""
        for layer in self.modules():
            if isinstance(layer, Convolution):
                layer.take(next(tensors), next(tensors), next(tensors), next(tensors))


def _check(path: Path) -> None:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(f"{path}: the weights of Inception cannot be read ({one_line(error)})") from None
    if digest != FID_INCEPTION.sha256:
        raise ValueError(
            f"{path}: its sha256 begins with {digest[:12]}, that of FID's Inception with "
            f"{FID_INCEPTION.sha256[:12]}: get it with `sigma weights get {FID_INCEPTION.name}`"
        )
