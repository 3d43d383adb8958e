"""Position tables and timestep embeddings: published values, and the laws they obey."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.model import PixArt, PixArtConfig, load_weights
from training.model.embed import CaptionEmbedder, position_table, timestep_sinusoid


@pytest.mark.parametrize(
    ("name", "rows", "columns", "base", "pe"),
    [
        ("g8x8_pe1_base8", 8, 8, 8, 1.0),
        ("g6x10_pe1_base8", 6, 10, 8, 1.0),
        ("g10x6_pe2_base16", 10, 6, 16, 2.0),
        ("g4x4_pe0p5_base4", 4, 4, 4, 0.5),
    ],
)
def test_position_tables_equal_the_published_ones(published, name, rows, columns, base, pe):
    table = position_table(rows, columns, 64, base, pe)
    assert (table - published("pos_embed")[name]).abs().max() < 1e-6


@given(
    rows=st.integers(1, 12), columns=st.integers(1, 12), base=st.integers(1, 16), pe=st.sampled_from([0.5, 1.0, 2.0])
)
@settings(max_examples=25, deadline=None)
def test_coordinates_can_be_read_back(rows, columns, base, pe):
    """The highest frequency is 1, so its angle is the coordinate itself up to whole turns."""
    table = position_table(rows, columns, 16, base, pe).reshape(rows, columns, 16)
    for column in range(columns):
        expected = column * base / columns / pe
        angle = math.atan2(table[0, column, 0], table[0, column, 4])
        assert math.isclose(math.cos(angle - expected), 1, abs_tol=1e-9)
    for row in range(rows):
        expected = row * base / rows / pe
        angle = math.atan2(table[row, 0, 8], table[row, 0, 12])
        assert math.isclose(math.cos(angle - expected), 1, abs_tol=1e-9)


@given(rows=st.integers(1, 8), columns=st.integers(1, 8))
@settings(max_examples=20, deadline=None)
def test_interpolation_samples_the_same_field_more_densely(rows, columns):
    coarse = position_table(rows, columns, 32, 8, 1.0).reshape(rows, columns, 32)
    fine = position_table(2 * rows, 2 * columns, 32, 16, 2.0).reshape(2 * rows, 2 * columns, 32)
    assert torch.allclose(fine[::2, ::2], coarse, atol=1e-5)


def test_timestep_and_caption_embeddings_equal_the_published_ones(published, pixart_fixtures):
    case = published("case_a_square")
    config = PixArtConfig(depth=4, hidden_size=64, num_heads=4, caption_channels=32, max_caption_tokens=12)
    model = PixArt(config)
    load_weights(model, pixart_fixtures / "base.pth")
    t = model.t_embedder(case["timestep"])
    assert (t - case["tap_t_emb"]).abs().max() < 1e-5
    assert (model.t_block(t) - case["tap_t_block"]).abs().max() < 2e-5
    assert (model.y_embedder(case["caption"][:, 0]) - case["tap_y_proj"][:, 0]).abs().max() < 1e-5


def test_sinusoid_is_cosines_first_and_takes_fractions():
    values = timestep_sinusoid(torch.tensor([0.0, 949.05]))
    assert values.shape == (2, 256)
    assert values[0, :128].eq(1).all() and values[0, 128:].eq(0).all()
    assert math.isclose(values[1, 0], math.cos(949.05), abs_tol=1e-4)


def test_null_caption_is_not_trained():
    embedder = CaptionEmbedder(8, 16, 5)
    assert "y_embedding" not in dict(embedder.named_parameters())
    caption = torch.randn(2, 3, 8)
    dropped = embedder(caption, torch.tensor([True, False]))
    assert torch.allclose(dropped[0], embedder.y_proj(embedder.y_embedding[:3]), atol=1e-6)
    assert torch.allclose(dropped[1], embedder.y_proj(caption)[1], atol=1e-6)
