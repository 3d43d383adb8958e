"""The Inception network: the originals' features and published values with the real weights, its shape without them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from evaluation.frechet import frechet_distance, moments
from evaluation.inception import EPSILON, Convolution, Inception
from evaluation.mmd import cubic_mmd
from evaluation.resize import INCEPTION_PROTOCOLS
from models.fetching import place_of
from models.weights import FID_INCEPTION
from tests.evaluation.conftest import Numbers

WEIGHTS = place_of(FID_INCEPTION)
needs_weights = pytest.mark.skipif(
    WEIGHTS is None, reason=f"get the weights with `sigma weights get {FID_INCEPTION.name}`"
)


@pytest.fixture(scope="module")
def network() -> Inception:
    return Inception.load(WEIGHTS)


@pytest.mark.slow
@needs_weights
def test_features_are_those_of_the_original(network: Inception, original: Numbers) -> None:
    numbers = original("inception_features")
    for name, key in (("clean", "clean_fid"), ("tensorflow", "legacy_tensorflow"), ("pytorch", "legacy_pytorch")):
        protocol = INCEPTION_PROTOCOLS[name]
        pictures = torch.stack([protocol.network_input(numbers[f"image_{which}"]) for which in numbers["names"]])
        with torch.inference_mode():
            found = network(pictures).numpy()
        apart = np.linalg.norm(found - numbers[key], axis=1) / np.linalg.norm(numbers[key], axis=1)
        assert apart.max() < 1e-4, name


@needs_weights
@pytest.mark.slow
def test_published_values_come_out(network: Inception) -> None:
    """The examples in the documentation of torchmetrics 1.9: FID of 64 features, and KID."""
    torch.manual_seed(42)
    convolutions = [layer for layer in network.modules() if isinstance(layer, Convolution)]
    torch.rand(sum(layer.weight.numel() for layer in convolutions) + 1008 * 2048 + 1008)  # its network's first weights
    sets = [torch.randint(low, high, (100, 3, 299, 299), dtype=torch.uint8) for low, high in ((0, 200), (100, 255))]

    small, whole = [], []
    with torch.inference_mode():
        for pictures in sets:
            depths = [network.to_64((part - 128.0) / 128) for part in pictures.split(10)]
            rest = torch.nn.Sequential(network.to_192, network.to_768, network.to_2048)
            small.append(moments(torch.cat([depth.mean(dim=(2, 3)) for depth in depths])))
            whole.append(torch.cat([rest(depth).mean(dim=(2, 3)) for depth in depths]).numpy())
    assert frechet_distance(*small[0], *small[1]) == pytest.approx(12.6388, abs=5e-5)
    values = []
    for _ in range(100):
        first, second = (rows[torch.randperm(100)[:50].numpy()] for rows in whole)
        values.append(cubic_mmd(first, second))
    assert (np.mean(values), np.std(values)) == pytest.approx((0.0312, 0.0025), abs=5e-5)


@pytest.mark.slow
def test_the_network_has_94_convolutions_and_gives_a_row_a_picture_at_every_depth() -> None:
    network = Inception()
    convolutions = [layer for layer in network.modules() if isinstance(layer, Convolution)]
    assert len(convolutions) == 94
    assert sum(layer.weight.numel() + layer.bias.numel() for layer in convolutions) == 21_768_352
    pictures = torch.zeros(2, 3, 299, 299)
    with torch.inference_mode():
        assert [tuple(network(pictures, width).shape) for width in (64, 192, 768)] == [(2, 64), (2, 192), (2, 768)]
        assert tuple(network(pictures[:1]).shape) == (1, 2048)


def test_a_folded_convolution_is_the_convolution_and_its_batch_norm() -> None:
    layer, random = Convolution(3, 4, (1, 7)), torch.Generator().manual_seed(1)
    kernel = torch.randn(4, 3, 1, 7, generator=random)
    beta, mean = torch.randn(2, 4, generator=random)
    variance = torch.rand(4, generator=random)
    layer.take(kernel.numpy().reshape(-1), beta.numpy(), mean.numpy(), variance.numpy())
    x = torch.randn(2, 3, 5, 9, generator=random)
    plain = functional.conv2d(x, kernel, padding=(0, 3))
    normed = functional.batch_norm(plain, mean, variance, None, beta, eps=EPSILON)
    torch.testing.assert_close(layer(x), normed.relu())


def test_tensors_are_taken_in_the_order_of_the_file() -> None:
    network = Inception()
    convolutions = [layer for layer in network.modules() if isinstance(layer, Convolution)]

    def numbered() -> Iterator[np.ndarray]:
        for place, layer in enumerate(convolutions):
            outputs = len(layer.bias)
            yield np.zeros(layer.weight.numel(), np.float32)
            yield np.full(outputs, place, np.float32)
            yield np.zeros(outputs, np.float32)
            yield np.ones(outputs, np.float32)

    network.take(numbered())
    assert [int(layer.bias[0]) for layer in convolutions] == list(range(94))
    assert [tuple(layer.weight.shape[:2]) for layer in convolutions[:6]] == [
        (32, 3), (32, 32), (64, 32), (80, 64), (192, 80), (64, 192)
    ]  # fmt: skip


def test_other_weights_are_refused_and_missing_ones_say_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "default_1.pt").write_bytes(b"another file")
    with pytest.raises(ValueError, match=r"its sha256 begins with .* `sigma weights get fid-inception`"):
        Inception.load(tmp_path / "default_1.pt")
    with pytest.raises(ValueError, match="cannot be read"):
        Inception.load(tmp_path / "none.pt")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"weights missing: .* `sigma weights get fid-inception`"):
        Inception.load()
