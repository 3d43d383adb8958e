"""The knobs of an evaluation set."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.evaluation_set import EvaluationSet
from schemas.scores import LIMITS


def test_the_default_is_the_papers_30_000() -> None:
    knobs = EvaluationSet()
    assert knobs.num_categories * knobs.per_category == 30_000
    assert (knobs.min_short_side_px, knobs.min_tokens, knobs.max_tokens) == (1024, 5, 75)


def test_every_screen_that_select_can_limit_has_its_limit() -> None:
    assert LIMITS.keys() <= EvaluationSet.model_fields.keys()


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"categories": {"pets": ["cat"], "wild": ["fox", "cat"]}}, "'cat' is in two of them"),
        ({"categories": {"pets": []}}, "categories.pets: name at least one noun"),
        ({"categories": {"../pets": ["cat"]}}, "categories"),
        ({"categories": {"a/b": ["cat"]}}, "categories"),
        ({"min_tokens": 80}, "min_tokens is more than max_tokens"),
        ({"aesthetic_share": 0}, "aesthetic_share"),
        ({"per_categorie": 3}, "did you mean 'per_category'"),
    ],
)
def test_impossible_knobs_are_refused(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        EvaluationSet.from_mapping(values)
