"""The whole model against the published one, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from training.model import KVCompression, PixArt, PixArtConfig, load_weights
from training.model.convert import read_torch_file

TOLERANCE = 2e-5


def tiny(image_size: int = 128, pe: float = 1.0, kv: KVCompression | None = None, **knobs) -> PixArt:
    config = PixArtConfig(
        depth=4, hidden_size=64, num_heads=4, caption_channels=32, max_caption_tokens=12, image_size=image_size,
        pe_interpolation=pe, kv_compression=kv, **knobs,
    )  # fmt: skip
    return PixArt(config).eval()


def answer(model: PixArt, case: dict, suffix: str = "", **changes) -> torch.Tensor:
    inputs = {
        "latents": case[f"latents{suffix}"],
        "timestep": case[f"timestep{suffix}"],
        "caption": case[f"caption{suffix}"][:, 0],
        "caption_mask": case[f"attention_mask{suffix}"][:, 0, 0],
    } | changes
    with torch.no_grad():
        return model(**inputs)


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a - b).abs().max().item()


@pytest.mark.parametrize(
    ("case", "size", "pe"),
    [
        ("case_a_square", 128, 1.0),
        ("case_a_diffusers", 128, 1.0),
        ("case_b_wide", 128, 1.0),
        ("case_b_tall", 128, 1.0),
        ("case_e_pe0p5", 128, 0.5),
        ("case_e_pe1", 256, 1.0),
        ("case_e_pe2", 384, 2.0),
    ],
)
def test_output_equals_the_published_models(published, pixart_fixtures, case, size, pe):
    model = tiny(size, pe)
    load_weights(model, pixart_fixtures / "base.pth")
    inputs = published(case) if "latents" in published(case) else published("case_a_square")
    assert distance(answer(model, inputs), published(case)["output"]) < TOLERANCE


def test_a_wide_picture_at_doubled_interpolation_equals_the_published_model(published, pixart_fixtures):
    model = tiny(384, 2.0)
    load_weights(model, pixart_fixtures / "base.pth")
    case = published("case_e_pe2")
    assert distance(answer(model, case, "_wide"), case["output_wide"].float()) < 4e-3  # stored as float16


def test_no_mask_means_every_token(published, pixart_fixtures):
    model = tiny()
    load_weights(model, pixart_fixtures / "base.pth")
    case = published("case_a_square")
    assert distance(answer(model, case, caption_mask=None), case["output_nomask"]) < TOLERANCE


def test_dropped_caption_keeps_its_mask(published, pixart_fixtures):
    model = tiny()
    load_weights(model, pixart_fixtures / "base.pth")
    case, dropped = published("case_a_square"), published("case_a_dropped_caption")
    drop = torch.tensor([True, False, False])
    assert distance(answer(model, case, drop_caption=drop), dropped["output"]) < TOLERANCE


@pytest.mark.parametrize("shape", ["square", "wide"])
def test_kv_compression_equals_the_published_models(published, pixart_fixtures, tmp_path, shape):
    weights = read_torch_file(pixart_fixtures / "base.pth")["state_dict"]
    weights |= read_torch_file(pixart_fixtures / "kv_conv_delta.pth")["state_dict"]
    torch.save({"state_dict": weights}, tmp_path / "merged.pth")
    model = tiny(kv=KVCompression((2, 3), 2))
    report = load_weights(model, tmp_path / "merged.pth")
    assert report.initialised == ()
    case = published(f"case_c_kvconv_{shape}")
    assert distance(answer(model, case), case["output"]) < TOLERANCE


@pytest.mark.parametrize("shape", ["square", "wide"])
def test_conv_avg_init_equals_the_published_models(published, pixart_fixtures, shape):
    model = tiny(kv=KVCompression((2, 3), 2))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)  # loading must set the new tensors, not leave what was there
    report = load_weights(model, pixart_fixtures / "base.pth")
    assert len(report.initialised) == 8
    case = published(f"case_d_kvconv_avginit_{shape}")
    assert distance(answer(model, case), case["output"]) < TOLERANCE
    assert distance(answer(model, case), case["output_no_compress"]) > 1e-3


def test_xl_has_the_published_number_of_parameters():
    with torch.device("meta"):
        plain = PixArt(PixArtConfig())
        compressed = PixArt(PixArtConfig(kv_compression=KVCompression(tuple(range(14, 28)), 2)))
    count = sum(p.numel() for p in plain.parameters())
    assert count == 610_856_096
    assert sum(p.numel() for p in compressed.parameters()) - count == 112_896


def test_a_new_model_predicts_zero_and_ignores_the_caption():
    model = tiny(in_channels=12)
    output = model(torch.randn(2, 12, 6, 8), torch.tensor([3.0, 500.5]), torch.randn(2, 5, 32), torch.ones(2, 5))
    assert output.shape == (2, 24, 6, 8)
    assert output.abs().max() == 0
    assert all(block.cross_attn.proj.weight.abs().max() == 0 for block in model.blocks)


def test_position_table_is_made_once_per_grid():
    model = tiny()
    x = torch.zeros(1)
    assert model.positions((3, 5), x) is model.positions((3, 5), x)
    assert model.positions((5, 3), x) is not model.positions((3, 5), x)


def test_the_model_refuses_what_does_not_fit_its_config():
    with pytest.raises(ValueError, match="hidden_size 30 is not divisible by num_heads 4"):
        PixArtConfig(hidden_size=30, num_heads=4)
    with pytest.raises(ValueError, match=r"layers \[4\] are outside the model's 0..3"):
        tiny(kv=KVCompression((3, 4), 2))
    with pytest.raises(ValueError, match="ratio 1 compresses nothing"):
        tiny(kv=KVCompression((3,), 1))
    model = tiny()
    with pytest.raises(ValueError, match="5x4 cells do not divide into patches of 2x2"):
        model(torch.zeros(1, 4, 5, 4), torch.zeros(1), torch.zeros(1, 3, 32))
    with pytest.raises(ValueError, match="13 tokens, the model takes 12"):
        model(torch.zeros(1, 4, 4, 4), torch.zeros(1), torch.zeros(1, 13, 32))
