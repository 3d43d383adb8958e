"""The captioner around an engine: the one here decodes by transformers, and ends captions one by one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from threading import current_thread
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from captioning.captioners.base import Answer, CaptionerUnusable, CaptionFailure, Generated, Question
from captioning.captioners.make import find_captioner
from captioning.captioners.share_captioner import (
    Decoding,
    RecipeCaptioner,
    ShareCaptioner,
    VllmCaptioner,
    vllm_captioner,
    vllm_engine,
)
from captioning.captioners.share_captioner.generation import generate_ids
from captioning.captioners.share_captioner.vllm_engine import Written
from schemas.captioners import Caption
from schemas.captioners import ShareCaptioner as Section

Checkpoint = Callable[[dict[str, Tensor] | None], Path]
AT_ONCE = 4


class AtOnce(Executor):
    """Does what it is given before `submit` returns."""

    def __init__(self, *_given: object) -> None:
        pass

    def submit(self, task: Callable[..., Any], /, *given: Any, **knobs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(task(*given, **knobs))
        return done


class TransformersEngine:
    """Writes each caption by transformers, and hands it over after 5 to 24 steps."""

    known: dict[bytes, list[int]] = {}
    """prompt -> ids, of all tests"""

    def __init__(self, captioner: ShareCaptioner, folder: Path, decoding: Decoding, stops: list[int], **knobs: Any):
        self.captioner, self.folder, self.decoding, self.stops, self.knobs = captioner, folder, decoding, stops, knobs
        self.waiting: dict[str, list[int]] = {}
        self.running: dict[str, tuple[int, list[int]]] = {}
        self.busy: list[int] = []
        self.dropped: list[str] = []
        self.refuse: set[int] = set()
        self.is_closed = self.fails = False

    def add(self, name: str, prompt: Tensor, seed: int) -> None:
        assert prompt.shape == (self.knobs["prompt_length"], 64)
        if seed in self.refuse:
            raise ValueError("the prompt is too long")
        key = prompt.numpy().tobytes()
        if key not in self.known:
            language = self.captioner.model.language
            (self.known[key],) = generate_ids(language, prompt[None], self.decoding, [seed], self.stops)
        self.waiting[name] = self.known[key]

    def step(self) -> Sequence[tuple[str, Written]]:
        if self.fails:
            raise CaptionerUnusable("the device is gone")
        while self.waiting and len(self.running) < self.knobs["at_once"]:
            name = next(iter(self.waiting))
            self.running[name] = (0, self.waiting.pop(name))
        self.busy.append(len(self.running))
        self.running = {name: (steps + 1, ids) for name, (steps, ids) in self.running.items()}
        ended = [(name, ids) for name, (steps, ids) in self.running.items() if steps == 5 + sum(ids) % 20]
        for name, _ in ended:
            del self.running[name]
        return ended

    def drop(self, names: Collection[str]) -> None:
        self.dropped += names
        for name in names:
            self.waiting.pop(name, None)
            self.running.pop(name, None)

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture(scope="module")
def folder(checkpoint: Checkpoint) -> Path:
    return checkpoint(None)


@pytest.fixture
def section(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Section:
    monkeypatch.setenv("SIGMA_SCRATCH", str(tmp_path))
    return Section(weights=str(folder), decoding="greedy", max_new_tokens=24, device="cpu", batch_size=AT_ONCE)


@pytest.fixture
def threaded(section: Section, captioner: ShareCaptioner) -> VllmCaptioner:
    return VllmCaptioner(section, "cpu", start=lambda *given, **knobs: TransformersEngine(captioner, *given, **knobs))


@pytest.fixture
def made(threaded: VllmCaptioner, monkeypatch: pytest.MonkeyPatch) -> VllmCaptioner:
    """The same without its thread, so that the order of things does not depend on the machine."""
    monkeypatch.setattr(vllm_captioner, "ThreadPoolExecutor", AtOnce)
    return threaded


@pytest.fixture(scope="module")
def pictures(photos: dict[str, Image.Image]) -> list[Image.Image]:
    """14 that differ."""
    return [photo.rotate(angle) for angle in (0, 90) for photo in photos.values()]


def engine_of(captioner: VllmCaptioner) -> Any:
    return captioner._engine


def questions_about(pictures: Sequence[Image.Image]) -> list[Question]:
    return [Question(str(number), picture, number) for number, picture in enumerate(pictures)]


@pytest.mark.slow
def test_the_texts_are_those_of_transformers(
    made: VllmCaptioner, section: Section, pictures: list[Image.Image]
) -> None:
    answers = list(made.stream(iter(questions_about(pictures))))
    expected = RecipeCaptioner(section, "cpu").caption(pictures, range(len(pictures)))
    assert len(answers) == len(pictures)
    assert [dict(answers)[str(number)] for number in range(len(pictures))] == expected
    assert [name for name, _ in answers] != sorted((name for name, _ in answers), key=int), "a short one comes first"
    assert not engine_of(made).dropped
    knobs = engine_of(made).knobs
    assert (knobs["at_once"], knobs["dtype"], knobs["memory_share"]) == (AT_ONCE, torch.float32, None)
    assert (engine_of(made).folder / "config.json").is_file()


def test_prompts_are_made_on_a_thread_of_their_own(
    threaded: VllmCaptioner, section: Section, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, prompts_of = set(), threaded._prompts_of

    def noted(batch: Sequence[Image.Image]) -> Tensor:
        threads.add(current_thread())
        return prompts_of(batch)

    monkeypatch.setattr(threaded, "_prompts_of", noted)
    answers = dict(threaded.stream(iter(questions_about(pictures[:9]))))
    assert [answers[str(number)] for number in range(9)] == RecipeCaptioner(section, "cpu").caption(
        pictures[:9], range(9)
    )
    assert len(threads) == 1 and current_thread() not in threads


def test_the_places_stay_taken_while_there_are_pictures(
    made: VllmCaptioner, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts are made in no time here: then a caption that ends has a successor at the next step."""
    prompts = {id(picture): prompt for picture, prompt in zip(pictures, made._prompts_of(pictures), strict=True)}
    monkeypatch.setattr(made, "_prompts_of", lambda batch: torch.stack([prompts[id(picture)] for picture in batch]))
    in_flight, most = set(), 0

    def questions() -> Iterator[Question]:
        nonlocal most
        for number in range(120):
            in_flight.add(str(number))
            most = max(most, len(in_flight))
            yield Question(str(number), pictures[number % len(pictures)], number)

    for name, _ in made.stream(questions()):
        in_flight.remove(name)
    assert not in_flight and most <= made.window == AT_ONCE + AT_ONCE // 2
    busy = engine_of(made).busy
    last = max(step for step, count in enumerate(busy) if count == AT_ONCE)
    assert sum(count == AT_ONCE for count in busy[:last]) >= 0.95 * last, busy


