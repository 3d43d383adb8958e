"""A captioner that answers in any order: what is asked, what is asked again, and what a killed process loses."""

from __future__ import annotations

import io
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from captioning.asking import Asking, CaptionResult
from captioning.captioners.base import Answer, Captioner, CaptionFailure, Generated, InBatches, Plain, Question, up_to
from captioning.meter import Meter
from captioning.recaption import Recaptioner
from captioning.watch import Watch
from engine.dataset import Dataset
from engine.paid import Paid
from schemas import tables
from tests.building import table_of
from tests.processes import Python

WINDOW = 5


class Author:
    """Writes every question's image into a file as it takes it, and kills its process at a given one."""

    name, revision, prompt = "counting", "r1", None
    parameters: dict[str, Plain] = {}

    def __init__(self, asked: Path | None = None, dies_at: int = -1, retries_help: bool = False) -> None:
        self.asked, self.dies_at, self.retries_help = asked, dies_at, retries_help

    def take(self, image_id: str) -> None:
        if self.asked is not None:
            with self.asked.open("a") as file:
                file.write(f"{image_id}\n")
            if len(self.asked.read_text().split()) == self.dies_at:
                os.kill(os.getpid(), signal.SIGKILL)


class Streaming(Author):
    """Answers in another order than it was asked, as servers and vLLM do; refuses the first time where it may."""

    window = WINDOW

    def __init__(self, *given: object, refuses: Sequence[str] = (), fails: Sequence[str] = (), seed: int = 0) -> None:
        super().__init__(*given)  # type: ignore[arg-type]
        self.refuses, self.fails, self.random = set(refuses), set(fails), random.Random(seed)
        self.most_in_flight = 0

    def stream(self, questions: Iterator[Question | None]) -> Generator[tuple[str, Answer], None, None]:
        in_flight: list[Question] = []
        while True:
            for question in up_to(self.window - len(in_flight), questions):
                self.take(question.image_id)
                in_flight.append(question)
            self.most_in_flight = max(self.most_in_flight, len(in_flight))
            if not in_flight:
                return
            found = in_flight.pop(self.random.randrange(len(in_flight)))
            if found.image_id in self.fails:
                yield found.image_id, CaptionFailure("not this one")
            elif found.image_id in self.refuses:
                self.refuses.remove(found.image_id)
                yield found.image_id, Generated("I'm sorry, but I cannot see the image.")
            else:
                yield found.image_id, Generated(f"A picture that is {found.picture.width} wide.")


class Batches(Author, InBatches):
    """Answers batch by batch, as models of transformers do."""

    batch_size = WINDOW

    def caption(self, images: Sequence[Image.Image], seeds: Sequence[int]) -> list[Answer]:
        for image in images:
            self.take(f"{image.width - 10:032x}")
        return [Generated(f"A picture that is {image.width} wide.") for image in images]


def pictures(count: int) -> dict[str, Image.Image]:
    return {f"{number:032x}": Image.new("RGB", (10 + number, 8)) for number in range(count)}


def ask(captioner: Captioner, count: int) -> tuple[dict[str, CaptionResult], list[int]]:
    """The results, and how many were handed over at once."""
    results: dict[str, CaptionResult] = {}
    portions: list[int] = []

    def judge(answer: Generated) -> CaptionResult:
        return CaptionResult(answer.text) if answer.text.startswith("A ") else CaptionResult(reason="refusal")

    def hand_over(found: object) -> None:
        assert isinstance(found, dict)
        assert not results.keys() & found.keys(), "one result per picture"
        results.update(found)
        portions.append(len(found))

    Asking(captioner, iter(pictures(count).items()), judge, Watch("c", 1), Meter(0, None), hand_over).run()
    return results, portions


