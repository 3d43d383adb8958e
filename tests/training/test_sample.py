"""The pieces of sampling that need no trained model: guidance's two halves, the grid, the measure of likeness."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from schemas.training import TrainingRecipe
from training.data.reader import Sample
from training.model import PixArt, PixArtConfig
from training.picture_grid import GAP_PX, write_grid
from training.sample import likenesses, noise_model


def picture(seed: int, height: int = 32, width: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8)


def test_pictures_are_recognised_as_their_own():
    samples = [Sample("x", None, None, image_id=str(i), pixels=picture(i)) for i in range(4)]
    own = [sample.pixels for sample in samples]
    values, recognised = likenesses(samples, own)
    assert recognised == 4 and np.allclose(values, 1)
    values, recognised = likenesses(samples, [own[1], own[0], own[3], own[2]])
    assert recognised == 0 and max(values) < 0.5


def test_the_grid_holds_every_picture_as_it_is(tmp_path):
    columns = [[picture(2 * i, 160, 240), picture(2 * i + 1, 160, 240)] for i in range(7)]
    write_grid(columns, tmp_path / "new" / "grid.png", per_row=3)
    canvas = np.asarray(Image.open(tmp_path / "new" / "grid.png"))
    assert canvas.shape == (3 * (2 * (160 + GAP_PX) + GAP_PX) + GAP_PX, 3 * (240 + GAP_PX) + GAP_PX, 3)
    assert np.array_equal(canvas[GAP_PX : GAP_PX + 160, GAP_PX : GAP_PX + 240], columns[0][0].transpose(1, 2, 0))
    below = GAP_PX + 160 + GAP_PX
    assert np.array_equal(canvas[below : below + 160, GAP_PX : GAP_PX + 240], columns[0][1].transpose(1, 2, 0))


def test_small_pictures_of_a_grid_are_enlarged_pixel_by_pixel(tmp_path):
    small = picture(0, 64, 64)
    write_grid([[small]], tmp_path / "grid.png")
    canvas = np.asarray(Image.open(tmp_path / "grid.png"))
    assert np.array_equal(canvas[GAP_PX : GAP_PX + 128 : 2, GAP_PX : GAP_PX + 128 : 2], small.transpose(1, 2, 0))


def test_the_unconditional_half_hears_no_caption(recipe_values):
    recipe = TrainingRecipe.from_mapping(recipe_values)
    model = PixArt(PixArtConfig(depth=1, hidden_size=16, num_heads=2, caption_channels=8, max_caption_tokens=4))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    mask, x, t = torch.ones(1, 3), torch.randn(1, 4, 4, 4), torch.tensor([500.0])
    outputs = {
        dropped: [
            noise_model(model, caption, mask, recipe, dropped=dropped)(x, t) for caption in torch.randn(2, 1, 3, 8)
        ]
        for dropped in (True, False)
    }
    assert torch.equal(*outputs[True]) and not torch.allclose(*outputs[False])
    assert outputs[True][0].shape == (1, 4, 4, 4)
