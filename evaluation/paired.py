"""Changes from the first model of an evaluation: of the same prompts and noise, so that chance is largely in both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.preference import Interval, bootstrap_of_groups

ALIKE = ("metric", "network", "protocol", "reference", "reference_digest", "category", "quick")
"""A row compares with the first model's where these are equal, and the numbers of pictures."""
STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""Standard errors in half of a 95 % interval, by Student's t, where the error is of 2, 3, ... 10 groups of pictures."""


def half_width(left_out: np.ndarray) -> float | None:
    """Half of the 95 % interval of a distance, or of a difference of two, by the values without each group of pictures;
    None where there are none."""
    from evaluation.frechet import standard_error

    return STUDENT[len(left_out) - 2] * standard_error(left_out) if len(left_out) else None


@dataclass(frozen=True)
class Distances:
    """What a distance is without each group of pictures, which are those of every model with the same prompts."""

    value: float
    left_out: np.ndarray
    """(k,)."""
    prompts: Sequence[str]
    """Of each picture."""

    def change(self, first: Distances) -> Interval | None:
        """The difference to another distance; None where the prompts are others, or the groups too few."""
        if list(self.prompts) != list(first.prompts):
            return None
        half, change = half_width(self.left_out - first.left_out), self.value - first.value
        return None if half is None else Interval(change, change - half, change + half)


@dataclass(frozen=True)
class Scores:
    """The scores of each prompt, in groups whose means count alike; usually one group."""

    groups: Sequence[Mapping[str, float]]

    @property
    def interval(self) -> Interval:
        """Of their mean, by a bootstrap over prompts."""
        return bootstrap_of_groups([np.array([*group.values()]) for group in self.groups])

    @property
    def columns(self) -> dict[str, Any]:
        """Of a row of results: their mean with its interval, and themselves as its `basis`."""
        return {**self.interval._asdict(), "basis": self}

    @classmethod
    def of(cls, prompts: Sequence[str], scores: np.ndarray) -> Scores:
        """One group: the mean of each prompt's pictures."""
        found: dict[str, list[float]] = {}
        for prompt, score in zip(prompts, scores, strict=True):
            found.setdefault(prompt, []).append(float(score))
        return cls([{prompt: float(np.mean(some)) for prompt, some in found.items()}])

    def change(self, first: Scores) -> Interval | None:
        """The mean difference, by a bootstrap over prompts; None where the prompts are others."""
        if [set(group) for group in self.groups] != [set(group) for group in first.groups]:
            return None
        pairs = zip(self.groups, first.groups, strict=True)
        return bootstrap_of_groups([np.array([own[each] - other[each] for each in own]) for own, other in pairs])


def with_changes(rows: Iterable[dict[str, Any]], first: str) -> Iterator[dict[str, Any]]:
    """The rows of results with the columns `change`, `change_low` and `change_high`, from the first model's value. A
    row may have a `basis`, `Distances` or `Scores`, which is taken out of it: of a metric without one the change has no
    interval. `first`: name of the model, whose rows come first."""
    found: dict[tuple[Any, ...], tuple[float, Any]] = {}
    for row in rows:
        basis, value = row.pop("basis", None), row.get("value")
        numbers = row.get("num_generated"), row.get("num_reference")
        key = (*(row.get(name) for name in ALIKE), *numbers)
        if value is not None and row["model"] == first:
            found[key] = value, basis
        elif value is not None and key in found:
            other, paired = found[key]
            change = None if basis is None or paired is None else basis.change(paired)
            row["change"] = value - other
            if change is not None:
                row |= {"change": change.value, "change_low": change.low, "change_high": change.high}
        yield row
