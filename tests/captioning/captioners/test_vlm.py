"""Tiny models of the real classes, saved as published ones are: the answer alone, in order, whatever the batch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

from captioning.captioners import vlm
from captioning.captioners.base import Generated
from captioning.captioners.make import make_captioner
from captioning.captioners.vlm import ALPHA_PROMPT, SeededSampler, VlmCaptioner, by_size, prompt_length
from schemas.captioners import Caption, Vlm
from tests.captioning.tiny_models import FAMILIES, text_only

SEEDS = range(7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family, made once."""
    made: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in made:
            made[family] = FAMILIES[family](tmp_path_factory.mktemp(family))
        return made[family]

    return get


@pytest.fixture(scope="module")
def pictures(photos: dict[str, Image.Image]) -> list[Image.Image]:
    """Seven photographs of different sizes and shapes, so that a picture's tokens differ."""
    boxes = [(0, 0, 60, 40), (0, 0, 200, 90), (10, 10, 60, 200), (0, 0, 100, 100), (5, 0, 45, 40), (0, 0, 90, 30)]
    boxes.append((0, 0, 120, 180))
    return [photo.resize((240, 240)).crop(box) for photo, box in zip(photos.values(), boxes, strict=True)]


def made(folder: Path, **knobs: Any) -> VlmCaptioner:
    return VlmCaptioner(Vlm.from_mapping({"weights": str(folder), "max_new_tokens": 10, **knobs}), "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_gets_the_captions_of_single_pictures_in_order(
    family: str, folder: Callable[[str], Path], pictures: list[Image.Image]
) -> None:
    captioner = made(folder(family), batch_size=3)
    together = captioner.caption(pictures, SEEDS)
    alone = [captioner.caption([picture], [0])[0] for picture in pictures]
    assert together == alone
    assert len({answer.text for answer in together if isinstance(answer, Generated)}) > 2, "pictures make a difference"


def test_the_batch_is_chosen_by_memory_with_a_caption_of_just_so_many_tokens(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Generated] = []

    def choose(device: torch.device, most_tokens: int, write: Callable[[int], list[Generated]]) -> int:
        tried.extend(write(7))
        return 3 + most_tokens

    monkeypatch.setattr(vlm, "batch_size_for", choose)
    captioner = made(folder("llava"))
    assert [(answer.ended, answer.num_tokens) for answer in tried] == [(False, 7)]
    assert (captioner._at_once, captioner.batch_size) == (13, 13 * vlm.WINDOW_BATCHES)
    assert made(folder("llava"), batch_size=2).batch_size == 2 * vlm.WINDOW_BATCHES


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_is_the_text_after_the_prompt(
    family: str, folder: Callable[[str], Path], pictures: list[Image.Image]
) -> None:
    captioner = made(folder(family))
    model = AutoModelForImageTextToText.from_pretrained(folder(family))
    words = captioner._processor.tokenizer
    for picture in pictures[:3]:
        inputs = captioner._inputs([picture])
        written = model.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=10)[0].tolist()
        start = 1 if family == "florence2" else inputs["input_ids"].shape[1]
        tokens = written[start:]
        end = tokens.index(2) if 2 in tokens else len(tokens)
        expected = Generated(words.decode(tokens[:end], skip_special_tokens=True), end < len(tokens), end)
        assert captioner.caption([picture], [0]) == [expected]


@pytest.mark.parametrize("family", ["llava", "llava_without_template"])
def test_llava_gets_the_prompt_it_was_trained_on(
    family: str, folder: Callable[[str], Path], pictures: list[Image.Image]
) -> None:
    captioner = made(folder(family))
    assert captioner.prompt == ALPHA_PROMPT
    inputs = captioner._inputs(pictures[:1])
    asked = captioner._processor.tokenizer.decode(inputs["input_ids"][0])
    assert asked.replace("<image>", "") == f"USER: \n{ALPHA_PROMPT} ASSISTANT:"
    assert asked.count("<image>") == 4  # 28 px in patches of 14


def test_a_model_that_knows_tasks_gets_its_own(folder: Callable[[str], Path]) -> None:
    assert made(folder("florence2")).prompt == "<MORE_DETAILED_CAPTION>"
    assert made(folder("blip2")).prompt is None
    assert made(folder("blip2"), prompt="a photograph of").prompt == "a photograph of"
    assert made(folder("llava"), prompt="").prompt is None