@given(
    count=st.integers(0, 23),
    refused=st.sets(st.integers(0, 22)),
    failing=st.sets(st.integers(0, 22)),
    seed=st.integers(0, 9),
    retries_help=st.booleans(),
)
def test_every_picture_has_one_result_in_whatever_order_answers_come(
    count: int, refused: set[int], failing: set[int], seed: int, retries_help: bool
) -> None:
    ids = list(pictures(23))
    captioner = Streaming(
        None, -1, retries_help, refuses=[ids[n] for n in refused], fails=[ids[n] for n in failing], seed=seed
    )
    results, portions = ask(captioner, count)
    assert results.keys() == set(ids[:count])
    for number in range(count):
        result = results[ids[number]]
        if number in failing:
            assert (result.caption, result.reason) == (None, "captioner_failed")
        elif number in refused and not retries_help:
            assert result.reason == "refusal"
        else:
            assert result.caption == f"A picture that is {10 + number} wide."
    assert captioner.most_in_flight <= WINDOW and max(portions, default=0) <= WINDOW + 1


def test_the_window_stays_full_while_refused_captions_are_asked_for_again() -> None:
    in_flight: list[int] = []

    class Watched(Streaming):
        def stream(self, questions: Iterator[Question | None]) -> Generator[tuple[str, Answer], None, None]:
            count = 0

            def counted() -> Iterator[Question | None]:
                nonlocal count
                for question in questions:
                    count += question is not None
                    yield question

            for answer in super().stream(counted()):
                in_flight.append(count)
                count -= 1
                yield answer

    ask(Watched(None, -1, True, refuses=list(pictures(40))[::3]), 40)
    assert len(in_flight) == 40 + 14
    assert set(in_flight[: -2 * WINDOW]) == {WINDOW}


def test_a_captioner_that_leaves_a_question_without_answer_is_found_out() -> None:
    class Forgets(Streaming):
        def stream(self, questions: Iterator[Question | None]) -> Generator[tuple[str, Answer], None, None]:
            next(questions)
            yield from ()

    with pytest.raises(AssertionError, match="no answer for 1 pictures"):
        ask(Forgets(), 3)


# ------------------------------------------------------------------------------------------------ kill -9


def caption_part(folder: Path, kind: str, dies_at: int = -1) -> pa.Table:
    """Caption one part of 23 pictures, as a worker does, in this process."""
    captioner = {"stream": Streaming, "batches": Batches}[kind](folder / "asked", dies_at)
    rows = []
    for image_id, picture in pictures(23).items():
        file = io.BytesIO()
        picture.save(file, "PNG")
        rows.append({"row_id": len(rows), "image_id": image_id, "jpeg": file.getvalue()})
    inputs = {
        "proxies": table_of("proxies", rows),
        "selection": table_of("selection", [row | {"kept": True} for row in rows]),
    }
    paid = Paid.of(Dataset(folder), "captions", 0)
    return Recaptioner(lambda: captioner, 1)(inputs, lambda *_: None, paid)["captions"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stream", "batches"])
def test_a_killed_process_asks_again_for_what_was_in_flight_and_for_nothing_that_was_noted(
    kind: str, tmp_path: Path
) -> None:
    for dies_at in (1, 8, 14, 23):
        folder = tmp_path / str(dies_at)
        folder.mkdir()
        code = f"from tests.captioning.test_asking import *; caption_part(Path({str(folder)!r}), {kind!r}, {dies_at})"
        assert Python("-c", code, stderr=sys.stderr).wait() == -signal.SIGKILL
        noted = set(Paid.of(Dataset(folder), "captions", 0).noted()["image_id"].to_pylist())
        assert len(noted) > dies_at - 2 * WINDOW
        table = caption_part(folder, kind)
        asked = Counter((folder / "asked").read_text().split())
        assert table.schema == tables.schema_of("captions") and table["reason"].null_count == 23
        assert {asked[image_id] for image_id in noted} <= {1}, "what was noted is not asked for again"
        assert asked.total() <= 23 + 2 * WINDOW and len(asked) == 23
