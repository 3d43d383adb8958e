"""The memory formula against what a real step allocates, and the choice it leads to."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch.profiler import ProfilerActivity, profile, record_function

from schemas.training import TrainingRecipe
from training.came import CAME
from training.diffusion import training_loss
from training.memory import came_state, fitting, predict
from training.model import KVCompression, PixArt, PixArtConfig
from training.train import train

pytestmark = pytest.mark.slow

GRID, TOKENS, BATCH = (16, 24), 12, 4
KV = KVCompression((0, 1, 2, 3), 2)


def config(kv: KVCompression | None) -> PixArtConfig:
    return PixArtConfig(
        depth=4, hidden_size=144, num_heads=2, caption_channels=96, max_caption_tokens=TOKENS, image_size=256,
        kv_compression=kv,
    )  # fmt: skip


class Measured(NamedTuple):
    """Bytes over what was there before the step: after the forward pass, and at most."""

    after_forward: int
    peak: int


def measured(of: PixArtConfig, keep: str, bf16: bool) -> Measured:
    """Replay of every allocation of a real step."""
    model = PixArt(of)
    model.activation_checkpointing = keep
    latents, caption = torch.randn(BATCH, 4, 2 * GRID[0], 2 * GRID[1]), torch.randn(BATCH, TOKENS, of.caption_channels)
    mask = torch.arange(TOKENS) < torch.tensor([TOKENS, TOKENS - 2, TOKENS - 2, TOKENS - 2])[:, None]
    timestep = torch.randint(0, 1000, (BATCH,))
    model.positions(GRID, latents)  # tables are no activations
    training_loss(torch.randn(BATCH, 8, *latents.shape[2:]), latents, latents, timestep)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            output = model(latents, timestep, caption, mask)
        with record_function("forward is done"):
            pass
        training_loss(output, latents, latents, timestep).loss.mean().backward()
    events = profiler.profiler.kineto_results.events()
    (done,) = (event.start_ns() for event in events if event.name() == "forward is done")
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    live = peak = after_forward = 0
    for time_ns, num_bytes in changes:
        live += num_bytes
        peak = max(peak, live)
        after_forward = live if time_ns < done else after_forward
    return Measured(after_forward, peak)


@pytest.mark.parametrize("keep", ["none", "selective", "full"])
@pytest.mark.parametrize("kv", [None, KV], ids=["plain", "compressed"])
@pytest.mark.parametrize("bf16", [True, False], ids=["bf16", "fp32"])
def test_activations_and_peak_are_as_predicted(keep, kv, bf16):
    real, formula = measured(config(kv), keep, bf16), predict(config(kv), GRID, TOKENS, BATCH, keep, bf16=bf16)
    casts = formula.casts if keep == "none" else 0  # autocast drops its copies when the forward pass ends
    assert casts + formula.activations == pytest.approx(real.after_forward, rel=0.05)
    assert casts + formula.activations + formula.working == pytest.approx(real.peak, rel=0.06)


def test_state_of_the_optimizer_is_as_predicted():
    model = PixArt(config(KV))
    optimizer = CAME(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    real = sum(table.numel() for state in optimizer.state.values() for table in state.values())
    assert came_state(model.parameters()) == real


def test_xl_keeps_what_the_layers_keep():
    """54 bytes per channel, token and block, two heads' statistics, and the states of 611 million weights."""
    xl = PixArtConfig(image_size=1024, pe_interpolation=2.0)
    none, full = (predict(xl, (64, 64), 300, 12, keep) for keep in ("none", "full"))
    assert none.weights == 4 * 610_856_096
    assert none.activations == pytest.approx(12 * 28 * 4096 * 54 * 1152, rel=0.05)
    assert none.activations > 10 * full.activations
    assert none.total > full.total > none.weights + none.average + none.optimizer


def test_on_a_cpu_auto_is_none_and_a_wish_is_obeyed(recipe_values):
    recipe = TrainingRecipe.from_mapping(recipe_values)
    model = PixArt(config(None))
    assert fitting(recipe, recipe.stages[0], model, 1) == "none"
    wished = recipe.model_copy(update={"activation_checkpointing": "full"})
    assert fitting(wished, recipe.stages[0], model, 1) == "full"


def test_a_stage_trains_to_the_same_numbers_whatever_is_kept(recipe_values, tmp_path):
    numbers = []
    for keep in ("auto", "selective", "full"):
        values = recipe_values | {"out": str(tmp_path / keep), "activation_checkpointing": keep}
        summaries = train(TrainingRecipe.from_mapping(values))
        numbers.append([(summary.first_loss, summary.last_loss) for summary in summaries])
    assert numbers[0] == numbers[1] == numbers[2]
