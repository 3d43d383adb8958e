from __future__ import annotations

from collections.abc import Iterator, Sequence

from PIL import Image

from captioning.captioners.base import Answer, Captioner, Question


def asked(captioner: Captioner, pictures: Sequence[Image.Image], seeds: Sequence[int]) -> list[Answer]:
    """A captioner's answers about some pictures, in the order of the pictures."""
    questions: Iterator[Question | None] = (
        Question(str(number), picture, seed) for number, (picture, seed) in enumerate(zip(pictures, seeds, strict=True))
    )
    answers = dict(captioner.stream(questions))
    assert len(answers) == len(pictures)
    return [answers[str(number)] for number in range(len(pictures))]
