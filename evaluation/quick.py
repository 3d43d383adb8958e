"""Measures a model while it is trained, on a small fixed set of captions: numbers to compare points of one curve by."""

from __future__ import annotations

from evaluation.ruler import Ruler
from schemas.training import Stage, TrainingRecipe
from training.model import PixArt

MEASURES = ("fid", "kid", "precision", "recall", "clip_score")


class QuickEvaluation:
    """What `train` calls at the steps of `recipe.evaluation`. Networks and reference are loaded at the first one.
    `missing`: why nothing can be measured, with the command that mends it; none where something can."""

    def __init__(self, recipe: TrainingRecipe) -> None:
        self._recipe = recipe
        self._rulers: dict[str, Ruler] = {}
        missing = self._ruler(recipe.stages[0]).missing
        self.missing = list(missing.values())[:1] if len(missing) == 2 else []

    def _ruler(self, stage: Stage) -> Ruler:
        if stage.name not in self._rulers:
            self._rulers[stage.name] = Ruler(self._recipe, stage, self._recipe.evaluation.pictures)
        return self._rulers[stage.name]

    def __call__(self, model: PixArt, stage: Stage) -> dict[str, float]:
        """The measures of averaged weights, named `quick/` with the number of pictures: other numbers are other
        curves."""
        found = self._ruler(stage).measure(model, self._recipe)
        return {f"quick/{found['num_pictures']}/{name}": found[name] for name in MEASURES if name in found}
