"""Which scorer the prompts of a recipe want."""

from __future__ import annotations

from evaluation.prompts import dpg_questions, find_kind, geneval_metadata
from evaluation.scorers.base import Scorer
from schemas.evaluation import EvaluationRecipe
from schemas.files import place_of


def wanted_scorers(recipe: EvaluationRecipe) -> list[Scorer]:
    """The scorer of GenEval's or DPG-Bench's prompts, also where it cannot be had; none of other prompts."""
    source, kind, metrics = recipe.prompts.source, recipe.prompts.kind, recipe.metrics
    kind = find_kind(place_of(source)) if kind == "auto" else kind
    if kind == "geneval":
        from evaluation.scorers.geneval import GenEval

        try:
            return [GenEval.of(metrics, geneval_metadata(source))]
        except ValueError as error:
            return [GenEval(metrics.geneval.detector or "none", missing=str(error))]
    if kind == "dpg":
        from evaluation.scorers.dpg import Dpg  # and with it the client of chat servers

        rules = metrics.dpg.rules
        try:
            return [Dpg.of(metrics, dpg_questions(source), dpg_questions(source, rules))]
        except ValueError as error:
            return [Dpg(metrics.dpg.vqa or "none", f"dpg/{rules}", missing=str(error))]
    return []