def test_what_is_asked_again_comes_in_beside_the_rest(made: VllmCaptioner, pictures: list[Image.Image]) -> None:
    """As the job asks: None while it waits for an answer, after which there may be another question."""
    again: list[Question] = []
    in_flight = set()

    def questions() -> Iterator[Question | None]:
        fresh = iter(questions_about(pictures[:6]))
        while True:
            question = again.pop() if again else next(fresh, None)
            if question is None and not in_flight:
                return
            if question is not None:
                in_flight.add(question.image_id)
            yield question

    given: list[tuple[str, Answer]] = []
    for name, answer in made.stream(questions()):
        in_flight.remove(name)
        given.append((name, answer))
        if [other for other, _ in given].count(name) == 1:
            again.append(Question(name, pictures[int(name)], int(name)))
    assert sorted(name for name, _ in given) == sorted(2 * [str(number) for number in range(6)])
    assert all(answer == dict(given)[name] for name, answer in given)


def test_a_refused_prompt_is_a_failure_of_its_picture_alone(made: VllmCaptioner, pictures: list[Image.Image]) -> None:
    engine_of(made).refuse = {2, 5}
    answers = dict(made.stream(iter(questions_about(pictures[:8]))))
    failed = {name for name, answer in answers.items() if isinstance(answer, CaptionFailure)}
    assert failed == {"2", "5"} and len(answers) == 8
    assert answers["2"] == CaptionFailure("the prompt is too long")


