"""Captions with scores of their sentences, split so that a page can mark the words that fit the picture least."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from engine.duck import Connection, Row, in_list, rows

MOST_SENTENCES = 40
MOST_CHARACTERS = 1200
"""A marked caption shows at most this many; its lowest sentence is always shown."""


@dataclass(frozen=True)
class Piece:
    """A stretch of a caption, marked where it is an ungrounded noun."""

    text: str
    ungrounded: bool


@dataclass(frozen=True)
class Sentence:
    """A sentence with its score; one sentence of a caption is the lowest."""

    pieces: list[Piece]
    score: float
    lowest: bool


@dataclass(frozen=True)
class Marked:
    sentences: list[Sentence]
    num_left_out: int
    """Sentences that are not shown, for want of room."""
    lowest_score: float
    ungrounded: Sequence[str]
    detector: str | None
    """The model that looked for the nouns; None where none has run."""


_COLUMNS = """
    grounding.row_id, grounding.caption_source, grounding.scorer, grounding.detector, grounding.sentences,
    grounding.sentence_scores, grounding.ungrounded
"""


def worst_grounded(connection: Connection, limit: int) -> list[Row]:
    """Captions with the lowest scores of a sentence, lowest first; each row with its `marked` caption. Empty where
    nothing has been scored."""
    found = rows(
        connection,
        f"""
        SELECT {_COLUMNS}, images.member, images.width, images.height
        FROM grounding JOIN images USING (row_id)
        WHERE grounding.lowest_score IS NOT NULL
        ORDER BY grounding.lowest_score, grounding.row_id, grounding.caption_source
        LIMIT $limit
        """,
        {"limit": limit},
    )
    return [row | {"marked": _of(row)} for row in found]


def marks(connection: Connection, row_ids: Sequence[int]) -> dict[int, dict[str, Marked]]:
    """row_id -> caption source -> the marked caption, for those of these pictures that have been scored."""
    found = dict[int, dict[str, Marked]]()
    for row in rows(
        connection, f"SELECT {_COLUMNS} FROM grounding WHERE lowest_score IS NOT NULL AND row_id IN {in_list(row_ids)}"
    ):
        found.setdefault(row["row_id"], {})[row["caption_source"]] = _of(row)
    return found


def _of(row: Row) -> Marked:
    return marked(row["sentences"], row["sentence_scores"], row["ungrounded"] or [], row["detector"])


def marked(
    sentences: Sequence[str], scores: Sequence[float], ungrounded: Sequence[str], detector: str | None = None
) -> Marked:
    """The sentences of a caption; the first with the lowest score is marked, and every ungrounded noun. Nouns are
    lemmas: "dog" also marks "dogs", "box" also "boxes"; an irregular plural is not marked."""
    lowest = min(range(len(scores)), key=scores.__getitem__)
    texts = [text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…" for text in sentences]
    places = _fitting([len(text) for text in texts], lowest)
    found = [Sentence(_pieces(texts[place], ungrounded), scores[place], place == lowest) for place in places]
    return Marked(found, len(texts) - len(found), scores[lowest], ungrounded, detector)


def _fitting(lengths: Sequence[int], lowest: int) -> list[int]:
    """Places of the first sentences that fit, and of the lowest."""
    room, found = MOST_CHARACTERS - lengths[lowest], []
    for place, length in enumerate(lengths):
        if place != lowest:
            room -= length
        if place == lowest or (room >= 0 and place < MOST_SENTENCES):
            found.append(place)
    return found


def _pieces(text: str, ungrounded: Sequence[str]) -> list[Piece]:
    if not ungrounded:
        return [Piece(text, False)]
    nouns = "|".join(re.escape(noun) for noun in sorted(ungrounded, key=len, reverse=True))
    pieces = re.split(rf"(?i)(?<!\w)((?:{nouns})(?:e?s)?)(?!\w)", text)
    return [Piece(piece, place % 2 == 1) for place, piece in enumerate(pieces) if piece]
