"""Against vLLM itself, on a CPU: `make test-vllm` installs it in an environment of its own; elsewhere these skip.

vLLM's attention takes heads of 32 and more on a CPU, so the tiny model is wider here than in the other tests.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from captioning.captioners.base import CaptionFailure, Generated, Question, seed_of
from captioning.captioners.make import find_captioner, make_captioner
from captioning.captioners.share_captioner import Decoding, RecipeCaptioner, ShareCaptioner, VllmCaptioner
from captioning.captioners.share_captioner.files import WeightFiles
from captioning.captioners.share_captioner.generation import generate_ids
from captioning.captioners.share_captioner.language import EOS
from captioning.captioners.share_captioner.language_folder import language_folder
from captioning.captioners.share_captioner.loading import read_blueprint
from captioning.captioners.share_captioner.vllm_engine import VllmEngine, _imported
from captioning.recaption import Recaptioner
from schemas.captioners import Caption
from schemas.captioners import ShareCaptioner as Section

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed: make test-vllm"),
]
UNKNOWN = 0
"""The id that vLLM writes for each position of a prompt of embeddings, and therefore counts as used: unk, which no
caption holds."""


@pytest.fixture(scope="module")
def weights(checkpoint: Callable[..., Path], tensors: Callable[..., dict[str, Tensor]]) -> Path:
    return checkpoint(tensors(404, 128))


@pytest.fixture(scope="module", autouse=True)
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIGMA_SCRATCH", str(tmp_path_factory.mktemp("scratch")))
        yield


@pytest.fixture(scope="module")
def questions(photos: dict[str, Image.Image]) -> list[Question]:
    """32 pictures, each with its own seed."""
    pictures = [photo.rotate(angle) for angle in range(0, 100, 20) for photo in photos.values()][:32]
    return [Question(str(number), picture, seed_of(f"picture {number}")) for number, picture in enumerate(pictures)]


@pytest.fixture
def made(weights: Path) -> Iterator[Callable[..., VllmCaptioner]]:
    captioners = []

    def make(**knobs: Any) -> VllmCaptioner:
        captioners.append(VllmCaptioner(section(weights, engine="vllm", **knobs), "cpu"))
        return captioners[-1]

    yield make
    for captioner in captioners:
        captioner.close()


def section(weights: Path, **knobs: Any) -> Section:
    usual = {"weights": str(weights), "decoding": "greedy", "max_new_tokens": 64, "device": "cpu", "batch_size": 8}
    return Section(**(usual | knobs))


def by_transformers(weights: Path, questions: list[Question], **knobs: Any) -> Mapping[str, Any]:
    return dict(RecipeCaptioner(section(weights, **knobs), "cpu").stream(iter(questions)))


class UnknownWasUsed(LogitsProcessor):
    """Penalises id 0 from the start, as vLLM does; from its first use on, transformers does so too."""

    def __init__(self, penalty: float) -> None:
        self._penalty = penalty

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        unused = (input_ids != UNKNOWN).all(dim=1)
        score = scores[:, UNKNOWN]
        penalised = torch.where(score < 0, score * self._penalty, score / self._penalty)
        scores[:, UNKNOWN] = torch.where(unused, penalised, score)
        return scores


def test_greedy_captions_are_those_of_transformers(
    made: Callable[..., VllmCaptioner], weights: Path, questions: list[Question]
) -> None:
    """Word for word, where the toy's id 0 does not come up; with id 0 penalised alike, in every picture."""
    answers = dict(made().stream(iter(questions)))
    plain = by_transformers(weights, questions)
    ours = ShareCaptioner.load(weights)
    decoding = Decoding("greedy", max_new_tokens=64)
    rows = ours.model.language.generate(
        inputs_embeds=ours.prompts([question.picture for question in questions]),
        generation_config=GenerationConfig(
            max_new_tokens=64, repetition_penalty=1.5, eos_token_id=ours.stops(decoding), pad_token_id=EOS
        ),
        logits_processor=LogitsProcessorList([UnknownWasUsed(1.5)]),
    )
    ends = set(ours.stops(decoding))
    expected = {}
    for number, row in enumerate(rows.tolist()):
        end = next((place for place, token in enumerate(row) if token in ends), len(row) - 1)
        expected[str(number)] = ours.answer(row[: end + 1])
    assert answers == expected
    assert sum(answers[name] == plain[name] for name in plain) >= 30


