"""The report's worst grounded captions: those whose lowest sentence fits its picture least, cut up to be marked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from curation.report.figures import Connection, Row, rows


@dataclass(frozen=True)
class Piece:
    """A stretch of a caption, marked where it is an ungrounded noun."""

    text: str
    ungrounded: bool


@dataclass(frozen=True)
class Sentence:
    """A sentence with its score; one of a caption is the lowest."""

    pieces: list[Piece]
    score: float
    lowest: bool


def worst_grounded(connection: Connection, limit: int) -> list[Row]:
    """Captions with the lowest scores of a sentence, lowest first; each row with its `marked` sentences.

    Empty where nothing has been scored.
    """
    found = rows(
        connection,
        """
        SELECT
            grounding.row_id, grounding.caption_source, grounding.scorer, grounding.detector, grounding.sentences,
            grounding.sentence_scores, grounding.lowest_sentence, grounding.lowest_score, grounding.ungrounded,
            images.member, images.width, images.height
        FROM grounding JOIN images USING (row_id)
        WHERE grounding.lowest_score IS NOT NULL
        ORDER BY grounding.lowest_score, grounding.row_id, grounding.caption_source
        LIMIT $limit
        """,
        {"limit": limit},
    )
    return [
        row | {"marked": marked(row["sentences"], row["sentence_scores"], row["ungrounded"] or [])} for row in found
    ]


def marked(sentences: Sequence[str], scores: Sequence[float], ungrounded: Sequence[str]) -> list[Sentence]:
    """The sentences of a caption; the first with the lowest score is marked, and every ungrounded noun.

    Nouns are lemmas: "dog" also marks "dogs", "box" also "boxes"; an irregular plural stays unmarked.
    """
    lowest = min(range(len(scores)), key=scores.__getitem__)
    return [
        Sentence(_pieces(text, ungrounded), score, place == lowest)
        for place, (text, score) in enumerate(zip(sentences, scores, strict=True))
    ]


def _pieces(text: str, ungrounded: Sequence[str]) -> list[Piece]:
    if not ungrounded:
        return [Piece(text, False)]
    nouns = "|".join(re.escape(noun) for noun in sorted(ungrounded, key=len, reverse=True))
    pieces = re.split(rf"(?i)(?<!\w)((?:{nouns})(?:e?s)?)(?!\w)", text)
    return [Piece(piece, place % 2 == 1) for place, piece in enumerate(pieces) if piece]
