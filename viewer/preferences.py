"""What judges say of pairs of models, as bars; and the page on which people judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from evaluation.judge.asking import picture_of
from evaluation.judge.pairs import Pair
from evaluation.judge.reply import PEOPLE
from schemas.commit import write_bytes
from schemas.judging import JudgeRecipe
from viewer.rendering import environment

LABELS, BARS, ROW = 270, 400, 30
"""Widths of the labels and of a whole bar, and the height of a bar with its gap, px."""


class Piece(NamedTuple):
    """A part of a bar."""

    kind: str
    x: float
    width: float
    text: str


class Bar(NamedTuple):
    """What a judge says of two models: won, undecided and lost."""

    label: str
    y: int
    pieces: list[Piece]
    rate: str


def write_figure(path: Path, preferences: Sequence[Mapping[str, Any]]) -> None:
    """Write bars as in PixArt-Σ's Fig. 9, of all preferences that have a win rate, as SVG."""
    headings, bars, y = list[tuple[str, int]](), list[Bar](), 44
    for (judge, aspect), rows in groupby(preferences, lambda row: (row["judge"], row["aspect"])):
        headings.append((f"{aspect}, by {judge}", y + 20))
        y += ROW
        for row in rows:
            bars.append(Bar(f"{row['model_a']} vs {row['model_b']}", y, _pieces(row), _rate(row)))
            y += ROW
    page = environment(False).get_template("preferences.svg.jinja")
    drawn = page.render(headings=headings, bars=bars, left=LABELS, width=LABELS + BARS + 130, height=y + 16)
    write_bytes(path, drawn.encode())


def _pieces(row: Mapping[str, Any]) -> list[Piece]:
    """Of the answered pairs; the wins and losses are those in both orders."""
    if row.get("win_rate") is None:
        return []
    won, lost, answered = row["wins"], row["losses"], row["num_answered"]
    pieces, x = list[Piece](), float(LABELS)
    for kind, count in (("win", won), ("undecided", answered - won - lost), ("lose", lost)):
        width = BARS * count / answered
        pieces += [Piece(kind, x, width, f"{100 * count / answered:.0f} %" if width > 34 else "")] if count else []
        x += width
    return pieces


def _rate(row: Mapping[str, Any]) -> str:
    if row.get("win_rate") is None:
        return "no win rate"
    return f"{100 * row['win_rate']:.0f} % ({100 * row['low']:.0f} to {100 * row['high']:.0f})"


def write_blind_page(path: Path, recipe: JudgeRecipe, pairs: Mapping[str, Sequence[Pair]]) -> None:
    """Write a page of its own on which people judge pairs, by their blind ids.

    Raises:
        ValueError: a picture cannot be read.
    """
    shown = []
    for blind_id, [pair, *_] in pairs.items():
        pictures = [picture_of(recipe.judge, picture) for picture in pair.shown(pair.blind_order)]
        shown.append({"pair": blind_id, "prompt": pair.prompt, "pictures": pictures})
    questions = [[aspect, PEOPLE[aspect]] for aspect in recipe.aspects]
    page = environment(False).get_template("blind.html.jinja").render(pairs=shown, questions=questions)
    write_bytes(path, page.encode())
