"""People judge on a page that names no model; their answers join the verdicts, and odd lines are refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.judge.pairs import find_pairs
from evaluation.judge.people import _answer, by_blind_id
from schemas.judging import JudgeRecipe
from tests.evaluation.judge.setting import evaluation, recipe, rows, run

REDS: dict[str, list[int | None]] = {
    "sigma-one": [200, 180, 160, 140, 120, 100, 80, 60],
    "zeta": [100, 200, 40, 140, 20, 30, 50, 10],
}
"""The last prompt but four has the same pictures."""


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    return recipe(tmp_path, dict.fromkeys(REDS, evaluation(tmp_path / "evaluation", REDS)))


def data_of(page: Path) -> dict[str, Any]:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    data: dict[str, Any] = json.loads(found)
    return data


def answers_of(words: list[str], person: str = "Ann", prefers: str = "sigma-one") -> list[dict[str, Any]]:
    """What somebody would write who knows which picture is whose."""
    made = JudgeRecipe.load(words[1])
    lines = []
    for blind_id, [pair] in by_blind_id(find_pairs(made).pairs).items():
        first = pair.models["ab".index(pair.blind_order[0])]
        verdict = "first" if first == prefers else "second"
        for aspect in made.aspects:
            lines.append({"pair": blind_id, "aspect": aspect, "verdict": verdict, "person": person, "seconds": 1.5})
    return lines


def write(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def test_the_page_tells_nothing_of_the_models(tmp_path: Path, words: list[str]) -> None:
    page = tmp_path / "page.html"
    assert "7 pairs" in run([*words, "--page", str(page)])
    text = page.read_text()
    for tell in (*REDS, "model_a", "evaluation/", "p0", "samples", str(tmp_path)):
        assert tell not in text
    data = data_of(page)
    assert [len(pair["pictures"]) for pair in data["pairs"]] == [2] * 7
    assert [pair["pair"] for pair in data["pairs"]] == sorted(pair["pair"] for pair in data["pairs"])
    assert {*data["pairs"][0]} == {"pair", "prompt", "pictures"}
    assert "http:" not in re.sub(r"data:image/jpeg;base64,[\w+/=]+", "", text)
    assert not (tmp_path / "judged").exists()
    orders = {pair.blind_order for [pair] in by_blind_id(find_pairs(JudgeRecipe.load(words[1])).pairs).values()}
    assert orders == {"ab", "ba"}


def test_pairs_keep_their_ids_and_order_under_other_names(tmp_path: Path, words: list[str]) -> None:
    one, two = tmp_path / "one.html", tmp_path / "two.html"
    run([*words, "--page", str(one)])
    turned = dict.fromkeys(reversed(REDS), tmp_path / "evaluation")
    run([*recipe(tmp_path, turned), "--page", str(two)])
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.slow
def test_answers_of_people_join_the_verdicts(tmp_path: Path, words: list[str]) -> None:
    ann = write(tmp_path / "ann.jsonl", answers_of(words))
    shown = run([*words, "--answers", str(ann)])
    assert "14 answers, 0 known before, 0 refused" in shown
    for row in rows(tmp_path, "preferences"):
        assert (row["judge"], row["kind"], row["win_rate"], row["wins"], row["num_pairs"]) == ("Ann", "person", 1, 7, 7)
        assert abs(row["lean"]) < 0.5
    bob = write(tmp_path / "bob.jsonl", answers_of(words, "Bob", "zeta")[:6])
    run([*words, "--answers", str(bob), "--answers", str(ann)])
    found = {(row["judge"], row["aspect"]): row for row in rows(tmp_path, "preferences")}
    assert {judge for judge, _ in found} == {"Ann", "Bob", "all"}
    assert found["Bob", "quality"]["win_rate"] == 0 and found["Bob", "quality"]["num_pairs"] == 3
    assert found["all", "quality"]["win_rate"] == pytest.approx((3 * 0.5 + 4) / 7)
    assert (found["all", "quality"]["num_pairs"], found["all", "quality"]["num_prompts"]) == (10, 7)
    turned = recipe(tmp_path, dict.fromkeys(reversed(REDS), tmp_path / "evaluation"))
    run([*turned, "--answers", str(ann)])
    found = {(row["judge"], row["aspect"]): row for row in rows(tmp_path, "preferences")}
    assert (found["Ann", "quality"]["model_a"], found["Ann", "quality"]["win_rate"]) == ("zeta", 0)


@pytest.mark.slow
def test_lines_that_are_no_answer_are_counted_with_their_reason(tmp_path: Path, words: list[str]) -> None:
    good = answers_of(words)[:2]
    other = good[0] | {"verdict": {"first": "second", "second": "first"}[good[0]["verdict"]]}
    odd = [
        *good, "", "nothing", "[1]", good[0] | {"pair": "0" * 16}, good[0] | {"pair": ["x"]},
        good[0] | {"aspect": "taste"},
        good[0] | {"verdict": "both"}, good[0] | {"verdict": ["first"]}, good[0] | {"person": " "},
        good[0] | {"person": "a\x1b[0m"}, good[0] | {"person": "all"}, good[0] | {"seconds": "soon", "person": "Eve"},
        good[0], other,
    ]  # fmt: skip
    shown = run([*words, "--answers", str(write(tmp_path / "odd.jsonl", odd))])
    assert "3 answers, 1 known before, 11 refused" in shown
    for reason in (
        "line 4: it is no JSON line 5: it is no JSON object line 6: no pair of this recipe has this id",
        "line 8: there is no aspect 'taste' line 9: the verdict is none of first, second and tie",
        "line 11: the person has no name of 1 to 80 letters",
        f"line 16: Ann has answered it before, with {good[0]['verdict']}, which holds",
    ):
        assert reason in shown
    assert "0 answers, 0 known before, 1 refused" in run([*words, "--answers", str(write(tmp_path / "o", [other]))])
    assert {row["judge"] for row in rows(tmp_path, "verdicts")} == {"Ann", "Eve"}
    assert "cannot be read" in run([*words, "--answers", str(tmp_path / "none.jsonl")], status=1)


@given(st.binary(max_size=60) | st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["pair", "aspect", "verdict", "person", "seconds"]), inner),
    max_leaves=8,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_a_line_is_an_answer_or_refused(line: bytes) -> None:
    with pytest.raises(ValueError):
        _answer(line, {"x": []})
