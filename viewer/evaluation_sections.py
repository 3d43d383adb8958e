"""The sections of an evaluation, in the report and live: results, curves, samples, and two models side by side."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from engine.duck import Row
from evaluation.table import blocks
from schemas.texts import counted
from viewer.curves import curve_charts
from viewer.evaluated import Evaluation, Key

Content = dict[str, Any]
TITLES = {"results": "Results", "curves": "Over the checkpoints", "samples": "Samples", "side": "Side by side"}
"""All sections in the order of the page."""
ORDERS = {
    "best": "best fit to the prompt first",
    "worst": "worst fit first",
    "draw": "a fixed draw",
    "missing": "without a picture",
}
MOST_MISSING = 5
"""Missing pictures of a group that are named."""


def overview(evaluation: Evaluation) -> list[tuple[str, int]]:
    """The numbers at the head of the page."""
    refused = sum(row["reason"] is not None for row in evaluation.prompts.values())
    counts = {"prompts": len(evaluation.prompts), "models": len(evaluation.models),
              "categories": len([*filter(None, evaluation.categories)]), "prompts refused": refused}  # fmt: skip
    return [(name, num) for name, num in counts.items() if num or name in ("prompts", "models")]


def results(evaluation: Evaluation) -> Content:
    """The table of results in its blocks, and how each model draws."""
    found = blocks(evaluation.results) if evaluation.results else []
    return {
        "all": [block for block in found if block.category is None and not block.is_published],
        "by_category": [block for block in found if block.category is not None],
        "published": [block for block in found if block.is_published],
        "drawn": dict(sorted({(row["model"], _facts(row["drawn"])) for row in evaluation.results})),
    }


def _facts(drawn: str) -> str:
    """How pictures were drawn, from its JSON, without what is a section of its own."""
    facts = json.loads(drawn)
    return ", ".join(f"{name} {value}" for name, value in facts.items() if not isinstance(value, dict | list))


def curves(evaluation: Evaluation) -> Content:
    charts, apart = curve_charts(evaluation.results)
    return {"charts": charts, "apart": apart}


def keys(evaluation: Evaluation, model: str, category: str | None, order: str) -> list[Key]:
    """The pictures of a category in an order."""
    if order in ("best", "worst"):
        found: Iterable[Key] = evaluation.ranked(model)
        found = reversed([*found]) if order == "worst" else found
    else:
        found = evaluation.missing(model) if order == "missing" else evaluation.draw
    prompts = evaluation.prompts
    return [key for key in found if key.row_id in prompts and prompts[key.row_id]["category"] == category]


def samples(evaluation: Evaluation, models: Sequence[str], categories: Sequence[str | None], each: int) -> Content:
    """Of each category and model the best and the worst pictures, one a prompt, or a draw where nothing says how well
    they fit. `each`: pictures of a grid."""
    groups = []
    for category in categories if models else ():
        of_category = []
        for model in models:
            if evaluation.ranked(model):
                best, worst = (_one_a_prompt(keys(evaluation, model, category, order)) for order in ("best", "worst"))
                above = {key.row_id for key in best[:each]}
                grids = {"best": best[:each], "worst": [key for key in worst if key.row_id not in above][:each]}
            else:
                grids = {"draw": keys(evaluation, model, category, "draw")[: 2 * each]}
            lost = keys(evaluation, model, category, "missing")
            wanted = [key for grid in grids.values() for key in grid] + lost[:MOST_MISSING]
            cards = iter(evaluation.cards(model, wanted))
            of_category.append(
                {
                    "model": model,
                    "grids": {order: [next(cards) for _ in grid] for order, grid in grids.items() if grid},
                    "missing": [*cards],
                    "num_missing": counted(len(lost), "picture"),
                }
            )
        groups.append({"category": category, "models": of_category})
    left_out = len(evaluation.categories) - len(categories)
    return {"groups": groups, "categories_left_out": left_out, "models": models}


def _one_a_prompt(found: Iterable[Key]) -> list[Key]:
    """The first picture of each prompt."""
    first = dict[int, Key]()
    for key in found:
        first.setdefault(key.row_id, key)
    return [*first.values()]


def beside(evaluation: Evaluation, left: str, right: str, row_ids: Sequence[int], every: bool = True) -> list[Content]:
    """Prompts with their pictures by two models. `every`: all pictures of a prompt and not the first alone."""
    found = []
    for row_id in row_ids:
        numbers = sorted({*evaluation.numbers(left, row_id), *evaluation.numbers(right, row_id)}) if every else []
        wanted = [Key(row_id, number) for number in numbers or [0]]
        sides = (evaluation.cards(model, wanted) for model in (left, right))
        found.append({"prompt": evaluation.prompts[row_id], "pairs": [*zip(*sides, strict=True)]})
    return found


def row_ids_of(evaluation: Evaluation, text: str, left: str, right: str, order: str) -> list[int]:
    """The prompts that hold a text, as they are listed, or by how much better one of two models fits them."""
    wanted = text.casefold()
    found = [row_id for row_id, row in evaluation.prompts.items() if wanted in (row["prompt"] or "").casefold()]
    if order == "listed":
        return found
    one, other = (evaluation.cosines(model) for model in (left, right))
    sign = 1 if order == "right" else -1
    both = [row_id for row_id in found if row_id in one and row_id in other]
    return sorted(both, key=lambda row_id: (sign * (one[row_id] - other[row_id]), row_id))


def two_models(evaluation: Evaluation) -> tuple[str, str] | None:
    """The first two models, of a series its last checkpoint; of one series alone its first and last checkpoint."""
    found = evaluation.chosen_models if len(evaluation.chosen_models) > 1 else [*evaluation.models]
    return (found[0], found[1] if found == evaluation.chosen_models else found[-1]) if len(found) > 1 else None


def pictures_in(content: Iterable[Row]) -> set[tuple[str, Key]]:
    """The model and key of every picture that these cards show."""
    return {(card["model"], Key(card["row_id"], card["number"])) for card in content if card["width"] is not None}
