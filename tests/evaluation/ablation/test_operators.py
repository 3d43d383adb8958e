"""What compresses keys and values in an ablation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from evaluation.ablation.operators import KeepFirst, compressing, remodelling
from training.model import KVCompression, PixArt, PixArtConfig


def model(layers: tuple[int, ...] = (1, 2), ratio: int = 2) -> PixArt:
    torch.manual_seed(0)
    compression = KVCompression(layers, ratio)
    small = PixArtConfig(depth=3, hidden_size=32, num_heads=2, caption_channels=8, max_caption_tokens=4, image_size=64)
    made = PixArt(replace(small, kv_compression=compression))
    torch.nn.init.normal_(made.final_layer.linear.weight, std=0.1)  # else nothing shows
    return made


def output(of: PixArt) -> torch.Tensor:
    torch.manual_seed(1)
    with torch.no_grad():
        return of.eval()(torch.randn(2, 4, 8, 8), torch.tensor([10, 900]), torch.randn(2, 4, 8))


def changed(operator: str, seed: int = 0) -> PixArt:
    made, remodel = model(), remodelling(operator, seed)
    assert remodel is not None
    remodel(made)
    return made


def test_average_pooling_is_what_the_convolution_begins_as() -> None:
    assert torch.allclose(output(changed("average")), output(model()), atol=1e-6)
    assert remodelling("conv", 0) is None


@pytest.mark.parametrize(("rows", "columns", "ratio"), [(4, 6, 2), (6, 6, 3), (5, 4, 2), (7, 8, 3)])
def test_discarding_keeps_the_first_token_of_each_window(rows: int, columns: int, ratio: int) -> None:
    image = torch.arange(rows * columns, dtype=torch.float32).reshape(1, 1, rows, columns).expand(2, 3, -1, -1)
    kept = KeepFirst(ratio)(image)
    assert kept.shape == (2, 3, rows // ratio, columns // ratio)
    windows = image.unfold(2, ratio, ratio).unfold(3, ratio, ratio)  # (B, C, rows // R, columns // R, R, R)
    assert torch.equal(kept, windows[..., 0, 0])
    assert kept.shape == torch.nn.functional.avg_pool2d(image, ratio).shape, "as the convolution drops the rest"


def test_discarding_and_a_random_start_give_other_pictures() -> None:
    conv = output(model())
    assert not torch.allclose(output(changed("discard")), conv, atol=1e-3)
    assert not torch.allclose(output(changed("random")), conv, atol=1e-3)


def test_a_random_start_is_a_function_of_the_seed() -> None:
    one, same, other = (compressing(changed("random", seed))[0].sr.weight for seed in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_only_the_layers_that_compress_are_changed_and_pooling_has_no_weights() -> None:
    keys = set(model().state_dict())
    pooled = set(changed("average").state_dict())
    assert keys - pooled == {f"blocks.{layer}.attn.sr.{name}" for layer in (1, 2) for name in ("weight", "bias")}
    assert len(compressing(changed("discard"))) == 2
