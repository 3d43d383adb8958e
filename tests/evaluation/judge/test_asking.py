"""A model judges pairs in both orders; what was paid for is asked once, and what judges nothing is no number."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from PIL import Image

from engine.dataset import Dataset
from schemas.files import place_of
from schemas.judging import JudgeRecipe
from tests.captioning.chat_server import completion
from tests.dying import Died, dying_at
from tests.evaluation.judge.setting import (
    FIRST,
    SECOND,
    JudgeServer,
    evaluation,
    put,
    recipe,
    redder,
    rows,
    run,
)
from tests.memory_store import URL, Memory
from tests.trees import start_sigma

REDS: dict[str, list[int | None]] = {"a": [200, 180, 160, 140], "b": [100, 200, 40, 140]}
"""a is redder twice, b once, and one pair has the same pixels."""


@pytest.fixture
def drawn(tmp_path: Path) -> dict[str, Path]:
    return dict.fromkeys(REDS, evaluation(tmp_path / "evaluation", REDS))


def test_each_pair_is_judged_in_both_orders_and_for_both_questions(tmp_path: Path, drawn: dict[str, Path]) -> None:
    with JudgeServer() as server:
        shown = run(recipe(tmp_path, drawn, server))
    assert {asked[:3] for asked in server.asked} == {
        (*order, aspect)
        for one, two in ((200, 100), (180, 200), (160, 40))
        for order in ((one, two), (two, one))
        for aspect in (True, False)
    }
    assert server.asked.total() == 12
    verdicts = rows(tmp_path, "verdicts")
    assert len(verdicts) == 16
    (row,) = [
        each for each in verdicts if (each["prompt_id"], each["aspect"], each["order"]) == ("p1", "quality", "ba")
    ]
    assert (row["model_a"], row["model_b"], row["verdict"], row["reason"]) == ("a", "b", "first", "it is redder.")
    assert (row["judge"], row["kind"], row["tokens"], row["attempt"]) == ("m", "model", 5, 0) and row["seconds"] > 0
    equal = [each for each in verdicts if each["prompt_id"] == "p3"]
    assert [each["verdict"] for each in equal] == ["tie"] * 4 and {each["reply"] for each in equal} == {None}
    for found in rows(tmp_path, "preferences"):
        assert (found["win_rate"], found["wins"], found["losses"], found["lean"]) == (2.5 / 4, 2, 1, 0)
        assert found["decided"] == pytest.approx(2 / 3) and found["share_tied"] == 0.25 and found["num_pairs"] == 4
    assert "62.5 (" in shown and "leans" not in shown
    figure = (tmp_path / "judged" / "preferences.svg").read_text()
    assert "alignment, by m" in figure and figure.count('class="undecided"') == 2 and "50 %" in figure


def test_a_judge_that_always_says_first_gives_fifty_percent_and_a_lean_of_fifty_points(
    tmp_path: Path, drawn: dict[str, Path]
) -> None:
    with JudgeServer(lambda *_: FIRST) as server:
        shown = run(recipe(tmp_path, drawn, server))
    for found in rows(tmp_path, "preferences"):
        assert (found["win_rate"], found["decided"], found["lean"]) == (0.5, None, 0.5)
        assert found["share_position"] == 0.75
    assert shown.count("leans to the first picture by 50 points") == 2


def test_a_judge_that_says_nothing_readable_gives_no_win_rate(tmp_path: Path, drawn: dict[str, Path]) -> None:
    different = {"a": drawn["a"], "c": evaluation(tmp_path / "other", {"c": [10, 20, 30, 50]})}
    with JudgeServer(lambda *_: "Both are lovely.") as server:
        shown = run(recipe(tmp_path, different, server, aspects=["quality"]))
        assert server.asked.total() == 16
        seeds = {asked[:3]: {other[3] for other in server.asked if other[:3] == asked[:3]} for asked in server.asked}
        assert all(len(each) == 2 for each in seeds.values()), "the second time with another seed"
        run(recipe(tmp_path, different, server, aspects=["quality"]))
        assert server.asked.total() == 16
    (found,) = rows(tmp_path, "preferences")
    assert found["win_rate"] is None and "none of 4 pairs is answered" in found["reason"]
    assert (
        found["share_unparsed"] == 1 and "100 % of the replies are no verdict, for example 'Both are lovely.'" in shown
    )
    assert {row["verdict"] for row in rows(tmp_path, "verdicts")} == {"unparsed"}


def test_a_reply_that_names_two_is_asked_for_once_more(tmp_path: Path, drawn: dict[str, Path]) -> None:
    seen: set[tuple[int, int, str]] = set()

    def unsure_at_first(first: int, second: int, question: str) -> str:
        known = (first, second, question) in seen
        seen.add((first, second, question))
        return redder(first, second, question) if known else f"{FIRST} or {SECOND}"

    with JudgeServer(unsure_at_first) as server:
        run(recipe(tmp_path, drawn, server))
    assert server.asked.total() == 24
    assert {row["win_rate"] for row in rows(tmp_path, "preferences")} == {2.5 / 4}
    assert {row["attempt"] for row in rows(tmp_path, "verdicts") if row["reply"]} == {1}


@pytest.mark.slow
def test_nothing_is_asked_twice_for_a_further_model_or_a_knob_that_changes_no_question(
    tmp_path: Path, drawn: dict[str, Path]
) -> None:
    with JudgeServer() as server:
        run(recipe(tmp_path, drawn, server))
        run(recipe(tmp_path, drawn, server, judge={"concurrency": 2, "timeout_s": 5.0}, aspects=["quality"]))
        assert server.asked.total() == 12
        more = {"sigma": drawn["a"], "c": evaluation(tmp_path / "other", {"c": [10, 20, 30, 50]}), "b": drawn["b"]}
        words = recipe(tmp_path, more, server)
        text = Path(words[1]).read_text().replace("sigma:\n", "sigma:\n    model: a\n")
        Path(words[1]).write_text(text)
        run(words)  # a model has another name, and another one has joined
        new = 2 * 16 - 4  # a and b have the same last picture
        assert server.asked.total() == 12 + new and max(server.asked.values()) == 1
        strengths = rows(tmp_path, "strengths")
        assert {row["model"] for row in strengths} == {"sigma", "b", "c"}
        assert all("model c has no win" in row["reason"] for row in strengths)
        run(recipe(tmp_path, drawn, server, judge={"max_tokens": 100}))
        assert server.asked.total() == 12 + new + 12
    assert len(rows(tmp_path, "verdicts")) == 16


def test_three_models_have_strengths_where_each_has_won(tmp_path: Path) -> None:
    reds: dict[str, list[int | None]] = {"a": [200, 100, 100], "b": [100, 200, 50], "c": [50, 50, 200]}
    models = dict.fromkeys(reds, evaluation(tmp_path / "evaluation", reds))
    with JudgeServer() as server:
        shown = run(recipe(tmp_path, models, server, aspects=["quality"]))
    found = {row["model"]: row["strength"] for row in rows(tmp_path, "strengths")}
    assert found["a"] > found["b"] > found["c"] and sum(found.values()) == pytest.approx(0)
    assert "strengths on quality by m: a +" in shown


def test_what_a_content_filter_holds_back_is_a_verdict_and_is_not_asked_again(
    tmp_path: Path, drawn: dict[str, Path]
) -> None:
    def filtered(first: int, second: int, question: str) -> web.StreamResponse | str:
        if 200 in (first, second) and 100 in (first, second):
            return completion(None, "content_filter")
        if 40 in (first, second):
            error = {"error": {"code": "content_filter", "message": "The prompt was filtered."}}
            return web.json_response(error, status=400)
        return redder(first, second, question)

    with JudgeServer(filtered) as server:
        run(recipe(tmp_path, drawn, server))
        run(recipe(tmp_path, drawn, server))
        assert server.asked.total() == 12
    for found in rows(tmp_path, "preferences"):
        assert (found["num_pairs"], found["num_answered"], found["share_refused"]) == (4, 2, 0.5)
        assert found["win_rate"] == 0.25


@pytest.mark.parametrize(
    ("status", "advice"), [(401, "judge.api_key_env"), (404, "judge.url"), (400, "two pictures"), (302, "judge.url")]
)
def test_a_mistake_stops_with_one_line(tmp_path: Path, drawn: dict[str, Path], status: int, advice: str) -> None:
    with JudgeServer(lambda *_: web.json_response({"error": {"message": "no such thing"}}, status=status)) as server:
        shown = run(recipe(tmp_path, drawn, server, judge={"concurrency": 1}), status=1)
        assert server.asked.total() <= 2
    assert "no such thing" in shown and advice in shown and "caption" not in shown


def test_a_passing_error_is_retried_and_a_lasting_one_leaves_its_question_for_the_next_time(
    tmp_path: Path, drawn: dict[str, Path]
) -> None:
    times: dict[str, int] = {}

    def shaky(first: int, second: int, question: str) -> web.StreamResponse | str:
        times["all"] = times.get("all", 0) + 1
        if 40 in (first, second) or times["all"] < 3:
            return web.Response(status=503 if times["all"] % 2 else 429, headers={"Retry-After": "0"})
        return redder(first, second, question)

    with JudgeServer(shaky) as server:
        shown = run(recipe(tmp_path, drawn, server, judge={"retries": 2}), status=1)
        assert "4 questions have no answer" in shown and "run the same command" in shown
        assert {row["num_pairs"] for row in rows(tmp_path, "preferences")} == {3}
        server.reply, before = redder, server.asked.copy()
        run(recipe(tmp_path, drawn, server))
        assert (server.asked - before).total() == 4
    assert {row["num_pairs"] for row in rows(tmp_path, "preferences")} == {4}


@pytest.mark.slow
def test_a_reply_of_megabytes_is_bounded(tmp_path: Path, drawn: dict[str, Path]) -> None:
    with JudgeServer(lambda *_: FIRST + "x" * 5_000_000) as server:
        run(recipe(tmp_path, drawn, server, aspects=["quality"], judge={"retries": 0}), status=1)
    assert not rows(tmp_path, "verdicts") and not rows(tmp_path, "preferences")


def test_pictures_are_sent_as_the_recipe_has_them(tmp_path: Path, drawn: dict[str, Path]) -> None:
    with JudgeServer() as server:
        run(recipe(tmp_path, drawn, server, judge={"image_px": 32, "image_format": "png", "temperature": 0.5}))
        run(recipe(tmp_path, drawn, server, max_prompts=1, aspects=["quality"]))
    urls = [part["image_url"]["url"][:20] for body in server.bodies for part in body["messages"][0]["content"][:2]]
    assert urls.count("data:image/png;base6") == 24 and {*urls[24:]} <= {"data:image/jpeg;base"}
    assert server.bodies[0]["temperature"] == 0.5


def killed_at(words: list[str], server: JudgeServer, num_asked: int) -> None:
    process = start_sigma(*words)
    deadline = time.monotonic() + 60
    while process.poll() is None and server.asked.total() < num_asked and time.monotonic() < deadline:
        time.sleep(0.005)
    assert process.poll() is None, "it ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_wherever_it_dies_at_most_one_question_is_asked_again(tmp_path: Path, drawn: dict[str, Path]) -> None:
    for change in (0, 5, 12):  # the last puts the answers together
        folder = tmp_path / f"{change}"
        folder.mkdir()
        with JudgeServer() as server:
            words = recipe(folder, drawn, server, judge={"concurrency": 1})
            with pytest.raises(Died), dying_at(change, "judged/paid"):
                run(words)
            run(words)
            assert server.asked.total() <= 12 + 1 and len(server.asked) == 12, change
        assert {row["win_rate"] for row in rows(folder, "preferences")} == {2.5 / 4}


@pytest.mark.slow
def test_a_killed_process_asks_again_for_what_was_in_flight_and_for_nothing_else(
    tmp_path: Path, drawn: dict[str, Path]
) -> None:
    with JudgeServer(delay_s=0.1) as server:
        words = recipe(tmp_path, drawn, server, judge={"concurrency": 1})
        killed_at(words, server, 5)
        time.sleep(0.3)
        server.delay_s = 0.0
        run(words)
        asked = server.asked.total()
        assert asked <= 12 + 1 and max(server.asked.values()) <= 2
        run(words)
        assert server.asked.total() == asked
    assert {row["win_rate"] for row in rows(tmp_path, "preferences")} == {2.5 / 4}
    assert not list((tmp_path / "judged" / "paid" / "verdicts").glob("part-*/"))


def test_the_output_may_be_in_a_store(tmp_path: Path, drawn: dict[str, Path]) -> None:
    with Memory().used(tmp_path / "scratch"), JudgeServer() as server:
        words = recipe(tmp_path, drawn, server, out=URL)
        run(words)
        run(words)
        assert server.asked.total() == 12
        assert len(Dataset(place_of(URL)).read_table("preferences")) == 2


@pytest.mark.slow
def test_evaluations_that_do_not_compare_are_refused(tmp_path: Path, drawn: dict[str, Path]) -> None:
    other = evaluation(tmp_path / "other", {"b": [1, 2, 3, 4]}, ["a field 0", "a field 1", "a lake", "a field 3"])
    shown = run(recipe(tmp_path, {"a": drawn["a"], "b": other}), status=1)
    assert "first p2: 'a field 2' there, 'a lake' here" in shown
    fewer = evaluation(tmp_path / "fewer", {"b": [1, 2, 3]})
    assert "first p3: 'a field 3' there, nothing here" in run(recipe(tmp_path, {"a": drawn["a"], "b": fewer}), status=1)
    assert "no pictures of a model z; it has a, b" in run(
        recipe(tmp_path, {"a": drawn["a"], "z": drawn["a"]}), status=1
    )
    assert "models: " in run(recipe(tmp_path, {"a": drawn["a"]}), status=1)
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    assert "has no prompts" in run(recipe(tmp_path, {"a": drawn["a"], "b": nothing}), status=1)
    gaps = evaluation(tmp_path / "gaps", {"b": [1, None, 3, None]})
    shown = run(recipe(tmp_path, {"a": drawn["a"], "b": gaps}), status=1)
    assert "2 of 4 pictures are missing, first number 0 of prompt p" in shown and "(not_generated)" in shown
    assert not (tmp_path / "judged").exists()


def test_a_folder_of_something_else_is_no_output(tmp_path: Path, drawn: dict[str, Path]) -> None:
    held = "models: {}\nprompts: here\n"
    (drawn["a"] / "recipe.yaml").write_text(held)
    assert "holds something else" in run([*recipe(tmp_path, drawn), f"out={drawn['a']}"], status=1)
    assert (drawn["a"] / "recipe.yaml").read_text() == held


def test_a_judge_without_server_model_or_key_is_refused(
    tmp_path: Path, drawn: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "judge.url" in run(recipe(tmp_path, drawn), status=1)
    at: dict[str, Any] = {"url": "http://127.0.0.1:9/v1", "model": None}
    assert "judge.model" in run(recipe(tmp_path, drawn, judge=at), status=1)
    monkeypatch.delenv("SIGMA_NO_KEY", raising=False)
    shown = run(recipe(tmp_path, drawn, judge=at | {"model": "m", "api_key_env": "SIGMA_NO_KEY"}), status=1)
    assert "judge.api_key_env: the environment variable SIGMA_NO_KEY is not set" in shown
    assert "is the same model" not in shown and "are the same model" in run(
        [*recipe(tmp_path, drawn), "models.b.model=a"], status=1
    )


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path, drawn: dict[str, Path]) -> None:
    (drawn["a"] / "samples" / "a.tar").write_bytes(b"x" * 5000)
    with JudgeServer() as server:
        shown = run(recipe(tmp_path, drawn, server), status=1)
    assert "samples/a.tar: a picture cannot be read" in shown


def test_several_pictures_of_a_prompt_are_compared_number_by_number(tmp_path: Path, drawn: dict[str, Path]) -> None:
    dataset = Dataset(drawn["a"])
    for model in "ab":
        found = dataset.read_table(f"pictures/{model}").to_pylist()
        more = [row | {"number": 1} for row in found] if model == "a" else []
        for path in dataset.parts(f"pictures/{model}"):
            path.unlink()
        put(dataset, f"pictures/{model}", found + more)
    with JudgeServer() as server:
        shown = run(recipe(tmp_path, drawn, server, aspects=["quality"]))
    assert "4 pairs of 2 models" in shown  # b has one picture a prompt


def test_the_recipe_in_the_docs_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "evaluation.md").read_text()
    (text,) = re.findall(r"```yaml\n(# judge.yaml\n.*?)```", page, re.DOTALL)
    (tmp_path / "judge.yaml").write_text(text)
    made = JudgeRecipe.load(tmp_path / "judge.yaml")
    assert [judged.model or name for name, judged in made.models.items()] == ["step-40000", "sdxl"]
    assert made.aspects == ("alignment", "quality") and made.judge.servers() and made.judge.model


def test_what_sigma_evaluate_has_taken_is_judged(tmp_path: Path) -> None:
    for model, red in (("x", 200), ("y", 60)):
        (tmp_path / model).mkdir()
        for number in range(2):
            drawn = Image.new("RGB", (40, 30), (red, 10 * number, 30))
            drawn.save(tmp_path / model / f"q{number}.{'png' if model == 'x' else 'jpg'}")
    prompts = [{"id": f"q{number}", "prompt": f"a lake {number}"} for number in range(2)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
    values = {"out": str(tmp_path / "drawn"), "prompts": {"source": str(tmp_path / "prompts.jsonl")}}
    models = {name: {"pictures": str(tmp_path / name)} for name in "xy"}
    metrics = {"clip_score": False, "cmmd": False}
    (tmp_path / "evaluate.yaml").write_text(json.dumps(values | {"models": models, "metrics": metrics}))
    run(["evaluate", str(tmp_path / "evaluate.yaml")])
    with JudgeServer() as server:
        run(recipe(tmp_path, dict.fromkeys("xy", tmp_path / "drawn"), server))
    assert {asked[:2] for asked in server.asked} == {(200, 60), (60, 200)} and server.asked.total() == 8
    assert [row["win_rate"] for row in rows(tmp_path, "preferences")] == [1, 1]