@pytest.mark.parametrize("rotary", ["reference", "exact"])
def test_both_rotaries_are_those_of_transformers(
    rotary: str, weights: Path, questions: list[Question], tmp_path: Path
) -> None:
    """200 ids of 32 pictures without penalty: all equal to the same rotary's, none to the other's."""
    decoding = Decoding("greedy", max_new_tokens=200, repetition_penalty=1.0)
    pictures = [question.picture for question in questions]
    expected = {}
    for name in ("reference", "exact"):
        ours = ShareCaptioner.load(weights, name)  # type: ignore[arg-type]
        prompts = ours.prompts(pictures)
        expected[name] = generate_ids(ours.model.language, prompts, decoding, range(32), [])
    blueprint, _ = read_blueprint(WeightFiles(weights), {})
    folder = language_folder(blueprint, rotary, "fp32", tmp_path)  # type: ignore[arg-type]
    rows = ids_by_vllm(folder, decoding, prompts)
    other = "exact" if rotary == "reference" else "reference"
    assert rows == expected[rotary]
    assert sum(ours == theirs for ours, theirs in zip(rows, expected[other], strict=True)) == 0


def test_a_seed_gives_the_same_caption_alone_in_a_batch_and_reversed(
    made: Callable[..., VllmCaptioner], questions: list[Question]
) -> None:
    captioner = made(decoding="sampled")
    together = dict(captioner.stream(iter(questions)))
    assert dict(captioner.stream(iter(questions[::-1]))) == together
    for question in questions[:8]:
        assert dict(captioner.stream(iter([question]))) == {question.image_id: together[question.image_id]}
    others = [Question(question.image_id, question.picture, question.seed + 1) for question in questions]
    assert not set(dict(captioner.stream(iter(others))).items()) & set(together.items())
    assert captioner.retries_help and captioner.parameters["engine"] == "vllm"


def test_a_caption_that_is_cut_says_so_and_one_that_ends_does_not(
    made: Callable[..., VllmCaptioner], questions: list[Question]
) -> None:
    answers = [answer for _, answer in made().stream(iter(questions)) if isinstance(answer, Generated)]
    assert len(answers) == 32
    assert {answer.ended for answer in answers} == {True, False}
    assert all(answer.ended or answer.num_tokens == 64 for answer in answers)


def test_a_prompt_that_vllm_refuses_fails_alone_and_a_left_stream_disturbs_nothing(
    made: Callable[..., VllmCaptioner], questions: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    captioner = made()
    expected = dict(captioner.stream(iter(questions)))
    stream = captioner.stream(iter(questions))
    next(stream)
    stream.close()
    prompts_of = captioner._prompts_of

    def too_long(pictures: list[Image.Image]) -> Any:
        made = prompts_of(pictures)
        return [
            prompt.repeat(9, 1) if picture is questions[3].picture else prompt
            for picture, prompt in zip(pictures, made, strict=True)
        ]

    monkeypatch.setattr(captioner, "_prompts_of", too_long)
    answers = dict(captioner.stream(iter(questions)))
    failure = answers.pop("3")
    assert isinstance(failure, CaptionFailure) and "vLLM refuses the prompt" in failure.reason
    assert answers == {name: answer for name, answer in expected.items() if name != "3"}


def test_the_job_captions_with_it(
    weights: Path,
    questions: list[Question],
    part: Callable[..., pa.Table],
    jpeg: Callable[[Image.Image], bytes],
    image_ids: Callable[[int], list[str]],
) -> None:
    ids = image_ids(12)
    proxies = part("proxies", image_id=ids, jpeg=[jpeg(question.picture) for question in questions[:12]])
    selection = part("selection", image_id=ids, kept=[True] * 10 + [False] * 2)
    caption = Caption(captioner="share_captioner", share_captioner=section(weights, engine="vllm"))
    find_captioner(caption)
    captioner = make_captioner(caption)
    rows = Recaptioner(lambda: captioner, 2, languages=None)(
        {"proxies": proxies, "selection": selection}, lambda *_: None
    )["captions"].to_pylist()
    assert isinstance(captioner, VllmCaptioner)
    captioner.close()
    assert [row["reason"] == "not_selected" for row in rows] == [False] * 10 + [True] * 2
    assert {json.loads(row["parameters"])["engine"] for row in rows} == {"vllm"}
    assert all(row["num_tokens"] for row in rows[:10])


def test_what_cannot_start_is_refused_in_one_line(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"num_hidden_layers": 2, "hidden_size": 8}))
    with pytest.raises(ValueError, match=r"^caption.share_captioner.engine=vllm cannot start on cpu: .*") as error:
        ids_by_vllm(tmp_path, Decoding("greedy"), torch.zeros(1, 4, 8))
    assert "\n" not in str(error.value)


