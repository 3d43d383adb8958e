"""What the paper's chain costs by the FLOP formula, beside the GPU days that the paper gives; no measurement."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from schemas.training import TrainingRecipe
from training.speed import peak_flops_per_s, training_flops
from training.weak_to_strong import model_config

RECIPE = Path(__file__).parents[1] / "recipes" / "train_sigma.yaml"
TEXT_TOKENS = 180
"""Mean of a Share-Captioner caption; padding is not computed."""
UTILISATION = 0.4
"""Assumed share of the peak; no GPU has confirmed it. `mfu` in a run's metrics is what to put here."""
PAPER_DAYS = {
    "vae_adaptation": "5 V100",
    "text_alignment": "50 V100",
    "higher_aesthetics_512": "30 V100",
    "higher_aesthetics_1024": "50 V100",
    "kv_compression_1024": "20 V100",
    "higher_aesthetics_2k": "14 A800",
    "higher_aesthetics_4k": "20 A800",
}
"""Table 5 of the paper's appendix, feature extraction not included."""
DAY_S = 86_400


def training_cost(_folder: Path) -> Iterator[str]:
    """GPU days of every stage of `recipes/train_sigma.yaml` on an A100 and an H100, encoders left out; the paper's."""
    recipe = TrainingRecipe.load(RECIPE)
    for stage in recipe.stages:
        side = stage.resolution // (8 * recipe.model.patch_size)
        per_picture = training_flops(model_config(recipe, stage), (side, side), TEXT_TOKENS)
        pictures = stage.steps * recipe.data_of(stage).batch
        days = []
        for gpu in ("A100", "H100"):
            peak = peak_flops_per_s(gpu)
            assert peak is not None
            days.append(f"{per_picture * pictures / (peak * UTILISATION) / DAY_S:.1f} {gpu}")
        paper = PAPER_DAYS.get(stage.name, "")
        yield (
            f"| {stage.name} | {pictures / 1e6:.2f} M pictures, {per_picture / 1e12:.2f} TFLOP each "
            f"| {' | '.join(days)} | {paper} |"
        )


BENCHMARKS = (training_cost,)
