"""DPG-Bench from pictures to a number: each question is asked once, and the rules make of the replies what they say."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from engine.runner import PartFailed
from evaluation.rules.dpg import benchmark, read_questions
from evaluation.scorers import dpg
from evaluation.scorers.answering import read_reply
from tests.captioning.chat_server import ChatServer, completion, filtered, status
from tests.dying import Died, dying_at
from tests.evaluation.scorers.conftest import only, recipe_of, run

LINES = """item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,\
question_natural_language
a,A cat,,1,0,entity,whole,entity - whole (cat),Is there a cat?
a,A cat,,2,1,attribute,color,"attribute - color (cat, red)",Is the cat red?
b,A dog,,1,0,entity,whole,entity - whole (dog),Is there a dog?
b,A dog,,2,0,entity,whole,entity - whole (hat),Is there a hat?
b,A dog,,3,"1,2",relation,spatial,relation - spatial (dog),Is the hat on the dog?
"""
REDS = {"A cat": [20, 40], "A dog": [60, 80]}
YES = {
    20: ("Is there a cat?", "Is the cat red?"),
    40: ("Is the cat red?",),
    60: ("Is there a dog?", "Is there a hat?", "Is the hat on the dog?"),
    80: ("Is there a dog?", "Is the hat on the dog?"),
}
"""Red of a picture -> what is true of it."""
TRUE = {"a": [[True, True], [False, True]], "b": [[True, True, True], [True, False, True]]}


class Answering(ChatServer):
    """Answers by `YES`, and counts what it was asked."""

    def __init__(self, **others: Any) -> None:
        async def answer(server: ChatServer, request: web.Request, text: str, times: int) -> web.StreamResponse:
            question, _, rest = text.partition("\n\n")
            tag = int(rest.split()[-2])
            self.questions[tag, question] += 1
            return completion("Yes." if question in YES[tag] else "no")

        super().__init__(dict.fromkeys(YES, answer) | others.pop("behaviours", {}), **others)
        self.questions: Counter[tuple[int, str]] = Counter()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "dpg"
    (folder / "prompts").mkdir(parents=True)
    for name, text in (("a", "A cat"), ("b", "A dog")):
        (folder / "prompts" / f"{name}.txt").write_text(text)
    (folder / "dpg_bench.csv").write_text(LINES)
    return folder


def asking(server: ChatServer, **knobs: Any) -> dict[str, Any]:
    section = {"url": server.url, "model": "org/vlm", "retries": 0, "backoff_s": 0.01, "concurrency": 1}
    return {"dpg": {"endpoint": section, **knobs}}


def test_the_score_is_that_of_the_rules_over_the_replies_and_other_rules_ask_nothing(
    tmp_path: Path, source: Path
) -> None:
    with Answering() as server:
        values = recipe_of(tmp_path, source, REDS, asking(server))
        done = run(values)
        assert set(server.questions.values()) == {1} and sum(server.questions.values()) == 10
        assert server.bodies[0]["messages"][0]["content"][1]["text"].endswith("Answer with one word, yes or no.")
        row = only(done)
        assert (row["metric"], row["protocol"], row["network"]) == ("dpg", "dpg/fixed", "org/vlm")
        expected = benchmark(read_questions(LINES.splitlines()), TRUE)
        assert expected.overall == pytest.approx(100 * (0.5 + (1 + 1 / 3) / 2) / 2)
        assert row["value"] == pytest.approx(expected.overall) and row["low"] == pytest.approx(50)
        assert row["flags"][0] == "pictures: 2 a prompt, where 4 are published" and "mPLUG-large" in row["flags"][1]
        found = {row["category"]: row["value"] for row in done.results if row["category"]}
        assert found == pytest.approx(expected.categories)
        table = done.dataset.read_table("answers/theirs/dpg-vlm").to_pylist()
        assert json.loads(table[1]["facts"]) == {"1": "no", "2": "Yes."}
        assert (table[1]["share"], table[1]["missing"]) == (0, "Is there a cat?")
        values["metrics"]["dpg"]["rules"] = "published"
        row = only(run(values))
        published = read_questions(LINES.splitlines(), "published")
        answers = TRUE | {"a": [[True], [True]]}
        assert row["protocol"] == "dpg/published"
        assert row["value"] == pytest.approx(benchmark(published, answers, "published").overall)
        assert row["flags"][-1] == "left out: 1 prompts that cannot be counted"
        assert set(server.questions.values()) == {1}


def test_what_was_answered_is_never_asked_again_unless_it_is_redone(tmp_path: Path, source: Path) -> None:
    with Answering(behaviours={80: status(500)}) as server:
        values = recipe_of(tmp_path, source, REDS, asking(server))
        with pytest.raises((ValueError, PartFailed), match="questions have no answer, for example"):
            run(values)
        assert sum(server.questions.values()) == 7
        server.behaviours[80] = server.behaviours[60]
        whole = run(values).results
        assert set(server.questions.values()) == {1} and sum(server.questions.values()) == 10
        assert run(values, "answers-theirs").results == whole
        assert set(server.questions.values()) == {2}, "--redo asks anew"


@pytest.mark.slow
def test_wherever_it_is_killed_one_question_is_asked_again_at_most(tmp_path: Path, source: Path) -> None:
    with Answering() as server:
        values = recipe_of(tmp_path, source, REDS, asking(server))
        whole, changes, is_through = run(values).results, 0, False
        while not is_through:
            server.questions.clear()
            out = values | {"out": str(tmp_path / f"killed-{changes}")}
            with dying_at(changes) as left, contextlib.suppress(Died):
                run(out)
            is_through = left[0] >= 0
            assert run(out).results == whole
            assert len(server.questions) == 10 and sum(server.questions.values()) <= 11
            changes += 3
        assert changes > 9


def test_a_reply_that_is_neither_yes_nor_no_is_asked_for_once_more_and_then_is_no_answer(
    tmp_path: Path, source: Path
) -> None:
    async def muse(server: ChatServer, request: web.Request, text: str, times: int) -> web.StreamResponse:
        return completion("No or yes, who knows")

    with Answering(behaviours={40: muse}) as server:
        values = recipe_of(tmp_path, source, REDS, asking(server))
        done = run(values)
        assert server.asked[40] == 4 and server.asked[20] == 2
        assert only(done)["reason"].startswith("1 of 4 pictures are missing: a (unparsed)")
        row = done.dataset.read_table("answers/theirs/dpg-vlm").to_pylist()[1]
        assert (row["reason"], row["detail"]) == ("unparsed", "Is there a cat? 'No or yes, who knows'")
        values["metrics"]["allow_missing"] = True
        row = only(run(values))
        assert row["value"] == pytest.approx(100 * (1 + (1 + 1 / 3) / 2) / 2) and "missing" in row["flags"]
        values["metrics"] = asking(server, rules="published") | {"protocols": [], "clip_score": False}
        assert only(run(values))["num_generated"] == 4, "published, whatever is not yes is no"


def test_an_answer_that_a_filter_holds_back_is_neither(tmp_path: Path, source: Path) -> None:
    with Answering(behaviours={60: filtered}) as server:
        done = run(recipe_of(tmp_path, source, REDS, asking(server)))
        assert only(done)["reason"].startswith("1 of 4 pictures are missing: b (refused)")


@pytest.mark.slow
def test_a_blip_answers_too_and_is_asked_once(
    tmp_path: Path, source: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = recipe_of(tmp_path, source, REDS, {"dpg": {"vqa": str(models / "vqa"), "rules": "published"}})
    first = run(values)
    assert only(first)["network"].startswith("vqa@") and only(first)["value"] is not None
    rows = first.dataset.read_table("answers/theirs/dpg-vqa").to_pylist()
    assert [len(json.loads(row["facts"])) for row in rows] == [2, 2, 3, 3]
    assert not any("dec" in row["facts"].lower() for row in rows)
    monkeypatch.setattr(dpg, "load_blip", None)
    assert not run(values).has_run


def test_the_words_of_a_blip_are_read_without_the_one_that_starts_them(
    tmp_path: Path, source: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import BlipForQuestionAnswering

    def say_yes(self: Any, input_ids: torch.Tensor, pixel_values: torch.Tensor, **knobs: Any) -> torch.Tensor:
        assert len(pixel_values) == len(input_ids)
        return torch.tensor([[5, 6, 3]] * len(input_ids))  # [DEC] yes [SEP]

    monkeypatch.setattr(BlipForQuestionAnswering, "generate", say_yes)
    done = run(recipe_of(tmp_path, source, REDS, {"dpg": {"vqa": str(models / "vqa")}}))
    assert only(done)["value"] == 100
    assert json.loads(done.dataset.read_table("answers/theirs/dpg-vqa").to_pylist()[0]["facts"])["1"] == "yes"


def test_whoever_answers_is_named_or_the_row_says_what_to_type(tmp_path: Path, source: Path, models: Path) -> None:
    values = recipe_of(tmp_path, source, REDS, {})
    row = only(run(values))
    assert row["value"] is None and "metrics.dpg.endpoint.url" in row["reason"]
    assert "`sigma weights get blip-vqa` and set metrics.dpg.vqa=Salesforce/blip-vqa-base" in row["reason"]
    values["metrics"]["dpg"] = {"vqa": "Salesforce/nothing-of-it"}
    assert "weights missing: Salesforce/nothing-of-it" in only(run(values))["reason"]
    values["metrics"]["dpg"] = {"endpoint": {"url": "http://127.0.0.1:9/v1"}}
    with pytest.raises(ValueError, match=r"endpoint needs the server \(endpoint.url\) and its model"):
        run(values)
    values["metrics"]["dpg"] = {"vqa": "x", "endpoint": {"url": "http://127.0.0.1:9/v1", "model": "m"}}
    with pytest.raises(ValueError, match="name vqa or endpoint, not both"):
        run(values)


def test_questions_that_are_not_there_are_a_row_and_a_prompt_without_any_is_named(tmp_path: Path, source: Path) -> None:
    with Answering() as server:
        (source / "dpg_bench.csv").write_text("\n".join(LINES.splitlines()[:3]) + "\n")
        values = recipe_of(tmp_path, source, REDS, asking(server))
        assert only(run(values))["reason"].startswith("2 of 4 pictures are missing: b (no_questions)")
        (source / "dpg_bench.csv").unlink()
        assert "dpg_bench.csv: cannot be read" in only(run(values))["reason"]


def test_a_key_that_is_not_set_is_named_before_anything_is_drawn(tmp_path: Path, source: Path) -> None:
    with Answering() as server:
        values = recipe_of(tmp_path, source, REDS, asking(server))
        values["metrics"]["dpg"]["endpoint"]["api_key_env"] = "SIGMA_NO_KEY"
        with pytest.raises(
            ValueError, match=r"metrics\.dpg\.endpoint\.api_key_env: the environment variable SIGMA_NO_KEY"
        ):
            run(values)
        assert not server.bodies


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("yes", True), ("Yes.", True), (" **No**", False), ("NO, there is none", False), ("yes\nIt is red", True),
        ("\"yes\"", True), ("<no>", False), ("yes - clearly", True), ("", None), ("yes or no", None),
        ("No. Well, yes", None), ("yesterday", None), ("nobody", None), ("I think yes", None), ("no doubt", None),
        ("red", None), ("yes no", None), ("noon", None),
    ],
)  # fmt: skip
def test_a_reply_is_yes_or_no_at_its_beginning_alone(reply: str, said: bool | None) -> None:
    assert read_reply(reply) is said
