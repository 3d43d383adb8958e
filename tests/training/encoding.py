"""Encoding in this process, for tests."""

from __future__ import annotations

from pathlib import Path

from engine.flow import Observer
from schemas.training import TrainingRecipe
from training.encode import SetDone, encode_features


def encode(
    recipe: TrainingRecipe,
    *,
    stage: str | None = None,
    kind: str | None = None,
    redo: bool = False,
    runner: str = "local",
) -> list[SetDone]:
    """Bring the features of a recipe up to date."""
    recipe = recipe.model_copy(update={"features": recipe.features.model_copy(update={"runner": runner})})
    return list(encode_features(recipe, Observer(), only_stage=stage, only_kind=kind, redo=redo))


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