def test_a_picture_that_the_tower_fails_on_spoils_no_other(
    made: VllmCaptioner, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts_of = made._prompts_of

    def failing(batch: Sequence[Image.Image]) -> Tensor:
        if any(picture is pictures[3] for picture in batch):
            raise torch.OutOfMemoryError("out of memory")
        return prompts_of(batch)

    monkeypatch.setattr(made, "_prompts_of", failing)
    answers = dict(made.stream(iter(questions_about(pictures[:7]))))
    assert answers["3"] == CaptionFailure("out of memory")
    assert sum(isinstance(answer, Generated) for answer in answers.values()) == 6


def test_only_failures_end_too(made: VllmCaptioner, pictures: list[Image.Image]) -> None:
    engine_of(made).refuse = set(range(30))
    answers = list(made.stream(iter(questions_about(pictures))))
    assert len(answers) == len(pictures)
    assert list(made.stream(iter(()))) == []


def test_a_stream_that_is_left_drops_what_is_in_flight(made: VllmCaptioner, pictures: list[Image.Image]) -> None:
    stream = made.stream(iter(questions_about(pictures)))
    first = next(stream)
    engine = engine_of(made)
    assert engine.waiting or engine.running
    stream.close()
    assert engine.dropped and not engine.waiting and not engine.running
    assert dict(made.stream(iter(questions_about(pictures))))[first[0]] == first[1], "the next stream is not disturbed"


def test_an_engine_that_fails_stops_the_job(made: VllmCaptioner, pictures: list[Image.Image]) -> None:
    engine_of(made).fails = True
    with pytest.raises(CaptionerUnusable, match="the device is gone"):
        list(made.stream(iter(questions_about(pictures))))


def test_close_closes_the_engine(made: VllmCaptioner) -> None:
    made.close()
    assert engine_of(made).is_closed


def test_captions_longer_than_the_model_reads_are_refused(section: Section, captioner: ShareCaptioner) -> None:
    tall = section.model_copy(update={"max_new_tokens": 2047})
    with pytest.raises(ValueError, match=r"max_new_tokens=2047: at most 1998 with engine=vllm"):
        VllmCaptioner(tall, "cpu", start=lambda *given, **knobs: TransformersEngine(captioner, *given, **knobs))


def test_a_gpu_is_given_to_vllm_but_for_what_is_taken_and_a_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.empty_cache", lambda: None)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (76 * 10**9, 80 * 10**9))
    gpu = torch.device("cuda", 0)
    assert vllm_engine._share_of_gpu(gpu, None) == {"gpu_memory_utilization": 0.87}
    assert vllm_engine._share_of_gpu(gpu, 0.4) == {"gpu_memory_utilization": 0.4}


def test_a_cpu_gets_room_for_every_caption(made: VllmCaptioner) -> None:
    engine = engine_of(made)
    room = vllm_engine._room_on_cpu(engine.folder, torch.float32, 4, 300)["kv_cache_memory_bytes"]
    assert 4 * 300 * 2 * 2 * 64 * 4 <= room < 2**22


def test_a_vllm_that_cannot_be_imported_is_named_with_what_to_type(
    section: Section, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ValueError, match=r"vllm cannot be imported \(.*\); install it .* -c constraints-vllm\.txt`$"):
        VllmCaptioner(section, "cpu")


def test_without_vllm_the_recipe_is_refused_in_one_line(section: Section, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = __import__("importlib.util").util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None if name == "vllm" else find_spec(name))
    on_vllm = section.model_copy(update={"engine": "vllm"})
    for refuse in (find_captioner, lambda caption: VllmCaptioner(caption.share_captioner, "cpu")):
        with pytest.raises(ValueError) as error:
            refuse(Caption(captioner="share_captioner", share_captioner=on_vllm))
        assert "pip install 'sigma-pipeline[vllm]' -c constraints-vllm.txt" in str(error.value)
        assert "\n" not in str(error.value)
