"""The report of an evaluation: its sections rendered once, into one HTML file that needs no network."""

from __future__ import annotations

import base64
from pathlib import Path

from engine.dataset import Dataset
from schemas.commit import write_bytes
from schemas.files import shown_place
from viewer import evaluation_sections as sections
from viewer.cards import PAGE_THUMBNAIL_PX
from viewer.evaluated import Evaluation, unchanged
from viewer.rendering import environment

MOST_MODELS, MOST_CATEGORIES = 6, 12
MOST_SAMPLES, MOST_EACH, SIDE_BY_SIDE = 288, 4, 24
"""Pictures of all grids, of one grid, and prompts side by side: with their thumbnails the report is under 10 MB."""


def write_evaluation_report(dataset: Dataset, out: Path) -> None:
    """Write one self-contained HTML page about an evaluation, finished or half done. `out`: the file to write. It is
    replaced whole or not at all. Raises ValueError: a file of a table is gone or damaged, or the evaluation is being
    written anew."""
    evaluation = Evaluation(dataset)
    with unchanged(evaluation):
        page = _page(evaluation)
    write_bytes(out, page.encode("utf-8", errors="replace"))


def _page(evaluation: Evaluation) -> str:
    dataset = evaluation.dataset
    models, categories = evaluation.chosen_models[:MOST_MODELS], evaluation.categories[:MOST_CATEGORIES]
    each = max(1, min(MOST_EACH, MOST_SAMPLES // (2 * len(models) * len(categories) or 1)))
    samples = sections.samples(evaluation, models, categories, each)
    both, drawn = sections.two_models(evaluation), [key.row_id for key in evaluation.draw[:SIDE_BY_SIDE]]
    side = [] if both is None else sections.beside(evaluation, *both, drawn, every=False)
    cards = [card for group in samples["groups"] for of in group["models"] for grid in of["grids"].values()
             for card in grid]  # fmt: skip
    wanted = sections.pictures_in([*cards, *(card for found in side for pair in found["pairs"] for card in pair)])
    pictures = {(model, *key): evaluation.thumbnail(model, key, PAGE_THUMBNAIL_PX) for model, key in sorted(wanted)}
    return environment(live=False).get_template("evaluation_report.html.jinja").render(
        name=dataset.root.absolute().name or str(dataset.root),
        root=shown_place(dataset.root.absolute()),
        numbers=sections.overview(evaluation),
        titles=sections.TITLES,
        sections={"results": sections.results(evaluation), "curves": sections.curves(evaluation), "samples": samples,
                  "side": {"models": both, "found": side}},
        left_out={"models": len(evaluation.models) - len(models)},
        thumbnails={name: f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"
                    for name, jpeg in pictures.items() if jpeg is not None},
    )  # fmt: skip
