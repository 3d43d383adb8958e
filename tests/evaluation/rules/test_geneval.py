"""GenEval's rules: the original's judgements, geometry by hand, and prompts that cannot be judged."""

from __future__ import annotations

import json
from typing import Any

import pytest

from evaluation.rules.geneval import TASKS, judge, keep, overall, relations
from tests.evaluation.conftest import Numbers

CAT, DOG = [0, 0, 10, 10, 0.9], [100, 0, 110, 10, 0.8]


def test_relations_are_those_of_the_original(original: Numbers) -> None:
    numbers = original("geneval_rules")
    pairs = numbers["pairs"]
    assert [relations(a, b) for a, b in pairs] == json.loads(str(numbers["relations"]))


def test_judgements_are_those_of_the_original(original: Numbers) -> None:
    for case in json.loads(str(original("geneval_rules")["cases"])):
        assert judge(case["detections"], case["metadata"]) == (case["correct"], case["reason"])


@pytest.mark.parametrize(
    ("box", "seen"),
    [
        ([100, 0, 110, 10], ["right of"]),
        ([-100, 0, -90, 10], ["left of"]),
        ([0, 100, 10, 110], ["below"]),
        ([0, -100, 10, -90], ["above"]),
        ([100, -100, 110, -90], ["above", "right of"]),
        ([1, 1, 11, 11], []),
        ([0, 0, 10, 10], []),
    ],
)
def test_a_box_is_placed_by_its_centre(box: list[float], seen: list[str]) -> None:
    assert relations(box, [0, 0, 10, 10]) == seen


def test_detections_are_kept_by_score_and_number() -> None:
    boxes = [[0, 0, 1, 1, score / 100] for score in range(100)]
    assert [box[4] for box in keep(boxes, "colors")] == [score / 100 for score in range(99, 83, -1)]
    assert [box[4] for box in keep(boxes, "counting")] == [score / 100 for score in range(99, 90, -1)]
    assert keep([[0, 0, 1, 1, 0.3]], "position") == []


def include(**wanted: Any) -> dict[str, Any]:
    return {"include": [{"class": "cat", "count": 1}, {"class": "dog", "count": 1, **wanted}]}


def test_objects_must_be_there_in_their_colours_and_places_and_no_more_of_them() -> None:
    found = {"cat": [CAT], "dog": [DOG]}
    assert judge(found, include()) == (True, "")
    assert judge({"cat": [CAT]}, include()) == (False, "expected dog>=1, found 0")
    assert judge(found, include(position=["right of", 0])).correct
    wrong = judge(found, include(position=["above", 0]))
    assert wrong == (False, "expected dog above target, found right of target")
    assert judge({"dog": [DOG]}, include(position=["above", 0])).reason.endswith("no target for dog to be above")
    counted = {"include": [{"class": "cat", "count": 2}], "exclude": [{"class": "cat", "count": 3}]}
    assert [judge({"cat": [CAT] * n}, counted).correct for n in (1, 2, 3)] == [False, True, False]


def test_a_colour_is_that_of_the_best_boxes() -> None:
    found, red = {"cat": [CAT], "dog": [DOG, DOG]}, include(color="red")
    assert judge(found, red, {"dog": ["red", "blue"]}).correct
    reason = judge(found, red, {"dog": ["blue", "red"]}).reason
    assert reason == "expected red dog>=1, found 0 red; and 1 blue"
    with pytest.raises(ValueError, match="colours for 0 of 1 boxes"):
        judge(found, red)


def test_a_prompt_that_places_an_object_by_a_later_one_is_refused() -> None:
    with pytest.raises(ValueError, match="places dog by object 1, and 1 come before it"):
        judge({"cat": [CAT], "dog": [DOG]}, include(position=["above", 1]))


def test_the_score_is_the_mean_over_the_six_tasks() -> None:
    correct: dict[str, list[bool]] = {task: [True, False] for task in TASKS}
    correct["counting"] = [True] * 100
    assert overall(correct) == pytest.approx((5 * 0.5 + 1) / 6)
    del correct["colors"]
    with pytest.raises(ValueError, match="six tasks"):
        overall(correct)
    with pytest.raises(ValueError, match="there are: none"):
        overall({})
