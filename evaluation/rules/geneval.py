"""GenEval: whether the objects that a detector has found are those of the prompt (Ghosh et al., arXiv 2310.11513). A
detection is a box (left, top, right, bottom) with, where boxes are kept by their score, a fifth number, the score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
MIN_SCORE, MIN_SCORE_OF_COUNTING, MAX_PER_CLASS = 0.3, 0.9, 16
DEAD_ZONE = 0.1
"""The share of both boxes' sides that centres must be apart by before it counts."""

Box = Sequence[float]


class Judgement(NamedTuple):
    """Whether a picture shows what its prompt asks for, and what is missing, a line each."""

    correct: bool
    reason: str


def keep(boxes: Sequence[Box], task: str) -> list[Box]:
    """The detections of one class that count, best first: those above the task's score, 16 at most."""
    least = MIN_SCORE_OF_COUNTING if task == "counting" else MIN_SCORE
    return sorted((box for box in boxes if box[4] > least), key=lambda box: -box[4])[:MAX_PER_CLASS]


def relations(a: Box, b: Box) -> list[str]:
    """Where a is, seen from b: "above", "below", "left of", "right of", two at most, in this order. The distance of the
    centres is shortened by a tenth of both boxes, and counts where it is over half of the whole."""
    one, two = (np.array(box[:4], dtype=np.float64).reshape(2, 2) for box in (a, b))
    offset = one.mean(axis=0) - two.mean(axis=0)
    sizes = np.abs(one[1] - one[0]) + np.abs(two[1] - two[0])
    beyond = np.maximum(np.abs(offset) - DEAD_ZONE * sizes, 0) * np.sign(offset)
    if (np.abs(beyond) < 1e-3).all():
        return []
    x, y = beyond / np.linalg.norm(offset)
    return [
        name
        for name, holds in (("above", y < -0.5), ("below", y > 0.5), ("left of", x < -0.5), ("right of", x > 0.5))
        if holds
    ]


def judge(
    detections: Mapping[str, Sequence[Box]],
    metadata: Mapping[str, Any],
    colours: Mapping[str, Sequence[str]] | None = None,
) -> Judgement:
    """Whether a picture is correct.

    Args:
        detections: the boxes of each class, best first, as `keep` gives them.
        metadata: the prompt's `include` and `exclude` lists, as GenEval's file has them.
        colours: the colour of each of these boxes; needed where a prompt names one.

    Raises:
        ValueError: the prompt names a colour and there are none for its class, or places an object by another one that
            does not come before it.
    """
    wrong: list[str] = []
    groups: list[Sequence[Box] | None] = []
    for wanted in metadata.get("include", ()):
        name, count = wanted["class"], wanted["count"]
        found = detections.get(name, ())[:count]
        missing: str | None = None
        if len(found) < count:
            missing = f"expected {name}>={count}, found {len(found)}"
        else:
            if "color" in wanted:
                missing = _wrong_colour(name, count, wanted["color"], colours)
            if "position" in wanted and missing is None:
                missing = _wrong_place(name, found, wanted["position"], groups)
        wrong += [] if missing is None else [missing]
        groups.append(found if missing is None else None)
    for banned in metadata.get("exclude", ()):
        name, count = banned["class"], banned["count"]
        num = len(detections.get(name, ()))
        if num >= count:
            wrong.append(f"expected {name}<{count}, found {num}")
    return Judgement(not wrong, "\n".join(wrong))


def _wrong_colour(name: str, count: int, colour: str, colours: Mapping[str, Sequence[str]] | None) -> str | None:
    seen = list((colours or {}).get(name, ()))[:count]
    if len(seen) < count:
        raise ValueError(
            f"the prompt names the colour of {name}, and there are colours for {len(seen)} of {count} boxes"
        )
    if seen.count(colour) == count:
        return None
    others = ", ".join(f"{seen.count(other)} {other}" for other in COLOURS if other in seen)
    return f"expected {colour} {name}>={count}, found {seen.count(colour)} {colour}; and {others}"


def _wrong_place(
    name: str, found: Sequence[Box], position: Sequence[Any], groups: Sequence[Sequence[Box] | None]
) -> str | None:
    where, number = position
    if not 0 <= number < len(groups):
        raise ValueError(f"the prompt places {name} by object {number}, and {len(groups)} come before it")
    targets = groups[number]
    if targets is None:
        return f"no target for {name} to be {where}"
    for box in found:
        for target in targets:
            seen = relations(box, target)
            if where not in seen:
                return f"expected {name} {where} target, found {' and '.join(seen)} target"
    return None


def overall(correct: Mapping[str, Sequence[bool]]) -> float:
    """The score: the mean over the six tasks of each one's share of correct pictures. Raises ValueError: a task has no
    picture, or is none of the six. The original takes the mean of those it has."""
    if set(correct) != set(TASKS) or not all(len(pictures) for pictures in correct.values()):
        have = ", ".join(f"{task} {len(pictures)}" for task, pictures in correct.items()) or "none"
        raise ValueError(f"a score needs pictures of the six tasks {', '.join(TASKS)}; there are: {have}")
    return float(np.mean([np.mean(correct[task]) for task in TASKS]))
