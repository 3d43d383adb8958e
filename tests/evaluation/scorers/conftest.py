"""Evaluations of pictures that are there, one colour each, for the prompts of a benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from curation.build import Observer
from evaluation.folder import Evaluated, evaluate
from evaluation.prompts import read_prompts
from schemas.evaluation import EvaluationRecipe
from tests.tiny_models import save_blip_vqa, save_clip, save_mask2former

LABELS = ("person", "cat", "dog", "motorbike")


@pytest.fixture(scope="session")
def models(in_one_folder: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """A folder with a tiny CLIP, Mask2Former and BLIP in `clip`, `detector` and `vqa`; not to be changed."""

    def make(folder: Path) -> None:
        save_clip(folder / "clip")
        save_mask2former(folder / "detector", LABELS)
        save_blip_vqa(folder / "vqa", ("yes", "no", "is", "there", "a", "cat", "red", "the", "?"))

    return in_one_folder("scorers", make)


def recipe_of(
    folder: Path, source: Path, reds: Mapping[str, Sequence[int]], metrics: Mapping[str, Any]
) -> dict[str, Any]:
    """A recipe for pictures of these reds, in the order of the numbers, of each prompt by its text."""
    (folder / "pictures").mkdir(exist_ok=True)
    for prompt in read_prompts(source):
        for number, red in enumerate(reds.get(str(prompt.prompt), ())):
            Image.new("RGB", (40, 30), (red, 90, 30)).save(folder / "pictures" / f"{prompt.prompt_id}_{number}.png")
    return {
        "out": str(folder / "out"),
        "prompts": {"source": str(source), "per_part": 2},
        "models": {"theirs": {"pictures": str(folder / "pictures")}},
        "draw": {"pictures_per_prompt": max(map(len, reds.values()))},
        "metrics": {"protocols": [], "clip_score": False, **metrics},
    }


def run(values: dict[str, Any], *redo: str, **knobs: Any) -> Evaluated:
    return evaluate(EvaluationRecipe.from_mapping(values), Observer(), frozenset(redo), **knobs)


def only(done: Evaluated, category: str | None = None) -> dict[str, Any]:
    """The one row of results of a category."""
    (row,) = (row for row in done.results if row["category"] == category)
    return row