def test_batches_are_padded_on_the_left(folder: Callable[[str], Path], pictures: list[Image.Image]) -> None:
    inputs = made(folder("qwen2_vl"))._inputs(pictures[:2])
    mask = inputs["attention_mask"]
    assert mask.sum(1).tolist()[0] < mask.shape[1], "pictures of different size take different numbers of tokens"
    assert mask[:, -1].tolist() == [1, 1]


def test_an_answer_records_whether_it_ended_or_was_cut(
    folder: Callable[[str], Path], pictures: list[Image.Image], tmp_path: Path
) -> None:
    captioner = made(folder("llava"))
    (cut,) = captioner.caption(pictures[:1], [0])
    inputs = captioner._inputs(pictures[:1])
    tokens = captioner._model.generate(**inputs, do_sample=False, max_new_tokens=10)[0].tolist()
    tokens = tokens[inputs["input_ids"].shape[1] :]

    def text(of: list[int]) -> str:
        return str(captioner._processor.tokenizer.decode(of, skip_special_tokens=True))  # which weights by chance say

    assert cut == Generated(text(tokens), ended=False, num_tokens=10)
    shutil.copytree(folder("llava"), tmp_path / "ending")
    settings = tmp_path / "ending" / "generation_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"eos_token_id": [2, tokens[4]]}))
    (ended,) = made(tmp_path / "ending").caption(pictures[:1], [0])
    end = tokens.index(tokens[4])
    assert ended == Generated(text(tokens[:end]), ended=True, num_tokens=end)


@pytest.mark.slow
def test_a_drawn_caption_follows_its_seed_and_not_its_batch(
    folder: Callable[[str], Path], pictures: list[Image.Image]
) -> None:
    captioner = made(folder("llava"), decoding="sampled", temperature=1.0, top_p=0.9, batch_size=3)
    assert captioner.retries_help
    first = captioner.caption(pictures, SEEDS)
    assert captioner.caption(pictures, SEEDS) == first
    assert [captioner.caption([one], [seed])[0] for one, seed in zip(pictures, SEEDS, strict=True)] == first
    again = captioner.caption(pictures, range(100, 107))
    assert sum(one != other for one, other in zip(first, again, strict=True)) >= 6


def test_greedy_takes_no_notice_of_seeds(folder: Callable[[str], Path], pictures: list[Image.Image]) -> None:
    captioner = made(folder("llava"))
    assert not captioner.retries_help
    assert captioner.caption(pictures, SEEDS) == captioner.caption(pictures, range(100, 107))


def test_a_row_says_model_revision_prompt_and_parameters(folder: Callable[[str], Path]) -> None:
    captioner = made(folder("llava"))
    name, _, digits = captioner.name.partition("@")
    assert name == folder("llava").name
    assert captioner.revision.startswith(f"folder-{digits}")
    assert captioner.parameters == {"decoding": "greedy", "dtype": "fp32", "max_new_tokens": 10}
    drawn = made(folder("llava"), decoding="sampled", dtype="bf16")
    assert drawn.parameters | {"dtype": "bf16", "temperature": 0.2, "top_p": 1.0} == drawn.parameters


@pytest.mark.slow
def test_half_precision_runs(folder: Callable[[str], Path], pictures: list[Image.Image]) -> None:
    for family in ("llava", "qwen2_vl", "florence2"):
        answers = made(folder(family), dtype="bf16").caption(pictures, SEEDS)
        assert all(isinstance(answer, Generated) for answer in answers)


# ------------------------------------------------------------------------------------------------ what can be wrong


def refusal(folder: Path | str, **knobs: Any) -> str:
    with pytest.raises(ValueError) as refused:
        made(Path(folder), **knobs)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_weights_that_are_not_here_are_named_with_size_and_command() -> None:
    with pytest.raises(ValueError) as refused:
        make_captioner(Caption(captioner="vlm"))
    message = str(refused.value)
    for part in ("llava-hf/llava-1.5-7b-hf", "14 GB", "`hf download ", "then set caption.vlm.weights=llava-1.5-7b-hf"):
        assert part in message
    assert "\n" not in message


def test_a_text_model_is_refused(tmp_path: Path) -> None:
    message = refusal(text_only(tmp_path))
    assert "holds a llama model, which does not write text about pictures" in message