def test_a_vllm_for_another_device_is_refused() -> None:
    with pytest.raises(ValueError, match=r"device is cuda, and this vllm is one for cpu; set device=auto"):
        _imported(torch.device("cuda", 0))


@pytest.mark.parametrize(("penalty", "name"), [(1.0, "greedy_ids"), (1.5, "greedy_ids_reppen1.5")])
def test_the_ids_of_the_published_code(penalty: float, name: str, fixtures: Path, tmp_path: Path) -> None:
    ours = ShareCaptioner.load(fixtures / "share_captioner")
    with np.load(fixtures / "share_captioner" / "io.npz") as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files}
    prompts = ours.prompt(arrays["pixel_values"], arrays["input_ids_before"], arrays["input_ids_after"])
    blueprint, _ = read_blueprint(WeightFiles(fixtures / "share_captioner"), {})
    folder = language_folder(blueprint, "reference", "fp32", tmp_path)
    widen_heads(folder)
    decoding = Decoding("greedy", max_new_tokens=16, repetition_penalty=penalty)
    assert ids_by_vllm(folder, decoding, prompts) == arrays[name].tolist()


def ids_by_vllm(folder: Path, decoding: Decoding, prompts: Tensor) -> list[list[int]]:
    """The ids that vLLM writes after each prompt; none ends before `max_new_tokens`."""
    engine = VllmEngine(
        folder,
        decoding,
        [],
        dtype=torch.float32,
        device=torch.device("cpu"),
        at_once=16,
        prompt_length=prompts.shape[1],
    )
    for number, prompt in enumerate(prompts):
        engine.add(str(number), prompt, seed=0)
    rows: dict[str, Any] = {}
    while len(rows) < len(prompts):
        rows |= dict(engine.step())
    engine.close()
    return [rows[str(number)] for number in range(len(prompts))]


def widen_heads(folder: Path) -> None:
    """Make heads of 16 into heads of 32 that compute the same: vLLM's attention on a CPU takes none under 32.

    The new half of each head is zero and is not rotated. Scores are divided by the root of the head's size, which has
    doubled, so the queries grow by the root of 2.
    """
    config = json.loads((folder / "config.json").read_text())
    heads, size = config["num_attention_heads"], config["hidden_size"] // config["num_attention_heads"]
    tensors = load_file(folder / "model-00001.safetensors")
    for name, tensor in tensors.items():
        if "self_attn.o_proj.weight" in name:
            split = tensor.view(-1, heads, size)
            tensors[name] = torch.cat((split, torch.zeros_like(split)), dim=2).flatten(1).contiguous()
        elif "self_attn" in name and "o_proj" not in name:
            split = tensor.view(heads, size, -1) * (2**0.5 if "q_proj" in name else 1)
            tensors[name] = torch.cat((split, torch.zeros_like(split)), dim=1).reshape(
                2 * heads * size, *tensor.shape[1:]
            )
    save_file(tensors, folder / "model-00001.safetensors", {"format": "pt"})
    config["head_dim"] = 2 * size
    config["partial_rotary_factor"] = config["rope_parameters"]["partial_rotary_factor"] = 0.5
    (folder / "config.json").write_text(json.dumps(config))
