"""Encoding in this process, for tests."""

from __future__ import annotations

from pathlib import Path

from engine.dataset import Dataset
from engine.runner import LocalRunner, Runner
from schemas.training import TrainingRecipe
from training.encode import EncodeJob, SetDone, encode_features


def encode(
    recipe: TrainingRecipe,
    runner: Runner | None = None,
    *,
    stage: str | None = None,
    kind: str | None = None,
    redo: bool = False,
) -> list[SetDone]:
    """Bring the features of a recipe up to date."""

    def run(job: EncodeJob, parts: range) -> int:
        done = (runner or LocalRunner()).run(Dataset(recipe.dataset), job, parts, lambda rows: None)
        return sum(part.computed for part in done)

    return list(encode_features(recipe, run, lambda name, rows: None, only_stage=stage, only_kind=kind, redo=redo))


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