def test_a_cut_file_of_weights_is_named(folder: Callable[[str], Path], tmp_path: Path) -> None:
    broken = tmp_path / "llava"
    shutil.copytree(folder("llava"), broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    message = refusal(broken)
    assert str(broken) in message and "the weights cannot be loaded" in message


def test_weights_that_lack_a_tensor_are_not_made_up(folder: Callable[[str], Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "llava"
    shutil.copytree(folder("llava"), broken)
    tensors = load_file(broken / "model.safetensors")
    lost = next(name for name in tensors if "self_attn.q_proj" in name)
    save_file(
        {name: tensor for name, tensor in tensors.items() if name != lost},
        broken / "model.safetensors",
        metadata={"format": "pt"},
    )
    assert "lacks " in refusal(broken) and "q_proj" in refusal(broken)


def test_a_folder_without_weights_or_processor_is_named(folder: Callable[[str], Path], tmp_path: Path) -> None:
    broken = tmp_path / "llava"
    shutil.copytree(folder("llava"), broken)
    (broken / "model.safetensors").rename(tmp_path / "aside")
    assert f"{broken}: no .safetensors or .bin weights in this folder" in refusal(broken)
    (tmp_path / "aside").rename(broken / "model.safetensors")
    for name in ("preprocessor_config.json", "processor_config.json", "tokenizer.json"):
        (broken / name).unlink(missing_ok=True)
    assert "its processor" in refusal(broken)
    (broken / "config.json").unlink()
    assert "weights missing" in refusal(broken)


def test_code_that_comes_with_weights_is_not_run(tmp_path: Path) -> None:
    config = {"model_type": "shiny", "auto_map": {"AutoConfig": "configuration_shiny.ShinyConfig"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "configuration_shiny.py").write_text("raise SystemExit('it was run')")
    assert "code that comes with weights is never run" in refusal(tmp_path)


def test_a_gpu_that_this_machine_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^caption\.vlm\.device: this machine has no cuda:99 "):
        VlmCaptioner(Vlm(), "cuda:99")


# ------------------------------------------------------------------------------------------------ its parts


def test_pictures_of_like_size_go_together_and_none_is_lost() -> None:
    sizes = [(10, 10), (300, 200), (20, 10), (200, 300), (15, 10)]
    assert by_size(sizes, 2) == [[3, 1], [2, 4], [0]]
    assert by_size([], 2) == []


def test_the_prompt_is_cut_where_the_output_repeats_it() -> None:
    prompt = torch.tensor([[0, 5, 6], [7, 5, 6]])
    assert prompt_length(prompt, torch.tensor([[0, 5, 6, 9], [7, 5, 6, 8]])) == 3
    assert prompt_length(prompt, torch.tensor([[9, 9, 9, 9], [8, 8, 8, 8]])) == 0
    assert prompt_length(prompt, torch.tensor([[9], [8]])) == 0
    assert prompt_length(None, torch.tensor([[9], [8]])) == 0


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    logits = torch.tensor([2.0, 0.0, 1.0, -1.0, -torch.inf])
    num_rows = 20_000
    sampler = SeededSampler(range(num_rows), temperature=0.7, top_p=1.0)
    chosen = sampler(torch.zeros(num_rows, 1), logits.expand(num_rows, -1)).argmax(-1)
    shares = torch.bincount(chosen, minlength=5) / num_rows
    expected = (logits / 0.7).softmax(-1)
    deviations = (expected * (1 - expected) / num_rows).sqrt()
    assert (abs(shares - expected) <= 4 * deviations).all(), (shares, expected)
    assert shares[4] == 0


def test_top_p_keeps_the_likeliest_tokens_and_always_one() -> None:
    logits = torch.tensor([0.1, 0.5, 0.4]).log().expand(2000, -1)

    def drawn(top_p: float) -> set[int]:
        return set(SeededSampler(range(2000), 1.0, top_p)(torch.zeros(2000, 1), logits).argmax(-1).tolist())

    assert drawn(1.0) == {0, 1, 2}
    assert drawn(0.6) == {1, 2}
    assert drawn(0.3) == {1}


def test_a_row_draws_the_same_in_any_batch_and_at_each_step_anew() -> None:
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    whole, single = SeededSampler(range(4), 1.0, 1.0), SeededSampler([2], 1.0, 1.0)
    steps = [(whole(logits, logits)[2:3], single(logits[2:3], logits[2:3])) for _ in range(5)]
    assert all(torch.equal(one, other) for one, other in steps)
    assert len({int(one.argmax()) for one, _ in steps}) > 1
