"""What judges say of pairs of models, as bars; and the page on which people judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from evaluation.judge.asking import picture_of
from evaluation.judge.pairs import Pair
from evaluation.judge.reply import PEOPLE
from schemas.commit import write_bytes
from schemas.judging import JudgeRecipe
from viewer.rendering import environment

COLOURS = {"win": "#1e9b66", "undecided": "#c9c9ce", "lose": "#cf7d00"}


def write_figure(path: Path, preferences: Sequence[Mapping[str, Any]]) -> None:
    """Write bars as in PixArt-Σ's Fig. 9, of the answered pairs, as SVG; wins and losses are those in both orders."""
    groups = [
        (f"{aspect}, by {judge}", [(row, _shares(row)) for row in rows])
        for (judge, aspect), rows in groupby(preferences, lambda row: (row["judge"], row["aspect"]))
    ]
    num_lines = len(groups) + len(preferences)
    page = environment(False).get_template("preferences.svg.jinja")
    write_bytes(path, page.render(groups=groups, num_lines=num_lines, colours=COLOURS).encode())


def _shares(row: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """Of each part of a bar its kind, where it begins and how long it is, as shares of the bar."""
    if row.get("win_rate") is None:
        return []
    counts = row["wins"], row["num_answered"] - row["wins"] - row["losses"], row["losses"]
    begins = 0, row["wins"], row["num_answered"] - row["losses"]
    return [
        (kind, begin / row["num_answered"], count / row["num_answered"])
        for kind, begin, count in zip(COLOURS, begins, counts, strict=True)
        if count
    ]


def write_blind_page(path: Path, recipe: JudgeRecipe, pairs: Mapping[str, Sequence[Pair]]) -> None:
    """Write a page of its own on which people judge pairs, by their blind ids. Raises ValueError: a picture cannot be
    read."""
    shown = []
    for blind_id, [pair, *_] in pairs.items():
        pictures = [picture_of(recipe.judge, picture) for picture in pair.shown(pair.blind_order)]
        shown.append({"pair": blind_id, "prompt": pair.prompt, "pictures": pictures})
    questions = [[aspect, PEOPLE[aspect]] for aspect in recipe.aspects]
    page = environment(False).get_template("blind.html.jinja").render(pairs=shown, questions=questions)
    write_bytes(path, page.encode())
