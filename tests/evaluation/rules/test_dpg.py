"""DPG-Bench's rules: the original's scores, its faults under their name, and what cannot be scored."""

from __future__ import annotations

import json

import pytest

from evaluation.rules.dpg import Question, benchmark, counted, prompt_score, question_scores, read_questions
from tests.evaluation.conftest import Numbers

CHAIN = {1: (0,), 2: (1,), 3: (2,)}


def test_scores_are_those_of_the_original(original: Numbers) -> None:
    for case in json.loads(str(original("dpg_rules")["cases"])):
        parents = {int(number): above for number, above in case["dependencies"].items()}
        for rules in ("fixed", "published"):
            assert prompt_score(parents, case["answers"], rules) == pytest.approx(case["score"], abs=1e-12)
        assert question_scores(parents, case["answers"], "published") == case["category_scores_of_the_original"]


def test_a_no_is_one_to_everything_that_builds_on_it() -> None:
    assert counted(CHAIN, [True, True, True]) == [True, True, True]
    assert counted(CHAIN, [False, True, True]) == [False, False, False]
    assert counted(CHAIN, [True, False, True]) == [True, False, False]
    assert counted({1: (0,), 2: (0,), 3: (1, 2)}, [True, False, True]) == [True, False, False]


def test_published_a_no_is_passed_on_down_the_list_alone() -> None:
    upwards = {3: (2,), 2: (1,), 1: (0,)}
    assert counted(upwards, [True, True, False]) == [False, False, False]
    assert counted(upwards, [True, True, False], "published") == [True, False, False]


def test_fixed_a_category_counts_all_pictures_and_published_the_last() -> None:
    answers = [[True, True, True], [True, False, True], [False, True, True], [False, True, True]]
    assert question_scores(CHAIN, answers) == [0.5, 0.25, 0.25]
    assert question_scores(CHAIN, answers, "published") == [0, 1, 1]
    assert prompt_score(CHAIN, answers) == pytest.approx((1 + 1 / 3) / 4)


LINES = """item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,\
question_natural_language
a,A cat,,1,0,entity,whole,entity - whole (cat),Is there a cat?
a,A cat,,2,1,attribute,color,"attribute - color (cat, red)",Is the cat red?
b,"A dog, a hat",,1,0,entity,whole,entity - whole (dog),Is there a dog?
b,"A dog, a hat",,2,"0, 1",relation,spatial,relation - spatial (dog),Is the dog there?
""".splitlines()


def test_the_file_of_questions_is_read_and_published_its_first_question_is_lost() -> None:
    fixed, published = read_questions(LINES), read_questions(LINES, "published")
    assert fixed["a"][1] == Question(2, (1,), "attribute - color", "Is the cat red?")
    assert fixed["b"][1].parents == (0, 1)
    assert published["b"] == fixed["b"] and published["a"] == fixed["a"][1:]


def test_the_benchmark_is_the_mean_over_prompts_and_categories_over_questions() -> None:
    questions = read_questions(LINES)
    answers = {"a": [[True, True], [True, False]], "b": [[False, True], [True, True]]}
    found = benchmark(questions, answers)
    assert found.overall == pytest.approx(100 * (0.75 + 0.5) / 2)
    assert found.categories == pytest.approx(
        {"entity": 75, "entity - whole": 75, "attribute": 50, "attribute - color": 50, "relation": 50}
        | {"relation - spatial": 50}
    )
    published = benchmark(read_questions(LINES, "published"), answers | {"a": [[True], [False]]}, "published")
    assert published.overall == pytest.approx(50), "the question that builds on the lost one takes its prompt with it"


def test_prompts_that_cannot_be_scored_are_named() -> None:
    questions = read_questions(LINES)
    with pytest.raises(ValueError, match="b: a prompt needs answers"):
        benchmark(questions, {"a": [[True, True]]})
    with pytest.raises(ValueError, match="a: there are 2 questions and 1 answers"):
        benchmark(questions, {"a": [[True]]})
    with pytest.raises(ValueError, match="no prompt"):
        benchmark(questions, {}, "published")
    with pytest.raises(ValueError, match=r"build on \[7\]"):
        counted({1: (7,)}, [True])
    with pytest.raises(ValueError, match="row 2 of the questions"):
        read_questions([LINES[0], LINES[1], LINES[2].replace(",2,1,", ",2,x,")])
    with pytest.raises(ValueError, match=r"row 1 of the questions.*dependency"):
        read_questions(["item_id,proposition_id", "a,1"])
