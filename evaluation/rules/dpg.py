"""DPG-Bench: the share of yes to a prompt's questions, where a no to a question is one to all that build on it. Hu et
al., arXiv 2403.05135, and its code, which differs from the paper: it skips the first question of the file, takes the
scores of categories from the last of the four pictures alone and before a no is passed on, passes a no on in one pass
down the list, and leaves prompts out that fail. `rules="published"` does what it does, for numbers that compare with
published ones; `rules="fixed"` counts all questions and all pictures. A result must say which it is."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

Rules = Literal["fixed", "published"]
Answers = Sequence[Sequence[bool]]
"""Yes or no, one list a picture, in the order of the questions."""


class Question(NamedTuple):
    number: int
    parents: tuple[int, ...]
    """Questions that must be yes for this one to count; 0 is none."""
    category: str
    """Such as "entity - whole"."""
    text: str


@dataclass(frozen=True)
class Score:
    """Of a whole benchmark, 0 to 100."""

    overall: float
    categories: dict[str, float] = field(default_factory=dict)
    """By the broad category, the word before the dash, and by the whole one."""


def read_questions(lines: Iterable[str], rules: Rules = "fixed") -> dict[str, list[Question]]:
    """The questions of every prompt, by item_id, of the benchmark's CSV file. Raises ValueError: a row cannot be
    read."""
    questions: dict[str, list[Question]] = {}
    for place, row in enumerate(csv.DictReader(lines)):
        if place == 0 and rules == "published":
            continue
        try:
            parents = tuple(int(word) for word in row["dependency"].split(","))
            category = row["tuple"].split("(")[0].strip()
            question = Question(int(row["proposition_id"]), parents, category, row["question_natural_language"])
            questions.setdefault(row["item_id"], []).append(question)
        except (KeyError, ValueError, AttributeError) as error:
            raise ValueError(f"row {place + 1} of the questions cannot be read: {error!r}") from None
    return questions


def counted(parents: Mapping[int, Sequence[int]], answers: Sequence[bool], rules: Rules = "fixed") -> list[bool]:
    """Which questions count as yes for one picture. `parents`: of every question by its number, in the order of the
    answers; 0 is none. Raises ValueError: there is not one answer a question, or a parent is no question."""
    if len(answers) != len(parents) or not parents:
        raise ValueError(f"there are {len(parents)} questions and {len(answers)} answers")
    unknown = {parent for above in parents.values() for parent in above} - {0, *parents}
    if unknown:
        raise ValueError(f"questions build on {sorted(unknown)}, which are not among the questions")
    said = dict(zip(parents, map(bool, answers), strict=True))
    rounds = 1 if rules == "published" else len(parents)
    for _ in range(rounds):
        before = dict(said)
        for number, above in parents.items():
            said[number] = said[number] and all(said[parent] for parent in above if parent)
        if said == before:
            break
    return list(said.values())


def prompt_score(parents: Mapping[int, Sequence[int]], answers: Answers, rules: Rules = "fixed") -> float:
    """The share of questions that count as yes, the mean over a prompt's pictures. Raises ValueError: there is none."""
    if not answers:
        raise ValueError("a prompt needs answers about at least one picture")
    return float(np.mean([np.mean(counted(parents, picture, rules)) for picture in answers]))


def question_scores(parents: Mapping[int, Sequence[int]], answers: Answers, rules: Rules = "fixed") -> list[float]:
    """What each question adds to its category: the mean over pictures of what counts; published, the answer about the
    last picture, whatever was said of its parents. Raises ValueError: as `prompt_score`."""
    if not answers:
        raise ValueError("a prompt needs answers about at least one picture")
    means = np.mean([counted(parents, picture, rules) for picture in answers], axis=0)
    return [float(said) for said in answers[-1]] if rules == "published" else means.tolist()


def benchmark(
    questions: Mapping[str, Sequence[Question]], answers: Mapping[str, Answers], rules: Rules = "fixed"
) -> Score:
    """The score of the benchmark, the mean over prompts, and of its categories, the mean over their questions. Raises
    ValueError: a prompt has no answers or cannot be counted; the message names it. Published, it is left out."""
    overall: list[float] = []
    categories: dict[str, list[float]] = {}
    for item, asked in questions.items():
        parents = {question.number: question.parents for question in asked}
        try:
            overall.append(prompt_score(parents, answers.get(item, ()), rules))
            scores = question_scores(parents, answers.get(item, ()), rules)
        except ValueError as error:
            if rules == "published":
                continue
            raise ValueError(f"{item}: {error}") from None
        for question, score in zip(asked, scores, strict=True):
            for name in {question.category, question.category.split("-")[0].strip()}:
                categories.setdefault(name, []).append(score)
    if not overall:
        raise ValueError("no prompt of the benchmark can be scored")
    return Score(100 * float(np.mean(overall)), {name: 100 * float(np.mean(all_)) for name, all_ in categories.items()})
